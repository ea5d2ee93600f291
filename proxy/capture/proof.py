"""What a run proves: did every scoped request carry a token, did the wanted ones come, did nothing go around? Pure.

As sentences, as plain data, and as the XML that CI systems read test results from (JUnit).
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from xml.etree import ElementTree

from proxy.capture.coverage import Coverage, CoverageRow

# What may be asked for, and the route and transport that it means.
EXPECTABLE = {
    "websocket": ("responses", "websocket"),
    "post": ("responses", "post"),
    "compact": ("compact", "post"),
    "realtime": ("realtime-call", "post"),
    "sideband": ("realtime-sideband", "websocket"),
}
GOOD_OUTCOMES = ("ok", "native ok")


@dataclass(frozen=True, slots=True)
class Bypass:
    """A connection that a process of the run opened by itself, past the proxy.

    Args:
        process: Its name and pid, such as "codex (4711)".
        address: Where to, such as "192.0.2.1:443".
        scoped: Whether a host is there whose requests are to be stamped; else the connection is only told of.
    """

    process: str
    address: str
    scoped: bool


@dataclass(frozen=True, slots=True)
class Proof:
    """The outcome of a run.

    Args:
        expected: Names of EXPECTABLE that had to come.
        command_code: The exit code of the command, None if there was none.
        watched: Whether the connections of its processes were looked at; `unwatched` says why not.
    """

    coverage: Coverage
    expected: tuple[str, ...] = ()
    bypasses: tuple[Bypass, ...] = ()
    command_code: int | None = None
    watched: bool = True
    unwatched: str = ""

    @property
    def missing(self) -> tuple[str, ...]:
        """What was expected and did not come."""
        seen = {(row.route, row.transport) for row in self.coverage.rows}
        return tuple(name for name in self.expected if EXPECTABLE[name] not in seen)

    @property
    def holds(self) -> bool:
        """Every scoped request carried a token, there was one, none was of a form that leaves open whether it was one,
        all that was expected came, and nothing went around."""
        return not any(self.problems())

    def problems(self) -> Iterator[str]:
        """Why it does not hold, a sentence each."""
        if self.command_code:
            yield f"the command ended with code {self.command_code}"
        if self.coverage.scoped == 0:
            yield (
                "no scoped request came through the proxy: the command made none, or it goes around the proxy "
                "(`countersign doctor -- CMD` looks for the reason)"
            )
        for row in self.coverage.rows:
            if row.outcome not in GOOD_OUTCOMES:
                yield f"{row.requests} × {row.route} by {row.transport}: {_EXPLAINED.get(row.outcome, row.outcome)}"
        if self.coverage.refused:
            yield f"{self.coverage.refused} × {_REFUSED}"
        for name in self.missing:
            yield f"expected {name} ({' by '.join(EXPECTABLE[name])}), and none came"
        for bypass in self.bypasses:
            if bypass.scoped:
                yield f"{bypass.process} connected to {bypass.address} past the proxy"

    def as_json(self) -> dict[str, Any]:
        """The same as plain data."""
        return {
            "holds": self.holds,
            "problems": list(self.problems()),
            "coverage": self.coverage.as_json(),
            "expected": list(self.expected),
            "missing": list(self.missing),
            "bypasses": [asdict(bypass) for bypass in self.bypasses],
            "watched": self.watched,
            "unwatched": self.unwatched,
            "command_code": self.command_code,
        }

    def as_junit(self) -> str:
        """The same as JUnit XML: a test case for each row, each expectation, the ways around, and the command."""
        cases = [*_cases(self.coverage.rows, self.missing, self.expected)]
        if self.coverage.scoped == 0:
            cases.append(("scoped requests", "none came through the proxy"))
        if self.coverage.refused:
            cases.append(("requests without a route", f"{self.coverage.refused} × {_REFUSED}"))
        around = [f"{one.process} to {one.address}" for one in self.bypasses if one.scoped]
        cases.append(("nothing goes around the proxy", "; ".join(around) or None))
        if self.command_code is not None:
            code = f"ended with code {self.command_code}" if self.command_code else None
            cases.append(("the command succeeds", code))
        failures = sum(failure is not None for _, failure in cases)
        suites = ElementTree.Element("testsuites")
        suite = ElementTree.SubElement(
            suites, "testsuite", name="countersign verify", tests=str(len(cases)), failures=str(failures), errors="0"
        )
        for name, failure in cases:
            case = ElementTree.SubElement(suite, "testcase", classname="countersign.attestation", name=name)
            if failure is not None:
                ElementTree.SubElement(case, "failure", message=failure)
        ElementTree.indent(suites)
        return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def parse_expected(text: str) -> tuple[str, ...]:
    """The names in a list with commas.

    Raises:
        ValueError: One is not known; the text names it and those that are.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in EXPECTABLE:
            raise ValueError(f"{name!r} cannot be expected; known are {', '.join(EXPECTABLE)}")
    if not names:
        raise ValueError(f"nothing is named; known are {', '.join(EXPECTABLE)}")
    return names


def _cases(
    rows: Sequence[CoverageRow], missing: Sequence[str], expected: Sequence[str]
) -> Iterator[tuple[str, str | None]]:
    for row in rows:
        good = row.outcome in GOOD_OUTCOMES
        name = f"{row.route} by {row.transport}: {row.outcome}"
        yield name, None if good else f"{row.requests} × {_EXPLAINED.get(row.outcome, row.outcome)}"
    for name in expected:
        yield f"{name} is expected", "none came" if name in missing else None


_REFUSED = "refused by the proxy before a route could be told: malformed, or misdirected (the capture tells which)"

# What the outcomes of coverage mean, where the word alone does not tell.
_EXPLAINED = {
    "timeout": "the desktop did not answer in time (timeout)",
    "failed": "the desktop answered with an error (failed)",
    "canceled": "the desktop went away while it was asked (canceled)",
    "malformed": "the desktop's answer was no token (malformed)",
    "absent": "unstamped: no desktop to ask, or nothing there to be seen (absent)",
    "foreign": "a value that is no attestation envelope (foreign)",
    "refused": "refused by the proxy, nothing was sent (refused)",
    "unsent": "never sent: the upstream or the client was gone before (unsent)",
}
