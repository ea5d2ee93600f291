"""Hosts, paths, methods and upgrades that are not quite scoped, end to end."""

import pytest

from tests.proxy.attacking import FORGED, HANDSHAKE, attempt, nothing_got_through
from tests.proxy.origin import Origin, answering, echoing
from tests.proxy.wire import RESPONSES, post, upgrade


@pytest.mark.parametrize(
    "hosts",
    [
        [],
        ["chatgpt.com", "chatgpt.com"],
        ["chatgpt.com", "evil.example"],
        ["evil.example", "chatgpt.com"],
        ["evil.example"],
        ["chatgpt.com."],
        ["chatgpt.com, evil.example"],
        ["api.openai.com"],  # in scope, and another tunnel's
    ],
)
@pytest.mark.parametrize("request_line", [f"POST {RESPONSES}", f"GET {RESPONSES}", "GET /elsewhere"])
def test_another_host_than_that_of_the_tunnel_is_refused(run, stage, hosts, request_line):
    async def scenario():
        head = [f"{request_line} HTTP/1.1", *(f"Host: {host}" for host in hosts), "Content-Length: 0", FORGED]
        async with stage() as it:
            assert await attempt(it, "".join(line + "\r\n" for line in head).encode() + b"\r\n") == 421
        assert nothing_got_through(it)

    run(scenario())


@pytest.mark.parametrize("host", ["chatgpt.com", "chatgpt.com:443", "CHATGPT.COM", " chatgpt.com "])
@pytest.mark.parametrize("make", [post, upgrade])
def test_its_own_host_in_any_case_is_stamped(run, stage, make, host):
    async def scenario():
        async with stage(Origin(echoing)) as it:
            assert await attempt(it, make(host=host)) in (200, 101)
        assert it.origin.only_request.attestation == ['{"v":1,"s":0,"t":"token-1"}']

    run(scenario())


@pytest.mark.parametrize(
    "path",
    [
        RESPONSES + "/",
        "/" + RESPONSES,
        "/backend-api/codex/%72esponses",
        "/backend-api/codex/%2e%2e/codex/responses",
        RESPONSES + ";p",
        "/backend-api/codex\\responses",
        "/Backend-Api/codex/responses",
        RESPONSES + "#x",
        f"https://chatgpt.com{RESPONSES}",
        f"https://evil.example{RESPONSES}",
        f"http://chatgpt.com{RESPONSES}",
        f"HTTPS://CHATGPT.COM{RESPONSES}",
        "https://chatgpt.com",
        f"ftp://chatgpt.com{RESPONSES}",
        "*",
        "chatgpt.com:443",
        RESPONSES + "\x7f",
        RESPONSES + "\xe9",
    ],
)
@pytest.mark.parametrize("make", [post, upgrade])
def test_another_spelling_of_a_scoped_target_is_refused(run, stage, make, path):
    async def scenario():
        async with stage(Origin(echoing)) as it:
            assert await attempt(it, make(path, [FORGED])) == 400
        assert nothing_got_through(it)

    run(scenario())


def test_a_scoped_path_behind_what_looks_like_a_host_is_not_stamped(run, stage):
    async def scenario():
        async with stage() as it:
            assert await attempt(it, post(f"//chatgpt.com{RESPONSES}", [FORGED])) == 200
        assert it.origin.only_request.attestation == [] and it.tokens.asked == 0

    run(scenario())


@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD", "DELETE", "PATCH", "OPTIONS", "TRACE", "post", "POSTX"])
def test_another_method_on_a_scoped_path_is_not_stamped(run, stage, method):
    async def scenario():
        no_body = b"HTTP/1.1 204 No Content\r\n\r\n"
        request = f"{method} {RESPONSES} HTTP/1.1\r\nHost: chatgpt.com\r\n{FORGED}\r\nContent-Length: 0\r\n\r\n"
        async with stage(Origin(answering(no_body))) as it:
            assert await attempt(it, request.encode()) == 204
        assert it.origin.only_request.attestation == [] and it.tokens.asked == 0
        assert it.origin.only_request.head.startswith(method.encode() + b" ")

    run(scenario())


@pytest.mark.parametrize(
    "request_line",
    [f"CONNECT {RESPONSES}", "CONNECT chatgpt.com:443", "CONNECT 127.0.0.1:22", f"connect {RESPONSES}", "PRI *"],
)
def test_a_connect_inside_the_tunnel_is_refused(run, stage, request_line):
    async def scenario():
        async with stage() as it:
            request = f"{request_line} HTTP/1.1\r\nHost: chatgpt.com\r\nContent-Length: 0\r\n\r\n"
            assert await attempt(it, request.encode()) == 400
        assert nothing_got_through(it)

    run(scenario())


@pytest.mark.parametrize("request_bytes", [post(headers=[FORGED]), upgrade(headers=[FORGED]), post("/elsewhere")])
def test_http_1_0_is_refused(run, stage, request_bytes):
    """It was stamped once, the WebSocket handshake too, which RFC 6455 4.1 wants in HTTP/1.1."""

    async def scenario():
        async with stage(Origin(echoing)) as it:
            assert await attempt(it, request_bytes.replace(b"HTTP/1.1", b"HTTP/1.0")) == 505
        assert nothing_got_through(it)

    run(scenario())


@pytest.mark.parametrize(
    "added", ["X-HTTP-Method-Override: GET", "X-HTTP-Method: PUT", "X-Method-Override: GET", "Upgrade: h2c"]
)
def test_a_post_that_wants_to_be_something_else_is_not_stamped(run, stage, added):
    async def scenario():
        async with stage() as it:
            assert await attempt(it, post(headers=[added, FORGED])) == 200
        assert it.origin.only_request.attestation == [] and it.tokens.asked == 0

    run(scenario())


@pytest.mark.parametrize(
    "handshake",
    [
        HANDSHAKE.replace(b"Upgrade: websocket", b"Upgrade: h2c"),
        HANDSHAKE.replace(b"Upgrade: websocket", b"Upgrade: websocket, h2c"),
        HANDSHAKE.replace(b"Upgrade: websocket", b"Upgrade: websocket\r\nUpgrade: h2c"),
        HANDSHAKE.replace(b"Connection: Upgrade", b"Connection: close, Upgrade"),
        HANDSHAKE.replace(b"Connection: Upgrade\r\n", b""),
        HANDSHAKE.replace(b"Version: 13", b"Version: 12"),
        HANDSHAKE.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"short"),
        HANDSHAKE.replace(b"Sec-WebSocket-Key", b"X-WebSocket-Key"),
        HANDSHAKE.replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\nhello"),
        HANDSHAKE.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    ],
)
def test_a_handshake_that_is_not_quite_one_is_not_stamped(run, stage, handshake):
    async def scenario():
        async with stage() as it:
            assert await attempt(it, handshake) == 200
        assert it.origin.only_request.attestation == [] and it.tokens.asked == 0

    run(scenario())
