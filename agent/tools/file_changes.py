"""What a patch does to files, as clients see it, and what a turn has changed in all. Pure."""

import difflib
import hashlib
import io
import os
from dataclasses import dataclass
from typing import Any

# Pairs of lines that are compared; at worst they take a second or two.
_MOST_COMPARED = 400_000_000


@dataclass(frozen=True, slots=True)
class FileChange:
    """What a patch does to one file; None for a content where there is no file.

    Args:
        path: Absolute.
        moved_to: Absolute, None if it stays.
    """

    path: str
    before: str | None
    after: str | None
    moved_to: str | None = None

    def wire(self) -> dict[str, Any]:
        """As clients see it."""
        if self.before is None:
            return {"path": self.path, "kind": {"type": "add"}, "diff": self.after or ""}
        if self.after is None:
            return {"path": self.path, "kind": {"type": "delete"}, "diff": self.before}
        kind = {"type": "update", "move_path": self.moved_to}
        diff = _hunks(self.before, self.after)
        if self.moved_to is not None:
            diff += f"\n\nMoved to: {self.moved_to}"
        return {"path": self.path, "kind": kind, "diff": diff}

    def note(self, diffs: dict[str, tuple[str | None, str | None]]) -> None:
        """Add it to what a turn has changed: the content of each file before, and now."""
        if self.moved_to is not None:
            diffs[self.path] = (diffs.get(self.path, (self.before, None))[0], None)
            diffs[self.moved_to] = (diffs.get(self.moved_to, (None, None))[0], self.after)
        else:
            diffs[self.path] = (diffs.get(self.path, (self.before, None))[0], self.after)


def _hunks(before: str, after: str) -> str:
    # Only "\n" ends a line for git, not what else Python takes for an end.
    old, new = list(io.StringIO(before)), list(io.StringIO(after))
    if len(old) * len(new) <= _MOST_COMPARED:
        lines = list(difflib.unified_diff(old, new, n=3))[2:]
    else:
        lines = _one_hunk(old, new)
    return "".join(_ended(line) for line in lines)


def _one_hunk(old: list[str], new: list[str]) -> list[str]:
    """All between the first line that differs and the last, as one change: to find less can take hours."""
    most = min(len(old), len(new))
    first = next((at for at in range(most) if old[at] != new[at]), most)
    most -= first
    last = next((at for at in range(most) if old[-1 - at] != new[-1 - at]), most)
    start, more = max(first - 3, 0), min(last, 3)
    cut, put, shared = len(old) - last, len(new) - last, old[len(old) - last :][:more]
    head = f"@@ -{start + 1},{cut + more - start} +{start + 1},{put + more - start} @@\n"
    removed, added = [f"-{line}" for line in old[first:cut]], [f"+{line}" for line in new[first:put]]
    return [head, *(f" {line}" for line in old[start:first]), *removed, *added, *(f" {line}" for line in shared)]


def _ended(line: str) -> str:
    return line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def git_diff(diffs: dict[str, tuple[str | None, str | None]], cwd: str) -> str:
    """What a turn has changed, as git shows it; paths below `cwd` are relative to it."""
    parts = []
    for path in sorted(diffs):
        before, after = diffs[path]
        if before == after:
            continue
        name = os.path.relpath(path, cwd) if path.startswith(cwd.rstrip("/") + "/") else path
        parts.append(f"diff --git a/{name} b/{name}\n")
        if before is None:
            parts.append("new file mode 100644\n")
        if after is None:
            parts.append("deleted file mode 100644\n")
        parts.append(f"index {_blob(before)}..{_blob(after)}\n")
        parts.append(f"--- {'/dev/null' if before is None else f'a/{name}'}\n")
        parts.append(f"+++ {'/dev/null' if after is None else f'b/{name}'}\n")
        parts.append(_hunks(before or "", after or ""))
    return "".join(parts)


def _blob(content: str | None) -> str:
    """The name that git gives to a content."""
    if content is None:
        return "0" * 40
    raw = content.encode("utf-8", "surrogatepass")
    return hashlib.sha1(b"blob %d\0" % len(raw) + raw, usedforsecurity=False).hexdigest()
