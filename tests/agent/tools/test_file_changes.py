"""What a turn has changed, as git shows it."""

import random
import subprocess

from agent.tools.file_changes import git_diff


def applied(directory, before, diff):
    """What `git apply` makes of files."""
    for name, text in before.items():
        (directory / name).write_text(text)
    subprocess.run(["git", "init", "-q"], cwd=directory, check=True)
    subprocess.run(["git", "apply"], cwd=directory, input=diff.encode(), check=True)
    return {path.name: path.read_text() for path in directory.iterdir() if path.is_file()}


def test_the_diff_of_a_turn_is_one_that_git_applies(tmp_path):
    diffs = {
        "/work/changed": ("1\n2\n3", "1\ntwo\n3\n"),
        "/work/deleted": ("x\n", None),
        "/work/added": (None, "y"),
    }
    before = {"changed": "1\n2\n3", "deleted": "x\n"}
    after = {"changed": "1\ntwo\n3\n", "added": "y"}
    assert applied(tmp_path, before, git_diff(diffs, "/work")) == after


def test_files_that_would_take_hours_to_compare_are_shown_as_changed_in_one_piece(tmp_path):
    """Lines that come again and again, in another order: of 40,000 it took ten seconds, and nothing else happened."""
    lines = [f"x{number % 100}" for number in range(21_000)]
    other = random.Random(1).sample(lines, len(lines))  # noqa: S311 - no secret
    old, new = ("\n".join(["same", "same too", *some, "end", "of", "the", "file"]) for some in (lines, other))
    diff = git_diff({"/work/long": (old, new)}, "/work")
    assert diff.count("\n@@ ") == 1
    assert applied(tmp_path, {"long": old}, diff) == {"long": new}
    again = git_diff({"/work/long": (old, f"{old}\nmore")}, "/work")
    assert "-x" not in again


def test_a_line_ends_where_git_ends_it(tmp_path):
    """A form feed made two lines of one, the first "without newline"."""
    old, new = "a\fb\rc\u2028d\n", "a\fb\rc\u2028e\n"
    diff = git_diff({"/work/odd": (old, new)}, "/work")
    (tmp_path / "odd").write_bytes(old.encode())
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "apply"], cwd=tmp_path, input=diff.encode(), check=True)
    assert (tmp_path / "odd").read_bytes() == new.encode()
