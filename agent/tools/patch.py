"""The patch format of codex: text -> hunks, hunks + old text -> new text. Pure.

Rules and texts are those that codex 0.169 showed when it was run side by side (tests/interop/test_apply_patch.py).

The command starts once for each edit, so what is slow to import is left out (`frozen`, `choice`).
"""

from __future__ import annotations

from agent.sandbox.choice import Choice
from agent.sandbox.frozen import frozen
from agent.tools.search import BLANKS, Searched

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

BEGIN = "*** Begin Patch"
END = "*** End Patch"
ENVIRONMENT_ID = "*** Environment ID:"
ADD_FILE = "*** Add File: "
DELETE_FILE = "*** Delete File: "
UPDATE_FILE = "*** Update File: "
MOVE_TO = "*** Move to: "
END_OF_FILE = "*** End of File"

# Models write the whole shell line into an argument that no shell ever reads.
HEREDOCS = ("<<EOF", "<<'EOF'", '<<"EOF"')


class PatchError(Exception):
    """The patch is not well-formed, or does not fit the text it should change. Nothing was changed.

    Attributes:
        line: Of the patch, 1 for its first; None where no single one is to blame.
        reason: The whole message, as the original words it.
    """

    def __init__(self, line: int | None, reason: str) -> None:
        super().__init__(reason)
        self.line = line
        self.reason = reason


class Kind(Choice):
    """The first character of a line in a chunk."""

    CONTEXT = " "
    REMOVED = "-"
    ADDED = "+"


@frozen
class ChunkLine:
    kind: Kind
    text: str


@frozen
class Chunk:
    """One replacement in a file.

    Attributes:
        context: A line after which the chunk is; None for "anywhere after the previous chunk".
        at_end: The old lines are the last ones of the file.
    """

    context: str | None
    lines: tuple[ChunkLine, ...]
    at_end: bool = False

    @property
    def old(self) -> list[str]:
        """The lines that must be found."""
        return [line.text for line in self.lines if line.kind is not Kind.ADDED]


@frozen
class AddFile:
    path: str
    content: str


@frozen
class DeleteFile:
    path: str


@frozen
class UpdateFile:
    path: str
    move_to: str | None
    chunks: tuple[Chunk, ...]


type Hunk = AddFile | DeleteFile | UpdateFile


@frozen
class Patch:
    """Hunks in the order in which they are to be applied, and the environment they are meant for, if it was named."""

    hunks: tuple[Hunk, ...]
    environment_id: str | None = None


def parse(text: str) -> Patch:
    """Read a patch, bare or inside a heredoc.

    Raises:
        PatchError: It is not well-formed. Nothing else is raised, whatever the text.
    """
    return _Parser(_without_heredoc(text)).patch()


def _without_heredoc(text: str) -> list[str]:
    """The lines of the patch itself, from its begin marker to its end marker."""
    lines = [line.rstrip("\r") for line in text.strip(BLANKS).split("\n")]
    if len(lines) >= 4 and lines[0] in HEREDOCS and lines[-1].endswith("EOF"):
        lines = lines[1:-1]
    _check_markers(lines)
    # The last line ends the patch even with blanks before it, which in an update would make it a context line.
    return [*lines[:-1], END]


def _check_markers(lines: list[str]) -> None:
    if lines != [""] and lines[0].strip(BLANKS) != BEGIN:
        raise PatchError(None, f"Invalid patch: The first line of the patch must be '{BEGIN}'")
    if lines[-1].strip(BLANKS) != END:
        raise _no_end()


def _no_end() -> PatchError:
    return PatchError(None, f"Invalid patch: The last line of the patch must be '{END}'")


class _Parser:
    """One pass over the lines; `_at` is the next one, and its number is `_at` + 1."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines
        self._at = 1

    def patch(self) -> Patch:
        environment_id = self._environment_id()
        hunks: list[Hunk] = []
        while (header := self._lines[self._at].strip(BLANKS)) != END:
            hunks.append(self._hunk(header))
        # The last line is a marker too; a patch may end more than once, but nothing may come in between.
        if any(line.strip(BLANKS) for line in self._lines[self._at + 1 : -1]):
            raise _no_end()
        return Patch(tuple(hunks), environment_id)

    def _environment_id(self) -> str | None:
        found: str | None = None
        while (line := self._lines[self._at].strip(BLANKS)).startswith(ENVIRONMENT_ID):
            if found is not None:
                raise PatchError(None, "Invalid patch: apply_patch environment_id cannot be specified more than once")
            found = line.removeprefix(ENVIRONMENT_ID).strip(BLANKS)
            if not found:
                raise PatchError(None, "Invalid patch: apply_patch environment_id cannot be empty")
            self._at += 1
        return found

    def _hunk(self, header: str) -> Hunk:
        number = self._at + 1
        self._at += 1
        if header.startswith(ADD_FILE):
            return AddFile(header.removeprefix(ADD_FILE), self._added())
        if header.startswith(DELETE_FILE):
            return DeleteFile(header.removeprefix(DELETE_FILE))
        if header.startswith(UPDATE_FILE):
            path = header.removeprefix(UPDATE_FILE)
            move_to = self._move_to()
            chunks = self._chunks()
            if not chunks:
                raise _bad_hunk(number, f"Update file hunk for path '{path}' is empty")
            return UpdateFile(path, move_to, chunks)
        raise _bad_hunk(
            number,
            f"'{header}' is not a valid hunk header. Valid hunk headers: "
            f"'{ADD_FILE}{{path}}', '{DELETE_FILE}{{path}}', '{UPDATE_FILE}{{path}}'",
        )

    def _added(self) -> str:
        first = self._at
        while self._lines[self._at].startswith("+"):
            self._at += 1
        return "".join(line[1:] + "\n" for line in self._lines[first : self._at])

    def _move_to(self) -> str | None:
        line = self._lines[self._at].rstrip(BLANKS)
        if not line.startswith(MOVE_TO):
            return None
        self._at += 1
        return line.removeprefix(MOVE_TO)

    def _chunks(self) -> tuple[Chunk, ...]:
        """All chunks up to the header of the next hunk. Here a leading blank makes a marker a context line."""
        chunks: list[Chunk] = []
        while not _ends_update(line := self._lines[self._at].rstrip(BLANKS)):
            if line == "@@" or line.startswith("@@ "):
                self._at += 1
                chunks.append(self._chunk(line[3:] if line != "@@" else None))
            elif chunks and chunks[-1].at_end and not line:
                self._at += 1
            elif not chunks and line == END_OF_FILE:
                self._at += 1
            elif not chunks:
                chunks.append(self._chunk(None))
            else:
                raise _bad_hunk(
                    self._at + 1,
                    f"Expected update hunk to start with a @@ context marker, got: '{self._lines[self._at]}'",
                )
        return tuple(chunks)

    def _chunk(self, context: str | None) -> Chunk:
        lines: list[ChunkLine] = []
        while (line := self._lines[self._at]) == "" or line[0] in " -+":
            lines.append(ChunkLine(Kind(line[:1] or " "), line[1:]))
            self._at += 1
        marker = line.rstrip(BLANKS)
        if not lines:
            if marker in (END, END_OF_FILE):
                raise _bad_hunk(self._at + 1, "Update hunk does not contain any lines")
            raise _bad_hunk(
                self._at + 1,
                f"Unexpected line found in update hunk: '{line}'. Every line should start with "
                "' ' (context line), '+' (added line), or '-' (removed line)",
            )
        at_end = marker == END_OF_FILE
        if at_end:
            self._at += 1
        return Chunk(context, tuple(lines), at_end)


def _ends_update(line: str) -> bool:
    return line == END or line.startswith((ADD_FILE, DELETE_FILE, UPDATE_FILE))


def _bad_hunk(line: int, reason: str) -> PatchError:
    return PatchError(line, f"Invalid patch hunk on line {line}: {reason}")


@frozen
class _Replacement:
    """Lines `start` to `end` (not included) of the text give way to `new`."""

    start: int
    end: int
    new: list[str]


def apply_chunks(original_text: str, chunks: Sequence[Chunk], path_shown: str) -> str:
    """The text after all chunks, whose last line always ends.

    Each line keeps its ending and, where it was only context, what the file has of it; a new line ends like the first
    line of the text does.

    Args:
        path_shown: Names the text in errors.

    Raises:
        PatchError: A context or the old lines of a chunk are not found behind the chunk before it.
    """
    lines = _split(original_text)
    ending = next((one for _, one in lines if one), "\n")
    searched = Searched([text for text, _ in lines])
    cursor = 0
    replacements: list[_Replacement] = []
    for chunk in chunks:
        if chunk.context is not None:
            found = searched.find([chunk.context], cursor)
            if found is None:
                raise PatchError(None, f"Failed to find context '{chunk.context}' in {path_shown}")
            cursor = found + 1
        if not chunk.old:
            replacements.append(_Replacement(len(lines), len(lines), [line.text for line in chunk.lines]))
            continue
        start, end = _place(searched, chunk, cursor, path_shown)
        replacements += _replacements(chunk, start, end)
        cursor = end
    # What is appended has its place at the end of the text, even if later chunks come before that.
    replacements.sort(key=lambda replacement: replacement.start)
    result: list[tuple[str, str]] = []
    done = 0
    for replacement in replacements:
        result += lines[done : replacement.start]
        result += [(text, ending) for text in replacement.new]
        done = replacement.end
    result += lines[done:]
    return "".join(text + (own_ending or ending) for text, own_ending in result)


def _place(searched: Searched, chunk: Chunk, cursor: int, path_shown: str) -> tuple[int, int]:
    """Where the old lines of a chunk start and end."""
    old = chunk.old
    start = searched.find(old, cursor, chunk.at_end)
    if start is not None:
        return start, start + len(old)
    if old[-1] == "":
        # Models end a chunk with the empty string behind the last newline of the file, which is no line.
        start = searched.find(old[:-1], cursor, chunk.at_end)
        if start is not None:
            return start, start + len(old) - 1
    raise PatchError(None, f"Failed to find expected lines in {path_shown}:\n" + "\n".join(old))


def _replacements(chunk: Chunk, start: int, end: int) -> list[_Replacement]:
    """What a chunk does to the lines from `start` to `end`: one replacement for each run between context lines."""
    found: list[_Replacement] = []
    first = at = start
    new: list[str] = []
    for line in chunk.lines:
        if line.kind is Kind.ADDED:
            new.append(line.text)
        elif at == end:
            # The old line that the file does not have. Where it is context it becomes one.
            new += [line.text] if line.kind is Kind.CONTEXT else []
        elif line.kind is Kind.REMOVED:
            at += 1
        else:
            found.append(_Replacement(first, at, new))
            first = at = at + 1
            new = []
    if end - start < len(chunk.old) and new[-1:] == [""]:
        # It was not found at the end of the old lines, so it is not written at the end of the new ones either.
        new.pop()
    return [*found, _Replacement(first, at, new)]


def _split(text: str) -> list[tuple[str, str]]:
    """The lines, each with its ending: CRLF, LF or CR; "" for a last line that has none."""
    lines: list[tuple[str, str]] = []
    *ended, rest = text.split("\n")
    for line in ended:
        ending = "\r\n" if line.endswith("\r") else "\n"
        *others, last = line.removesuffix("\r").split("\r")
        lines += [(other, "\r") for other in others]
        lines.append((last, ending))
    *others, last = rest.split("\r")
    lines += [(other, "\r") for other in others]
    if last:
        lines.append((last, ""))
    return lines
