"""The same patches, given to the real codex and to ours: what is said and what the files hold must be the same.

codex 0.163, which is here, and 0.169, whose rules we follow, were compared with some 500 inputs and did not differ.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.tools import apply_patch
from tests.interop.original import codex

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("codex")]

OURS = (
    "import sys; from agent.tools.apply_patch import main, run_as; flag, *more = sys.argv[1:] or ['']; "
    "sys.exit(run_as(more) if flag == '--codex-run-as-apply-patch' else main(sys.argv[1:]))"
)
DELETE = "*** Delete File: a"
UPDATE = "*** Update File: a"
BEGIN, END = "*** Begin Patch", "*** End Patch"
EARLIER = "These changes were made before the failure and stay:"


def text(*lines):
    return "\n".join([BEGIN, *lines, END])


def fill(workspace, content=b"x\ny\nz\n"):
    """Files of each kind, and links that lead to them, in circles and nowhere."""
    (workspace / "a").write_bytes(content)
    (workspace / "d").mkdir()
    (workspace / "d/f").write_text("f\n")
    for name, target in (("to-a", "a"), ("to-d", "d"), ("dangling", "new"), ("far", "no/where"), ("loop", "loop")):
        (workspace / name).symlink_to(target)
    (workspace / "crlf").write_bytes(b"x\r\ny\nz")
    (workspace / "bytes").write_bytes(b"x\n\xf0\x9f\x98x")


def left(workspace):
    """Everything below, by name: the target of a link, the bytes of a file, None of a directory."""
    found = {}
    for path in sorted(workspace.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(workspace))] = os.readlink(path)
        else:
            found[str(path.relative_to(workspace))] = path.read_bytes() if path.is_file() else None
    return found


def outcome(command, argv, stdin, content):
    """(exit code, stdout, stderr, files) of one command in a workspace of its own."""
    with tempfile.TemporaryDirectory() as name:
        workspace = Path(name).resolve() / "w"
        workspace.mkdir()
        fill(workspace, content)
        ran = subprocess.run(
            [*command, *(one.replace("$W", str(workspace)) if isinstance(one, str) else one for one in argv)],
            cwd=workspace, input=stdin, capture_output=True, timeout=60,
            env={"PYTHONPATH": str(Path(apply_patch.__file__).parents[2]), "HOME": name, "CODEX_HOME": name},
        )  # fmt: skip
        said = [one.decode().replace(str(workspace), "$W") for one in (ran.stdout, ran.stderr)]
        return ran.returncode, *said, left(workspace)


def both(*argv, stdin=b"", content=b"x\ny\nz\n", name="apply_patch"):
    """The outcomes of the original and of ours, the latter without the lines that only we say."""
    with tempfile.TemporaryDirectory() as directory:
        link = Path(directory) / name
        link.symlink_to(codex())
        theirs = outcome([str(link)], argv, stdin, content)
    status, out, err, files = outcome([sys.executable, "-S", "-c", OURS], argv, stdin, content)
    return theirs, (status, out, err.partition(EARLIER)[0], files)


@pytest.mark.parametrize(
    "patch",
    [
        "", " ", "foo", BEGIN, END, f"{BEGIN} {END}", f"{BEGIN}\nfoo", f"foo\n{DELETE}\n{END}", text(),
        f"\n {BEGIN} \n{DELETE}\n\t{END}\n", f"{BEGIN}\n{DELETE}\n{END}\nfoo", text(DELETE, END),
        text(DELETE, END, END),
        text(DELETE, END, "", "\t"), text(DELETE, END, "foo"), text(BEGIN, DELETE), text(END, DELETE),
        *(f"{start}\n{text(DELETE)}\n{end}" for start in ("<<EOF", "<<'EOF'", '<<"EOF"', "<<EOF ", "<<-EOF", "<<'EOF\"")
          for end in ("EOF", " xEOF\n", "EOFx")),
        f"<<EOF\n{END}\nEOF", f"<<EOF\n{BEGIN}\nEOF", f"<<EOF\n{text()}\nEOF", f"<<EOF\n\n{text(DELETE)}\n\nEOF",
        *(f"<<EOF\n{BEGIN}\n{UPDATE}\n{line}\n{blank}{END}\nEOF" for line in ("-x", "@@") for blank in " \t"),
        f"<<EOF\r\n{text(DELETE)}\r\nEOF\r\n", text(UPDATE, "-x", "+q").replace("\n", "\r\n"),
        text(UPDATE, "-x\r\r", "+q\r"), text("*** Add File: n", "+x\ry\r\r"), f"{BEGIN}\r{DELETE}\r{END}",
        *(f"{blank}{text(DELETE)}" for blank in "\xa0\x1c\v\f\x85\u200b\ufeff\u2028"),
        text(f"{DELETE}\x1f"), text(f"\x1d{DELETE}"), text(f"\u3000{DELETE}\u2029"),
    ],
)  # fmt: skip
def test_what_is_around_the_hunks_is_read_alike(patch):
    theirs, ours = both(patch)
    assert ours == theirs


@pytest.mark.parametrize(
    "lines",
    [
        ["*** Environment ID: e", DELETE], ["*** Environment ID:e"], ["*** Environment ID: ", DELETE],
        ["*** Environment ID: e", "*** Environment ID:"], [DELETE, "*** Environment ID: e"], ["*** Environment IDs"],
        ["foo"], [""], [DELETE, ""], [DELETE, "+x"], [f" {DELETE} ", "\t*** Add File: n\t", "+"],
        ["*** delete file: a"], ["*** Delete File:"], ["*** Delete File:  a"], ["*** Add File: "],
        ["*** Update File: ", "-x"],
        ["*** Add File: n", "+a", "", "+b"], ["*** Add File: n", " +a"], ["*** Add File: n", "++"], ["*** Add File: n"],
        ["*** Add File: n", "+a", "*** End of File"], ["*** Add File: n", "*** Move to: m", "+a"],
        [UPDATE], [UPDATE, DELETE], [UPDATE, "*** Move to: m"], [UPDATE, "*** Move to: m", "*** End of File"],
        [UPDATE, "@@"], [UPDATE, "@@ x"], [UPDATE, "@@", "@@", "-x"], [UPDATE, "@@", DELETE], [UPDATE, "@@", "foo"],
        [UPDATE, "foo "], [UPDATE, "-x", "foo "], [UPDATE, "-x", "\t"], [UPDATE, "\t"], [UPDATE, "@@x", "-x"],
        [UPDATE, "@@\tx", "-y"], [UPDATE, "@@ x\t", "-y"], [UPDATE, "@@  x", "-y"], [UPDATE, " @@", "-x"],
        [UPDATE, "-x", "\t@@ y"], [UPDATE, "@@\xa0", "-y"], [UPDATE, "@@ x\x1c", "-y"],
        [UPDATE, " *** Move to: m", "-x"], [UPDATE, "*** Move to: m ", "-x"], [UPDATE, "*** Move to: ", "-x"],
        [UPDATE, "*** Move to: m", "*** Move to: n", "-x"], [UPDATE, "", "*** Move to: m", "-x"],
        [UPDATE, "", "@@", "-x"],
        [UPDATE, "*** End of File"], [UPDATE, "*** End of File", "-x"], [UPDATE, "@@", "*** End of File", "-x"],
        [UPDATE, "-z", "*** End of File", "", " ", "\t", "@@", "+q"], [UPDATE, "-z", "*** End of File", " x"],
        [UPDATE, "-z", "*** End of File", "*** End of File"], [UPDATE, "-z", "*** End of File\xa0"],
        [UPDATE, "-z", "*** End of File\x1c"], [UPDATE, "-x", " *** End of File"], [UPDATE, "-x", f" {DELETE}"],
        [UPDATE, "-x", f"\t{DELETE}"], [UPDATE, "-x", f"{DELETE} "], [UPDATE, "-x", BEGIN], [UPDATE, "-x", "", DELETE],
    ],
)  # fmt: skip
def test_hunks_are_read_alike(lines):
    theirs, ours = both(text(*lines))
    assert ours == theirs


@pytest.mark.parametrize(
    "lines",
    [
        *([f"*** Add File: {path}", "+q"] for path in (
            "a", "to-a", "dangling", "far", "loop", "to-d", "d", "to-d/n", "a/n", "dangling/n", "loop/n",
            "p/q/r", "p/../n",
            "n/", "./n//m", "~/n", "'n'", "n m", "$W/n", "d/..", ".", "/", "n" * 300, "ä\u2013", "/dev/null",
            "/dev/full",
        )),
        *([f"*** Delete File: {path}"] for path in (
            "a", "to-a", "dangling", "loop", "to-d", "d", "q", "a/n", "loop/n", "to-d/f", "../w/a", "q/../a",
            "a/", "bytes",
        )),
        *([f"*** Update File: {path}", "-x", "+q"] for path in (
            "a", "to-a", "dangling", "loop", "to-d", "d", "q", "a/n", "loop/n", "crlf", "bytes",
            "../../../../../../../q",
            "//q", "n" * 300, "/dev/null", "$W/./a", "to-d/../a",
        )),
        *([UPDATE, f"*** Move to: {path}", "-x", "+q"] for path in (
            "b", "d/f", "d", "dangling", "a/n", "p/q", "loop", "crlf", "$W/b", "n" * 300, "dangling/n",
        )),
        ["*** Update File: to-a", "*** Move to: a", "-x"], ["*** Update File: to-a", "*** Move to: b", "-x"],
        ["*** Update File: crlf", "*** Move to: b", "-x", "+q"], [UPDATE, "*** Move to: b", "-q"],
        [UPDATE, "-x", "+q", UPDATE, "-q", "+r"], [DELETE, "*** Add File: a", "+n"], [DELETE, DELETE],
        ["*** Add File: n", "+n", "*** Update File: n", "-n", "*** Delete File: n"],
        ["*** Add File: n", "*** Delete File: crlf", "*** Add File: m", "*** Update File: a", "-x"],
        *(["*** Add File: n", "+n", *failing] for failing in (
            ["*** Update File: q", "-x"], [UPDATE, "-q"], [UPDATE, "@@ q", "-x"], ["*** Delete File: q"],
            ["*** Add File: d"], [UPDATE, "*** Move to: d", "-x"], ["*** Add File: dangling/n"],
        )),
    ],
)  # fmt: skip
def test_files_are_changed_alike(lines):
    theirs, ours = both(text(*lines))
    assert ours == theirs


@pytest.mark.parametrize("name", ["apply_patch", "applypatch"])
@pytest.mark.parametrize(
    ("argv", "stdin"),
    [
        ([], text(DELETE).encode()), ([], b""), ([], b" "), ([], b"\xff"),
        ([], b"\xef\xbb\xbf" + text(DELETE).encode()),
        ([text(DELETE)], b"ignored"), ([text(DELETE), ""], b""), ([""], text(DELETE).encode()), ([b"\xff"], b""),
        ([b"\xff", "x"], b""), (["--help"], b""), (["-"], b""), ([], text("*** Delete File: \0").encode()),
        ([], text("*** Add File: n", "+\0").encode()),
    ],
)  # fmt: skip
def test_the_command_is_called_alike(name, argv, stdin):
    theirs, ours = both(*argv, stdin=stdin, name=name)
    assert ours == theirs


@pytest.mark.parametrize("argv", [[], [b"\xff"], [text(DELETE)], [text(DELETE), "more"], [""], [text()]])
def test_behind_the_flag_the_patch_is_taken_alike(argv):
    theirs, ours = both("--codex-run-as-apply-patch", *argv, stdin=text(DELETE).encode(), name="codex")
    assert ours == theirs


LINES = st.sampled_from(["x", "y", "z", "", " x", "x ", "\ty", "\u2013", "-", "\u201cx\u201d"])
ENDINGS = st.sampled_from(["\n", "\n", "\r\n", "\r"])


@st.composite
def edits(draw):
    """A text and an update of it that mostly fits: its lines in order, some with other blanks, some gone, some new."""
    lines = draw(st.lists(LINES, max_size=7))
    content = "".join(line + draw(ENDINGS) for line in lines)
    rest = [*lines, ""] if draw(st.integers(0, 6)) == 0 else lines
    update = []
    while not update or (rest and draw(st.booleans())):
        if skipped := rest[: draw(st.integers(0, 2))]:
            rest = rest[len(skipped) :]
        update.append(draw(st.sampled_from(["@@", f"@@ {skipped[-1]}" if skipped else "@@"])))
        for _ in range(draw(st.integers(1, 4))):
            if not rest or draw(st.integers(0, 2)) == 0:
                update.append("+" + draw(LINES))
            else:
                line, *rest = rest
                other = draw(st.sampled_from([line, line, line, line.strip(), line + " ", line.replace("\u2013", "-")]))
                update.append(draw(st.sampled_from(" -")) + other)
        if draw(st.integers(0, 4)) == 0:
            update.append("*** End of File")
    return content, update


@settings(max_examples=100)
@given(edits())
def test_updates_make_the_same_text(edit):
    content, update = edit
    theirs, ours = both(text(UPDATE, *update), content=content.encode())
    if ours != theirs:
        # The one difference that is meant: see below, "a context line at the end".
        assert ours[:3] == theirs[:3]
        assert any(line.strip() == "" and line[:1] == "-" for line in update), (content, update)


@pytest.mark.parametrize(
    ("lines", "theirs", "ours"),
    [
        pytest.param([UPDATE, "*** Move to: ./a", "-x"], None, b"y\nz\n", id="a file moved onto itself is gone"),
        pytest.param([UPDATE, "*** Move to: to-a", "-x"], None, b"y\nz\n", id="so is one moved onto a link to it"),
        pytest.param(
            ["*** Add File: a", "+x", "+", "+y", UPDATE, "-x", " ", "-"], b"y\n", b"\ny\n",
            id="a context line at the end is dropped together with an empty one that is not there",
        ),
    ],
)  # fmt: skip
def test_where_the_original_loses_what_it_should_keep_ours_keeps_it(lines, theirs, ours):
    outcomes = both(text(*lines))

    assert [files.get("a") for *_, files in outcomes] == [theirs, ours]
    assert outcomes[0][:3] == outcomes[1][:3]
