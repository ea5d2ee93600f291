"""The rules of the user about commands, as the original's files have them."""

import pytest

from agent.core.approval import Verdict, decide_command
from agent.core.rules import Rules, RulesBroken, Ruling, parse_rules, rule_line

FILE = """
# Mine.
prefix_rule(
    pattern = ["touch", ["a", "b"]],
    decision = "allow",
    match = [["touch", "a"]],
)
prefix_rule(pattern=["cat"], decision="forbidden", justification="no cats")
prefix_rule(pattern=["cat", "x"])
prefix_rule(pattern=["cp"], decision="prompt")
network_rule(host="example.com", protocol="https", decision="deny")
"""


@pytest.mark.parametrize(
    "words, ruling",
    [
        (["touch", "a"], Ruling.ALLOW),
        (["touch", "b", "c"], Ruling.ALLOW),
        (["touch", "c"], None),
        (["touch"], None),
        (["cat", "x"], Ruling.FORBIDDEN),  # the strictest that fits
        (["cp", "a", "b"], Ruling.PROMPT),
        ([], None),
    ],
)
def test_the_strictest_rule_that_covers_a_command_counts(words, ruling):
    rule = Rules(parse_rules(FILE, "a.rules")).strictest(words)
    assert (None if rule is None else rule.ruling) is ruling


@pytest.mark.parametrize(
    "text",
    [
        *(
            "prefix_rule(pattern=5)",
            "prefix_rule()",
            "prefix_rule(pattern=[])",
            "prefix_rule(['a'])",
            "x = 1",
            "load(1",
        ),
        *("prefix_rule(pattern=['a'], decision='maybe')", "prefix_rule(pattern=[open('/x')])", "unknown()", "a.b()"),
        *("prefix_rule(pattern=[{[]: 1}])", "prefix_rule(pattern=" + "-" * 5000 + "1)"),
        *("prefix_rule(pattern=[[]])", "prefix_rule(pattern=['a'], justification=1)", "\0"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(text):
    with pytest.raises(RulesBroken, match="^mine.rules:"):
        parse_rules(text, "mine.rules")


@pytest.mark.parametrize("words", [("touch",), ("echo", 'a"b\\c\nd', "é", "\U0001f600"), ("",)])
def test_a_line_that_we_write_is_read_as_it_was_meant(words):
    (rule,) = parse_rules(rule_line(words), "x")
    assert rule.covers(words) and rule.ruling is Ruling.ALLOW


@pytest.mark.parametrize(
    "policy, words, verdict, reason",
    [
        ("on-request", ["cat"], Verdict.REFUSE, "`shown` rejected: no cats"),
        ("never", ["cat"], Verdict.REFUSE, "`shown` rejected: no cats"),
        ("on-request", ["cp"], Verdict.ASK, "`shown` requires approval by policy"),
        ("never", ["cp"], Verdict.REFUSE, "approval required by policy, but AskForApproval is set to Never"),
        (
            {"granular": {"rules": False}},
            ["cp"],
            Verdict.REFUSE,
            "approval required by policy rule, but .*rules is false",
        ),
        ({"granular": {"rules": True}}, ["cp"], Verdict.ASK, "`shown` requires approval by policy"),
        ("untrusted", ["touch", "a"], Verdict.RUN, ""),
    ],
)
def test_a_rule_comes_before_the_policy(policy, words, verdict, reason):
    """The files were not read: what the user had forbidden ran."""
    import re

    rule = Rules(parse_rules(FILE, "a.rules")).strictest(words)
    decision = decide_command(policy, "workspace-write", escalated=False, rule=rule, shown="shown")
    assert decision.verdict is verdict and re.fullmatch(reason, decision.reason)
    assert decision.can_amend is (decision.verdict is not Verdict.ASK)
