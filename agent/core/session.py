"""The threads of this process."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from agent.core import rollout
from agent.core.agents_md import Instructions
from agent.core.compaction import estimated_tokens
from agent.core.goals import Goal
from agent.core.pursuit import Pursuit
from agent.core.review import Target, reviewer_of
from agent.core.reviewing import Reviewing
from agent.core.rollout import StoredThread, StoredTurn
from agent.core.running import Running
from agent.core.steps import Steered
from agent.core.store import Found, Journal, Store, StoreFailed, ThreadBusy, ThreadNotStored
from agent.core.surroundings import ModelFacts, ModelSession, StartedTurn, Surroundings, ThreadNotFound, TurnPlace
from agent.core.thread import Thread, thread_of
from agent.core.tooling import ToolBox
from agent.core.views import usage_wire
from agent.model.provider import Provider
from agent.model.wire import Item, TokenUsage


class Companion(Protocol):
    """What goes along with a loaded thread."""

    def told(self, method: str, params: dict[str, Any]) -> None:
        """The followers of the thread were told this."""
        ...

    async def aclose(self) -> None:
        """The thread is about to be unloaded."""
        ...


class Core:
    """All threads.

    Args:
        open_session: Makes the model session of a thread at a provider: (thread id, provider).
        facts: What is known of a model.
        publish: Tells the followers of a thread: (thread id, method, params).
        installation_id: As told to the model service.
        ask: Asks the followers of a thread, and gives the first answer: (thread id, method, params).
        tools: What the model may call.
        store: Where threads that are not ephemeral are kept.
        config: config.toml with the overrides, for what the AGENTS.md files are.
    """

    def __init__(
        self,
        *,
        open_session: Callable[[str, Provider], ModelSession],
        facts: Callable[[str], ModelFacts],
        publish: Callable[[str, str, dict[str, Any]], None],
        installation_id: str,
        ask: Callable[[str, str, dict[str, Any]], Awaitable[Any]],
        tools: ToolBox,
        store: Store,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self._open_session = open_session
        self._publish = publish
        self._companions: dict[str, Companion] = {}
        self._around = Surroundings(facts, self._tell, installation_id, ask, tools, store.home, config or {})
        self.store = store
        self._threads: dict[str, Running] = {}
        self._closing: set[str] = set()

    async def instructions(self, thread: Thread) -> Instructions:
        """What the AGENTS.md files that count for a thread say."""
        return await self._around.instructions(thread)

    def _tell(self, thread_id: str, method: str, params: dict[str, Any]) -> None:
        self._publish(thread_id, method, params)
        if (companion := self._companions.get(thread_id)) is not None:
            companion.told(method, params)

    def accompany(self, thread_id: str, companion: Companion) -> None:
        """From now on `companion` hears what the followers of a loaded thread are told, until it is unloaded."""
        self._companions[thread_id] = companion

    def new_id(self) -> str:
        """A fresh UUIDv7."""
        return self._around.new_id()

    def add(self, thread: Thread) -> None:
        """Take in a new thread; nothing is sent, and nothing written, yet."""
        journal = None
        if not thread.ephemeral:
            journal = Journal(self.store.path_of(thread.id, thread.created_at), thread.meta)
            thread.path = str(journal.path)
        self._take_in(thread, journal)

    def _take_in(self, thread: Thread, journal: Journal | None, goal: Goal | None = None) -> None:
        session = self._open_session(thread.id, thread.provider)
        self._threads[thread.id] = Running(self._around, thread, session, journal, goal)

    def resume(self, thread_id: str, provider_of: Callable[[str], Provider]) -> Thread:
        """The thread, from disk if it is not loaded. What a crash left open in it is closed, and written down.

        Args:
            provider_of: The provider of the name that the thread was begun with; what it raises is raised.

        Raises:
            ThreadNotStored, ThreadArchived, ThreadBusy, StoreFailed: It cannot be.
        """
        if thread_id in self._closing:
            raise ThreadBusy("it is closing; retry thread/resume after the thread is closed")
        if (running := self._threads.get(thread_id)) is not None:
            if running.journal is None or running.journal.is_on_disk:
                return running.thread
            raise ThreadNotStored(thread_id)
        path = self.store.path_to_load(thread_id)
        journal = Journal(path, dict, exists=True)
        try:
            journal.lock()  # before it is read: nobody else writes it from here on
        except OSError as exc:
            raise StoreFailed(f"the thread's file {path.name} cannot be written: {exc.strerror}") from exc
        try:
            return self._loaded(self.store.read(Found(path, False)), path, journal, provider_of)
        except BaseException:
            journal.close()
            raise

    def _loaded(
        self, stored: StoredThread, path: Path, journal: Journal, provider_of: Callable[[str], Provider]
    ) -> Thread:
        try:
            thread = thread_of(stored.meta)
        except TypeError as exc:
            raise StoreFailed(f"the thread's file {path.name} cannot be used: its first line lacks something") from exc
        thread.provider = provider_of(thread.model_provider)
        thread.history, thread.total, thread.last = stored.history, stored.total, stored.last
        thread.read_state = stored.read_state
        thread.preview, thread.updated_at, thread.path = stored.preview, stored.updated_at, str(path)
        thread.problems = stored.problems
        thread.window, thread.context_tokens = stored.window, stored.last.total or estimated_tokens(stored.history)
        if stored.read_state is not None:
            thread.first_unread = (stored.read_state.get("firstUnread") or {}).get("turnId")
        for kind, payload in stored.closing:
            journal.write(kind, payload)
        self._take_in(thread, journal, stored.goal)
        return thread

    def fork(self, source: StoredThread, thread: Thread, before_turn: str | None) -> None:
        """Take in `thread`, which begins with the history of another, and write it down whole.

        Args:
            before_turn: The first turn that is left out; None for all.
        """
        kept = source.turns
        if before_turn is not None:
            index = next(number for number, turn in enumerate(kept) if turn.wire["id"] == before_turn)
            thread.history = kept[index].before(source.history)
            kept = kept[:index]
        else:
            thread.history = list(source.history)
        thread.total, thread.last = (kept[-1].total, kept[-1].last) if kept else (TokenUsage(), TokenUsage())
        thread.preview = source.preview
        thread.context_tokens = thread.last.total or estimated_tokens(thread.history)
        self.add(thread)
        journal = self._threads[thread.id].journal
        if journal is None:
            return
        starts: dict[int, list[StoredTurn]] = {turn.history_start: [] for turn in kept}
        for turn in kept:
            starts[turn.history_start].append(turn)
        for number, item in enumerate(thread.history):
            for turn in starts.pop(number, ()):
                _write_turn(journal, turn)
            journal.write(rollout.HISTORY, item)
        for turns in starts.values():
            for turn in turns:
                _write_turn(journal, turn)

    async def unload(self, thread_id: str) -> bool:
        """Stop the thread and let go of its file; False if it was not loaded."""
        self._closing.add(thread_id)
        try:
            if (companion := self._companions.pop(thread_id, None)) is not None:
                await companion.aclose()
            running = self._threads.pop(thread_id, None)
            if running is None:
                return False
            await running.aclose()
            return True
        finally:
            self._closing.discard(thread_id)

    @property
    def loaded(self) -> tuple[str, ...]:
        """The ids of the threads in memory."""
        return tuple(self._threads)

    def is_loaded(self, thread_id: str) -> bool:
        return thread_id in self._threads

    def is_busy(self, thread_id: str) -> bool:
        """Whether something goes on in a thread: a turn, or a command. Raises ThreadNotFound."""
        return self._running(thread_id).is_busy

    def write(self, thread_id: str, kind: str, payload: Any) -> None:
        """Append a line to the file of a loaded thread.

        Raises:
            ThreadNotFound: It is not loaded.
        """
        self._running(thread_id).chronicle.write(kind, payload)

    def inject(self, thread_id: str, items: list[Item]) -> None:
        """Add items to what the model reads.

        Raises:
            ThreadNotFound: It is not loaded.
        """
        running = self._running(thread_id)
        for item in items:
            running.chronicle.add_to_history(item)

    def usage_wire(self, thread_id: str, turn_id: str) -> dict[str, Any]:
        """What clients are told of the tokens of a thread, as of its last turn.

        Raises:
            ThreadNotFound: It is not loaded.
        """
        thread = self._running(thread_id).thread
        usage = {
            "total": usage_wire(thread.total),
            "last": usage_wire(thread.last),
            "modelContextWindow": self._around.facts(thread.model).usable_window,
        }
        return {"threadId": thread_id, "turnId": turn_id, "tokenUsage": usage}

    def thread(self, thread_id: str) -> Thread:
        """Raises ThreadNotFound."""
        return self._running(thread_id).thread

    def pursuit(self, thread_id: str) -> Pursuit:
        """The goal of a loaded thread. Raises ThreadNotFound."""
        return self._running(thread_id).pursuit

    def pursue(self, thread_id: str) -> None:
        """Begin a turn for the goal of a loaded thread, if it has one to pursue and nothing else runs.

        Raises:
            ThreadNotFound: It is not loaded.
        """
        self._running(thread_id).pursue()

    def prewarm(self, thread_id: str) -> None:
        """Start loading the static input of a new thread."""
        self._running(thread_id).prewarm()

    def start_turn(
        self,
        thread_id: str,
        content: list[dict[str, Any]],
        item: Item,
        client_id: str | None,
        output_schema: Item | None,
        override: Callable[[Thread], None],
    ) -> "StartedTurn":
        """Begin a turn, or add the input to the one that runs. `begin` starts it: call it once it was answered.

        Args:
            override: Sets what the client wants otherwise from this turn on; with a turn that runs, from the next.

        Raises:
            ThreadNotFound: There is no such thread.
            NothingToAdd: A turn runs, and the input is empty.
        """
        return self._running(thread_id).start_turn(content, item, client_id, output_schema, override)

    def start_compaction(self, thread_id: str) -> "StartedTurn":
        """Compact the history in a turn of its own.

        Raises:
            ThreadNotFound, TurnBusy: It cannot be.
        """
        return self._running(thread_id).start_compaction()

    def start_command(self, thread_id: str, command: str, timeout_ms: int | None) -> Callable[[], object]:
        """Run a command of the user; what is returned starts it: call it once the request was answered.

        Raises:
            ThreadNotFound: There is no such thread.
        """
        return self._running(thread_id).start_command(command, timeout_ms)

    def start_review(
        self, thread_id: str, reviewer_id: str, target: Target, ended: Callable[[], None]
    ) -> "StartedTurn":
        """Have something reviewed, in a turn of the thread.

        Args:
            reviewer_id: The thread that the reviewer's requests name.
            ended: Called once it makes no more of them.

        Raises:
            ThreadNotFound, TurnBusy: It cannot be.
        """

        def opening(place: TurnPlace) -> Reviewing:
            reviewer = reviewer_of(place.thread, reviewer_id, place.turn_id)
            session = self._open_session(reviewer_id, reviewer.provider)
            return Reviewing(place, reviewer, target, self._around, session, ended)

        return self._running(thread_id).start_opened(opening)

    def steer(
        self, thread_id: str, turn_id: str, content: list[dict[str, Any]], item: Item, client_id: str | None
    ) -> None:
        """Add input to the turn that runs.

        Raises:
            ThreadNotFound, TurnNotRunning: There is no such turn.
            NothingToAdd: The input is empty.
        """
        self._running(thread_id).steer(turn_id, Steered(content, item, client_id))

    def interrupt(self, thread_id: str, turn_id: str) -> Callable[[], None]:
        """What stops the turn; call it once the request was answered.

        Raises:
            ThreadNotFound, TurnNotRunning: There is no such turn.
        """
        return self._running(thread_id).interrupt(turn_id)

    async def aclose(self) -> None:
        """Stop all turns and close all sockets."""
        companions, self._companions = self._companions, {}
        await asyncio.gather(*(companion.aclose() for companion in companions.values()))
        await asyncio.gather(*(running.aclose() for running in self._threads.values()))

    def _running(self, thread_id: str) -> "Running":
        running = self._threads.get(thread_id)
        if running is None:
            raise ThreadNotFound(thread_id)
        return running


def _write_turn(journal: Journal, turn: StoredTurn) -> None:
    journal.write(rollout.TURN_STARTED, {"turn": turn.wire})
    for item in turn.items:
        journal.write(rollout.ITEM, {"turn_id": turn.wire["id"], "item": item})
    journal.write(rollout.USAGE, rollout.usage_payload(turn.total, turn.last))
    journal.write(rollout.TURN_ENDED, {"turn": turn.wire})
