import hashlib

import pytest

from agent.rpc.method_names import EXPERIMENTAL_METHODS, METHOD_NAMES
from agent.rpc.serde_text import invalid_type, missing_field, unknown_variant


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (None, "null"),
        (True, "boolean `true`"),
        (False, "boolean `false`"),
        (5, "integer `5`"),
        (-7, "integer `-7`"),
        (1.5, "floating point `1.5`"),
        ("x", 'string "x"'),
        ([], "sequence"),
        ({}, "map"),
    ],
)
def test_what_was_found_is_named_as_serde_names_it(value, found):
    assert invalid_type(value, "a string") == f"invalid type: {found}, expected a string"


def test_the_texts_are_those_that_the_original_was_seen_to_send():
    assert missing_field("clientInfo") == "missing field `clientInfo`"
    assert invalid_type(5, "a string") == "invalid type: integer `5`, expected a string"
    assert (
        unknown_variant("bogus", ["untrusted", "on-request", "granular", "never"])
        == "unknown variant `bogus`, expected one of `untrusted`, `on-request`, `granular`, `never`"
    )


def test_one_or_two_variants_are_not_called_one_of():
    assert unknown_variant("x", ["a"]) == "unknown variant `x`, expected `a`"
    assert unknown_variant("x", ["a", "b"]) == "unknown variant `x`, expected `a` or `b`"
    assert unknown_variant("x", ["a", "b", "c"]) == "unknown variant `x`, expected one of `a`, `b`, `c`"


def test_an_unknown_method_is_answered_with_the_very_bytes_of_the_original():
    """The golden transcript keeps the length and the start of the SHA-256 of this text."""
    text = f"Invalid request: {unknown_variant('no/such/method', METHOD_NAMES)}"
    assert len(text) == 4444
    assert hashlib.sha256(text.encode()).hexdigest().startswith("bb8d4032a0a6")


def test_every_experimental_method_is_a_method():
    assert set(METHOD_NAMES) >= EXPERIMENTAL_METHODS
    assert len(set(METHOD_NAMES)) == len(METHOD_NAMES)
