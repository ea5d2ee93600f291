"""Two runs beside each other."""

import dataclasses
import json

import pytest

from proxy.attestation import AttestationStatus
from proxy.capture.diff import difference, path_shape
from proxy.capture.exchange import Stamp, Transport
from tests.proxy.capture.runs import exchange

ELSEWHERE = {
    "route": None,
    "stamp": Stamp.NOT_SCOPED,
    "attestation": None,
    "method": "GET",
    "transport": Transport.HTTP,
}


def agent(version, *more, **facts):
    """A request of one build of an agent."""
    headers = (("User-Agent", f"codex/{version}"), ("x-request-id", version), *more)
    return exchange(request_headers=headers, **facts)


def changes(before, after):
    (group,) = difference(before, after).groups
    return [(change.name, change.kind, change.before, change.after) for change in group.headers]


def test_the_same_run_does_not_differ():
    some = [agent("0.163", number=number) for number in range(1, 4)]
    found = difference(some, some)
    assert not found.differs and [(one.before, one.after) for one in found.groups] == [(3, 3)]
    assert not difference([], []).differs


def test_headers_that_came_and_went_and_changed_are_told():
    before = agent("0.163", ("version", "1"), ("old", "a"))
    after = agent("0.169", ("Version", "2"), ("new", "b"))
    assert changes([before], [after]) == [
        ("new", "added", (), ("b",)),
        ("old", "removed", ("a",), ()),
        ("user-agent", "changed", ("codex/0.163",), ("codex/0.169",)),
        ("version", "changed", ("1",), ("2",)),
    ]


def test_what_every_request_has_of_its_own_is_no_change():
    first, second = agent("1", ("x-request-id", "a")), agent("1", ("x-request-id", "b"))
    assert changes([first], [second]) == []


def test_values_that_overlap_are_no_change_and_where_only_the_share_differs_it_is_told():
    a, b, c = (agent("1", ("accept", value)) for value in "abc")
    assert changes([a, b], [b, c]) == []
    assert [(name, kind) for name, kind, _, _ in changes([a, a], [a, agent("1")])] == [("accept", "rarer")]
    assert [(name, kind) for name, kind, _, _ in changes([a, agent("1")], [a, a])] == [("accept", "more often")]


def test_another_secret_is_told_by_its_mark():
    before, after = (agent("1", ("authorization", f"Bearer [redacted 9 bytes #{mark}]")) for mark in ("aa", "bb"))
    assert changes([before], [before]) == []
    assert changes([before], [after])[0][1:3] == ("another secret", ("Bearer [redacted 9 bytes #aa]",))
    assert not difference([before], [after]).differs
    basic = agent("1", ("authorization", "Basic [redacted 9 bytes #bb]"))
    assert changes([before], [basic])[0][1] == "changed" and difference([before], [basic]).differs


def test_a_header_that_is_there_twice_is_one_value():
    assert changes([agent("1", ("a", "1"), ("a", "2"))], [agent("1", ("a", "2"), ("a", "1"))])[0][2] == ("1, 2",)


def test_headers_of_answers_are_compared_where_there_was_one():
    before = exchange(response_headers=(("server", "a"),))
    after = exchange(response_headers=(("server", "b"),))
    unanswered = exchange(status=None, response_headers=())
    assert changes([before, unanswered], [after]) == [("server", "changed", ("a",), ("b",))]
    assert changes([unanswered], [after]) == []


def test_statuses_and_stamps_are_counted():
    before = [exchange(1), exchange(2, status=None, error="gone")]
    after = [exchange(1), exchange(2, attestation=AttestationStatus.TIMEOUT)]
    (group,) = difference(before, after).groups
    assert group.statuses == (("200", 1, 2), ("no answer", 1, 0))
    assert group.stamps == (("stamped ok", 2, 1), ("stamped timeout", 0, 1)) and group.differs


def test_more_requests_of_the_same_are_no_difference():
    assert not difference([exchange(1)], [exchange(1), exchange(2)]).differs


@pytest.mark.parametrize(
    "more",
    [
        {"transport": Transport.WEBSOCKET, "method": "GET"},
        {"route": "compact"},
        {**ELSEWHERE, "host": "other.example", "path": "/"},
    ],
)
def test_another_kind_of_request_is_a_difference(more):
    found = difference([exchange(1)], [exchange(1), exchange(2, **more)])
    assert found.differs and sorted((one.before, one.after) for one in found.groups) == [(0, 1), (1, 1)]


def test_paths_of_one_shape_are_one_kind():
    paths = [
        "/wham/tasks/123/turns/019a0000-0000-7000-8000-000000000000",
        "/wham/tasks/7/turns/019b1111-0000-7000-8000-000000000000",
    ]
    found = difference([exchange(1, path=paths[0], **ELSEWHERE)], [exchange(1, path=paths[1], **ELSEWHERE)])
    assert [one.key.target for one in found.groups] == ["chatgpt.com/wham/tasks/{id}/turns/{id}"] and not found.differs


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/backend-api/codex/responses", "/backend-api/codex/responses"),
        ("/v1/realtime/calls/rtc_9Ab3", "/v1/realtime/calls/{id}"),
        ("/a/resp_0123456789", "/a/{id}"),
        ("/v1/models/gpt-5.5", "/v1/models/gpt-5.5"),
        ("/a/AbCdEfGhIjKlMnOpQrSt1", "/a/{id}"),
        ("/accounts/check", "/accounts/check"),
        ("/", "/"),
    ],
)
def test_ids_are_told_from_names(path, shape):
    assert path_shape(path) == shape


def test_durations_are_medians():
    before = [exchange(number, waited_s=number / 1000, connect_s=None) for number in (1, 2, 9)]
    (group,) = difference(before, [exchange(1)]).groups
    medians = {one.name: (one.before_ms, one.after_ms) for one in group.timings}
    assert medians == {"waited": (2.0, None), "connect": (None, None), "first_byte": (200, 200), "duration": (500, 500)}


def test_it_can_be_written_as_json():
    content = json.loads(json.dumps(difference([agent("1")], [agent("2")]).as_json()))
    assert content["differs"] and content["groups"][0]["headers"][0]["name"] == "user-agent"
    assert content["groups"][0]["key"] == {"target": "responses", "method": "POST", "transport": "post"}


def test_the_order_of_requests_does_not_count():
    some = [exchange(number, path=f"/{number}/x", **ELSEWHERE) for number in range(5)]
    assert difference(some, some) == difference(some, list(reversed(some)))
    assert dataclasses.asdict(difference(some, []).groups[0].key)["target"] == "chatgpt.com/{id}/x"
