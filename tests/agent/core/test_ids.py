"""UUIDv7 as RFC 9562 5.7 lays it out."""

import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.ids import parse_uuid, uuid7
from agent.core.session import Core
from agent.core.store import Store
from agent.core.surroundings import ModelFacts
from agent.core.tooling import NoTools

MILLISECONDS = st.integers(0, 2**48 - 1)
RANDOM = st.binary(min_size=10, max_size=10)


@given(MILLISECONDS, RANDOM)
def test_version_variant_and_time_are_where_the_rfc_puts_them(unix_ms, random):
    value = uuid.UUID(uuid7(unix_ms, random))

    assert value.version == 7
    assert value.variant == uuid.RFC_4122
    assert value.int >> 80 == unix_ms


@given(MILLISECONDS, RANDOM)
def test_all_random_bits_but_version_and_variant_are_kept(unix_ms, random):
    low_80 = uuid.UUID(uuid7(unix_ms, random)).int & (1 << 80) - 1
    free = ~(0xF << 76 | 0x3 << 62) & (1 << 80) - 1

    assert low_80 & free == int.from_bytes(random) & free


@given(MILLISECONDS, MILLISECONDS, RANDOM, RANDOM)
def test_ids_sort_by_their_time(early, late, first, second):
    if early > late:
        early, late = late, early
    if early < late:
        assert uuid7(early, first) < uuid7(late, second)


def test_the_example_of_the_rfc():
    """RFC 9562, A.6."""
    random = (0xCC3 << 64 | 0b10 << 62 | 0x18C4DC0C0C07398F).to_bytes(10)

    assert uuid7(0x017F22E279B0, random) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


def test_the_ids_of_a_core_are_uuid7_of_now_and_never_the_same():
    def unused(*_):
        raise AssertionError

    facts = ModelFacts("low", 1)
    core = Core(
        open_session=unused, facts=lambda _: facts, publish=unused, installation_id="installation",
        ask=unused, tools=NoTools(), store=Store(Path("nowhere")),
    )  # fmt: skip
    ids = [core.new_id() for _ in range(1000)]

    assert len(set(ids)) == 1000
    assert {uuid.UUID(one).version for one in ids} == {7}
    assert uuid.UUID(ids[0]).int >> 80 <= uuid.UUID(ids[-1]).int >> 80


# Spellings of a UUID (the errors: observed of codex 0.169.0)

USUAL = "01990000-0000-7000-8000-00000000000a"


@pytest.mark.parametrize(
    "spelling",
    [
        USUAL,
        USUAL.upper(),
        USUAL.replace("-", ""),
        f"{{{USUAL}}}",
        f"urn:uuid:{USUAL}",
    ],
)
def test_all_spellings_of_a_uuid_are_the_usual_one(spelling):
    assert parse_uuid(spelling) == USUAL


EXPECTED = "expected an optional prefix of `urn:uuid:` followed by [0-9a-fA-F-]"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nope", f"invalid character: {EXPECTED}, found `n` at 1"),
        ("a \xe9", f"invalid character: {EXPECTED}, found ` ` at 2"),
        (USUAL[:-1] + "g", f"invalid character: {EXPECTED}, found `g` at 36"),
        ("{zz}", f"invalid character: {EXPECTED}, found `z` at 2"),
        ("urn:uuid:zz", f"invalid character: {EXPECTED}, found `z` at 10"),
        (f"URN:UUID:{USUAL}", f"invalid character: {EXPECTED}, found `U` at 1"),
        ("", "invalid length: expected length 32 for simple format, found 0"),
        ("0199", "invalid length: expected length 32 for simple format, found 4"),
        ("0199-", "invalid group count: expected 5, found 2"),
        ("a-b-c-d-e-f", "invalid group count: expected 5, found 6"),
        ("{}", "invalid group count: expected 5, found 1"),
        (f"{{{USUAL.replace('-', '')}}}", "invalid group count: expected 5, found 1"),
        ("a-b-c-d-e", "invalid group length in group 0: expected 8, found 1"),
        ("01990000-0000-7000-800-0000000000000", "invalid group length in group 3: expected 4, found 3"),
        (USUAL + "0", "invalid group length in group 4: expected 12, found 13"),
        ("\u0661" * 32, f"invalid character: {EXPECTED}, found `\u0661` at 1"),
    ],
)
def test_what_is_no_uuid_says_why_in_the_words_of_the_original(text, reason):
    with pytest.raises(ValueError) as refusal:
        parse_uuid(text)
    assert str(refusal.value) == reason
