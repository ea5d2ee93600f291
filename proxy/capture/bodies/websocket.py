"""A WebSocket: the messages of both directions in one file, in the order in which they were complete."""

import json
from collections.abc import Callable
from typing import Any

from proxy.capture.bodies.body import MISSED, WINDOW_BYTES, Traffic
from proxy.capture.bodies.encodings import Undecodable
from proxy.capture.bodies.frames import FrameReader, Message, Negotiated
from proxy.capture.bodies.output import Output
from proxy.capture.bodies.responses import Responses, parsed
from proxy.capture.bodies.secrets import SecretFilter
from proxy.capture.folder import RunFolder
from proxy.capture.limits import Limits
from proxy.capture.redact import Redactor


class WebSocket:
    """A WebSocket after its handshake.

    Args:
        stem: The name of its file without the suffix.
        extensions: The header of the answer that says what was agreed on.
        started_at: Unix time in seconds, of the request head; messages are timed from there.
        responses: Told of requests and events.
        breathe: Called between two short pieces of work.

    Of the methods `feed` and `finish` raise OSError: the disk is full, or gone.
    """

    def __init__(
        self,
        folder: RunFolder,
        stem: str,
        extensions: str,
        started_at: float,
        limits: Limits,
        redactor: Redactor,
        responses: Responses,
        breathe: Callable[[], None],
    ) -> None:
        self.output = Output(folder, f"{stem}.frames.jsonl", limits.socket_bytes)
        self.traffic = {from_client: Traffic() for from_client in (True, False)}
        self._messages = {True: 0, False: 0}
        self._readers: dict[bool, FrameReader | None] = {True: None, False: None}
        self._started_at = started_at
        self._redactor = redactor
        self._responses = responses
        self._breathe = breathe
        try:
            negotiated = Negotiated.parse(extensions)
            for from_client in (True, False):
                self._readers[from_client] = FrameReader(from_client, negotiated, limits.message_bytes)
        except Undecodable as exc:
            for from_client in (True, False):
                self._give_up(from_client, str(exc))

    def feed(self, from_client: bool, at: float, data: bytes) -> None:
        """Some bytes of one direction.

        Args:
            at: Unix time in seconds.
        """
        self.traffic[from_client].count(data)
        for start in range(0, len(data), WINDOW_BYTES):
            reader = self._readers[from_client]
            if reader is None:
                return
            try:
                for message in reader.feed(data[start : start + WINDOW_BYTES]):
                    self._keep(from_client, at, message)
            except Undecodable as exc:
                self._give_up(from_client, str(exc))
            self._breathe()

    def miss(self, from_client: bool) -> None:
        """Not all of this direction gets here any more."""
        self.traffic[from_client].miss()
        self._give_up(from_client, MISSED)

    def finish(self) -> None:
        """The connection is closed."""
        for from_client, reader in self._readers.items():
            if reader is not None and not reader.is_whole:
                self._give_up(from_client, "it ends in the middle of a message")
        self.output.flush()

    def as_json(self) -> dict[str, Any]:
        """For the summary: request, response and frames."""
        request, response = (
            {**self.traffic[from_client].as_json(), "messages": self._messages[from_client]}
            for from_client in (True, False)
        )
        frames = {"file": self.output.name if self.output.kept else None, "kept_bytes": self.output.kept}
        return {"request": request, "response": response, "frames": frames}

    def _keep(self, from_client: bool, at: float, message: Message) -> None:
        self._messages[from_client] += 1
        self._breathe()
        text = self._without_secrets(from_client, message)
        line = bytearray(
            f'{{"t":{max(at - self._started_at, 0.0):.6f},"from":"{"client" if from_client else "server"}",'
            f'"opcode":"{message.opcode}","bytes":{message.size}'.encode()
        )
        if message.close_code is not None:
            line += f',"code":{message.close_code}'.encode()
            text = text[2:]
        if message.opcode in ("text", "close"):
            line += b',"text":"'
            shown = text.decode("utf-8", "replace")
            for start in range(0, len(shown), WINDOW_BYTES):
                line += json.dumps(shown[start : start + WINDOW_BYTES])[1:-1].encode()
                self._breathe()
            line += b'"'
        if message.size > len(message.content):
            line += b',"cut":true'
        self.output.write_line(bytes(line + b"}\n"))
        if self.output.full is not None:
            for one in (True, False):
                self._give_up(one, self.output.full)
        elif message.opcode == "text":
            self._tell(from_client, text)

    def _without_secrets(self, from_client: bool, message: Message) -> bytes:
        looked, text, content = SecretFilter(self._redactor), bytearray(), message.content
        last = max(len(content) - 1, 0) // WINDOW_BYTES * WINDOW_BYTES
        for start in range(0, last, WINDOW_BYTES):
            text += looked.feed(content[start : start + WINDOW_BYTES])
            self._breathe()
        text += looked.finish(content[last:])
        self.traffic[from_client].secrets += looked.found
        return bytes(text)

    def _tell(self, from_client: bool, text: bytes) -> None:
        if from_client:
            self._responses.asked(text)
        else:
            self._responses.answered(text, parsed(text))

    def _give_up(self, from_client: bool, problem: str) -> None:
        self._readers[from_client] = None
        traffic = self.traffic[from_client]
        traffic.problem = traffic.problem or problem
