"""Who decides whether a command or a patch may run: nobody, the client, or the policy by itself. Pure."""

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agent.core.danger import removes_by_force
from agent.core.rules import Rule, Ruling

# Characters with which a command line is more than one plain command.
_SHELL = frozenset("|&;<>()$`\\\"'*?[]#~=%!^{}\n")
# What a shell expands between double quotes.
_EXPANDED = frozenset("$`\\!")


class Verdict(enum.Enum):
    """What is to be done."""

    RUN = enum.auto()  # in the sandbox of the thread
    RUN_FREE = enum.auto()  # outside of it
    ASK = enum.auto()  # in the sandbox, if the client says yes
    ASK_FREE = enum.auto()  # outside of it, if the client says yes
    REFUSE = enum.auto()


@dataclass(frozen=True, slots=True)
class Decision:
    """What comes of it.

    Args:
        reason: For the model, where it is refused; for the user, where he is asked by a rule of his.
        is_whole: The reason is all that the model is told.
        can_amend: The user may allow such commands for good.
    """

    verdict: Verdict
    reason: str = ""
    is_whole: bool = False
    can_amend: bool = True


def decide_command(
    policy: Any,
    sandbox_mode: str,
    *,
    escalated: bool,
    rule: Rule | None = None,
    dangerous: bool = False,
    additional: bool = False,
    shown: str = "",
) -> Decision:
    """Whether a command runs.

    Args:
        policy: "untrusted", "on-request", "never", or {"granular": {...}}.
        sandbox_mode: As `Thread.sandbox_mode`.
        escalated: The model wants it outside the sandbox.
        rule: The strictest of the user's rules for anything in it.
        dangerous: It should not run without a word of the user, wherever it runs.
        additional: The model wants permissions for it that nobody has granted yet.
        shown: As the user and the model are shown it.
    """
    free = sandbox_mode in ("danger-full-access", "external-sandbox")
    granular = policy.get("granular", {}) if isinstance(policy, dict) else None
    ask = Verdict.ASK_FREE if escalated and not free else Verdict.ASK
    if rule is not None and rule.ruling is Ruling.FORBIDDEN:
        first = " ".join(sorted(one)[0] for one in rule.pattern)
        why = rule.justification or f"policy forbids commands starting with `{first}`"
        return Decision(Verdict.REFUSE, f"`{shown}` rejected: {why}")
    if rule is not None and rule.ruling is Ruling.PROMPT:
        if policy == "never":
            return Decision(Verdict.REFUSE, "approval required by policy, but AskForApproval is set to Never")
        if granular is not None and not granular.get("rules"):
            text = "approval required by policy rule, but AskForApproval::Granular.rules is false"
            return Decision(Verdict.REFUSE, text)
        why = f": {rule.justification}" if rule.justification else " by policy"
        return Decision(ask, f"`{shown}` requires approval{why}", can_amend=False)
    if additional and not free:
        if policy == "on-request":
            return Decision(ask)
        if policy == "never" or (granular is not None and not granular.get("sandbox_approval")):
            return _no_escalation(_policy_name(policy))
        name = _policy_name(policy)
        text = "you cannot request additional permissions unless the approval policy is OnRequest"
        return Decision(Verdict.REFUSE, f"approval policy is {name}; reject command \u2014 {text}", is_whole=True)
    if rule is not None and rule.ruling is Ruling.ALLOW:
        return Decision(Verdict.RUN_FREE if escalated else Verdict.RUN)
    if dangerous:
        if policy == "never":
            text = f"`{shown}` rejected: rm -f style commands are not permitted. Use a safer approach"
            return Decision(Verdict.REFUSE, text)
        return Decision(ask, can_amend=granular is None or bool(granular.get("sandbox_approval")))
    if policy == "untrusted":
        return Decision(ask)
    if not escalated or free:
        return Decision(Verdict.RUN)
    if policy == "never" or (granular is not None and not granular.get("sandbox_approval")):
        return _no_escalation(_policy_name(policy))
    return Decision(Verdict.ASK_FREE)


def _policy_name(policy: Any) -> str:
    """As the original names it to the model."""
    if isinstance(policy, str):
        return {"never": "Never", "untrusted": "UnlessTrusted"}.get(policy, policy)
    granular = policy.get("granular", {})
    members = ("sandbox_approval", "rules", "skill_approval", "request_permissions", "mcp_elicitations")
    told = ", ".join(f"{name}: {str(bool(granular.get(name))).lower()}" for name in members)
    return f"Granular(GranularApprovalConfig {{ {told} }})"


def _no_escalation(policy: str) -> Decision:
    """In the words that the model knows from the original."""
    text = (
        f"approval policy is {policy}; reject command \u2014 you cannot ask for escalated permissions "
        f"if the approval policy is {policy}"
    )
    return Decision(Verdict.REFUSE, text, is_whole=True)


def decide_patch(policy: Any, *, inside: bool) -> Decision:
    """Whether a patch is applied.

    Args:
        inside: All that it touches may be written in the thread's sandbox.
    """
    if inside:
        # A yes does not let it out: what it goes through may become a link in the meantime.
        return Decision(Verdict.ASK if policy == "untrusted" else Verdict.RUN)
    if policy == "untrusted":
        return Decision(Verdict.ASK_FREE)
    if policy == "never":
        return Decision(Verdict.REFUSE, "writing outside of the project; rejected by user approval settings")
    if isinstance(policy, dict) and not policy.get("granular", {}).get("sandbox_approval"):
        return Decision(Verdict.REFUSE, "the approval policy does not let patches ask to leave the sandbox")
    return Decision(Verdict.ASK_FREE)


def plain_words(script: str) -> tuple[str, ...]:
    """The words of a script that is one plain command; else the whole script as one word, like no other.

    Quotes are taken, since `python3 -c "print(1)"` is one command; what a shell would expand is not. It is read as a
    shell reads it, letter by letter: what is taken for quoted here and is not there would be a way around the user.
    """
    whole = (script,)
    words: list[str] = []
    word: str | None = None
    place = 0
    while place < len(script):
        letter = script[place]
        place += 1
        if letter in "'\"":
            end = script.find(letter, place)
            quoted = script[place:end]
            if end < 0 or (letter == '"' and set(quoted) & _EXPANDED):
                return whole
            word, place = (word or "") + quoted, end + 1
        elif letter in " \t":
            if word is not None:
                words.append(word)
            word = None
        elif _is_special(letter):
            return whole
        else:
            word = (word or "") + letter
    if word is not None:
        words.append(word)
    # A program of such a name would be taken for a whole script that was allowed.
    if not words or not words[0] or any(_is_special(letter) for letter in words[0]):
        return whole
    return tuple(words)


def _is_special(letter: str) -> bool:
    return letter in _SHELL or letter.isspace() or not letter.isprintable()


# With these a shell does not run a program of that name.
_KEYWORDS = frozenset("if then else elif fi for while until do done case esac function select time in".split())
# Programs that do whatever their arguments say: to allow them by name would be to allow everything.
_ANY = frozenset(
    "bash sh zsh dash env sudo git python python3 node perl ruby php lua osascript pwsh powershell cmd".split()
)


def proposed_amendment(script: str, argv: Sequence[str], wanted: Sequence[str] = ()) -> list[str]:
    """What is proposed to be allowed for good: the words of the command of a chain that is asked about (observed).

    Args:
        argv: All that is run, for a script that is more than plain commands.
        wanted: The first words that the model would have allowed.
    """
    parts = [part.strip() for part in re.split(r"&&|[|]{2}|;|[|]", script)]
    if not all(_is_plain(part) for part in parts):
        return list(argv)
    words = plain_words(next((part for part in parts if removes_by_force(part)), parts[0]))
    named = any(not word.startswith("-") and word.rpartition("/")[2] not in _ANY for word in wanted)
    named = named and len(parts) == 1  # in a chain the model is not heard (tool_exec_on_request_accept)
    return list(wanted) if named and tuple(words[: len(wanted)]) == tuple(wanted) else list(words)


def command_words(script: str, argv: Sequence[str]) -> tuple[str, ...]:
    """The words of a script that is one plain command; else all that is run."""
    return plain_words(script) if _is_plain(script) else tuple(argv)


def _is_plain(script: str) -> bool:
    if _KEYWORDS.intersection(script.split(maxsplit=1)[:1]):
        return False
    return plain_words(script) != (script,) or (script != "" and not any(_is_special(letter) for letter in script))
