"""What may be said inside a tunnel, elsewhere or to a scoped host."""

import asyncio
import contextlib
import itertools
import ssl

import pytest

from certs.trust import client_context
from proxy.capture.exchange import Stamp, Transport
from proxy.scope import Scope
from proxy.server import LOOPBACK
from tests.loops import on_each_loop
from tests.proxy.gate_answers import first_answer, refused_and_silent
from tests.proxy.origin import Origin
from tests.proxy.wire import ConnectionEnded, connect_head, connected, dial, post, tunnel

# Tunnels elsewhere


@on_each_loop
def test_a_host_off_the_scope_keeps_its_own_certificate_and_every_byte(run, stage):
    async def scenario():
        forged = post("/oauth/token", ["x-oai-attestation: of the client"], host="auth.openai.com")
        async with stage(Origin(names=["auth.openai.com"])) as it:
            async with tunnel(it.proxy, "auth.openai.com", trusted=it.origin.ca_pem) as wire:
                assert (await wire.exchange(forged)).body == b"ok"
            [exchange] = await it.reported()
        assert it.origin.received == forged  # end to end: what is said there is not ours to change
        assert it.tokens.asked == 0
        assert (exchange.transport, exchange.stamp, exchange.host) == (
            Transport.TUNNEL, Stamp.NOT_SCOPED, "auth.openai.com",
        )  # fmt: skip

    run(scenario())


def test_a_host_in_scope_has_our_certificate_instead(run, stage):
    """The negative control: the client trusts only the origin's own authority, as above."""

    async def scenario():
        async with stage() as it:
            with pytest.raises(ssl.SSLCertVerificationError):
                async with tunnel(it.proxy, "chatgpt.com", trusted=it.origin.ca_pem):
                    pass
            async with tunnel(it.proxy, "chatgpt.com") as wire:
                assert (await wire.exchange(post())).status == 200

    run(scenario())


def test_a_tunnel_elsewhere_need_not_be_tls(run, stage):
    """It is the peer's business; the origin here speaks TLS and hangs up."""

    async def scenario():
        async with stage() as it, connected(it.proxy, "auth.openai.com:443") as wire:
            await wire.send(b"not tls at all\r\n\r\n")
            await wire.receive_rest()
        assert it.origin.received == b"" and it.tokens.asked == 0

    run(scenario())


@pytest.mark.parametrize("sni", ["chatgpt.com", "ChatGPT.com", "chatgpt.com.", "api.openai.com"])
@pytest.mark.parametrize("in_pieces_of", [10_000, 7])
def test_a_scoped_host_cannot_be_reached_through_the_tunnel_of_another(run, stage, sni, in_pieces_of):
    """A forged header once reached chatgpt.com this way: one front answers for all names of its operator."""

    async def scenario():
        context = client_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        hello = client_hello(context, sni)
        async with stage() as it, connected(it.proxy, "auth.openai.com:443") as wire:
            for start in range(0, len(hello), in_pieces_of):
                await wire.send(hello[start : start + in_pieces_of])
            assert await wire.receive_rest() == b""
        assert it.origin.snis == []

    run(scenario())


def test_a_client_hello_that_cannot_be_read_goes_nowhere_either(run, stage):
    async def scenario():
        async with stage() as it, connected(it.proxy, "auth.openai.com:443") as wire:
            await wire.send(b"\x16\x03\x01\x00\x04\x02\x00\x00\x00")
            assert await wire.receive_rest() == b""
        assert it.origin.snis == []

    run(scenario())


@on_each_loop
def test_in_a_tunnel_elsewhere_the_server_may_speak_first(run, stage):
    async def scenario():
        async def greet(_, writer):
            writer.write(b"220 ready\r\n")
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(greet, LOOPBACK, 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with stage(upstream_port=port) as it, connected(it.proxy, "auth.openai.com:443") as wire:
                assert await wire.receive_rest() == b"220 ready\r\n"

    run(scenario())


# Inside a tunnel to a scoped host


@pytest.mark.parametrize(
    "first",
    [
        post(),
        b"GET / HTTP/1.1\r\nHost: chatgpt.com\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",  # a handshake, and the server's side of it
        b"\x15\x03\x01\x00\x02\x01\x00",  # an alert
        b"\x16\x05\x00\x00\x05",  # no version of TLS
        b"\x80\x2e\x01\x00\x02",  # SSL 2
        b"\x00",
    ],
)
def test_plain_text_in_a_tunnel_to_a_scoped_host_is_closed(run, stage, first):
    async def scenario():
        async with stage() as it, connected(it.proxy) as wire:
            await wire.send(first)
            assert await wire.receive_rest() == b""  # at once, and not when the client gives up
        assert it.origin.received == b"" and it.tokens.asked == 0

    run(scenario())


@pytest.mark.parametrize("sni", [None, "evil.example", "a.chatgpt.com", "api.openai.com", "chatgpt.co"])
def test_another_sni_in_a_tunnel_to_a_scoped_host_is_closed_without_a_certificate(run, stage, sni):
    async def scenario():
        context = client_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        async with stage() as it, connected(it.proxy) as wire:
            with pytest.raises(ConnectionEnded):
                await wire.start_tls(context, sni)
        assert it.origin.received == b"" and it.tokens.asked == 0

    run(scenario())


def test_the_right_sni_in_another_case_is_served(run, stage):
    async def scenario():
        async with stage() as it, connected(it.proxy) as wire:
            context = client_context(it.proxy.ca_pem)
            context.check_hostname = False
            await wire.start_tls(context, "ChatGPT.com")
            assert (await wire.exchange(post())).status == 200
        assert it.origin.snis == ["chatgpt.com"]  # upstream it is the name of the CONNECT, as it was admitted

    run(scenario())


@on_each_loop
def test_a_client_hello_may_come_byte_by_byte(run, stage):
    class Dripping:
        """The writer of a connection that sends each byte by itself."""

        def __init__(self, wire):
            self._send = wire.send_below

        async def send(self, content):
            for octet in content:
                await self._send(bytes([octet]))

    async def scenario():
        async with stage() as it, connected(it.proxy) as wire:
            wire.send_below = Dripping(wire).send
            context = client_context(it.proxy.ca_pem)
            await wire.start_tls(context, "chatgpt.com")
            assert (await wire.exchange(post())).status == 200

    run(scenario())


NAMES = {"chatgpt": "chatgpt.com", "evil": "evil.example", "absent": None}


def client_hello(context, sni):
    """The first bytes of a TLS client."""
    outgoing = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=sni).do_handshake()
    return outgoing.read()


@pytest.mark.parametrize(("connect", "sni", "host"), list(itertools.product(NAMES, repeat=3)))
def test_of_27_combinations_of_connect_sni_and_host_only_one_is_stamped(run, stage, connect, sni, host):
    """R3. The other host may be reached, and its tunnel is its own: nothing that is said there gets a stamp."""

    async def scenario():
        origin = Origin(names=["chatgpt.com", "evil.example"])
        scope = Scope.of(allowed_hosts=["evil.example"])
        async with stage(origin, scope=scope, mapped=("chatgpt.com", "evil.example")) as it:
            context = client_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            lines = ["POST /backend-api/codex/responses HTTP/1.1", "Content-Length: 0"]
            lines += [] if NAMES[host] is None else [f"Host: {NAMES[host]}"]
            request = "".join(line + "\r\n" for line in lines).encode() + b"\r\n"
            async with await dial(it.proxy.port) as wire:
                if NAMES[connect] is None:
                    await wire.send(request if NAMES[sni] is None else client_hello(context, NAMES[sni]))
                    await wire.end_writing()
                    await wire.receive_rest()
                else:
                    await wire.send(connect_head(it.proxy, f"{NAMES[connect]}:443"))
                    await wire.receive_until(b"\r\n\r\n")
                    with contextlib.suppress(ConnectionEnded, ssl.SSLError):
                        await wire.start_tls(context, NAMES[sni])
                        await wire.exchange(request)
        stamps = [value for received in it.origin.requests for value in received.attestation]
        if (connect, sni, host) == ("chatgpt", "chatgpt", "chatgpt"):
            assert stamps == ['{"v":1,"s":0,"t":"token-1"}']
        else:
            assert stamps == [] and it.tokens.asked == 0
            assert connect == "evil" or it.origin.received == b""

    run(scenario())


def test_a_gate_that_cannot_judge_refuses(run, stage):
    class Broken(Scope):
        def admits(self, target):
            raise RuntimeError("the scope has a bug")

    async def scenario():
        async with stage(scope=Broken(Scope.of().origins, Scope.of().realtime)) as it:
            answer, _ = await first_answer(it, connect_head(it.proxy))
        assert answer.status == 502 and b"failed to judge" in answer.body
        assert refused_and_silent(it)

    run(scenario())
