"""The recordings of the original, replayed: the same client and the same backend must see the same of us.

The recorded client's messages and the recorded backend's answers are played, in their order, to the real methods, core
and model client, through the real proxy. Then what the client was sent is compared message by message, and what
reached the backend by its essentials. Every difference that is allowed has a name below.

The recordings lie beside the checkout (CI has them).
"""

import json
from pathlib import Path

import pytest

from tests.agent.core.memory_app import MemoryPipe
from tests.agent.likeness import without_what_differs
from tests.agent.recordings import ELSEWHERE, GOLDENS, NOT_REPLAYED, OTHER_QUESTIONS, RECORDED
from tests.agent.replay import Replay

pytestmark = pytest.mark.skipif(not GOLDENS.is_dir(), reason=f"the recordings of the original are not at {GOLDENS}")


@pytest.mark.parametrize("name", RECORDED)
def test_the_client_and_the_backend_see_what_they_saw_of_the_original(name, run, tmp_path):
    replay = Replay(name, tmp_path, **RECORDED[name])
    run(replay.play())

    theirs = replay.theirs()
    assert replay.ours() == theirs
    assert without_what_differs(replay.sent, name) == without_what_differs(replay.sent_by_original, name)
    if name not in OTHER_QUESTIONS:
        assert replay.questions() == replay.questions_of_original()


def test_each_recording_is_replayed_or_has_a_reason_why_not():
    named = [*RECORDED, *ELSEWHERE, *NOT_REPLAYED]
    assert sorted(named) == sorted(path.stem for path in GOLDENS.glob("*.jsonl"))


@pytest.mark.parametrize("name", ELSEWHERE)
def test_the_other_test_names_the_recording(name):
    root = Path(__file__).parents[2]
    assert f'"{name}"' in (root / ELSEWHERE[name]).read_text("utf-8")


def test_a_replay_can_fail():
    """The comparison itself: one word changed in what we were sent must show."""
    replay = Replay("plain_turn_ws", Path("/code/here"))
    replay._played = len(replay.lines)
    theirs = replay.theirs()
    pipe = replay._pipes["A"] = MemoryPipe()
    pipe.heard = [json.loads(json.dumps(one).replace('"summary"', '"notLoaded"')) for one in replay._theirs_so_far("A")]

    assert replay.ours() != theirs
    pipe.heard = replay._theirs_so_far("A")
    assert replay.ours() == theirs
