"""A TLS server that judges device tokens as Apple's DeviceCheck server does, for those who have no team key.

Production and development are two ports of one stand-in. It makes a team key and tokens of its own, checks ES256
signatures, times and ids for real, and refuses with Apple's sentences, in Apple's order as far as it was observed.
What it knows of a token is whether it made it or was told to accept it: it says nothing of a real device.
"""

import asyncio
import base64
import binascii
import datetime as dt
import enum
import functools
import json
import logging
import re
import secrets
import socket
import ssl
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jwt
from aiohttp import web

from certs.authority import Leaf, LocalAuthority

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
NAMES = ("api.devicecheck.apple.com", "api.development.devicecheck.apple.com", LOOPBACK)
PATH = "/v1/validate_device_token"
PRODUCTION, DEVELOPMENT = "production", "development"
ENVIRONMENTS = (PRODUCTION, DEVELOPMENT)

# Of the shape that Apple's have, so that they pass checks of it.
KEY_ID = "STANDINKEY"
TEAM_ID = "STANDIN123"

LIFETIME = dt.timedelta(hours=24)
# How old a JWT may be, and how far a clock may be off, in seconds.
MAX_JWT_AGE_S = 3600
MAX_SKEW_S = 300
# A body holds one token of some kilobytes.
MAX_BODY_BYTES = 1024 * 1024
TOKEN_BYTES = 1536

BAD_AUTHORIZATION = "Missing or badly formatted authorization token"
REJECTED = "Unable to verify authorization token"
BAD_TOKEN = "Missing or incorrectly formatted device token payload"
BAD_TIME = "Missing or incorrectly formatted time stamp"
BAD_TRANSACTION = "Invalid or missing transaction id"


class Tls(enum.StrEnum):
    """What is wrong with the certificate."""

    GOOD = "good"
    UNTRUSTED = "untrusted"  # by another authority than `ca_pem`
    NAME = "name"  # for another host
    EXPIRED = "expired"


class Manner(enum.StrEnum):
    """How a request is answered, besides with a fixed reply."""

    HONEST = "honest"
    CLOSE = "close"  # the connection is dropped without an answer


@dataclass(frozen=True, slots=True)
class Reply:
    """A fixed answer, whatever was asked."""

    status: int
    text: str = ""

    @classmethod
    def parse(cls, text: str) -> "Reply | Manner":
        """ "honest", "close", or "STATUS[:TEXT]", such as "503" or "400:bad device token".

        Raises:
            ValueError: None of these.
        """
        if text in list(Manner):
            return Manner(text)
        status, _, body = text.partition(":")
        if not re.fullmatch(r"[2-5][0-9]{2}", status):
            raise ValueError(
                f"an answer must be {', '.join(Manner)} or STATUS[:TEXT] with a status of 200 to 599, found {text!r}"
            )
        return cls(int(status), body)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request that arrived. Neither its token nor its authorization is kept."""

    environment: str
    status: int | None  # None: the connection was dropped
    why: str
    transaction_id: str | None = None
    timestamp: int | None = None


class _Refused(Exception):
    def __init__(self, status: int, text: str, why: str) -> None:
        super().__init__(why)
        self.status, self.text, self.why = status, text, why


class Apple:
    """The stand-in, an async context manager.

    Args:
        replies: Answers to the first requests, in this order; the last one is for all that follow.
        delay_s: Seconds before each answer.
        single_use: Refuse a token that was found genuine before.
        ports: Of production and development; 0 for any free one.
        now: Seconds since the epoch.
    """

    def __init__(
        self,
        *,
        replies: Sequence[Reply | Manner] = (Manner.HONEST,),
        delay_s: float = 0.0,
        single_use: bool = False,
        tls: Tls = Tls.GOOD,
        ports: tuple[int, int] = (0, 0),
        now: Callable[[], float] = time.time,
    ) -> None:
        self.asked: list[Asked] = []
        # Set by the first request, before it is answered.
        self.arrived = asyncio.Event()
        self.ports = ports
        self._replies = list(replies)
        self._delay_s, self._single_use, self._tls, self._now = delay_s, single_use, tls, now
        self._genuine: dict[str, str] = {}
        self._spent: set[str] = set()
        born = dt.datetime.now(dt.UTC) - (2 * LIFETIME if tls is Tls.EXPIRED else dt.timedelta())
        self._authority = LocalAuthority.create(NAMES, born, LIFETIME)
        # A leaf's key is what Apple hands out too: PKCS#8 on P-256.
        self.key_pem = self._authority.issue((LOOPBACK,), born).key_pem
        self._public_key = jwt.get_algorithm_by_name("ES256").prepare_key(self.key_pem).public_key()
        self._runners: list[web.AppRunner] = []

    @property
    def ca_pem(self) -> bytes:
        """The authority to trust for it."""
        return self._authority.certificate_pem

    def url(self, environment: str) -> str:
        """Where an environment listens."""
        return f"https://{LOOPBACK}:{self.ports[ENVIRONMENTS.index(environment)]}"

    def token(self, environment: str = PRODUCTION) -> str:
        """A new genuine token."""
        token = base64.b64encode(b"\x02\x00\x00\x00" + secrets.token_bytes(TOKEN_BYTES)).decode()
        self.accept(token, environment)
        return token

    def accept(self, token: str, environment: str = PRODUCTION) -> None:
        """Take this token for genuine too.

        Raises:
            ValueError: It is not padded standard base64; the text does not quote it.
        """
        if not _is_base64(token):
            raise ValueError("a device token must be one line of standard base64 with its padding")
        self._genuine[token] = environment

    async def __aenter__(self) -> Self:
        """Listen on loopback.

        Raises:
            OSError: A port is in use.
        """
        try:
            self.ports = (
                await self._listen(PRODUCTION, self.ports[0]),
                await self._listen(DEVELOPMENT, self.ports[1]),
            )
        except OSError:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._runners:
            await self._runners.pop().cleanup()

    async def _listen(self, environment: str, port: int) -> int:
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_route("*", "/{path:.*}", functools.partial(self._serve, environment))
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        self._runners.append(runner)
        listener = socket.create_server((LOOPBACK, port), backlog=128)
        await web.SockSite(runner, listener, ssl_context=_context(self._leaf())).start()
        bound: int = listener.getsockname()[1]
        return bound

    def _leaf(self) -> Leaf:
        now = dt.datetime.now(dt.UTC)
        if self._tls is Tls.UNTRUSTED:
            return LocalAuthority.create(NAMES, now, LIFETIME).issue(NAMES, now)
        # As valid as the authority is, so that an expired one has an expired leaf.
        names = ("elsewhere.devicecheck.apple.com",) if self._tls is Tls.NAME else NAMES
        return self._authority.issue(names, now - (2 * LIFETIME if self._tls is Tls.EXPIRED else dt.timedelta()))

    async def _serve(self, environment: str, request: web.Request) -> web.StreamResponse:
        self.arrived.set()
        await asyncio.sleep(self._delay_s)
        reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        body = await _body(request)
        if reply is Manner.CLOSE:
            self._note(environment, None, "closed on request", body)
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=500)
        if isinstance(reply, Reply):
            self._note(environment, reply.status, "as requested", body)
            return _text(reply.status, reply.text)
        try:
            self._judge(environment, request, body)
        except _Refused as exc:
            self._note(environment, exc.status, exc.why, body)
            return _text(exc.status, exc.text)
        self._note(environment, 200, "genuine", body)
        return _text(200, "")

    def _note(self, environment: str, status: int | None, why: str, body: Any) -> None:
        content = body if isinstance(body, dict) else {}
        transaction_id, timestamp = content.get("transaction_id"), content.get("timestamp")
        asked = Asked(
            environment,
            status,
            why,
            transaction_id if isinstance(transaction_id, str) else None,
            timestamp if type(timestamp) is int else None,
        )
        self.asked.append(asked)
        logger.info("apple environment=%s status=%s why=%r", environment, status, why)

    def _judge(self, environment: str, request: web.Request, body: Any) -> None:
        if request.path != PATH:
            raise _Refused(404, "Not Found", "another path")
        if request.method != "POST":
            raise _Refused(405, "Method Not Allowed", "not a POST")
        self._check_authorization(request.headers.getall("Authorization", []))
        if not isinstance(body, dict):
            raise _Refused(400, BAD_TOKEN, "the body is no JSON object")
        if not isinstance(body.get("transaction_id"), str) or not body["transaction_id"]:
            raise _Refused(400, BAD_TRANSACTION, "no transaction id")
        self._check_time(body.get("timestamp"))
        self._check_token(environment, body.get("device_token"))

    def _check_authorization(self, values: list[str]) -> None:
        scheme, _, token = values[0].partition(" ") if len(values) == 1 else ("", "", "")
        if scheme.lower() != "bearer" or token.count(".") != 2:
            raise _Refused(400, BAD_AUTHORIZATION, "no bearer of three parts")
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError as exc:
            raise _Refused(400, BAD_AUTHORIZATION, "the JWT has no readable header") from exc
        if header.get("kid") != KEY_ID:
            raise _Refused(401, REJECTED, "an unknown key id")
        try:
            claims = jwt.decode(
                token,
                self._public_key,
                algorithms=["ES256"],
                issuer=TEAM_ID,
                options={
                    "require": ["iss", "iat"],
                    # Against our own clock, below.
                    "verify_iat": False,
                    "verify_exp": False,
                },
            )
        except jwt.InvalidTokenError as exc:
            raise _Refused(401, REJECTED, f"the JWT is not ours: {type(exc).__name__}") from exc
        issued, now_s = claims["iat"], self._now()
        if type(issued) is not int or not now_s - MAX_JWT_AGE_S <= issued <= now_s + MAX_SKEW_S:
            raise _Refused(401, REJECTED, "iat is not within the last hour, in seconds")

    def _check_time(self, timestamp: Any) -> None:
        if type(timestamp) is not int or abs(timestamp - self._now() * 1000) > MAX_SKEW_S * 1000:
            raise _Refused(400, BAD_TIME, "the timestamp is not now, in milliseconds")

    def _check_token(self, environment: str, token: Any) -> None:
        if not isinstance(token, str) or not _is_base64(token):
            raise _Refused(400, BAD_TOKEN, "the token is not standard base64")
        if self._genuine.get(token) != environment:
            why = "a token of the other environment" if token in self._genuine else "an unknown token"
            raise _Refused(400, BAD_TOKEN, why)
        if self._single_use and token in self._spent:
            raise _Refused(400, BAD_TOKEN, "a token that was used before")
        self._spent.add(token)


async def _body(request: web.Request) -> Any:
    """Its JSON; None if it is none."""
    try:
        return json.loads(await request.read())
    except (ValueError, RecursionError, web.HTTPRequestEntityTooLarge):
        return None


def _text(status: int, text: str) -> web.Response:
    headers = {"x-apple-request-uuid": str(uuid.uuid4())}
    return web.Response(status=status, text=text, content_type="text/plain", charset="UTF-8", headers=headers)


def _is_base64(token: str) -> bool:
    try:
        return bool(base64.b64decode(token.encode("ascii"), validate=True))
    except (binascii.Error, UnicodeError):
        return False


def _context(leaf: Leaf) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    with tempfile.TemporaryDirectory(prefix="countersign-standin-") as directory:
        path = Path(directory) / "leaf.pem"
        path.touch(0o600)
        path.write_bytes(leaf.certificate_pem + leaf.key_pem)
        context.load_cert_chain(path)
    return context
