"""The header, its envelope and its status codes, and the one question that is asked for it.

The envelope is what the original sends, byte for byte: compact JSON, keys in the order v, s, t
(observed with codex-cli 0.169.0; statuses from codex-rs, app-server/src/attestation.rs).
"""

import asyncio
import enum
import json
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

ATTESTATION_HEADER = "x-oai-attestation"

# The original waits this long for the desktop, in seconds.
ATTESTATION_BUDGET_S = 0.1

# How often the loop turns until an answer that has arrived is with who asked: a thread, its reader, the question.
_PASSES_TO_READ = 8

# A header block of some hundred KiB is refused by every server we know of; 12 kB tokens were seen to pass.
MAX_HEADER_BYTES = 64 * 1024


class AttestationStatus(enum.IntEnum):
    """What became of the question, as the original numbers it."""

    OK = 0
    TIMEOUT = 1
    FAILED = 2
    CANCELED = 3  # the original defines it and was never seen to send it; neither do we
    MALFORMED = 4


class NoAttester(Exception):
    """No live client of this thread can attest: nothing is asked and no header is sent."""


class AttestationRefused(Exception):
    """The client answered with an error instead of a token."""


class AttestationMalformed(Exception):
    """The client answered with something that is no token."""


class AttestationProvider(Protocol):
    """Whoever can ask the desktop. The proxy knows it only by this."""

    async def generate(self, thread_id: str | None) -> str:
        """Return a fresh token for one request of `thread_id` (None: the request named no thread).

        Raises:
            NoAttester: Nobody to ask; the request goes out without the header.
            AttestationRefused, AttestationMalformed: An answer, and not a token.
        """
        ...


@dataclass(frozen=True, slots=True)
class Attestation:
    """An answered question: the status, and the header value that carries it."""

    status: AttestationStatus
    header: str


async def attest(provider: AttestationProvider, thread_id: str | None, timeout_s: float) -> Attestation | None:
    """Ask the desktop once and return the value for `x-oai-attestation`.

    Each failure is a value too: the status in the envelope says what went wrong. None means that no live client of
    this thread can attest, and that no header should be sent.

    Args:
        timeout_s: Seconds to wait for the reply, `ATTESTATION_BUDGET_S` in production. A later reply is dropped; it
            is never kept for the next request.

    Raises:
        asyncio.CancelledError: The request itself was given up. Nothing else.
    """
    try:
        token = await _within(timeout_s, provider.generate(thread_id))
        header = envelope(token) if isinstance(token, str) else None
    except NoAttester:
        return None
    except TimeoutError:
        return failure(AttestationStatus.TIMEOUT)
    except AttestationMalformed:
        return failure(AttestationStatus.MALFORMED)
    except Exception:  # also a bug in the provider: the turn goes on, and the status says that there is no token
        return failure(AttestationStatus.FAILED)
    if header is None:
        return failure(AttestationStatus.MALFORMED)
    return Attestation(AttestationStatus.OK, header)


async def _within[T](timeout_s: float, answer: Coroutine[Any, Any, T]) -> T:
    """The answer, if it is there in time.

    A loop that is busy is late to read, and its timers come before what has arrived meanwhile: an answer that is there
    when the time is up counts. To wait for that costs nothing on a loop that is not busy.
    """
    asking = asyncio.ensure_future(answer)
    try:
        await asyncio.wait((asking,), timeout=timeout_s)
        for _ in range(_PASSES_TO_READ):
            if asking.done():
                break
            await asyncio.sleep(0)
    finally:
        late = asking.cancel()
    if late:
        raise TimeoutError
    return asking.result()


def failure(status: AttestationStatus) -> Attestation:
    """The envelope of a question that brought no token."""
    return Attestation(status, f'{{"v":1,"s":{int(status)}}}')


def envelope(token: str) -> str | None:
    """The header value for `token`, or None if that would not be a legal one.

    JSON escapes what it must (quotes, backslashes, control characters) and leaves the rest as it is, so a token with
    CR LF is a longer value and not a second header. What is still not visible ASCII after that cannot be sent: the
    original breaks its WebSocket handshake on such a token. Nor can what is longer than `MAX_HEADER_BYTES`.
    """
    value = f'{{"v":1,"s":0,"t":{json.dumps(token, ensure_ascii=False)}}}'
    return value if len(value) <= MAX_HEADER_BYTES and is_legal_value(value) else None


def is_legal_value(value: str) -> bool:
    """Whether `value` can be sent in a header by every client and server: printable ASCII only."""
    return value.isascii() and value.isprintable()


@dataclass(frozen=True, slots=True)
class Envelope:
    """A header value taken apart. `status` is None where the value is not an envelope of ours or the original's."""

    status: AttestationStatus | None
    token: str | None


def open_envelope(value: str) -> Envelope:
    """Take a header value apart; anything that is not exactly an envelope has status None. Never raises."""
    nothing = Envelope(None, None)
    try:
        content = json.loads(value, object_pairs_hook=_without_twins)
    except (ValueError, RecursionError):
        return nothing
    # Not `== 1`: true and 1.0 are equal to it.
    if not isinstance(content, dict) or type(content.get("v")) is not int or type(content.get("s")) is not int:
        return nothing
    if content["v"] != 1:
        return nothing
    try:
        status = AttestationStatus(content["s"])
    except ValueError:
        return nothing
    token = content.get("t")
    has_token = isinstance(token, str)
    if has_token != (status is AttestationStatus.OK) or set(content) - {"v", "s", "t"}:
        return nothing
    return Envelope(status, token if has_token else None)


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose members differ. Of two of one name every reader may take another."""
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a member is there twice")
    return content
