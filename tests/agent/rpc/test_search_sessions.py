"""fuzzyFileSearch/session*: a search that goes on while the user types."""

import pytest

from agent.rpc.search_sessions import MOST_SESSIONS, SearchSessions
from tests.agent.rpc.desk import desk


@pytest.fixture
def project(tmp_path):
    for name in ("hello.txt", "help.md", "other"):
        (tmp_path / name).touch()
    return tmp_path


async def found(at, session, number):
    """The n-th result: its query and the files."""
    await at.desktop.wait_for("fuzzyFileSearch/sessionCompleted", number)
    told = await at.desktop.wait_for("fuzzyFileSearch/sessionUpdated", number)
    assert told["sessionId"] == session
    return told["query"], [one["path"] for one in told["files"]]


def test_each_query_is_answered_with_what_fits(run, project):
    async def scenario():
        async with desk(SearchSessions().table()) as at:
            assert (
                await at.desktop.request("fuzzyFileSearch/sessionStart", {"sessionId": "s", "roots": [str(project)]})
                == {}
            )
            assert await found(at, "s", 1) == ("", [])
            for number, (query, paths) in enumerate(
                {"hel": ["hello.txt", "help.md"], "help": ["help.md"], "z": []}.items(), 2
            ):
                wanted = {"sessionId": "s", "query": query}
                assert await at.desktop.request("fuzzyFileSearch/sessionUpdate", wanted) == {}
                assert await found(at, "s", number) == (query, paths)

    run(scenario())


def test_a_session_that_was_stopped_or_pushed_out_is_not_found(run, project):
    async def scenario():
        async with desk(SearchSessions().table()) as at:
            for number in range(MOST_SESSIONS + 1):
                wanted = {"sessionId": str(number), "roots": [str(project)]}
                await at.desktop.request("fuzzyFileSearch/sessionStart", wanted)
            assert await at.desktop.request("fuzzyFileSearch/sessionStop", {"sessionId": "1"}) == {}
            for gone in ("0", "1", "never"):
                told = await at.refused("fuzzyFileSearch/sessionUpdate", sessionId=gone, query="x")
                assert told == f"fuzzy file search session not found: {gone}"
            assert await at.desktop.request("fuzzyFileSearch/sessionUpdate", {"sessionId": "2", "query": "x"}) == {}
            assert await at.desktop.request("fuzzyFileSearch/sessionStop", {"sessionId": "never"}) == {}

    run(scenario())


def test_what_does_not_fit_is_refused(run):
    async def scenario():
        async with desk(SearchSessions().table()) as at:
            told = await at.refused("fuzzyFileSearch/sessionStart", sessionId="", roots=["/"])
            assert told == "sessionId must not be empty"
            told = await at.refused("fuzzyFileSearch/sessionStart", -32603, sessionId="s", roots=[])
            assert told.endswith("at least one search directory is required")

    run(scenario())
