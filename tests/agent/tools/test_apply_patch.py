"""Patches applied to files, and the command: what changes, what is said, and what is left after a failure.

Longer than most modules: the function and the command must say and leave the same.
"""

import errno
import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from agent.tools import apply_patch
from agent.tools.apply_patch import Applied, Change, ChangeKind, PatchNotApplied, apply, main, run_as
from agent.tools.patch import parse

ADDED, MODIFIED, DELETED = ChangeKind
ROOT = str(Path(apply_patch.__file__).parents[2])
NOBODY = 65534


def text(*lines):
    return "\n".join(["*** Begin Patch", *lines, "*** End Patch"])


@pytest.fixture
def workspace(tmp_path):
    """A directory with one file in it, that is also the current one of the command."""
    (tmp_path / "a").write_text("x\ny\n")
    return tmp_path


@pytest.fixture
def patched(workspace):
    """Applies a patch of these lines in the workspace."""
    return lambda *lines: apply(parse(text(*lines)), str(workspace))


@pytest.fixture
def command(workspace, monkeypatch, capsys):
    """Runs the command in the workspace: (exit code, stdout, stderr)."""
    monkeypatch.chdir(workspace)

    def run(*argv, stdin=b"", entry=main):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        return entry(argv), *capsys.readouterr()

    return run


def refused(patched, *lines):
    with pytest.raises(PatchNotApplied) as caught:
        patched(*lines)
    return caught.value


def test_files_are_added_modified_moved_and_deleted_in_the_order_of_the_patch(workspace, patched):
    applied = patched(
        "*** Update File: a", "-x", "+q",
        "*** Add File: new/b", "+b",
        "*** Update File: a", "*** Move to: new/c", " q",
        "*** Delete File: new/b",
    )  # fmt: skip

    assert applied == Applied(
        (Change(MODIFIED, "a"), Change(ADDED, "new/b"), Change(MODIFIED, "new/c"), Change(DELETED, "new/b"))
    )
    assert [path.name for path in workspace.rglob("*")] == ["new", "c"]
    assert (workspace / "new/c").read_text() == "q\ny\n"


def test_the_summary_groups_what_was_done_and_spells_paths_as_the_patch_does(patched):
    applied = patched("*** Delete File: ./a", "*** Add File: c//d", "*** Update File: c/d", "+x", "*** Add File: e")

    assert applied.summary() == "Success. Updated the following files:\nA c//d\nA e\nM c/d\nD ./a"


def test_an_added_file_takes_the_place_of_an_old_one(workspace, patched):
    patched("*** Add File: a", "+z")

    assert (workspace / "a").read_text() == "z\n"


@pytest.mark.parametrize("path", ["new", "d/new"])
def test_the_umask_alone_decides_the_mode_of_a_new_file(workspace, patched, path):
    patched(f"*** Add File: {path}")

    (workspace / "touched").touch()
    assert (workspace / path).stat().st_mode == (workspace / "touched").stat().st_mode


def test_a_path_is_read_by_its_words_and_may_be_absolute(workspace, patched):
    patched("*** Update File: missing/../a", "-x", f"*** Update File: /{workspace}/a", "-y")

    assert (workspace / "a").read_text() == ""


def test_modes_hard_links_and_symbolic_links_stay(workspace, patched):
    (workspace / "a").chmod(0o750)
    (workspace / "hard").hardlink_to(workspace / "a")
    (workspace / "soft").symlink_to("a")

    patched("*** Update File: soft", "-x", "+a much longer line")

    assert (workspace / "soft").is_symlink()
    assert (workspace / "hard").read_text() == "a much longer line\ny\n"
    assert (workspace / "a").stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        ("a", "a"),
        ("a", "./a"),
        ("a", "soft"),
        ("soft", "soft"),
        ("there/a", "a"),
        ("hard", "hard"),
        ("hard", "to-hard"),
    ],
)
def test_a_file_moved_onto_itself_is_not_lost(workspace, patched, source, destination):
    """The original writes the destination and then removes the source, which here is the same file."""
    (workspace / "soft").symlink_to("a")
    (workspace / "there").symlink_to(".")
    if "hard" in source:
        (workspace / "hard").hardlink_to(workspace / "a")
        (workspace / "to-hard").symlink_to("hard")

    patched(f"*** Update File: {source}", f"*** Move to: {destination}", "-x", "+z")

    assert (workspace / destination).read_text() == "z\ny\n"


def test_a_file_moved_onto_another_spelling_of_its_name_is_not_lost(workspace, patched, monkeypatch):
    """As where a file system ignores case: the paths differ, and no link tells that they are one."""
    (workspace / "there").symlink_to(".")
    monkeypatch.setattr(os.path, "realpath", lambda path: path)

    patched("*** Update File: there/a", "*** Move to: a", "-x", "+z")

    assert (workspace / "a").read_text() == "z\ny\n"


@pytest.mark.parametrize(("source", "destination"), [("soft", "a"), ("hard", "a"), ("a", "hard"), ("a", "b")])
def test_the_source_of_a_move_to_another_name_is_removed(workspace, patched, source, destination):
    (workspace / "soft").symlink_to("a")
    (workspace / "hard").hardlink_to(workspace / "a")

    patched(f"*** Update File: {source}", f"*** Move to: {destination}", "-x", "+z")

    assert not os.path.lexists(workspace / source)
    assert (workspace / destination).read_text() == "z\ny\n"


def test_a_failure_names_what_was_changed_before_it(workspace, patched):
    failure = refused(patched, "*** Add File: b", "*** Update File: a", "-x", "*** Delete File: q", "*** Add File: c")

    assert failure.changes == (Change(ADDED, "b"), Change(MODIFIED, "a"))
    assert failure.reason == f"Failed to delete file {workspace}/q"
    assert str(failure) == f"{failure.reason}\nThese changes were made before the failure and stay:\nA b\nM a"
    assert not (workspace / "c").exists()


def test_the_first_failure_is_told_in_the_words_of_the_original_alone(workspace, patched):
    assert str(refused(patched, "*** Delete File: q", "*** Add File: c")) == f"Failed to delete file {workspace}/q"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "No files were modified."),
        (["*** Update File: q", "-x"], "Failed to read file to update {w}/q: No such file or directory (os error 2)"),
        (["*** Update File: a/q", "-x"], "Failed to read file to update {w}/a/q: Not a directory (os error 20)"),
        (["*** Update File: loop", "-x"], "Failed to read file to update {w}/loop: Symbolic link loop (os error 40)"),
        (["*** Update File: d", "-x"], "Failed to read file to update {w}/d: path `{w}/d` is not a file"),
        (["*** Update File: fifo", "-x"], "Failed to read file to update {w}/fifo: path `{w}/fifo` is not a file"),
        (["*** Update File: a", "@@ q", "-x"], "Failed to find context 'q' in {w}/a"),
        (["*** Update File: a", "-q", "-"], "Failed to find expected lines in {w}/a:\nq\n"),
        (["*** Delete File: d"], "Failed to delete file {w}/d"),
        (["*** Delete File: to-d"], "Failed to delete file {w}/to-d"),
        (["*** Delete File: nowhere"], "Failed to delete file {w}/nowhere"),
        (["*** Add File: d"], "Failed to write file {w}/d"),
        (["*** Add File: a/q"], "Failed to write file {w}/a/q"),
        (["*** Add File: loop"], "Failed to write file {w}/loop"),
        (["*** Add File: fifo"], "Failed to write file {w}/fifo"),
        (["*** Add File: nowhere/q"], "Failed to create parent directories for {w}/nowhere/q"),
        (["*** Update File: a", "*** Move to: d", "-x"], "Failed to write file {w}/d"),
        (["*** Delete File: \0"], "'\0' is invalid on 'linux'"),
        (["*** Delete File: \ud800"], "'\ud800' is invalid on 'linux'"),
        (["*** Add File: a", "+\ud800"], "Failed to write file {w}/a"),
    ],
)
def test_a_failure_is_told_in_the_words_of_the_original_and_changes_nothing(workspace, patched, lines, message):
    (workspace / "d").mkdir()
    (workspace / "to-d").symlink_to("d")
    (workspace / "nowhere").symlink_to("missing")
    (workspace / "loop").symlink_to("loop")
    os.mkfifo(workspace / "fifo")
    before = sorted(workspace.iterdir())

    assert str(refused(patched, *lines)) == message.format(w=workspace)
    assert sorted(workspace.iterdir()) == before
    assert (workspace / "a").read_text() == "x\ny\n"


def test_what_is_added_to_a_pipe_that_somebody_reads_reaches_him(workspace, patched):
    """The control of the FIFO above, which nobody reads."""
    os.mkfifo(workspace / "fifo")
    reader = os.open(workspace / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    try:
        patched("*** Add File: fifo", "+x")
        assert os.read(reader, 10) == b"x\n"
    finally:
        os.close(reader)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"x\xff", "invalid utf-8 sequence of 1 bytes from index 1"),
        (b"\xf0\x9f\x98x", "invalid utf-8 sequence of 3 bytes from index 0"),
        (b"x\xe2\x82", "incomplete utf-8 byte sequence from index 1"),
    ],
)
def test_a_file_that_is_no_text_is_not_updated_but_may_be_replaced(workspace, patched, content, found):
    (workspace / "a").write_bytes(content)

    failure = refused(patched, "*** Update File: a", "-x")

    assert str(failure) == f"Failed to read file to update {workspace}/a: {found}"
    patched("*** Add File: a", "+x")


@pytest.fixture
def unprivileged():
    """A directory of somebody whom file modes do hold back; root becomes nobody until the test ends."""
    with tempfile.TemporaryDirectory() as name:
        root = os.geteuid() == 0
        if root:
            os.chown(name, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        try:
            yield Path(name)
        finally:
            if root:
                os.seteuid(0)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["*** Update File: none", "-x"], "Failed to read file to update {w}/none: Permission denied (os error 13)"),
        (["*** Update File: read", "-x"], "Failed to write file {w}/read"),
        (["*** Add File: none"], "Failed to write file {w}/none"),
        (["*** Add File: d/new"], "Failed to write file {w}/d/new"),
        (["*** Add File: d/e/new"], "Failed to create parent directories for {w}/d/e/new"),
        (["*** Delete File: d/old"], "Failed to delete file {w}/d/old"),
        (
            ["*** Update File: d/old", "*** Move to: new", "-x"],
            "Failed to remove original {w}/d/old\nThese changes were made before the failure and stay:\nM new",
        ),
    ],
)
def test_what_may_not_be_read_or_written_is_not(unprivileged, lines, message):
    (unprivileged / "d").mkdir()
    for name, mode in (("none", 0), ("read", 0o400), ("d/old", 0o400)):
        (unprivileged / name).write_text("x\n")
        (unprivileged / name).chmod(mode)
    (unprivileged / "d").chmod(0o500)

    with pytest.raises(PatchNotApplied) as caught:
        apply(parse(text(*lines)), str(unprivileged))
    assert str(caught.value) == message.format(w=unprivileged)
    (unprivileged / "d").chmod(0o700)


def test_a_file_that_may_be_written_but_not_read_may_be_replaced(unprivileged):
    (unprivileged / "a").write_text("x\n")
    (unprivileged / "a").chmod(0o200)

    apply(parse(text("*** Add File: a", "+y")), str(unprivileged))

    (unprivileged / "a").chmod(0o600)
    assert (unprivileged / "a").read_text() == "y\n"


def on_a_full_disk(workspace, *lines):
    """Apply in a process whose files may not grow beyond 64 KiB; what was raised."""
    code = (
        "import sys, resource; from agent.tools.apply_patch import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (65536, resource.RLIM_INFINITY)); sys.exit(main(sys.argv[1:]))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, text(*lines)], cwd=workspace, env={"PYTHONPATH": ROOT}, capture_output=True
    )
    assert (ran.returncode, ran.stdout) == (1, b"")
    return ran.stderr.decode()


MANY = ["+" + "z" * 1000] * 100
FULL = "File too large (os error 27)"


def test_on_a_full_disk_a_file_keeps_its_old_content(workspace):
    """The original truncates first, and leaves the first part of the new content."""
    said = on_a_full_disk(workspace, "*** Add File: b", "*** Update File: a", *MANY)

    assert said.splitlines() == [
        f"Failed to write file {workspace}/a",
        f"{FULL}; the file is unchanged",
        "These changes were made before the failure and stay:",
        "A b",
    ]
    assert (workspace / "a").read_text() == "x\ny\n"


@pytest.mark.parametrize("path", ["new", "d/new", "link"])
def test_on_a_full_disk_no_part_of_a_new_file_is_left(workspace, path):
    (workspace / "link").symlink_to("target")

    said = on_a_full_disk(workspace, f"*** Add File: {path}", *MANY)

    assert said == f"Failed to write file {workspace}/{path}\n{FULL}; the file was not created\n"
    assert not (workspace / path).exists() and (workspace / "link").is_symlink()


def test_when_the_old_content_cannot_be_brought_back_the_failure_says_so(workspace, patched, monkeypatch):
    write = os.write

    def disk_of_one_byte(descriptor, content):
        if len(content) < 4:
            raise OSError(errno.ENOSPC, "")
        return write(descriptor, content[:1])

    monkeypatch.setattr(os, "write", disk_of_one_byte)
    failure = refused(patched, "*** Update File: a", "-x")

    assert str(failure).splitlines()[1] == (
        "No space left on device (os error 28); the file is incomplete, and what it held before is lost"
    )


def test_the_command_takes_the_patch_as_its_argument_or_on_stdin(workspace, command):
    success = "Success. Updated the following files:\nM a\n"

    assert command(text("*** Update File: a", "-x"), stdin=b"ignored") == (0, success, "")
    assert command(stdin=text("*** Update File: a", "-y").encode()) == (0, success, "")
    assert (workspace / "a").read_text() == ""


@pytest.mark.parametrize(
    ("argv", "stdin", "status", "message"),
    [
        ([], b"", 2, "Usage: apply_patch 'PATCH'\n       echo 'PATCH' | apply_patch"),
        (["x", "y"], b"", 2, "Error: apply_patch accepts exactly one argument."),
        (["\udcff", "y"], b"", 1, "Error: apply_patch requires a UTF-8 PATCH argument."),
        ([], b"\xff", 1, "Error: Failed to read PATCH from stdin.\nstream did not contain valid UTF-8"),
        ([""], b"", 1, "Invalid patch: The last line of the patch must be '*** End Patch'"),
        (["--help"], b"", 1, "Invalid patch: The first line of the patch must be '*** Begin Patch'"),
        ([text()], b"", 1, "No files were modified."),
    ],
)
def test_a_wrong_call_is_refused_in_the_words_of_the_original(command, argv, stdin, status, message):
    assert command(*argv, stdin=stdin) == (status, "", message + "\n")


@pytest.mark.parametrize("argv", [[], ["\udcff"]])
def test_behind_the_flag_there_must_be_a_patch_in_utf_8(command, argv):
    message = "Error: --codex-run-as-apply-patch requires a UTF-8 PATCH argument.\n"

    assert command(*argv, stdin=text("*** Delete File: a").encode(), entry=run_as) == (1, "", message)


def test_behind_the_flag_more_arguments_are_ignored(workspace, command):
    assert command(text("*** Delete File: a"), "more", entry=run_as)[0] == 0
    assert not (workspace / "a").exists()


def test_a_directory_that_is_gone_is_told(workspace, command):
    (workspace / "gone").mkdir()
    os.chdir(workspace / "gone")
    (workspace / "gone").rmdir()

    assert command(text("*** Add File: a")) == (
        1,
        "",
        "Error: Failed to determine current directory.\nNo such file or directory (os error 2)\n",
    )


def started(workspace, *, patch=None, **options):
    """The command as a process, its descriptors as `options` say."""
    code = "import sys; from agent.tools.apply_patch import main; sys.exit(main(sys.argv[1:]))"
    argv = [sys.executable, "-c", code, *([patch] if patch else [])]
    environ = {"PYTHONPATH": ROOT, "LC_ALL": "en_US.ISO-8859-1", "PYTHONIOENCODING": "ascii"}
    return subprocess.run(argv, cwd=workspace, env=environ, stderr=subprocess.PIPE, **options)


def test_a_result_that_nobody_takes_is_a_failure_that_says_the_patch_was_applied(workspace):
    with open("/dev/full", "wb") as full:
        ran = started(workspace, patch=text("*** Update File: a", "-x"), stdout=full)

    assert ran.returncode == 1
    assert ran.stderr.decode().splitlines() == [
        "The patch was applied, but stdout does not take the result: No space left on device (os error 28)"
    ]
    assert (workspace / "a").read_text() == "y\n"


def test_closed_descriptors_are_no_failure(workspace):
    patch = text("*** Update File: a", "-x")

    assert started(workspace, patch=patch, preexec_fn=lambda: os.close(1)).returncode == 0
    assert started(workspace, preexec_fn=lambda: os.close(0)).returncode == 2


def test_a_path_is_said_in_utf_8_whatever_the_locale(workspace):
    ran = started(workspace, patch=text("*** Add File: \u2013ä"), stdout=subprocess.PIPE)

    assert (ran.returncode, ran.stdout.decode()) == (0, "Success. Updated the following files:\nA \u2013ä\n")


def test_the_command_imports_little():
    """It starts once for each edit. One line with a dataclass, or a regular expression, doubles what that takes."""
    code = "import sys; from agent.tools import apply_patch; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {ROOT!r}); {code}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()

    assert not {"dataclasses", "typing", "enum", "re", "pathlib", "argparse", "asyncio", "pydantic"} & set(loaded)
    ours = {name for name in loaded if name.startswith("agent.tools.")}
    assert ours == {"agent.tools.patch", "agent.tools.places", "agent.tools.search", apply_patch.__name__}
