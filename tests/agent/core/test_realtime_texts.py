"""What the voice model and the agent are told."""

from agent.core.realtime_texts import INSTRUCTIONS, MOST_CONTEXT_CHARACTERS, delegation, instructions
from agent.core.thread import message
from tests.agent.core.playbook import new_thread


def test_a_delegation_escapes_what_was_said():
    assert delegation("do <b> & c", [("user", "do <b> & c"), ("assistant", "sure")]) == (
        "<realtime_delegation>\n  <input>do &lt;b&gt; &amp; c</input>\n"
        "  <transcript_delta>user: do &lt;b&gt; &amp; c\nassistant: sure</transcript_delta>\n</realtime_delegation>"
    )


def test_instructions_are_ours_the_clients_or_none():
    thread = new_thread()
    assert instructions(None, thread, with_context=False) == INSTRUCTIONS
    assert instructions("P", thread, with_context=False) == "P"
    assert instructions("", thread, with_context=False) == ""


def test_the_context_says_where_the_agent_works_and_what_was_said_last():
    thread = new_thread()
    thread.history = [
        message("developer", "secret"),
        message("user", "<environment_context>"),
        message("user", "first"),
        {"type": "function_call", "name": "x"},
        message("assistant", "second"),
    ]
    told = instructions("P", thread, with_context=True)
    assert told.startswith(f"P\n\n<startup_context>\nWorking directory: {thread.cwd}\n")
    assert told.endswith("ends with:\nuser: first\nassistant: second\n</startup_context>")


def test_a_long_history_is_cut_from_its_start():
    thread = new_thread()
    thread.history = [message("user", f"{number} " + "x" * 5000) for number in range(100)]
    told = instructions("", thread, with_context=True)
    assert len(told) < MOST_CONTEXT_CHARACTERS + 500
    assert "user: 99 x" in told and "user: 0 x" not in told
