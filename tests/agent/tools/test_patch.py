"""The patch format: what is read, where it fits, and the words for what does not."""

import difflib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.tools.patch import (
    BEGIN,
    END,
    AddFile,
    Chunk,
    ChunkLine,
    DeleteFile,
    Kind,
    Patch,
    PatchError,
    UpdateFile,
    apply_chunks,
    parse,
)

HEADERS = "Valid hunk headers: '*** Add File: {path}', '*** Delete File: {path}', '*** Update File: {path}'"
FIRST_CHARACTERS = "Every line should start with ' ' (context line), '+' (added line), or '-' (removed line)"
DELETE = "*** Delete File: a"
UPDATE = "*** Update File: a"


def patch(*lines):
    return "\n".join([BEGIN, *lines, END])


def chunk(*lines, context=None, at_end=False):
    return Chunk(context, tuple(ChunkLine(Kind(line[0]), line[1:]) for line in lines), at_end)


def updated(text, *lines):
    """The text after an update with these lines."""
    (hunk,) = parse(patch(UPDATE, *lines)).hunks
    assert isinstance(hunk, UpdateFile)
    return apply_chunks(text, hunk.chunks, "/w/a")


def test_each_kind_of_hunk_is_read_in_order():
    text = patch(
        "*** Add File: new", "+one", "++", "+",
        "*** Delete File: old",
        "*** Update File: from", "*** Move to: to", " kept", "-gone", "+come", "",
        "@@ def f():", "+x", "*** End of File",
    )  # fmt: skip

    assert parse(text) == Patch(
        (
            AddFile("new", "one\n+\n\n"),
            DeleteFile("old"),
            UpdateFile(
                "from", "to", (chunk(" kept", "-gone", "+come", " "), chunk("+x", context="def f():", at_end=True))
            ),
        )
    )


def test_an_added_file_without_lines_is_empty():
    assert parse(patch("*** Add File: a")).hunks == (AddFile("a", ""),)


def test_a_patch_without_hunks_is_well_formed():
    assert parse(patch()).hunks == ()


@pytest.mark.parametrize("start", ["<<EOF", "<<'EOF'", '<<"EOF"'])
def test_a_heredoc_around_the_patch_is_taken_off(start):
    assert parse(f"{start}\n{patch(DELETE)}\nEOF\n") == parse(patch(DELETE))


@pytest.mark.parametrize("start", ["<<EOF ", "<<-EOF", "<<'EOF\"", "<<PATCH", "cat <<EOF"])
def test_what_only_looks_like_a_heredoc_is_not(start):
    with pytest.raises(PatchError, match="The first line of the patch must be"):
        parse(f"{start}\n{patch(DELETE)}\nEOF")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"\n\n {BEGIN} \n \t{DELETE}\t \n\t{END}\n\n", id="blanks"),
        pytest.param(f"{BEGIN}\r\n{DELETE}\r\n{END}\r\n", id="CRLF"),
        pytest.param(f"\u2003{BEGIN}\n\u3000{DELETE}\u2028\n\x85{END}\u202f", id="Unicode blanks"),
        pytest.param(f"{BEGIN}\n{DELETE}\n{END}\n \n{END}", id="ended twice"),
    ],
)
def test_around_markers_blanks_do_not_matter(text):
    assert parse(text) == parse(patch(DELETE))


def test_every_carriage_return_at_the_end_of_a_line_is_dropped():
    assert parse(patch("*** Add File: a", "+x\ry\r\r")).hunks == (AddFile("a", "x\ry\n"),)


def test_what_only_python_takes_for_a_blank_is_none():
    """str.strip() takes U+001F off, the original leaves it: the name of the file ends with it."""
    assert parse(patch("*** Delete File: a\x1f")).hunks == (DeleteFile("a\x1f"),)


def test_in_an_update_a_leading_blank_makes_a_marker_a_context_line():
    (hunk,) = parse(patch(UPDATE, " *** End of File", " @@", " *** Delete File: b", " *** End Patch")).hunks

    assert hunk == UpdateFile("a", None, (chunk(" *** End of File", " @@", " *** Delete File: b", " *** End Patch"),))


def test_the_last_line_of_a_heredoc_ends_the_patch_even_with_a_leading_blank():
    assert parse(f"<<EOF\n{BEGIN}\n{UPDATE}\n-x\n {END}\nEOF") == parse(patch(UPDATE, "-x"))


def test_an_environment_may_be_named_first():
    assert parse(patch(" *** Environment ID:  x ", DELETE)) == Patch((DeleteFile("a"),), "x")


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("", None, "Invalid patch: The last line of the patch must be '*** End Patch'"),
        ("foo", None, "Invalid patch: The first line of the patch must be '*** Begin Patch'"),
        (END, None, "Invalid patch: The first line of the patch must be '*** Begin Patch'"),
        (BEGIN, None, "Invalid patch: The last line of the patch must be '*** End Patch'"),
        (f"{BEGIN}\nfoo", None, "Invalid patch: The last line of the patch must be '*** End Patch'"),
        (patch(DELETE, END, "foo"), None, "Invalid patch: The last line of the patch must be '*** End Patch'"),
        (f"<<EOF\n{BEGIN}\n{DELETE}\nEOF", None, "Invalid patch: The last line of the patch must be '*** End Patch'"),
        (patch("*** Environment ID:"), None, "Invalid patch: apply_patch environment_id cannot be empty"),
        (
            patch("*** Environment ID: x", "*** Environment ID: x"),
            None,
            "Invalid patch: apply_patch environment_id cannot be specified more than once",
        ),
        (patch("foo"), 2, f"'foo' is not a valid hunk header. {HEADERS}"),
        (patch(DELETE, ""), 3, f"'' is not a valid hunk header. {HEADERS}"),
        (patch("*** Add File: "), 2, f"'*** Add File:' is not a valid hunk header. {HEADERS}"),
        (patch("*** Add File: a", "+x", " y"), 4, f"'y' is not a valid hunk header. {HEADERS}"),
        (patch(DELETE, "*** Environment ID: x"), 3, f"'*** Environment ID: x' is not a valid hunk header. {HEADERS}"),
        (patch(UPDATE), 2, "Update file hunk for path 'a' is empty"),
        (patch(UPDATE, "*** End of File"), 2, "Update file hunk for path 'a' is empty"),
        (patch(UPDATE, "*** Move to: b", DELETE), 2, "Update file hunk for path 'a' is empty"),
        (patch(UPDATE, "@@"), 4, "Update hunk does not contain any lines"),
        (patch(UPDATE, "@@ x", "*** End of File"), 4, "Update hunk does not contain any lines"),
        (patch(UPDATE, "@@", DELETE), 4, f"Unexpected line found in update hunk: '{DELETE}'. {FIRST_CHARACTERS}"),
        (patch(UPDATE, "@@x"), 3, f"Unexpected line found in update hunk: '@@x'. {FIRST_CHARACTERS}"),
        (patch(UPDATE, "@@ x", "@@ y"), 4, f"Unexpected line found in update hunk: '@@ y'. {FIRST_CHARACTERS}"),
        (patch(UPDATE, "*** Move"), 3, f"Unexpected line found in update hunk: '*** Move'. {FIRST_CHARACTERS}"),
        (patch(UPDATE, "-x", "foo "), 4, "Expected update hunk to start with a @@ context marker, got: 'foo '"),
        (
            patch(UPDATE, "-x", "*** Move to: b"),
            4,
            "Expected update hunk to start with a @@ context marker, got: '*** Move to: b'",
        ),
        (
            patch(UPDATE, "-x", "*** End of File", "", "+x"),
            6,
            "Expected update hunk to start with a @@ context marker, got: '+x'",
        ),
    ],
)  # fmt: skip
def test_what_is_not_well_formed_is_refused_in_the_words_of_the_original(text, line, reason):
    with pytest.raises(PatchError) as caught:
        parse(text)

    assert caught.value.line == line
    assert str(caught.value) == (f"Invalid patch hunk on line {line}: {reason}" if line else reason)


@pytest.mark.parametrize(
    ("text", "lines", "result"),
    [
        pytest.param("x\n x\nx \n", ["-x", "+q"], "q\n x\nx \n", id="exact"),
        pytest.param(" x\nx \n", ["-x", "+q"], " x\nq\n", id="trailing blanks before leading ones"),
        pytest.param("\u2013x\n\t-x\n", ["--x", "+q"], "\u2013x\nq\n", id="leading blanks before typography"),
        pytest.param("\u2018a\u201b\u2014\u201eb\u201f\u3000c\n", ["-'a'-\"b\" c", "+q"], "q\n", id="typography"),
        pytest.param("a\nb\n", ["@@ \u00a0a", "-b"], "a\n", id="context too"),
    ],
)
def test_the_strictest_of_four_passes_wins(text, lines, result):
    assert updated(text, *lines) == result


@pytest.mark.parametrize(
    ("text", "lines", "result"),
    [
        pytest.param("b\na\nb\n", ["@@ a", "-b", "+q"], "b\na\nq\n", id="behind the context"),
        pytest.param("b\nb\n", ["@@ b", "-b", "+q"], "b\nq\n", id="behind the context, not at it"),
        pytest.param("a\na\nb\n", ["-a", "-b", "+q"], "a\nq\n", id="where all lines are, not only the first"),
        pytest.param("b\nb\nb\n", ["-b", "+1", "@@", "-b", "+2"], "1\n2\nb\n", id="one chunk behind the other"),
        pytest.param("b\na\nb\n", ["-b", "+q", "*** End of File"], "b\na\nq\n", id="at the end"),
        pytest.param("a\nb\n", ["@@ a", "+q"], "a\nb\nq\n", id="nothing old: appended, whatever the context"),
        pytest.param("a\nb\n", ["+1", "@@", "-a", "+q"], "q\nb\n1\n", id="appended first, changed later"),
        pytest.param("a\nb\n", ["+1", "@@", " b", "+2"], "a\nb\n1\n2\n", id="appended twice"),
        pytest.param("a\n", ["-a", "+b", " "], "b\n", id="an empty string behind the last newline"),
        pytest.param("a\n", [" a", " ", "+q"], "a\n\nq\n", id="an empty line that is not there, with more behind it"),
        pytest.param("a\n", [" ", "+q"], "\nq\na\n", id="only an empty line that is not there"),
        pytest.param("\nx\ny\n", [" ", "-x", "-"], "\ny\n", id="the original drops the context line here"),
        pytest.param("a", ["-a", "+b"], "b\n", id="the last line always ends"),
        pytest.param("a", [" a"], "a\n", id="even when nothing changes"),
        pytest.param("", ["+a"], "a\n", id="empty before"),
        pytest.param("a\n", ["-a"], "", id="empty after"),
    ],
)
def test_a_chunk_goes_where_the_original_puts_it(text, lines, result):
    assert updated(text, *lines) == result


def test_a_context_line_stays_as_the_file_has_it():
    assert updated("a \n\u2013b\n", " a", "+q", " -b") == "a \nq\n\u2013b\n"


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("x\r\ny\r\n", "x\r\nq\r\n"),
        ("x\r\ny", "x\r\nq\r\n"),
        ("x\ny\r\n", "x\nq\n"),
        ("x\ry\r", "x\rq\r"),
        ("x\ry\r\n", "x\rq\r"),
        ("x\ny\nz\r\n", "x\nq\nz\r\n"),
        ("x\r\ny\nz", "x\r\nq\r\nz\r\n"),
    ],
)
def test_kept_lines_keep_their_endings_and_new_ones_end_like_the_first(text, result):
    assert updated(text, " x", "-y", "+q") == result


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["@@ q", "-a"], "Failed to find context 'q' in /w/a"),
        (["-b", "-", "-q"], "Failed to find expected lines in /w/a:\nb\n\nq"),
        (["-b", "@@", "-a"], "Failed to find expected lines in /w/a:\na"),
        (["-a", "*** End of File"], "Failed to find expected lines in /w/a:\na"),
        (["-b", "@@", "-a", "-b", "*** End of File"], "Failed to find expected lines in /w/a:\na\nb"),
    ],
)
def test_a_chunk_that_fits_nowhere_is_refused_in_the_words_of_the_original(lines, reason):
    with pytest.raises(PatchError) as caught:
        updated("a\nb\n", *lines)

    assert (caught.value.line, str(caught.value)) == (None, reason)


# Few different lines, so that there are many places that a chunk might fit; and some that look like markers.
LINES = st.lists(st.sampled_from(["a", "b", " a", "a ", "", "\u2013", "-", "@@", END]), max_size=12)


def difference(old, new):
    """The lines of one update from old to new, each chunk with all of the old lines in it."""
    lines = ["@@"]
    for tag, start, end, new_start, new_end in difflib.SequenceMatcher(a=old, b=new, autojunk=False).get_opcodes():
        if tag == "equal":
            lines += [" " + line for line in old[start:end]]
        else:
            lines += ["-" + line for line in old[start:end]] + ["+" + line for line in new[new_start:new_end]]
    return lines


@given(LINES, LINES, st.sampled_from(["\n", "\r\n", "\r"]))
def test_the_difference_of_two_texts_makes_the_second_of_the_first(old, new, ending):
    if not old + new:
        return
    text = "".join(line + ending for line in old)

    # Of an empty file nobody knows how its lines would end.
    own = ending if old else "\n"
    assert updated(text, *difference(old, new)) == "".join(line + own for line in new)


@given(LINES, st.data(), st.integers(1, 3))
def test_small_chunks_find_their_places_by_lines_that_are_unique(old, data, context):
    old = [f"{number} {line}" for number, line in enumerate(old)]
    kept = [line for line in old if data.draw(st.booleans())]
    new = [line for one in kept for line in [*data.draw(st.lists(st.sampled_from(["new", ""]), max_size=2)), one]]
    matcher = difflib.SequenceMatcher(a=old, b=new, autojunk=False)
    lines = []
    for group in matcher.get_grouped_opcodes(context):
        (_, start, _, new_start, _), (_, _, end, _, new_end) = group[0], group[-1]
        lines += difference(old[start:end], new[new_start:new_end])

    if lines:
        assert updated("".join(line + "\n" for line in old), *lines) == "".join(line + "\n" for line in new)


PIECES = st.sampled_from(
    [BEGIN, END, DELETE, UPDATE, "*** Add File: a", "*** Move to: b", "*** End of File", "*** Environment ID: x",
     "@@", "@@ a", "-a", "+a", " a", "", " ", "\t", "a", "<<EOF", "EOF", f" {END}", "\x1c", "\udc80"],
)  # fmt: skip


@given(st.lists(PIECES, max_size=10).map("\n".join) | st.text())
def test_reading_arbitrary_text_raises_nothing_but_a_patch_error(text):
    for candidate in (text, patch(text), f"<<EOF\n{patch(text)}\nEOF"):
        try:
            parse(candidate)
        except PatchError as exc:
            assert exc.reason.startswith("Invalid patch")


VALID = patch(
    "*** Environment ID: x", DELETE, "*** Add File: b", "+x", UPDATE, "*** Move to: c", "@@ x", " y", "-z", "+q"
)


@given(st.integers(0, len(VALID)), st.integers(0, 12), st.text(max_size=3) | PIECES)
def test_reading_a_broken_patch_raises_nothing_but_a_patch_error(start, length, instead):
    try:
        parse(VALID[:start] + instead + VALID[start + length :])
    except PatchError as exc:
        assert exc.line is None or 2 <= exc.line <= VALID.count("\n") + instead.count("\n") + 1


@given(st.text(), st.lists(st.sampled_from([" a", "-a", "+a", " ", "-", "@@", "@@ a", "*** End of File"]), min_size=1))
def test_applying_to_arbitrary_text_raises_nothing_but_a_patch_error(text, lines):
    try:
        result = updated(text, *lines)
    except PatchError:
        return
    assert result == "" or result.endswith(("\n", "\r"))
