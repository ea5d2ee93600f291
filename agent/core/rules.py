"""What the user has laid down about commands: `prefix_rule` lines, as in the files of `$CODEX_HOME/rules`. Pure."""

import ast
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

Words = tuple[str, ...]


class RulesBroken(ValueError):
    """A file of rules that cannot be used; the text says where and why."""


class Ruling(StrEnum):
    """As the files spell it; a later one is stricter."""

    ALLOW = "allow"
    PROMPT = "prompt"
    FORBIDDEN = "forbidden"


@dataclass(frozen=True, slots=True)
class Rule:
    """Commands that begin so.

    Args:
        pattern: For each word those that it may be.
    """

    pattern: tuple[frozenset[str], ...]
    ruling: Ruling
    justification: str | None = None

    def covers(self, words: Sequence[str]) -> bool:
        """Whether the command begins so."""
        fits = zip(self.pattern, words, strict=False)
        return len(words) >= len(self.pattern) and all(word in one for one, word in fits)


@dataclass(slots=True)
class Rules:
    """All rules.

    Args:
        problem: Why they cannot be used; the user is asked about each command then.
    """

    rules: list[Rule] = field(default_factory=list)
    problem: str | None = None

    def strictest(self, words: Sequence[str]) -> Rule | None:
        """The rule for one command; None if there is none."""
        order = list(Ruling)
        fitting = [rule for rule in self.rules if rule.covers(words)]
        return max(fitting, key=lambda rule: order.index(rule.ruling), default=None)

    def allow(self, words: Iterable[str]) -> None:
        """One more rule."""
        self.rules.append(Rule(tuple(frozenset((word,)) for word in words), Ruling.ALLOW))


def parse_rules(text: str, name: str) -> list[Rule]:
    """The rules of a file. Its language is Starlark, of which only calls with constants are taken.

    Raises:
        RulesBroken: It has something else.
    """
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as exc:
        raise RulesBroken(f"{name}: {exc}") from exc
    rules = []
    for statement in body:
        call = statement.value if isinstance(statement, ast.Expr) else None
        if isinstance(call, ast.Constant):
            continue
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise RulesBroken(f"{name}:{statement.lineno}: a call such as prefix_rule(pattern=[...]) is needed")
        if call.func.id == "prefix_rule":
            rules.append(_rule(call, f"{name}:{statement.lineno}"))
        elif call.func.id not in ("network_rule", "host_executable"):  # they say nothing of what we ask about
            raise RulesBroken(f"{name}:{statement.lineno}: {call.func.id} is not known; prefix_rule is")
    return rules


def _rule(call: ast.Call, where: str) -> Rule:
    try:
        given: dict[str, Any] = {str(one.arg): ast.literal_eval(one.value) for one in call.keywords}
    except (ValueError, TypeError, RecursionError, MemoryError) as exc:
        raise RulesBroken(f"{where}: prefix_rule takes constants") from exc
    pattern = given.get("pattern")
    if not isinstance(pattern, list) or not pattern or call.args:
        raise RulesBroken(f"{where}: prefix_rule needs pattern=[...], a list of words that is not empty")
    parts = [[one] if isinstance(one, str) else one for one in pattern]
    if not all(isinstance(part, list) and part and all(isinstance(word, str) for word in part) for part in parts):
        raise RulesBroken(f"{where}: a pattern has words, and lists of words to choose from")
    decision, why = given.get("decision", Ruling.ALLOW.value), given.get("justification")
    if decision not in list(Ruling):
        raise RulesBroken(f"{where}: decision is {decision!r}; it is allow, prompt or forbidden")
    if why is not None and not isinstance(why, str):
        raise RulesBroken(f"{where}: justification is {why!r}; it is a text")
    return Rule(tuple(frozenset(part) for part in parts), Ruling(decision), why)


def rule_line(words: Sequence[str]) -> str:
    """A rule that allows commands that begin so, as a line of a file."""
    return f'prefix_rule(pattern={json.dumps(list(words), ensure_ascii=False)}, decision="allow")\n'
