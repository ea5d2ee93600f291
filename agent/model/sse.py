"""Server-sent events, incrementally: bytes in, data texts out. Pure (WHATWG HTML 9.2.6).

Our own and not httpx-sse: that package imports httpx, a second HTTP client, for forty lines.
"""

import codecs

from agent.model.failures import StreamBroken

# Larger events than any model sends; a stream that never ends one must not fill the memory.
MAX_EVENT_BYTES = 64 * 1024 * 1024


class SseDecoder:
    """Feed it what arrives, split anywhere; it yields the `data` of each complete event."""

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max = max_event_bytes
        # "utf-8-sig" drops the one leading byte order mark that the format allows.
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")
        self._partial: list[str] = []  # of the line that has not ended; never joined before it has
        self._partial_size = 0
        self._after_cr = False
        self._data: list[str] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[str]:
        """The data of the events that `chunk` completes.

        Raises:
            StreamBroken: One event is larger than allowed.
        """
        text = self._utf8.decode(chunk)
        if self._after_cr and text:
            # A CR ended the last line; a LF right behind it belongs to it.
            text = text.removeprefix("\n")
            self._after_cr = False
        if text.endswith("\r"):
            self._after_cr = True
        first, *others = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self._partial.append(first)
        self._partial_size += len(first)
        lines = []
        if others:
            lines = ["".join(self._partial), *others[:-1]]
            self._partial, self._partial_size = [others[-1]], len(others[-1])
        events = []
        for line in lines:
            self._size += len(line)
            if not line:
                if self._data:
                    events.append("\n".join(self._data))
                self._data, self._size = [], 0
            elif line.startswith("data"):
                name, _, value = line.partition(":")
                if name == "data":
                    self._data.append(value.removeprefix(" "))
        if self._size + self._partial_size > self._max:
            raise StreamBroken(f"an event is larger than {self._max} bytes")
        return events
