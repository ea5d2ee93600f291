"""What a scope looks at besides hosts and paths: heads, methods, upgrades, sidebands."""

import pytest

from proxy.scope import (
    DEFAULT_ALLOWED_HOSTS,
    RESPONSES_WEBSOCKET,
    Covered,
    Passes,
    Scope,
    Target,
    is_websocket_upgrade,
    normal_host,
    parse_origin,
)
from tests.proxy.heads import H2_POST, POST, RESPONSES, SIDEBAND, UPGRADE, changed
from tests.proxy.scope_heads import SCOPE, at

# R1, R2: what another parser could take apart differently


@pytest.mark.parametrize(
    "header",
    [
        (b"X", b"a\r\n x-oai-attestation: forged"),
        (b"X", b"a\rx-oai-attestation: forged"),
        (b"X", b"a\nx-oai-attestation: forged"),
        (b"X", b"a\x00b"),
        (b"X\r\nY", b"a"),
        (b"X Y", b"a"),
        (b"X:", b"a"),
        (b"", b"a"),
        (b"caf\xe9", b"a"),
    ],
)
@pytest.mark.parametrize("head", [POST, H2_POST, UPGRADE])
def test_a_header_that_could_be_read_as_two_is_refused(head, header):
    assert SCOPE.decide(changed(head, header=header)).status == 400


# R7: methods


@pytest.mark.parametrize(
    "method", [b"GET", b"PUT", b"HEAD", b"DELETE", b"PATCH", b"OPTIONS", b"post", b"Post", b"CONNECT", b"PRI"]
)
@pytest.mark.parametrize("head", [POST, H2_POST])
def test_another_method_passes_without_a_stamp(head, method):
    assert SCOPE.decide(changed(head, method=method)) == Passes()


@pytest.mark.parametrize("method", [b"", b"POST ", b" POST", b"POST\t", b"PO ST", b"POST\r\nX: y", b"P\xc3\x96ST"])
@pytest.mark.parametrize("head", [POST, H2_POST])
def test_a_method_that_is_no_token_is_refused(head, method):
    assert SCOPE.decide(changed(head, method=method)).status == 400


@pytest.mark.parametrize("name", [b"X-HTTP-Method-Override", b"X-HTTP-Method", b"x-method-override"])
@pytest.mark.parametrize("head", [POST, H2_POST])
def test_a_post_that_asks_to_be_another_method_passes_without_a_stamp(head, name):
    assert SCOPE.decide(changed(head, header=(name, b"GET"))) == Passes()


# R8: upgrades


@pytest.mark.parametrize(
    "header",
    [
        (b"Upgrade",),
        (b"Upgrade", b"h2c"),
        (b"Upgrade", b"websocket, h2c"),
        (b"Upgrade", b"websocket", b"h2c"),
        (b"Upgrade", b"websocket", b"websocket"),
        (b"Upgrade", b"websocket/13"),
        (b"Connection",),
        (b"Connection", b"close"),
        (b"Connection", b"keep-alive"),
        (b"Connection", b"close, Upgrade"),
        (b"Connection", b"Upgrade, HTTP2-Settings"),
        (b"Connection", b"Upgrade, Sec-WebSocket-Key"),
        (b"Connection", b"Upgrade,"),
        (b"Sec-WebSocket-Key",),
        (b"Sec-WebSocket-Key", b""),
        (b"Sec-WebSocket-Key", b"short"),
        (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="[:-4]),
        (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ==", b"dGhlIHNhbXBsZSBub25jZQ=="),
        (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=!="),
        (b"Sec-WebSocket-Version",),
        (b"Sec-WebSocket-Version", b"12"),
        (b"Sec-WebSocket-Version", b"13, 8"),
        (b"Sec-WebSocket-Version", b"13", b"13"),
        (b"Content-Length", b"5"),
        (b"Content-Length", b"0", b"5"),
        (b"Transfer-Encoding", b"chunked"),
    ],
)
def test_a_handshake_that_is_not_exactly_one_passes_without_a_stamp(header):
    assert SCOPE.decide(changed(UPGRADE, header=header)) == Passes()


@pytest.mark.parametrize(
    "header",
    [
        (b"Upgrade", b"WebSocket"),
        (b"Connection", b"keep-alive, upgrade"),
        (b"Connection", b"keep-alive", b"Upgrade"),
        (b"Content-Length", b"0"),
        (b"Sec-WebSocket-Extensions", b"permessage-deflate; client_max_window_bits"),
        (b"Sec-WebSocket-Protocol", b"responses"),
    ],
)
def test_the_spellings_that_clients_really_use_are_covered(header):
    assert SCOPE.decide(changed(UPGRADE, header=header)) == Covered(RESPONSES_WEBSOCKET)


def test_an_upgrade_by_another_method_or_over_http2_is_none():
    assert not is_websocket_upgrade(changed(UPGRADE, method=b"POST"))
    assert not is_websocket_upgrade(changed(UPGRADE, authority=b"chatgpt.com"))
    assert is_websocket_upgrade(UPGRADE)


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c"])
def test_a_post_that_asks_for_an_upgrade_passes_without_a_stamp(protocol):
    assert SCOPE.decide(changed(POST, header=(b"Upgrade", protocol))) == Passes()


def test_a_handshake_for_a_path_that_only_takes_posts_passes_without_a_stamp():
    assert SCOPE.decide(at(UPGRADE, RESPONSES + b"/compact")) == Passes()


# The sideband


@pytest.mark.parametrize(
    "query",
    [
        b"",
        b"?",
        b"?model=gpt-realtime",
        b"?call_id",
        b"?call_id=",
        b"?call_id=rtc_1&call_id=rtc_2",
        b"?call_id=rtc_1&call_id=rtc_1",
        b"?call_id=rtc_1;x",
        b"?call_id=../rtc_1",
        b"?call_id=" + b"r" * 201,
        b"?call_id=rtc%0a1",
        b"?&&call_id=rtc_1",
        b"?" + b"a=1&" * 40 + b"call_id=rtc_1",
    ],
)
def test_a_sideband_without_one_clear_call_id_passes_without_a_stamp(query):
    assert SCOPE.decide(at(SIDEBAND, b"/v1/realtime" + query)) == Passes()


def test_a_sideband_by_post_passes_without_a_stamp():
    assert SCOPE.decide(changed(SIDEBAND, method=b"POST")) == Passes()


# Hosts


@pytest.mark.parametrize(
    ("host", "normal"),
    [
        ("chatgpt.com", "chatgpt.com"),
        ("ChatGPT.com", "chatgpt.com"),
        ("xn--e1afmkfd.example", "xn--e1afmkfd.example"),
        ("_dmarc.example", "_dmarc.example"),
        ("1.2.3.4", "1.2.3.4"),
        ("[::1]", "::1"),
        ("[::FFFF:169.254.169.254]", "::ffff:169.254.169.254"),
        ("chatgpt.com.", None),
        ("localhost.", None),
        ("", None),
        (".", None),
        ("a..b", None),
        ("-a.example", None),
        ("a b", None),
        ("a\nb", None),
        ("chatgpt.com\n", None),
        ("a/b", None),
        ("user@chatgpt.com", None),
        ("chаtgpt.com", None),
        ("２１３.0.0.1", None),
        ("0x7f.1", None),
        ("0x7f000001", None),
        ("2130706433", None),
        ("127.1", None),
        ("0177.0.0.1", None),
        ("127.0.0.0x1", None),
        ("1.2.3.4.5", None),
        ("a" * 64 + ".example", None),
        (".".join(["a" * 60] * 5), None),
    ],
)
def test_a_host_has_one_spelling_or_none(host, normal):
    assert normal_host(host) == normal


@pytest.mark.parametrize(
    "target",
    [
        Target("chatgpt.com", 443),
        Target("api.openai.com", 443),
        Target("auth.openai.com", 443),
        Target("ab.chatgpt.com", 443),
        Target("api.github.com", 443),
    ],
)
def test_an_agent_reaches_what_it_needs(target):
    assert SCOPE.admits(target)


@pytest.mark.parametrize(
    "target",
    [
        Target("chatgpt.com", 22),
        Target("chatgpt.com", 80),
        Target("auth.openai.com", 8443),
        Target("evil.example", 443),
        Target("evilchatgpt.com", 443),
        Target("chatgpt.com.evil.example", 443),
        Target("openai.com", 443),
        Target("127.0.0.1", 443),
        Target("localhost", 443),
        Target("metadata.google.internal", 443),
    ],
)
def test_everything_else_is_not_admitted(target):
    assert not SCOPE.admits(target)


@pytest.mark.parametrize(
    ("pattern", "admitted", "kept_out"),
    [
        ("evil.example", Target("evil.example", 443), Target("a.evil.example", 443)),
        ("EVIL.example", Target("evil.example", 443), Target("evil.example", 80)),
        ("evil.example:8443", Target("evil.example", 8443), Target("evil.example", 443)),
        ("*.evil.example", Target("a.b.evil.example", 443), Target("evil.example", 443)),
        ("*.evil.example:22", Target("a.evil.example", 22), Target("aevil.example", 22)),
        ("*", Target("evil.example", 443), Target("evil.example", 80)),
    ],
)
def test_a_pattern_admits_what_it_says(pattern, admitted, kept_out):
    scope = Scope.of(allowed_hosts=[pattern])
    assert scope.admits(admitted) and not scope.admits(kept_out)
    assert not SCOPE.admits(admitted)


@pytest.mark.parametrize(
    "pattern", ["", "*.", "**", "a.*.b", "https://a.example", "a b", "a:0", "a:65536", "a:x", "a.", "*.*.b", "10.0.0/8"]
)
def test_a_malformed_pattern_is_refused_with_its_text(pattern):
    with pytest.raises(ValueError) as refusal:
        Scope.of(allowed_hosts=[pattern])
    assert repr(pattern) in str(refusal.value)


def test_what_is_intercepted_is_the_origins_and_the_realtime_host_and_nothing_that_is_merely_allowed():
    scope = Scope.of(["https://chatgpt.com", "https://gov.chatgpt.com", "https://chatgpt.com:443"])
    assert scope.intercepted == (
        Target("chatgpt.com", 443),
        Target("gov.chatgpt.com", 443),
        Target("api.openai.com", 443),
    )
    assert not scope.intercepts(Target("auth.openai.com", 443))
    assert "*.openai.com" in DEFAULT_ALLOWED_HOSTS


@pytest.mark.parametrize(
    ("origin", "target"),
    [
        ("https://chatgpt.com", Target("chatgpt.com", 443)),
        ("https://ChatGPT.com/", Target("chatgpt.com", 443)),
        ("https://chatgpt.example:8443", Target("chatgpt.example", 8443)),
    ],
)
def test_an_origin_is_a_host_and_a_port(origin, target):
    assert parse_origin(origin) == target


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "chatgpt.com",
        "http://chatgpt.com",
        "https://",
        "https://user:secret@chatgpt.com",
        "https://chatgpt.com/backend-api",
        "https://chatgpt.com?x",
        "https://chatgpt.com#x",
        "https://chatgpt.com.",
        "https://chatgpt.com:0",
        "https://chatgpt.com:65536",
        "https://chatgpt.com:x",
        "https://[::1",
        "https://2130706433",
        "https://127.0.0.1:8443",
        "https://[::1]",
    ],
)
def test_what_is_no_origin_is_refused_with_its_text(origin):
    with pytest.raises(ValueError) as refusal:
        Scope.of([origin])
    assert repr(origin) in str(refusal.value)


def test_a_scope_without_an_origin_is_refused():
    with pytest.raises(ValueError, match="at least one origin"):
        Scope.of([])
