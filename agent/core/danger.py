"""Commands that remove files without asking: the user is asked about them also where commands run freely. Pure.

As codex-cli 0.169.0 has it (compared with 25 spellings of `rm -f`). It keeps mishaps away, not attacks: whoever wants
to get around it can.
"""

import re

_TOKEN = re.compile(r"""'[^']*'|"(?:\\.|[^"\\])*"|\$\(|[;&|(){}`\n]|(?:\\.|[^\s;&|(){}`'"\\$]|\$(?!\())+""", re.DOTALL)
_QUOTED = re.compile(r'"(?:\\.|[^"\\])*+(?:"|\\?\Z)', re.DOTALL)
_STARTS = frozenset((*";&|(){}`\n", "$("))
# Words behind which a command begins.
_BEFORE = frozenset("do then else elif if while until ! time sudo env nohup exec command".split())
_SHELLS = frozenset(("bash", "sh", "zsh", "dash"))
_MOST_NESTED = 4


def removes_by_force(script: str, depth: int = _MOST_NESTED) -> bool:
    """Whether a command of the script is `rm` with `-f`, as far as is plain to see."""
    for words in simple_commands(script):
        name = words[0].rpartition("/")[2]
        if name == "rm" and any(_is_force(word) for word in words[1:]):
            return True
        if depth and name in _SHELLS and any(removes_by_force(word, depth - 1) for word in words[1:]):
            return True
    # Also one without its end, once: to look for that end from each quote on would take for ever.
    inner = (quoted for quoted in _QUOTED.findall(script) if "$(" in quoted or "`" in quoted)
    return depth > 0 and any(removes_by_force(quoted[1:-1], depth - 1) for quoted in inner)


def _is_force(word: str) -> bool:
    return word == "--force" or re.fullmatch(r"-[A-Za-z]*f[A-Za-z]*", word) is not None


def simple_commands(script: str) -> list[list[str]]:
    """The words of each simple command, as far as is plain to see; none of them is empty."""
    found: list[list[str]] = [[]]
    for token in _TOKEN.findall(script):
        words = found[-1]
        if token in _STARTS:
            found.append([])
        elif words or not (token in _BEFORE or re.match(r"\w+=", token)):
            words.append(token[1:-1] if token[0] in "'\"" else token)
    return [words for words in found if words]
