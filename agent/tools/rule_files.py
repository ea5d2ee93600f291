"""The rules of the user about commands: `$CODEX_HOME/rules/*.rules`, read when the first command comes."""

import logging
import os
from pathlib import Path

from agent.core.danger import simple_commands
from agent.core.rules import Rule, Rules, RulesBroken, Ruling, parse_rules, rule_line

logger = logging.getLogger(__name__)

_AMENDED = "default.rules"


class RuleFiles:
    """The rules.

    Args:
        directory: Where the files are; None for no rules.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._rules: Rules | None = None

    def of(self, script: str, words: tuple[str, ...]) -> Rule | None:
        """The strictest rule for anything in a script; where the rules cannot be read, one that asks.

        Args:
            words: The script as one plain command, or all that is run: only that can be allowed as it is.
        """
        rules = self._loaded()
        if rules.problem is not None:
            return Rule((), Ruling.PROMPT, rules.problem)
        strict = [rule for one in simple_commands(script) if (rule := rules.strictest(one)) is not None]
        for ruling in (Ruling.FORBIDDEN, Ruling.PROMPT):
            if found := next((rule for rule in strict if rule.ruling is ruling), None):
                return found
        return rules.strictest(words)

    def amend(self, words: tuple[str, ...]) -> None:
        """Allow commands that begin so for good. What cannot be written down holds as long as we live."""
        rules = self._loaded()
        rules.allow(words)
        if self._directory is None:
            return
        path, line = self._directory / _AMENDED, rule_line(words)
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            known = path.read_text("utf-8") if path.exists() else ""
            if line not in known.splitlines(keepends=True):
                line = line if not known or known.endswith("\n") else f"\n{line}"
                descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
                with open(descriptor, "w", encoding="utf-8") as file:
                    file.write(line)
        except (OSError, UnicodeError) as exc:
            logger.error("the rule is not kept: %s: %s", path, exc)

    def _loaded(self) -> Rules:
        if self._rules is None:
            rules = Rules()
            try:
                for path in sorted(self._directory.glob("*.rules")) if self._directory is not None else ():
                    rules.rules += parse_rules(path.read_text("utf-8"), str(path))
            except (OSError, UnicodeError, RulesBroken) as exc:
                rules.problem = f"the rules cannot be read: {exc}"
                logger.error("%s", rules.problem)
            self._rules = rules  # not before: of rules that were read in part the strict ones may be missing
        return self._rules
