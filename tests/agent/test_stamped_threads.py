"""What the original left without a token, through the real proxy: reviews, old threads, compaction."""

import asyncio
import contextlib
import datetime as dt
import json

import pytest

from agent.attestation import DesktopAttestation
from agent.rpc.server import Connections
from agent.standins.desktop import Script
from proxy.standins.chatgpt import auth_json
from tests.agent.core.memory_app import MemoryApp
from tests.agent.model.chatgpt_behind_proxy import RESPONSES, conversation, world, write_auth
from tests.agent.rpc.test_methods import start

FINE = {"text": json.dumps({"findings": [], "overall_explanation": "fine"})}
TOKEN = '{"v":1,"s":0,"t":"tok-1"}'
TARGET = {"type": "uncommittedChanges"}
KEY = {"OPENAI_API_KEY": "sk-stand-in-4711"}


def tokens(number):
    return f"tok-{number}"


@contextlib.asynccontextmanager
async def scene(directory, *, script=None, **options):
    """The real methods, core, client and proxy, between a desktop and the stand-in of ChatGPT."""
    connections = Connections()
    asked = DesktopAttestation(connections.attester_for)
    async with asyncio.timeout(30), world(directory, tokens=asked, timeout_s=10.0, **options) as here:
        app = MemoryApp(here.home, here.client.session, connections=connections, auth=here.client.auth)
        try:
            async with app.desktop(script or Script(token=tokens, name="codex_desktop")) as desktop:
                yield here, app, desktop
        finally:
            await app.core.aclose()


def stamps(here, **which):
    """(what for, stamp) of the requests that arrived."""
    return [
        (one.values("x-openai-subagent"), one.values("x-oai-attestation")) for one in here.requests(**which)
    ]  # fmt: skip


async def reviewed(desktop, thread_id):
    await desktop.request("review/start", {"threadId": thread_id, "target": TARGET})
    return (await desktop.wait_for("turn/completed"))["turn"]


@pytest.mark.parametrize("faults", [(), ("websocket:426",)], ids=["websocket", "http"])
def test_the_requests_of_a_review_carry_a_token_of_the_threads_desktop(faults, run, tmp_path):
    async def scenario():
        async with scene(tmp_path, answers=[FINE], faults=faults) as (here, app, desktop):
            thread_id = await start(desktop, cwd="/work")
            assert (await reviewed(desktop, thread_id))["items"][0]["text"] == "fine"
            (request,) = [one for one in here.requests() if one.values("x-openai-subagent")]
            assert request.values("x-openai-subagent") == ["review"]
            assert request.values("x-codex-parent-thread-id") == [thread_id] == request.values("session-id")
            assert request.values("thread-id") != [thread_id]
            (value,) = request.values("x-oai-attestation")
            assert json.loads(value) == {"v": 1, "s": 0, "t": f"tok-{desktop.asked}"} and desktop.asked == 2
            assert app.connections._parents == {}

    run(scenario())


def test_without_the_bond_to_its_thread_a_review_would_carry_none(run, tmp_path):
    """The negative control: what the original does."""

    async def scenario():
        async with scene(tmp_path, answers=[FINE]) as (here, app, desktop):
            app.connections.adopt = lambda thread_id, parent_id: None
            await reviewed(desktop, await start(desktop, cwd="/work"))
            assert [stamp for kind, stamp in stamps(here) if kind == ["review"]] == [[]]

    run(scenario())


def test_a_review_does_not_ask_a_desktop_that_follows_another_thread(run, tmp_path):
    async def scenario():
        mute = Script(attests=False, name="codex_desktop")
        async with scene(tmp_path, answers=[FINE], script=mute) as (here, app, desktop):
            async with app.desktop(Script(token=tokens)) as other:
                await start(other, cwd="/work")
                await here.service.wait_for(1, path=RESPONSES)
                before = other.asked
                await reviewed(desktop, await start(desktop, cwd="/work"))
                assert [stamp for kind, stamp in stamps(here) if kind == ["review"]] == [[]]
                assert other.asked == before

    run(scenario())


def test_a_thread_that_was_started_before_the_sign_in_is_stamped_after_it(run, tmp_path):
    async def scenario():
        async with scene(tmp_path) as (here, _, desktop):
            (here.home / "auth.json").unlink()
            thread_id = await start(desktop, cwd="/work")
            failed = await desktop.turn(thread_id, "hello")
            assert failed["status"] == "failed" and here.requests() == [] and desktop.asked == 0
            write_auth(here.home, auth_json(dt.timedelta(hours=1)))
            assert (await desktop.turn(thread_id, "again"))["status"] == "completed"
            assert stamps(here) == [([], [TOKEN])]

    run(scenario())


def test_a_compaction_over_post_is_stamped_as_any_request(run, tmp_path):
    async def scenario():
        async with scene(tmp_path, faults=["websocket:426"]) as (here, _, desktop):
            thread_id = await start(desktop, cwd="/work")
            await desktop.turn(thread_id, "hello")
            await desktop.request("thread/compact/start", {"threadId": thread_id})
            assert (await desktop.wait_for("turn/completed", 2))["turn"]["status"] == "completed"
            posts = here.requests(websocket=False)
            assert [one.body["input"][-1]["type"] for one in posts] == ["message", "compaction_trigger"]
            assert [len(one.values("x-oai-attestation")) for one in posts] == [1, 1]
            assert {one.values("x-codex-beta-features")[0] for one in posts} == {"remote_compaction_v2"}

    run(scenario())


# The unary compaction


def test_the_unary_compaction_is_stamped(run, tmp_path):
    async def scenario():
        async with world(tmp_path) as here, conversation(here.client) as talk:
            output = await talk.session.compact(talk.request("hello"))
            (request,) = here.requests(f"{RESPONSES}/compact")
            assert output == ({"type": "compaction", "encrypted_content": "stand-in compaction"},)
            assert request.values("x-oai-attestation") == ['{"v":1,"s":0,"t":"token-1"}']
            assert here.tokens.threads == ["thread-1"] and request.body["input"][-1]["content"][0]["text"] == "hello"
            assert {"stream", "store", "include", "tool_choice"}.isdisjoint(request.body)

    run(scenario())


def test_with_an_api_key_nothing_is_asked_and_the_unary_compaction_goes_to_the_api(run, tmp_path):
    async def scenario():
        async with world(tmp_path, auth=KEY) as here, conversation(here.client) as talk:
            await talk.session.compact(talk.request("hello"))
            (request,) = here.requests("/v1/responses/compact")
            assert request.values("x-oai-attestation") == [] and here.tokens.asked == 0

    run(scenario())
