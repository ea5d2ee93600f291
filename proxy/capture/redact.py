"""Headers as they may be kept and shown: known harmless ones in plain text, of all others a keyed hash. Pure.

By an allow list: a header that nobody here has heard of may be a new way to carry a secret.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable
from typing import Self

from proxy.attestation import ATTESTATION_HEADER, open_envelope

# Lower case. Values of these say how a request travels, and which build sent it; none identifies a person or a device.
SHOWN = frozenset(
    """
    :authority :method :scheme :status accept accept-encoding accept-language age allow cache-control
    cf-cache-status cf-ray connection content-encoding content-language content-length content-type date etag
    expect host keep-alive last-modified openai-beta openai-model openai-processing-ms originator retry-after
    sec-websocket-extensions sec-websocket-version server session-id te thread-id
    transfer-encoding upgrade user-agent vary version via x-client-request-id x-codex-beta-features
    x-codex-parent-thread-id x-codex-routing-hint x-codex-turn-state-version
    x-codex-websocket-max-unfragmented-message-bytes x-codex-window-id x-envoy-upstream-service-time
    x-oai-request-id x-openai-subagent x-ratelimit-limit-requests x-ratelimit-remaining-requests
    x-ratelimit-reset-requests x-reasoning-included x-request-id
    """.split()
)
# Addresses are shown up to the query or the fragment, of which nothing is known, and not with credentials in front of
# the host.
_ADDRESSES = frozenset({":path", "location", "origin", "referer"})
_SHOWN_OF_ADDRESS = re.compile(rb"(?![^?#]*(?://|:)[^/?#]*@)[^?#]*")
MAX_VALUE_BYTES = 2048
# Of headers that may be shown anyway: how many are remembered, and how long ones.
_MOST_REMEMBERED = 512
_REMEMBERED_BYTES = 256


class Redactor:
    """Makes headers fit to be kept.

    Args:
        key: 32 random bytes. Equal secrets have equal marks under one key, and nobody without it can test a guess.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        # Headers that may be shown, and how: most are the same from request to request.
        self._shown: dict[tuple[bytes, bytes], tuple[str, str]] = {}

    @classmethod
    def random(cls) -> Self:
        """With a key that nobody has after this process."""
        return cls(os.urandom(32))

    def __repr__(self) -> str:
        return "Redactor(...)"

    def mark(self, secret: bytes) -> str:
        """What stands in a secret's place: its length, and a hash that tells equal ones."""
        digest = hashlib.blake2b(secret, key=self._key, digest_size=6).hexdigest()
        return f"[redacted {len(secret)} bytes #{digest}]"

    def headers(self, fields: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[str, str], ...]:
        """Names as they were spelled, in order, with values that may be shown. Both are visible ASCII."""
        return tuple(self._shown.get(field) or self._header(*field) for field in fields)

    def _header(self, name: bytes, value: bytes) -> tuple[str, str]:
        lower = name.decode("latin-1").lower()
        header = _visible(name), self._value(lower, value)
        if lower in SHOWN and len(value) <= _REMEMBERED_BYTES and header[1] == value.decode("latin-1"):
            if len(self._shown) >= _MOST_REMEMBERED:
                self._shown.clear()
            self._shown[name, value] = header
        return header

    def _value(self, name: str, value: bytes) -> str:
        # For some readers a folded line is a header of its own, and so maybe a secret one.
        is_plain = len(value) <= MAX_VALUE_BYTES and b"\r" not in value and b"\n" not in value
        if name in SHOWN and is_plain:
            return _visible(value)
        if name == ATTESTATION_HEADER:
            return self._envelope(value)
        if name in _ADDRESSES and is_plain and (shown := _SHOWN_OF_ADDRESS.match(value)):
            rest = value[shown.end() :]
            return _visible(shown[0]) + (chr(rest[0]) + self.mark(rest[1:]) if rest else "")
        if name in ("authorization", "proxy-authorization"):
            scheme, space, credentials = value.partition(b" ")
            if space and scheme.lower() in (b"bearer", b"basic"):
                return f"{_visible(scheme)} {self.mark(credentials)}"
        return self.mark(value)

    def _envelope(self, value: bytes) -> str:
        opened = open_envelope(value.decode("latin-1"))
        if opened.status is None:
            return self.mark(value)
        shown: dict[str, object] = {"v": 1, "s": int(opened.status)}
        if opened.token is not None:
            shown["t"] = self.mark(opened.token.encode("utf-8", "surrogatepass"))
        return json.dumps(shown, separators=(",", ":"))


def _visible(raw: bytes) -> str:
    text = raw.decode("latin-1")
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if " " <= char <= "~" else f"\\x{ord(char):02x}" for char in text)
