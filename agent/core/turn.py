"""One turn, decided: events in, commands out. Pure.

The order of what clients are told is the order of the original (facts/protocol.md 4 and 5.6): the goldens are
replayed against it.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, assert_never

from agent.core.calls import Calls
from agent.core.compaction import Compaction, NotOneSummary, estimated_tokens, is_full
from agent.core.inputs import Inputs
from agent.core.meter import Meter
from agent.core.shown_items import ShownItems
from agent.core.steps import (
    CommandEnded,
    FallBack,
    Finish,
    Impossible,
    Interrupted,
    Notify,
    Received,
    Record,
    Replace,
    RunTool,
    Sample,
    SampleFailed,
    Steered,
    ToolFinished,
    TurnCommand,
    TurnEvent,
)
from agent.core.thread import FILTERED_ANSWER, TURN_ABORTED, Thread, message
from agent.core.views import error_wire, turn_wire
from agent.model.failures import Retry, UpstreamError, judge
from agent.model.wire import (
    Completed,
    Created,
    Item,
    ItemAdded,
    ItemDone,
    LimitsSeen,
    ResponseEvent,
    SummaryDelta,
    SummaryPartAdded,
    TextDelta,
    TokenUsage,
    TurnState,
    history_item,
)

# Seconds before the first stream retry; it doubles. (observed)
RETRY_DELAY_S = 0.2
# Whatever a service asks for, a turn does not sleep longer than this between two attempts.
MAX_RETRY_DELAY_S = 60.0


class Turn:
    """A turn of `thread`, whose settings it reads and whose totals it updates.

    Args:
        content: The user's input as the client sent it, for its userMessage item; without any there is none.
        item: The same as a Responses item.
        window: Tokens of input that clients are told the model has.
        compaction_limit: Tokens at which the user wants the thread to be compacted, if he has said so.
        retries: How often a broken stream is retried on each transport.
        new_id: Makes the next identifier.
        compacts: The user wants the thread compacted, and nothing else.
        former_model: Who made the history, if it was another model: that one sums it up first (observed).
        of_user: It is made for a command of the user; the model is asked only if the user says something meanwhile.
    """

    def __init__(
        self,
        *,
        id: str,
        thread: Thread,
        content: list[dict[str, Any]],
        item: Item,
        client_id: str | None,
        window: int,
        compaction_limit: int | None = None,
        retries: int,
        new_id: Callable[[], str],
        compacts: bool = False,
        former_model: str | None = None,
        of_user: bool = False,
    ) -> None:
        self.id = id
        self.state: str | None = None  # what the service wants back within this turn
        self.of_user = of_user  # until the model is asked
        self.cause: str | None = None  # as the service is told; None for the user's word
        self._thread = thread
        self._about = {"threadId": thread.id, "turnId": id}
        self._compaction_limit = compaction_limit
        self._retries = retries
        self._new_id = new_id
        self._attempts = 0
        self._started_ms: int | None = None
        self._meter = Meter(thread, id, window)
        self._inputs = Inputs(thread.id, id, new_id)
        self._shown = ShownItems(thread.id, id, new_id)
        self._calls = Calls()
        self._over = False
        self._held: Completed | SampleFailed | Impossible | None = None  # the end of a response, until all calls ended
        self._compacts = compacts
        self._former_model = former_model
        self._compaction: Compaction | None = None  # while one runs
        self._just_compacted = False
        if content:
            self._inputs.add(Steered(content, item, client_id))

    def wire(self) -> dict[str, Any]:
        """The turn as the answer to turn/start shows it."""
        return turn_wire(self.id, "inProgress", started_ms=None)

    @property
    def waits(self) -> bool:
        """Whether the response has ended, and calls of it still run."""
        return self._held is not None

    @property
    def has_input(self) -> bool:
        """Whether the model has something to read that it was not asked about yet."""
        return bool(self._inputs)

    @property
    def takes_input(self) -> bool:
        """Whether the user may add something: a turn that only compacts has no use for it (observed)."""
        return not self._compacts

    @property
    def input(self) -> tuple[Item, ...]:
        """What the next request has of the history."""
        return tuple(self._thread.history if self._compaction is None else self._compaction.input)

    @property
    def trigger(self) -> tuple[Item, ...]:
        """What the next request has behind the history."""
        return () if self._compaction is None else (self._compaction.trigger,)

    @property
    def model(self) -> str:
        """The model that the next request is for."""
        return self._thread.model if self._former_model is None else self._former_model

    def start(self, now_ms: int) -> list[TurnCommand]:
        """The first commands."""
        told = self._tell_start(now_ms)
        return told if self.of_user else [*told, *self._ask_first(now_ms)]

    def _ask_first(self, now_ms: int) -> list[TurnCommand]:
        compacts = self._compacts or self._is_full() or self._former_model is not None
        return self._compact(now_ms) if compacts else [*self._inputs.take(now_ms), Sample()]

    def _tell_start(self, now_ms: int) -> list[TurnCommand]:
        self._started_ms = now_ms
        self._thread.status = "active"
        status = {"threadId": self._thread.id, "status": {"type": "active", "activeFlags": []}}
        started = {"threadId": self._thread.id, "turn": turn_wire(self.id, "inProgress", started_ms=now_ms)}
        return [Notify("thread/status/changed", status), Notify("turn/started", started)]

    def _hear_out(self, now_ms: int) -> list[TurnCommand]:
        """Of a turn that ends before it has begun: what the user said is told, and not lost."""
        return [] if self._started_ms is not None else [*self._tell_start(now_ms), *self._inputs.take(now_ms)]

    def count_held(self) -> list[TurnCommand]:
        """What a response has cost whose calls still run: told before the turn is interrupted (observed)."""
        held = self._held
        if not isinstance(held, Completed) or held.usage is None:
            return []
        self._held = dataclasses.replace(held, usage=None)
        return [*self._meter.spend(held.usage)]

    def receive(self, event: TurnEvent, now_ms: int) -> list[TurnCommand]:
        """What follows from an event; nothing once the turn is over."""
        if self._over:
            return []
        if self._calls.run and isinstance(event, SampleFailed | Impossible):
            self._held = event  # until all calls have an output: the history must be whole for what follows
            return []
        match event:
            case Received():
                return self._received(event.event, now_ms)
            case SampleFailed():
                return self._failed(event, now_ms)
            case Impossible():
                return [*self._hear_out(now_ms), *self._take_outputs(), *self._fail(event.reason, event.info, now_ms)]
            case Steered():
                self._inputs.add(event)
                return []
            case ToolFinished():
                return self._tool_finished(event, now_ms)
            case CommandEnded():
                self.of_user = False
                if self._inputs:
                    return self._ask_first(now_ms)
                return [self._status("idle"), *self._finish("completed", now_ms)]
            case Interrupted():
                self._calls.abort(now_ms)
                return [
                    *self._hear_out(now_ms),
                    *self._take_outputs(),
                    *self._inputs.leave(),
                    *(() if event.replaced else [Record(message("user", TURN_ABORTED))]),
                    self._status("idle"),
                    *self._finish("interrupted", now_ms),
                ]
            case _:
                assert_never(event)

    def _received(self, event: ResponseEvent, now_ms: int) -> list[TurnCommand]:
        if self._compaction is not None and not isinstance(event, TurnState):
            return self._receive_summary(self._compaction, event, now_ms)
        match event:
            case Created():
                return []
            case TurnState():
                self.state = event.value
                return []
            case LimitsSeen():
                self._meter.learn(event.limits)
                return []
            case ItemAdded():
                return [*self._shown.begin(event.item, now_ms)]
            case TextDelta() | SummaryPartAdded() | SummaryDelta():
                return [*self._shown.piece(event)]
            case ItemDone():
                told = self._shown.end(event.item, now_ms)
                call = self._calls.begin(event.item, now_ms)
                return [Record(history_item(event.item)), *told, *(() if call is None else (RunTool(call),))]
            case Completed():
                return self._completed(event, now_ms)
            case _:
                assert_never(event)

    def _tool_finished(self, event: ToolFinished, now_ms: int) -> list[TurnCommand]:
        if not self._calls.finish(event.call, event.output) or self._calls.run or self._held is None:
            return []
        held, self._held = self._held, None
        return self._completed(held, now_ms) if isinstance(held, Completed) else self.receive(held, now_ms)

    # Compaction

    def _is_full(self) -> bool:
        return is_full(self._thread.context_tokens, self._meter.window, self._compaction_limit)

    def _compact(self, now_ms: int) -> list[TurnCommand]:
        thread = self._thread
        self._compaction = Compaction(self._new_id(), now_ms, thread.history, in_words=not thread.provider.compacts)
        started = {"item": self._compaction.wire(None), **self._about, "startedAtMs": now_ms}
        return [Notify("item/started", started), Sample()]

    def _receive_summary(self, compaction: Compaction, event: ResponseEvent, now_ms: int) -> list[TurnCommand]:
        """A compaction's answer is not shown: only its summary counts, and that it is the only one."""
        if isinstance(event, LimitsSeen):
            self._meter.learn(event.limits)
            return [*self._meter.tell()] if compaction.in_words else []  # then at once (observed)
        if isinstance(event, ItemDone):
            compaction.outputs.append(event.item)
        if not isinstance(event, Completed):
            return []
        thread = self._thread
        try:
            history = compaction.result(thread.history)
        except NotOneSummary as exc:
            return self._compact_otherwise(compaction) or self._fail(str(exc), "other", now_ms)
        self._compaction, self._former_model, self._just_compacted, self._attempts = None, None, True, 0
        left = estimated_tokens((*thread.static_input(), *history))
        shown = {"item": compaction.wire(now_ms), **self._about, "contentTokenCount": None, "completedAtMs": now_ms}
        commands: list[TurnCommand] = [
            *(self._meter.spend(event.usage) if compaction.in_words else ()),  # of a trigger it is not told (observed)
            Replace(history),
            *self._meter.count(thread.total, TokenUsage(total=left)),
            Notify("item/completed", shown),
        ]
        if self._compacts:
            return [*commands, self._status("idle"), *self._finish("completed", now_ms)]
        return [*commands, *self._inputs.take(now_ms), Sample()]

    def _compact_otherwise(self, compaction: Compaction) -> list[TurnCommand]:
        """The next attempt after one that cannot be retried: where another model was asked first, the thread's own."""
        if self._former_model is None:
            return []
        self._former_model, self._attempts = None, 0
        compaction.outputs.clear()
        return [Sample()]

    # Ends

    def _completed(self, event: Completed, now_ms: int) -> list[TurnCommand]:
        if self._calls.run:
            self._held = event
            return []
        self._attempts = 0
        self._thread.answered_by = self._thread.model
        self._shown.drop_open()
        commands: list[TurnCommand] = [*self._meter.spend(event.usage)]
        if self._calls.stops:
            commands += [*self._take_outputs(), Record(message("user", TURN_ABORTED)), self._status("idle")]
            return [*commands, *self._finish("interrupted", now_ms)]
        if self._calls or self._inputs or event.goes_on:
            commands += self._take_outputs()
            # One that has just been did not help: the service says itself when there is no more room.
            full = self._is_full() and not self._just_compacted
            self._just_compacted = False
            return [*commands, *(self._compact(now_ms) if full else [*self._inputs.take(now_ms), Sample()])]
        if self._shown.last_message is not None:  # without one there is nothing to read (observed)
            commands += self._read_state()
        return [*commands, self._status("idle"), *self._finish("completed", now_ms)]

    def _failed(self, event: SampleFailed, now_ms: int) -> list[TurnCommand]:
        # An item that was open stays open: it never completes, and the next attempt starts one of its own.
        self._shown.drop_open()
        compaction = self._compaction
        if compaction is not None:
            compaction.outputs.clear()
        verdict = judge(event.failure)
        if verdict.tells_limits and isinstance(event.failure, UpstreamError):
            # Those of a refusal are told only where they are the reason (observed).
            self._meter.learn(event.failure.limits)
        commands: list[TurnCommand] = [*self._take_outputs(), *self._meter.tell()]
        if verdict.window_full:
            if compaction is not None and compaction.shorten():
                return [*commands, Sample()]
            if compaction is None or compaction.in_words:
                commands += self._meter.fill()
        if verdict.filtered and compaction is None:
            commands += [Record(message("developer", FILTERED_ANSWER)), *self._inputs.take(now_ms)]
        if not verdict.retryable:
            return [*commands, *self._give_up(verdict, now_ms)]
        self._attempts += 1
        over_socket = event.transport == "websocket"
        if self._attempts > self._retries:
            if not over_socket:
                return [*commands, *self._give_up(verdict, now_ms)]
            self._attempts = 0
            text = f"Falling back from WebSockets to HTTPS transport. {verdict.message}"
            warning = Notify("warning", {"threadId": self._thread.id, "message": text})
            return [*commands, warning, FallBack(), Sample()]
        delay_s = verdict.retry_after_s or RETRY_DELAY_S * 2 ** (self._attempts - 1)
        if not (over_socket and self._attempts == 1):  # sockets drop; the first time is nobody's business
            error = error_wire(
                f"Reconnecting... {self._attempts}/{self._retries}",
                {"responseStreamDisconnected": {"httpStatusCode": verdict.status}},
                verdict.message,
            )
            commands.append(Notify("error", {"error": error, "willRetry": True, **self._about}))
        return [*commands, Sample(min(delay_s, MAX_RETRY_DELAY_S))]

    def _give_up(self, verdict: Retry, now_ms: int) -> list[TurnCommand]:
        """What a request failed with will not go away by itself."""
        if self._compaction is not None:
            return self._compact_otherwise(self._compaction) or self._fail(verdict.message, verdict.info, now_ms)
        if not verdict.window_full and self._inputs.has_words:
            self._attempts = 0
            return [*self._inputs.take(now_ms), Sample()]  # the user has said more, and is to be heard (observed)
        return self._fail(verdict.message, verdict.info, now_ms)

    def _fail(self, reason: str, info: Any, now_ms: int) -> list[TurnCommand]:
        compaction = self._compaction
        if compaction is not None and not compaction.in_words:
            reason = f"Error running remote compact task: {reason}"
        error = error_wire(reason, info)
        first = [] if compaction is None else self._inputs.take(now_ms)  # it has not come to that yet (observed)
        return [
            *first,
            self._status("systemError"),
            Notify("error", {"error": error, "willRetry": False, **self._about}),
            *self._inputs.take(now_ms),
            *self._read_state(),
            *self._finish("failed", now_ms, error),
        ]

    def _finish(self, status: str, now_ms: int, error: dict[str, Any] | None = None) -> list[TurnCommand]:
        self._over = True
        turn = turn_wire(self.id, status, started_ms=self._started_ms, completed_ms=now_ms, error=error)
        if status == "completed" and self._shown.last_message is not None:
            turn["items"], turn["itemsView"] = [self._shown.last_message], "summary"
        ended = Notify("turn/completed", {"threadId": self._thread.id, "turn": turn})
        return [*self._inputs.leave(), ended, Finish(status)]

    def _take_outputs(self) -> list[TurnCommand]:
        """The outputs of calls that are in the history; the service has not counted them yet."""
        outputs = self._calls.take()
        self._thread.context_tokens += estimated_tokens([one.item for one in outputs])
        return [*outputs]

    def _status(self, kind: str) -> Notify:
        self._thread.status = kind
        return Notify("thread/status/changed", {"threadId": self._thread.id, "status": {"type": kind}})

    def _read_state(self) -> list[TurnCommand]:
        if self._thread.ephemeral:  # nobody can come back to read it (observed)
            return []
        self._thread.first_unread = self._thread.first_unread or self.id
        unread = {"type": "turn", "turnId": self._thread.first_unread}
        state = {"firstUnread": unread, "revision": self._new_id()}
        return [Notify("thread/readState/changed", {"threadId": self._thread.id, "readState": state})]
