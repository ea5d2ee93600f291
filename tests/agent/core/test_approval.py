"""Who decides: over all policies, modes and wishes, and what counts as a command that was allowed before."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.approval import (
    Verdict,
    command_words,
    decide_command,
    decide_patch,
    plain_words,
    proposed_amendment,
)
from agent.core.danger import removes_by_force
from agent.core.rules import Rule, Ruling

GRANULAR, STRICT = {"granular": {"sandbox_approval": True}}, {"granular": {"sandbox_approval": False}}
POLICIES = ["untrusted", "on-request", "never", GRANULAR, STRICT, {"granular": {}}, "unheard-of"]
CONFINED = ["read-only", "workspace-write", "unknown"]
OPEN = ["danger-full-access", "external-sandbox"]


def verdict(policy, mode, *, escalated, rule=None):
    return decide_command(policy, mode, escalated=escalated, rule=rule).verdict


@pytest.mark.parametrize(("policy", "mode"), list(itertools.product(POLICIES, CONFINED)))
def test_nothing_leaves_the_sandbox_without_a_yes(policy, mode):
    verdicts = {verdict(policy, mode, escalated=escalated) for escalated in (True, False)}
    assert Verdict.RUN_FREE not in verdicts
    assert decide_patch(policy, inside=False).verdict in (Verdict.ASK_FREE, Verdict.REFUSE)


def test_what_was_allowed_leaves_the_sandbox_if_it_wants_to():
    """The control of the test above: the same question, one yes before it."""
    yes = Rule((frozenset(("true",)),), Ruling.ALLOW)
    assert verdict("on-request", "read-only", escalated=True, rule=yes) is Verdict.RUN_FREE
    assert verdict("on-request", "read-only", escalated=False, rule=yes) is Verdict.RUN


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
    expected = Verdict.ASK if policy == "untrusted" else Verdict.RUN
    assert decide_patch(policy, inside=True).verdict is expected


def test_a_refusal_says_why():
    decision = decide_command("never", "read-only", escalated=True)
    assert decision.reason.startswith("approval policy is Never; reject command") and decision.is_whole
    strict = {"granular": {"sandbox_approval": False, "rules": True}}
    decision = decide_command(strict, "read-only", escalated=True)
    told = "Granular(GranularApprovalConfig { sandbox_approval: false, rules: true, skill_approval: false, "
    assert told in decision.reason


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


ARGV = ("/bin/bash", "-lc", "all of it")


@pytest.mark.parametrize(
    ("script", "wanted", "proposed"),
    [
        ("git status && rm x", (), ["git", "status"]),
        ("ls && pwd", (), ["ls"]),
        ("echo a && rm -rf x", (), ["rm", "-rf", "x"]),
        ("if true; then rm -f x; fi", (), list(ARGV)),
        ("touch a | wc", (), ["touch", "a"]),
        ("true", (), ["true"]),
        ("touch 'a b'", (), ["touch", "a b"]),
        ("npm install x", ("npm", "install"), ["npm", "install"]),
        ("touch a", ("git",), ["touch", "a"]),
        # Such programs do whatever they are told.
        ("git status", ("git",), ["git", "status"]),
        ("/bin/bash x.sh", ("/bin/bash",), ["/bin/bash", "x.sh"]),
        ("python3 -c 1", ("python3", "-c"), ["python3", "-c", "1"]),
        ("sudo -n env bash -c 1", ("sudo", "-n", "env", "bash", "-c"), ["sudo", "-n", "env", "bash", "-c", "1"]),
        ("python3 -m pytest a", ("python3", "-m", "pytest"), ["python3", "-m", "pytest"]),
        *((script, (), list(ARGV)) for script in ("echo $HOME", "A=1 b", "(rm -rf x)", "a > b", "ls; a > b")),
    ],
)
def test_what_is_proposed_to_be_allowed_for_good(script, wanted, proposed):
    """Compared with codex-cli 0.169.0."""
    assert proposed_amendment(script, ARGV, wanted) == proposed


def test_of_more_than_one_plain_command_all_that_is_run_is_what_can_be_allowed():
    assert command_words("ls", ARGV) == ("ls",)
    assert command_words("ls; rm x", ARGV) == command_words("ls > x", ARGV) == ARGV


@pytest.mark.parametrize(
    ("policy", "expected", "can_amend"),
    [
        ("on-request", Verdict.ASK, True),
        ("untrusted", Verdict.ASK, True),
        (GRANULAR, Verdict.ASK, True),
        (STRICT, Verdict.ASK, False),
        ("never", Verdict.REFUSE, True),
    ],
    ids=str,
)
@pytest.mark.parametrize("mode", [*CONFINED, *OPEN])
def test_what_removes_by_force_is_asked_about_wherever_it_runs(policy, expected, can_amend, mode):
    """It ran without a word, also where nothing confines it and where the policy is never."""
    more = {"escalated": False, "shown": "rm -rf x"}
    decision = decide_command(policy, mode, dangerous=True, **more)
    assert (decision.verdict, decision.can_amend) == (expected, can_amend)
    if policy == "never":
        assert decision.reason.startswith("`rm -rf x` rejected: rm -f style commands are not permitted")
    # The controls: what was allowed before, and what does no harm.
    yes = Rule((frozenset(("rm",)),), Ruling.ALLOW)
    allowed = decide_command(policy, mode, rule=yes, dangerous=True, **more)
    assert allowed.verdict is Verdict.RUN
    assert verdict(policy, mode, escalated=False) is (Verdict.ASK if policy == "untrusted" else Verdict.RUN)


@pytest.mark.parametrize(
    "script",
    [
        *("rm -rf x", "rm -r -f x", "rm x -f", "rm --force x", "/bin/rm -rf x", "sudo rm -rf x", "env A=1 rm -f x"),
        *("echo a && rm -rf x", "(rm -rf x)", "cat x | rm -f y", "echo $(rm -rf x)", 'echo "$(rm -rf x)"'),
        *("rm -rf $HOME/x", "for i in a; do rm -rf $i; done", "bash -c 'rm -rf x'", "if true; then rm -f x; fi"),
    ],
)
def test_a_removal_by_force_is_seen_where_the_original_sees_it(script):
    assert removes_by_force(script)


@pytest.mark.parametrize(
    "script",
    [
        *("rm x", "rm -r x", "git rm -f x", "echo rm -f x", "echo x | xargs rm -rf", "find . -delete", "ls", "", "'"),
        "rm x; ls -f",
    ],
)
def test_nothing_else_is_taken_for_one(script):
    assert not removes_by_force(script)


def test_a_quote_without_its_end_takes_no_longer_to_look_at_than_another():
    """Of 100,000 letters it took 43 seconds, in which nothing else happened."""
    assert not removes_by_force('"' + '\\"' * 100_000)
    assert removes_by_force('"' + '\\"' * 100_000 + "$(rm -f x)")


@given(st.text("rm -f;&|(){}$'\"`\n\\", max_size=30))
def test_no_script_is_too_odd_to_be_looked_at(script):
    assert removes_by_force(script) in (True, False)
