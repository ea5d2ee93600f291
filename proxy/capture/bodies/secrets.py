"""Takes known secrets out of bodies before anything of them is written: by the names they have, and by their looks.

A body is the user's prompt, and whoever asks for it gets it; a credential in it is of no use to anybody who reads it.
What is looked for: members of JSON objects, also of JSON in a text in JSON; fields of forms; bearer credentials; JSON
web tokens; keys that begin with "sk-". Pure.
"""

import heapq
import json
import re

from proxy.capture.redact import Redactor

_FIELDS = (
    b"access_token|refresh_token|id_token|session_token|auth_token|device_token|client_secret|api_key|code_verifier|"
    b"accesstoken|refreshtoken|idtoken|sessiontoken|clientsecret|apikey"
)
# Headers, which travel in the metadata of `response.create` too.
_HEADERS = b"x-oai-attestation|authorization|proxy-authorization|cookie|set-cookie|x-api-key|chatgpt-account-id"

# How a secret begins, in lower case. Three patterns, each with plain letters in front and no group there: so the engine
# of `re` passes over what begins none at some hundred MB/s, which is ten times as fast.
_MEMBER = re.compile(
    rb'"((?:ws_request_header_)?(?:%s|%s|openai_api_key|password))(\\{0,7})"\s{0,8}:\s{0,8}\2"' % (_FIELDS, _HEADERS)
)
_BARE = re.compile(rb"bearer\s{1,4}|eyj|sk-")
_FORM = re.compile(rb"token=|secret=|key=|verifier=")
_WHOLE_FIELD = re.compile(rb"(?<![a-z0-9])(?:%s)=\Z" % _FIELDS)
# In front of it a bare secret begins; in a JSON text also \n, \r and \t.
_WORD = re.compile(rb"(?:(?<![A-Za-z0-9_.-])|(?<=\\[nrt]))")

_TEXT = re.compile(rb'(?:[^"\\]|\\.)*+', re.DOTALL)
_VALUE = re.compile(rb"[^&\s\"'<>\\]*+")
_CREDENTIALS = re.compile(rb"[A-Za-z0-9._~+/=-]*+")
_JWT, _KEY = b"eyj", b"sk-"
_LEAST_CREDENTIALS = 16
_LEAST_JWT = 20

_TAIL_BYTES = 96  # the longest beginning is shorter
_CONTEXT_BYTES = 24  # what is in front of a beginning and says whether it is one
# A longer secret is taken out up to here, and the rest of it dropped.
_MOST_SECRET = 128 * 1024


class SecretFilter:
    """Feed it a decoded body in pieces, split anywhere; what comes out has no secrets that are known.

    Attributes:
        found: How many were taken out.
    """

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._context = b""  # what was given out last
        self._held = b""
        self._until: re.Pattern[bytes] | None = None  # the end of a secret that is too long to be held
        self.found = 0

    def feed(self, data: bytes) -> bytes:
        """What may be written by now."""
        return self._filtered(data, is_last=False)

    def finish(self, data: bytes = b"") -> bytes:
        """The same with the last piece, and with what was held back. Of a secret that has no end nothing is left."""
        return self._filtered(data, is_last=True)

    def _filtered(self, data: bytes, is_last: bool) -> bytes:
        if self._until is not None:
            found = self._until.search(data)
            if found is None:
                return b""
            self._until, data = None, data[found.start() :]
        text = self._context + self._held + data
        position, out, unfinished = len(self._context), bytearray(), None
        lower = text.lower()
        beginnings = (pattern.finditer(lower, position) for pattern in (_MEMBER, _BARE, _FORM))
        for begun in heapq.merge(*beginnings, key=re.Match.start):
            if begun.start() < position or not _is_one(text, lower, begun):
                continue
            end = _end(text, begun, is_last)
            if end is None:
                unfinished = begun
                break
            if end > begun.end():
                out += text[position : begun.start()] + self._told(text, begun, end)
                position = end
        cut = len(text) if is_last else max(len(text) - _TAIL_BYTES, position)
        if unfinished is not None:
            cut = min(cut, unfinished.start())
        out += text[position:cut]
        if unfinished is not None and len(text) - cut > _MOST_SECRET:
            out += self._told(text, unfinished, len(text))
            self._until = re.compile(rb'(?<!\\)"' if unfinished.re is _MEMBER else rb"[\s\"'&<>]")
            cut = len(text)
        self._context, self._held = text[max(cut - _CONTEXT_BYTES, 0) : cut], text[cut:]
        return bytes(out)

    def _told(self, text: bytes, begun: re.Match[bytes], end: int) -> bytes:
        """What stands in place of a beginning and its secret."""
        self.found += 1
        start = begun.start() if begun[0] in (_JWT, _KEY) else begun.end()
        lead, secret = text[begun.start() : start], text[start:end]
        if begun.re is not _MEMBER or begun[2]:
            return lead + self._redactor.mark(secret).encode()
        try:
            secret = json.loads(b'"' + secret + b'"', strict=False).encode()
        except ValueError:
            pass  # cut off, or not as JSON has it: marked as it stands
        header = begun[1].removeprefix(b"ws_request_header_")
        ((_, told),) = self._redactor.headers(((header, secret),))  # equal marks in headers and here
        return lead + json.dumps(told)[1:-1].encode()


def _is_one(text: bytes, lower: bytes, begun: re.Match[bytes]) -> bool:
    """Whether what looks like a beginning is one, from what is in front of it."""
    if begun.re is _MEMBER:
        return lower.endswith(begun[2], 0, begun.start())
    if begun.re is _FORM:
        return _WHOLE_FIELD.search(lower, max(begun.start() - _CONTEXT_BYTES, 0), begun.end()) is not None
    if begun[0] == _JWT and not text.startswith(b"eyJ", begun.start()):
        return False
    return _WORD.match(text, begun.start()) is not None


def _end(text: bytes, begun: re.Match[bytes], is_last: bool) -> int | None:
    """Where the secret ends, its beginning's end if it is none after all, None if the end may still come."""
    start = begun.end()
    if begun.re is _MEMBER:
        if not begun[2]:
            end = _end_of(_TEXT, text, start)
            end = end if text.startswith(b'"', end) else len(text)
        else:
            # In JSON within a text the quotes inside have more backslashes than the one at the end.
            found = re.compile(rb"(?<!\\)" + re.escape(begun[2]) + b'"').search(text, start)
            end = len(text) if found is None else found.start()
        return end if end < len(text) or is_last else None
    end = _end_of(_VALUE if begun.re is _FORM else _CREDENTIALS, text, start)
    if end == len(text) and not is_last:
        return None
    if begun[0] == _JWT:
        is_secret = end - start >= _LEAST_JWT and b"." in text[start:end]
    else:
        is_secret = end - start >= (1 if begun.re is _FORM else _LEAST_CREDENTIALS)
    return end if is_secret else start


def _end_of(pattern: re.Pattern[bytes], text: bytes, start: int) -> int:
    """Where what matches there ends; each of these patterns matches nothing too."""
    found = pattern.match(text, start)
    return start if found is None else found.end()
