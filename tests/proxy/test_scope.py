"""Every case of the threat model's R3 to R8, as a row: what is stamped is one exact spelling, and nothing near it."""

import pytest

from proxy.scope import (
    COMPACT,
    REALTIME_CALL,
    REALTIME_SIDEBAND,
    RESPONSES_POST,
    RESPONSES_WEBSOCKET,
    Covered,
    Passes,
    Refused,
    Scope,
    Target,
)
from tests.proxy.heads import H2_POST, POST, RESPONSES, SIDEBAND, UPGRADE, changed
from tests.proxy.scope_heads import SCOPE, at

# What is stamped


@pytest.mark.parametrize(
    ("head", "route"),
    [
        (POST, RESPONSES_POST),
        (H2_POST, RESPONSES_POST),
        (UPGRADE, RESPONSES_WEBSOCKET),
        (at(POST, RESPONSES + b"/compact"), COMPACT),
        (at(H2_POST, RESPONSES + b"/compact"), COMPACT),
        (at(POST, b"/backend-api/codex/realtime/calls"), REALTIME_CALL),
        (at(POST, b"/backend-api/codex/realtime/calls?intent=quicksilver&architecture=avas"), REALTIME_CALL),
        (at(POST, RESPONSES + b"?x=1"), RESPONSES_POST),
    ],
)
def test_the_rows_of_the_scope_are_covered(head, route):
    assert SCOPE.decide(head) == Covered(route)


def test_the_sideband_of_a_call_is_covered_with_its_call_id():
    assert SCOPE.decide(SIDEBAND) == Covered(REALTIME_SIDEBAND, "rtc_1")


@pytest.mark.parametrize("host", [b"chatgpt.com", b"chatgpt.com:443", b"CHATGPT.COM", b"ChatGPT.com:443"])
@pytest.mark.parametrize("head", [POST, UPGRADE])
def test_the_host_is_accepted_in_any_case_and_with_its_default_port(head, host):
    assert isinstance(SCOPE.decide(changed(head, header=(b"Host", host))), Covered)


@pytest.mark.parametrize("authority", [b"chatgpt.com", b"chatgpt.com:443", b"CHATGPT.COM"])
def test_so_is_the_authority_of_http2(authority):
    assert isinstance(SCOPE.decide(changed(H2_POST, authority=authority)), Covered)


@pytest.mark.parametrize(
    "header",
    [(b"X-Note", b"caf\xe9 \xff"), (b"Accept", b"\t text"), (b"Cookie", b"a=b"), (b"x-oai-attestation", b"forged")],
)
def test_other_headers_change_nothing_even_when_they_are_not_utf8(header):
    """F4: a check that fails on an odd byte could be made to fail by whoever sends it."""
    for head in (POST, UPGRADE, H2_POST):
        assert SCOPE.decide(changed(head, header=header)) == SCOPE.decide(head)


# R3, R4, R5: CONNECT, SNI and Host name one host


@pytest.mark.parametrize(
    "sni", [None, "", "evil.example", "chatgpt.com.", "chatgpt.com.evil.example", "a.chatgpt.com", "chatgpt.co"]
)
@pytest.mark.parametrize("head", [POST, UPGRADE, H2_POST])
def test_another_sni_is_misdirected(head, sni):
    assert SCOPE.decide(changed(head, sni=sni)).status == 421


def test_the_sni_is_compared_without_case():
    assert isinstance(SCOPE.decide(changed(POST, sni="ChatGPT.com")), Covered)


@pytest.mark.parametrize(
    "host",
    [
        b"",
        b"evil.example",
        b"chatgpt.com.",
        b"chatgpt.com:80",
        b"chatgpt.com:0443",
        b"chatgpt.com:",
        b"chatgpt.com:443:443",
        b"chatgpt.com, evil.example",
        b"chatgpt.com evil.example",
        b"user@chatgpt.com",
        b"http://chatgpt.com",
        b"evilchatgpt.com",
        b"chatgpt.com.evil.example",
        b"foo.chatgpt.com",
        b"xn--chatgpt-9xa.com",
        "chаtgpt.com".encode(),  # with a Cyrillic a
        "ＣＨＡＴＧＰＴ.com".encode(),  # full width, which IDNA would map to the real name
        b"\xff",
        b"127.0.0.1",
    ],
)
@pytest.mark.parametrize("head", [POST, UPGRADE])
def test_another_host_header_is_misdirected(head, host):
    assert SCOPE.decide(changed(head, header=(b"Host", host))).status == 421


@pytest.mark.parametrize("hosts", [(), (b"chatgpt.com", b"chatgpt.com"), (b"chatgpt.com", b"evil.example")])
@pytest.mark.parametrize("head", [POST, UPGRADE])
def test_no_host_header_or_more_than_one_is_misdirected(head, hosts):
    assert SCOPE.decide(changed(head, header=(b"Host", *hosts))).status == 421


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        (b"", ()),
        (b"", (b"chatgpt.com",)),
        (b"evil.example", ()),
        (b"chatgpt.com", (b"evil.example",)),
        (b"evil.example", (b"chatgpt.com",)),
        (b"chatgpt.com.", ()),
        (b"user@chatgpt.com", ()),
    ],
)
def test_in_http2_the_authority_must_be_there_and_agree_with_any_host_header(authority, host):
    head = changed(H2_POST, authority=authority, header=(b"host", *host))
    assert SCOPE.decide(head).status == 421


def test_in_http2_a_host_header_that_agrees_is_fine():
    assert isinstance(SCOPE.decide(changed(H2_POST, header=(b"host", b"chatgpt.com"))), Covered)


def test_the_port_of_an_origin_elsewhere_than_443_is_part_of_its_host():
    scope = Scope.of(["https://chatgpt.example:8443"])
    head = changed(POST, connect=Target("chatgpt.example", 8443), sni="chatgpt.example")
    assert isinstance(scope.decide(changed(head, header=(b"Host", b"chatgpt.example:8443"))), Covered)
    assert scope.decide(changed(head, header=(b"Host", b"chatgpt.example"))).status == 421


def test_the_rows_of_an_origin_hold_nowhere_else():
    on_realtime_host = changed(
        POST, connect=Target("api.openai.com", 443), sni="api.openai.com", header=(b"Host", b"api.openai.com")
    )
    assert SCOPE.decide(on_realtime_host) == Passes()
    on_origin = changed(SIDEBAND, connect=POST.connect, sni=POST.sni, header=(b"Host", b"chatgpt.com"))
    assert SCOPE.decide(on_origin) == Passes()


# R6: the path is compared as it is


@pytest.mark.parametrize(
    "path",
    [
        RESPONSES + b"/",
        b"/" + RESPONSES,
        RESPONSES + b"%2f",
        b"/backend-api%2Fcodex/responses",
        b"/backend-api/%2e%2e/backend-api/codex/responses",
        b"/backend-api/codex/%2e%2e/codex/responses",
        b"/backend-api/codex/./responses",
        b"/backend-api/codex/../codex/responses",
        b"/backend-api//codex/responses",
        b"/backend-api/codex/%72esponses",
        b"/backend-api/codex/%2572esponses",
        b"/backend-api/codex/responses;p",
        b"/backend-api;p=1/codex/responses",
        b"/backend-api/codex\\responses",
        b"/backend-api/codex%5cresponses",
        b"/Backend-API/codex/responses",
        b"/backend-api/codex/RESPONSES",
        b"/backend-api/codex/responses%20",
        b"/x/../backend-api/codex/responses/compact",
        b"/backend-api/codex/realtime/calls/",
    ],
)
@pytest.mark.parametrize("head", [POST, H2_POST, UPGRADE])
def test_another_spelling_of_a_scoped_path_is_refused(head, path):
    """Unstamped it would reach the same handler of a lenient upstream, past the count."""
    assert SCOPE.decide(at(head, path)) == Refused(400, SCOPE.decide(at(head, path)).reason)
    assert "another spelling" in SCOPE.decide(at(head, path)).reason


@pytest.mark.parametrize(
    "path",
    [
        RESPONSES + b"X",
        RESPONSES + b"/x",
        RESPONSES[:-1],
        RESPONSES + b"%00",
        RESPONSES + b"%3Fx",
        RESPONSES + b"/" + b"a" * 65536,
        b"/",
        b"/backend-api/codex/models",
        b"/backend-api/codex/realtime/call",
        b"/codex/responses",
        b"/?" + RESPONSES,
    ],
)
@pytest.mark.parametrize("head", [POST, H2_POST, UPGRADE])
def test_a_path_beside_the_scope_passes_without_a_stamp(head, path):
    assert SCOPE.decide(at(head, path)) == Passes()


@pytest.mark.parametrize(
    "target",
    [
        b"",
        b"*",
        b"chatgpt.com:443",
        b"https://chatgpt.com" + RESPONSES,
        RESPONSES + b"?x#y",
        RESPONSES + b"#",
        RESPONSES + b" ",
        b" " + RESPONSES,
        RESPONSES + b"\t",
        RESPONSES + b"\r\nX: y",
        RESPONSES + b"\n",
        RESPONSES + b"\x00",
        RESPONSES + b"\x7f",
        RESPONSES + b"?\xc3\xa9",
    ],
)
@pytest.mark.parametrize("head", [POST, H2_POST, UPGRADE])
def test_a_target_that_is_no_plain_path_is_refused(head, target):
    assert SCOPE.decide(at(head, target)).status == 400
