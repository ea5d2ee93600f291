"""Who is answered: the table of facts/security 4.3, and its controls."""

from dataclasses import replace
from http import HTTPStatus

import pytest

from proxy.live.guard import SECURITY_HEADERS, Area, Asked, Guard

PORT = 4711
TOKEN = "the-token-of-this-run"
GUARD = Guard(PORT, TOKEN)
GOOD = Asked("GET", "/api/exchanges", ["127.0.0.1:4711"], [], [f"Bearer {TOKEN}"])


def status(area=Area.API, **facts):
    refusal = GUARD.refusal(replace(GOOD, **facts), area)
    return None if refusal is None else int(refusal.status)


@pytest.mark.parametrize("host", ["127.0.0.1:4711", "localhost:4711", "LocalHost:4711", "[::1]:4711"])
def test_its_own_names_are_answered(host):
    assert status(host=[host]) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:4711",
        "127.0.0.1.evil.com:4711",
        "localhost.evil.com:4711",
        "localhost.:4711",
        "127.0.0.1",
        "127.0.0.1:80",
        "127.0.0.1:47110",
        "127.1:4711",
        "2130706433:4711",
        "0.0.0.0:4711",
        "[::ffff:127.0.0.1]:4711",
        "user@127.0.0.1:4711",
        " 127.0.0.1:4711",
        "",
    ],
)
@pytest.mark.parametrize("area", list(Area))
def test_another_name_is_a_rebound_one_and_is_refused_whatever_is_asked_for(host, area):
    assert status(area, host=[host]) == HTTPStatus.FORBIDDEN


@pytest.mark.parametrize("hosts", [[], ["127.0.0.1:4711", "127.0.0.1:4711"], ["127.0.0.1:4711", "evil.example"]])
def test_none_and_several_names_are_refused(hosts):
    assert status(host=hosts) == HTTPStatus.FORBIDDEN


@pytest.mark.parametrize("target", ["http://127.0.0.1:4711/api/exchanges", "*", "api/exchanges", ""])
def test_a_target_that_is_no_path_is_refused(target):
    assert status(target=target) == HTTPStatus.FORBIDDEN


@pytest.mark.parametrize(
    "origins",
    [
        ["https://evil.example"],
        ["null"],
        ["http://127.0.0.1:4712"],
        ["http://127.0.0.1"],
        ["https://127.0.0.1:4711"],
        ["http://localhost:4711"],  # its other name is another origin
        [""],
        ["http://127.0.0.1:4711", "https://evil.example"],
        ["file://"],
        ["chrome-extension://abcdef"],
    ],
)
@pytest.mark.parametrize("area", list(Area))
def test_a_foreign_origin_is_refused(origins, area):
    assert status(area, origin=origins) == HTTPStatus.FORBIDDEN


def test_its_own_origin_is_answered():
    assert status(origin=["http://127.0.0.1:4711"]) is None
    assert status(host=["localhost:4711"], origin=["http://localhost:4711"]) is None


@pytest.mark.parametrize("site", ["cross-site", "same-site", "", "something"])
def test_what_a_browser_says_comes_from_another_site_is_refused(site):
    assert status(fetch_site=[site]) == HTTPStatus.FORBIDDEN
    assert status(Area.ASSET, fetch_site=[site]) == HTTPStatus.FORBIDDEN
    assert status(Area.PAGE, fetch_site=[site]) == HTTPStatus.FORBIDDEN


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_what_a_browser_says_is_its_own_is_answered(site):
    assert status(fetch_site=[site], fetch_mode=["cors"], fetch_dest=["empty"]) is None


def test_a_link_to_the_page_may_be_followed_but_not_framed_and_only_to_the_page():
    followed = {"fetch_site": ["cross-site"], "fetch_mode": ["navigate"], "fetch_dest": ["document"]}
    assert status(Area.PAGE, **followed) is None
    assert status(Area.PAGE, **{**followed, "fetch_dest": ["iframe"]}) == HTTPStatus.FORBIDDEN
    assert status(Area.PAGE, **{**followed, "fetch_mode": ["no-cors"]}) == HTTPStatus.FORBIDDEN
    assert status(Area.API, **followed) == HTTPStatus.FORBIDDEN
    assert status(Area.ASSET, **followed) == HTTPStatus.FORBIDDEN


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT", "get"])
@pytest.mark.parametrize("area", list(Area))
def test_another_method_is_refused(method, area):
    assert status(area, method=method) == HTTPStatus.METHOD_NOT_ALLOWED


@pytest.mark.parametrize(
    "values",
    [
        [],
        [""],
        ["Bearer "],
        ["Bearer wrong"],
        [f"Bearer {TOKEN}x"],
        [f"Bearer {TOKEN[:-1]}"],
        [f"Bearer {TOKEN.upper()}"],
        [f"Basic {TOKEN}"],
        [TOKEN],
        [f"Bearer {TOKEN} "],
        [f"Bearer {TOKEN}", f"Bearer {TOKEN}"],
        ["Bearer \udcff\udcfe"],
        [f"Bearer {TOKEN}\n"],
    ],
)
def test_without_the_token_there_is_nothing_to_read(values):
    assert status(authorization=values) == HTTPStatus.UNAUTHORIZED
    assert status(Area.PAGE, authorization=values) is None  # the page itself says how to get it
    assert status(Area.ASSET, authorization=values) is None


def test_the_token_in_the_query_opens_nothing():
    assert status(target=f"/api/exchanges?token={TOKEN}", authorization=[]) == HTTPStatus.UNAUTHORIZED
    assert status(target="/api/exchanges?a=b") is None


def test_the_scheme_may_be_spelled_as_it_likes():
    assert status(authorization=[f"bEARER {TOKEN}"]) is None


def test_who_comes_from_elsewhere_does_not_learn_whether_a_token_is_right():
    wrong = {"authorization": ["Bearer wrong"]}
    assert status(origin=["null"]) == status(origin=["null"], **wrong) == HTTPStatus.FORBIDDEN
    assert status(method="POST") == status(method="POST", **wrong) == HTTPStatus.METHOD_NOT_ALLOWED


def test_a_refusal_says_nothing_of_the_token():
    assert TOKEN not in repr(GUARD)
    assert TOKEN not in str(GUARD.refusal(replace(GOOD, authorization=[]), Area.API))


def test_nothing_is_opened_to_others():
    names = {name.lower() for name in SECURITY_HEADERS}
    assert not any(name.startswith("access-control") for name in names)
    policy = dict(part.split(" ", 1) for part in SECURITY_HEADERS["Content-Security-Policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "img-src": "'self' data:",
        "frame-ancestors": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
