from ipaddress import ip_address
from pathlib import PurePath

import pytest

from agent.rpc.listen_address import NoAddress, Stdio, UnixSocket, WebSocketAddress, parse_listen

DEFAULT = PurePath("/home/of/codex/app-server-control/app-server-control.sock")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("stdio://", Stdio()),
        ("unix://", UnixSocket(DEFAULT, is_default=True)),
        ("unix:///run/a.sock", UnixSocket(PurePath("/run/a.sock"), is_default=False)),
        ("unix://a.sock", UnixSocket(PurePath("a.sock"), is_default=False)),
        ("ws://127.0.0.1:0", WebSocketAddress(ip_address("127.0.0.1"), 0)),
        ("ws://0.0.0.0:65535", WebSocketAddress(ip_address("0.0.0.0"), 65535)),
        ("ws://[::1]:80", WebSocketAddress(ip_address("::1"), 80)),
        ("ws://127.0.0.1:80/", WebSocketAddress(ip_address("127.0.0.1"), 80)),
    ],
)
def test_an_address_is_taken_apart(text, address):
    assert parse_listen(text, "/home/of/codex") == address


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ws://localhost:80", "'localhost' is no IP address"),
        ("ws://example.com:80", "no IP address"),
        ("ws://127.1:80", "no IP address"),
        ("ws://2130706433:80", "no IP address"),
        ("ws://:80", "no IP address"),
        ("ws://[127.0.0.1]:80", "no IP address"),
        ("ws://[]:80", "no IP address"),
        ("ws://[fe80::1%eth0]:80", "zone"),
        ("ws://127.0.0.1:65536", "0 to 65535"),
        ("ws://127.0.0.1", "not ws://IP:PORT"),
        ("ws://127.0.0.1:", "not ws://IP:PORT"),
        ("ws://127.0.0.1:-1", "not ws://IP:PORT"),
        ("ws://127.0.0.1:\u0661", "not ws://IP:PORT"),
        ("ws://127.0.0.1:80/path", "not ws://IP:PORT"),
        ("ws://user@127.0.0.1:80", "no IP address"),
        ("ws://::1:80", "not ws://IP:PORT"),
        ("wss://127.0.0.1:80", "is no address"),
        ("http://127.0.0.1:80", "is no address"),
        ("127.0.0.1:80", "is no address"),
        ("", "is no address"),
        ("unix:/run/a.sock", "is no address"),
        ("unix:///a\0b", "NUL"),
    ],
)
def test_what_is_no_address_is_refused_with_the_reason(text, reason):
    with pytest.raises(NoAddress, match=reason):
        parse_listen(text, "/home")


@pytest.mark.parametrize(
    ("ip", "is_local"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.5", False),
        ("fe80::1", False),
    ],
)
def test_only_loopback_is_local(ip, is_local):
    assert WebSocketAddress(ip_address(ip), 1).is_local is is_local


def test_an_address_is_written_as_in_a_url():
    assert str(WebSocketAddress(ip_address("::1"), 80)) == "[::1]:80"
    assert str(WebSocketAddress(ip_address("127.0.0.1"), 80)) == "127.0.0.1:80"
