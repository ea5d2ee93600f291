"""What the user and a project say in AGENTS.md, and what the model is told of it."""

import os

import pytest

from agent.core.agents_md import MOST_PROJECT_BYTES, load, sources
from tests.agent.core import model_says
from tests.agent.core.memory_app import app_and_desktop
from tests.agent.core.scripted_model import ScriptedModel
from tests.agent.rpc.test_methods import HELLO, start, turn


@pytest.fixture
def home(tmp_path):
    """CODEX_HOME, with what the user always wants."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home/AGENTS.md").write_text("of the user")
    return tmp_path / "home"


@pytest.fixture
def project(tmp_path):
    """A repository with a directory in a directory, each of which says something."""
    root = tmp_path / "above/project"
    (root / "a/b").mkdir(parents=True)
    (root / ".git").mkdir()
    for directory in (root.parent, root, root / "a", root / "a/b"):
        (directory / "AGENTS.md").write_text(f"of {directory.name}")
    return root


def test_the_user_comes_first_and_then_the_project_from_its_root_down(home, project):
    assert load(home, str(project / "a/b")) == ["of the user", "of project", "of a", "of b"]
    assert load(home, str(project)) == ["of the user", "of project"]


def test_without_a_repository_only_the_directory_counts(home, project):
    (project / ".git").rmdir()
    assert load(home, str(project / "a/b")) == ["of the user", "of b"]


def test_an_override_stands_for_the_file_beside_it(home, project):
    (home / "AGENTS.override.md").write_text("of the user, today")
    (project / "a/AGENTS.override.md").write_text("of a, today")
    assert load(home, str(project / "a")) == ["of the user, today", "of project", "of a, today"]


def test_a_project_says_no_more_than_its_bound_in_all(home, project):
    (project / "AGENTS.md").write_text("x" * (MOST_PROJECT_BYTES - 3))
    user, root, first = load(home, str(project / "a/b"))
    assert (user, len(root), first) == ("of the user", MOST_PROJECT_BYTES - 3, "of ")


@pytest.mark.parametrize("inside", [True, False])
def test_a_repository_has_no_file_from_elsewhere_read(home, project, inside):
    target = (project if inside else project.parent) / "secret"
    target.write_text("secret")
    (project / "AGENTS.md").unlink()
    (project / "AGENTS.md").symlink_to(target)
    assert ("secret" in load(home, str(project))) is inside


def test_what_cannot_be_read_is_left_out(home, project):
    (project / "AGENTS.md").unlink()
    os.mkfifo(project / "AGENTS.md")
    (project / "a/AGENTS.md").unlink()
    (project / "a/AGENTS.md").symlink_to("AGENTS.md")
    (project / "a/b/AGENTS.md").write_bytes(b"\xff of b")
    assert load(home, str(project / "a/b")) == ["of the user", " of b"]
    assert load(home, str(project / "nowhere")) == ["of the user"]


def test_the_model_is_told_once_before_the_first_words_of_the_user(run, home, project):
    async def scenario():
        with ScriptedModel(*[model_says.answer("Done.", item_id=item_id) for item_id in ("msg-1", "msg-2")]) as model:
            async with app_and_desktop(home, model) as (_, desktop):
                thread_id = await start(desktop, cwd=str(project))
                for text in ("first", "second"):
                    await turn(desktop, thread_id, {**HELLO, "text": text})
                texts = [part["text"] for item in model.requests[-1].input for part in item.get("content") or ()]
        told = [text for text in texts if "of the user" in text]
        assert len(told) == 1
        assert "of project" in told[0]
        assert texts.index(told[0]) < texts.index("first")

    run(scenario())


def test_a_client_is_told_which_files_count_when_a_thread_begins_is_resumed_and_is_forked(run, home, project):
    (project / "a/AGENTS.md").write_text(" \n")
    files = [str(home / "AGENTS.md"), str(project / "AGENTS.md")]
    assert sources(home, str(project / "a")) == files

    async def scenario():
        with ScriptedModel(model_says.answer("one")) as model:
            async with app_and_desktop(home, model) as (_, desktop):
                begun = await desktop.request("thread/start", {"cwd": str(project / "a")})
                thread_id = begun["thread"]["id"]
                await turn(desktop, thread_id, HELLO)
                resumed = await desktop.request("thread/resume", {"threadId": thread_id})
                forked = await desktop.request("thread/fork", {"threadId": thread_id})
                assert begun["instructionSources"] == resumed["instructionSources"] == files
                assert forked["instructionSources"] == files

    run(scenario())
