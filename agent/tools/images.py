"""view_image: a local image, for the model to look at."""

import asyncio
import base64
from collections.abc import Awaitable, Callable
from typing import Any

from agent.core.thread import Thread
from agent.core.tooling import CallContext, ToolCall, ToolOutput
from agent.model.wire import Item
from agent.sandbox.policy import PolicyError
from agent.tools.command import BadArguments, arguments, workdir
from agent.tools.grants import Grant, in_force
from agent.tools.reach import Reach

MAX_IMAGE_BYTES = 20 * 1024 * 1024
_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
}


class ViewImage:
    """The tool. It reads what the thread's sandbox lets it read."""

    name = "view_image"

    def __init__(self, reach: Callable[[Thread, Grant], Reach]) -> None:
        self._reach = reach

    def declared(self, thread: Thread) -> tuple[Item, ...]:
        path = {"type": "string", "description": "The path of the image file."}
        return (
            {
                "type": "function",
                "name": self.name,
                "description": "Look at an image file of this machine (PNG, JPEG, GIF or WebP).",
                "strict": False,
                "parameters": {
                    "type": "object",
                    "properties": {"path": path},
                    "required": ["path"],
                    "additionalProperties": False,
                },
            },
        )

    def rows(self, thread: Thread) -> dict[str, Callable[[ToolCall, CallContext], Awaitable[ToolOutput]]]:
        return {self.name: self._view}

    async def forget(self, thread_id: str, session: dict[str, Any]) -> None:
        pass

    async def _view(self, call: ToolCall, context: CallContext) -> ToolOutput:
        given = arguments(call.text).get("path")
        if not isinstance(given, str) or not given or "\0" in given:
            raise BadArguments("failed to parse function arguments: missing field `path`")
        path = workdir(given, context.thread.cwd)
        grant = in_force(context.session, context.turn_id)

        def read() -> bytes:
            return self._reach(context.thread, grant).read(path, MAX_IMAGE_BYTES)

        try:
            content = await asyncio.to_thread(read)
        except PolicyError as exc:
            return ToolOutput(f"view_image failed: the sandbox policy cannot be used: {exc}")
        except OSError as exc:
            return ToolOutput(f"unable to locate image at `{path}`: {exc.strerror}")
        kind = next((kind for start, kind in _SIGNATURES.items() if content.startswith(start)), None)
        if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
            kind = "image/webp"
        if kind is None or len(content) > MAX_IMAGE_BYTES:
            return ToolOutput(f"{path!r} is no image of a known kind with at most {MAX_IMAGE_BYTES >> 20} MiB")
        now = context.now_ms()
        item = {"type": "imageView", "id": call.id, "path": path, "startedAtMs": now, "completedAtMs": None}
        context.item("item/started", item)
        context.item("item/completed", {**item, "completedAtMs": context.now_ms()})
        url = f"data:{kind};base64,{base64.b64encode(content).decode()}"
        return ToolOutput([{"type": "input_image", "image_url": url}])
