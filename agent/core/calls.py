"""The calls of one response, and what came of them. Pure."""

from agent.core.steps import Record
from agent.core.thread import ABORTED_CALL
from agent.core.tooling import OUTPUT_TYPES, ToolCall, ToolOutput
from agent.model.wire import Item

# Whose abortion is told as the end of a command is.
_COMMANDS = ("exec_command", "write_stdin")


class Calls:
    """Each gets one output, in the order of the calls: without one the service refuses the history."""

    def __init__(self) -> None:
        self._answers: list[tuple[ToolCall, Item | None]] = []  # None for one that runs
        self._began_ms: list[int] = []
        self.stops = False  # whether the user wants the turn to end with them

    def __bool__(self) -> bool:
        """Whether there are any whose output is not in the history."""
        return bool(self._answers)

    @property
    def run(self) -> bool:
        """Whether one still runs."""
        return any(answer is None for _, answer in self._answers)

    def begin(self, item: Item, now_ms: int) -> ToolCall | None:
        """The call that a response's item is; None if it is none."""
        if item["type"] not in OUTPUT_TYPES:
            return None
        call = ToolCall.of(item)
        self._answers.append((call, None))
        self._began_ms.append(now_ms)
        return call

    def finish(self, call: ToolCall, output: ToolOutput) -> bool:
        """Take in an output; False if nobody waits for it."""
        for number, (one, answer) in enumerate(self._answers):
            if answer is None and one == call:
                self._answers[number] = call, output.item(call)
                self.stops = self.stops or output.stops_turn
                return True
        return False

    def abort(self, now_ms: int) -> None:
        """Those that run are stopped."""
        for number, (call, answer) in enumerate(self._answers):
            if answer is None:
                seconds = (now_ms - self._began_ms[number]) / 1000
                self._answers[number] = call, ToolOutput(_aborted(call, seconds)).item(call)

    def take(self) -> list[Record]:
        """The outputs of all that have ended, for the history."""
        answers, self._answers, self._began_ms = self._answers, [], []
        return [Record(answer) for _, answer in answers if answer is not None]


def _aborted(call: ToolCall, seconds: float) -> str:
    if call.name in _COMMANDS:
        return f"Wall time: {seconds:.1f} seconds\n{ABORTED_CALL}"
    return f"{ABORTED_CALL} after {seconds:.1f}s"
