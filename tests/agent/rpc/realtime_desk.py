"""A desktop in memory that talks in a thread, with a scripted model and a scripted realtime service behind it."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.rpc.realtime_methods import RealtimeMethods
from agent.standins.desktop import Desktop, Script
from tests.agent.core import published_schema
from tests.agent.core.memory_app import MemoryApp, app_and_desktop
from tests.agent.core.scripted_model import ScriptedModel
from tests.agent.core.scripted_realtime import ScriptedLink, ScriptedRealtime

CALL = {"transport": {"type": "webrtc", "sdp": "an offer"}}
SOCKET: dict[str, Any] = {}


@dataclass
class Talk:
    """A thread that can be talked in."""

    app: MemoryApp
    desktop: Desktop
    service: ScriptedRealtime
    thread_id: str

    async def ask(self, name: str, **params: Any) -> Any:
        return await self.desktop.request(f"thread/realtime/{name}", {"threadId": self.thread_id, **params})

    async def start(self, **params: Any) -> ScriptedLink:
        """Begin a conversation; its link, once the session is sent."""
        wanted = {"outputModality": "audio", "prompt": "P", "includeStartupContext": False, **params}
        assert await self.ask("start", **wanted) == {}
        link = await self.service.link()
        await link.until(0)
        return link

    async def hears(self, name: str, count: int = 1) -> dict[str, Any]:
        return await self.desktop.wait_for(f"thread/realtime/{name}", count)

    def told(self) -> list[tuple[str, dict[str, Any]]]:
        """What was heard of the conversation, without the thread and without ids."""
        heard = [one for one in self.desktop.notifications if one["method"].startswith("thread/realtime/")]
        return [(one["method"].removeprefix("thread/realtime/"), _without_ids(one["params"])) for one in heard]


def _without_ids(params: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in params.items() if name not in ("threadId", "itemId")}
    if "realtimeSessionId" in kept.get("item", {}):
        kept["item"] = {name: kept["item"][name] for name in kept["item"] if name not in ("id", "realtimeSessionId")}
    return kept


@contextlib.asynccontextmanager
async def talking(
    home: Path,
    service: ScriptedRealtime | None = None,
    model: ScriptedModel | None = None,
    script: Script | None = None,
) -> AsyncIterator[Talk]:
    """What is told is checked against the original's schemas at the end."""
    realtime = service or ScriptedRealtime()
    async with app_and_desktop(home, model, script) as (app, desktop):
        table = RealtimeMethods(app.core, app.connections, lambda: realtime).table()
        app.methods = {**app.methods, **table}
        started = await desktop.request("thread/start", {"cwd": "/work"})
        yield Talk(app, desktop, realtime, started["thread"]["id"])
        for one in desktop.notifications:
            assert published_schema.misfit_of_notification(one["method"], one["params"]) is None
