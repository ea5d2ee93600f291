"""The table of facts/protocol.md 3, from what the desktop answers over RPC to the bytes that reach the upstream."""

import asyncio
import contextlib
import json

import pytest

from agent.attestation import DesktopAttestation
from tests.agent.rpc.memory import served
from tests.loops import on_each_loop
from tests.proxy.h2wire import h2_post, h2_tunnel
from tests.proxy.origin import Origin, echoing
from tests.proxy.running import staged
from tests.proxy.wire import post, tunnel, upgrade

THREAD = "019a-thread"
TIMEOUT = '{"v":1,"s":1}'
SOON_S = 0.1


class Desktop:
    """A client of the server that answers each question by `answer(number)`: members of the response, or None."""

    def __init__(self, client, answer):
        self.client = client
        self.asked = []
        self._answer = answer

    async def read(self):
        while (text := await self.client.stream.outgoing.get()) is not None:
            question = json.loads(text)
            self.asked.append(question)
            members = await self._answer(len(self.asked))
            if members is not None:
                await self.client.send(id=question["id"], **members)


def answering(**members):
    async def answer(_):
        return members

    return answer


async def silent(_):
    return None


async def numbered(number):
    return {"result": {"token": f"token-{number}"}}


class Scene:
    """Desktops, the server they are connected to, and the proxy that asks them."""

    def __init__(self, server, stage, readers):
        self.server, self.stage, self._readers = server, stage, readers
        self.origin, self.proxy = stage.origin, stage.proxy

    async def desktop(self, answer=numbered, *, attests=True, follows=(THREAD,)):
        """One more desktop, initialised and following these threads."""
        client = await self.server.connect()
        await client.initialize(requestAttestation=attests)
        for thread_id in follows:
            self.server.connections.subscribe(thread_id, self.server.initialized[-1])
        desktop = Desktop(client, answer)
        self._readers.create_task(desktop.read())
        return desktop


@contextlib.asynccontextmanager
async def scene(directory, *, alpn=("http/1.1",), timeout_s=10.0):
    async with served() as server:
        provider = DesktopAttestation(server.connections.attester_for)
        origin = Origin(echoing, alpn=alpn)
        async with staged(directory, origin, provider, timeout_s=timeout_s) as stage, asyncio.TaskGroup() as readers:
            yield Scene(server, stage, readers)
            await server.leave_all()


async def by_post(it):
    async with tunnel(it.proxy) as wire:
        assert (await wire.exchange(post(headers=[f"thread-id: {THREAD}"]))).status == 200


async def by_upgrade(it):
    async with tunnel(it.proxy) as wire:
        assert (await wire.exchange(upgrade(headers=[f"thread-id: {THREAD}"]))).status == 101


async def by_h2(it):
    async with h2_tunnel(it.proxy) as client:
        headers = h2_post("/backend-api/codex/responses", (b"thread-id", THREAD.encode()))
        assert (await client.exchange(headers)).status == 200


by_each_transport = pytest.mark.parametrize(
    ("send", "alpn"),
    [(by_post, ("http/1.1",)), (by_h2, ("h2",)), (by_upgrade, ("http/1.1",))],
    ids=["post", "h2 post", "websocket"],
)

ANSWERS = {
    "token": ({"result": {"token": "v1.integration-test"}}, '{"v":1,"s":0,"t":"v1.integration-test"}'),
    "error": ({"error": {"code": -32000, "message": "no"}}, '{"v":1,"s":2}'),
    "no token": ({"result": {}}, '{"v":1,"s":4}'),
    "null": ({"result": None}, '{"v":1,"s":4}'),
    "null token": ({"result": {"token": None}}, '{"v":1,"s":4}'),
    "number": ({"result": {"token": 5}}, '{"v":1,"s":4}'),
    "true": ({"result": True}, '{"v":1,"s":4}'),
    "bare text": ({"result": "tok"}, '{"v":1,"s":4}'),
    "array": ({"result": ["tok"]}, '{"v":1,"s":0,"t":"tok"}'),
    "array of a number": ({"result": [5]}, '{"v":1,"s":4}'),
    "empty array": ({"result": []}, '{"v":1,"s":4}'),
    "more members": ({"result": {"token": "tok", "device": [1], "v": 2}}, '{"v":1,"s":0,"t":"tok"}'),
    "empty": ({"result": {"token": ""}}, '{"v":1,"s":0,"t":""}'),
    "12 kB": ({"result": {"token": "x" * 12_000}}, '{"v":1,"s":0,"t":"' + "x" * 12_000 + '"}'),
    "quotes": ({"result": {"token": 'a"b\\c\nd'}}, '{"v":1,"s":0,"t":"a\\"b\\\\c\\nd"}'),
    "CR LF": ({"result": {"token": "x\r\nX-Injected: 1"}}, '{"v":1,"s":0,"t":"x\\r\\nX-Injected: 1"}'),
    "NUL": ({"result": {"token": "a\x00b"}}, '{"v":1,"s":0,"t":"a\\u0000b"}'),
    "not ASCII": ({"result": {"token": "café"}}, '{"v":1,"s":4}'),
    "DEL": ({"result": {"token": "a\x7fb"}}, '{"v":1,"s":4}'),
    "1 MB": ({"result": {"token": "x" * 1_000_000}}, '{"v":1,"s":4}'),
}


@by_each_transport
@pytest.mark.parametrize("answer", list(ANSWERS))
def test_what_the_desktop_answers_is_what_reaches_the_upstream(run, tmp_path, send, alpn, answer):
    members, header = ANSWERS[answer]

    async def scenario():
        async with scene(tmp_path, alpn=alpn) as it:
            desktop = await it.desktop(answering(**members))
            await send(it)
        assert it.origin.only_request.attestation == [header]
        assert [(question["method"], question["params"]) for question in desktop.asked] == [
            ("attestation/generate", {})
        ]
        assert b"X-Injected: 1\r\n" not in it.origin.received

    run(scenario())


@by_each_transport
def test_no_answer_is_a_timeout_and_an_answer_that_comes_later_is_dropped(run, tmp_path, send, alpn):
    """The answer comes once the request has reached the upstream without it; the next request has its own."""

    async def scenario():
        arrived = asyncio.Event()

        async def late(number):
            if number == 1:
                await arrived.wait()
            return {"result": {"token": f"token-{number}"}}

        async with scene(tmp_path, alpn=alpn, timeout_s=SOON_S) as it:
            desktop = await it.desktop(late)
            await send(it)
            assert it.origin.only_request.attestation == [TIMEOUT]
            arrived.set()
            await send(it)
        assert it.origin.requests[1].attestation == ['{"v":1,"s":0,"t":"token-2"}']
        assert [question["id"] for question in desktop.asked] == [0, 1]
        assert it.server.initialized[0].peer.late == 1

    run(scenario())


@by_each_transport
def test_an_answer_that_takes_long_and_comes_in_time_is_used(run, tmp_path, send, alpn):
    async def scenario():
        asked, go = asyncio.Event(), asyncio.Event()

        async def slow(number):
            asked.set()
            await go.wait()
            return await numbered(number)

        async with scene(tmp_path, alpn=alpn) as it:
            await it.desktop(slow)
            request = asyncio.create_task(send(it))
            await asked.wait()
            assert it.origin.requests == []  # nothing goes ahead of its token
            go.set()
            await request
        assert it.origin.only_request.attestation == ['{"v":1,"s":0,"t":"token-1"}']

    run(scenario())


@by_each_transport
@pytest.mark.parametrize("desktop", [None, {"attests": False}, {"follows": ()}, {"follows": ("another thread",)}])
def test_without_a_capable_desktop_of_the_thread_there_is_no_header(run, tmp_path, send, alpn, desktop):
    async def scenario():
        async with scene(tmp_path, alpn=alpn) as it:
            asked = []
            if desktop is not None:
                asked = (await it.desktop(**desktop)).asked
            await send(it)
        assert it.origin.only_request.attestation == [] and asked == []

    run(scenario())


@on_each_loop
def test_of_several_desktops_the_oldest_capable_one_is_asked_and_only_it(run, tmp_path):
    async def scenario():
        async with scene(tmp_path) as it:
            names = ("incapable", "elder", "younger")
            desktops = {name: await it.desktop(token_of(name), attests=name != "incapable") for name in names}
            await by_post(it)
            assert it.origin.requests[-1].attestation == ['{"v":1,"s":0,"t":"elder-1"}']
            await desktops["elder"].client.leave()
            await it.server.gone(desktops["elder"].client)
            await by_post(it)
        assert it.origin.requests[-1].attestation == ['{"v":1,"s":0,"t":"younger-1"}']
        assert [len(desktop.asked) for desktop in desktops.values()] == [0, 1, 1]

    run(scenario())


def token_of(name):
    async def answer(number):
        return {"result": {"token": f"{name}-{number}"}}

    return answer


@by_each_transport
def test_when_the_asked_desktop_leaves_the_next_is_asked_for_the_same_request(run, tmp_path, send, alpn):
    """The original asks nobody else, and sends the status of a timeout."""

    async def scenario():
        async with scene(tmp_path, alpn=alpn) as it:
            elder = None

            async def hang_up(_):
                await elder.client.leave()

            elder = await it.desktop(hang_up)
            stranger = await it.desktop(token_of("stranger"), follows=("another thread",))
            incapable = await it.desktop(token_of("incapable"), attests=False)
            younger = await it.desktop(token_of("younger"))
            await send(it)
            assert it.origin.only_request.attestation == ['{"v":1,"s":0,"t":"younger-1"}']
            assert [len(one.asked) for one in (elder, stranger, incapable, younger)] == [1, 0, 0, 1]

    run(scenario())


@pytest.mark.parametrize("desktops", [1, 3])
def test_when_all_desktops_leave_the_status_is_that_of_a_timeout(run, tmp_path, desktops):
    async def scenario():
        async with scene(tmp_path) as it:
            there = []

            async def hang_up(_):
                await there[len(asked()) - 1].client.leave()

            def asked():
                return [one for one in there if one.asked]

            for _ in range(desktops):
                there.append(await it.desktop(hang_up))
            await by_post(it)
            assert it.origin.only_request.attestation == [TIMEOUT]
            assert [len(one.asked) for one in there] == [1] * desktops

    run(scenario())


def test_the_second_desktop_has_only_what_is_left_of_the_time(run, tmp_path):
    async def scenario():
        async with scene(tmp_path, timeout_s=SOON_S) as it:
            elder = None

            async def hang_up(_):
                await elder.client.leave()

            elder = await it.desktop(hang_up)
            younger = await it.desktop(silent)
            began = asyncio.get_running_loop().time()
            await by_post(it)
            took_s = asyncio.get_running_loop().time() - began
            assert it.origin.only_request.attestation == [TIMEOUT]
            assert len(younger.asked) == 1 and took_s < 20 * SOON_S

    run(scenario())


def test_a_refusal_is_an_answer_and_nobody_else_is_asked(run, tmp_path):
    async def scenario():
        async with scene(tmp_path) as it:
            await it.desktop(answering(error={"code": -32000, "message": "no"}))
            younger = await it.desktop()
            await by_post(it)
            assert it.origin.only_request.attestation == ['{"v":1,"s":2}'] and younger.asked == []

    run(scenario())


def test_an_answer_from_another_desktop_is_not_taken(run, tmp_path):
    async def scenario():
        async with scene(tmp_path, timeout_s=SOON_S) as it:
            impostor = None

            async def let_the_other_answer(number):
                await impostor.client.send(id=number - 1, result={"token": "stolen"})

            await it.desktop(let_the_other_answer)
            impostor = await it.desktop(silent, follows=())
            await by_post(it)
        assert it.origin.only_request.attestation == [TIMEOUT] and b"stolen" not in it.origin.received

    run(scenario())


def test_many_requests_at_once_each_get_their_own_token(run, tmp_path):
    """F8; answers come in the reverse order of the questions."""

    async def scenario():
        everybody_asked = asyncio.Event()

        async with scene(tmp_path) as it:
            client = await it.server.connect()
            await client.initialize(requestAttestation=True)
            it.server.connections.subscribe(THREAD, it.server.initialized[-1])

            async def answer_backwards():
                questions = [await client.receive() for _ in range(20)]
                everybody_asked.set()
                for question in reversed(questions):
                    await client.send(id=question["id"], result={"token": f"for-{question['id']}"})

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(answer_backwards())
                for _ in range(20):
                    tasks.create_task(by_post(it))
        assert everybody_asked.is_set()
        values = sorted(request.attestation[0] for request in it.origin.requests)
        assert values == sorted(f'{{"v":1,"s":0,"t":"for-{number}"}}' for number in range(20))

    run(scenario())
