"""The embedded mitmproxy as a whole: it starts and stops on the caller's loop, and ordinary clients work through it."""

import asyncio
import contextlib
import json
import os
import random
import socket
import ssl
import stat

import aiohttp
import pytest
import websockets

from certs.authority import CA_WITH_KEY
from certs.trust import client_context
from proxy.attestation import AttestationStatus
from proxy.capture.exchange import Stamp, Transport
from proxy.credentials import Credentials
from proxy.scope import Scope
from proxy.server import LOOPBACK, ProxyServer, ProxyUnavailable
from proxy.standins.chatgpt import ChatGPT
from proxy.upstream import UpstreamMap
from tests.loops import on_each_loop
from tests.proxy.origin import Origin, echoing
from tests.proxy.running import Tokens, never
from tests.proxy.wire import connected, dial, post, tunnel, upgrade

RESPONSES_URL = "https://chatgpt.com/backend-api/codex/responses"


def server(directory, **options):
    """A ProxyServer that nobody will use: no upstream, no tokens."""
    directory.chmod(0o700)
    given = {"upstream": UpstreamMap({}), "on_exchange": lambda _: None, **options}
    return ProxyServer(
        scope=Scope.of(), provider=Tokens(), run_directory=directory, credentials=Credentials.random(), **given
    )


@contextlib.asynccontextmanager
async def before_the_standin(tmp_path, exchanges):
    """A proxy in front of the stand-in of ChatGPT that users run offline."""
    tmp_path.chmod(0o700)
    async with ChatGPT() as chatgpt:
        (tmp_path / "standin-ca.pem").write_bytes(chatgpt.ca_pem)
        upstream = UpstreamMap.parse([f"chatgpt.com={LOOPBACK}:{chatgpt.port}"], tmp_path / "standin-ca.pem")
        async with server(tmp_path, upstream=upstream, on_exchange=exchanges.append) as proxy:
            yield proxy, chatgpt


# Ordinary clients


@on_each_loop
def test_a_post_by_aiohttp_is_stamped_and_its_answer_comes_back(run, tmp_path):
    async def scenario():
        exchanges = []
        async with before_the_standin(tmp_path, exchanges) as (proxy, chatgpt):
            credentials = aiohttp.encode_basic_auth(proxy.credentials.user, proxy.credentials.secret)
            async with (
                aiohttp.ClientSession() as session,
                session.post(
                    RESPONSES_URL,
                    json={"input": []},
                    headers={"thread-id": "019a-1"},
                    proxy=f"http://{LOOPBACK}:{proxy.port}",
                    proxy_headers={"Proxy-Authorization": credentials},
                    ssl=client_context(proxy.ca_pem),
                ) as response,
            ):
                assert response.status == 200
                assert b"response.completed" in await response.read()
        [received] = chatgpt.received
        assert received.values("x-oai-attestation") == ['{"v":1,"s":0,"t":"token-1"}']
        assert received.body == {"input": []}
        [exchange] = exchanges
        assert (exchange.transport, exchange.route, exchange.stamp) == (Transport.POST, "responses", Stamp.STAMPED)
        assert (exchange.attestation, exchange.token_bytes) == (AttestationStatus.OK, len("token-1"))
        assert (exchange.thread_id, exchange.status, exchange.error) == ("019a-1", 200, None)

    run(scenario())


@on_each_loop
def test_a_websocket_is_stamped_at_its_handshake_and_its_messages_go_both_ways(run, tmp_path):
    async def scenario():
        exchanges = []
        async with before_the_standin(tmp_path, exchanges) as (proxy, chatgpt):
            url = RESPONSES_URL.replace("https", "wss")
            async with websockets.connect(url, proxy=proxy.url, ssl=client_context(proxy.ca_pem)) as client:
                for _ in range(3):
                    await client.send(json.dumps({"type": "response.create", "input": []}))
                    async for message in client:
                        if json.loads(message)["type"] == "response.completed":
                            break
            await chatgpt.wait_for(1, "closed")
        handshake, *messages, closed = chatgpt.received
        assert handshake.values("x-oai-attestation") == ['{"v":1,"s":0,"t":"token-1"}']
        assert [message.kind for message in messages] == ["message"] * 3
        assert closed.status == 1000
        [exchange] = exchanges
        assert (exchange.transport, exchange.status, exchange.stamp) == (Transport.WEBSOCKET, 101, Stamp.STAMPED)

    run(scenario())


def test_a_message_of_a_megabyte_survives_with_the_compression_of_real_peers(run, tmp_path):
    async def scenario():
        async with before_the_standin(tmp_path, []) as (proxy, chatgpt):
            url = RESPONSES_URL.replace("https", "wss")
            message = {"type": "response.create", "input": [random.Random(1).randbytes(500_000).hex()]}
            async with websockets.connect(url, proxy=proxy.url, ssl=client_context(proxy.ca_pem)) as client:
                assert client.protocol.extensions  # permessage-deflate was agreed on, through the proxy
                await client.send(json.dumps(message))
                await chatgpt.wait_for(1, "message")
        assert chatgpt.received[1].body == message

    run(scenario())


def test_what_a_child_is_given_makes_an_ordinary_client_work(run, stage):
    """The bundle verifies our leaf, the URL carries the credentials, and a client without either is kept out."""

    async def scenario():
        async with stage() as it:
            environment = it.proxy.child_environment({})
            bundle = ssl.create_default_context(cafile=environment["SSL_CERT_FILE"])
            url = RESPONSES_URL.replace("https", "wss")
            with pytest.raises(websockets.InvalidStatus, match="200"):  # through the proxy, and the origin says 200
                await websockets.connect(url, proxy=environment["HTTPS_PROXY"], ssl=bundle)
            async with connected(it.proxy) as wire:
                with pytest.raises(ssl.SSLCertVerificationError):
                    await wire.start_tls(ssl.create_default_context(), "chatgpt.com")
            with pytest.raises(websockets.InvalidProxyStatus, match="407"):
                await websockets.connect(url, proxy=f"http://{LOOPBACK}:{it.proxy.port}", ssl=bundle)
        assert len(it.origin.requests) == 1

    run(scenario())


# Start and stop


@on_each_loop
def test_the_loop_keeps_its_task_factory_and_its_exception_handler(run, stage):
    """Master.run would put an eager task factory and a handler of its own on the loop, which is the agent's too."""

    async def scenario():
        loop = asyncio.get_running_loop()
        loop.set_task_factory(factory := lambda loop, coro, **kwargs: asyncio.Task(coro, loop=loop, **kwargs))
        handler = loop.get_exception_handler()
        async with stage(Origin(echoing)) as it:
            async with tunnel(it.proxy) as wire:
                await wire.exchange(post())
                await wire.exchange(upgrade())
            assert loop.get_task_factory() is factory and loop.get_exception_handler() is handler
        assert loop.get_task_factory() is factory and loop.get_exception_handler() is handler

    run(scenario())


def test_a_second_proxy_in_the_process_is_refused_and_the_first_goes_on(run, stage, tmp_path):
    async def scenario():
        async with stage() as it:
            with pytest.raises(ProxyUnavailable, match="another ProxyServer is running"):
                async with server(tmp_path):
                    pass
            async with tunnel(it.proxy) as wire:
                assert (await wire.exchange(post())).status == 200

    run(scenario())


@on_each_loop
def test_proxies_after_each_other_work(run, stage):
    async def scenario():
        for _ in range(3):
            async with stage() as it, tunnel(it.proxy) as wire:
                assert (await wire.exchange(post())).status == 200

    run(scenario())


@on_each_loop
def test_a_port_in_use_is_an_error_that_names_it_and_the_next_start_works(run, stage, tmp_path):
    async def scenario():
        with socket.create_server((LOOPBACK, 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(
                ProxyUnavailable, match=rf"cannot listen on 127.0.0.1:{port}: Address already in use; .*--port"
            ):
                async with server(tmp_path, port=port):
                    pass
        async with stage(port=port) as it:
            assert it.proxy.port == port

    run(scenario())


def test_a_directory_that_others_may_enter_is_refused_and_the_next_start_works(run, stage, tmp_path):
    async def scenario():
        (tmp_path / "open").mkdir()
        proxy = server(tmp_path / "open")
        (tmp_path / "open").chmod(0o755)
        with pytest.raises(ProxyUnavailable, match="mode 0700"):
            async with proxy:
                pass
        async with stage():
            pass

    run(scenario())


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "upstream CA"])
def test_certificates_that_cannot_be_read_are_named_and_the_next_start_works(
    run, stage, tmp_path, monkeypatch, variable
):
    """Both once ended in a traceback; the upstream's may go between its check and the start."""
    (tmp_path / "run").mkdir(0o700)
    roots = tmp_path / "roots.pem"

    async def scenario():
        upstream = UpstreamMap({})
        if variable == "SSL_CERT_FILE":
            roots.write_text("no certificate")
            monkeypatch.setenv("SSL_CERT_FILE", str(roots))
        else:
            upstream = UpstreamMap({}, roots)
        with pytest.raises(ProxyUnavailable, match="roots.pem"):
            async with server(tmp_path / "run", upstream=upstream):
                pass
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        async with stage():
            pass

    run(scenario())


@on_each_loop
def test_stopping_closes_every_connection_and_reports_what_was_still_open(run, stage):
    async def scenario():
        async with contextlib.AsyncExitStack() as clients:
            async with stage(Origin(echoing), never()) as it:
                asking, talking, idle, plain = [
                    await clients.enter_async_context(opened)
                    for opened in (tunnel(it.proxy), tunnel(it.proxy), tunnel(it.proxy), await dial(it.proxy.port))
                ]
                await talking.exchange(upgrade("/elsewhere"))
                await asking.send(post())
                await plain.send(b"CONNECT chatg")
                await it.tokens.wait_for(1)
            for wire in (asking, talking, idle, plain):
                assert await wire.receive_rest() == b""
        assert [exchange.status for exchange in it.exchanges] == [101, None]
        assert it.exchanges[1].error == "the proxy stopped"
        assert it.origin.requests[0].head.startswith(b"GET /elsewhere") and len(it.origin.requests) == 1

    run(scenario())


def test_a_stopped_proxy_does_not_answer_any_more(run, stage):
    async def scenario():
        async with stage() as it:
            pass
        with pytest.raises(ConnectionRefusedError):
            await dial(it.proxy.port)

    run(scenario())


# What it leaves behind, and where it listens


def test_nothing_is_written_into_the_home_and_what_is_written_is_private(run, stage, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))

    async def scenario():
        async with stage() as it, tunnel(it.proxy) as wire:
            await wire.exchange(post())
            directory = it.proxy.ca_file.parent
            assert (directory / CA_WITH_KEY).exists()
            assert stat.S_IMODE(directory.stat().st_mode) == 0o700
            for path in directory.iterdir():
                if b"PRIVATE KEY" in path.read_bytes():
                    assert (path.name, stat.S_IMODE(path.stat().st_mode)) == (CA_WITH_KEY, 0o600)

    run(scenario())
    assert os.listdir(home) == []


def test_no_key_is_in_what_children_are_given(run, stage):
    async def scenario():
        async with stage() as it:
            for name, value in it.proxy.child_environment({}).items():
                if value.startswith("/"):
                    with open(value, "rb") as file:
                        assert b"PRIVATE" not in file.read(), name

    run(scenario())


def test_it_listens_on_one_loopback_address_only(run, stage):
    async def scenario():
        async with stage() as it:
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.2", it.proxy.port)
            with pytest.raises(OSError):
                await asyncio.open_connection("::1", it.proxy.port)
            async with await dial(it.proxy.port):
                pass

    run(scenario())


def test_an_observer_that_raises_does_not_stop_the_traffic(run, stage):
    def broken(_):
        raise RuntimeError("the observer has a bug")

    async def scenario():
        async with stage(observer=broken) as it, tunnel(it.proxy) as wire:
            for _ in range(2):
                assert (await wire.exchange(post())).status == 200

    run(scenario())


def test_a_client_that_connects_and_says_nothing_holds_nobody_up(run, stage):
    async def scenario():
        async with stage() as it, await dial(it.proxy.port), connected(it.proxy), tunnel(it.proxy) as wire:
            assert (await wire.exchange(post())).status == 200

    run(scenario())


def test_a_client_that_leaves_in_the_middle_of_its_handshake_does_no_harm(run, stage):
    async def scenario():
        async with stage() as it:
            async with connected(it.proxy) as wire:
                await wire.send(b"\x16\x03\x01")
            async with tunnel(it.proxy) as wire:
                assert (await wire.exchange(post())).status == 200

    run(scenario())
