"""Applies patches to files: for a caller inside the agent, and as the command `apply_patch`.

There is no rollback, as in the original: hunks that were applied stay so when a later one fails, and the error says
which. What is kept is the old content of a file whose new content does not fit on the disk.

Light on imports, because models start the command once for each edit.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

from agent.sandbox.choice import Choice
from agent.sandbox.frozen import frozen
from agent.tools.patch import AddFile, DeleteFile, Patch, PatchError, UpdateFile, apply_chunks, parse
from agent.tools.places import check_place, remove_there

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TextIO

# The original is linked with musl, whose words for these differ from those of other C libraries.
MUSL_WORDS = {
    errno.ELOOP: "Symbolic link loop",
    errno.ENAMETOOLONG: "Filename too long",
    errno.EIO: "I/O error",
}


class ChangeKind(Choice):
    ADDED = "A"
    MODIFIED = "M"
    DELETED = "D"


@frozen
class Change:
    """One file that is no longer as it was.

    Attributes:
        path: As the patch spells it; of a move, the destination.
    """

    kind: ChangeKind
    path: str

    def __str__(self) -> str:
        return f"{self.kind.value} {self.path}"


@frozen
class Applied:
    """What a patch changed, in the order of its hunks; a file may come more than once."""

    changes: tuple[Change, ...]

    def summary(self) -> str:
        """The words of the original: what was added, then what was modified, then what was deleted."""
        grouped = [str(change) for kind in ChangeKind for change in self.changes if change.kind is kind]
        return "\n".join(["Success. Updated the following files:", *grouped])


class PatchNotApplied(Exception):
    """A hunk failed; the ones before it were applied and stay so, the ones behind it were not tried.

    Attributes:
        reason: What failed, as the original words it; more lines if a file could not be written to its end.
        changes: What was changed before, in order.
    """

    def __init__(self, reason: str, changes: Sequence[Change] = ()) -> None:
        earlier = ["These changes were made before the failure and stay:", *map(str, changes)] if changes else []
        super().__init__("\n".join([reason, *earlier]))
        self.reason = reason
        self.changes = tuple(changes)


class _HunkFailed(Exception):
    """One hunk could not be applied. Its text is the reason of the PatchNotApplied that becomes of it."""


def apply(patch: Patch, cwd: str, places: Mapping[str, tuple[str, str]] | None = None) -> Applied:
    """Change the files, hunk by hunk.

    Files are written in place, so that modes, hard links and symbolic links stay; missing parents are made; an existing
    file gives way to an added or moved one; the source of a move goes last.

    Args:
        cwd: Absolute; what relative paths of the patch start from. They may lead out of it: this is no sandbox.
        places: By the paths of the patch: (the file that one leads to, the name itself), without symlinks on the way.
            None to follow them as they are.

    Raises:
        PatchNotApplied: A hunk failed, or there is none.
    """
    if not patch.hunks:
        raise PatchNotApplied("No files were modified.")
    changes: list[Change] = []
    pinned = places is not None
    for hunk in patch.hunks:
        try:
            path, name = _placed(hunk.path, cwd, places)
            match hunk:
                case AddFile():
                    _write(path, hunk.content, pinned)
                    changes.append(Change(ChangeKind.ADDED, hunk.path))
                case DeleteFile():
                    _delete(name, pinned)
                    changes.append(Change(ChangeKind.DELETED, hunk.path))
                case UpdateFile(move_to=None):
                    _write(path, apply_chunks(_read(path), hunk.chunks, _shown(path)), pinned)
                    changes.append(Change(ChangeKind.MODIFIED, hunk.path))
                case UpdateFile(move_to=str(move_to)):
                    content = apply_chunks(_read(path), hunk.chunks, _shown(path))
                    destination, _ = _placed(move_to, cwd, places)
                    _write(destination, content, pinned)
                    changes.append(Change(ChangeKind.MODIFIED, move_to))
                    _remove_moved(name, destination, pinned)
        except (_HunkFailed, PatchError) as exc:
            raise PatchNotApplied(str(exc), changes) from exc
    return Applied(tuple(changes))


def _placed(path: str, cwd: str, places: Mapping[str, tuple[str, str]] | None) -> tuple[str, str]:
    if places is None:
        resolved = _resolved(path, cwd)
        return resolved, resolved
    place = places.get(path)
    if place is None or os.path.realpath(place[0]) != place[0]:
        raise _HunkFailed(f"{_shown(path)} does not lead any more where it led when it was asked about")
    return place


def _resolved(path: str, cwd: str) -> str:
    """The absolute path, by its words only, as in the original: "missing/../file" is "file".

    Raises:
        _HunkFailed: No file can be called so.
    """
    try:
        nameable = b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        nameable = False
    if not nameable:
        raise _HunkFailed(f"'{path}' is invalid on '{sys.platform}'")
    # normpath keeps two leading slashes, as POSIX allows; the original shows one.
    return os.path.normpath("/" + os.path.join(cwd, path).lstrip("/"))


def _shown(path: str) -> str:
    """The path for a message. What is no text in it becomes U+FFFD: a lone surrogate cannot be decoded again."""
    return path.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _why(exc: OSError) -> str:
    if exc.errno is None:
        return str(exc)
    return f"{MUSL_WORDS.get(exc.errno) or os.strerror(exc.errno)} (os error {exc.errno})"


def _delete(path: str, pinned: bool) -> None:
    try:
        # Follows links, so that one to a directory is refused too; and one to nothing, as the original does.
        if stat.S_ISDIR(os.stat(path).st_mode):
            raise IsADirectoryError
        (remove_there if pinned else os.remove)(path)
    except OSError as exc:
        raise _HunkFailed(f"Failed to delete file {_shown(path)}") from exc


def _read(path: str) -> str:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError(f"path `{_shown(path)}` is not a file")
        return _read_start(path, None).decode()
    except OSError as exc:
        raise _HunkFailed(f"Failed to read file to update {_shown(path)}: {_why(exc)}") from exc
    except UnicodeDecodeError as exc:
        if exc.reason == "unexpected end of data":
            found = "incomplete utf-8 byte sequence"
        else:
            found = f"invalid utf-8 sequence of {exc.end - exc.start} bytes"
        raise _HunkFailed(f"Failed to read file to update {_shown(path)}: {found} from index {exc.start}") from exc


def _read_start(path: str, size: int | None) -> bytes:
    """The first bytes of a file; all of them for None."""
    # Without O_NONBLOCK, what became a FIFO in the meantime would hold us here until somebody writes to it.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        return file.read(size)


def _write(path: str, text: str, pinned: bool) -> None:
    """Write a file in place, its parents too if they are missing.

    Raises:
        _HunkFailed: With the state of the file, unless it could not even be opened.
    """
    failure = f"Failed to write file {_shown(path)}"
    try:
        content = text.encode()
        descriptor, created = _opened(path)
        try:
            if pinned:
                check_place(descriptor, path)
            _fill(descriptor, content, path, created, failure)
        finally:
            os.close(descriptor)
    except (OSError, UnicodeEncodeError) as exc:
        raise _HunkFailed(failure) from exc


def _opened(path: str) -> tuple[int, bool]:
    """A descriptor to write to, and whether the file is new. What it held is still there."""
    # Opening a FIFO that nobody reads must fail, not wait: the original hangs there for good.
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path, flags), False
    except FileNotFoundError:
        pass
    try:
        return os.open(path, flags | os.O_CREAT, 0o666), True
    except FileNotFoundError:
        pass
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    except OSError as exc:
        raise _HunkFailed(f"Failed to create parent directories for {_shown(path)}") from exc
    return os.open(path, flags | os.O_CREAT, 0o666), True


def _fill(descriptor: int, content: bytes, path: str, created: bool, failure: str) -> None:
    """Make `content` all that the file holds.

    The original truncates first: on a full disk the old content is gone, and nothing says so. Here it is overwritten
    from its start, so its blocks stay with the file until the new content is complete, and else take it back.
    """
    before = os.fstat(descriptor)
    if not stat.S_ISREG(before.st_mode):
        _write_all(descriptor, content)
        return
    old_start: bytes | None = b""
    if before.st_size and content:
        try:
            old_start = _read_start(path, len(content))
        except OSError:  # one may write what one may not read
            old_start = None
    try:
        _write_all(descriptor, content)
        os.ftruncate(descriptor, len(content))
    except OSError as exc:
        state = _undo(descriptor, path, created, old_start, before.st_size)
        raise _HunkFailed(f"{failure}\n{_why(exc)}; {state}") from exc


def _write_all(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _undo(descriptor: int, path: str, created: bool, old_start: bytes | None, old_size: int) -> str:
    """Bring back what the file held before a write that failed, and say what it holds now."""
    try:
        if created:
            os.remove(os.path.realpath(path))  # of a link that led nowhere, the file and not the link
            return "the file was not created"
        if old_start is not None:
            os.lseek(descriptor, 0, os.SEEK_SET)
            _write_all(descriptor, old_start)
            os.ftruncate(descriptor, old_size)
            return "the file is unchanged"
    except OSError:
        pass
    return "the file is incomplete, and what it held before is lost"


def _remove_moved(source: str, destination: str, pinned: bool) -> None:
    """Remove the source of a move, unless it is what was just written.

    The original removes it then too, and with it the content: a file moved onto itself is gone.
    """
    try:
        if not _is_one_file(source, destination):
            (remove_there if pinned else os.remove)(source)
    except OSError as exc:
        raise _HunkFailed(f"Failed to remove original {_shown(source)}") from exc


def _is_one_file(source: str, destination: str) -> bool:
    """Whether `destination` would be gone, or lead nowhere, without `source`."""
    if source == destination:
        return True
    name = os.lstat(source)
    if not any(os.path.samestat(name, other) for other in (os.lstat(destination), os.stat(destination))):
        return False
    # One file. With a single name it is the same name, whatever the spelling (of a file system that ignores case, too);
    # with several, removing one leaves the others.
    return name.st_nlink == 1 or os.path.realpath(destination) == os.path.join(
        os.path.realpath(os.path.dirname(source)), os.path.basename(source)
    )


def main(argv: Sequence[str]) -> int:
    """The command `apply_patch`: one patch, as the argument or on stdin.

    Args:
        argv: Without the name of the command.

    Returns:
        0 if the patch was applied, 2 for a wrong call, 1 for everything else that failed.
    """
    if not argv:
        return _from_stdin()
    patch = _text(argv[0])
    if patch is None:
        return _failed("Error: apply_patch requires a UTF-8 PATCH argument.")
    if len(argv) > 1:
        return _failed("Error: apply_patch accepts exactly one argument.", 2)
    return _run(patch)


def run_as(argv: Sequence[str]) -> int:
    """The same behind `--codex-run-as-apply-patch`, where other programs of codex start it.

    Args:
        argv: What comes after that flag. More than the patch is ignored.
    """
    patch = _text(argv[0]) if argv else None
    if patch is None:
        return _failed("Error: --codex-run-as-apply-patch requires a UTF-8 PATCH argument.")
    return _run(patch)


def run_at(given: bytes) -> int:
    """The same for the agent, which says in which places.

    Args:
        given: A path and its two places, and so on, each followed by a NUL, and another one; nothing before that for
            places as they are. Then the patch.
    """
    named, _, patch = given.partition(b"\0\0")
    names = os.fsdecode(named).split("\0") if named else []
    places = {path: (real, name) for path, real, name in zip(*[iter(names)] * 3, strict=True)}
    return _run(patch.decode(), places or None)


def _text(argument: str) -> str | None:
    try:
        return os.fsencode(argument).decode()
    except UnicodeError:
        return None


def _from_stdin() -> int:
    try:
        # Python has no stdin where descriptor 0 is closed.
        patch = sys.stdin.buffer.read().decode() if sys.stdin else ""
    except UnicodeDecodeError:
        return _failed("Error: Failed to read PATCH from stdin.\nstream did not contain valid UTF-8")
    except OSError as exc:
        return _failed(f"Error: Failed to read PATCH from stdin.\n{_why(exc)}")
    if not patch:
        return _failed("Usage: apply_patch 'PATCH'\n       echo 'PATCH' | apply_patch", 2)
    return _run(patch)


def _run(patch: str, places: Mapping[str, tuple[str, str]] | None = None) -> int:
    try:
        cwd = os.getcwd()
    except OSError as exc:
        return _failed(f"Error: Failed to determine current directory.\n{_why(exc)}")
    try:
        applied = apply(parse(patch), cwd, places)
    except (PatchError, PatchNotApplied) as exc:
        return _failed(str(exc))
    try:
        _say(sys.stdout, applied.summary())
    except OSError as exc:
        # What is left in the buffer must not fail again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _failed(f"The patch was applied, but stdout does not take the result: {_why(exc)}")
    return 0


def _failed(message: str, status: int = 1) -> int:
    _say(sys.stderr, message)
    return status


def _say(stream: TextIO | None, message: str) -> None:
    if stream is not None:  # its descriptor was closed before we started
        # Always UTF-8: a locale that cannot spell a path must not make a failure of a patch that was applied.
        stream.buffer.write(f"{message}\n".encode(errors="replace"))
        stream.flush()
