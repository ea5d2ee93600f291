"""Apple's DeviceCheck server, for those who own the team key of the app: is this device token genuine?

One POST to `/v1/validate_device_token` with a JWT that the team key signs (ES256, `iat` in seconds), a transaction id
of its own and a `timestamp` in milliseconds. Apple answers with a status and a sentence; `judge` says whose fault that
is. Sources: Apple's "Accessing and modifying per-device data", and the replies that its users report. Neither token
nor JWT reaches a log, an error text or a repr.
"""

import asyncio
import base64
import enum
import json
import logging
import os
import random
import re
import ssl
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp
import jwt

from proxy.token_shape import MAX_TOKEN_CHARACTERS, from_base64

logger = logging.getLogger(__name__)

PATH = "/v1/validate_device_token"
# Apple's sentences have less than a hundred bytes.
MAX_TEXT_BYTES = 4096
SHOWN_CHARACTERS = 200
# So many characters of a secret in a row must not be shown.
SECRET_PIECE = 8


class Environment(enum.StrEnum):
    """Where a token is good: that of a build from TestFlight, App Store or Developer ID, or of one signed by Xcode."""

    PRODUCTION = "production"
    DEVELOPMENT = "development"

    @property
    def other(self) -> "Environment":
        return Environment.DEVELOPMENT if self is Environment.PRODUCTION else Environment.PRODUCTION


SERVERS: Mapping[Environment, str] = {
    Environment.PRODUCTION: "https://api.devicecheck.apple.com",
    Environment.DEVELOPMENT: "https://api.development.devicecheck.apple.com",
}


class Verdict(enum.StrEnum):
    """What an answer says. The order is that of `decisive`."""

    VALID = "valid"
    UNAVAILABLE = "unavailable"  # no answer, or none for now
    UNEXPECTED = "unexpected"  # an answer that is none of Apple's, and says nothing of the token
    REQUEST_ERROR = "request_error"  # our clock or our body
    AUTH_REJECTED = "auth_rejected"  # key, key id or team
    INVALID_TOKEN = "invalid_token"  # forged, expired, used, of another team or of the other environment
    AUTH_MALFORMED = "auth_malformed"  # no key for DeviceCheck, or the other environment


class KeyUnusable(ValueError):
    """What should be a team key or its name is none; the text quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class TeamKey:
    """A private key that developer.apple.com made for DeviceCheck, and the ids by which Apple knows it."""

    key_id: str
    team_id: str
    _private: Any = field(repr=False)

    @classmethod
    def load(cls, pem: bytes, key_id: str, team_id: str) -> Self:
        """The key in the text of a .p8 file.

        Raises:
            KeyUnusable: It is not one PKCS#8 key on P-256 without a passphrase, or an id is not ten letters and digits.
        """
        for name, value in (("key id", key_id), ("team id", team_id)):
            if not re.fullmatch(r"[A-Z0-9]{10}", value):
                raise KeyUnusable(f"the {name} should be ten capital letters and digits, as developer.apple.com shows")
        text = pem.strip()
        if not text.startswith(b"-----BEGIN PRIVATE KEY-----") or text.count(b"-----BEGIN") != 1:
            raise KeyUnusable(
                "the key should be a .p8 file of developer.apple.com: one block 'BEGIN PRIVATE KEY', without passphrase"
            )
        try:
            private = jwt.get_algorithm_by_name("ES256").prepare_key(text)
        except (ValueError, TypeError, jwt.InvalidKeyError) as exc:
            # Not from the original: its text may quote the key.
            reason = "on another curve or of another kind" if isinstance(exc, jwt.InvalidKeyError) else "damaged"
            raise KeyUnusable(f"the key should be an elliptic-curve key on P-256; this one is {reason}") from None
        return cls(key_id, team_id, private)

    def authorization(self, now_s: float) -> str:
        """A JWT for the Authorization header, signed now (seconds since the epoch)."""
        claims = {"iss": self.team_id, "iat": int(now_s)}
        return jwt.encode(claims, self._private, algorithm="ES256", headers={"kid": self.key_id})


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an answer may take, in seconds, all attempts together, and how often it is asked for.

    Only "unavailable" is asked again, after about `first_pause_s`, then about twice as long, and so on.
    """

    total_s: float = 15.0
    attempts: int = 3
    first_pause_s: float = 0.5


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one question. `status_code` is None where no answer came.

    `text` is the server's own sentence, unless it repeats a secret; `reason` is ours.
    """

    verdict: Verdict
    environment: Environment
    reason: str
    status_code: int | None = None
    text: str | None = None
    transaction_id: str | None = None
    apple_request_id: str | None = None
    attempts: int = 1

    @property
    def is_ok(self) -> bool:
        return self.verdict is Verdict.VALID


def device_token(content: str | bytes) -> str:
    """A device token as Apple wants it: padded standard base64 in one line.

    Such a text passes as it is. Bytes are encoded, and the url-safe alphabet and a missing padding are made good.

    Raises:
        ValueError: It is not base64, empty or too long; the text quotes nothing of it.
    """
    if isinstance(content, bytes):
        content = base64.b64encode(content).decode()
    if len(content) > MAX_TOKEN_CHARACTERS:
        raise ValueError(f"a device token has at most {MAX_TOKEN_CHARACTERS} characters, this has {len(content)}")
    if from_base64(content) is None:
        found = "line breaks or blanks" if re.search(r"\s", content) else "something else"
        raise ValueError(f"a device token is one line of base64, and this is {found}")
    standard = content.translate(str.maketrans("-_", "+/"))
    return standard + "=" * (-len(standard) % 4)


def question(token: str, transaction_id: str, now_s: float) -> dict[str, Any]:
    """The JSON that is sent. `now_s` is in seconds; Apple wants milliseconds."""
    return {"device_token": token, "transaction_id": transaction_id, "timestamp": int(now_s * 1000)}


def judge(status: int, text: str) -> tuple[Verdict, str]:
    """Whose fault an answer is, and why. On doubt, nobody's: then it says nothing of the token."""
    said = text.strip().casefold()
    if status == 200 and not said:
        return Verdict.VALID, "the server says that the token is genuine"
    if status == 429 or status >= 500:
        return Verdict.UNAVAILABLE, "the server has no answer for now"
    if status == 401:
        return Verdict.AUTH_REJECTED, (
            "the server does not accept the signature: check that the key, its id and the team id belong together, "
            "and that the key was not revoked"
        )
    if status == 405:
        return Verdict.REQUEST_ERROR, "the server does not take a POST there; check its address"
    if status == 400:
        for words, verdict, reason in _REFUSALS:
            if any(one in said for one in words):
                return verdict, reason
    return Verdict.UNEXPECTED, (
        "the answer is none that this call has, and says nothing of the token; check the server's address"
    )


# Apple's sentences come in several wordings; these words are in all that were reported.
_REFUSALS = (
    (
        ("authorization token",),
        Verdict.AUTH_MALFORMED,
        "the server does not take the authorization: the key must be made for DeviceCheck on developer.apple.com, not "
        "in App Store Connect; a token of the other environment gets this answer too",
    ),
    (
        ("time stamp", "timestamp", "transaction id"),
        Verdict.REQUEST_ERROR,
        "the server refuses the request, not the token; check this machine's clock",
    ),
    (
        ("device token",),
        Verdict.INVALID_TOKEN,
        "the server does not know the token: it is forged, expired, used, of another team or of the other environment",
    ),
)


def decisive(answers: tuple[Answer, ...]) -> Answer:
    """Of the answers of both environments the one that counts.

    A token is invalid only where nothing else may be the cause, and no environment was left unasked by an accident.
    """
    return min(answers, key=lambda answer: list(Verdict).index(answer.verdict))


async def validate(
    token: str,
    key: TeamKey,
    environment: Environment,
    *,
    context: ssl.SSLContext,
    servers: Mapping[Environment, str] = SERVERS,
    patience: Patience | None = None,
    try_other: bool = False,
    now: Callable[[], float] = time.time,
) -> tuple[Answer, ...]:
    """Ask about a device token; the answers in the order of the environments that were asked.

    Never raises, save cancellation: that nobody answers is an answer too.

    Args:
        token: As `device_token` makes it.
        context: Whom to trust as Apple's server.
        servers: Where the environments are; https, without a path at the end.
        try_other: Ask the other environment, once, where the answer can mean that the token is of that one.
        now: Seconds since the epoch.
    """
    patience = patience or Patience()
    deadline = asyncio.get_running_loop().time() + patience.total_s
    connector = aiohttp.TCPConnector(ssl=context, force_close=True)
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        timeout=aiohttp.ClientTimeout(total=None),
    ) as session:
        asker = _Asker(session, token, key, servers, patience, deadline, now)
        first = await asker.until_answered(environment)
        if try_other and first.verdict in (Verdict.INVALID_TOKEN, Verdict.AUTH_MALFORMED):
            return first, await asker.until_answered(environment.other)
        return (first,)


@dataclass(frozen=True, slots=True, repr=False)
class _Asker:
    session: aiohttp.ClientSession
    token: str
    key: TeamKey
    servers: Mapping[Environment, str]
    patience: Patience
    # Of the loop's clock.
    deadline: float
    now: Callable[[], float]

    async def until_answered(self, environment: Environment) -> Answer:
        pause_s = self.patience.first_pause_s
        for attempt in range(1, self.patience.attempts + 1):
            answer, may_heal = await self._once(environment, attempt)
            wait_s = pause_s * random.uniform(0.5, 1.5)
            left_s = self.deadline - asyncio.get_running_loop().time()
            if answer.verdict is not Verdict.UNAVAILABLE or not may_heal or wait_s >= left_s:
                break
            if attempt < self.patience.attempts:
                await asyncio.sleep(wait_s)
                pause_s *= 2
        return answer

    async def _once(self, environment: Environment, attempt: int) -> tuple[Answer, bool]:
        """One question, and whether asking again may help."""
        transaction_id = str(uuid.uuid4())
        authorization = self.key.authorization(self.now())
        may_heal, request_id, status, text = True, None, None, None
        try:
            async with (
                asyncio.timeout_at(self.deadline),
                self.session.post(
                    self.servers[environment] + PATH,
                    data=json.dumps(question(self.token, transaction_id, self.now())),
                    headers={
                        "Authorization": f"Bearer {authorization}",
                        "Content-Type": "application/json",
                        "Accept-Encoding": "identity",
                        "User-Agent": "countersign",
                    },
                    allow_redirects=False,
                ) as response,
            ):
                status = response.status
                request_id = _uuid(response.headers.get("x-apple-request-uuid", ""))
                said = (await _beginning(response.content)).decode("utf-8", "replace")
                verdict, reason = judge(status, said)
                text = _shown(said, (self.token, authorization))
        except TimeoutError:
            verdict, reason = Verdict.UNAVAILABLE, f"no answer within {self.patience.total_s:g} seconds"
            may_heal = False
        except aiohttp.ClientConnectorCertificateError as exc:
            verdict, may_heal = Verdict.UNAVAILABLE, False
            why = getattr(exc.certificate_error, "verify_message", "") or "it does not fit"
            reason = f"nothing was sent, since the server's certificate is not trusted: {why}"
        except (aiohttp.ClientError, OSError, UnicodeError) as exc:  # the last: a name that cannot be one
            verdict, reason = Verdict.UNAVAILABLE, f"the connection failed: {_cause(exc)}"
        answer = Answer(verdict, environment, reason, status, text, transaction_id, request_id, attempt)
        logger.info(
            "devicecheck environment=%s attempt=%d status=%s verdict=%s transaction=%s",
            environment, attempt, status, verdict, transaction_id,
        )  # fmt: skip
        return answer, may_heal


async def _beginning(content: aiohttp.StreamReader) -> bytes:
    """All of it, up to a limit: a longer one is none of Apple's anyway."""
    said = b""
    while len(said) < MAX_TEXT_BYTES and (more := await content.read(MAX_TEXT_BYTES - len(said))):
        said += more
    return said


def _shown(said: str, secrets: tuple[str, ...]) -> str | None:
    """The server's sentence, cut; None if there is none, or if it repeats a piece of what it was sent."""
    text = said.strip()[:SHOWN_CHARACTERS]
    folded, secret = text.casefold(), "\n".join(secrets).casefold()
    # A token may be shorter than a piece.
    if any(one.casefold() in folded for one in secrets):
        return None
    pieces = (folded[start : start + SECRET_PIECE] for start in range(len(folded) - SECRET_PIECE + 1))
    return None if not text or any(piece in secret for piece in pieces) else text


def _uuid(text: str) -> str | None:
    return text if re.fullmatch(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", text) else None


def _cause(exc: Exception) -> str:
    """Words for it that hold no address and nothing that was sent."""
    match exc:
        case aiohttp.ClientConnectorDNSError() | UnicodeError():
            return "the server's name was not found"
        case aiohttp.ClientSSLError():
            return "the server does not speak TLS as it should"
        case aiohttp.ClientConnectorError():
            # Not its own text, which is the loop's and has the address in it.
            return os.strerror(exc.os_error.errno) if exc.os_error.errno else "the server was not reached"
        case aiohttp.ServerDisconnectedError() | ConnectionError():
            return "the server closed it before it answered"
        case _:
            return type(exc).__name__
