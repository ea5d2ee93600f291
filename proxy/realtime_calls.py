"""The header values of realtime calls, until their sideband socket has carried them again. Pure.

The one place where a value is used twice, because the original does so: the POST that opens a call is stamped, and
the socket that belongs to the call sends the same value (observed, codex-cli 0.169.0).
"""

import re
from collections import OrderedDict

# The sideband follows its call at once; a value that nobody came for is dropped.
LIFETIME_S = 60.0
MOST_CALLS = 64

_LOCATION = re.compile(r"(?:https://[^/?#]+)?/v1/realtime/calls/([A-Za-z0-9_-]{1,200})", re.ASCII)


class RealtimeCalls:
    """Values by call id, each for one accepted sideband socket within a minute."""

    def __init__(self) -> None:
        self._values: OrderedDict[str, tuple[float, str]] = OrderedDict()

    def opened(self, location: str, value: str, now: float) -> None:
        """Keep the value of a call that was answered with this `Location` (now: monotonic seconds)."""
        match = _LOCATION.fullmatch(location)
        if match is None:
            return
        self._values[match[1]] = (now + LIFETIME_S, value)
        while len(self._values) > MOST_CALLS:
            self._values.popitem(last=False)

    def value(self, call_id: str, now: float) -> str | None:
        """The value for a sideband handshake of this call; None for an unknown or expired call."""
        self._drop_expired(now)
        kept = self._values.get(call_id)
        return None if kept is None else kept[1]

    def joined(self, call_id: str) -> None:
        """The sideband socket is open: its value is not needed again."""
        self._values.pop(call_id, None)

    def _drop_expired(self, now: float) -> None:
        for call_id in [key for key, (until, _) in self._values.items() if until <= now]:
            del self._values[call_id]
