"""A review at work: another thread, whose work is part of a turn of the one that is reviewed."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncGenerator, Callable
from typing import Any

from agent.core.review import Relay, Target, findings_text, review_request
from agent.core.running import Running
from agent.core.surroundings import ModelSession, Surroundings, TurnPlace, now_ms
from agent.core.thread import Thread, message
from agent.model.failures import Unavailable
from agent.model.wire import Completed, ItemDone, ResponseEvent


class Reviewing:
    """An `Opening` of a turn.

    Args:
        place: The turn, of the thread that is reviewed.
        reviewer: The one that reviews.
        session: The reviewer's.
        ended: Called when the reviewer makes no more requests; may be called twice.
    """

    def __init__(
        self,
        place: TurnPlace,
        reviewer: Thread,
        target: Target,
        around: Surroundings,
        session: ModelSession,
        ended: Callable[[], None],
    ) -> None:
        self._place = place
        self._target = target
        self._relay = Relay(place.thread.id, place.turn_id)
        self._around = around
        self._ended = ended
        self._session = session
        self._inside = False
        self._over: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        own = dataclasses.replace(around, publish=self._heard, ask=self._ask)
        self._running = Running(own, reviewer, session, None)

    async def events(self) -> AsyncGenerator[ResponseEvent]:
        """The findings, as a message of the model.

        Raises:
            Unavailable: The reviewer failed.
        """
        prompt = self._target.prompt
        content = [{"type": "text", "text": prompt, "text_elements": []}]
        try:
            if await self._place.transport() == "http":
                self._session.use_http()
            self._mode("enteredReviewMode", self._target.hint)
            self._inside = True
            self._running.prewarm()
            started = self._running.start_turn(content, message("user", prompt), None, None, lambda thread: None)
            assert started.begin is not None, "the reviewer has one turn"
            started.begin()
            turn = await self._over
        finally:
            await asyncio.shield(self._end())
        if (error := turn["error"]) is not None:
            self.stopped()
            raise Unavailable(error["message"], error["codexErrorInfo"])
        said = turn["items"][-1]["text"] if turn["items"] else None
        text = findings_text(said)
        self._leave(text)
        self._place.record(message("user", review_request(self._target)))
        item_id = f"msg_{self._around.new_id()}"
        answer = [{"type": "output_text", "text": text}]
        yield ItemDone({"type": "message", "role": "assistant", "id": item_id, "content": answer})
        yield Completed("", None)

    def stopped(self) -> None:
        """Tell the clients that there is no review any more, if they were told that there is one."""
        self._leave(findings_text(None))
        self._ended()  # also of one that never began

    def _leave(self, text: str) -> None:
        if self._inside:
            self._inside = False
            self._mode("exitedReviewMode", text)

    async def _end(self) -> None:
        with contextlib.suppress(Exception):
            await self._running.aclose()
        self._ended()

    def _mode(self, kind: str, text: str) -> None:
        for method, params in self._relay.mode(kind, self._around.new_id(), text, now_ms()):
            self._place.publish(method, params)

    def _heard(self, thread_id: str, method: str, params: dict[str, Any]) -> None:
        """What the reviewer would tell clients of its own."""
        if method == "turn/completed" and not self._over.done():
            self._over.set_result(params["turn"])
        if self._inside and (told := self._relay.told(method, params)) is not None:
            self._place.publish(method, told)

    async def _ask(self, thread_id: str, method: str, params: dict[str, Any]) -> Any:
        return await self._around.ask(self._place.thread.id, method, self._relay.renamed(params))
