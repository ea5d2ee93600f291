"""The threads of this process."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

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
from agent.core.surroundings import (
    Companion,
    ModelFacts,
    ModelSession,
    StartedTurn,
    Surroundings,
    ThreadNotFound,
    TurnPlace,
)
from agent.core.thread import Thread, thread_of
from agent.core.tooling import ToolBox
from agent.core.views import token_usage_wire
from agent.model.provider import Provider
from agent.model.wire import Item, TokenUsage

# After so many attempts to read a file that grows meanwhile, nothing else is done while it is read.
_MOST_READS = 3


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
        config: config.toml with the overrides; what a thread has of its own comes before it.
    """

    def __init__(
        self,
        *,
        open_session: Callable[[str, Provider], ModelSession],
        facts: Callable[[Thread], ModelFacts],
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
        self._closing: dict[str, asyncio.Task[bool]] = {}  # done when they are closed
        self._ends = False

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
            raise _closes()
        if (running := self._threads.get(thread_id)) is not None:
            if running.journal is None or running.journal.is_on_disk:
                return running.thread
            raise ThreadNotStored(thread_id)
        journal = self._journal(thread_id)
        try:
            return self._loaded(self.store.read(Found(journal.path, False)), journal.path, journal, provider_of)
        except BaseException:
            journal.close()
            raise

    def _journal(self, thread_id: str) -> Journal:
        """Of a thread that is not loaded. Raises ThreadNotStored, ThreadArchived, ThreadBusy, StoreFailed."""
        path = self.store.path_to_load(thread_id)
        journal = Journal(path, dict, exists=True)
        try:
            journal.lock()  # before it is read: nobody else writes it from here on
        except OSError as exc:
            raise StoreFailed(f"the thread's file {path.name} cannot be written: {exc.strerror}") from exc
        return journal

    async def stored(self, thread_id: str) -> tuple[StoredThread, Found]:
        """What is on disk of a thread up to now, also of one that is loaded, or archived.

        What is written meanwhile is read too: it would be lost to a client that follows the thread from now on.

        Raises:
            ThreadNotStored, StoreFailed: There is nothing.
        """
        for _ in range(_MOST_READS):
            found = await asyncio.to_thread(self.store.find, thread_id)
            before = self._lines(thread_id)
            try:
                stored = await asyncio.to_thread(self.store.read, found, whole=before is None)
            except StoreFailed:
                if found.path.exists():
                    raise
                continue  # it was put away, or taken back
            if self._lines(thread_id) == before:
                return stored, found
        found = self.store.find(thread_id)
        return self.store.read(found, whole=not self.is_loaded(thread_id)), found

    def _lines(self, thread_id: str) -> int | None:
        """How many lines were written since the thread was loaded; None where it is not."""
        running = self._threads.get(thread_id)
        return None if running is None or running.journal is None else running.journal.lines

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
            thread.history, thread.answered_by = kept[index].before(source.history), kept[index].after
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
        for kind, payload in rollout.entries(thread.history, kept):
            journal.write(kind, payload)

    async def unload(self, thread_id: str) -> bool:
        """Stop the thread and let go of its file; False if it was not loaded, or somebody else has unloaded it.

        Once begun it is done to the end, also where whoever wanted it does not wait any more.
        """
        if (closing := self._closing.get(thread_id)) is not None:
            await asyncio.wait({closing})
            return False
        closing = self._closing[thread_id] = asyncio.create_task(self._close(thread_id))
        return await asyncio.shield(closing)

    async def _close(self, thread_id: str) -> bool:
        try:
            if (companion := self._companions.pop(thread_id, None)) is not None:
                await companion.aclose()
            running = self._threads.pop(thread_id, None)
            if running is None:
                return False
            await running.aclose()
            return True
        finally:
            del self._closing[thread_id]

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
        """Append a line to the file of a thread, which need not be loaded.

        Raises:
            ThreadNotStored, ThreadArchived, ThreadBusy, StoreFailed: It is not loaded, and cannot be written.
        """
        if thread_id in self._closing:
            raise _closes()
        if (running := self._threads.get(thread_id)) is not None:
            running.chronicle.write(kind, payload)
            return
        journal = self._journal(thread_id)
        journal.write(kind, payload)
        journal.close()
        if journal.problem is not None:
            raise StoreFailed(journal.problem)

    def revert(self, thread_id: str, turn: StoredTurn) -> None:
        """Take back a turn, as it is stored now, and all after it; one that runs is stopped. Raises ThreadNotFound."""
        self._running(thread_id).revert(turn)

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
        usage = token_usage_wire(thread.total, thread.last, self._around.facts(thread).usable_window)
        return {"threadId": thread_id, "turnId": turn_id, "tokenUsage": usage}

    def thread(self, thread_id: str) -> Thread:
        """Raises ThreadNotFound."""
        return self._running(thread_id).thread

    def pursuit(self, thread_id: str) -> Pursuit:
        """The goal of a loaded thread. Raises ThreadNotFound."""
        return self._running(thread_id).pursuit

    def pursue(self, thread_id: str) -> None:
        """Begin a turn for the goal of a thread, if it is loaded, has one to pursue, and nothing else runs."""
        with contextlib.suppress(ThreadNotFound):
            self._open(thread_id).pursue()

    def prewarm(self, thread_id: str) -> None:
        """Start loading the static input of a thread, if it is loaded."""
        if (running := self._threads.get(thread_id)) is not None:
            running.prewarm()

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
            NotSteerable, NothingToAdd: A turn runs that takes no input, or the input is empty.
        """
        return self._open(thread_id).start_turn(content, item, client_id, output_schema, override)

    def start_compaction(self, thread_id: str) -> "StartedTurn":
        """Compact the history in a turn of its own, which takes the place of one that runs.

        Raises:
            ThreadNotFound: There is no such thread.
        """
        return self._open(thread_id).start_compaction()

    def start_command(self, thread_id: str, command: str, timeout_ms: int | None) -> Callable[[], object]:
        """Run a command of the user; what is returned starts it: call it once the request was answered.

        Raises:
            ThreadNotFound: There is no such thread.
        """
        return self._open(thread_id).start_command(command, timeout_ms)

    def start_review(
        self, thread_id: str, reviewer_id: str, target: Target, ended: Callable[[], None]
    ) -> "StartedTurn":
        """Have something reviewed, in a turn of the thread, which takes the place of one that runs.

        Args:
            reviewer_id: The thread that the reviewer's requests name.
            ended: Called once it makes no more of them.

        Raises:
            ThreadNotFound: There is no such thread.
        """

        def opening(place: TurnPlace) -> Reviewing:
            reviewer = reviewer_of(place.thread, reviewer_id, place.turn_id)
            session = self._open_session(reviewer_id, reviewer.provider)
            return Reviewing(place, reviewer, target, self._around, session, ended)

        return self._open(thread_id).start_opened(opening)

    def steer(
        self, thread_id: str, turn_id: str, content: list[dict[str, Any]], item: Item, client_id: str | None
    ) -> None:
        """Add input to the turn that runs.

        Raises:
            ThreadNotFound, TurnNotRunning: There is no such turn.
            NotSteerable, NothingToAdd: It takes no input, or the input is empty.
        """
        self._running(thread_id).steer(turn_id, Steered(content, item, client_id))

    def interrupt(self, thread_id: str, turn_id: str) -> Callable[[], None]:
        """What stops the turn; call it once the request was answered.

        Raises:
            ThreadNotFound, TurnNotRunning: There is no such turn.
        """
        return self._running(thread_id).interrupt(turn_id)

    async def aclose(self) -> None:
        """Unload all threads; no turn begins any more."""
        self._ends = True
        await asyncio.gather(*map(self.unload, {*self._threads, *self._closing}))

    def _running(self, thread_id: str) -> "Running":
        running = self._threads.get(thread_id)
        if running is None:
            raise ThreadNotFound(thread_id)
        return running

    def _open(self, thread_id: str) -> "Running":
        """One in which a turn may begin. Raises ThreadNotFound."""
        if self._ends or thread_id in self._closing:
            raise ThreadNotFound(thread_id)
        return self._running(thread_id)


def _closes() -> ThreadBusy:
    return ThreadBusy("it is closing; retry thread/resume after the thread is closed")
