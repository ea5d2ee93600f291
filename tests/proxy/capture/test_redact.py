"""What of a header may be kept: known harmless values, and of all others a mark that only tells equal ones."""

import pytest

from proxy.capture.redact import MAX_VALUE_BYTES, SHOWN, Redactor

KEY = bytes(32)


def shown(name, value, key=KEY):
    ((_, text),) = Redactor(key).headers([(name.encode(), value.encode("latin-1"))])
    return text


@pytest.mark.parametrize(
    "name",
    [
        "x-oai-attestation",
        "Authorization",
        "cookie",
        "Set-Cookie",
        "chatgpt-account-id",
        "x-new-header",
        "Proxy-Authorization",
        "Sec-WebSocket-Protocol",  # browsers, which can set no other header there, put API keys into it
    ],
)
def test_a_value_that_is_not_known_to_be_harmless_is_not_shown(name):
    assert "canary" not in shown(name, "canary-1234")
    assert "canary" not in shown(name, "Bearer canary-1234")


def test_equal_secrets_have_equal_marks_and_others_do_not():
    assert shown("cookie", "a") == shown("x-cookie", "a") != shown("cookie", "b")
    assert shown("cookie", "a") != shown("cookie", "a", bytes([1] * 32))


def test_harmless_headers_are_shown_as_they_are():
    assert shown("User-Agent", "codex/1") == "codex/1"
    assert shown(":authority", "chatgpt.com") == "chatgpt.com"


def test_no_name_was_cut_in_two():
    assert [name for name in SHOWN if name.startswith("-") or name.endswith("-")] == []
    assert shown("Sec-WebSocket-Extensions", "permessage-deflate") == "permessage-deflate"


def test_of_an_envelope_the_status_is_shown_and_the_token_is_not():
    text = shown("X-OAI-Attestation", '{"v":1,"s":0,"t":"v1.canary"}')
    assert text.startswith('{"v":1,"s":0,"t":"[redacted 9 bytes #')
    assert shown("x-oai-attestation", '{"v":1,"s":2}') == '{"v":1,"s":2}'
    assert "v" not in shown("x-oai-attestation", "v1.canary").replace("redacted", "")


def test_a_query_is_not_shown():
    assert shown("location", "https://a/b?code=canary").startswith("https://a/b?[redacted ")
    assert shown(":path", "/a?code=canary").startswith("/a?[redacted ")


@pytest.mark.parametrize(
    "address",
    [
        "https://a/b#access_token=canary",
        "https://me:canary@a/b",
        "//canary@a",
        "https:canary@a",
        "/b#?canary",
        "/b?#canary",
    ],
)
def test_of_an_address_neither_the_fragment_nor_credentials_are_shown(address):
    for name in ("Location", "Referer", "Origin", ":path"):
        assert "canary" not in shown(name, address)


def test_an_address_without_secrets_is_shown_whole():
    assert shown("Location", "https://a:8443/@scope/b:c") == "https://a:8443/@scope/b:c"


def test_a_folded_line_is_not_shown():
    """A Host header with a second line held the credentials of that line."""
    for name in ("Host", "Referer"):
        assert "canary" not in shown(name, "a\r\n Authorization: Bearer canary")
        assert "canary" not in shown(name, "a\n Authorization: Bearer canary")


def test_what_could_steer_a_terminal_is_escaped():
    assert shown("user-agent", "a\x1b[2Jb\xff") == "a\\x1b[2Jb\\xff"


def test_a_value_of_any_length_is_bounded():
    assert len(shown("user-agent", "x" * (MAX_VALUE_BYTES + 1))) < 100


def test_the_key_is_not_in_the_repr():
    assert repr(Redactor(b"k" * 32)) == "Redactor(...)"


def test_what_is_remembered_from_request_to_request_is_shown_alike_bounded_and_no_secret():
    redactor = Redactor(KEY)
    fields = [(b"Server", b"nginx"), (b"Authorization", b"Bearer canary"), (b"Host", b"a\r\nCookie: canary")]
    assert redactor.headers(fields) == redactor.headers(fields) == Redactor(KEY).headers(fields)
    for number in range(5000):
        redactor.headers([(b"x-request-id", b"%d" % number)])
    remembered = str(vars(redactor))
    assert "x-request-id" in remembered and "canary" not in remembered and len(remembered) < 100_000
