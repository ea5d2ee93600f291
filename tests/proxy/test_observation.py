"""Whoever observes a run sees each exchange as it goes on, and what it carries; the traffic does not feel it."""

import asyncio
from dataclasses import replace

import pytest

from proxy.capture.exchange import Phase, Stamp, Transport
from proxy.capture.observation import Observation
from proxy.capture.redact import Redactor
from tests.loops import on_each_loop
from tests.proxy.origin import Origin, answering, echoing, switching_protocols
from tests.proxy.wire import RESPONSES, post, tunnel, upgrade


class Watch:
    """Collects what an observer is told."""

    def __init__(self):
        self.seen, self.pieces, self.changed = [], [], asyncio.Condition()

    def observation(self, **options):
        return Observation(Redactor(bytes(32)), (self._see,), (self.pieces.append,), **options)

    def _see(self, exchange):
        self.seen.append(exchange)
        task = asyncio.ensure_future(self._tell())
        self._task = task

    async def _tell(self):
        async with self.changed:
            self.changed.notify_all()

    async def wait_for(self, phase):
        async with self.changed:
            await self.changed.wait_for(lambda: any(one.phase is phase for one in self.seen))
        return [one for one in self.seen if one.phase is phase][-1]

    def carried(self, from_client):
        return b"".join(piece.data for piece in self.pieces if piece.from_client is from_client)


@pytest.mark.parametrize(("gather_s", "phases"), [(60.0, []), (0.001, [Phase.DECIDED])])
def test_what_follows_soon_is_told_alone(run, stage, gather_s, phases):
    async def scenario():
        watch = Watch()
        origin = Origin(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"))
        observation = replace(watch.observation(gather_s=gather_s), pieces=())
        async with stage(origin, observation=observation) as it, tunnel(it.proxy) as wire:
            await wire.send(post(RESPONSES, body=b"question")[: -len(b"question")])
            if phases:
                await watch.wait_for(Phase.DECIDED)  # while nothing goes on
            await wire.send(b"question")
            await wire.receive_until(b"hello")
            ended = await watch.wait_for(Phase.ENDED)
        assert [one.phase for one in watch.seen if one.phase is not Phase.ANSWERED] == [*phases, Phase.ENDED]
        assert phases or len(watch.seen) == 1
        assert (ended.status, ended.request_bytes, ended.response_bytes) == (200, 8, 5)

    run(scenario())


@on_each_loop
def test_a_post_is_seen_when_it_is_decided_answered_and_ended(run, stage):
    async def scenario():
        watch = Watch()
        origin = Origin(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nSet-Cookie: canary\r\n\r\nhello"))
        async with stage(origin, observation=watch.observation()) as it, tunnel(it.proxy) as wire:
            await wire.send(post(RESPONSES, body=b"question", headers=["Authorization: Bearer canary"]))
            await wire.receive_until(b"hello")
            ended = await watch.wait_for(Phase.ENDED)
        assert [one.phase for one in watch.seen] == [Phase.DECIDED, Phase.ANSWERED, Phase.ENDED]
        assert {one.number for one in watch.seen} == {1}
        assert [one.stamp for one in watch.seen] == [Stamp.STAMPED] * 3
        assert [one.status for one in watch.seen] == [None, 200, 200]
        assert (ended.request_bytes, ended.response_bytes) == (8, 5)
        assert ended.connect_s > 0 and 0 <= ended.sent_s <= ended.duration_s
        assert (watch.carried(True), watch.carried(False)) == (b"question", b"hello")
        assert "canary" not in repr(watch.seen) and "token-1" not in repr(watch.seen)
        assert dict(ended.request_headers)["x-oai-attestation"].startswith('{"v":1,"s":0,"t":"[redacted')

    run(scenario())


@on_each_loop
def test_a_websocket_ends_when_it_is_closed_with_all_its_bytes(run, stage):
    async def scenario():
        watch = Watch()
        async with stage(Origin(echoing), observation=watch.observation()) as it:
            async with tunnel(it.proxy) as wire:
                await wire.send(upgrade())
                await wire.receive_until(b"\r\n\r\n")
                await wire.send(b"frames of mine")
                await wire.receive_until(b"frames of mine")
                assert [one.phase for one in watch.seen][:2] == [Phase.DECIDED, Phase.ANSWERED]
                (told,) = await it.reported()
                assert told.status == 101
            ended = await watch.wait_for(Phase.ENDED)
        assert ended.transport is Transport.WEBSOCKET and ended.stamp is Stamp.STAMPED
        assert (ended.request_bytes, ended.response_bytes) == (14, 14)
        assert watch.carried(True) == watch.carried(False) == b"frames of mine"
        (turn,) = ended.turns
        assert 0 < ended.first_byte_s < turn.asked_s <= turn.first_s <= turn.last_s <= ended.duration_s

    run(scenario())


@on_each_loop
def test_how_far_the_turn_of_a_websocket_has_come_is_told_when_upstream_falls_silent(run, stage):
    async def scenario():
        watch, goes_on = Watch(), asyncio.Event()

        async def answering_in_two(visit):
            await visit.write(switching_protocols(await visit.head()))
            await visit.frames()
            await visit.write(b"beginning")
            await goes_on.wait()
            await visit.write(b"end")
            await visit.frames()

        async with stage(Origin(answering_in_two), observation=watch.observation()) as it, tunnel(it.proxy) as wire:
            await wire.send(upgrade())
            await wire.receive_until(b"\r\n\r\n")
            await wire.send(b"a question")
            async with watch.changed:
                await watch.changed.wait_for(lambda: watch.seen[-1].turns and watch.seen[-1].turns[-1].first_s)
            goes_on.set()
            async with watch.changed:
                await watch.changed.wait_for(lambda: watch.seen[-1].turns[-1].last_s > watch.seen[-1].turns[-1].first_s)
            assert watch.seen[-1].phase is Phase.ANSWERED

    run(scenario())


def test_the_bytes_of_a_tunnel_are_counted_and_not_shown(run, stage):
    async def scenario():
        watch = Watch()
        answer = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        origin = Origin(answer, names=["auth.openai.com"])
        async with stage(origin, observation=watch.observation()) as it:
            async with tunnel(it.proxy, "auth.openai.com", trusted=it.origin.ca_pem) as wire:
                await wire.send(post("/oauth/token"))
                await wire.receive_until(b"hello")
            ended = await watch.wait_for(Phase.ENDED)
        assert ended.transport is Transport.TUNNEL and ended.host == "auth.openai.com"
        assert ended.request_bytes > 200 and ended.response_bytes > 500 and watch.pieces == []

    run(scenario())


@pytest.mark.parametrize("part", ["changed", "pieces"])
def test_an_observer_that_fails_is_not_felt(run, stage, caplog, part):
    def fail(_):
        raise RuntimeError("canary of a bug")

    async def scenario():
        observation = Observation(Redactor(bytes(32)), **{part: (fail,)})
        origin = Origin(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"))
        async with stage(origin, observation=observation) as it, tunnel(it.proxy) as wire:
            await wire.send(post(RESPONSES))
            await wire.receive_until(b"hello")
            (told,) = await it.reported()
        assert told.attested and "observer failed" in caplog.text and "canary" not in caplog.text

    run(scenario())


def test_a_refused_request_is_seen_with_its_answer(run, stage):
    async def scenario():
        watch = Watch()
        async with stage(observation=watch.observation()) as it, tunnel(it.proxy) as wire:
            await wire.send(post(RESPONSES, headers=["Host: evil.example"]))
            await wire.receive_until(b"\r\n\r\n")
            ended = await watch.wait_for(Phase.ENDED)
        assert ended.stamp is Stamp.REFUSED and ended.status == 421

    run(scenario())
