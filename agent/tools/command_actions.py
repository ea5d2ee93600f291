"""What a command line does, as far as its words show: reads a file, lists files, searches, or else nobody knows. Pure.

For clients to show in place of the command; nothing is decided by it. One piece of a line that is not understood makes
the whole line so. As in the original (compared with 0.169 over 180 command lines), save that `xargs` hides no command
that may change something.
"""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from agent.tools.command import shown

_READ, _LIST, _SEARCH, _UNKNOWN = "read", "listFiles", "search", "unknown"

# Programs, and those of their options whose value is the next word.
_READERS = {
    "cat": (),
    "more": (),
    "bat": ("--theme", "--language", "--style", "--terminal-width", "--tabs", "--line-range", "--map-syntax"),
    "less": ("-p", "-P", "-x", "-y", "-z", "-j", "--pattern", "--prompt", "--tabs", "--shift", "--jump-target"),
}
_READERS["batcat"] = _READERS["bat"]
_LISTERS = {
    "ls": ("-I", "-w", "--block-size", "--format", "--time-style", "--color", "--quoting-style"),
    "eza": ("-I", "--ignore-glob", "--color", "--sort", "--time-style", "--time"),
    "tree": ("-L", "-P", "-I", "--charset", "--filelimit", "--sort"),
    "du": ("-d", "--max-depth", "-B", "--block-size", "--exclude", "--time-style"),
}
_LISTERS["exa"] = _LISTERS["eza"]
_RG = (
    *("-g", "--glob", "--iglob", "-t", "--type", "--type-add", "--type-not", "-m", "--max-count"),
    *("-A", "-B", "-C", "--context", "--max-depth"),
)
_AG = ("-G", "-g", "--file-search-regex", "--ignore-dir", "--ignore-file", "--path-to-ignore")
_SEARCHERS = {"rg": _RG, "rga": _RG, "ripgrep-all": _RG, "ag": _AG, "ack": _AG, "pt": _AG}
_GREPS = ("grep", "egrep", "fgrep")
_GREP = ("-m", "--max-count", "-C", "--context", "-A", "--after-context", "-B", "--before-context")
_PATTERN = ("-e", "--regexp", "-f", "--file")
_FD = ("-t", "--type", "-e", "--extension", "-E", "--exclude", "--search-path")
_FIND = ("-name", "-iname", "-path", "-regex")
_NL = ("-s", "-w", "-v", "-i", "-b")
_AWK = ("-F", "-v", "-f", "--field-separator", "--assign", "--file")
_GIT_LS = ("--exclude", "--exclude-from", "--pathspec-from-file")
_WALKS = re.compile(r"os\.(walk|listdir|scandir)|glob\.i?glob|pathlib\.Path|\.rglob")
# In a pipeline these shape what others say.
_SHAPERS = ("wc", "tr", "cut", "sort", "uniq", "tee", "column", "yes", "printf")
_XARGS = ("-n", "-I", "-P", "-L", "-d", "-s", "-a")
_XARGS_MAY = ("wc", "echo", "printf")
# Of no account in what a path is called.
_PLAIN_DIRECTORIES = ("build", "dist", "node_modules", "src")
# What ends a command; the longer first.
_ENDS = ("&&", "||", "|", ";", "\n")
_NOT_WORDS = frozenset("*?[]{}~$`\\!()<>&#^")
_EXPANDED = frozenset("$`\\")
_RANGE = re.compile(r"\d+(,\d+)?p")


@dataclass(frozen=True, slots=True)
class _Action:
    """`name` is that of the file, or what is searched for."""

    kind: str
    words: tuple[str, ...]
    path: str | None = None
    name: str | None = None


def actions(cmd: str, cwd: str) -> list[dict[str, Any]]:
    """What a command line does, as clients see it.

    Args:
        cwd: Where it runs, absolute.
    """
    script = _commands(cmd)
    found = None if script is None else _understood(script, cwd)
    if script is None or found is None:
        return [{"type": _UNKNOWN, "command": cmd}]
    # What stands between the commands counts where a part of a file is read (observed).
    is_part = "|" in script[1] and any(words[:2] == ("sed", "-n") for words in script[0])
    if len(found) == 1 and found[0].kind == _READ and is_part:
        return [_wire(found[0], cmd)]
    return [_wire(one, shown(one.words)) for one in found]


def _understood(script: tuple[list[tuple[str, ...]], list[str]], cwd: str) -> list[_Action] | None:
    """None if a part of it is not understood."""
    commands = [words for words in script[0] if not _only_shapes(words)]
    if not commands:
        return None
    while len(commands) > 1 and commands[0][0] == "echo":
        del commands[0]
    found: list[_Action] = []
    for words in commands:
        if len(commands) > 1 and (words == ("true",) or (words[0] == "nl" and not _operands(words[1:], ()))):
            continue
        if words[0] == "cd":
            where = _operands(words[1:], ())
            cwd = os.path.join(cwd, where[0]) if where else cwd
            continue
        action = _action(words, cwd)
        if action is None:
            return None
        if found[-1:] != [action]:
            found.append(action)
    return found


def _wire(action: _Action, command: str) -> dict[str, Any]:
    told: dict[str, Any] = {"type": action.kind, "command": command, "path": action.path}
    if action.kind == _READ:
        return told | {"name": action.name}
    return told | {"query": action.name} if action.kind == _SEARCH else told


def _action(words: tuple[str, ...], cwd: str) -> _Action | None:
    """What one command does; None if nobody knows."""
    program, rest = words[0], words[1:]
    if program == "git" and rest[:1] == ("grep",):
        return _grep(words, rest[1:])
    if program == "git" and rest[:1] == ("ls-files",):
        return _Action(_LIST, words, _first_short(_operands(rest[1:], _GIT_LS)))
    if program in _LISTERS:
        return _Action(_LIST, words, _first_short(_operands(rest, _LISTERS[program])))
    if program in _SEARCHERS:
        operands = _operands(rest, _SEARCHERS[program])
        if "--files" in rest:
            return _Action(_LIST, words, _first_short(operands))
        return _Action(_SEARCH, words, _first_short(operands[1:]), operands[0] if operands else None)
    if program in _GREPS:
        return _grep(words, rest)
    if program == "fd":
        return _fd(words, _operands(rest, _FD))
    if program == "find":
        query = next((value for option, value in zip(rest, rest[1:], strict=False) if option in _FIND), None)
        path = _first_short([word for word in rest if word[:1] not in "-!()"])
        return _Action(_LIST if query is None else _SEARCH, words, path, query)
    if program in ("python", "python3"):
        walks = rest[:1] == ("-c",) and len(rest) > 1 and _WALKS.search(rest[1])
        return _Action(_LIST, words) if walks else None
    path = _file_read(program, rest)
    if path is None:
        return None
    return _Action(_READ, words, os.path.normpath(os.path.join(cwd, path)), _short(path))


def _file_read(program: str, rest: tuple[str, ...]) -> str | None:
    """The file that a command prints."""
    if program in _READERS:
        operands = _operands(rest, _READERS[program])
        return operands[0] if len(operands) == 1 else None
    find: Callable[[tuple[str, ...]], str | None] | None = {
        "head": lambda rest: _end_of_file(rest, r"\d+"),
        "tail": lambda rest: _end_of_file(rest, r"\+?\d+"),
        "nl": lambda rest: next(iter(_operands(rest, _NL)), None),
        "sed": _sed_file,
        "awk": _awk_file,
    }.get(program)
    return None if find is None else find(rest)


def _end_of_file(rest: tuple[str, ...], count: str) -> str | None:
    if rest[:1] == ("-n",) and len(rest) > 1 and re.fullmatch(count, rest[1]):
        return next((word for word in rest[2:] if not word.startswith("-")), None)
    if rest and re.fullmatch("-n" + count, rest[0]):
        return next((word for word in rest[1:] if not word.startswith("-")), None)
    return rest[0] if len(rest) == 1 and not rest[0].startswith("-") else None


def _sed_file(rest: tuple[str, ...]) -> str | None:
    """Of `sed -n RANGEp FILE`."""
    words = [word for word in rest if word not in ("-n", "-e", "--expression")]
    is_range = "-n" in rest and len(words) > 1 and _RANGE.fullmatch(words[0])
    return words[1] if is_range and not any(word.startswith("-") for word in words) else None


def _awk_file(rest: tuple[str, ...]) -> str | None:
    operands = _operands(rest, _AWK)
    has_program_file = "-f" in rest or "--file" in rest
    return next(iter(operands[0 if has_program_file else 1 :]), None)


def _grep(words: tuple[str, ...], rest: tuple[str, ...]) -> _Action:
    pattern = next((value for option, value in zip(rest, rest[1:], strict=False) if option in _PATTERN), None)
    operands = _operands(rest, (*_GREP, *_PATTERN))
    if pattern is None:
        return _Action(_SEARCH, words, _first_short(operands[1:]), operands[0] if operands else None)
    return _Action(_SEARCH, words, _first_short(operands), pattern)


def _fd(words: tuple[str, ...], operands: list[str]) -> _Action:
    if len(operands) == 1 and (operands[0] in (".", "..") or "/" in operands[0]):
        return _Action(_LIST, words, _short(operands[0]))
    if not operands:
        return _Action(_LIST, words)
    return _Action(_SEARCH, words, _first_short(operands[1:]), operands[0])


def _only_shapes(words: tuple[str, ...]) -> bool:
    """Whether it only shapes what another command says."""
    program, rest = words[0], words[1:]
    if program == "xargs":
        inner = _operands(rest, _XARGS)
        return not inner or inner[0] in _XARGS_MAY or _action((*inner, "x"), "/") is not None
    if program in ("head", "tail"):
        return (
            len(rest) < 2
            and not any(not word.startswith("-") for word in rest)
            or (len(rest) == 2 and rest[0] in ("-n", "-c"))
        )
    return program in _SHAPERS or (program in ("awk", "sed") and _file_read(program, rest) is None)


def _operands(words: Sequence[str], with_value: tuple[str, ...]) -> list[str]:
    """The words that are no options, nor values of options."""
    found: list[str] = []
    place = 0
    while place < len(words):
        word = words[place]
        if word == "--":
            return [*found, *words[place + 1 :]]
        if word in with_value:
            place += 1
        elif not word.startswith("-"):
            found.append(word)
        place += 1
    return found


def _first_short(operands: Sequence[str]) -> str | None:
    return _short(operands[0]) if operands else None


def _short(path: str) -> str:
    """The last part of a path that says something."""
    trimmed = path.rstrip("/")
    parts = [part for part in trimmed.split("/") if part and part not in _PLAIN_DIRECTORIES]
    return parts[-1] if parts else trimmed


def _commands(script: str) -> tuple[list[tuple[str, ...]], list[str]] | None:
    """The words of each command of a line, and what stands between them; None where a shell would do more with it."""
    commands: list[tuple[str, ...]] = []
    ends: list[str] = []
    words: list[str] = []
    word: str | None = None
    place = 0
    while place <= len(script):
        letter = script[place : place + 1]
        end = next((end for end in _ENDS if script.startswith(end, place)), None)
        if not letter or letter in " \t" or end is not None:
            if word is not None:
                words.append(word)
            word = None
            if end is not None or not letter:
                if words:
                    commands.append(tuple(words))
                elif end not in ("\n", None):
                    return None
                words = []
                ends += [end] if end is not None else []
            place += len(end or " ")
        elif letter in "'\"":
            close = script.find(letter, place + 1)
            quoted = script[place + 1 : close]
            if close < 0 or (letter == '"' and _EXPANDED.intersection(quoted)):
                return None
            word, place = (word or "") + quoted, close + 1
        elif letter in _NOT_WORDS and not (letter == "!" and words and script[place + 1 : place + 2] == " "):
            return None
        else:
            word, place = (word or "") + letter, place + 1
    is_unfinished = len(ends) >= len(commands) and ends[-1] not in (";", "\n") if ends else False
    if not commands or is_unfinished or any(re.match(r"\w+=", words[0]) for words in commands):
        return None
    return commands, ends
