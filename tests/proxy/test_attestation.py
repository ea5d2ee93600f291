import asyncio
import inspect
import json
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.attestation import (
    ATTESTATION_BUDGET_S,
    MAX_HEADER_BYTES,
    AttestationMalformed,
    AttestationRefused,
    AttestationStatus,
    Envelope,
    NoAttester,
    attest,
    envelope,
    is_legal_value,
    open_envelope,
)
from proxy.server import ProxyServer
from tests.loops import on_each_loop
from tests.proxy.running import Tokens, failing, never

SOON_S = 0.02
LONGEST = MAX_HEADER_BYTES - len('{"v":1,"s":0,"t":""}')
LONG_S = 20.0


def returning(value):
    async def make(_):
        return value

    return Tokens(make)


def header_of(run, provider, timeout_s=LONG_S):
    attestation = run(attest(provider, "thread-1", timeout_s))
    return None if attestation is None else attestation.header


# The envelope, byte for byte (facts/protocol.md 3)


@pytest.mark.parametrize(
    ("token", "header"),
    [
        ("v1.integration-test", '{"v":1,"s":0,"t":"v1.integration-test"}'),
        ("", '{"v":1,"s":0,"t":""}'),
        ('quote " back \\ slash /', '{"v":1,"s":0,"t":"quote \\" back \\\\ slash /"}'),
        ("line\nfeed\ttab", '{"v":1,"s":0,"t":"line\\nfeed\\ttab"}'),
        ("v1.x\r\nX-Injected: 1", '{"v":1,"s":0,"t":"v1.x\\r\\nX-Injected: 1"}'),
        ("nul \x00 escape \x1b", '{"v":1,"s":0,"t":"nul \\u0000 escape \\u001b"}'),
        (" blanks stay ", '{"v":1,"s":0,"t":" blanks stay "}'),
        ("x" * 12_000, '{"v":1,"s":0,"t":"' + "x" * 12_000 + '"}'),
    ],
)
def test_a_token_is_in_the_envelope_as_the_original_writes_it(run, token, header):
    assert header_of(run, returning(token)) == header


@pytest.mark.parametrize(
    ("provider", "header"),
    [
        (failing(AttestationRefused()), '{"v":1,"s":2}'),
        (failing(AttestationMalformed()), '{"v":1,"s":4}'),
        (failing(NoAttester()), None),
        (failing(TimeoutError()), '{"v":1,"s":1}'),
        (failing(RuntimeError("a bug")), '{"v":1,"s":2}'),
        (failing(ConnectionResetError()), '{"v":1,"s":2}'),
        (failing(ExceptionGroup("several", [ValueError()])), '{"v":1,"s":2}'),
        (failing(RecursionError()), '{"v":1,"s":2}'),
        (failing(MemoryError()), '{"v":1,"s":2}'),
        (failing(StopAsyncIteration()), '{"v":1,"s":2}'),
        (failing(UnicodeEncodeError("utf-8", "\ud800", 0, 1, "no")), '{"v":1,"s":2}'),
    ],
)
def test_each_failure_is_a_value_too(run, provider, header):
    assert header_of(run, provider) == header


@pytest.mark.parametrize("lie", [None, 5, b"bytes", object()])
def test_a_provider_that_returns_no_text_is_malformed_and_not_an_exception(run, lie):
    """It once raised a TypeError here, and the request was answered with 502."""
    assert header_of(run, returning(lie)) == '{"v":1,"s":4}'


@pytest.mark.parametrize(
    "token",
    [
        "caf\xe9",
        "\u2028",
        "😀",
        "\ud800",
        "\x7f",  # DEL, which JSON does not escape
        "\x85",
        "\xa0",
        "x" * (LONGEST + 1),
        "\x01" * (LONGEST // 2),  # six bytes each, once escaped
    ],
)
def test_a_token_that_cannot_be_in_a_header_is_malformed(run, token):
    assert header_of(run, returning(token)) == '{"v":1,"s":4}'


def test_the_longest_token_that_is_sent_is_just_below(run):
    assert run(attest(returning("x" * LONGEST), None, LONG_S)).status is AttestationStatus.OK


@on_each_loop
def test_a_provider_that_never_answers_is_a_timeout(run):
    assert header_of(run, never(), SOON_S) == '{"v":1,"s":1}'


@on_each_loop
def test_a_late_answer_is_dropped_and_not_kept_for_the_next_question(run):
    async def scenario():
        late = asyncio.get_running_loop().create_future()
        answers = [late, "fresh"]

        async def make(number):
            answer = answers[number - 1]
            return await asyncio.shield(answer) if number == 1 else answer

        provider = Tokens(make)
        assert (await attest(provider, None, SOON_S)).header == '{"v":1,"s":1}'
        late.set_result("stale")
        assert (await attest(provider, None, LONG_S)).header == '{"v":1,"s":0,"t":"fresh"}'
        assert provider.asked == 2

    run(scenario())


@on_each_loop
def test_an_answer_within_the_budget_is_used_however_long_it_takes(run):
    """The negative control of the timeout: the same provider, the budget not spent."""

    async def scenario():
        asked, go = asyncio.Event(), asyncio.Event()

        async def make(_):
            asked.set()
            await go.wait()
            return "slow"

        question = asyncio.create_task(attest(Tokens(make), None, LONG_S))
        await asked.wait()
        assert not question.done()
        go.set()
        assert (await question).header == '{"v":1,"s":0,"t":"slow"}'

    run(scenario())


@on_each_loop
def test_an_answer_that_is_there_when_the_time_is_up_counts_although_a_busy_loop_has_not_read_it(run):
    """With 100 threads at a time four of five answers once came to nothing: the loop saw its timers first."""

    async def scenario():
        loop = asyncio.get_running_loop()
        answer = loop.create_future()

        def arrive():
            loop.call_soon_threadsafe(lambda: loop.call_soon(answer.set_result, "there"))

        def be_busy():
            thread = threading.Thread(target=arrive)
            thread.start()
            thread.join()
            threading.Event().wait(2 * SOON_S)

        async def make(_):
            loop.call_soon(be_busy)
            return await answer

        assert (await attest(Tokens(make), None, SOON_S)).header == '{"v":1,"s":0,"t":"there"}'

    run(scenario())


@on_each_loop
def test_only_the_cancellation_of_the_request_itself_comes_through(run):
    async def scenario():
        asked = asyncio.Event()

        async def make(_):
            asked.set()
            await asyncio.Event().wait()

        question = asyncio.create_task(attest(Tokens(make), None, LONG_S))
        await asked.wait()
        question.cancel()
        with pytest.raises(asyncio.CancelledError):
            await question

    run(scenario())


def test_the_budget_in_production_is_that_of_the_original():
    assert ATTESTATION_BUDGET_S == 0.1
    assert inspect.signature(ProxyServer).parameters["timeout_s"].default == ATTESTATION_BUDGET_S


@given(token=st.text())
def test_an_envelope_is_one_printable_line_from_which_the_token_comes_back(token):
    value = envelope(token)
    if value is None:
        assert any(not " " <= character <= "~" for character in token)
        return
    assert all(" " <= character <= "~" for character in value)
    assert json.loads(value) == {"v": 1, "s": 0, "t": token}
    assert open_envelope(value) == Envelope(AttestationStatus.OK, token)


# Envelopes of others


@pytest.mark.parametrize("status", [1, 2, 3, 4])
def test_a_failure_envelope_opens_to_its_status(status):
    assert open_envelope(f'{{"v":1,"s":{status}}}') == Envelope(AttestationStatus(status), None)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "forged",
        "null",
        "[]",
        "5",
        "{}",
        '{"v":1}',
        '{"v":2,"s":0,"t":"x"}',
        '{"v":"1","s":0,"t":"x"}',
        '{"v":true,"s":0,"t":"x"}',
        '{"v":1.0,"s":0,"t":"x"}',
        '{"v":1,"s":0,"t":"x","t":"y"}',
        '{"v":2,"v":1,"s":0,"t":"x"}',
        '{"v":1,"s":0}',
        '{"v":1,"s":0,"t":5}',
        '{"v":1,"s":0,"t":null}',
        '{"v":1,"s":1,"t":"x"}',
        '{"v":1,"s":5}',
        '{"v":1,"s":-1}',
        '{"v":1,"s":true,"t":"x"}',
        '{"v":1,"s":0.0,"t":"x"}',
        '{"v":1,"s":"0","t":"x"}',
        '{"v":1,"s":0,"t":"x","more":1}',
        '{"v":1,"s":0,"t":"x"} trailing',
        "[" * 100_000,
        '{"v":1,"s":0,"t":"x"',
        '{"v":1,"s":' + "9" * 5000 + "}",
    ],
)
def test_what_is_not_exactly_an_envelope_has_no_status(value):
    assert open_envelope(value) == Envelope(None, None)


@given(value=st.text())
def test_opening_never_raises(value):
    open_envelope(value)


@pytest.mark.parametrize("value", ["a\r", "a\n", "a\x00", "a\x7f", "caf\xe9", "\t", "\u2028"])
def test_a_value_with_anything_but_printable_ascii_is_not_legal(value):
    assert not is_legal_value(value)
    assert is_legal_value("a ~")
