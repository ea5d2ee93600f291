"""JSON lines: bytes in, texts out. Pure.

A line that is not UTF-8 is dropped, and the next is read (the original dies of it). A last line without its newline
is not a message.
"""

import logging

logger = logging.getLogger(__name__)

# No client sends one line this long; without a bound one that never ends a line would fill the memory.
MAX_LINE_BYTES = 256 * 1024 * 1024


class Lines:
    """Bytes in, texts out: the framing, without I/O."""

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._max = max_line_bytes
        self._partial = bytearray()
        self._skipping = False

    def receive(self, data: bytes) -> list[str]:
        """The complete lines that `data` brings, without their line ends; bad ones are logged and left out."""
        texts = []
        *complete, rest = data.split(b"\n")
        for piece in complete:
            line = bytes(self._partial) + piece
            self._partial.clear()
            if self._skipping:
                self._skipping = False
                continue
            try:
                texts.append(line.decode("utf-8"))
            except UnicodeDecodeError:
                logger.warning("dropped a line of %d bytes that is not UTF-8", len(line))
        if not self._skipping:
            self._partial += rest
            if len(self._partial) > self._max:
                logger.warning("dropped a line of more than %d bytes", self._max)
                self._partial.clear()
                self._skipping = True
        return texts
