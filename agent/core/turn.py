"""One turn, decided: events in, commands out. Pure.

The order of what clients are told is the order of the original (facts/protocol.md 4 and 5.6): the goldens are
replayed against it. Longer than most modules: one state machine is read in one place.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, assert_never

from agent.core.compaction import Compaction, NotOneSummary, estimated_tokens, is_full
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
from agent.core.thread import ABORTED_CALL, TURN_ABORTED, Thread, message
from agent.core.tooling import OUTPUT_TYPES, ToolCall, ToolOutput
from agent.core.views import error_wire, item_wire, limits_wire, turn_wire, usage_wire
from agent.model.failures import UpstreamError, judge
from agent.model.limits import RateLimits
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
        self._inputs = [Steered(content, item, client_id)] if content else []
        self._window = window
        self._compaction_limit = compaction_limit
        self._retries = retries
        self._new_id = new_id
        self._attempts = 0
        self._started_ms = 0
        self._open: dict[str, _OpenItem] = {}
        self._calls: list[ToolCall] = []  # of this response, in order
        self._answers: dict[str, Item] = {}  # their outputs, by the call's id
        self._last_message: dict[str, Any] | None = None
        self._limits: RateLimits | None = None
        self._over = False
        self._running: list[ToolCall] = []
        self._held: Completed | SampleFailed | Impossible | None = None  # the end of a response, until all calls ended
        self._stops = False
        self._compacts = compacts
        self._former_model = former_model
        self._compaction: Compaction | None = None  # while one runs
        self._just_compacted = False

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
    def trigger(self) -> tuple[Item, ...]:
        """What the next request has behind the history."""
        return () if self._compaction is None else (self._compaction.trigger,)

    @property
    def model(self) -> str:
        """The model that the next request is for."""
        return self._thread.model if self._former_model is None else self._former_model

    def start(self, now_ms: int) -> list[TurnCommand]:
        """The first commands."""
        self._started_ms = now_ms
        self._thread.status = "active"
        status = {"threadId": self._thread.id, "status": {"type": "active", "activeFlags": []}}
        compacts = self._compacts or self._is_full() or self._former_model is not None
        started = {"threadId": self._thread.id, "turn": turn_wire(self.id, "inProgress", started_ms=now_ms)}
        told: list[TurnCommand] = [Notify("thread/status/changed", status), Notify("turn/started", started)]
        if self.of_user:
            return told
        return [*told, *(self._compact(now_ms) if compacts else [*self._take_inputs(now_ms), Sample()])]

    def count_held(self) -> list[TurnCommand]:
        """What a response has cost whose calls still run: told before the turn is interrupted (observed)."""
        held = self._held
        if not isinstance(held, Completed) or held.usage is None:
            return []
        self._held = dataclasses.replace(held, usage=None)
        return [self._count(self._thread.total + held.usage, held.usage)]

    def receive(self, event: TurnEvent, now_ms: int) -> list[TurnCommand]:
        """What follows from an event; nothing once the turn is over."""
        if self._over:
            return []
        if self._running and isinstance(event, SampleFailed | Impossible):
            self._held = event  # until all calls have an output: the history must be whole for what follows
            return []
        match event:
            case Received():
                return self._received(event.event, now_ms)
            case SampleFailed():
                return self._failed(event, now_ms)
            case Impossible():
                return [*self._record_outputs(), *self._fail(event.reason, event.info, now_ms)]
            case Steered():
                self._inputs.append(event)
                return []
            case ToolFinished():
                return self._tool_finished(event, now_ms)
            case CommandEnded():
                self.of_user = False
                if self._inputs:
                    return [*self._take_inputs(now_ms), Sample()]
                return [self._status("idle"), *self._finish("completed", now_ms)]
            case Interrupted():
                return [
                    *self._abort_calls(),
                    *self._leave_word(),
                    Record(message("user", TURN_ABORTED)),
                    self._status("idle"),
                    *self._finish("interrupted", now_ms),
                ]
            case _:
                assert_never(event)

    def _received(self, event: ResponseEvent, now_ms: int) -> list[TurnCommand]:
        if self._compaction is not None and not isinstance(event, TurnState | LimitsSeen):
            return self._receive_summary(self._compaction, event, now_ms)
        match event:
            case Created():
                return []
            case TurnState():
                self.state = event.value
                return []
            case LimitsSeen():
                self._limits = event.limits
                return []
            case ItemAdded():
                return self._open_item(event.item, now_ms)
            case TextDelta():
                opened = self._open.get(event.item_id)
                # The original says nothing of an empty piece (observed).
                if opened is None or opened.kind != "agentMessage" or not event.delta:
                    return []
                return [Notify("item/agentMessage/delta", self._delta(event.item_id, event.delta))]
            case SummaryPartAdded():
                if event.item_id not in self._open:
                    return []
                params = self._about(itemId=event.item_id, summaryIndex=event.summary_index)
                return [Notify("item/reasoning/summaryPartAdded", params)]
            case SummaryDelta():
                if event.item_id not in self._open:
                    return []
                params = self._delta(event.item_id, event.delta) | {"summaryIndex": event.summary_index}
                return [Notify("item/reasoning/summaryTextDelta", params)]
            case ItemDone():
                return self._item_done(event.item, now_ms)
            case Completed():
                return self._completed(event, now_ms)
            case _:
                assert_never(event)

    # Items

    def _open_item(self, item: Item, now_ms: int, content: Item | None = None) -> list[TurnCommand]:
        kind = _KINDS.get(item["type"])
        item_id = item.get("id")
        if kind is None or not isinstance(item_id, str):
            return []
        self._open[item_id] = _OpenItem(kind, now_ms)
        shown = item_wire(kind, item_id, content or {}, started_ms=now_ms, completed_ms=None)
        return [Notify("item/started", self._about(item=shown, startedAtMs=now_ms))]

    def _item_done(self, item: Item, now_ms: int) -> list[TurnCommand]:
        commands: list[TurnCommand] = [Record(history_item(item))]
        kind = _KINDS.get(item["type"])
        if kind is not None:
            if not isinstance(item.get("id"), str):
                item = {**item, "id": self._new_id()}
            if item["id"] not in self._open:
                commands += self._open_item(item, now_ms, item)  # as a whole: it did not come in pieces (observed)
            opened = self._open.pop(item["id"])
            shown = item_wire(kind, item["id"], item, started_ms=opened.started_ms, completed_ms=now_ms)
            if kind == "agentMessage":
                self._last_message = shown
            params = self._about(item=shown, contentTokenCount=None, completedAtMs=now_ms)
            commands.append(Notify("item/completed", params))
        elif item["type"] in OUTPUT_TYPES:
            call = ToolCall.of(item)
            self._running.append(call)
            self._calls.append(call)
            commands.append(RunTool(call))
        return commands

    def _tool_finished(self, event: ToolFinished, now_ms: int) -> list[TurnCommand]:
        if event.call not in self._running:
            return []
        self._running.remove(event.call)
        self._answers[event.call.id] = event.output.item(event.call)
        self._stops = self._stops or event.output.stops_turn
        if self._running or self._held is None:
            return []
        held, self._held = self._held, None
        return self._completed(held, now_ms) if isinstance(held, Completed) else self.receive(held, now_ms)

    def _abort_calls(self) -> list[TurnCommand]:
        """Outputs for what was stopped: a call without one makes the service refuse the history."""
        self._answers |= {call.id: ToolOutput(ABORTED_CALL).item(call) for call in self._running}
        self._running.clear()
        return self._record_outputs()

    def _take_inputs(self, now_ms: int) -> list[TurnCommand]:
        """Turn the user's waiting input into items."""
        commands: list[TurnCommand] = []
        for taken in self._inputs:
            if not taken.content:
                commands.append(Record(taken.item))
                continue
            shown: dict[str, Any] = {
                "type": "userMessage",
                "id": self._new_id(),
                "clientId": taken.client_id,
                "content": taken.content,
                "startedAtMs": now_ms,
                "completedAtMs": None,
            }
            completed = {**shown, "completedAtMs": now_ms}
            commands += [
                Notify("item/started", self._about(item=shown, startedAtMs=now_ms)),
                Notify("item/completed", self._about(item=completed, contentTokenCount=None, completedAtMs=now_ms)),
                Record(taken.item),
            ]
        self._inputs = []
        return commands

    def _leave_word(self) -> list[TurnCommand]:
        """What is not the user's word, but what a command said, is for the next turn to read."""
        left = [Record(one.item) for one in self._inputs if not one.content]
        self._inputs = [one for one in self._inputs if one.content]
        return [*left]

    # Compaction

    def _is_full(self) -> bool:
        return is_full(self._thread.context_tokens, self._window, self._compaction_limit)

    def _compact(self, now_ms: int) -> list[TurnCommand]:
        self._compaction = Compaction(self._new_id(), now_ms, in_words=not self._thread.provider.compacts)
        started = self._about(item=self._compaction.wire(None), startedAtMs=now_ms)
        return [Notify("item/started", started), Sample()]

    def _receive_summary(self, compaction: Compaction, event: ResponseEvent, now_ms: int) -> list[TurnCommand]:
        """A compaction's answer is not shown: only its summary counts, and that it is the only one."""
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
        words: list[TurnCommand] = []
        if compaction.in_words and event.usage is not None:  # its cost is told; that of a trigger is not (observed)
            words = [self._count(thread.total + event.usage, event.usage)]
        left = estimated_tokens((*thread.static_input(), *history))
        shown = self._about(item=compaction.wire(now_ms), contentTokenCount=None, completedAtMs=now_ms)
        commands: list[TurnCommand] = [
            *words,
            Replace(history),
            self._count(thread.total, TokenUsage(total=left)),
            Notify("item/completed", shown),
            *self._tell_limits(),
        ]
        if self._compacts and not any(one.content for one in self._inputs):
            return [*commands, self._status("idle"), *self._finish("completed", now_ms)]
        return [*commands, *self._take_inputs(now_ms), Sample()]

    def _compact_otherwise(self, compaction: Compaction) -> list[TurnCommand]:
        """The next attempt after one that cannot be retried: where another model was asked first, the thread's own."""
        if self._former_model is None:
            return []
        self._former_model = None
        self._attempts = 0
        compaction.outputs.clear()
        return [Sample()]

    # Ends

    def _completed(self, event: Completed, now_ms: int) -> list[TurnCommand]:
        if self._running:
            self._held = event
            return []
        self._attempts = 0
        self._thread.answered_by = self._thread.model
        self._open.clear()
        commands: list[TurnCommand] = []
        if event.usage is not None:
            commands.append(self._count(self._thread.total + event.usage, event.usage))
        commands += self._tell_limits()
        if self._stops:
            commands += [*self._record_outputs(), Record(message("user", TURN_ABORTED)), self._status("idle")]
            return [*commands, *self._finish("interrupted", now_ms)]
        if self._calls or self._inputs:
            commands += self._record_outputs()
            # One that has just been did not help: the service says itself when there is no more room.
            full = self._is_full() and not self._just_compacted
            self._just_compacted = False
            return [*commands, *(self._compact(now_ms) if full else [*self._take_inputs(now_ms), Sample()])]
        if self._last_message is not None:  # without one there is nothing to read (observed)
            commands += self._read_state()
        return [*commands, self._status("idle"), *self._finish("completed", now_ms)]

    def _failed(self, event: SampleFailed, now_ms: int) -> list[TurnCommand]:
        # An item that was open stays open: it never completes, and the next attempt starts one of its own.
        self._open.clear()
        if self._compaction is not None:
            self._compaction.outputs.clear()
        commands = self._record_outputs()
        verdict = judge(event.failure)
        if verdict.tells_limits:  # the limits of a refusal are told only where they are the reason (observed)
            if isinstance(event.failure, UpstreamError):
                self._limits = event.failure.limits
            commands += self._tell_limits()
        if verdict.window_full:
            full = TokenUsage(total=self._window)
            commands.append(self._count(full, TokenUsage(total=max(0, self._window - self._thread.total.total))))
            self._thread.context_tokens = self._window
        if not verdict.retryable:
            if self._compaction is not None and (again := self._compact_otherwise(self._compaction)):
                return [*commands, *again]
            return [*commands, *self._fail(verdict.message, verdict.info, now_ms)]
        self._attempts += 1
        over_socket = event.transport == "websocket"
        if self._attempts > self._retries:
            if not over_socket:
                return [*commands, *self._fail(verdict.message, verdict.info, now_ms)]
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
            commands.append(Notify("error", self._about(error=error, willRetry=True)))
        return [*commands, Sample(min(delay_s, MAX_RETRY_DELAY_S))]

    def _fail(self, reason: str, info: Any, now_ms: int) -> list[TurnCommand]:
        commands: list[TurnCommand] = []
        if self._compaction is not None:
            if not self._compaction.in_words:
                reason = f"Error running remote compact task: {reason}"
            commands = self._take_inputs(now_ms)  # that it has not come to yet: they are not lost (observed)
        error = error_wire(reason, info)
        return [
            *commands,
            self._status("systemError"),
            Notify("error", self._about(error=error, willRetry=False)),
            *self._read_state(),
            *self._finish("failed", now_ms, error),
        ]

    def _finish(self, status: str, now_ms: int, error: dict[str, Any] | None = None) -> list[TurnCommand]:
        self._over = True
        turn = turn_wire(self.id, status, started_ms=self._started_ms, completed_ms=now_ms, error=error)
        if status == "completed" and self._last_message is not None:
            turn["items"], turn["itemsView"] = [self._last_message], "summary"
        ended = Notify("turn/completed", {"threadId": self._thread.id, "turn": turn})
        return [*self._leave_word(), ended, Finish(status)]

    def _record_outputs(self) -> list[TurnCommand]:
        """The outputs of calls that are in the history, in their order: without one the service refuses it."""
        calls, self._calls = self._calls, []
        answers, self._answers = self._answers, {}
        return [Record(answers[call.id]) for call in calls]

    def _count(self, total: TokenUsage, last: TokenUsage) -> Notify:
        """Set the thread's total and how full its context is, and tell it."""
        self._thread.total, self._thread.last, self._thread.context_tokens = total, last, last.total
        usage = {"total": usage_wire(total), "last": usage_wire(last), "modelContextWindow": self._window}
        return Notify("thread/tokenUsage/updated", self._about(tokenUsage=usage))

    def _tell_limits(self) -> list[TurnCommand]:
        limits, self._limits = self._limits, None
        return [] if limits is None else [Notify("account/rateLimits/updated", {"rateLimits": limits_wire(limits)})]

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

    def _about(self, **more: Any) -> dict[str, Any]:
        """Params that name the thread and the turn, in the original's order."""
        first: dict[str, Any] = {name: more.pop(name) for name in ("item", "error", "willRetry") if name in more}
        return {**first, "threadId": self._thread.id, "turnId": self.id, **more}

    def _delta(self, item_id: str, delta: str) -> dict[str, Any]:
        return self._about(itemId=item_id, delta=delta)


@dataclass(frozen=True, slots=True)
class _OpenItem:
    kind: str
    started_ms: int


# Responses item types that clients are shown, and as what.
_KINDS = {"message": "agentMessage", "reasoning": "reasoning", "web_search_call": "webSearch"}
