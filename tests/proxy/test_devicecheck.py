"""The client of Apple's DeviceCheck server: how it takes each answer, and whom it asks."""

import ssl

import pytest

from proxy.devicecheck import (
    SERVERS,
    Answer,
    Environment,
    Patience,
    Verdict,
    decisive,
    judge,
)
from proxy.standins.apple import DEVELOPMENT, PRODUCTION, Apple, Manner, Reply, Tls
from tests.loops import on_each_loop
from tests.proxy.devicecheck_wire import asked

ROWS = [
    (200, "", Verdict.VALID),
    (200, "\n", Verdict.VALID),
    (400, "Missing or incorrectly formatted device token payload", Verdict.INVALID_TOKEN),
    (400, "Missing or badly formatted device token payload", Verdict.INVALID_TOKEN),
    (400, " MISSING OR BADLY FORMATTED DEVICE TOKEN \r\n", Verdict.INVALID_TOKEN),
    (400, "bad device token", Verdict.INVALID_TOKEN),
    (400, "Missing or badly formatted authorization token", Verdict.AUTH_MALFORMED),
    (401, "Unable to verify authorization token", Verdict.AUTH_REJECTED),
    (401, "", Verdict.AUTH_REJECTED),
    (400, "Missing or incorrectly formatted time stamp", Verdict.REQUEST_ERROR),
    (400, "Invalid or missing timestamp", Verdict.REQUEST_ERROR),
    (400, "Invalid or missing transaction id", Verdict.REQUEST_ERROR),
    (405, "Method Not Allowed", Verdict.REQUEST_ERROR),
    (429, "", Verdict.UNAVAILABLE),
    (429, "bad device token", Verdict.UNAVAILABLE),
    (500, "", Verdict.UNAVAILABLE),
    (503, "Missing or incorrectly formatted device token payload", Verdict.UNAVAILABLE),
    (599, "", Verdict.UNAVAILABLE),
    (200, "Failed to find bit state", Verdict.UNEXPECTED),
    (200, "Bit State Not Found", Verdict.UNEXPECTED),
    (200, "<html>please sign in</html>", Verdict.UNEXPECTED),
    (400, "", Verdict.UNEXPECTED),
    (400, "something new", Verdict.UNEXPECTED),
    (400, "Failed to find bit state", Verdict.UNEXPECTED),
    (404, "bad device token", Verdict.UNEXPECTED),
    (302, "", Verdict.UNEXPECTED),
    (204, "", Verdict.UNEXPECTED),
]


@pytest.mark.parametrize(("status", "text", "verdict"), ROWS)
def test_each_answer_has_its_verdict(status, text, verdict):
    assert judge(status, text)[0] is verdict


@pytest.mark.parametrize(("status", "text", "verdict"), [row for row in ROWS if row[0] not in (204, 302)])
def test_each_answer_has_its_verdict_over_the_wire(run, status, text, verdict):
    async def scenario():
        async with Apple(replies=[Reply(status, text)]) as apple:
            (answer,) = await asked(apple)
        assert (answer.verdict, answer.status_code) == (verdict, status)
        assert answer.text == (text.strip() or None)
        assert len(apple.asked) == answer.attempts == (3 if verdict is Verdict.UNAVAILABLE else 1)

    run(scenario())


def test_a_server_that_recovers_is_asked_until_it_answers_and_no_longer(run):
    async def scenario():
        async with Apple(replies=[Reply(503), Manner.CLOSE, Manner.HONEST]) as apple:
            (answer,) = await asked(apple)
            assert (answer.verdict, answer.attempts) == (Verdict.VALID, 3)
        # The negative control: with one attempt less it is not.
        async with Apple(replies=[Reply(503), Manner.CLOSE, Manner.HONEST]) as apple:
            (answer,) = await asked(apple, patience=Patience(10, 2, 0.001))
            assert (answer.verdict, answer.attempts) == (Verdict.UNAVAILABLE, 2)

    run(scenario())


def test_a_pause_that_would_outlast_the_deadline_is_not_made(run):
    async def scenario():
        async with Apple(replies=[Reply(503)]) as apple:
            (answer,) = await asked(apple, patience=Patience(total_s=10, attempts=3, first_pause_s=60))
        assert (answer.verdict, answer.attempts, len(apple.asked)) == (Verdict.UNAVAILABLE, 1, 1)

    run(scenario())


@on_each_loop
def test_a_server_that_does_not_answer_in_time_is_unavailable(run):
    async def scenario():
        async with Apple(delay_s=60) as apple:
            (answer,) = await asked(apple, patience=Patience(total_s=0.2))
        assert answer.verdict is Verdict.UNAVAILABLE and answer.status_code is None
        assert answer.reason == "no answer within 0.2 seconds"

    run(scenario())


@pytest.mark.parametrize(
    ("tls", "problem"),
    [
        (Tls.UNTRUSTED, "unable to get local issuer certificate"),
        (Tls.NAME, "IP address mismatch"),
        (Tls.EXPIRED, "certificate has expired"),
    ],
)
def test_a_server_with_a_bad_certificate_gets_nothing_and_is_not_asked_again(run, tls, problem):
    async def scenario():
        async with Apple(tls=tls) as apple:
            (answer,) = await asked(apple)
        assert (answer.verdict, answer.attempts, apple.asked) == (Verdict.UNAVAILABLE, 1, [])
        assert answer.reason.startswith("nothing was sent") and problem in answer.reason

    run(scenario())


def test_apples_own_names_are_not_taken_from_a_stand_in(run):
    """The real context: a stand-in's certificate is none of the platform's."""

    async def scenario():
        async with Apple() as apple:
            (answer,) = await asked(apple, context=ssl.create_default_context())
        assert answer.verdict is Verdict.UNAVAILABLE and apple.asked == []

    run(scenario())
    assert set(SERVERS.values()) == {
        "https://api.devicecheck.apple.com", "https://api.development.devicecheck.apple.com",
    }  # fmt: skip


def test_nobody_at_that_address_is_unavailable_and_the_reason_holds_no_address(run):
    async def scenario():
        async with Apple() as apple:
            pass
        (answer,) = await asked(apple)
        assert answer.verdict is Verdict.UNAVAILABLE and answer.reason == "the connection failed: Connection refused"
        # A label too long for a name, and a name that is none: a network may leave the second without an answer.
        for host in ("n" * 64 + ".example", "nowhere.invalid"):
            servers = {Environment.PRODUCTION: f"https://{host}"}
            (answer,) = await asked(apple, servers=servers, patience=Patience(total_s=3, attempts=1))
            assert answer.verdict is Verdict.UNAVAILABLE and host not in answer.reason

    run(scenario())


# Environments


def asked_environments(apple):
    return [one.environment for one in apple.asked]


def test_the_other_environment_is_asked_once_and_only_when_wanted(run):
    async def scenario():
        async with Apple() as apple:
            token = apple.token(DEVELOPMENT)
            (answer,) = await asked(apple, token)
            assert answer.verdict is Verdict.INVALID_TOKEN and asked_environments(apple) == [PRODUCTION]
            apple.asked.clear()
            answers = await asked(apple, token, try_other=True)
            assert [one.verdict for one in answers] == [Verdict.INVALID_TOKEN, Verdict.VALID]
            assert asked_environments(apple) == [PRODUCTION, DEVELOPMENT]
            assert decisive(answers).environment is Environment.DEVELOPMENT
            apple.asked.clear()
            answers = await asked(apple, "QUJDRA==", Environment.DEVELOPMENT, try_other=True)
            assert asked_environments(apple) == [DEVELOPMENT, PRODUCTION]
            assert decisive(answers).verdict is Verdict.INVALID_TOKEN

    run(scenario())


@pytest.mark.parametrize(
    ("reply", "count"),
    [
        (Reply(400, "Missing or badly formatted authorization token"), 2),
        (Reply(400, "bad device token"), 2),
        (Reply(401, "Unable to verify authorization token"), 1),
        (Reply(400, "Invalid or missing timestamp"), 1),
        (Reply(404), 1),
        (Reply(200), 1),
    ],
)
def test_it_is_not_asked_where_the_environment_cannot_be_the_cause(run, reply, count):
    async def scenario():
        async with Apple(replies=[reply]) as apple:
            assert len(await asked(apple, try_other=True)) == len(apple.asked) == count

    run(scenario())


@pytest.mark.parametrize(
    ("first", "second", "counts"),
    [
        ("invalid_token", "valid", "valid"),
        ("invalid_token", "invalid_token", "invalid_token"),
        ("invalid_token", "auth_malformed", "invalid_token"),
        ("auth_malformed", "invalid_token", "invalid_token"),
        ("auth_malformed", "auth_malformed", "auth_malformed"),
        ("invalid_token", "unavailable", "unavailable"),
        ("invalid_token", "auth_rejected", "auth_rejected"),
        ("invalid_token", "request_error", "request_error"),
        ("invalid_token", "unexpected", "unexpected"),
    ],
)
def test_a_token_is_not_called_invalid_while_one_environment_did_not_say_so(first, second, counts):
    answers = (
        Answer(Verdict(first), Environment.PRODUCTION, ""),
        Answer(Verdict(second), Environment.DEVELOPMENT, ""),
    )
    assert decisive(answers).verdict == counts
