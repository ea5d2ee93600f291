"""Who decides whether a command or a patch may run: nobody, the client, or the policy by itself. Pure."""

import enum
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

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
    """`reason` is for the model, where it is refused."""

    verdict: Verdict
    reason: str = ""


def decide_command(
    policy: Any, sandbox_mode: str, *, escalated: bool, words: Sequence[str], allowed: Collection[tuple[str, ...]]
) -> Decision:
    """Whether a command runs.

    Args:
        policy: "untrusted", "on-request", "never", or {"granular": {...}}.
        sandbox_mode: As `Thread.sandbox_mode`.
        escalated: The model wants it outside the sandbox.
        words: The command, as `plain_words`.
        allowed: Beginnings of commands that the user has allowed for the session or for good.
    """
    if any(tuple(words[: len(prefix)]) == prefix for prefix in allowed):
        return Decision(Verdict.RUN_FREE if escalated else Verdict.RUN)
    free = sandbox_mode in ("danger-full-access", "external-sandbox")
    if policy == "untrusted":
        return Decision(Verdict.ASK_FREE if escalated and not free else Verdict.ASK)
    if not escalated or free:
        return Decision(Verdict.RUN)
    if policy == "never":
        return Decision(
            Verdict.REFUSE,
            "approval policy is never: nobody is asked, so run it without require_escalated or not at all",
        )
    if isinstance(policy, dict) and not policy.get("granular", {}).get("sandbox_approval"):
        return Decision(Verdict.REFUSE, "the approval policy does not let commands ask to leave the sandbox")
    return Decision(Verdict.ASK_FREE)


def decide_patch(policy: Any, *, inside: bool, allowed: bool) -> Decision:
    """Whether a patch is applied.

    Args:
        inside: All that it touches may be written in the thread's sandbox.
        allowed: The user has allowed patches of all these files for the session.
    """
    if allowed:
        return Decision(Verdict.RUN_FREE)
    if policy == "untrusted":
        return Decision(Verdict.ASK_FREE)
    if inside:
        return Decision(Verdict.RUN)
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


def proposed_amendment(script: str) -> list[str]:
    """What is proposed to be allowed for good: the words of the first command of a chain (observed)."""
    first = script
    for mark in ("&&", "||", ";", "|"):
        first = first.split(mark)[0]
    return list(plain_words(first.strip()))
