"""What a connection may take before it is of use, and where its upstream is looked for."""

import asyncio
import contextlib
import logging
import socket

import pytest

from proxy.listener import Limits
from proxy.scope import Scope
from proxy.server import LOOPBACK
from tests.loops import on_each_loop
from tests.proxy.wire import connect_head, connected, dial, post, tunnel

SOON = 0.1


class Mute:
    """An upstream that accepts and says nothing. `left` is set when a client has gone."""

    def __init__(self):
        self.arrived, self.left = asyncio.Event(), asyncio.Event()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._listen, LOOPBACK, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()

    async def _listen(self, reader, writer):
        self.arrived.set()
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                pass
        self.left.set()
        writer.close()


@contextlib.contextmanager
def full():
    """A port of loopback that does not answer a connection any more: its backlog is full."""
    with socket.create_server((LOOPBACK, 0), backlog=0) as listener, contextlib.ExitStack() as stack:
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def dropped(caplog):
    return [record for record in caplog.records if record.getMessage().startswith("connections dropped")]


# Strangers


@on_each_loop
@pytest.mark.parametrize(
    "said",
    [b"", b"CONNECT chatgpt.com:443 HTT", b"POST http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nbody"],
)
def test_a_connection_without_an_admitted_connect_is_closed_after_its_time(run, stage, caplog, said):
    """It once stayed for a day, and 400 of them kept everybody else out."""

    async def scenario():
        async with stage(limits=Limits(admission_s=SOON)) as it:
            async with tunnel(it.proxy) as established, await dial(it.proxy.port) as stranger:
                await stranger.send(said)
                assert b"200" not in await stranger.receive_rest()
                assert (await established.exchange(post())).status == 200  # the control: it has had its CONNECT
        assert len(dropped(caplog)) == 1 and dropped(caplog)[0].levelno == logging.WARNING

    run(scenario())


@pytest.mark.parametrize(
    "head",
    [
        b"CONNECT chatgpt.com:443 HTTP/1.1\r\nX: ",
        b"x" * 10,
        b"POST http://chatgpt.com/ HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n",
    ],
)
def test_a_connection_without_an_admitted_connect_is_read_up_to_64_kib(run, stage, caplog, head):
    async def scenario():
        async with stage() as it, await dial(it.proxy.port) as wire:
            await wire.send(head + b"x" * 70_000)
            assert await wire.receive_rest() == b""
        assert "too long" in dropped(caplog)[0].getMessage() and it.tokens.asked == 0

    run(scenario())


def test_a_long_head_below_that_is_judged(run, stage):
    """The negative control."""

    async def scenario():
        async with stage() as it, await dial(it.proxy.port) as wire:
            padding = b"\r\nX: " + b"x" * 60_000 + b"\r\n\r\n"
            await wire.send(connect_head(it.proxy).removesuffix(b"\r\n\r\n") + padding)
            assert (await wire.receive_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")

    run(scenario())


def test_of_too_many_that_say_nothing_the_oldest_go_and_whoever_has_credentials_gets_in(run, stage, caplog):
    async def scenario():
        async with stage(limits=Limits(strangers=4)) as it, contextlib.AsyncExitStack() as stack:
            silent = [await stack.enter_async_context(await dial(it.proxy.port)) for _ in range(4)]
            async with tunnel(it.proxy) as wire:
                assert (await wire.exchange(post())).status == 200
            assert await silent[0].receive_rest() == b""
            more = [await stack.enter_async_context(await dial(it.proxy.port)) for _ in range(20)]
            assert await more[0].receive_rest() == b""
            await more[-1].send(connect_head(it.proxy))
            assert (await more[-1].receive_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert len(dropped(caplog)) == 1  # one line, and not one for each

    run(scenario())


# Upstream


@on_each_loop
def test_an_upstream_that_accepts_and_says_nothing_is_given_up_and_the_client_is_told(run, stage):
    """It once kept both connections for a day."""

    async def scenario():
        async with Mute() as mute, stage(upstream_port=mute.port, limits=Limits(upstream_s=SOON)) as it:
            async with tunnel(it.proxy) as wire:
                answer = await wire.exchange(post())
                assert answer.status == 502 and b"upstream connection failed" in answer.body
            await mute.left.wait()
        assert it.tokens.asked == 0

    run(scenario())


@on_each_loop
@pytest.mark.parametrize("host", ["chatgpt.com", "auth.openai.com"])
def test_a_client_that_leaves_takes_its_upstream_connection_along(run, stage, host):
    async def scenario():
        async with Mute() as mute, stage(upstream_port=mute.port) as it:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SOON), tunnel(it.proxy, host):
                    pass
            assert mute.arrived.is_set()
            await mute.left.wait()

    run(scenario())


def test_a_client_that_says_nothing_in_its_tunnel_is_closed_after_its_time(run, stage):
    async def scenario():
        async with stage(limits=Limits(upstream_s=SOON)) as it:
            async with tunnel(it.proxy) as established, connected(it.proxy) as silent:
                assert await silent.receive_rest() == b""
                assert (await established.exchange(post())).status == 200

    run(scenario())


def test_a_tunnel_elsewhere_may_be_silent_for_longer(run, stage):
    """What is said there, and when, is not ours to judge."""

    async def scenario():
        async with Mute() as mute, stage(upstream_port=mute.port, limits=Limits(upstream_s=SOON)) as it:
            async with connected(it.proxy, "auth.openai.com:443") as wire:
                await asyncio.sleep(2 * SOON)
                assert not mute.left.is_set()
                await wire.close()
                await mute.left.wait()

    run(scenario())


@on_each_loop
def test_an_upstream_that_does_not_answer_is_given_up(run, stage):
    async def scenario():
        with full() as port:
            async with (
                stage(upstream_port=port, limits=Limits(upstream_s=SOON)) as it,
                await dial(it.proxy.port) as wire,
            ):
                answer = await wire.exchange(connect_head(it.proxy))
                assert answer.status == 502 and b"no connection within 0.1 s" in answer.body

    run(scenario())


FIRST, SECOND = "104.18.32.47", "2606:4700::6812:202f"


@on_each_loop
@pytest.mark.parametrize("first", ["refuses", "is silent", "answers"])
def test_where_a_name_has_several_addresses_the_next_is_tried(run, stage, monkeypatch, first):
    async def scenario():
        loop = asyncio.get_running_loop()
        real, tried = loop.create_connection, []

        async def getaddrinfo(host, port, **_):
            return [(2, 1, 6, "", (FIRST, port)), (10, 1, 6, "", (SECOND, port))]

        async def create_connection(factory, host, port, **options):
            if host not in (FIRST, SECOND):
                return await real(factory, host, port, **options)
            tried.append(host)
            if host == FIRST and first == "refuses":
                raise ConnectionRefusedError(111, "Connection refused")
            if host == FIRST and first == "is silent":
                await asyncio.Event().wait()
            return await real(factory, LOOPBACK, it.origin.port, **options)

        limits = Limits(address_s=SOON)
        async with stage(mapped=("api.openai.com",), scope=Scope.of(), limits=limits) as it:
            monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
            monkeypatch.setattr(loop, "create_connection", create_connection)
            async with tunnel(it.proxy) as wire:
                assert (await wire.exchange(post())).status == 200
            monkeypatch.undo()
        assert tried == ([FIRST] if first == "answers" else [FIRST, SECOND])

    run(scenario())


def test_where_no_address_answers_the_client_is_told(run, stage, monkeypatch):
    async def scenario():
        loop = asyncio.get_running_loop()
        real = loop.create_connection

        async def getaddrinfo(host, port, **_):
            return [(2, 1, 6, "", (FIRST, port)), (10, 1, 6, "", (SECOND, port))]

        async def create_connection(factory, host, port, **options):
            if host in (FIRST, SECOND):
                raise OSError(113, f"no route to {host}")
            return await real(factory, host, port, **options)

        async with stage(mapped=("api.openai.com",)) as it:
            monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
            monkeypatch.setattr(loop, "create_connection", create_connection)
            async with await dial(it.proxy.port) as wire:
                answer = await wire.exchange(connect_head(it.proxy))
            monkeypatch.undo()
        assert answer.status == 502 and f"no route to {SECOND}".encode() in answer.body

    run(scenario())
