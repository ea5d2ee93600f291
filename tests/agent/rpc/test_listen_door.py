from http import HTTPStatus
from ipaddress import ip_address

import pytest

from agent.rpc.listen_address import WebSocketAddress
from agent.rpc.listen_door import FOREIGN_HOST, NO_UPGRADE, Asked, Door, Reply
from agent.rpc.ws_auth import INVALID, MISSING, CapabilityToken

NOW_S = 1_800_000_000.0
TOKEN = ["Bearer open-sesame"]
FORBIDDEN = Reply(HTTPStatus.FORBIDDEN)
FOREIGN = Reply(HTTPStatus.FORBIDDEN, FOREIGN_HOST)


def door(ip="127.0.0.1", *, needs_token=False):
    return Door(WebSocketAddress(ip_address(ip), 9732), CapabilityToken.of(b"open-sesame") if needs_token else None)


def asked(target="/", host=("127.0.0.1:9732",), origin=(), connection=("Upgrade",), authorization=()):
    return Asked(target, host, origin, connection, authorization)


def reply(at, **parts):
    return at.reply(asked(**parts), NOW_S)


@pytest.mark.parametrize("target", ["/", "/any/path", "/readyz2", "//", "*"])
def test_an_upgrade_is_let_in_on_any_path(target):
    assert reply(door(), target=target) is None


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "", "http://127.0.0.1:9732", "file://"])
@pytest.mark.parametrize("target", ["/", "/readyz", "/healthz"])
def test_any_origin_is_refused_even_with_a_good_token(origin, target):
    """B1"""
    at = door(needs_token=True)
    assert reply(at, target=target, origin=[origin], authorization=TOKEN) == FORBIDDEN
    assert reply(at, target=target, authorization=TOKEN) != FORBIDDEN


@pytest.mark.parametrize("target", ["/readyz", "/healthz", "/readyz?x=1"])
@pytest.mark.parametrize("needs_token", [True, False])
def test_health_needs_no_token(target, needs_token):
    assert reply(door(needs_token=needs_token), target=target, connection=[]) == Reply(HTTPStatus.OK)


@pytest.mark.parametrize("connection", [[], ["close"], ["keep-alive"], ["upgraded"]])
def test_what_is_no_upgrade_is_a_bad_request(connection):
    expected = Reply(HTTPStatus.BAD_REQUEST, NO_UPGRADE)
    assert reply(door(), connection=connection) == expected
    assert reply(door(needs_token=True), connection=connection) == expected  # as the original: before the token


@pytest.mark.parametrize("connection", [["upgrade"], ["keep-alive, Upgrade"], ["keep-alive", "UPGRADE"]])
def test_an_upgrade_may_stand_among_other_options(connection):
    assert reply(door(), connection=connection) is None


@pytest.mark.parametrize(
    ("authorization", "expected"),
    [
        ([], Reply(HTTPStatus.UNAUTHORIZED, MISSING)),
        (["Bearer x"], Reply(HTTPStatus.UNAUTHORIZED, INVALID)),
        (TOKEN, None),
    ],
)
def test_a_token_is_needed_where_one_was_agreed_on(authorization, expected):
    assert reply(door(needs_token=True), authorization=authorization) == expected


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:9732", "localhost:9732", "LocalHost", "[::1]:9732", "127.0.0.1", "127.0.0.1:8000", "127.0.0.2:9732"],
)
def test_names_of_loopback_are_ours_also_through_another_port(host):
    assert reply(door(), host=[host]) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:9732",
        "localhost.",
        "localhost.:9732",
        "127.0.0.1.evil.com",
        "127.0.0.1.evil.com:9732",
        "localhost.evil.com",
        "192.168.1.5:9732",
        "user@127.0.0.1",
        "127.0.0.1:port",
        "",
        "[::1",
        "::1",
    ],
)
@pytest.mark.parametrize("target", ["/", "/readyz"])
def test_a_name_that_somebody_else_may_have_made_for_us_is_refused(host, target):
    """B2: a rebound request carries no Origin."""
    assert reply(door(), host=[host], target=target) == FOREIGN
    assert reply(door(), host=["127.0.0.1:9732", host]) == FOREIGN


def test_a_foreign_name_is_refused_before_a_bad_token_and_taken_with_a_good_one():
    at = door(needs_token=True)
    for authorization in ([], ["Bearer x"]):
        assert reply(at, host=["box.example:9732"], authorization=authorization) == FOREIGN
    assert reply(at, host=["box.example:9732"], authorization=TOKEN) is None


def test_the_address_we_listen_on_is_our_name():
    at = door("192.168.1.5", needs_token=True)
    assert reply(at, host=["192.168.1.5:9732"], target="/readyz") == Reply(HTTPStatus.OK)
    assert reply(at, host=["192.168.1.6:9732"], target="/readyz") == FOREIGN
    everywhere = door("0.0.0.0", needs_token=True)
    assert reply(everywhere, host=["192.168.1.6:9732"], target="/readyz") == Reply(HTTPStatus.OK)
    assert reply(everywhere, host=["evil.example:9732"], target="/readyz") == FOREIGN


def test_who_sends_no_host_is_no_browser():
    assert reply(door(), host=[]) is None
