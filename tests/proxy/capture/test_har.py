"""A run as HAR 1.2: valid against a schema of the format, and true."""

import base64
import dataclasses
import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.attestation import AttestationStatus
from proxy.capture.exchange import Phase, Stamp, Transport
from proxy.capture.har import HarBodies, HarMessage, entry, har, har_text
from tests.proxy.capture.runs import exchange, phases
from tests.proxy.capture.test_coverage import REFUSED, TUNNEL

SCHEMA = jsonschema.Draft202012Validator(json.loads((Path(__file__).parent / "har_schema.json").read_text()))
HEADERS = {
    "request_headers": (("Host", "chatgpt.com"), ("Content-Type", "application/json"), ("Authorization", "[redacted]")),
    "response_headers": (("Content-Type", "text/event-stream"), ("Location", "/v1/realtime/calls/rtc_1")),
}
SOCKET = {"transport": Transport.WEBSOCKET, "status": 101, "method": "GET"}


def checked(content):
    SCHEMA.validate(content)
    return content


def timings(**facts):
    content = entry(exchange(**facts))
    checked(har([exchange(**facts)]))
    return content["timings"], content["time"]


def test_the_schema_is_one_and_finds_what_is_wrong():
    jsonschema.Draft202012Validator.check_schema(SCHEMA.schema)
    for spoil in (
        lambda one: one["log"].update(version="1.1"),
        lambda one: one["log"]["entries"][0].pop("cache"),
        lambda one: one["log"]["entries"][0].update(unknown=1),
        lambda one: one["log"]["entries"][0]["timings"].update(wait=-1),
        lambda one: one["log"]["entries"][0]["timings"].update(blocked=-2),
        lambda one: one["log"]["entries"][0]["request"].update(url="chatgpt.com"),
        lambda one: one["log"]["entries"][0].update(startedDateTime="2026-11-22 10:00:00"),
    ):
        content = har([exchange()])
        spoil(content)
        with pytest.raises(jsonschema.ValidationError):
            checked(content)


def test_an_exchange_is_told_with_all_that_is_known_of_it():
    (one,) = checked(har([exchange(7, started_at=1_763_805_000.5, request_bytes=3, response_bytes=5, **HEADERS)]))[
        "log"
    ]["entries"]
    assert one["startedDateTime"] == "2025-11-22T09:50:00.500+00:00"
    assert one["request"]["url"] == "https://chatgpt.com/backend-api/codex/responses"
    assert one["request"]["headers"][2] == {"name": "Authorization", "value": "[redacted]"}
    assert (one["request"]["bodySize"], one["response"]["bodySize"]) == (3, 5)
    assert one["response"]["status"] == 200 and one["response"]["redirectURL"] == "/v1/realtime/calls/rtc_1"
    assert one["response"]["content"] == {"size": 5, "mimeType": "text/event-stream"}
    assert (one["_route"], one["_stamp"], one["_attestation_status"], one["_number"]) == (
        "responses",
        "stamped",
        "ok",
        7,
    )
    assert "postData" not in one["request"] and "comment" not in one


def test_the_times_are_what_the_request_waited_for_in_its_order():
    got, total = timings(waited_s=0.05, sent_s=0.06, first_byte_s=0.3, duration_s=1.0, connect_s=0.02)
    assert got == {
        "blocked": 50.0,
        "dns": -1,
        "connect": 20.0,
        "ssl": -1,
        "send": 10.0,
        "wait": 240.0,
        "receive": 700.0,
        "_attestation": 50.0,
    }
    assert total == 1020.0


def test_the_connection_was_opened_before_the_request_came():
    assert entry(exchange(started_at=100.0, connect_s=0.5))["startedDateTime"] == "1970-01-01T00:01:39.500+00:00"


def test_what_is_not_known_is_not_made_up():
    got, total = timings(waited_s=None, sent_s=None, first_byte_s=None, duration_s=None, status=None)
    assert (got["blocked"], got["connect"], got["_attestation"]) == (-1, -1, -1)
    assert (got["send"], got["wait"], got["receive"], total) == (0, 0, 0, 0)


def test_an_answer_before_the_end_of_the_request_makes_no_negative_time():
    got, total = timings(waited_s=0.1, sent_s=0.9, first_byte_s=0.2, duration_s=1.0)
    assert (got["blocked"], got["send"], got["wait"], got["receive"], total) == (100, 100, 0, 800, 1000)


@pytest.mark.parametrize(
    "one",
    [
        *phases(1, **SOCKET),
        *phases(2, status=None, error="the upstream left", duration_s=2.0, first_byte_s=None),
        REFUSED,
        TUNNEL,
        dataclasses.replace(TUNNEL, method="CONNECT", path="", phase=Phase.DECIDED),
        exchange(host="::1", port=8443, http_version="HTTP/2.0"),
        exchange(stamp=Stamp.ABSENT, attestation=None, route=None),
    ],
)
def test_every_kind_of_exchange_is_valid(one):
    checked(har([one]))
    checked(json.loads("".join(har_text([one]))))


def test_an_exchange_without_an_answer_says_why():
    one = entry(exchange(status=None, error="the upstream left"))
    assert one["response"]["status"] == 0 and one["comment"] == one["_error"] == "the upstream left"


durations = st.none() | st.floats(0, 1e4)


@given(durations, durations, durations, durations, durations, st.sampled_from(Transport), st.sampled_from(Phase))
def test_whatever_was_measured_the_entry_is_valid_and_its_time_is_the_sum(
    waited, sent, first, total, connect, kind, phase
):
    one = exchange(
        waited_s=waited,
        sent_s=sent,
        first_byte_s=first,
        duration_s=total,
        connect_s=connect,
        transport=kind,
        phase=phase,
    )
    (made,) = checked(har([one]))["log"]["entries"]
    parts = [made["timings"][name] for name in ("blocked", "dns", "connect", "send", "wait", "receive")]
    assert made["time"] == pytest.approx(sum(part for part in parts if part > 0), abs=0.01)


# Bodies


def test_bodies_are_texts_or_base64():
    carried = {
        1: HarBodies(b'{"a": 1}', "data: é\n\n".encode()),
        2: HarBodies(b"\xff", b"\xfe\x00", note="only its first 2 bytes are kept"),
    }
    content = checked(har([exchange(1, **HEADERS), exchange(2)], lambda one: carried[one.number]))
    first, second = content["log"]["entries"]
    assert first["request"]["postData"] == {"mimeType": "application/json", "text": '{"a": 1}'}
    assert first["response"]["content"]["text"] == "data: é\n\n" and first["response"]["content"]["size"] == 10
    assert second["response"]["content"]["encoding"] == "base64"
    assert base64.b64decode(second["response"]["content"]["text"]) == b"\xfe\x00"
    assert second["request"]["postData"]["_encoding"] == "base64"
    assert second["comment"] == "only its first 2 bytes are kept"


def test_messages_are_as_chrome_writes_them():
    messages = (HarMessage(True, 1.5, 1, '{"a":1}', 7), HarMessage(False, 1.75, 2, None, 9))
    (one,) = checked(har([exchange(1, **SOCKET)], lambda _: HarBodies(messages=messages)))["log"]["entries"]
    assert one["_resourceType"] == "websocket" and one["request"]["url"].startswith("wss://")
    assert one["_webSocketMessages"] == [
        {"type": "send", "time": 1.5, "opcode": 1, "data": '{"a":1}'},
        {"type": "receive", "time": 1.75, "opcode": 2, "data": "", "_size": 9},
    ]


def test_in_pieces_it_is_the_same():
    some = [exchange(1, **HEADERS), exchange(2, **SOCKET), exchange(3, status=None)]
    for exchanges in ([], some[:1], some):
        assert json.loads("".join(har_text(exchanges, version="1"))) == checked(har(exchanges, version="1"))


def test_the_status_of_the_envelope_is_told():
    one = entry(exchange(attestation=AttestationStatus.TIMEOUT, waited_s=0.1))
    assert one["_attestation_status"] == "timeout" and one["timings"]["_attestation"] == 100
