"""What came of the trial: a local stand-in of ChatGPT, the proxy for real before it, and clients that go through. Pure.

The stand-in is the judge: a request counts as arrived if it reached it, which it can by way of the proxy only.
"""

import enum
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.doctor.findings import Finding, Level, Topic
from proxy.attestation import ATTESTATION_BUDGET_S, AttestationStatus, open_envelope
from proxy.scope import ROUTES, Route


class Stamped(enum.StrEnum):
    """What an arrived request carried."""

    OK = "stamped with a token of the desktop"
    LATE = "stamped with the status of a timeout"
    FAILED = "stamped with a failure status"
    FOREIGN = "carried a value that is not the desktop's"
    SEVERAL = "carried more than one value"
    NOTHING = "carried none"


def stamped(values: Sequence[str], mark: str) -> Stamped:
    """Judge the attestation headers of one request.

    Args:
        mark: What each token of the scripted desktop contains.
    """
    if len(values) != 1:
        return Stamped.SEVERAL if values else Stamped.NOTHING
    envelope = open_envelope(values[0])
    match envelope.status:
        case None:
            return Stamped.FOREIGN
        case AttestationStatus.OK:
            return Stamped.OK if envelope.token is not None and mark in envelope.token else Stamped.FOREIGN
        case AttestationStatus.TIMEOUT:
            return Stamped.LATE
        case _:
            return Stamped.FAILED


def scoped_route(method: str, path: str, *, is_websocket: bool) -> Route | None:
    """The row of the scope that a request at the stand-in belongs to, by what arrived there."""
    bare = path.partition("?")[0].encode()
    fitting = (row for row in ROUTES if (row.method, row.path, row.websocket) == (method.encode(), bare, is_websocket))
    return next(fitting, None)


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request as it reached the stand-in.

    Args:
        route: Its row of the scope; None if it has none.
        transport: "websocket", or the method in lower case.
        path: Without the query.
        canary: The mark of the canary that sent it; None if it is nobody's.
    """

    route: str | None
    transport: str
    path: str
    stamped: Stamped
    canary: str | None = None


# Canaries: our own clients, in a child process with the environment that children get


@dataclass(frozen=True, slots=True)
class Canary:
    """What one of them was to do.

    Args:
        name: As in its report.
        what: In words, with the library that does it.
        scoped: Whether the request belongs to the scope, and must arrive stamped.
    """

    name: str
    what: str
    scoped: bool


CANARIES = (
    Canary("post", "a POST of a model request, by aiohttp", True),
    Canary("websocket", "a WebSocket handshake, by websockets", True),
    Canary("login", "a request to the sign-in service, by urllib", False),
)


def canary_findings(reports: Mapping[str, str], arrivals: Sequence[Arrival]) -> list[Finding]:
    """One finding for each canary.

    Args:
        reports: name -> why it failed, as the child said it; "" if it got its answer.
    """
    return [_canary(canary, reports, arrivals) for canary in CANARIES]


def _canary(canary: Canary, reports: Mapping[str, str], arrivals: Sequence[Arrival]) -> Finding:
    def tell(level: Level, text: str, advice: str = "") -> Finding:
        return Finding(Topic.ROUTE, level, canary.what, text, advice)

    environment = "look at what is said above about the environment and the files that are trusted"
    problem = reports.get(canary.name, "the child process ended without a word about it")
    arrived = [one for one in arrivals if one.canary == canary.name]
    if not arrived:
        text = (
            f"did not reach the stand-in: {problem}" if problem else "was answered by somebody else than the stand-in"
        )
        return tell(Level.PROBLEM, text, environment)
    if problem:
        return tell(Level.PROBLEM, f"reached the stand-in, and its answer did not come back: {problem}", environment)
    carried = arrived[-1].stamped
    if not canary.scoped:
        if carried is Stamped.NOTHING:
            return tell(Level.OK, "arrived, without the header, and trusted what it met")
        return tell(Level.PROBLEM, f"is not in scope and {carried}", "report this: the proxy stamped what it must not")
    return tell(*_stamp_judged(carried))


def _stamp_judged(carried: Stamped) -> tuple[Level, str, str]:
    """(level, what was found, what to do) for a scoped request that arrived."""
    if carried is Stamped.OK:
        return Level.OK, f"arrived, {carried}", ""
    if carried is Stamped.LATE:
        text = f"arrived, {carried}: the scripted desktop did not answer within {ATTESTATION_BUDGET_S * 1000:.0f} ms"
        return Level.WARNING, text, "run this again when the machine is less busy; a real desktop would be late, too"
    return Level.PROBLEM, f"arrived and {carried}", "run this again with -v, and report what the proxy logs"


# Refusals: what the proxy must not do


@dataclass(frozen=True, slots=True)
class Knock:
    """A CONNECT that must be refused.

    Args:
        what: In words.
        expected: The status that says so; 0 for any but 2xx.
        status: What was answered; None if nothing was.
    """

    what: str
    expected: int
    status: int | None


def refusal_findings(knocks: Sequence[Knock]) -> list[Finding]:
    """Whether the proxy's protection is on."""
    found = []
    for knock in knocks:
        if knock.status is not None and 200 <= knock.status < 300:
            advice = "do not use this proxy, and report this"
            text = "was let through"
            found.append(Topic.REFUSALS.problem(knock.what, text, advice))
        elif knock.status is None:
            text = "was not answered at all; " + (
                f"{knock.expected} was expected" if knock.expected else "a refusal was"
            )
            advice = "run this again with -v to see what the proxy logs"
            found.append(Topic.REFUSALS.problem(knock.what, text, advice))
        elif knock.expected not in (0, knock.status):
            text = f"was refused with {knock.status}; {knock.expected} was expected"
            found.append(Topic.REFUSALS.warning(knock.what, text, "report this"))
        else:
            found.append(Topic.REFUSALS.ok(knock.what, f"was refused with {knock.status}"))
    return found


class Listening(enum.Enum):
    """Who answers at the loopback proxy that a variable of the shell names."""

    NOBODY = enum.auto()
    SILENT = enum.auto()
    ANOTHER = enum.auto()  # it is no proxy of ours
    STRANGER = enum.auto()  # ours, and the credentials in the variable are not its own
    OURS = enum.auto()


def listening_finding(variable: str, shown: str, listening: Listening) -> Finding:
    """What it means for an agent that is started from this shell."""
    looked_at = f"{variable} {shown}"
    again = "start countersign proxy again, and take what it prints into this shell; or unset the variable"
    match listening:
        case Listening.OURS:
            return Topic.ROUTE.ok(looked_at, "a countersign proxy listens there and takes the credentials")
        case Listening.STRANGER:
            text = "a countersign proxy listens there, and does not take these credentials: they are of another run"
        case Listening.NOBODY:
            text = "nobody listens there: what this shell starts cannot connect, until the variable is mended"
        case Listening.SILENT:
            text = "accepts a connection and does not answer"
        case Listening.ANOTHER:
            text = "another proxy than countersign's listens there: what this shell starts by itself goes unstamped"
            advice = "start the agent by countersign run, or unset the variable"
            return Topic.ROUTE.warning(looked_at, text, advice)
    return Topic.ROUTE.problem(looked_at, text, again)


# The command that was given


@dataclass(frozen=True, slots=True)
class CommandFacts:
    """What one command did behind the proxy.

    Args:
        name: Its first word.
        not_started: Why it could not be started, empty if it could.
        code: Its exit code; None if it was killed because its time was up.
        timeout_s: The seconds that it had.
        arrivals: What reached the stand-in.
        connected: How often each stamped host was connected to by way of the proxy, also where nothing came of it.
        past: "PROCESS to ADDRESS" for each connection of its processes that did not lead to the proxy, where that
            could be seen.
        suspects: What the checks before have found to lead requests elsewhere.
    """

    name: str
    timeout_s: float
    not_started: str = ""
    code: int | None = None
    arrivals: tuple[Arrival, ...] = ()
    connected: Mapping[str, int] | None = None
    past: tuple[str, ...] = ()
    suspects: tuple[str, ...] = ()


# So many of a kind are listed.
_MOST_LISTED = 5


def command_findings(facts: CommandFacts) -> list[Finding]:
    """Which routes arrived, which went around, and whether they were stamped."""
    looked_at = repr(facts.name)
    if facts.not_started:
        text = f"could not be started: {facts.not_started}"
        advice = "name a program on PATH, or its path, behind --"
        return [Topic.COMMAND.problem(looked_at, text, advice)]
    groups = Counter(
        (one.route, one.transport, one.stamped) for one in facts.arrivals if one.route is not None
    )  # fmt: skip
    found = []
    for (route, transport, carried), requests in sorted(groups.items()):
        level, text, advice = _stamp_judged(carried)
        found.append(Finding(Topic.COMMAND, level, f"{route} by {transport}", f"{requests} {text}", advice))
    found += _leaked(facts)
    if not groups:
        found.append(_nothing_scoped(looked_at, facts))
    elif ("responses", "websocket") not in {(route, transport) for route, transport, _ in groups}:
        found.append(_no_websocket(facts))
    if facts.past:
        text = f"connected past the proxy: {_listed(facts.past)}"
        advice = "see whether that is ChatGPT; if so, " + _culprits(facts)
        found.append(Topic.COMMAND.warning(looked_at, text, advice))
    found.append(_end(looked_at, facts, arrived=bool(groups)))
    return found


def _no_websocket(facts: CommandFacts) -> Finding:
    """Model requests came by POST alone, which is how an agent goes on when its WebSocket could not be opened."""
    text = "no handshake arrived; if this agent has WebSockets on, its handshakes go around, or fail"
    if facts.suspects:
        return Topic.COMMAND.warning("responses by websocket", text, _culprits(facts))
    return Topic.COMMAND.note("responses by websocket", text)


def _leaked(facts: CommandFacts) -> list[Finding]:
    """What is not in scope and carried the header nevertheless."""
    leaked = [one for one in facts.arrivals if one.route is None and one.stamped is not Stamped.NOTHING]
    advice = "report this: the proxy stamped what it must not"
    return [
        Topic.COMMAND.problem(f"{one.transport} {one.path}", f"is not in scope and {one.stamped}", advice)
        for one in leaked
    ]


def _nothing_scoped(looked_at: str, facts: CommandFacts) -> Finding:
    """Why nothing arrived that should be stamped, as far as can be told."""
    connected = {host: times for host, times in (facts.connected or {}).items() if times}
    others = tuple(dict.fromkeys(f"{one.transport} {one.path}" for one in facts.arrivals))
    if others:
        text = f"sent no scoped request by way of the proxy, only {_listed(others)}"
        advice = f"if it ran a turn, that went around; {_culprits(facts)}"
    elif connected:
        names = ", ".join(sorted(connected))
        text = (
            f"connected to {names} by way of the proxy, and sent nothing: it seems not to trust the proxy's authority"
        )
        advice = (
            "let it trust the file that SSL_CERT_FILE names, which is set for it; a program with roots of its own has "
            "an option of its own for that"
        )
    else:
        text = "sent nothing by way of the proxy: it goes around, or asks nothing of ChatGPT"
        advice = f"if it ran a turn, that went around; {_culprits(facts)}"
    return Topic.COMMAND.problem(looked_at, text, f"{advice}; -v shows what it says itself")


def _culprits(facts: CommandFacts) -> str:
    if facts.suspects:
        return f"look at {_listed(facts.suspects)}"
    return "let it use HTTPS_PROXY, which is set for it"


def _end(looked_at: str, facts: CommandFacts, *, arrived: bool) -> Finding:
    if facts.code is None:
        text = f"had not ended after {facts.timeout_s:g} s, and was killed"
        advice = "give it more by --timeout, or give doctor a command that ends, such as codex exec hi"
        return Finding(Topic.COMMAND, Level.WARNING if arrived else Level.PROBLEM, looked_at, text, advice)
    if facts.code != 0:
        return Topic.COMMAND.note(looked_at, f"ended with {facts.code}; -v shows what it said")
    return Topic.COMMAND.ok(looked_at, "ended with 0")


def _listed(items: Sequence[str]) -> str:
    more = len(items) - _MOST_LISTED
    return ", ".join(items[:_MOST_LISTED]) + (f" and {more} more" if more > 0 else "")
