"""One file of a body while it is written: bounded, and without a descriptor of its own."""

from proxy.capture.folder import RunFolder

# What waits to be written, of one file.
_BUFFER_BYTES = 64 * 1024


class Output:
    """A file that is made when something is written.

    Args:
        name: In the folder of bodies.
        most_bytes: How long it may become.

    Attributes:
        kept: Bytes that are in it, or wait to be.
        full: Why no more finds room, None as long as some does.
    """

    def __init__(self, folder: RunFolder, name: str, most_bytes: int) -> None:
        self.name = name
        self.kept = 0
        self.full: str | None = None
        self._folder = folder
        self._most = most_bytes
        self._buffer = bytearray()
        self._is_fresh = True

    def write(self, content: bytes) -> None:
        """Add as much of it as finds room. Raises OSError: the disk is full, or gone."""
        if self.full is not None:
            return
        room = self._most - self.kept
        if len(content) > room:
            self.full = f"only its first {self._most} bytes are kept"
            content = content[:room]
        self._add(content)

    def write_line(self, line: bytes) -> None:
        """Add all of it or nothing. Raises OSError."""
        if self.full is None and len(line) > self._most - self.kept:
            self.full = f"only its first {self.kept} bytes are kept"
        if self.full is None:
            self._add(line)

    def flush(self) -> None:
        """Write what waits. Raises OSError."""
        if not self._buffer:
            return
        content = bytes(self._buffer)
        self._buffer.clear()
        if self._folder.append_body(self.name, content, self._is_fresh):
            self._is_fresh = False
        else:
            self.kept -= len(content)
            self.full = "the run has reached its limit"

    def _add(self, content: bytes) -> None:
        self._buffer += content
        self.kept += len(content)
        if len(self._buffer) >= _BUFFER_BYTES:
            self.flush()
