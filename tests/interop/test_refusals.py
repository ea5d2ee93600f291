"""What does not fit is refused in the very words of the real codex, asked side by side."""

import asyncio
import contextlib
import re
from collections.abc import Sequence

import pytest

from agent.rpc.jsonrpc import RequestFailed
from agent.standins.desktop import Script, spawn
from proxy.standins.chatgpt import ChatGPT
from tests.interop.original import codex
from tests.processes import COUNTERSIGN, play, world

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("codex")]

THREAD = "01990000-0000-7000-8000-000000000000"
TEXT = {"type": "text", "text": "x"}
CLIENT = {"name": "x", "version": "1"}

INITIALIZE = (
    None, 5, [], {}, {"capabilities": {}}, {"clientInfo": None}, {"clientInfo": []}, {"clientInfo": {"name": "x"}},
    {"clientInfo": {"version": 1}}, {"clientInfo": {**CLIENT, "title": 5}}, {"clientInfo": {**CLIENT, "name": "a\nb"}},
    {"clientInfo": CLIENT, "capabilities": "x"}, {"clientInfo": CLIENT, "capabilities": []},
    {"clientInfo": CLIENT, "capabilities": {"requestAttestation": None}},
    {"clientInfo": CLIENT, "capabilities": {"optOutNotificationMethods": "x"}},
    {"clientInfo": CLIENT, "capabilities": {"optOutNotificationMethods": [5]}},
)  # fmt: skip

POLICIES = (
    5, "bogus", [], {}, {"a": 1, "b": 2}, "granular", {"never": 5}, {"granular": {}}, {"granular": 5},
    {"granular": {"sandbox_approval": 1}}, {"granular": {"sandbox_approval": True, "rules": True}},
)  # fmt: skip

INPUTS = (
    None, 5, "x", {}, [5], [{}], [{"type": 5}], [{"type": 55}], [{"type": "bogus"}], [{"type": "text"}],
    [{"type": "text", "text": None}], [{**TEXT, "text_elements": None}], [{**TEXT, "text_elements": [5]}],
    [{**TEXT, "text_elements": [{}]}], [{**TEXT, "text_elements": [{"byteRange": None}]}],
    [{**TEXT, "text_elements": [{"byteRange": {}}]}], [{**TEXT, "text_elements": [{"byteRange": {"start": -1}}]}],
    [{**TEXT, "text_elements": [{"byteRange": {"start": 0, "end": 1}, "placeholder": 5}]}],
    [{"type": "image"}], [{"type": "image", "url": 5}], [{"type": "image", "url": "data:,x", "detail": "bogus"}],
    [{"type": "localImage"}], [{"type": "skill", "name": "x"}], [{"type": "mention", "path": "x"}],
    [{"type": "image", "url": "https://a.example/b.png"}], [TEXT],
)  # fmt: skip

THREAD_IDS = (
    5, "", "zzz", "0199", "0199-", "a-b-c-d-e", "{}", "{zz}", "urn:uuid:zz", "{" + THREAD + "}", f"urn:uuid:{THREAD}",
    THREAD.upper(), THREAD.replace("-", ""), THREAD + "0", THREAD[:-1], THREAD[:-1] + "g", "\xe9",
)  # fmt: skip

REQUESTS = [
    *[(method, params) for method in ("model/list", "turn/steer", "turn/interrupt") for params in (None, 5, "x", [])],
    *[("account/read", params) for params in (None, 5, {"refreshToken": None}, {"refreshToken": "x"})],
    *[("model/list", {"limit": limit}) for limit in (-1, 2**32, 1.0, "5", True)],
    *[("thread/start", params) for params in (None, 5, {"cwd": 5}, {"config": []}, {"ephemeral": 1})],
    *[("thread/start", {"sandbox": sandbox}) for sandbox in (5, "bogus", {"read-only": 5}, {})],
    *[("thread/start", {"approvalPolicy": policy}) for policy in POLICIES],
    *[("turn/start", {"threadId": THREAD, "input": given}) for given in INPUTS],
    *[("turn/start", {"threadId": thread_id, "input": [TEXT]}) for thread_id in THREAD_IDS],
    ("turn/start", {"input": []}),
    ("turn/start", {"threadId": THREAD}),
    ("turn/start", {"threadId": THREAD, "input": [], "sandboxPolicy": 5}),
    ("turn/start", {"threadId": THREAD, "input": [], "sandboxPolicy": {"type": "bogus"}}),
    ("turn/start", {"threadId": THREAD, "input": [], "summary": "bogus"}),
    ("turn/start", {"threadId": THREAD, "input": [], "effort": 5}),
    ("turn/steer", {"threadId": THREAD, "input": [], "expectedTurnId": ""}),
    ("turn/steer", {"threadId": "zzz", "input": [TEXT], "expectedTurnId": "x"}),
    ("turn/interrupt", {"threadId": "zzz", "turnId": "x"}),
    ("turn/interrupt", {"threadId": THREAD}),
    ("no/such/method", {}),
]


def told(failed):
    """The refusal without what changes from one version of the original to the next: counts, the list of methods."""
    text = re.sub(r"with \d+ elements$", "with N elements", failed.message)
    text = re.sub(r"invalid length \d+", "invalid length N", text)
    return f"{failed.code} {re.sub('(unknown variant `no/such/method`, expected one of).*', r'\\1', text)}"


async def refusals(command: Sequence[str], here) -> list[str]:
    """The error of each request, first of the initializations."""
    found = []

    async def ask(desktop, method, params):
        try:
            await desktop.request(method, params)
        except RequestFailed as failed:
            found.append(told(failed))
        else:
            found.append("no error")

    async with spawn(list(command), Script(), here.environment, here.home) as desktop:
        for params in INITIALIZE:
            await ask(desktop, "initialize", params)
        await desktop.initialize()
        for method, params in REQUESTS:
            await ask(desktop, method, params)
    return found


def test_what_does_not_fit_is_refused_in_the_words_of_codex(outside):
    async def scenario():
        async with contextlib.AsyncExitStack() as stack:
            worlds = []
            for name in ("ours", "theirs"):
                (outside / name).mkdir()
                worlds.append(await stack.enter_async_context(world(outside / name, ChatGPT(), auth=None)))
            return await asyncio.gather(
                refusals([COUNTERSIGN, "app-server"], worlds[0]),
                refusals([codex(), "app-server"], worlds[1]),
            )

    ours, theirs = play(scenario())
    asked = [*(("initialize", params) for params in INITIALIZE), *REQUESTS]
    assert len(ours) == len(theirs) == len(asked)
    differing = [
        (*request, one, other) for request, one, other in zip(asked, ours, theirs, strict=True) if one != other
    ]
    assert differing == []
    assert theirs.count("no error") < 5
