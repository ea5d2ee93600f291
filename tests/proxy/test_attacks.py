"""Malformed and ambiguous requests inside a tunnel, as raw bytes: nothing forged and nothing split goes upstream.

Known limits of mitmproxy's HTTP/1 layer: `POST<TAB>` and lines that end in a bare LF reach a hook (and the upstream) in
their normal form, and chunked trailers end the connection's handling. They are held to the same rule. A 103 is taken
for the final answer, which is not tested."""

import pytest

from tests.proxy.attacking import FORGED, HEAD, SMUGGLED, attempt, lines, nothing_got_through
from tests.proxy.origin import Origin, echoing
from tests.proxy.wire import tunnel


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
