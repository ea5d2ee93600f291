"""Who may use the port, which targets it reaches, and what may be said inside a tunnel."""

import asyncio
import base64

import pytest
from mitmproxy.connection import Client

from proxy.capture.exchange import Stamp
from proxy.credentials import Credentials
from proxy.gate import Gate, UpstreamRefused
from proxy.scope import Scope, Target
from proxy.server import LOOPBACK
from proxy.tunnel import Tunnel
from proxy.upstream import UpstreamMap
from tests.proxy.gate_answers import first_answer, refused_and_silent
from tests.proxy.origin import Origin
from tests.proxy.wire import basic, connect_head, connected, dial, post, tunnel

# Credentials


def with_authorization(*values):
    lines = b"".join(b"Proxy-Authorization: %s\r\n" % value for value in values)
    return b"CONNECT chatgpt.com:443 HTTP/1.1\r\nHost: chatgpt.com:443\r\n" + lines + b"\r\n"


@pytest.mark.parametrize(
    "make",
    [
        lambda right: [],
        lambda right: [b""],
        lambda right: [b"Basic"],
        lambda right: [b"Basic " + base64.b64encode(b"countersign:wrong-secret")],
        lambda right: [right[:-2]],
        lambda right: [right.replace(b"Basic", b"Bearer")],
        lambda right: [right, right],  # which of two would another proxy have believed?
        lambda right: [right, b"Basic x"],
        lambda right: [right + b", " + right],
        lambda right: [b"Basic \xff\xfe"],
    ],
)
def test_without_the_credentials_of_the_run_the_answer_is_407_and_nothing_happens(run, stage, make):
    async def scenario():
        async with stage() as it:
            answer, closed = await first_answer(it, with_authorization(*make(basic(it.proxy.credentials))))
        assert answer.status == 407 and closed
        assert answer.values(b"proxy-authenticate") == [b'Basic realm="countersign"']
        assert refused_and_silent(it)

    run(scenario())


def test_with_them_the_tunnel_is_open(run, stage):
    """The negative control of the 407s."""

    async def scenario():
        async with stage() as it, await dial(it.proxy.port) as wire:
            await wire.send(with_authorization(basic(it.proxy.credentials)))
            assert (await wire.receive_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")

    run(scenario())


def test_credentials_of_another_run_are_worth_nothing(run, stage):
    async def scenario():
        async with stage() as it:
            answer, _ = await first_answer(it, with_authorization(basic(Credentials.random())))
        assert answer.status == 407 and refused_and_silent(it)

    run(scenario())


def test_credentials_inside_the_tunnel_do_not_open_it(run, stage):
    async def scenario():
        async with stage() as it, await dial(it.proxy.port) as wire:
            inner = f"Proxy-Authorization: {basic(it.proxy.credentials).decode()}"
            answer = await wire.exchange(with_authorization() + post(headers=[inner]))
            assert answer.status == 407 and await wire.receive_rest() == b""
        assert refused_and_silent(it)

    run(scenario())


# Targets


@pytest.mark.parametrize(
    "target",
    [
        "127.0.0.1:22",
        "127.0.0.1:443",
        "127.1:443",
        "[::1]:443",
        "[::ffff:169.254.169.254]:443",
        "169.254.169.254:80",
        "0x7f.1:443",
        "2130706433:443",
        "10.1.2.3:443",
        "0.0.0.0:443",
        "localhost:443",
        "localhost.:443",
        "metadata.google.internal:443",
        "chatgpt.com:22",
        "chatgpt.com:80",
        "chatgpt.com:8443",
        "chatgpt.com.:443",
        "evilchatgpt.com:443",
        "chatgpt.com.evil.example:443",
        "evil.example:443",
        "example.com:443",
    ],
)
def test_a_target_off_the_map_is_refused(run, stage, target):
    async def scenario():
        async with stage() as it:
            answer, closed = await first_answer(it, connect_head(it.proxy, target))
        assert answer.status == 403 and closed
        assert b"--allow-host" in answer.body
        assert refused_and_silent(it) and it.exchanges == []

    run(scenario())


@pytest.mark.parametrize("spelling", ["127.0.0.1", "localhost", "[::1]", "127.1", "0x7f000001", "[::ffff:127.0.0.1]"])
def test_the_proxy_cannot_be_reached_through_itself(run, stage, spelling):
    """S8, the way of CVE-2025-23217: a local port trusts who comes from loopback."""

    async def scenario():
        async with stage(scope=Scope.of(allowed_hosts=["*"])) as it:
            answer, _ = await first_answer(it, connect_head(it.proxy, f"{spelling}:{it.proxy.port}"))
        assert answer.status == 403 and refused_and_silent(it)

    run(scenario())


@pytest.mark.parametrize("name", ["127.0.0.1", "[::1]", "localhost", "[::ffff:127.0.0.1]"])
def test_even_where_every_host_is_allowed_a_private_address_is_not_connected_to(run, stage, name):
    async def scenario():
        async with stage(scope=Scope.of(allowed_hosts=["*"])) as it:
            answer, _ = await first_answer(it, connect_head(it.proxy, f"{name}:443"))
        assert answer.status == 502 and b"public address" in answer.body
        assert refused_and_silent(it)

    run(scenario())


def test_what_the_agents_own_configuration_names_is_let_pass_wherever_it_is_and_nothing_else(run, stage):
    """A model provider of the user's own may be at an address that no public name may have."""

    async def scenario():
        async with stage(mapped=()) as it:
            own = f"127.0.0.1:{it.origin.port}"
            answer, _ = await first_answer(it, connect_head(it.proxy, own))
            assert answer.status == 403
            assert it.proxy.admit("127.0.0.1", it.origin.port) is False  # its TLS does not end here
            async with connected(it.proxy, own) as wire:
                await wire.send(b"not tls at all\r\n\r\n")
                await wire.receive_rest()  # the origin's word for it, and its end
            [exchange] = await it.reported()
            assert (exchange.host, exchange.port, exchange.stamp) == ("127.0.0.1", it.origin.port, Stamp.NOT_SCOPED)
            assert it.tokens.asked == 0
            answer, _ = await first_answer(it, connect_head(it.proxy, f"localhost:{it.origin.port}"))
            assert answer.status == 403

    run(scenario())


def test_a_scoped_origin_stays_what_it_is_when_configuration_names_it_too(run, stage):
    async def scenario():
        async with stage() as it:
            assert it.proxy.admit("ChatGPT.com", 443) is True
            async with tunnel(it.proxy) as wire:
                assert (await wire.exchange(post())).status == 200
            assert it.tokens.asked == 1
        async with stage(mapped=()) as unmapped:  # where it is is not for configuration to say
            assert unmapped.proxy.admit("chatgpt.com", 443) is True
            assert Target("chatgpt.com", 443) not in unmapped.proxy._gate._own
            for odd in ("chatgpt.com.", "0x7f.1", ""):
                with pytest.raises(ValueError, match="nothing that can be let pass"):
                    unmapped.proxy.admit(odd, 443)
            with pytest.raises(ValueError, match="nothing that can be let pass"):
                unmapped.proxy.admit("models.example", 0)

    run(scenario())


def test_a_scoped_name_that_resolves_to_loopback_is_not_connected_to(run, stage):
    """S2: "localhost" stands for a name whose DNS answer was forged. Only the upstream map leads to loopback."""

    async def scenario():
        scope = Scope.of(["https://localhost"])
        async with stage(scope=scope, mapped=()) as it:
            answer, _ = await first_answer(it, connect_head(it.proxy, "localhost:443"))
            assert answer.status == 502 and b"localhost does not resolve to a public address" in answer.body
        async with stage(Origin(names=["localhost"]), scope=scope, mapped=("localhost",)) as mapped:
            async with tunnel(mapped.proxy, "localhost") as wire:
                assert (await wire.exchange(post(host="localhost"))).status == 200

    run(scenario())


def test_a_connect_that_failed_ends_its_connection(run, stage):
    """A second CONNECT on it once crashed mitmproxy's handler and hung; a plain request was judged as in a tunnel."""

    async def scenario():
        scope = Scope.of(allowed_hosts=["localhost"])
        plain = b"POST http://localhost/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
        async with stage(scope=scope, mapped=("chatgpt.com",)) as it:
            for second in (connect_head(it.proxy), plain):
                answer, closed = await first_answer(it, connect_head(it.proxy, "localhost:443") + second)
                assert answer.status == 502 and closed
        assert refused_and_silent(it)

    run(scenario())


@pytest.mark.parametrize(
    ("resolved", "judged_good"),
    [
        (["104.18.32.47"], ["104.18.32.47"]),
        (["104.18.32.47", "127.0.0.1"], ["104.18.32.47"]),
        (["127.0.0.1", "10.0.0.1", "104.18.32.47"], ["104.18.32.47"]),
        (["::1", "2606:4700::6812:202f", "104.18.32.47"], ["2606:4700::6812:202f", "104.18.32.47"]),
        (["104.18.32.47", "104.18.32.47"], ["104.18.32.47"]),
        ([f"104.18.32.{last}" for last in range(9)], [f"104.18.32.{last}" for last in range(4)]),
        (["127.0.0.1"], []),
        (["169.254.169.254", "::ffff:10.0.0.1", "fe80::1%2"], []),
        ([], []),
    ],
)
def test_of_the_addresses_of_a_name_only_public_ones_are_connected_to_as_they_were_judged(
    run, monkeypatch, resolved, judged_good
):
    """S2, S3: a name is resolved once, and what was judged is what is connected to; no second answer can slip in."""

    async def scenario():
        asked = []

        async def getaddrinfo(host, port, **_):
            asked.append(host)
            return [(2, 1, 6, "", (address, port)) for address in resolved]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
        tunnels = {"client": Tunnel(Target("chatgpt.com", 443), intercepted=True)}
        gate = Gate(Scope.of(), Credentials.random(), UpstreamMap({}), tunnels, lambda _: None, lambda _: None)
        if judged_good:
            for _ in range(2):
                assert list(await gate.addresses("client")) == [(address, 443) for address in judged_good]
        else:
            with pytest.raises(UpstreamRefused, match="public address"):
                await gate.addresses("client")
        assert asked == ["chatgpt.com"]

    run(scenario())


def test_a_connection_upstream_without_an_admitted_connect_is_not_made(run):
    async def scenario():
        gate = Gate(Scope.of(), Credentials.random(), UpstreamMap({}), {}, lambda _: None, lambda _: None)
        with pytest.raises(UpstreamRefused, match="no admitted CONNECT"):
            await gate.addresses("client")

    run(scenario())


# Requests that are no CONNECT


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET / HTTP/1.1",
        b"GET http://chatgpt.com/ HTTP/1.1",
        b"POST https://chatgpt.com/backend-api/codex/responses HTTP/1.1",
        b"POST /backend-api/codex/responses HTTP/1.1",
        b"GET http://169.254.169.254/latest/meta-data/ HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"GET /backend-api/codex/responses HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket",
    ],
)
def test_what_is_no_connect_is_answered_with_400_here(run, stage, request_line):
    async def scenario():
        async with stage() as it:
            authorization = b"Proxy-Authorization: " + basic(it.proxy.credentials)
            request = request_line + b"\r\nHost: chatgpt.com\r\n" + authorization + b"\r\nContent-Length: 0\r\n\r\n"
            answer, closed = await first_answer(it, request)
        assert answer.status == 400 and closed
        assert not answer.values(b"server") and not answer.values(b"location")
        assert not answer.values(b"access-control-allow-origin")
        assert refused_and_silent(it)

    run(scenario())


@pytest.mark.parametrize(
    "first",
    [
        b"\x16\x03\x01\x00\x05hello",
        b"\x05\x01\x00",  # SOCKS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT chatgpt.com HTTP/1.1\r\n\r\n",
        b"CONNECT /backend-api/codex/responses HTTP/1.1\r\nHost: chatgpt.com\r\n\r\n",
        b"connect chatgpt.com:443 HTTP/1.1\r\n\r\n",
        b"\r\n\r\n\r\n",
        b"garbage\r\n\r\n",
    ],
)
def test_what_is_no_http_gets_nowhere(run, stage, first):
    async def scenario():
        async with stage() as it, await dial(it.proxy.port) as wire:
            await wire.send(first)
            await wire.end_writing()
            text = await wire.receive_rest()
            assert text == b"" or text.split()[1] in (b"400", b"407"), text
        assert refused_and_silent(it)

    run(scenario())


# Peers


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1"])
def test_a_loopback_peer_may_connect(peer):
    assert judged(peer) is None


@pytest.mark.parametrize("peer", ["192.168.1.7", "10.0.0.1", "8.8.8.8", "fe80::1%eth0", "2001:db8::1", "0.0.0.0", "::"])
def test_another_peer_may_not(peer):
    assert judged(peer) == "only loopback peers may connect"


@pytest.mark.parametrize("peer", ["", "localhost", "/run/socket", "\x00"])
def test_a_peer_whose_address_cannot_be_told_may_not_either(peer):
    """The check once raised here, and mitmproxy goes on after a hook that raised."""
    assert judged(peer) == "only loopback peers may connect"


def judged(peer):
    gate = Gate(Scope.of(), Credentials.random(), UpstreamMap({}), {}, lambda _: None, lambda _: None)
    client = Client(peername=(peer, 5), sockname=(LOOPBACK, 1))
    gate.client_connected(client)
    return client.error
