"""Where the lines of a patch are in a text, looked for in four passes from strict to lenient. Pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# Unicode's White_Space, which is what the original trims. str.strip() alone also takes U+001C to U+001F.
BLANKS = (
    "\t\n\v\f\r \x85\xa0\u1680"
    "\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)

# What models write in ASCII where the file has the typographic character.
ASCII_OF = str.maketrans(
    {
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
        **dict.fromkeys("\u2018\u2019\u201a\u201b", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f", '"'),
        **dict.fromkeys("\xa0\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000", " "),
    }
)

# From strict to lenient: a later one is tried only where no place fits an earlier one.
PASSES: tuple[Callable[[str], str], ...] = (
    lambda line: line,
    lambda line: line.rstrip(BLANKS),
    lambda line: line.strip(BLANKS),
    lambda line: line.strip(BLANKS).translate(ASCII_OF),
)


class Searched:
    """The lines of a text, and what each pass makes of them, once."""

    def __init__(self, lines: list[str]) -> None:
        self._forms: dict[int, list[str]] = {0: lines}

    def find(self, wanted: list[str], start: int, at_end: bool = False) -> int | None:
        """Where the lines are, not before `start`; the first place of the strictest pass that fits any."""
        if not wanted:
            return start
        first = max(start, len(self._forms[0]) - len(wanted)) if at_end else start
        for number, form in enumerate(PASSES):
            if number not in self._forms:
                self._forms[number] = [form(line) for line in self._forms[0]]
            at = place_of([form(line) for line in wanted], self._forms[number], first)
            if at is not None:
                return at
        return None


def place_of(sought: list[str], lines: list[str], start: int) -> int | None:
    """The first place of some lines among others, from `start` on; None if there is none.

    In linear time, by Knuth, Morris and Pratt: thousands of lines of a patch may be alike, and of the file, too.
    """
    shorter = [0]
    for line in sought[1:]:
        shorter.append(_longer(sought, shorter, shorter[-1], line))
    at, fitting = start, 0
    while at < len(lines):
        if not fitting:
            try:
                at = lines.index(sought[0], at)
            except ValueError:
                return None
        fitting = _longer(sought, shorter, fitting, lines[at])
        at += 1
        if fitting == len(sought):
            return at - fitting
    return None


def _longer(sought: list[str], shorter: list[int], fitting: int, line: str) -> int:
    """How many of the lines sought fit so far, after one more line."""
    while fitting and sought[fitting] != line:
        fitting = shorter[fitting - 1]
    return fitting + (sought[fitting] == line)
