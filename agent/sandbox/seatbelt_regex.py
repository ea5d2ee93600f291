"""Names and deny patterns as regular expressions of SBPL. Pure.

Only what Apple's own profiles use is used here: `^ $ . * + ? |`, groups, classes of plain ranges, and the backslash
before a mark. What cannot be said in that becomes wider, since all these expressions refuse something.
"""

from __future__ import annotations

import re

from agent.sandbox.paths import is_glob

# The quote would end the literal, and whether a backslash keeps it from that is not documented: its neighbours in ASCII
# stand in for it, so that a rule refuses a little more.
_ESCAPED = {character: f"\\{character}" for character in r"\.^$|?*+()[]{}"} | {'"': "[!-#]"}


def escaped(text: str) -> str:
    """Text as a regular expression for itself, fit for a literal between `#"` and `"`."""
    return "".join(_ESCAPED.get(character, character) for character in text)


def name_regex(path: str) -> str:
    """A real path that may not exist yet, in any letter case of its last component, and everything below.

    Most Macs do not tell `.GIT` from `.git`, so making one makes the other. Two letters also have a twin outside of
    ASCII (the long s, the Kelvin sign), for which whatever is not ASCII stands in. The original matches one spelling.
    """
    directory, _, name = path.rpartition("/")
    return f"^{escaped(directory)}/{''.join(_any_case(character) for character in name)}(/|$)"


def _any_case(character: str) -> str:
    if not (character.isascii() and character.isalpha()):
        return escaped(character)
    either = f"[{character.lower()}{character.upper()}]"
    return f"({either}|[^ -~]+)" if character in "sSkK" else either


def glob_regex(directory: str, pattern: str) -> str:
    """A deny pattern below a directory as a regular expression for whole paths.

    It means what it means on Linux (`globs`), in the few constructs that SBPL is known to have. A class of anything but
    letters, digits, `_` and `.` becomes any character, and two stars in a row span components anywhere: a denial may be
    wider than there, never narrower. Without a wildcard it is a path, and denies what is below too.
    """
    if not pattern:
        return f"^{escaped(directory)}(/.*)?$"
    below = "" if is_glob(pattern) else "(/.*)?"
    return f"^{escaped(directory.rstrip('/'))}/{_translated(pattern)}{below}$"


def _translated(pattern: str) -> str:
    out, at, depth = [], 0, 0
    while at < len(pattern):
        mark = pattern[at]
        before = pattern[at - 1] if at else "/"
        if pattern.startswith("**/", at) and (before == "/" or (depth and before in "{,")):
            out.append("(.*/)?")
            at += 3
            continue
        if pattern.startswith("**", at):
            out.append(".*")
            at += 2
            continue
        at += 1
        if mark == "*":
            out.append("[^/]*")
        elif mark == "?":
            out.append("[^/]")
        elif mark == "[" and (end := pattern.find("]", at + (2 if pattern[at : at + 1] in ("!", "^") else 1))) > 0:
            out.append(_class(pattern[at:end]))
            at = end + 1
        elif mark == "{" and "}" in pattern[at:]:
            out.append("(")
            depth += 1
        elif mark == "}" and depth:
            out.append(")")
            depth -= 1
        elif mark == "," and depth:
            out.append("|")
        elif mark == "\\" and at < len(pattern):
            out.append(escaped(pattern[at]))
            at += 1
        else:
            out.append(escaped(mark))
    return "".join(out) + ")" * depth


def _class(content: str) -> str:
    negated = content.startswith("!")
    body = content.removeprefix("!")
    ordered = all(first <= last for first, last in re.findall("(.)-(.)", body))
    if not ordered or not re.fullmatch("([a-z]-[a-z]|[A-Z]-[A-Z]|[0-9]-[0-9]|[a-zA-Z0-9_.])+", body):
        # Also `[^...]`: another `!` on Linux, a plain caret to the original on macOS. Both readings are in this one.
        return "."
    return f"[^{body}]" if negated else f"[{body}]"
