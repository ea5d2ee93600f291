"""What a run proves, and what keeps it from proving it."""

from xml.etree import ElementTree

import pytest

from proxy.capture.coverage import Coverage, CoverageRow, FailedConnection
from proxy.capture.proof import EXPECTABLE, Bypass, Proof, parse_expected

OK = CoverageRow("responses", "websocket", "ok", 3)


def coverage(*rows, tunnels=0, refused=0, failed=()):
    scoped = sum(row.requests for row in rows)
    attested = sum(row.requests for row in rows if row.outcome in ("ok", "native ok"))
    return Coverage(rows, scoped, attested, 2, refused, tunnels, failed)


def test_a_run_whose_scoped_requests_all_carried_a_token_holds():
    assert Proof(coverage(OK), ("websocket",), command_code=0).holds


@pytest.mark.parametrize(
    ("proof", "reason"),
    [
        (Proof(coverage()), "no scoped request came through the proxy"),
        (Proof(coverage(OK), ("post",)), "expected post (responses by post), and none came"),
        (Proof(coverage(OK, refused=2)), "2 × refused by the proxy before a route could be told"),
        (Proof(coverage(OK), command_code=3), "the command ended with code 3"),
        (Proof(coverage(OK), bypasses=(Bypass("codex (1)", "192.0.2.1:443", True),)), "codex (1) connected to 192"),
        *(
            (Proof(coverage(OK, CoverageRow("compact", "post", outcome, 1))), f"1 × compact by post: {told}")
            for outcome, told in [
                ("timeout", "the desktop did not answer in time"),
                ("failed", "the desktop answered with an error"),
                ("canceled", "the desktop went away"),
                ("malformed", "the desktop's answer was no token"),
                ("absent", "unstamped"),
                ("foreign", "a value that is no attestation envelope"),
                ("native failed", "native failed"),
                ("refused", "refused by the proxy"),
                ("unsent", "never sent"),
            ]
        ),
    ],
)
def test_it_does_not_hold_and_says_why(proof, reason):
    assert not proof.holds
    assert any(reason in problem for problem in proof.problems())


def test_a_connection_elsewhere_is_told_of_and_no_reason():
    proof = Proof(coverage(OK), bypasses=(Bypass("git (1)", "192.0.2.1:22", False),))
    assert proof.holds and proof.as_json()["bypasses"][0]["address"] == "192.0.2.1:22"


def test_a_connection_that_came_to_nothing_is_told_of_and_no_reason():
    """No request was on it; the agent may well have got through by the next one."""
    proof = Proof(coverage(OK, failed=(FailedConnection("chatgpt.com:443", "no answer", 2),)))
    assert proof.holds and list(proof.as_json()["coverage"]["failed"]) == [
        {"target": "chatgpt.com:443", "reason": "no answer", "connections": 2}
    ]


def test_native_tokens_count():
    assert Proof(coverage(CoverageRow("responses", "post", "native ok", 1)), ("post",)).holds


def test_the_json_has_all_of_it():
    proof = Proof(coverage(OK), ("post", "websocket"), command_code=0, watched=False, unwatched="who knows")
    content = proof.as_json()
    assert (content["holds"], content["missing"], content["expected"]) == (False, ["post"], ["post", "websocket"])
    assert content["coverage"]["out_of_scope"] == 2 and content["unwatched"] == "who knows"


def junit(proof):
    suite = ElementTree.fromstring(proof.as_junit()).find("testsuite")
    cases = {case.get("name"): case.find("failure") is not None for case in suite}
    assert (int(suite.get("tests")), int(suite.get("failures"))) == (len(cases), sum(cases.values()))
    return cases


def test_the_xml_has_a_case_for_each_row_and_demand():
    bad = CoverageRow("compact", "post", "timeout", 2)
    assert junit(Proof(coverage(OK, bad), ("post",), command_code=0)) == {
        "responses by websocket: ok": False,
        "compact by post: timeout": True,
        "post is expected": True,
        "nothing goes around the proxy": False,
        "the command succeeds": False,
    }


@pytest.mark.parametrize(
    "proof",
    [
        Proof(coverage()),
        Proof(coverage(OK), bypasses=(Bypass("<&>", "a:1", True),)),
        Proof(coverage(OK), command_code=1),
    ],
)
def test_the_xml_fails_whenever_the_proof_does(proof):
    assert any(junit(proof).values()) and not proof.holds


def test_expectations_are_read_from_a_list():
    assert parse_expected("websocket, post,websocket") == ("websocket", "post")
    assert set(parse_expected(",".join(EXPECTABLE))) == set(EXPECTABLE)


@pytest.mark.parametrize("text", ["pigeon", "", ",", "websocket,Post"])
def test_an_unknown_expectation_is_refused_by_name(text):
    with pytest.raises(ValueError, match="known are websocket, post, compact, realtime, sideband"):
        parse_expected(text)
