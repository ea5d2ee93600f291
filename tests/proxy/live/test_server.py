import asyncio
import contextlib
import json
import socket
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import pytest

from proxy.capture.exchange import Stamp
from proxy.live import server
from proxy.live.feed import LiveFeed
from proxy.live.guard import SECURITY_HEADERS
from proxy.live.server import MOST_STREAMS, LivePage
from proxy.live.source import FeedSource
from tests.proxy.live.exchanges import POST, numbered

UNSTAMPED = replace(POST, stamp=Stamp.ABSENT, attestation=None)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self):
        return json.loads(self.body)


def token_of(page):
    return urlsplit(page.url).fragment.removeprefix("token=")


async def send(port, request: str) -> Answer:
    """Exactly these bytes, and what comes back until the connection closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request.encode("latin-1"))
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        length = int(headers.get("content-length", 0))
        return Answer(int(head[0].split()[1]), headers, await reader.readexactly(length))
    finally:
        writer.close()


def get(page, path, *lines, host=None, with_token=True):
    fields = [f"GET {path} HTTP/1.1", f"Host: {host or f'127.0.0.1:{page.port}'}", *lines]
    if with_token:
        fields.append(f"Authorization: Bearer {token_of(page)}")
    return send(page.port, "\r\n".join([*fields, "", ""]))


@contextlib.asynccontextmanager
async def page_of(*exchanges):
    feed = LiveFeed()
    for exchange in exchanges:
        feed.changed(exchange)
    async with LivePage(FeedSource(feed, None)) as page:
        yield page, feed


@contextlib.asynccontextmanager
async def stream_of(page):
    """The messages of the stream, one by one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", page.port)
    lines = [
        "GET /api/stream HTTP/1.1",
        f"Host: 127.0.0.1:{page.port}",
        f"Authorization: Bearer {token_of(page)}",
        "",
        "",
    ]
    writer.write("\r\n".join(lines).encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")

    async def messages():
        rest = b""
        while size := int(await reader.readline(), 16):
            *whole, rest = (rest + await reader.readexactly(size)).split(b"\n")
            await reader.readexactly(2)
            for line in whole:
                yield json.loads(line)

    try:
        yield messages()
    finally:
        writer.close()


async def news(messages):
    """The next message that is no heartbeat."""
    async for message in messages:
        if message["kind"] != "alive":
            return message
    raise AssertionError("the stream ended")


def test_the_page_is_served_on_loopback_alone_and_its_token_is_in_the_fragment(run):
    async def scenario():
        async with page_of() as (page, _):
            parts = urlsplit(page.url)
            assert (parts.scheme, parts.netloc, parts.path, parts.query) == ("http", f"127.0.0.1:{page.port}", "/", "")
            assert len(token_of(page)) >= 40
            with socket.socket() as other:
                assert other.connect_ex(("127.0.0.2", page.port)) != 0

    run(scenario())


@pytest.mark.parametrize(
    "path", [*server.ASSETS, "/api/exchanges", "/api/exchanges/1", "/api/exchanges/99", "/nothing", "/api/har"]
)
def test_every_answer_has_the_headers_that_close_it(run, path):
    async def scenario():
        async with page_of(POST) as (page, _):
            for answer in (
                await get(page, path),
                await get(page, path, with_token=False),
                await get(page, path, "Origin: null"),
            ):
                for name, value in SECURITY_HEADERS.items():
                    assert answer.headers[name.lower()] == value.lower()
                assert not any(name.startswith("access-control") for name in answer.headers)

    run(scenario())


def test_what_is_no_http_is_answered_without_a_banner_or_an_echo(run, caplog):
    async def scenario():
        async with page_of() as (page, _):
            answer = await send(page.port, "canary-7261 / nonsense\r\n\r\n")
            assert answer.status == 400
            assert answer.headers["server"] == "countersign"
            assert b"canary" not in answer.body

    run(scenario())
    assert "canary" not in caplog.text


@pytest.mark.parametrize("path", ["/api/exchanges", "/api/exchanges/1", "/api/stream", "/api/har", "/nothing"])
def test_nothing_is_told_without_the_token(run, path):
    async def scenario():
        async with page_of(POST) as (page, _):
            for lines in ((), ("Authorization: Bearer wrong",), ("Authorization: Basic wrong",)):
                answer = await get(page, path, *lines, with_token=False)
                assert answer.status == 401
                assert answer.headers["www-authenticate"].startswith("bearer")
            answer = await get(page, f"{path}?token={token_of(page)}", with_token=False)
            assert answer.status == 401
            assert b"chatgpt" not in answer.body

    run(scenario())


@pytest.mark.parametrize("path", ["/", "/page.js", "/api/exchanges"])
@pytest.mark.parametrize(
    "lines",
    [
        ("Origin: https://evil.example",),
        ("Origin: null",),
        ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: script"),
        ("Sec-Fetch-Site: same-site",),
        ("Host: evil.example",),
    ],
)
def test_other_sites_are_refused(run, path, lines):
    async def scenario():
        async with page_of(POST) as (page, _):
            assert (await get(page, path, *lines)).status in (400, 403)
            assert (await get(page, path)).status == 200  # the control

    run(scenario())


@pytest.mark.parametrize(
    "host", ["evil.example:{port}", "localhost.:{port}", "127.0.0.1.evil.com:{port}", "127.0.0.1", "x"]
)
def test_a_rebound_name_is_refused(run, host):
    async def scenario():
        async with page_of(POST) as (page, _):
            for path in ("/", "/page.js", "/api/exchanges"):
                assert (await get(page, path, host=host.format(port=page.port))).status == 403
            for good in ("localhost", "[::1]"):
                assert (await get(page, "/api/exchanges", host=f"{good}:{page.port}")).status == 200

    run(scenario())


def test_a_request_without_a_host_is_refused(run):
    async def scenario():
        async with page_of(POST) as (page, _):
            answer = await send(page.port, f"GET / HTTP/1.0\r\nAuthorization: Bearer {token_of(page)}\r\n\r\n")
            assert answer.status in (400, 403)

    run(scenario())


def test_nothing_can_be_sent_here(run):
    async def scenario():
        async with page_of(POST) as (page, _):
            for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
                request = (
                    f"{method} /api/exchanges HTTP/1.1\r\nHost: 127.0.0.1:{page.port}\r\nContent-Type: text/plain\r\n"
                    f"Authorization: Bearer {token_of(page)}\r\nContent-Length: 0\r\n\r\n"
                )
                answer = await send(page.port, request)
                assert answer.status == 405
                assert answer.headers["allow"] == "get"

    run(scenario())


@pytest.mark.parametrize(
    "path",
    [
        "/../server.py", "/..%2fserver.py", "/page/../../server.py", "/%2e%2e/guard.py", "/page.js/..", "//etc/passwd",
        "/page/index.html", "/index.html", "/api/exchanges/../../etc/passwd", "/api/exchanges/..%2f..%2fetc%2fpasswd",
        "/api/exchanges/1/../../../x", "/api/exchanges/-1", "/api/exchanges/1e3", "/api/exchanges/%F0%9D%9F%99",
        "/api/exchanges/999999999999999999999999", "/api/exchanges/", "/api", "/API/EXCHANGES",
    ],
)  # fmt: skip
def test_no_path_leads_anywhere_else(run, path):
    async def scenario():
        async with page_of(POST) as (page, _):
            answer = await get(page, path)
            assert answer.status == 404
            assert b"root:" not in answer.body and b"import" not in answer.body

    run(scenario())


def test_the_snapshot_holds_what_came_without_its_headers(run):
    async def scenario():
        async with page_of(POST, numbered(UNSTAMPED, 2)) as (page, _):
            content = (await get(page, "/api/exchanges")).json()
            assert [row["number"] for row in content["exchanges"]] == [1, 2]
            assert content["exchanges"][0]["stamp_word"] == "stamped"
            assert content["exchanges"][1]["tone"] == "bad"
            assert content["coverage"]["scoped"] == 2
            assert [notice["kind"] for notice in content["notices"]] == ["unstamped"]
            assert "request_headers" not in content["exchanges"][0]

    run(scenario())


def test_one_exchange_is_told_with_its_headers_its_times_and_a_verdict(run):
    async def scenario():
        async with page_of(POST) as (page, _):
            content = (await get(page, "/api/exchanges/1")).json()
            assert content["request_headers"][0] == ["host", "chatgpt.com"]
            assert content["parts"][0] == ["token", 0, 30]
            assert content["verdict"]["headline"].startswith("Receiving the answer")
            assert content["carried"]["lines"] == []
            assert "--bodies" in content["carried"]["note"]

    run(scenario())


def test_a_stream_begins_with_all_and_goes_on_with_what_is_new(run):
    async def scenario():
        async with page_of(POST) as (page, feed), stream_of(page) as messages:
            first = await news(messages)
            assert (first["kind"], [row["number"] for row in first["exchanges"]]) == ("snapshot", [1])
            feed.changed(numbered(UNSTAMPED, 2))
            second = await news(messages)
            assert (second["kind"], [row["number"] for row in second["exchanges"]]) == ("changes", [2])
            assert second["notices"][0]["number"] == 2
            feed.restart("another")
            third = await news(messages)
            assert (third["kind"], third["run"], third["exchanges"]) == ("snapshot", "another", [])

    run(scenario())


def test_much_comes_in_pieces_the_newest_first_and_all_of_it_once(run):
    async def scenario():
        async with page_of(*(numbered(POST, number) for number in range(1, 131))) as (page, feed):
            content = (await get(page, "/api/exchanges")).json()
            assert [row["number"] for row in content["exchanges"]] == list(range(1, 131))
            assert content["kind"] == "snapshot"
            async with stream_of(page) as messages:
                seen = [await news(messages) for _ in range(3)]
                assert [message["kind"] for message in seen] == ["snapshot", "more", "more"]
                assert [message["exchanges"][0]["number"] for message in seen] == [81, 31, 1]
                assert [len(message["exchanges"]) for message in seen] == [50, 50, 30]
                feed.restart("another")
                assert (await news(messages))["exchanges"] == []

    run(scenario())


def test_a_stream_says_that_it_is_alive(run, monkeypatch):
    monkeypatch.setattr(server, "HEARTBEAT_S", 0.01)

    async def scenario():
        async with page_of() as (page, _), stream_of(page) as messages:
            assert (await anext(messages))["kind"] == "snapshot"
            assert (await anext(messages))["kind"] == "alive"

    run(scenario())


def test_a_stream_says_good_bye_when_the_page_closes(run):
    async def scenario():
        async with contextlib.AsyncExitStack() as stack:
            page, _ = await stack.enter_async_context(page_of())
            messages = await stack.enter_async_context(stream_of(page))
            assert (await news(messages))["kind"] == "snapshot"
            closing = asyncio.create_task(page.__aexit__(None, None, None))
            assert (await news(messages))["kind"] == "bye"
            await closing

    run(scenario())


def test_a_page_that_takes_nothing_is_let_go_and_holds_up_nobody(run, monkeypatch):
    monkeypatch.setattr(server, "WRITE_TIMEOUT_S", 0.2)

    async def scenario():
        async with page_of() as (page, feed), stream_of(page) as messages, stream_of(page):
            # The second is read no further than its head, and the kernel takes only so much.
            assert (await news(messages))["kind"] == "snapshot"
            number = 0
            while page.streams > 1:
                for _ in range(500):
                    number += 1
                    feed.changed(numbered(replace(POST, path="/" + "x" * 2000), number))
                assert (await news(messages))["exchanges"][-1]["number"] <= number
            assert len(feed.since(0).exchanges) <= 2000
            assert page.streams == 1

    run(scenario())


def test_only_so_many_pages_may_follow(run):
    async def scenario():
        async with page_of() as (page, _), contextlib.AsyncExitStack() as stack:
            for _ in range(MOST_STREAMS):
                messages = await stack.enter_async_context(stream_of(page))
                await news(messages)
            answer = await get(page, "/api/stream")
            assert answer.status == 503
            assert b"close one" in answer.body

    run(scenario())


def test_a_port_in_use_is_told_by_name(run):
    async def scenario():
        async with page_of() as (page, feed):
            with pytest.raises(OSError, match=rf"cannot listen on 127.0.0.1:{page.port}: it is in use; name another"):
                async with LivePage(FeedSource(feed, None), page.port):
                    pass

    run(scenario())


def test_entered_again_it_is_the_same_page(run):
    async def scenario():
        page = LivePage(FeedSource(LiveFeed(), None))
        async with page:
            before = page.url
        async with page:
            assert page.url == before
            assert (await get(page, "/api/exchanges")).status == 200

    run(scenario())


def test_two_pages_have_two_tokens_and_neither_shows_in_its_repr(run):
    async def scenario():
        async with page_of() as (one, _), page_of() as (other, _):
            assert token_of(one) != token_of(other)
            assert token_of(one) not in repr(one) + repr(one._guard)

    run(scenario())
