"""What a check comes to. Pure.

A finding is shown, logged and sent to others: whoever makes one puts names, places and counts into it, never the value
of a variable, of a line or of a header.
"""

import enum
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any


class Level(enum.StrEnum):
    """How bad it is."""

    OK = "ok"
    NOTE = "note"  # worth knowing, nothing to do
    WARNING = "warning"  # works here and now, and will not in a case that the text names
    PROBLEM = "problem"  # does not work


class Topic(enum.StrEnum):
    """What a check is about; its methods make findings."""

    ENVIRONMENT = "environment"
    TRUST = "trust"
    HOME = "home"
    ROUTE = "route"
    REFUSALS = "refusals"
    COMMAND = "command"
    SANDBOX = "sandbox"
    VERSIONS = "versions"

    def ok(self, looked_at: str, found: str) -> "Finding":
        return Finding(self, Level.OK, looked_at, found)

    def note(self, looked_at: str, found: str) -> "Finding":
        return Finding(self, Level.NOTE, looked_at, found)

    def warning(self, looked_at: str, found: str, advice: str) -> "Finding":
        return Finding(self, Level.WARNING, looked_at, found, advice)

    def problem(self, looked_at: str, found: str, advice: str) -> "Finding":
        return Finding(self, Level.PROBLEM, looked_at, found, advice)


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check.

    Args:
        looked_at: The variable, file, route or program.
        found: What is the matter with it, or that nothing is.
        advice: What to do; a warning and a problem have one.
    """

    topic: Topic
    level: Level
    looked_at: str
    found: str
    advice: str = ""


def has_problem(findings: Iterable[Finding]) -> bool:
    """Whether anything does not work."""
    return any(finding.level is Level.PROBLEM for finding in findings)


def count(findings: Sequence[Finding]) -> dict[str, int]:
    """Level -> how many."""
    return {str(level): sum(finding.level is level for finding in findings) for level in Level}


def plain(findings: Sequence[Finding]) -> dict[str, Any]:
    """All of them as plain data; `ok` is false if anything does not work."""
    return {
        "ok": not has_problem(findings),
        "counts": count(findings),
        "findings": [asdict(finding) for finding in findings],
    }
