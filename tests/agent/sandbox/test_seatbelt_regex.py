"""Names and deny patterns as regular expressions of SBPL, matched by the evaluator's stand-in for Apple's matcher."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.sandbox.globs import to_regex
from agent.sandbox.paths import split_pattern
from agent.sandbox.seatbelt_regex import escaped, glob_regex, name_regex
from tests.agent.sandbox.sbpl import Regex, compiled


@given(st.text(), st.text())
def test_an_escaped_text_matches_itself_and_ends_no_literal(text, other):
    assert '"' not in escaped(text)
    matcher = compiled(Regex(f"^{escaped(text)}$"))
    assert matcher.search(text)
    assert bool(matcher.search(other)) == (other == text) or '"' in text


@given(st.text(st.characters(exclude_characters="/\0"), min_size=1))
def test_a_name_matches_in_any_case_of_ascii_and_whatever_is_below(name):
    matcher = compiled(Regex(name_regex(f"/w/{name}")))
    swapped = "".join(c.swapcase() if c.isascii() else c for c in name)
    for path in (f"/w/{name}", f"/w/{swapped}", f"/w/{name}/a\nb"):
        assert matcher.search(path), path
    assert not matcher.search(f"/w/x{name}/") or name == "x" * len(name)
    assert not matcher.search(f"/v/w/{name}")


@pytest.mark.parametrize(
    ("pattern", "regex"),
    [
        ("/w/*.env", r"^/w/[^/]*\.env$"),
        ("/w/**/*.env", r"^/w/(.*/)?[^/]*\.env$"),
        ("/w/**", "^/w/.*$"),
        ("/w/a**b", "^/w/a.*b$"),
        ("/w/a?", "^/w/a[^/]$"),
        ("/w/[ab]", "^/w/[ab]$"),
        ("/w/[!a-c]x", "^/w/[^a-c]x$"),
        ("/w/[^a]", "^/w/.$"),
        ("/w/[z-a]", "^/w/.$"),
        ("/w/[]a]", "^/w/.$"),
        ("/w/[a", r"^/w/\[a$"),
        ("/w/a]", r"^/w/a\]$"),
        ("/w/plain", "^/w/plain(/.*)?$"),
        ("/w/*.{pem,key}", r"^/w/[^/]*\.(pem|key)$"),
        ("/w/{a", r"^/w/\{a(/.*)?$"),
        (r"/w/\*", r"^/w/\*(/.*)?$"),
        ('/w/"*', "^/w/[!-#][^/]*$"),
    ],
)
def test_a_pattern_is_translated_as_facts_13_says(pattern, regex):
    assert glob_regex(*split_pattern(pattern)) == regex
    compiled(Regex(regex))


# Python's `re` warns of classes that may come to mean more, e.g. `[+--]`; `globs` hands them on.
@pytest.mark.filterwarnings("ignore:Possible (set|nested):FutureWarning")
@settings(max_examples=500)
@given(st.text('ab*?[]!^-{},.\\"', min_size=1, max_size=8), st.text('ab/.!^-"', max_size=8))
def test_what_a_pattern_denies_on_linux_it_denies_on_macos(pattern, name):
    try:
        linux = re.compile(to_regex(pattern), re.DOTALL)
    except ValueError:
        return  # no pattern
    except re.PatternError:
        return  # a range from z to a
    if linux.fullmatch(name):
        assert compiled(Regex(glob_regex("/w", pattern))).search(f"/w/{name}")
