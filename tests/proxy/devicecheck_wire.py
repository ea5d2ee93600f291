"""Asking the stand-in of Apple's server, and servers that write what they like."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable

import trustme

from certs.trust import client_context
from proxy.devicecheck import (
    Answer,
    Environment,
    Patience,
    TeamKey,
    validate,
)
from proxy.standins.apple import KEY_ID, TEAM_ID, Apple

NOW_S = 1_800_000_000.987
# As many pauses as there are, and none that is worth waiting for.
QUICK = Patience(total_s=10, attempts=3, first_pause_s=0.001)


def key_of(apple, team_id=TEAM_ID):
    return TeamKey.load(apple.key_pem, KEY_ID, team_id)


async def asked(apple, token=None, environment=Environment.PRODUCTION, **options):
    """The answers of a stand-in that runs already."""
    servers = {one: apple.url(str(one)) for one in Environment}
    key = options.pop("key", None) or key_of(apple)
    options = {"patience": QUICK, "servers": servers, "context": client_context(apple.ca_pem), **options}
    return await validate(token or apple.token(), key, environment, **options)


Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def from_raw(behaviour: Behaviour, patience=QUICK, tls=True) -> tuple[Answer, int, str]:
    """(the answer, connections, the token) of a server that writes what it likes."""
    authority, connections = trustme.CA(), 0
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    async def serve(reader, writer):
        nonlocal connections
        connections += 1
        try:
            await behaviour(reader, writer)
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    apple = Apple()
    token = apple.token()
    async with await asyncio.start_server(serve, "127.0.0.1", ssl=context if tls else None) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        (answer,) = await validate(
            token,
            key_of(apple),
            Environment.PRODUCTION,
            context=client_context(authority.cert_pem.bytes()),
            servers={Environment.PRODUCTION: url},
            patience=patience,
        )
    return answer, connections, token


def writing(content: bytes | Callable[[bytes], bytes]) -> Behaviour:
    async def behave(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        body = await reader.readexactly(length)
        writer.write(content if isinstance(content, bytes) else content(head + body))

    return behave


def plain(status: int, text: bytes, *headers: bytes) -> bytes:
    lines = [b"HTTP/1.1 %d X" % status, b"Content-Length: %d" % len(text), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + text
