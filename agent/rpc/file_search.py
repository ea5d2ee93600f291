"""Fuzzy search for files by name: which files there are below a root, and how well a path fits a query.

Runs in a thread, and gives up when told to. What `.gitignore` files rule out is left out, also where there is no
repository; `.git` itself is searched, as the original does (observed).
"""

import fnmatch
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

# As many results as the original gives.
MOST_RESULTS = 50
MOST_QUERY = 256  # characters; a file's name has no more
MOST_FILES = 500_000
MOST_SECONDS = 20.0
_MOST_IGNORE_BYTES = 1024 * 1024

# What a match is worth (read off the original's scores): each letter; a gap's first and later characters; a letter that
# begins a word, behind a slash, at a hump or number, or beside its predecessor. All in the name beats all else.
_LETTER = 16
_GAP, _LONGER_GAP = 3, 1
_BOUNDARY, _BEHIND_SLASH, _HUMP, _ADJACENT = 8, 9, 5, 4
_IN_NAME = 1 << 16


@dataclass(frozen=True, slots=True)
class Match:
    """A file or directory that fits. `indices` count the characters of `path`, which is relative to the root."""

    root: str
    path: str
    is_directory: bool
    score: int
    indices: tuple[int, ...]

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


def search(query: str, roots: list[str], given_up: Callable[[], bool]) -> list[Match]:
    """The best matches in all roots, best first; empty for an empty query.

    Args:
        given_up: Whether nobody wants the answer any more; what was found by then is returned.
    """
    if not query or len(query) > MOST_QUERY:
        return []
    found: list[Match] = []
    deadline = time.monotonic() + MOST_SECONDS
    left = MOST_FILES
    for root in roots:
        for path, is_directory in walk(root):
            left -= 1
            if given_up() or left < 0 or time.monotonic() > deadline:
                return _best(found)
            fit = score(query, path)
            if fit is not None:
                found.append(Match(root, path, is_directory, *fit))
        if len(found) > 100 * MOST_RESULTS:
            found = _best(found)
    return _best(found)


def _best(found: list[Match]) -> list[Match]:
    return sorted(found, key=lambda match: (-match.score, match.path))[:MOST_RESULTS]


def score(query: str, path: str) -> tuple[int, tuple[int, ...]] | None:
    """(how well the path fits, where each letter of the query was found); None if it does not.

    Each word of the query must fit, its letters in order; one without upper case letters fits both cases. Where all of
    them fit into the file's name that counts, else the whole path.
    """
    words = query.split()
    name_at = path.rfind("/") + 1
    if words and (fits := _fits(words, path, name_at)) is not None:
        return fits[0] + _IN_NAME, fits[1]
    return _fits(words, path, 0) if words and name_at else None


def _fits(words: list[str], path: str, start: int) -> tuple[int, tuple[int, ...]] | None:
    lower = path.lower()
    if len(lower) != len(path):  # there is a letter that is two in lower case
        lower = path
    worth, places = 0, set[int]()
    for word in words:
        found = _best_places(word, lower if word == word.lower() else path, path, start)
        if found is None:
            return None
        worth += found[0]
        places.update(found[1])
    return max(worth, 1), tuple(sorted(places))


@dataclass(slots=True)
class _Way:
    """A way to place the first letters of a word: its worth, the bonus of its last run, and where it came from."""

    worth: int
    run: int
    place: int
    before: "_Way | None"

    def places(self) -> tuple[int, ...]:
        found, way = [self.place], self.before
        while way is not None:
            found.append(way.place)
            way = way.before
        return tuple(reversed(found))


def _best_places(word: str, text: str, path: str, start: int) -> tuple[int, tuple[int, ...]] | None:
    """The places of the letters that are worth most together."""
    if not _is_subsequence(word, text, start):
        return None
    ways: dict[int, _Way] = {}  # by the place of the last letter, in order
    for number, letter in enumerate(word):
        following: dict[int, _Way] = {}
        earlier = iter(ways.values())
        passed = next(earlier, None)
        far: _Way | None = None  # of those that leave a gap the best
        for place in _occurrences(text, letter, start):
            bonus = _bonus(path, place)
            if number == 0:
                following[place] = _Way(_LETTER + 2 * bonus, bonus, place, None)
                continue
            while passed is not None and passed.place < place - 1:
                if far is None or passed.worth + passed.place > far.worth + far.place:
                    far = passed
                passed = next(earlier, None)
            best: _Way | None = None
            if far is not None:
                gap = _GAP + _LONGER_GAP * (place - far.place - 2)
                best = _Way(far.worth - gap + _LETTER + bonus, bonus, place, far)
            if passed is not None and passed.place == place - 1:
                run = max(passed.run, _ADJACENT)
                run = bonus if bonus >= _BOUNDARY and bonus > run else run
                worth = passed.worth + _LETTER + max(run, bonus)
                if best is None or worth > best.worth:
                    best = _Way(worth, run, place, passed)
            if best is not None:
                following[place] = best
        ways = following
    best = max(ways.values(), key=lambda way: way.worth)
    return best.worth, best.places()


def _is_subsequence(word: str, text: str, start: int) -> bool:
    for letter in word:
        start = text.find(letter, start) + 1
        if start == 0:
            return False
    return True


def _occurrences(text: str, letter: str, start: int) -> Iterator[int]:
    place = text.find(letter, start)
    while place >= 0:
        yield place
        place = text.find(letter, place + 1)


def _bonus(path: str, place: int) -> int:
    letter = path[place]
    if not letter.isalnum():
        return _BOUNDARY
    before = path[place - 1] if place else "/"
    if before == "/":
        return _BEHIND_SLASH
    if not before.isalnum():
        return _BOUNDARY
    humped = (before.islower() and letter.isupper()) or (letter.isdigit() and not before.isdigit())
    return _HUMP if humped else 0


def walk(root: str) -> Iterator[tuple[str, bool]]:
    """(path relative to the root, whether it is a directory) of all that is not ignored. Links are not followed."""
    pending: list[tuple[str, tuple[_Ignore, ...]]] = [("", ())]
    while pending:
        directory, above = pending.pop()
        try:
            with os.scandir(os.path.join(root, directory)) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError:
            continue  # unreadable, or gone by now
        rules = (*above, *_rules_of(root, directory)) if any(one.name == ".gitignore" for one in entries) else above
        for entry in entries:
            path = f"{directory}/{entry.name}" if directory else entry.name
            if not _is_text(path):
                continue
            try:
                is_directory = entry.is_dir(follow_symlinks=False)
            except OSError:
                continue
            if _ignored(rules, path, is_directory):
                continue
            yield path, is_directory
            if is_directory:
                pending.append((path, rules))


def _is_text(path: str) -> bool:
    """Whether the name can be sent at all: a name that is no UTF-8 cannot."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class _Ignore:
    """One line of a `.gitignore`. `parts` are matched against those of the path below `base`; None is `**`."""

    base: str
    parts: tuple[re.Pattern[str] | None, ...]
    negated: bool
    directories_only: bool

    def fits(self, path: str) -> bool:
        names = path.removeprefix(self.base).split("/")
        at = part = 0
        star, retry = -1, 0
        # By hand and not by one expression: one with many `*` could take for ever, and this may be anybody's file.
        while at < len(names):
            if part < len(self.parts) and self.parts[part] is None:
                star, retry, part = part, at, part + 1
            elif part < len(self.parts) and (one := self.parts[part]) is not None and one.match(names[at]):
                at, part = at + 1, part + 1
            elif star >= 0:
                retry += 1
                at, part = retry, star + 1
            else:
                return False
        return all(one is None for one in self.parts[part:])


def _rules_of(root: str, directory: str) -> list[_Ignore]:
    try:
        # Not a device or a pipe of this name, which might never end.
        descriptor = os.open(os.path.join(root, directory, ".gitignore"), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
            content = file.read(_MOST_IGNORE_BYTES).decode("utf-8", "replace") if regular else ""
    except OSError:
        return []
    base = f"{directory}/" if directory else ""
    return [rule for line in content.splitlines() if (rule := _rule(base, line)) is not None]


def _rule(base: str, line: str) -> _Ignore | None:
    line = line.rstrip()
    if not line or line.startswith("#"):
        return None
    negated = line.startswith("!")
    line = line[1:] if negated else line
    directories_only = line.endswith("/")
    line = line.rstrip("/")
    if not line:
        return None
    parts = line.lstrip("/").split("/")
    if "/" not in line:
        parts = ["**", *parts]
    try:
        # fnmatch's expressions take no more than quadratic time: each `*` is settled once.
        compiled = tuple(None if part == "**" else re.compile(fnmatch.translate(part)) for part in parts)
    except re.error:
        return None
    return _Ignore(base, compiled, negated, directories_only)


def _ignored(rules: tuple[_Ignore, ...], path: str, is_directory: bool) -> bool:
    """The last rule that fits decides."""
    for rule in reversed(rules):
        if (is_directory or not rule.directories_only) and rule.fits(path):
            return not rule.negated
    return False
