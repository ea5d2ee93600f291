"""What is said, as it is shown and kept."""

import itertools

from agent.core import transcript
from agent.core.transcript import Transcript


def speech():
    numbers = itertools.count(1)
    return Transcript("session-1", lambda: f"segment-{next(numbers)}")


def item(number, role, text):
    return {
        "item": {
            "id": f"segment-{number}",
            "realtimeSessionId": "session-1",
            "type": "transcriptSegment",
            "role": role,
            "text": text,
        }
    }


def test_a_segment_is_shown_from_its_start_to_its_end():
    said = speech()
    assert said.delta("user", "do ") == [
        ("item/started", item(1, "user", "")),
        ("item/transcript/delta", {"itemId": "segment-1", "delta": "do "}),
        ("transcript/delta", {"role": "user", "delta": "do "}),
    ]
    assert [name for name, _ in said.delta("user", "it")] == ["item/transcript/delta", "transcript/delta"]
    assert said.done("user", "Do it!") == [
        ("item/completed", item(1, "user", "do it")),
        ("transcript/done", {"role": "user", "text": "Do it!"}),
    ]
    assert said.complete() == []


def test_what_is_done_at_once_is_shown_whole():
    names = [name for name, _ in speech().done("assistant", "sure")]
    assert names == ["item/started", "item/transcript/delta", "item/completed", "transcript/done"]


def test_what_is_done_and_empty_is_not_shown_and_not_kept():
    said = speech()
    assert said.done("user", "") == [("transcript/done", {"role": "user", "text": ""})]
    said.delta("user", "a")
    assert said.done("user", "")[0] == ("item/completed", item(1, "user", "a"))
    said.delta("assistant", "")
    assert said.done("assistant", "late")[0] == ("item/transcript/delta", {"itemId": "segment-2", "delta": "late"})
    assert said.take("a") == [("user", "a"), ("assistant", "late")]


def test_each_role_has_a_segment_of_its_own_until_they_are_completed():
    said = speech()
    said.delta("user", "a")
    said.delta("assistant", "b")
    said.delta("user", "c")
    assert said.complete() == [
        ("item/completed", item(1, "user", "ac")),
        ("item/completed", item(2, "assistant", "b")),
    ]
    assert said.delta("user", "d")[0] == ("item/started", item(3, "user", ""))


def test_the_agent_is_given_what_was_said_since_the_last_time():
    said = speech()
    said.delta("user", "do ")
    said.delta("user", "it")
    said.delta("assistant", "sure")
    assert said.take("do it") == [("user", "do it"), ("assistant", "sure")]
    said.done("user", "please do that")
    said.done("user", "please do that too")
    assert said.take("do that") == [("user", "please do that too"), ("user", "do that")]
    assert said.take("again") == [("user", "again")]


def test_speech_without_end_is_bounded(monkeypatch):
    monkeypatch.setattr(transcript, "MOST_SEGMENT_CHARACTERS", 10)
    monkeypatch.setattr(transcript, "MOST_KEPT_CHARACTERS", 10)
    said = speech()
    told = [one for _ in range(30) for one in said.delta("user", "abc")]
    segments = [params["item"]["text"] for name, params in told if name == "item/completed"]
    assert segments and set(segments) == {"abcabcabcabc"}
    for role in ("assistant", "user") * 10:
        said.delta(role, "xyz")
    kept = said.take("y")
    assert sum(len(text) for _, text in kept) <= 10 + len("y")
