"""Malformed and ambiguous requests inside a tunnel, as raw bytes: nothing forged and nothing split goes upstream.

Known limits of mitmproxy's HTTP/1 layer: `POST<TAB>` and lines that end in a bare LF reach a hook (and the upstream) in
their normal form, and chunked trailers end the connection's handling. They are held to the same rule. A 103 is taken
for the final answer, which is not tested.
"""

import contextlib

import pytest

from tests.proxy.origin import OK, Origin, answering, echoing
from tests.proxy.wire import RESPONSES, ConnectionEnded, post, tunnel, upgrade

FORGED = 'x-oai-attestation: {"v":1,"s":0,"t":"forged"}'
HEAD = b"POST /backend-api/codex/responses HTTP/1.1\r\nHost: chatgpt.com\r\n"
# What an attacker wants to arrive as a second request, behind the back of the proxy.
SMUGGLED = b"POST /backend-api/codex/responses HTTP/1.1\r\nHost: chatgpt.com\r\n" + FORGED.encode() + b"\r\n\r\n"


def lines(*added):
    return HEAD + b"".join(line + b"\r\n" for line in added) + b"\r\n"


async def attempt(it, request):
    """Send this through a fresh tunnel and then the end of the stream; the status that came back, None if none did."""
    async with tunnel(it.proxy) as wire:
        await wire.send(request)
        with contextlib.suppress(ConnectionEnded):
            answer = await wire.answer()
            return answer.status
    return None


def nothing_got_through(it):
    return it.origin.received == b"" and it.tokens.asked == 0


@pytest.mark.parametrize(
    "request_bytes",
    [
        lines(b"Content-Length: 5", b"Transfer-Encoding: chunked") + b"0\r\n\r\n" + SMUGGLED,
        lines(b"Transfer-Encoding: chunked", b"Content-Length: 5") + b"0\r\n\r\n" + SMUGGLED,
        lines(b"Transfer-Encoding: xchunked", b"Content-Length: 2") + b"{}" + SMUGGLED,
        lines(b"Transfer-Encoding: xchunked") + b"0\r\n\r\n" + SMUGGLED,
        lines(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity") + b"0\r\n\r\n" + SMUGGLED,
        lines(b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked") + b"0\r\n\r\n" + SMUGGLED,
        lines(b"Transfer-Encoding: chunked, identity") + b"0\r\n\r\n" + SMUGGLED,
        lines(b"Transfer-Encoding: chunked chunked") + b"0\r\n\r\n" + SMUGGLED,
        lines(b"Transfer-Encoding: \xffchunked") + b"0\r\n\r\n" + SMUGGLED,
        lines(b"Transfer-Encoding : chunked") + b"0\r\n\r\n" + SMUGGLED,
        lines(b"Transfer-Encoding\t: chunked") + b"0\r\n\r\n" + SMUGGLED,
        lines(b"X: y\r\n Transfer-Encoding: chunked", b"Content-Length: 5") + b"0\r\n\r\n" + SMUGGLED,
        lines(b"Content-Length: 2", b"Content-Length: 5") + b"{}" + SMUGGLED,
        lines(b"Content-Length: 2", b"Content-Length: 2") + b"{}" + SMUGGLED,
        lines(b"Content-Length: 2, 2") + b"{}" + SMUGGLED,
        lines(b"Content-Length: +2") + b"{}" + SMUGGLED,
        lines(b"Content-Length: -2") + b"{}" + SMUGGLED,
        lines(b"Content-Length: 0x2") + b"{}" + SMUGGLED,
        lines(b"Content-Length: 02") + b"{}" + SMUGGLED,
        lines(b"Content-Length: 2.0") + b"{}" + SMUGGLED,
        lines(b"Content-Length: 2 2") + b"{}" + SMUGGLED,
        lines(b"Content-Length: ") + b"{}" + SMUGGLED,
        lines(b"Content-Length: \xb2") + b"{}" + SMUGGLED,
        lines(b"Content-Length : 2") + b"{}" + SMUGGLED,
        lines(b"Content-Length: 2\r\n 2") + b"{}" + SMUGGLED,
        lines(b"X Y: z", b"Content-Length: 2") + b"{}",
        lines(b"X\x00: z", b"Content-Length: 2") + b"{}",
        lines(b"X: a\x00b", b"Content-Length: 2") + b"{}",
        lines(b"X: a\rx-oai-attestation: forged", b"Content-Length: 2") + b"{}",
        lines(b"X: a\r\n x-oai-attestation: forged", b"Content-Length: 2") + b"{}",
        lines(b"X: a\r\n\tx-oai-attestation: forged", b"Content-Length: 2") + b"{}",
        lines(b" x-oai-attestation: forged", b"Content-Length: 2") + b"{}",
        lines(b": z", b"Content-Length: 2") + b"{}",
        lines(b"no colon", b"Content-Length: 2") + b"{}",
        lines(b"x-oai-attestation : forged", b"Content-Length: 2") + b"{}",
        lines(b"x-oai-attestation\x0b: forged", b"Content-Length: 2") + b"{}",
        b"POST /backend-api/codex/responses HTTP/1.1\r\n Host: chatgpt.com\r\nContent-Length: 2\r\n\r\n{}",
        lines(b"Transfer-Encoding: chunked").replace(b"HTTP/1.1", b"HTTP/1.0") + b"0\r\n\r\n",
        b"POST /backend-api/codex/responses HTTP/1.2\r\nHost: chatgpt.com\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /backend-api/codex/responses HTTP/2.0\r\nHost: chatgpt.com\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /backend-api/codex/responses HTTP/11\r\nHost: chatgpt.com\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /backend-api/codex/responses\r\nHost: chatgpt.com\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /backend-api/codex/responses x HTTP/1.1\r\nHost: chatgpt.com\r\nContent-Length: 2\r\n\r\n{}",
        b"PO(ST /backend-api/codex/responses HTTP/1.1\r\nHost: chatgpt.com\r\nContent-Length: 2\r\n\r\n{}",
    ],
)  # fmt: skip
def test_a_request_that_two_parsers_could_read_differently_is_refused_before_anybody_is_asked(
    run, stage, request_bytes
):
    async def scenario():
        async with stage(Origin(echoing)) as it:
            assert await attempt(it, request_bytes) in (400, 421)
        assert nothing_got_through(it)

    run(scenario())


def test_the_well_formed_request_they_were_made_from_goes_through(run, stage):
    """The negative control of all of them; and what follows a body is a request of its own, judged like any other."""

    async def scenario():
        async with stage(Origin(echoing)) as it, tunnel(it.proxy) as wire:
            await wire.send(lines(b"Content-Length: 2") + b"{}" + SMUGGLED)
            assert [(await wire.answer()).status, (await wire.answer()).status] == [200, 200]
        assert [request.attestation for request in it.origin.requests] == [
            ['{"v":1,"s":0,"t":"token-1"}'], ['{"v":1,"s":0,"t":"token-2"}'],
        ]  # fmt: skip

    run(scenario())


@pytest.mark.parametrize(
    "request_bytes",
    [
        # The body comes after the question, so a token may have been asked for; what counts is what goes upstream.
        lines(b"Transfer-Encoding: chunked") + b"2;ext=\n0\r\n{}\r\n0\r\n\r\n" + SMUGGLED,
        lines(b"Transfer-Encoding: chunked") + b"2\n{}\r\n0\r\n\r\n" + SMUGGLED,
        lines(b"Transfer-Encoding: chunked") + b"+2\r\n{}\r\n0\r\n\r\n" + SMUGGLED,
        lines(b"Transfer-Encoding: chunked") + b"0x2\r\n{}\r\n0\r\n\r\n" + SMUGGLED,
        lines(b"Transfer-Encoding: chunked") + b"2 2\r\n{}\r\n0\r\n\r\n" + SMUGGLED,
        lines(b"Transfer-Encoding: chunked") + b"-1\r\n{}\r\n0\r\n\r\n" + SMUGGLED,
        lines(b"Transfer-Encoding: chunked") + b"2\r\n{}XX0\r\n\r\n" + SMUGGLED,
        lines(b"Transfer-Encoding: chunked") + b"\r\n\r\n" + SMUGGLED,
    ],
)
def test_a_body_that_breaks_its_own_framing_takes_nothing_with_it(run, stage, request_bytes):
    async def scenario():
        async with stage(Origin(echoing)) as it:
            await attempt(it, request_bytes)
        assert b"forged" not in it.origin.received
        assert len(it.origin.requests) <= 1 and it.tokens.asked <= 1
        assert all(len(request.attestation) == 1 for request in it.origin.requests)

    run(scenario())


def test_a_chunk_size_that_overflows_64_bits_is_framed_anew(run, stage):
    """2^64 + 2: whoever counts in 64 bits would take two bytes for the body and the rest for a request."""

    async def scenario():
        body = b"10000000000000002\r\n{}\r\n0\r\n\r\n" + SMUGGLED
        async with stage(Origin(echoing)) as it, tunnel(it.proxy) as wire:
            await wire.send(lines(b"Transfer-Encoding: chunked") + body)
            await it.origin.wait_until(lambda: b"forged" in it.origin.received)
        assert len(it.origin.requests) == 1
        chunk = it.origin.received.partition(b"\r\n\r\n")[2]
        assert chunk == b"%x\r\n" % len(body[19:]) + body[19:] + b"\r\n"

    run(scenario())


def test_chunked_trailers_carry_nothing_forged_upstream(run, stage):
    """mitmproxy cannot take them and gives up: the request does not complete, and the client may only leave."""

    async def scenario():
        async with stage(Origin(echoing)) as it:
            async with tunnel(it.proxy) as wire:
                await wire.send(lines(b"Transfer-Encoding: chunked") + b"2\r\n{}\r\n")
                await it.origin.wait_until(lambda: it.origin.received.endswith(b"2\r\n{}\r\n"))
                await wire.send(b"0\r\n" + FORGED.encode() + b"\r\n\r\n")
                await wire.end_writing()
            await it.origin.wait_until(lambda: it.origin.visits[0].closed)
        assert b"forged" not in it.origin.received and not it.origin.only_request.complete

    run(scenario())


def test_chunk_extensions_do_not_get_to_the_upstream(run, stage):
    async def scenario():
        body = b"2;ext=1\r\n{}\r\n0;last\r\n\r\n"
        async with stage(Origin(echoing)) as it, tunnel(it.proxy) as wire:
            assert (await wire.exchange(lines(b"Transfer-Encoding: chunked") + body)).status == 200
        assert it.origin.only_request.body == b"{}" and b"ext" not in it.origin.received

    run(scenario())


@pytest.mark.parametrize(
    "request_bytes",
    [
        HEAD.replace(b"POST ", b"POST\t") + b"x-oai-attestation: forged\r\nContent-Length: 2\r\n\r\n{}",
        HEAD.replace(b" HTTP", b"\x0bHTTP") + b"x-oai-attestation: forged\r\nContent-Length: 2\r\n\r\n{}",
        HEAD.replace(b"\r\n", b"\n") + b"x-oai-attestation: forged\nContent-Length: 2\n\n{}",
        HEAD + b"X: y\nx-oai-attestation: forged\r\nContent-Length: 2\r\n\r\n{}",
        HEAD + b"Content-Length: 2\n\r\n{}" + SMUGGLED,
    ],
)
def test_what_mitmproxy_normalises_before_any_hook_still_carries_nothing_forged(run, stage, request_bytes):
    async def scenario():
        async with stage(Origin(echoing)) as it:
            await attempt(it, request_bytes)
        assert b"forged" not in it.origin.received
        assert all(len(request.attestation) <= 1 for request in it.origin.requests)
        assert it.origin.received.count(b"\n") == it.origin.received.count(b"\r\n")

    run(scenario())


# Host, path, method, upgrade: a few of the table in test_scope.py, end to end


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


HANDSHAKE = upgrade(headers=[FORGED])


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


@pytest.mark.parametrize(
    "request_bytes",
    [
        post(),
        post("/elsewhere"),
        HANDSHAKE.replace(b"Upgrade: websocket", b"Upgrade: h2c"),
        HANDSHAKE.replace(b"Version: 13", b"Version: 12"),
        b"GET / HTTP/1.1\r\nHost: chatgpt.com\r\n\r\n",
    ],
)
def test_a_101_that_nobody_asked_for_closes_the_connection(run, stage, request_bytes):
    """R10: mitmproxy makes a raw tunnel of any 101, past every check; what follows would be the client's to write."""

    async def switch(visit):
        request = await visit.head()
        await visit.body(request)
        await visit.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
        while await visit.frames():
            pass

    async def scenario():
        async with stage(Origin(switch)) as it:
            async with tunnel(it.proxy) as wire:
                await wire.send(request_bytes)
                assert b"101" not in await wire.receive_rest()
            [exchange] = await it.reported()
        assert exchange.error and len(it.origin.requests) == 1

    run(scenario())


def test_a_101_to_a_handshake_opens_a_raw_connection(run, stage):
    """The negative control: there the bytes behind it are the WebSocket's."""

    async def scenario():
        async with stage(Origin(echoing)) as it, tunnel(it.proxy) as wire:
            assert (await wire.exchange(upgrade())).status == 101
            await wire.send(b"raw")
            assert await wire.receive() == b"raw"
        assert it.origin.received.endswith(b"raw")

    run(scenario())


def test_two_answers_to_one_request_end_the_upstream_connection(run, stage):
    """R10: the second must not become the answer to the next request."""

    async def scenario():
        evil = OK.replace(b"ok", b"no")
        async with stage(Origin(answering(OK + evil))) as it, tunnel(it.proxy) as wire:
            first = await wire.exchange(post())
            assert (first.status, first.body) == (200, b"ok")
            with contextlib.suppress(ConnectionEnded):
                second = await wire.exchange(post("/elsewhere"))
                assert second.body != b"no"
            assert all(visit.received.count(b"HTTP/1.1") == 1 for visit in it.origin.visits)

    run(scenario())


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX Y: z\r\nContent-Length: 2\r\n\r\nok",
        b"garbage\r\n\r\n",
    ],
)
def test_an_ambiguous_answer_is_not_passed_on(run, stage, response):
    async def scenario():
        async with stage(Origin(answering(response))) as it:
            assert await attempt(it, post()) == 502

    run(scenario())


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_passed_to_the_client_and_not_followed(run, stage, status):
    """R9: following it would take the token to where the upstream points."""

    async def scenario():
        redirect = f"HTTP/1.1 {status} Moved\r\nLocation: https://evil.example/\r\nContent-Length: 0\r\n\r\n".encode()
        async with stage(Origin(answering(redirect))) as it, tunnel(it.proxy) as wire:
            answer = await wire.exchange(post())
            assert (answer.status, answer.values(b"location")) == (status, [b"https://evil.example/"])
        assert len(it.origin.requests) == 1 and it.tokens.asked == 1

    run(scenario())


@pytest.mark.parametrize("status", [401, 426, 429, 500, 503])
@pytest.mark.parametrize("make", [post, upgrade])
def test_a_refusal_is_passed_to_the_client_and_not_tried_again(run, stage, make, status):
    """W2: the agent reacts to these itself, 426 by changing to POST."""

    async def scenario():
        refusal = f"HTTP/1.1 {status} No\r\nX-Reason: mine\r\nContent-Length: 2\r\n\r\nno".encode()
        async with stage(Origin(answering(refusal))) as it, tunnel(it.proxy) as wire:
            answer = await wire.exchange(make())
            assert (answer.status, answer.values(b"x-reason"), answer.body) == (status, [b"mine"], b"no")
        assert len(it.origin.requests) == 1 and it.tokens.asked == 1

    run(scenario())


def test_a_head_of_64_kib_beside_the_scope_passes_without_a_stamp(run, stage):
    async def scenario():
        async with stage() as it:
            assert await attempt(it, post(RESPONSES + "/" + "a" * 65536, [FORGED])) == 200
        assert it.origin.only_request.attestation == [] and it.tokens.asked == 0

    run(scenario())
