"""What is said about a run, in words."""

import io

import pytest
from rich.console import Console

from agent.commands.report import print_coverage
from proxy.capture.coverage import Coverage, CoverageRow


def said(**counts):
    """The line below the table."""
    rows = (CoverageRow("responses", "post", "ok", 1),)
    coverage = Coverage(
        **{"rows": rows, "scoped": 1, "attested": 1, "out_of_scope": 0, "refused": 0, "tunnels": 0} | counts
    )
    console = Console(file=io.StringIO(), width=200)
    print_coverage(coverage, console)
    return console.file.getvalue().splitlines()[-1]


@pytest.mark.parametrize(
    ("counts", "line"),
    [
        ({}, "All 1 scoped requests carried a token (0 out of scope, 0 tunnels to other hosts)."),
        ({"attested": 0}, "1 of 1 scoped requests carried no token (0 out of scope, 0 tunnels to other hosts)."),
        (
            {"scoped": 0, "attested": 0, "out_of_scope": 1, "tunnels": 2},
            "No scoped request was made (1 out of scope, 2 tunnels to other hosts).",
        ),
        (
            {"refused": 3},
            "All 1 scoped requests carried a token (0 out of scope, 0 tunnels to other hosts, 3 refused).",
        ),
    ],
)
def test_one_line_says_what_the_table_means(counts, line):
    assert said(**counts) == line
