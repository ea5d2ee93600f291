"""Canaries in every place a secret can be: none comes out in a log, an exchange, an answer of ours or a file."""

import contextlib
import logging

import pytest

from proxy.attestation import AttestationRefused
from proxy.modes import OnFailure, StampMode
from tests.proxy.h2wire import h2_post, h2_tunnel
from tests.proxy.origin import OK, Origin, answering, echoing
from tests.proxy.running import Tokens, broken_scope, failing
from tests.proxy.wire import RESPONSES, ConnectionEnded, connect_head, dial, post, tunnel, upgrade

TOKEN = "canary-token"
SECRETS = [
    "Authorization: Bearer canary-bearer",
    "Cookie: session=canary-cookie",
    "chatgpt-account-id: canary-account",
    "Proxy-Authorization: Basic canary-inner",
    "x-oai-attestation: canary-forged",
]
WITH_SET_COOKIE = OK.replace(b"\r\n\r\n", b"\r\nSet-Cookie: canary-set-cookie\r\n\r\n")


@pytest.fixture
def logged(caplog):
    """Everything that is logged from now on: ours at DEBUG, mitmproxy's from WARNING on, as the commands set it."""
    caplog.set_level(logging.WARNING, "mitmproxy")
    for name in ("agent", "proxy", "certs"):
        caplog.set_level(logging.DEBUG, name)  # and the handler's own level with it
    caplog.handler.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
    return caplog


async def make_token(_):
    return TOKEN


async def give_up_in_the_head(visit):
    await visit.body(await visit.head())
    await visit.write(b"HTTP/1.1 200 OK\r\nSet-Cookie: canary-set-cookie")


async def answer_nonsense(visit):
    await visit.body(await visit.head())
    await visit.write(b"HTTP/1.1 200 OK\r\nSet-Cookie canary-set-cookie\r\n\r\n")


async def break_the_chunks(visit):
    await visit.body(await visit.head())
    await visit.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\ncanary-body\r\n")


class Judge:
    """Looks for canaries in what a scenario left behind."""

    def __init__(self, it, logged):
        self._it, self._logged = it, logged

    def texts(self):
        yield self._logged.text
        for exchange in self._it.exchanges:
            yield repr(exchange)
            yield exchange.log_line()
        for path in self._it.proxy.ca_file.parent.iterdir():
            yield path.read_text("latin-1")

    def found(self):
        secret = self._it.proxy.credentials.secret
        return [text for text in self.texts() if "canary" in text or secret in text]


@pytest.mark.parametrize(
    ("origin", "request_bytes"),
    [
        (lambda: Origin(answering(WITH_SET_COOKIE)), post(f"{RESPONSES}?q=canary-query", SECRETS, b"canary-body")),
        (lambda: Origin(answering(WITH_SET_COOKIE)), post("/elsewhere?q=canary-query", SECRETS, b"canary-body")),
        (lambda: Origin(echoing), upgrade("/backend-api/codex/responses?q=canary-query", SECRETS)),
        (lambda: Origin(echoing), upgrade("/elsewhere?q=canary-query", SECRETS)),
        (lambda: Origin(give_up_in_the_head), post(headers=SECRETS)),
        (lambda: Origin(answer_nonsense), post(headers=SECRETS)),
        (lambda: Origin(break_the_chunks), post(headers=SECRETS)),
        (lambda: Origin(names=["evil.example"]), post(headers=SECRETS)),
        (Origin, post(headers=[*SECRETS, "canary-name : x"])),
        (Origin, post(headers=[*SECRETS, "canary-name\x00: x"])),
        (Origin, post(headers=[*SECRETS, "X: canary\r\n folded"])),
        (Origin, post(headers=[*SECRETS, "Host: canary.example"])),
        (Origin, post(headers=[*SECRETS, "Content-Length: canary"])),
        (Origin, post(headers=[*SECRETS, "Transfer-Encoding: canary"])),
        (Origin, post(headers=SECRETS).replace(b"HTTP/1.1", b"canary/1.1")),
        (Origin, post(headers=["Transfer-Encoding: chunked"]).replace(b"Content-Length: 2\r\n", b"") + b"canary\r\n"),
    ],
)  # fmt: skip
def test_no_secret_of_a_request_or_its_answer_is_left_anywhere(run, stage, logged, origin, request_bytes):
    async def scenario():
        async with stage(origin(), Tokens(make_token)) as it:
            async with tunnel(it.proxy) as wire:
                await wire.send(request_bytes)
                with contextlib.suppress(ConnectionEnded):
                    await wire.answer()
        assert Judge(it, logged).found() == []

    run(scenario())


@pytest.mark.parametrize("make", [post, upgrade])
def test_none_is_left_when_the_hook_crashes_with_a_text_that_quotes_the_request(run, stage, logged, make):
    """At DEBUG the text of the exception was once logged with its traceback."""

    async def scenario():
        async with stage(scope=broken_scope()) as it, tunnel(it.proxy) as wire:
            answer = await wire.exchange(make(headers=SECRETS))
        assert b"canary" not in answer.body
        assert "stamping failed error=RuntimeError" in logged.text  # it is told that, and where, without what
        assert Judge(it, logged).found() == []

    run(scenario())


@pytest.mark.parametrize("on_failure", OnFailure)
def test_none_is_left_when_the_provider_fails_with_a_text_that_holds_a_token(run, stage, logged, on_failure):
    async def scenario():
        tokens = failing(AttestationRefused("no, canary-token is not for you"))
        async with stage(tokens=tokens, on_failure=on_failure) as it, tunnel(it.proxy) as wire:
            answer = await wire.exchange(post(headers=SECRETS))
        assert b"canary" not in answer.body
        assert "attestation status=FAILED" in logged.text
        assert Judge(it, logged).found() == []

    run(scenario())


@pytest.mark.parametrize("mode", StampMode)
def test_none_is_left_of_a_native_envelope(run, stage, logged, mode):
    async def scenario():
        native = 'x-oai-attestation: {"v":1,"s":0,"t":"canary-native"}'
        async with stage(tokens=Tokens(make_token), mode=mode) as it, tunnel(it.proxy) as wire:
            await wire.exchange(post(headers=[native]))
        assert Judge(it, logged).found() == []

    run(scenario())


def test_none_is_left_over_http2(run, stage, logged):
    async def scenario():
        secrets = [tuple(part.strip().encode() for part in line.lower().split(":", 1)) for line in SECRETS]
        async with stage(Origin(alpn=["h2"]), Tokens(make_token)) as it, h2_tunnel(it.proxy) as client:
            await client.exchange(h2_post("/backend-api/codex/responses?q=canary-query", *secrets))
            await client.exchange(h2_post("/elsewhere", *secrets), trailers=[(b"x-trailer", b"canary-trailer")])
            await client.exchange(h2_post("/elsewhere", *secrets, (b"x", b"canary\r\n")))
        assert len(it.exchanges) == 2 and Judge(it, logged).found() == []

    run(scenario())


@pytest.mark.parametrize("authorization", ["Basic canary", "Basic Y2FuYXJ5OmNhbmFyeQ==", "Bearer canary"])
def test_none_is_left_of_wrong_credentials(run, stage, logged, authorization):
    async def scenario():
        async with stage() as it, await dial(it.proxy.port) as wire:
            request = f"CONNECT chatgpt.com:443 HTTP/1.1\r\nProxy-Authorization: {authorization}\r\n\r\n"
            assert (await wire.exchange(request.encode())).status == 407
        assert Judge(it, logged).found() == []

    run(scenario())


def test_a_log_that_did_hold_a_canary_would_be_found(run, stage, logged):
    """The negative control of all of these."""

    async def scenario():
        async with stage() as it:
            pass
        assert Judge(it, logged).found() == []
        logging.getLogger("proxy.stamp").debug("header=%s", TOKEN)
        assert len(Judge(it, logged).found()) == 1
        (it.proxy.ca_file.parent / "dump").write_text(it.proxy.credentials.secret)
        assert len(Judge(it, logged).found()) == 2

    run(scenario())


@pytest.mark.parametrize("target", ["evil.example\x1b[31m:443", "evil.example:443"])
def test_what_a_client_wrote_is_logged_without_control_characters(run, stage, logged, target):
    """L3: CVE-2024-45808."""

    async def scenario():
        async with stage() as it, await dial(it.proxy.port) as wire:
            assert (await wire.exchange(connect_head(it.proxy, target))).status in (400, 403)
        assert "\x1b" not in logged.text

    run(scenario())


def test_a_path_cannot_forge_the_fields_of_a_log_line(run, stage, logged):
    async def scenario():
        async with stage(Origin(alpn=["h2"])) as it:
            async with h2_tunnel(it.proxy) as client:
                await client.exchange(h2_post("/x status=200 attestation=stamped:OK\x1b[0m \xe9"))
            [exchange] = await it.reported()
        assert exchange.path == "/x%20status=200%20attestation=stamped:OK%1B[0m%20%E9"
        assert exchange.log_line().count(" status=") == 1

    run(scenario())
