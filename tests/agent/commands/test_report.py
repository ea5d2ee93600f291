"""What is said about a run, in words."""

import io

import pytest

from agent.commands.report import print_coverage, print_proof, print_table
from proxy.capture.coverage import Coverage, CoverageRow, FailedConnection
from proxy.capture.proof import Proof


def said(**counts):
    """The line below the table."""
    rows = (CoverageRow("responses", "post", "ok", 1),)
    coverage = Coverage(
        **{"rows": rows, "scoped": 1, "attested": 1, "out_of_scope": 0, "refused": 0, "tunnels": 0} | counts
    )
    out = io.StringIO()
    print_coverage(coverage, out)
    return out.getvalue().splitlines()[-1]


@pytest.mark.parametrize(
    ("counts", "line"),
    [
        ({}, "1 of 1 scoped requests carried a token (out of scope: 0, tunnels to other hosts: 0)."),
        ({"attested": 0}, "0 of 1 scoped requests carried a token (out of scope: 0, tunnels to other hosts: 0)."),
        (
            {"scoped": 0, "attested": 0, "out_of_scope": 1, "tunnels": 2},
            "No scoped request was made (out of scope: 1, tunnels to other hosts: 2).",
        ),
        (
            {"refused": 3},
            "1 of 1 scoped requests carried a token (out of scope: 0, tunnels to other hosts: 0, refused: 3).",
        ),
    ],
)
def test_one_line_says_what_the_table_means(counts, line):
    assert said(**counts) == line


def test_connections_that_came_to_nothing_are_told_with_the_reason():
    failed = FailedConnection("chatgpt.com:443", "the upstream connection to 127.0.0.1:9 failed: refused", 2)
    assert said(failed=(failed,)) == (
        "2 × a connection to chatgpt.com:443 came to nothing: the upstream connection to 127.0.0.1:9 failed: refused"
    )


def test_a_sentence_is_not_broken_where_nobodys_screen_ends(monkeypatch):
    """It was folded at 80 columns, so that nobody could grep for it."""
    monkeypatch.setenv("COLUMNS", "20")
    assert said(refused=3).endswith("(out of scope: 0, tunnels to other hosts: 0, refused: 3).")


def test_a_table_in_a_file_is_not_folded_and_has_no_blanks_at_the_ends_of_its_lines(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    out, long = io.StringIO(), "/a/path" * 20
    print_table(("route", "status"), [(long, "ok"), ("[bold]short", "x")], out)
    lines = out.getvalue().splitlines()
    assert [line.split() for line in lines if "/" in line or "short" in line] == [[long, "ok"], ["[bold]short", "x"]]
    assert lines == [line.rstrip() for line in lines]


@pytest.mark.parametrize(("outcome", "last"), [("ok", "\x1b[32mPROOF HOLDS"), ("absent", "\x1b[31mPROOF DOES NOT")])
def test_a_proof_is_coloured_where_colours_are_wanted_and_nowhere_else(monkeypatch, outcome, last):
    coverage = Coverage((CoverageRow("responses", "post", outcome, 1),), 1, int(outcome == "ok"), 0, 0, 0)
    plain, coloured = io.StringIO(), io.StringIO()
    print_proof(Proof(coverage), plain)
    monkeypatch.setenv("FORCE_COLOR", "1")
    print_proof(Proof(coverage), coloured)
    assert "\x1b" not in plain.getvalue()
    assert last in coloured.getvalue()
