"""A realtime conversation: at most one for each thread, with the agent behind it.

What clients ask for waits in one queue for each thread, in order, and is bounded in characters: a client that is faster
than the socket is answered later, and told when that is not enough. Only an end (or a new beginning) waits for nothing.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, assert_never

from agent.core.backlog import Backlog
from agent.core.realtime_steps import Live, Lost, Say, Step, Stop
from agent.core.realtime_texts import ENDED, STARTED, delegation, note
from agent.core.realtime_wanted import Link, Refused, Service, Wanted
from agent.core.session import Core
from agent.core.surroundings import NotSteerable, ThreadNotFound
from agent.core.thread import Thread, message
from agent.core.transcript import Told, Transcript
from agent.model import realtime_wire as wire
from agent.model.failures import StreamBroken, Unavailable, UpstreamError, judge
from agent.model.realtime_wire import Caller, Session, Version

logger = logging.getLogger(__name__)

NOT_RUNNING = "conversation is not running"


class Conversation:
    """What one thread says and hears. Its task does one thing after the other."""

    def __init__(
        self,
        core: Core,
        thread: Thread,
        service: Service,
        publish: Callable[[str, dict[str, Any]], None],
        deserted: Callable[[], Awaitable[None]],
        forget: Callable[[], object],
    ) -> None:
        self._core, self._thread, self._service = core, thread, service
        self._publish, self._deserted, self._forget = publish, deserted, forget
        self._steps: Backlog[Step] = Backlog()
        self._live: Live | None = None
        self._doing: asyncio.Task[None] | None = None  # what an end cuts short
        self._ending: str | None = None  # what the agent, which was told of the start, is to be told of the end
        self._worker = asyncio.create_task(self._work())

    # What clients ask for

    def start(self, wanted: Wanted) -> None:
        """Begin; a conversation that runs ends first."""
        self._cut_short(wanted)

    def stop(self) -> None:
        """End."""
        self._cut_short(Stop())

    def _cut_short(self, step: Step) -> None:
        """Queue a step that makes void what waits, and that nothing holds up."""
        self._steps.clear()
        if self._doing is not None:
            self._doing.cancel()
        self._steps.put(step)

    async def say_audio(self, content: str) -> None:
        """Add audio, in base64. Raises TooFast."""
        await self._steps.offer(Say(lambda _: wire.audio(content)), len(content))

    async def say_text(self, role: str, text: str) -> None:
        """Add a text of the user's, or one for the model. Raises TooFast."""
        await self._steps.offer(Say(lambda version: wire.typed(version, role, text)), len(text))

    async def say_speech(self, text: str) -> None:
        """Have a text spoken, if there is anything to speak. Raises TooFast."""
        has_words = bool(text.strip())
        said = Say(lambda version: wire.from_agent(version, None, text) if has_words else None, respond=has_words)
        await self._steps.offer(said, len(text))

    # What is done about it

    async def _work(self) -> None:
        while True:
            step, size = await self._steps.take()
            try:
                await self._perform(step)
            except Exception:
                logger.exception("realtime failed thread=%s", self._thread.id)
                await self._fail("internal error")
            self._steps.done(size)

    async def _perform(self, step: Step) -> None:
        match step:
            case Wanted():
                if self._live is not None:
                    await self._end("requested")
                await self._until_cut_short(self._open(step))
            case Stop() if self._live is None:
                self._publish("thread/realtime/closed", {"threadId": self._thread.id, "reason": "requested"})
            case Stop():
                await self._end("requested")
            case Lost() | Say() if step.live is not None and step.live is not self._live:
                pass  # it was ended meanwhile
            case Lost(reason=None):
                await self._end("transport_closed")
            case Lost():
                await self._fail(step.reason)
            case Say() if self._live is None:
                self._not_running()
            case Say():
                await self._send(self._live, step)
            case _:
                assert_never(step)

    async def _until_cut_short(self, doing: Coroutine[Any, Any, None]) -> None:
        """Do it, unless an end comes first. Raises what it raises."""
        self._doing = task = asyncio.create_task(doing)
        await asyncio.wait({task})
        self._doing = None
        if not task.cancelled():
            task.result()

    async def _send(self, live: Live, step: Say) -> None:
        made = step.make(live.session.version)
        try:
            if made is not None and live.link is not None:
                await self._until_cut_short(live.link.send(made))
        except StreamBroken as exc:
            await self._fail(judge(exc).message)
            return
        if step.respond and live.session.version is Version.V2:
            self._respond(live)

    def _respond(self, live: Live) -> None:
        """Have the model respond, once it has ended the response before."""
        live.wants_response = live.responding
        if not live.responding:
            live.responding = True
            self._steps.put(Say(lambda _: wire.RESPOND, live=live))

    def _not_running(self) -> None:
        if self._thread.status == "idle":
            self._thread.status = "systemError"
            status = {"threadId": self._thread.id, "status": {"type": "systemError"}}
            self._publish("thread/status/changed", status)
        error = {
            "message": NOT_RUNNING,
            "codexErrorInfo": "badRequest",
            "additionalDetails": None,
            "misalignment": None,
        }
        params = {"error": error, "willRetry": False, "threadId": self._thread.id, "turnId": self._core.new_id()}
        self._publish("error", params)

    async def _open(self, wanted: Wanted) -> None:
        """Begin the conversation, or tell why it cannot be."""
        try:
            session = wanted.session(self._thread)
            caller = Caller(self._thread.id, self._session_id(wanted))
            if wanted.offer is None:
                link = await self._service.connect(caller, session)
                live = None
            else:
                answer, call_id = await self._service.call(caller, session, wanted.offer)
                live = self._begin(session, wanted)
                self._publish("thread/realtime/sdp", {"threadId": self._thread.id, "sdp": answer})
                link = await self._service.join(caller, session, call_id)
            try:
                await link.send(wire.session_update(session))
                live = live or self._begin(session, wanted)
            except BaseException:
                await link.aclose()
                raise
            live.link = link
            live.reader = asyncio.create_task(self._read(live, link))
        except (Refused, Unavailable) as exc:
            await self._fail(str(exc))
        except (UpstreamError, StreamBroken) as exc:
            await self._fail(judge(exc).message)

    def _begin(self, session: Session, wanted: Wanted) -> Live:
        session_id = self._session_id(wanted)
        live = self._live = Live(session, wanted, session_id, Transcript(session_id, self._core.new_id))
        live.watch = asyncio.create_task(self._end_when_deserted())
        self._tell_item(live, {"type": "realtimeSessionStarted"})
        started = {"threadId": self._thread.id, "realtimeSessionId": session_id, "version": str(session.version)}
        self._publish("thread/realtime/started", started)
        return live

    def _session_id(self, wanted: Wanted) -> str:
        return self._thread.id if wanted.session_id is None else wanted.session_id

    async def _end_when_deserted(self) -> None:
        await self._deserted()
        self.stop()

    async def _fail(self, reason: str | None) -> None:
        self._publish("thread/realtime/error", {"threadId": self._thread.id, "message": reason or "unknown"})
        if self._live is not None:
            await self._end("error")

    async def _end(self, reason: str) -> None:
        live, self._live = self._live, None
        assert live is not None
        await self._close(live)
        self._tell(live.transcript.complete())
        self._tell_item(live, {"type": "realtimeSessionClosed", "outcome": "failed" if reason == "error" else "ended"})
        self._publish("thread/realtime/closed", {"threadId": self._thread.id, "reason": reason})

    async def _close(self, live: Live) -> None:
        for task in (live.reader, live.watch):
            if task is not None:
                task.cancel()
        if live.link is not None:
            await live.link.aclose()

    def _tell_item(self, live: Live, content: dict[str, Any]) -> None:
        item = {"id": self._core.new_id(), "realtimeSessionId": live.session_id, **content}
        self._tell([("item/started", {"item": item}), ("item/completed", {"item": item})])

    def _tell(self, told: list[Told]) -> None:
        for name, params in told:
            self._publish(f"thread/realtime/{name}", {"threadId": self._thread.id, **params})

    # What the service says

    async def _read(self, live: Live, link: Link) -> None:
        reason = None
        try:
            async with contextlib.aclosing(link.frames()) as frames:
                async for frame in frames:
                    for event in wire.parse(live.session.version, frame):
                        if isinstance(event, wire.Failed):
                            self._steps.put(Lost(live, event.message))
                            return
                        self._hear(live, event)
                    await self._steps.room()  # or the service could make us keep without end what it does not take
        except StreamBroken as exc:
            reason = judge(exc).message
        except Exception:
            logger.exception("realtime failed thread=%s", self._thread.id)
            reason = "internal error"
        self._steps.put(Lost(live, reason))

    def _hear(self, live: Live, event: wire.Event) -> None:
        match event:
            case wire.TranscriptDelta():
                self._tell(live.transcript.delta(event.role, event.text))
            case wire.TranscriptDone():
                self._tell(live.transcript.done(event.role, event.text))
            case wire.AudioOut():
                self._tell([("outputAudio/delta", {"audio": event.chunk})])
            case wire.Added():
                self._tell([("itemAdded", {"item": event.item})])
            case wire.Responding():
                live.responding = event.active
                if live.wants_response and not event.active:
                    self._respond(live)
            case wire.Silent():
                self._answer(live, event.call_id, "")
            case wire.Handoff():
                self._hand_off(live, event)
            case wire.Failed():
                raise AssertionError("ends the conversation, and is not heard")
            case _:
                assert_never(event)

    def _hand_off(self, live: Live, event: wire.Handoff) -> None:
        """Give the agent what the user wants of it, in a turn of its own or in the one that runs."""
        said = live.transcript.take(event.prompt)
        transcript = [{"role": role, "text": text} for role, text in said]
        item = {
            "type": "handoff_request",
            "handoff_id": event.id,
            "item_id": event.item_id,
            "input_transcript": event.prompt,
            "active_transcript": transcript,
        }
        self._tell([("itemAdded", {"item": item})])
        text = delegation(event.prompt, said)
        self._thread.preview = self._thread.preview or event.prompt
        content = [{"type": "text", "text": text, "text_elements": []}]
        try:
            started = self._core.start_turn(
                self._thread.id, content, message("user", text), None, None, lambda thread: None
            )
        except ThreadNotFound:
            return  # it is being unloaded
        except NotSteerable:
            self._answer(live, event.id, wire.BUSY, respond=True)
            return
        # A turn that the user typed is taken over; one that was handed on before has its answer to come.
        if started.begin is None and live.handoff is not None and live.session.version is Version.V2:
            self._answer(live, event.id, wire.STEERED, respond=True)
            return
        live.handoff, live.turn = event.id, started.wire["id"]
        if started.begin is not None:
            started.begin()

    def _answer(self, live: Live, call_id: str, text: str, *, respond: bool = False) -> None:
        """Say what came of a call of v2; v1 has none."""
        if live.session.version is Version.V2:
            self._steps.put(Say(lambda _: wire.output(call_id, text), respond, live), len(text))

    # What the agent says

    def told(self, method: str, params: dict[str, Any]) -> None:
        """See `agent.core.surroundings.Companion`."""
        live = self._live
        match method:
            case "turn/started":
                self._tell_agent()
                if live is not None and params["turn"]["id"] != live.turn:
                    self._tell(live.transcript.complete())
            case "item/completed" if params["item"]["type"] == "agentMessage" and live is not None:
                self._mirror(live, params["turnId"], params["item"])
            case "turn/completed" if live is not None and params["turn"]["id"] == live.turn:
                handoff, live.handoff, live.turn = live.handoff, None, None
                if handoff is not None and live.wanted.handoffs and params["turn"]["status"] == "completed":
                    self._answer(live, handoff, wire.FINISHED, respond=True)

    def _tell_agent(self) -> None:
        """Let the model of the turn that starts know that a conversation has begun, or is over."""
        if self._live is not None and self._ending is None:
            wanted = self._live.wanted
            self._ending = ENDED if wanted.ended is None else wanted.ended
            self._core.inject(self._thread.id, [note(STARTED if wanted.started is None else wanted.started)])
        elif self._live is None and self._ending is not None:
            ended, self._ending = self._ending, None
            self._core.inject(self._thread.id, [note(ended)])

    def _mirror(self, live: Live, turn_id: str, item: dict[str, Any]) -> None:
        text = str(item.get("text", ""))
        if not text.strip() or not live.wanted.handoffs:
            return
        if not self._steps.fits(len(text)):
            self._steps.put(Lost(live, "the realtime service does not take what the agent says"))
            return
        handoff = live.handoff if turn_id == live.turn else None
        final = item.get("phase") != "commentary"
        said = Say(lambda version: wire.from_agent(version, handoff, text, final=final), handoff is None, live)
        self._steps.put(said, len(text))

    async def aclose(self) -> None:
        """End without a word to clients: the thread goes too."""
        tasks = [task for task in (self._doing, self._worker) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._steps.close()
        if self._live is not None:
            live, self._live = self._live, None
            await self._close(live)
        # Not before: whoever asks meanwhile is to find this one, and not to begin another that nobody would end.
        self._forget()
        self._tell_agent()
