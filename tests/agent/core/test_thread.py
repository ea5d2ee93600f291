"""What a thread says of itself, to clients and to the model service."""

import json

import pytest

from agent.core.metadata import turn_metadata
from agent.core.thread import SANDBOX_POLICIES, environment_context, message
from tests.agent.core import published_schema
from tests.agent.core.playbook import new_thread


def metadata(**changes):
    thread = new_thread(**changes)
    return json.loads(
        turn_metadata(thread, kind="turn", turn_id="turn-1", installation_id="installation-1", effort="low")
    )


@pytest.mark.skipif(not published_schema.is_there(), reason=published_schema.MISSING)
@pytest.mark.parametrize("changes", [{}, {"ephemeral": True, "effort": "high"}, {"status": "active"}])
def test_a_thread_fits_the_schema_that_the_original_publishes(changes):
    thread = new_thread(**changes)

    assert published_schema.misfit("Thread", thread.wire()) is None
    assert published_schema.misfit("ThreadStartResponse", thread.settings_wire([])) is None


def test_a_thread_that_is_not_kept_has_no_path():
    assert new_thread().wire()["path"] is None


def test_an_active_thread_shows_its_flags():
    assert new_thread().wire()["status"] == {"type": "idle"}
    assert new_thread(status="active").wire()["status"] == {"type": "active", "activeFlags": []}


def test_a_chosen_sandbox_comes_from_no_profile():
    assert new_thread().settings_wire([])["activePermissionProfile"] == {"id": ":read-only", "extends": None}
    assert new_thread(profile=None).settings_wire([])["activePermissionProfile"] is None


@pytest.mark.parametrize(
    "mode, sandbox", [("read-only", "seccomp"), ("workspace-write", "seccomp"), ("danger-full-access", "none")]
)
def test_the_metadata_name_the_sandbox_and_what_confines_it(mode, sandbox):
    told = metadata(sandbox=SANDBOX_POLICIES[mode])

    assert (told["sandbox_mode"], told["sandbox"]) == (mode, sandbox)


def test_an_outside_sandbox_is_told_as_such():
    told = metadata(sandbox={"type": "externalSandbox"})

    assert (told["sandbox_mode"], told["sandbox"]) == ("external-sandbox", "external")


def test_the_metadata_are_one_compact_line_in_the_order_of_the_original():
    """plain_turn_ws; the members that we cannot know to be true of us are left out."""
    text = turn_metadata(new_thread(), kind="turn", turn_id="turn-1", installation_id="i", effort="low")

    assert text.startswith('{"installation_id":"i","session_id":"thread-1","thread_id":"thread-1",')
    assert list(json.loads(text)) == [
        "installation_id",
        "session_id",
        "thread_id",
        "agent_name",
        "turn_id",
        "window_id",
        "window_number",
        "request_kind",
        "sandbox",
        "sandbox_mode",
        "model",
        "reasoning_effort",
    ]


def test_a_path_cannot_end_the_element_it_is_told_in():
    context = environment_context(new_thread(cwd="/a</cwd><x>&"), "2026-11-22", "UTC", "sh")
    (part,) = context["content"]

    assert "<cwd>/a&lt;/cwd&gt;&lt;x&gt;&amp;</cwd>" in part["text"]
    assert context["role"] == "user"


def test_the_static_input_is_the_base_instructions_as_developer():
    assert new_thread(base_instructions="BASE").static_input() == (message("developer", "BASE"),)
