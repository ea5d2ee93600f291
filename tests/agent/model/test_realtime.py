"""Calls, sidebands and sockets of realtime conversations, through the real proxy to the stand-in."""

import asyncio
import contextlib
import os

import pytest
from websockets.asyncio.server import serve

from agent.model import realtime
from agent.model.failures import StreamBroken, Unavailable, UpstreamError
from agent.model.realtime import RealtimeService
from agent.model.realtime_wire import RESPOND, Caller, Session, Version, audio, session_update
from agent.model.websocket import connected
from proxy.attestation import ATTESTATION_HEADER
from proxy.standins.faults import Fault
from tests.agent.model.chatgpt_behind_proxy import world
from tests.proxy.test_realtime import calling

V1 = Session(Version.V1, "gpt-realtime-1.5", "Be brief.", "cove", "audio")
V2 = Session(Version.V2, "a model & more", "Be brief.", "marin", "text")
CALLER = Caller("thread-1", "session-1")
API_KEY = {"OPENAI_API_KEY": "sk-test", "auth_mode": "apikey"}
CALLS, SIDEBAND = "/backend-api/codex/realtime/calls", "/v1/realtime"


@contextlib.asynccontextmanager
async def service(directory, **options):
    async with world(directory, **options) as here:
        yield here, RealtimeService(here.client)


def values(received):
    return [one.values(ATTESTATION_HEADER) for one in received]


def stamp(number):
    return f'{{"v":1,"s":0,"t":"token-{number}"}}'


def test_a_call_is_stamped_and_its_sideband_carries_the_same_value(run, tmp_path):
    async def scenario():
        async with service(tmp_path) as (here, realtime):
            for number in (1, 2):
                answer, call_id = await realtime.call(CALLER, V1, "the offer")
                assert (answer, call_id) == ("v=0\r\n", f"rtc_{number}")
                socket = await realtime.join(CALLER, V1, call_id)
                await socket.send(session_update(V1))
                await here.service.wait_for(number, "message")
                await socket.aclose()
            calls, sidebands = here.requests(CALLS), here.requests(SIDEBAND)
            assert values(calls) == values(sidebands) == [[stamp(1)], [stamp(2)]]
            assert here.tokens.threads == ["thread-1", "thread-1"]
            call, sideband = calls[0], sidebands[0]
            assert call.path == f"{CALLS}?intent=quicksilver&architecture=avas"
            assert call.body == {"sdp": "the offer", "session": V1.call_wire()}
            assert call.values("content-encoding") == []
            assert sideband.path == "/v1/realtime?intent=quicksilver&call_id=rtc_1"
            for one in (call, sideband):
                assert one.values("openai-alpha") == ["quicksilver=v1"]
                assert one.values("x-session-id") == ["session-1"] and one.values("thread-id") == ["thread-1"]
                assert one.values("chatgpt-account-id") == ["acc-1"]
            assert here.service.received[-2].body == {"type": "session.update", "session": V1.wire()}

    run(scenario())


def test_with_an_api_key_nobody_is_asked_and_nothing_is_stamped(run, tmp_path):
    async def scenario():
        async with service(tmp_path, auth=API_KEY) as (here, realtime):
            sockets = [await realtime.connect(CALLER, V2), await realtime.connect(CALLER, V1)]
            answer, call_id = await realtime.call(CALLER, V1, "the offer")
            sockets.append(await realtime.join(CALLER, V1, call_id))
            for socket in sockets:
                await socket.aclose()
            assert answer == "v=0\r\n"
            received = here.requests("/")
            assert [one.path for one in received] == [
                "/v1/realtime?model=a+model+%26+more",
                "/v1/realtime?intent=quicksilver&model=gpt-realtime-1.5",
                "/v1/realtime/calls?intent=quicksilver&architecture=avas",
                "/v1/realtime?intent=quicksilver&call_id=rtc_1",
            ]
            assert values(received) == [[], [], [], []] and here.tokens.asked == 0
            assert [one.values("authorization") for one in received] == [["Bearer sk-test"]] * 4
            assert [one.values("openai-alpha") for one in received] == [[], *[["quicksilver=v1"]] * 3]
            form = received[2].body.decode()
            assert 'name="sdp"\r\nContent-Type: application/sdp\r\n\r\nthe offer\r\n--' in form
            assert 'name="session"\r\nContent-Type: application/json\r\n\r\n{' in form

    run(scenario())


def test_a_401_of_a_call_is_tried_with_the_file_and_then_with_refreshed_tokens_each_with_a_fresh_stamp(run, tmp_path):
    async def scenario():
        async with service(tmp_path, faults=["call:401:2"]) as (here, realtime):
            await realtime.call(CALLER, V1, "the offer")
            calls = here.requests(CALLS)
            assert values(calls) == [[stamp(1)], [stamp(2)], [stamp(3)]]
            bearers = [one.values("authorization") for one in calls]
            assert bearers[0] == bearers[1] != bearers[2]

    run(scenario())


@pytest.mark.parametrize(
    ("fault", "status", "tries"), [("call:401", 401, 3), ("call:403", 403, 1), ("call:500", 500, 5)]
)
def test_a_call_that_is_refused_says_so(run, tmp_path, fault, status, tries):
    async def scenario():
        async with service(tmp_path, faults=[fault]) as (here, realtime):
            with pytest.raises(UpstreamError) as refused:
                await realtime.call(CALLER, V1, "the offer")
            assert refused.value.status == status and f"asked for a {status}" in str(refused.value)
            assert len(here.requests(CALLS)) == tries == len({value[0] for value in values(here.requests(CALLS))})

    run(scenario())


def test_a_call_that_is_dropped_breaks(run, tmp_path):
    async def scenario():
        async with service(tmp_path, faults=["call:reset"]) as (_, realtime):
            with pytest.raises((StreamBroken, UpstreamError)):
                await realtime.call(CALLER, V1, "the offer")

    run(scenario())


@pytest.mark.parametrize("location", ["/elsewhere/rtc_1", "", "/v1/realtime/calls/", "/v1/realtime/calls/a?b"])
def test_a_call_without_an_id_breaks(run, tmp_path, location):
    async def scenario():
        async with service(tmp_path, service=calling(201, location)) as (_, realtime):
            with pytest.raises(StreamBroken, match="without the id of a call"):
                await realtime.call(CALLER, V1, "the offer")

    run(scenario())


def test_a_sideband_is_tried_again_with_the_same_value_and_its_401_with_refreshed_tokens(run, tmp_path):
    async def scenario():
        faults = [Fault.parse("realtime:500:1"), Fault.parse("realtime:401:2")]
        async with service(tmp_path, faults=faults) as (here, realtime):
            _, call_id = await realtime.call(CALLER, V1, "the offer")
            await (await realtime.join(CALLER, V1, call_id)).aclose()
            sidebands = here.requests(SIDEBAND)
            assert values(sidebands) == [[stamp(1)]] * 4 and here.tokens.asked == 1
            bearers = [one.values("authorization") for one in sidebands]
            assert bearers[0] == bearers[2] != bearers[3]

    run(scenario())


@pytest.mark.parametrize(("fault", "tries"), [("realtime:404", 1), ("realtime:426", 1), ("realtime:500", 3)])
def test_a_sideband_that_is_refused_says_so(run, tmp_path, monkeypatch, fault, tries):
    monkeypatch.setattr(realtime, "SIDEBAND_ATTEMPTS", 3)

    async def scenario():
        async with service(tmp_path, faults=[fault]) as (here, realtime):
            _, call_id = await realtime.call(CALLER, V1, "the offer")
            with pytest.raises(UpstreamError) as refused:
                await realtime.join(CALLER, V1, call_id)
            assert refused.value.status == int(fault.partition(":")[2])
            assert len(here.requests(SIDEBAND)) == tries

    run(scenario())


def test_a_socket_is_not_tried_again(run, tmp_path):
    async def scenario():
        async with service(tmp_path, auth=API_KEY, faults=["realtime:500"]) as (here, realtime):
            with pytest.raises(UpstreamError):
                await realtime.connect(CALLER, V2)
            assert len(here.requests(SIDEBAND)) == 1

    run(scenario())


@pytest.mark.parametrize("code", [1000, 1011])
def test_the_frames_end_when_the_service_closes_the_socket(run, tmp_path, code):
    async def scenario():
        async with service(tmp_path, auth=API_KEY) as (here, realtime):
            socket = await realtime.connect(CALLER, V2)
            frames = socket.frames()
            assert "session.created" in await anext(frames)
            await here.service.realtime[0].close(code=code)
            assert [frame async for frame in frames] == []
            with pytest.raises(StreamBroken, match=f"closed by the service \\(code {code}\\)"):
                await socket.send(RESPOND)

    run(scenario())


def test_a_socket_that_is_cut_breaks(run, tmp_path):
    async def scenario():
        async with service(tmp_path, auth=API_KEY) as (here, realtime):
            socket = await realtime.connect(CALLER, V2)
            frames = socket.frames()
            await anext(frames)
            here.service.cut()
            with pytest.raises(StreamBroken, match="without a closing handshake"):
                await anext(frames)

    run(scenario())


def test_an_event_that_is_too_long_breaks_the_conversation(run, tmp_path, monkeypatch):
    monkeypatch.setattr(realtime, "MAX_EVENT_BYTES", 1000)

    async def scenario():
        async with service(tmp_path, auth=API_KEY) as (here, realtime):
            socket = await realtime.connect(CALLER, V2)
            frames = socket.frames()
            await anext(frames)
            await here.service.say({"type": "x" * 2000})
            with pytest.raises(StreamBroken, match="closed by us \\(code 1009\\)"):
                await anext(frames)

    run(scenario())


def test_a_service_that_takes_nothing_breaks_the_conversation(run, monkeypatch):
    monkeypatch.setattr(realtime, "SEND_TIMEOUT_S", 0.2)

    class Deaf:
        async def send(self, text):
            await asyncio.Event().wait()

    async def scenario():
        with pytest.raises(StreamBroken, match="took nothing"):
            await realtime.RealtimeSocket(Deaf()).send(RESPOND)

    run(scenario())


def test_a_service_that_reads_nothing_does_not_hold_up_the_end(run, monkeypatch):
    """The goodbye waited behind what was not read, for ever: `stop` was never told, and the process did not end."""
    monkeypatch.setattr(realtime, "SEND_TIMEOUT_S", 0.2)
    over = asyncio.Event()
    noise = os.urandom(512 * 1024).hex()  # what could be compressed would never fill the connection

    async def deaf(websocket):
        websocket.transport.pause_reading()
        await over.wait()
        websocket.transport.abort()

    async def scenario():
        async with serve(deaf, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            connection = await connected(None, f"ws://127.0.0.1:{port}", {}, 1000)
            socket = realtime.RealtimeSocket(connection)
            try:
                with pytest.raises(StreamBroken, match="took nothing"):
                    while True:
                        await socket.send(audio(noise))
                async with asyncio.timeout(4):
                    await socket.aclose()
                assert connection.transport.is_closing()
            finally:
                over.set()

    run(scenario())


@pytest.mark.parametrize("key", ["sk-env", ""])
def test_a_socket_takes_the_api_key_of_the_environment_where_another_account_is_signed_in(run, tmp_path, key):
    """As the original does; a ChatGPT token never goes to the API."""

    async def scenario():
        async with service(tmp_path, environ={"OPENAI_API_KEY": key}) as (here, realtime):
            if not key:
                with pytest.raises(Unavailable, match="^realtime conversation requires API key auth$"):
                    await realtime.connect(CALLER, V2)
                assert here.requests("/") == []
                return
            await (await realtime.connect(CALLER, V2)).aclose()
            (socket,) = here.requests("/")
            assert socket.values("authorization") == ["Bearer sk-env"] and socket.values("chatgpt-account-id") == []
            assert values([socket]) == [[]] and here.tokens.asked == 0

    run(scenario())


def test_a_call_and_its_socket_name_the_organization_of_the_environment(run, tmp_path):
    async def scenario():
        async with service(tmp_path, environ={"OPENAI_ORGANIZATION": "org-a"}) as (here, realtime):
            _, call_id = await realtime.call(CALLER, V1, "the offer")
            await (await realtime.join(CALLER, V1, call_id)).aclose()
            assert [one.values("openai-organization") for one in here.requests("/")] == [["org-a"], ["org-a"]]

    run(scenario())


def test_without_an_account_there_is_no_conversation(run, tmp_path):
    async def scenario():
        async with service(tmp_path) as (here, realtime):
            (here.home / "auth.json").unlink()
            with pytest.raises(Unavailable):
                await realtime.call(CALLER, V1, "the offer")
            assert here.tokens.asked == 0 and here.requests("/") == []

    run(scenario())
