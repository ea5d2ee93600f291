"""Realtime conversations, as clients ask for them. What they need is imported when the first one is asked for."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agent.core.session import Core
from agent.core.surroundings import ThreadNotFound
from agent.rpc.jsonrpc import INVALID_REQUEST, RequestFailed
from agent.rpc.server import OVERLOADED, Answer, Connection, Connections, Method, Methods
from agent.rpc.shapes import params
from agent.rpc.thread_pages import checked_id

if TYPE_CHECKING:
    from agent.core.conversations import Conversations
    from agent.core.realtime import Conversation
    from agent.core.realtime_wanted import Service

TOO_FAST = "realtime input comes faster than the service takes it; add it more slowly"


class RealtimeMethods:
    """The methods.

    Args:
        service: Gives what opens conversations; called for the first one.
    """

    def __init__(self, core: Core, connections: Connections, service: Callable[[], "Service"]) -> None:
        self._core = core
        self._connections = connections
        self._service = service
        self._conversations: Conversations | None = None

    def table(self) -> Methods:
        """The rows."""
        return {
            "thread/realtime/start": Method(_given("START"), self._start),
            "thread/realtime/appendAudio": Method(_given("AUDIO"), self._append_audio),
            "thread/realtime/appendText": Method(_given("TEXT"), self._append_text),
            "thread/realtime/appendSpeech": Method(_given("SPEECH"), self._append_speech),
            "thread/realtime/stop": Method(_given("STOP"), self._stop),
            "thread/realtime/listVoices": Method(_given("VOICES"), self._list_voices),
        }

    async def _start(self, connection: Connection, given: dict[str, Any]) -> Answer:
        from agent.core.realtime_wanted import Wanted
        from agent.model.realtime_wire import Version
        from agent.rpc.realtime_params import check_start

        conversation = self._conversation(given)
        check_start(given)
        version = given.get("version")
        wanted = Wanted(
            offer=(given.get("transport") or {}).get("sdp"),
            modality=given["outputModality"],
            version=None if version is None else Version(version),
            voice=given.get("voice"),
            model=given.get("model"),
            prompt=(given["prompt"] or "") if "prompt" in given else None,
            with_context=given.get("includeStartupContext") is not False,
            session_id=given.get("realtimeSessionId"),
            handoffs=not given.get("clientManagedHandoffs"),
            started=given.get("realtimeStartInstructions"),
            ended=given.get("realtimeEndInstructions"),
        )
        return Answer({}, lambda: conversation.start(wanted))

    async def _append_audio(self, connection: Connection, given: dict[str, Any]) -> Answer:
        return await self._append(self._conversation(given).say_audio, given["audio"]["data"])

    async def _append_text(self, connection: Connection, given: dict[str, Any]) -> Answer:
        return await self._append(self._conversation(given).say_text, given.get("role", "user"), given["text"])

    async def _append_speech(self, connection: Connection, given: dict[str, Any]) -> Answer:
        return await self._append(self._conversation(given).say_speech, given["text"])

    async def _append(self, say: Any, *said: str) -> Answer:
        """The answer comes when there is room for more: that holds back a client that waits for it."""
        from agent.core.backlog import TooFast

        try:
            await say(*said)
        except TooFast as exc:
            raise RequestFailed(OVERLOADED, TOO_FAST) from exc
        return Answer({})

    async def _stop(self, connection: Connection, given: dict[str, Any]) -> Answer:
        return Answer({}, self._conversation(given).stop)

    async def _list_voices(self, connection: Connection, given: dict[str, Any]) -> Answer:
        from agent.model.realtime_wire import DEFAULT_VOICES, VOICES, Version

        voices: dict[str, Any] = {str(version): list(offered) for version, offered in VOICES.items()}
        for version in (Version.V1, Version.V2):
            voices[f"default{version.upper()}"] = DEFAULT_VOICES[version]
        return Answer({"voices": voices})

    def _conversation(self, given: dict[str, Any]) -> "Conversation":
        from agent.core.conversations import Conversations

        thread_id = checked_id(given["threadId"])
        if self._conversations is None:
            connections = self._connections
            self._conversations = Conversations(
                self._core, self._service(), connections.publish, connections.deserted
            )  # fmt: skip
        try:
            return self._conversations.of(thread_id)
        except ThreadNotFound as exc:
            raise RequestFailed(INVALID_REQUEST, f"thread not found: {thread_id}") from exc


def _given(name: str) -> Callable[[Any], dict[str, Any]]:
    """For `Method.parse`: the shape of this name."""

    def parse(value: Any) -> dict[str, Any]:
        from agent.rpc import realtime_params

        return params(value, getattr(realtime_params, name))

    return parse
