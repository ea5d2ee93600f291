"""One body of a request or an answer: counted and hashed as it travelled, decoded and kept without secrets."""

import hashlib
from collections.abc import Callable
from typing import Any

from proxy.capture.bodies.encodings import Decoder, Undecodable
from proxy.capture.bodies.output import Output
from proxy.capture.bodies.secrets import SecretFilter
from proxy.capture.folder import RunFolder
from proxy.capture.limits import Limits
from proxy.capture.redact import Redactor

# What is searched at once: no search can be interrupted, and the proxy waits for it.
WINDOW_BYTES = 16 * 1024

MISSED = "some of it was not looked at: it came faster than it could be kept"


class Traffic:
    """What went in one direction, as it travelled.

    Attributes:
        size: In bytes.
        problem: Why less is kept than went by, None if all is.
        secrets: How many were taken out.
    """

    def __init__(self) -> None:
        self.size = 0
        self.problem: str | None = None
        self.secrets = 0
        self._hash = hashlib.sha256()
        self._is_missed = False

    def count(self, data: bytes) -> None:
        self.size += len(data)
        self._hash.update(data)

    def miss(self) -> None:
        """Not all of it gets here any more."""
        self._is_missed = True
        self.problem = self.problem or MISSED

    def as_json(self) -> dict[str, Any]:
        """`bytes` and `sha256` are of the raw bytes, and null if not all of them were seen."""
        return {
            "bytes": None if self._is_missed else self.size,
            "sha256": None if self._is_missed else self._hash.hexdigest(),
            "secrets": self.secrets,
            "problem": self.problem,
        }


class Body:
    """A body over HTTP. Of what cannot be decoded nothing is kept: nobody can see which secrets are in it.

    Args:
        stem: The name of its file without the suffix, which is for the media type.
        headers: Its own, by lower-case names.
        told: Given what is kept, as it is kept.
        breathe: Called between two short pieces of work.

    Of the methods `feed` and `finish` raise OSError: the disk is full, or gone.
    """

    def __init__(
        self,
        folder: RunFolder,
        stem: str,
        headers: dict[str, str],
        limits: Limits,
        redactor: Redactor,
        told: Callable[[bytes], None],
        breathe: Callable[[], None],
    ) -> None:
        self.traffic = Traffic()
        self.media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        self.output = Output(folder, f"{stem}.{_suffix(self.media_type)}", limits.body_bytes)
        self._filter = SecretFilter(redactor)
        self._told = told
        self._breathe = breathe
        self._decoder: Decoder | None = None
        try:
            self._decoder = Decoder(headers.get("content-encoding", ""))
        except Undecodable as exc:
            self._give_up(str(exc))

    def feed(self, data: bytes) -> None:
        """Some more of it, as it travelled."""
        self.traffic.count(data)
        if self._decoder is None:
            return
        try:
            for piece in self._decoder.feed(data):
                self._breathe()
                for start in range(0, len(piece), WINDOW_BYTES):
                    self._keep(self._filter.feed(piece[start : start + WINDOW_BYTES]))
                    self._breathe()
                    if self.output.full is not None:
                        self._give_up(self.output.full)
                        return
        except Undecodable as exc:
            self._give_up(str(exc))

    def miss(self) -> None:
        """Not all of it gets here any more."""
        self.traffic.miss()
        self._give_up(MISSED)

    def finish(self) -> None:
        """Nothing more comes."""
        if self._decoder is not None:
            try:
                self._decoder.finish()
            except Undecodable as exc:
                self._give_up(str(exc))
        if self.output.full is None:
            self._keep(self._filter.finish())
        self.traffic.secrets = self._filter.found
        self.output.flush()

    def as_json(self) -> dict[str, Any]:
        """For the summary."""
        return {
            **self.traffic.as_json(),
            "media_type": self.media_type or None,
            "file": self.output.name if self.output.kept else None,
            "kept_bytes": self.output.kept,
        }

    def _keep(self, text: bytes) -> None:
        self.output.write(text)
        self._told(text)

    def _give_up(self, problem: str) -> None:
        self._decoder = None
        self.traffic.problem = self.traffic.problem or problem


_TEXTS = frozenset(f"application/{name}" for name in ("sdp", "xml", "x-www-form-urlencoded", "javascript", "x-ndjson"))


def _suffix(media_type: str) -> str:
    if media_type == "application/json" or media_type.endswith("+json"):
        return "json"
    is_text = media_type.startswith(("text/", "multipart/")) or media_type.endswith("+xml") or media_type in _TEXTS
    return "txt" if is_text else "bin"
