"""Who decides: over all policies, modes and wishes, and what counts as a command that was allowed before."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.approval import Verdict, decide_command, decide_patch, plain_words, proposed_amendment

GRANULAR, STRICT = {"granular": {"sandbox_approval": True}}, {"granular": {"sandbox_approval": False}}
POLICIES = ["untrusted", "on-request", "never", GRANULAR, STRICT, {"granular": {}}, "unheard-of"]
CONFINED = ["read-only", "workspace-write", "unknown"]
OPEN = ["danger-full-access", "external-sandbox"]


def verdict(policy, mode, *, escalated, words=("true",), allowed=()):
    return decide_command(policy, mode, escalated=escalated, words=words, allowed=allowed).verdict


@pytest.mark.parametrize(("policy", "mode"), list(itertools.product(POLICIES, CONFINED)))
def test_nothing_leaves_the_sandbox_without_a_yes(policy, mode):
    verdicts = {verdict(policy, mode, escalated=escalated) for escalated in (True, False)}
    assert Verdict.RUN_FREE not in verdicts
    assert decide_patch(policy, inside=False, allowed=False).verdict in (Verdict.ASK_FREE, Verdict.REFUSE)


def test_what_was_allowed_leaves_the_sandbox_if_it_wants_to():
    """The control of the test above: the same question, one yes before it."""
    yes = {("true",)}
    assert verdict("on-request", "read-only", escalated=True, allowed=yes) is Verdict.RUN_FREE
    assert verdict("on-request", "read-only", escalated=False, allowed=yes) is Verdict.RUN
    assert decide_patch("on-request", inside=False, allowed=True).verdict is Verdict.RUN_FREE


@pytest.mark.parametrize(
    ("policy", "escalated", "expected"),
    [
        ("untrusted", False, Verdict.ASK),
        ("untrusted", True, Verdict.ASK_FREE),
        ("on-request", False, Verdict.RUN),
        ("on-request", True, Verdict.ASK_FREE),
        ("never", False, Verdict.RUN),
        ("never", True, Verdict.REFUSE),
        (GRANULAR, False, Verdict.RUN),
        (GRANULAR, True, Verdict.ASK_FREE),
        (STRICT, True, Verdict.REFUSE),
        ({"granular": {}}, True, Verdict.REFUSE),
    ],
    ids=str,
)
@pytest.mark.parametrize("mode", CONFINED)
def test_a_policy_decides_of_a_confined_command(policy, escalated, expected, mode):
    assert verdict(policy, mode, escalated=escalated) is expected


@pytest.mark.parametrize("mode", OPEN)
@pytest.mark.parametrize("escalated", [True, False])
def test_where_nothing_is_confined_only_untrusted_asks(mode, escalated):
    assert verdict("untrusted", mode, escalated=escalated) is Verdict.ASK
    assert verdict("never", mode, escalated=escalated) is Verdict.RUN


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_a_patch_within_the_sandbox_is_asked_for_by_untrusted_alone(policy):
    expected = Verdict.ASK_FREE if policy == "untrusted" else Verdict.RUN
    assert decide_patch(policy, inside=True, allowed=False).verdict is expected


def test_a_refusal_says_why():
    decision = decide_command("never", "read-only", escalated=True, words=("true",), allowed=())
    assert "never" in decision.reason


def test_only_the_beginning_that_was_allowed_is():
    allowed = {("git", "status")}
    for words in (("git", "status"), ("git", "status", "-s")):
        assert verdict("untrusted", "read-only", escalated=True, words=words, allowed=allowed) is Verdict.RUN_FREE
    for words in (("git",), ("git", "push"), ("git status",), ()):
        assert verdict("untrusted", "read-only", escalated=True, words=words, allowed=allowed) is Verdict.ASK_FREE


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("git status", ("git", "status")),
        ("  git\tstatus ", ("git", "status")),
        ('python3 -c "print(1)"', ("python3", "-c", "print(1)")),
        ("echo 'a b'c", ("echo", "a bc")),
        ("echo ''", ("echo", "")),
    ],
)
def test_a_plain_command_is_its_words(script, words):
    assert plain_words(script) == words


@pytest.mark.parametrize(
    "script",
    [
        *("a; b", "a && b", "a | b", "a & b", "a > b", "a < b", "a $b", "a `b`", "a (b)", "a *", "a ?", "a [b]"),
        *("a\nb", "a\rb", "a\\ b", "A=b c", "~/a", "a {b,c}", "! a", "a # b", "a\x00b", "a\u2028b", "a\u00a0b"),
        *("a 'b", 'a "b', 'a "$b"', 'a "`b`"', 'a "\\$"', "", " ", "''", "'a; b' c", "'a b' c"),
        # Once read with a quoted separator, which was thought to cover the bare one that follows.
        "git status ';touch x' '' '';touch x''",
        'git status ";touch x" "" "";touch x""',
    ],
)
def test_what_a_shell_would_read_otherwise_is_one_word_and_never_a_known_beginning(script):
    assert plain_words(script) == (script,)


@given(st.text("ab ;'\"|&$\n#", max_size=20))
def test_a_separator_outside_of_quotes_is_never_plain(script):
    if plain_words(script) == (script,):
        return
    quote = None
    for letter in script:
        if quote is not None:
            quote = None if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        else:
            assert letter in "ab "
    assert quote is None


def test_of_a_chain_its_first_command_is_proposed():
    assert proposed_amendment("git status && rm x") == ["git", "status"]
    assert proposed_amendment("true") == ["true"]
