"""Messages of a WebSocket from the raw bytes of one direction: frames by wsproto, deflate with bounds of our own."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from wsproto.extensions import Extension
from wsproto.frame_protocol import CloseReason, Frame, FrameDecoder, FrameProtocol, Opcode, ParseFailed, RsvBits

from proxy.capture.bodies.encodings import CHUNK_BYTES, Undecodable

# What a message may become in all before its direction is given up: inflating it is work, also if nothing is kept.
_MOST_INFLATED = 64 * 1024 * 1024
_DEFLATE = "permessage-deflate"
# RFC 7692 7.2.2: the end of each message that its sender left out.
_SYNC_FLUSH = b"\x00\x00\xff\xff"


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What both ends agreed on, from `Sec-WebSocket-Extensions` of the answer."""

    deflate: bool = False
    client_no_context_takeover: bool = False
    server_no_context_takeover: bool = False

    @classmethod
    def parse(cls, header: str) -> "Negotiated":
        """Raises Undecodable for an extension that is not known here."""
        found = cls()
        for extension in filter(None, (part.strip() for part in header.split(","))):
            name, *parameters = (part.strip().lower() for part in extension.split(";"))
            if name != _DEFLATE:
                raise Undecodable("its frames use an extension that is not known here")
            # The windows need not be known: the largest one reads them all.
            found = cls(True, "client_no_context_takeover" in parameters, "server_no_context_takeover" in parameters)
        return found


@dataclass(frozen=True, slots=True)
class Message:
    """One message, or a control frame.

    Args:
        opcode: "text", "binary", "ping", "pong" or "close".
        content: Decoded, as much of it as is kept.
        size: In bytes, decoded.
    """

    opcode: str
    content: bytes
    size: int

    @property
    def close_code(self) -> int | None:
        """Of a close frame that has one."""
        return struct.unpack("!H", self.content[:2])[0] if self.opcode == "close" and self.size >= 2 else None


class FrameReader:
    """Feed it the bytes of one direction, split anywhere.

    Args:
        most_bytes: How much of one message is kept.
    """

    def __init__(self, from_client: bool, negotiated: Negotiated, most_bytes: int) -> None:
        takeover = not (negotiated.client_no_context_takeover if from_client else negotiated.server_no_context_takeover)
        self._inflate = _Inflate(takeover, most_bytes) if negotiated.deflate else None
        extensions: list[Extension] = [] if self._inflate is None else [self._inflate]
        # It is the reader: of what a client sends that is a server.
        self._decoder = FrameDecoder(client=not from_client, extensions=extensions)
        self._most = most_bytes
        self._opcode: Opcode | None = None  # of the message under way
        self._content = bytearray()
        self._size = 0

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that these bytes complete, one after the other.

        Raises:
            Undecodable: They are no frames, or become too much.
        """
        self._decoder.receive_bytes(data)
        try:
            while (frame := self._decoder.process_buffer()) is not None:
                if (message := self._add(frame)) is not None:
                    yield message
        except ParseFailed as exc:
            raise Undecodable(_REASONS.get(exc.code, "it is no sequence of WebSocket frames")) from None

    @property
    def is_whole(self) -> bool:
        """Whether no message is under way."""
        return self._opcode is None and self._decoder.header is None and not len(self._decoder.buffer)

    def _add(self, frame: Frame) -> Message | None:
        content = frame.payload
        assert isinstance(content, bytes), "a FrameDecoder gives bytes"
        if frame.opcode.iscontrol():
            return Message(frame.opcode.name.lower(), content, len(content))
        if frame.opcode is not Opcode.CONTINUATION:
            if self._opcode is not None:
                raise Undecodable("a message begins in the middle of another")
            self._opcode = frame.opcode
        elif self._opcode is None:
            raise Undecodable("a message goes on that has not begun")
        self._size += len(content)
        self._content += content[: max(self._most - len(self._content), 0)]
        if not (frame.frame_finished and frame.message_finished):
            return None
        size = self._size + (0 if self._inflate is None else self._inflate.taken_dropped())
        message = Message(self._opcode.name.lower(), bytes(self._content), size)
        self._opcode, self._content, self._size = None, bytearray(), 0
        return message


_REASONS = {CloseReason.INVALID_FRAME_PAYLOAD_DATA: "a compressed message cannot be inflated"}


class _Inflate(Extension):
    """permessage-deflate (RFC 7692) for a reader.

    wsproto's own has no bound: a kilobyte becomes a megabyte, and a piece of it whatever it is made of.
    """

    name = _DEFLATE

    def __init__(self, takeover: bool, most_bytes: int) -> None:
        self._takeover = takeover
        self._most = most_bytes
        self._inflate = _inflater()
        self._is_message = False  # a message that is compressed is under way
        self._is_data = False  # this frame is of it, and no control frame in between
        self._made = 0
        self._dropped = 0

    def enabled(self) -> bool:
        return True

    def offer(self) -> bool | str:
        return False

    def taken_dropped(self) -> int:
        """How much of the message was beyond what is kept; it is forgotten by that."""
        dropped, self._dropped = self._dropped, 0
        return dropped

    def frame_inbound_header(
        self, proto: FrameDecoder | FrameProtocol, opcode: Opcode, rsv: RsvBits, payload_length: int
    ) -> CloseReason | RsvBits:
        if rsv.rsv1 and (opcode.iscontrol() or opcode is Opcode.CONTINUATION):
            return CloseReason.PROTOCOL_ERROR
        if not opcode.iscontrol() and opcode is not Opcode.CONTINUATION:
            self._is_message = rsv.rsv1
        self._is_data = self._is_message and not opcode.iscontrol()
        return RsvBits(True, False, False)

    def frame_inbound_payload_data(self, proto: FrameDecoder | FrameProtocol, data: bytes) -> bytes | CloseReason:
        return self._inflated(data) if self._is_data else data

    def frame_inbound_complete(self, proto: FrameDecoder | FrameProtocol, fin: bool) -> bytes | CloseReason | None:
        if not fin or not self._is_data:
            return None
        made = self._inflated(_SYNC_FLUSH)
        if not self._takeover or self._inflate.eof:
            self._inflate = _inflater()
        self._is_message, self._made = False, 0
        return made

    def _inflated(self, data: bytes) -> bytes | CloseReason:
        kept = bytearray()
        while data and not self._inflate.eof:
            try:
                made = self._inflate.decompress(data, CHUNK_BYTES)
            except zlib.error:
                return CloseReason.INVALID_FRAME_PAYLOAD_DATA
            data = self._inflate.unconsumed_tail
            room = max(self._most - self._made, 0)
            kept += made[:room]
            self._dropped += max(len(made) - room, 0)
            self._made += len(made)
            if self._made > _MOST_INFLATED:
                raise Undecodable(f"a message becomes more than {_MOST_INFLATED} bytes, as bombs do")
        return bytes(kept)


def _inflater() -> "zlib._Decompress":
    return zlib.decompressobj(-zlib.MAX_WBITS)
