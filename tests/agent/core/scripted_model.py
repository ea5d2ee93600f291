"""A model that follows a script: the seam below `core.session`."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from types import TracebackType
from typing import Self

from agent.model.wire import ResponseEvent, ResponsesRequest


class Pause:
    """A place in a response where the model waits until the test lets it go on."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.over = asyncio.Event()

    async def wait(self) -> None:
        self.reached.set()
        await self.over.wait()


Step = Sequence[ResponseEvent | Pause | Exception]


class ScriptedModel:
    """A `ModelSession` that answers each request with the next step: events, pauses, or an exception to raise.

    As a context manager it fails when steps are left, when too many were asked for, and when a stream was left open.
    """

    def __init__(self, *steps: Step, transport: str = "websocket") -> None:
        self.transport = transport
        self.requests: list[ResponsesRequest] = []
        self.transports: list[str] = []
        self.prewarmed: list[ResponsesRequest] = []
        self.open_streams = 0
        self.closed = False
        self.closing: Pause | None = None  # where each stream waits before it is closed
        self._steps = list(steps)
        self._too_many = 0

    async def prewarm(self, request: ResponsesRequest) -> None:
        self.prewarmed.append(request)

    async def stream(self, request: ResponsesRequest) -> AsyncGenerator[ResponseEvent]:
        self.requests.append(request)
        self.transports.append(self.transport)
        if not self._steps:
            self._too_many += 1
            raise AssertionError("the scripted model was asked more often than it has steps")
        self.open_streams += 1
        try:
            for one in self._steps.pop(0):
                match one:
                    case Pause():
                        await one.wait()
                    case Exception():
                        raise one
                    case _:
                        yield one
        finally:
            if self.closing is not None:
                await self.closing.wait()
            self.open_streams -= 1

    def use_http(self) -> None:
        self.transport = "http"

    async def aclose(self) -> None:
        self.closed = True

    def inputs(self, number: int) -> list[str]:
        """The items of the n-th request, from 1, in short."""
        return [_brief(item) for item in self.requests[number - 1].input]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            assert not self._steps, f"the model was never asked for its last {len(self._steps)} steps"
            assert not self._too_many, f"the model was asked {self._too_many} times more than it has steps"
            assert not self.open_streams, "a stream was never closed"


def _brief(item: dict[str, object]) -> str:
    """ "user: hello", or the type of what is no message."""
    content = item.get("content")
    if item["type"] != "message" or not isinstance(content, list):
        return str(item["type"])
    text = "".join(part["text"] for part in content)
    return f"{item['role']}: {text}"
