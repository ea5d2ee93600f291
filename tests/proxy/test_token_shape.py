"""What is told of a token: its shape, never its content, also of one that was made to harm."""

import base64
import hashlib
import json

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.token_shape import (
    MAX_DEPTH,
    MAX_FIELDS,
    MAX_TOKEN_CHARACTERS,
    FieldMissing,
    Format,
    TokenShape,
    field_at,
    from_base64,
    split_version,
    token_shape,
)


def wrapped(raw, version="v1."):
    return version + base64.urlsafe_b64encode(raw).decode().rstrip("=")


def of_json(content):
    return token_shape(wrapped(json.dumps(content).encode()))


def of_cbor(content):
    return token_shape(wrapped(cbor2.dumps(content)))


def rows(shape):
    return [(one.path, one.type, one.length) for one in shape.best.fields]


def fitting(shape):
    return [guess.format for guess in shape.guesses if guess.fits]


CONTENT = {"bundleId": "com.example.app", "device": {"token": "QUJD", "n": 1.5, "list": [True, None, 7]}}


@pytest.mark.parametrize(("make", "format_"), [(of_json, Format.JSON), (of_cbor, Format.CBOR)])
def test_a_structure_is_told_by_paths_types_and_lengths(make, format_):
    shape = make(CONTENT)
    assert shape.best.format is format_ and shape.version == "v1"
    assert rows(shape) == [
        (".", "object", 2),
        ("bundleId", "string", 15),
        ("device", "object", 3),
        ("device.token", "string", 4),
        ("device.n", "number", None),
        ("device.list", "array", 3),
        ("device.list.0", "boolean", None),
        ("device.list.1", "null", None),
        ("device.list.2", "integer", None),
    ]


def test_other_bytes_are_told_by_their_length_and_digest():
    raw = bytes(range(200, 240))
    shape = token_shape(base64.b64encode(raw).decode())
    assert fitting(shape) == [Format.RAW] and shape.version is None
    (field,) = shape.best.fields
    assert (field.type, field.length, field.sha256) == ("bytes", 40, hashlib.sha256(raw).hexdigest()[:12])


def test_the_upstream_test_value_is_not_taken_for_a_structure():
    """`integration-test` happens to be good base64url."""
    assert fitting(token_shape("v1.integration-test")) == [Format.RAW]


def test_a_digest_is_kept_from_what_could_be_guessed_by_it():
    short, long = of_json({"a": "x" * 15, "b": "x" * 16}).best.fields[1:]
    assert short.sha256 is None and long.sha256 == hashlib.sha256(b"x" * 16).hexdigest()[:12]
    assert token_shape("v1.short").sha256 is None


def test_no_value_is_in_what_is_told():
    secret = "canary/canary/canary"
    shape = of_json({"a": secret, "n": 4711081547110815, secret: 1, "b": [secret]})
    assert "canary" not in repr(shape) and "4711" not in repr(shape)
    assert secret in shape.best.content.values()  # for --reveal only


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("device_token-2", "device_token-2"),
        ("3f2c8a51-7d1e-4c02-9c55-0a9b8e7d6c5b", "<36 characters>"),
        ("a" * 33, "<33 characters>"),
        ("key12345", "<8 characters>"),
        ("a.b", "<3 characters>"),
        ("\x1b[31m", "<5 characters>"),
        ("", "<0 characters>"),
    ],
)
def test_a_name_that_may_be_an_identifier_is_not_shown(name, shown):
    assert of_json({name: 1}).best.fields[1].path == shown


def test_names_that_only_cbor_has_are_shown_by_their_type():
    paths = [one.path for one in of_cbor({1: 0, 47110815: 0, -2: 0, b"k": 0, 1.5: 0, None: 0, (1,): 0}).best.fields]
    assert paths == [".", "1", "<integer>", "-2", "<bytes>", "<number>", "<null>", "<array>"]


@pytest.mark.parametrize(
    ("text", "looks_like"),
    [
        ("3f2c8a51-7d1e-4c02-9c55-0a9b8e7d6c5b", "UUID"),
        ("deadbeef" * 4, "hexadecimal"),
        ("eyJhbGciOiJub25lIn0.eyJhIjoxfQ.", "JWT"),
        (base64.b64encode(b"\x02\x00\x00\x00" * 6).decode(), "base64 of 24 bytes"),
        (base64.b64encode(b"\xfb\xff" * 12).decode().replace("+", "-").replace("/", "_"), "base64url of 24 bytes"),
        (base64.b64encode(b"\x1f\x8b" * 12).decode(), "base64 of 24 bytes, gzip"),
        ("com.example.application", None),
        ("short", None),
    ],
)
def test_a_text_is_told_what_it_looks_like(text, looks_like):
    assert of_json({"a": text}).best.fields[1].looks_like == looks_like


@pytest.mark.parametrize(
    ("payload", "why_not"),
    [
        ("not base64!", "it is not base64"),
        ("", "it is not base64"),
        ("mixed+_", "it is not base64"),
        ("A", "it is not base64"),
        ("QQ=", "it is not base64"),
        ("Q\nQ=", "it is not base64"),
        ("A" * MAX_TOKEN_CHARACTERS, "it is longer than 65536 characters, and was not looked into"),
    ],
)
def test_what_is_no_base64_or_too_long_is_not_looked_into(payload, why_not):
    shape = token_shape(f"v1.{payload}")
    assert [guess.why_not for guess in shape.guesses] == [why_not] * 3 and shape.best is None


@pytest.mark.parametrize(
    ("raw", "why_not"),
    [
        (b'{"a":1,"a":2}', "names a member twice"),
        (b'"text"', "one single value"),
        (b"[" * 40000, "nested deeper"),
        (b"[" * 33 + b"1" + b"]" * 33, "nested deeper"),
        (b"[" + b"9" * 5000 + b"]", "no JSON text"),
        (b"\xff\xfe[\x00", "no JSON text"),
    ],
)
def test_json_that_cannot_be_told_says_why(raw, why_not):
    assert why_not in token_shape(wrapped(raw)).guesses[0].why_not


@pytest.mark.parametrize(
    ("raw", "why_not"),
    [
        (b"\x02\x00\x00\x00", "bytes are left over"),  # as the tokens of Apple begin
        (b"\x81\x00\x00", "bytes are left over"),
        (b"\x05", "one single value"),
        (b"\xc1\x05", "one single value"),  # a date
        (b"\x81" * 40000 + b"\x00", "no CBOR"),
        (b"\xc6" * 40000 + b"\x00", "no CBOR"),
        (bytes.fromhex("9b00000000ffffffff"), "no CBOR"),
        (bytes.fromhex("5b7fffffffffffffff"), "no CBOR"),
        (bytes.fromhex("a201020103"), "names a member twice"),
    ],
)
def test_cbor_that_cannot_be_told_says_why(raw, why_not):
    assert why_not in token_shape(wrapped(raw)).guesses[1].why_not


def test_thirty_two_levels_are_told_and_one_more_is_not():
    def deep(levels):
        content = 1
        for _ in range(levels):
            content = [content]
        return content

    assert of_json(deep(MAX_DEPTH)).best.format is Format.JSON
    assert of_json(deep(MAX_DEPTH + 1)).best.format is Format.RAW
    assert of_cbor(deep(MAX_DEPTH + 1)).best.format is Format.RAW


def test_many_fields_are_cut_and_said_to_be():
    assert of_json([0] * (MAX_FIELDS - 1)).best.is_cut is False
    shape = of_json([0] * MAX_FIELDS)
    assert len(shape.best.fields) == MAX_FIELDS and shape.best.is_cut


@pytest.mark.parametrize(
    "tagged",
    [
        cbor2.CBORTag(35, "(a{1,9999}){1,9999}" * 2000),  # a regular expression, which cbor2 compiles
        cbor2.CBORTag(36, "Content-Type: text/plain\n\nx"),  # an e-mail, which it parses
        cbor2.CBORTag(4, [2**40, 3]),  # a number of a million million digits
        cbor2.CBORTag(2, b"\xff" * 40000),  # another
        cbor2.CBORTag(1, 1e300),
        cbor2.CBORTag(258, [1, 1]),
    ],
)
def test_a_tag_is_named_and_not_acted_upon(tagged):
    shape = of_cbor([tagged])
    assert shape.best.format is Format.CBOR
    assert shape.best.fields[1].type.startswith(f"tag {tagged.tag} of ")
    # The negative control: cbor2 itself does act.
    try:
        (acted,) = cbor2.loads(cbor2.dumps([tagged]))
    except (ValueError, cbor2.CBORError):
        acted = None
    assert not isinstance(acted, cbor2.CBORTag)


def test_shared_references_make_no_structure_that_has_no_end():
    """Each level of it holds the one before twice: 2^31 fields, in some hundred bytes."""
    raw = b"\x98\x20" + b"\xd8\x1c\x82\x01\x02"
    for number in range(31):
        raw += b"\xd8\x1c\x82" + (b"\xd8\x1d" + cbor2.dumps(number)) * 2
    shape = token_shape(wrapped(raw))
    assert shape.best.format is Format.CBOR and not shape.best.is_cut
    assert {one.type for one in shape.best.fields} == {
        "array", "tag 28 of array", "tag 29 of integer", "integer",
    }  # fmt: skip
    itself = token_shape(wrapped(bytes.fromhex("81d81c81d81d00")))
    assert len(itself.best.fields) == 3


@given(st.text() | st.text("v1.AZaz09-_+/={}", max_size=60))
def test_any_text_has_a_shape(text):
    shape = token_shape(text)
    assert isinstance(shape, TokenShape) and len(shape.guesses) == 3


@given(st.binary(max_size=400))
def test_any_bytes_have_a_shape_and_the_raw_guess_fits(raw):
    shape = token_shape(wrapped(raw + b"x"))
    assert shape.best is not None and shape.guesses[-1].content == raw + b"x"


@pytest.mark.parametrize(
    "raw", [b"[" + b"0," * 20000 + b"0]", b"\x99\x9c\x40" + b"\x00" * 40000, b'{"' + b"a" * 40000 + b'":1}']
)
def test_a_token_of_almost_the_greatest_length_is_told(raw):
    assert token_shape(wrapped(raw)).best.format is not Format.RAW


def test_half_a_character_is_no_trouble():
    """JSON can hold one; UTF-8 cannot."""
    assert token_shape("v1.\ud800").best is None
    assert token_shape(wrapped(b'["' + b"\\ud800" * 20 + b'"]')).best.fields[1].length == 20


@pytest.mark.parametrize(
    ("token", "parts"),
    [
        ("v1.abc", ("v1", "abc")),
        ("v12.a.b", ("v12", "a.b")),
        ("abc", (None, "abc")),
        ("v.abc", (None, "v.abc")),
        ("xv1.abc", (None, "xv1.abc")),
        ("v1234.a", (None, "v1234.a")),
    ],
)
def test_the_version_is_what_stands_before_the_first_dot(token, parts):
    assert split_version(token) == parts


@given(st.binary(min_size=1))
def test_base64_of_both_alphabets_is_read_with_and_without_padding(raw):
    for text in (base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()):
        assert from_base64(text) == from_base64(text.rstrip("=")) == raw


def test_a_field_is_reached_by_the_path_that_is_shown():
    content = of_cbor({"a": {"b": [b"x", {1: cbor2.CBORTag(24, "y")}]}}).best.content
    assert field_at(content, "a.b.0") == b"x"
    assert field_at(content, "a.b.1.1") == "y"
    assert field_at(content, ".") is content


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("canary", "part 1 of 1 of the path is not there, in a value of type 'object'"),
        ("a.canary.c", "part 2 of 3 of the path is not there, in a value of type 'string'"),
        ("", "part 1 of 1"),
        ("a.", "part 2 of 2"),
    ],
)
def test_a_path_that_leads_nowhere_says_where_it_ends_without_quoting(path, problem):
    with pytest.raises(FieldMissing) as caught:
        field_at({"a": "value"}, path)
    assert problem in str(caught.value) and "canary" not in str(caught.value)
