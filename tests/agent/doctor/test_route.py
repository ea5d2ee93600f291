"""What the outcome of the trial means; the trial itself is in test_trial.py and tests/agent/commands/test_doctor.py."""

import pytest

from agent.doctor.findings import Level
from agent.doctor.route import (
    CANARIES,
    Arrival,
    CommandFacts,
    Knock,
    Listening,
    Stamped,
    canary_findings,
    command_findings,
    listening_finding,
    refusal_findings,
    scoped_route,
    stamped,
)

MARK = "0123abcd"
OURS = f'{{"v":1,"s":0,"t":"v1.{MARK}-1"}}'


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], Stamped.NOTHING),
        ([OURS], Stamped.OK),
        ([OURS, OURS], Stamped.SEVERAL),
        (['{"v":1,"s":0,"t":"v1.another-1"}'], Stamped.FOREIGN),  # forged: no token of the desktop
        (['{"v":1,"s":0}'], Stamped.FOREIGN),
        (["forged"], Stamped.FOREIGN),
        (['{"v":1,"s":1}'], Stamped.LATE),
        (['{"v":1,"s":2}'], Stamped.FAILED),
        (['{"v":1,"s":4}'], Stamped.FAILED),
    ],
)
def test_a_request_is_stamped_if_it_carries_one_token_that_the_desktop_made(values, expected):
    assert stamped(values, MARK) is expected


@pytest.mark.parametrize(
    ("method", "path", "is_websocket", "name"),
    [
        ("POST", "/backend-api/codex/responses", False, "responses"),
        ("GET", "/backend-api/codex/responses?x=1", True, "responses"),
        ("GET", "/backend-api/codex/responses", False, None),
        ("POST", "/backend-api/codex/responses/compact", False, "compact"),
        ("POST", "/backend-api/codex/realtime/calls", False, "realtime-call"),
        ("GET", "/v1/realtime?call_id=rtc_1", True, "realtime-sideband"),
        ("GET", "/backend-api/codex/models", False, None),
    ],
)
def test_a_request_belongs_to_the_scope_by_what_arrived(method, path, is_websocket, name):
    row = scoped_route(method, path, is_websocket=is_websocket)
    assert (None if row is None else row.name) == name


# Canaries

NAMES = [canary.name for canary in CANARIES]
ARRIVED = [
    Arrival("responses", "post", "/r", Stamped.OK, "post"),
    Arrival("responses", "websocket", "/r", Stamped.OK, "websocket"),
    Arrival(None, "post", "/oauth/token", Stamped.NOTHING, "login"),
]


def canary_levels(reports=None, arrivals=ARRIVED):
    reports = dict.fromkeys(NAMES, "") | (reports or {})
    return dict(zip(NAMES, (one.level for one in canary_findings(reports, arrivals)), strict=True))


def but(name, **changes):
    import dataclasses

    return [dataclasses.replace(one, **changes) if one.canary == name else one for one in ARRIVED]


def test_canaries_that_arrive_stamped_are_fine():
    assert set(canary_levels().values()) == {Level.OK}


@pytest.mark.parametrize("name", NAMES)
def test_a_canary_that_does_not_arrive_is_a_problem(name):
    levels = canary_levels({name: "SSLCertVerificationError"}, [one for one in ARRIVED if one.canary != name])
    assert [key for key, level in levels.items() if level is Level.PROBLEM] == [name]


@pytest.mark.parametrize("name", NAMES)
def test_one_that_was_answered_without_arriving_went_around(name):
    findings = canary_findings(dict.fromkeys(NAMES, ""), [one for one in ARRIVED if one.canary != name])
    assert any(one.level is Level.PROBLEM and "somebody else" in one.found for one in findings)


@pytest.mark.parametrize("name", NAMES)
def test_one_whose_answer_is_lost_is_a_problem(name):
    assert canary_levels({name: "TimeoutError"})[name] is Level.PROBLEM


@pytest.mark.parametrize(
    ("carried", "level"),
    [
        (Stamped.NOTHING, Level.PROBLEM),
        (Stamped.FOREIGN, Level.PROBLEM),
        (Stamped.SEVERAL, Level.PROBLEM),
        (Stamped.FAILED, Level.PROBLEM),
        (Stamped.LATE, Level.WARNING),
    ],
)
def test_one_that_arrives_and_is_not_stamped_is_a_problem_unless_the_machine_was_only_late(carried, level):
    assert canary_levels(arrivals=but("websocket", stamped=carried))["websocket"] is level


@pytest.mark.parametrize("carried", [Stamped.OK, Stamped.FOREIGN])
def test_a_sign_in_that_carries_the_header_is_a_problem(carried):
    assert canary_levels(arrivals=but("login", stamped=carried))["login"] is Level.PROBLEM


def test_a_child_that_reports_nothing_is_a_problem_for_each():
    assert {one.level for one in canary_findings({}, [])} == {Level.PROBLEM}


# Refusals


@pytest.mark.parametrize(
    ("expected", "status", "level"),
    [
        (407, 407, Level.OK),
        (403, 403, Level.OK),
        (0, 502, Level.OK),
        (407, 200, Level.PROBLEM),
        (0, 200, Level.PROBLEM),
        (407, 403, Level.WARNING),
        (403, None, Level.PROBLEM),
        (0, None, Level.PROBLEM),
    ],
)
def test_what_must_be_refused_and_is_let_through_is_a_problem(expected, status, level):
    (finding,) = refusal_findings([Knock("a CONNECT", expected, status)])
    assert finding.level is level


@pytest.mark.parametrize(
    ("listening", "level"),
    [
        (Listening.OURS, Level.OK),
        (Listening.STRANGER, Level.PROBLEM),
        (Listening.NOBODY, Level.PROBLEM),
        (Listening.SILENT, Level.PROBLEM),
        (Listening.ANOTHER, Level.WARNING),
    ],
)
def test_a_shell_that_names_a_proxy_that_has_ended_has_a_problem(listening, level):
    assert listening_finding("HTTPS_PROXY", "http://127.0.0.1:1", listening).level is level


# The command

POSTED = Arrival("responses", "post", "/r", Stamped.OK)
UPGRADED = Arrival("responses", "websocket", "/r", Stamped.OK)
OTHER = Arrival(None, "get", "/backend-api/codex/models", Stamped.NOTHING)


def of_command(*arrivals, code=0, **facts):
    return command_findings(CommandFacts("codex", 60.0, code=code, arrivals=arrivals, **facts))


def worst(findings):
    return max((finding.level for finding in findings), key=list(Level).index)


def test_a_command_whose_requests_all_arrive_stamped_is_fine():
    findings = of_command(UPGRADED, POSTED, POSTED, OTHER)
    assert {finding.level for finding in findings} == {Level.OK}
    assert [(one.looked_at, one.found[:9]) for one in findings[:2]] == [
        ("responses by post", "2 arrived"),
        ("responses by websocket", "1 arrived"),
    ]


@pytest.mark.parametrize("carried", [Stamped.NOTHING, Stamped.FOREIGN, Stamped.FAILED])
def test_one_unstamped_request_among_others_is_a_problem(carried):
    assert worst(of_command(UPGRADED, Arrival("responses", "websocket", "/r", carried))) is Level.PROBLEM


@pytest.mark.parametrize(
    ("arrivals", "connected", "word"),
    [
        ((), {"chatgpt.com": 0}, "nothing by way of the proxy"),
        ((), {"chatgpt.com": 3, "api.openai.com": 0}, "connected to chatgpt.com"),
        ((OTHER, OTHER), {"chatgpt.com": 1}, "only get /backend-api/codex/models"),
    ],
)
def test_without_a_scoped_request_it_is_told_how_far_the_command_came(arrivals, connected, word):
    findings = of_command(*arrivals, connected=connected)
    assert findings[0].level is Level.PROBLEM and word in findings[0].found


def test_what_was_found_before_is_named_where_nothing_arrived():
    finding = of_command(suspects=("'/h/.env' line 1: HTTPS_PROXY",))[0]
    assert "look at '/h/.env' line 1: HTTPS_PROXY" in finding.advice


@pytest.mark.parametrize(("suspects", "level"), [((), Level.NOTE), (("x",), Level.WARNING)])
def test_posts_alone_are_worth_a_word_since_websockets_may_have_gone_around(suspects, level):
    finding = next(one for one in of_command(POSTED, suspects=suspects) if one.looked_at == "responses by websocket")
    assert finding.level is level


def test_a_header_where_none_belongs_is_a_problem():
    assert worst(of_command(UPGRADED, Arrival(None, "get", "/models", Stamped.OK))) is Level.PROBLEM


def test_a_connection_past_the_proxy_is_evidence():
    findings = of_command(UPGRADED, past=("codex (7) to 192.0.2.1:443",))
    assert any(one.level is Level.WARNING and "192.0.2.1:443" in one.found for one in findings)


@pytest.mark.parametrize(("arrivals", "level"), [((), Level.PROBLEM), ((UPGRADED,), Level.WARNING)])
def test_a_command_that_had_to_be_killed_is_told(arrivals, level):
    finding = of_command(*arrivals, code=None)[-1]
    assert finding.level is level and "after 60 s, and was killed" in finding.found


def test_an_exit_code_of_its_own_is_a_note():
    assert of_command(UPGRADED, code=3)[-1].level is Level.NOTE


def test_a_command_that_is_not_there_is_one_problem():
    (finding,) = command_findings(CommandFacts("nosuch", 60.0, "not found on PATH"))
    assert finding.level is Level.PROBLEM and "not found on PATH" in finding.found


def test_long_lists_are_cut_and_counted():
    arrivals = [Arrival(None, "get", f"/{number}", Stamped.NOTHING) for number in range(9)]
    assert "get /4 and 4 more" in of_command(*arrivals)[0].found
