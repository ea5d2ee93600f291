"""What the user and a project say in AGENTS.md, and what the model is told of it."""

import os

import pytest

from agent.core import agents_md
from agent.core.agents_md import MOST_PROJECT_BYTES
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


def load(home, cwd, **config):
    """The texts, the user's first."""
    found = agents_md.load(home, cwd, config)
    return [text for text in (found.user, *found.project) if text]


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
    assert load(home, str(project / "a/b")) == ["of the user", "\ufffd of b"]
    assert load(home, str(project / "nowhere")) == ["of the user"]


def test_the_model_is_told_the_user_s_words_and_the_project_s_apart(home, project):
    cwd = str(project / "a")
    text = "of the user\n\n--- project-doc ---\n\nof project\n\nof a"
    told = f"# AGENTS.md instructions for {cwd}\n\n<INSTRUCTIONS>\n{text}\n</INSTRUCTIONS>"
    assert agents_md.load(home, cwd, {}).told(cwd) == told
    (home / "AGENTS.md").write_text("\n of the user \n\n")
    assert agents_md.load(home, cwd, {}).told(cwd) == told
    nothing_of_it = agents_md.load(home, cwd, {"project_doc_max_bytes": 0})
    assert nothing_of_it.told(cwd) == "# AGENTS.md instructions\n\n<INSTRUCTIONS>\nof the user\n</INSTRUCTIONS>"
    (home / "AGENTS.md").unlink()
    assert agents_md.load(home, cwd, {"project_doc_max_bytes": 0}).told(cwd) is None


def test_a_blank_override_of_the_user_counts_for_nothing_and_one_of_a_project_for_silence(home, project):
    (home / "AGENTS.override.md").write_text(" \n")
    (project / "a/AGENTS.override.md").write_text(" \n")
    assert load(home, str(project / "a")) == ["of the user", "of project"]


@pytest.mark.parametrize(("level", "counts"), [("untrusted", False), ("trusted", True), (None, True)])
def test_a_project_that_the_user_does_not_trust_says_nothing(home, project, level, counts):
    texts = load(home, str(project / "a"), projects={str(project): {"trust_level": level}})
    assert texts == ["of the user", *(["of project", "of a"] if counts else [])]


def test_other_names_count_where_there_is_none_of_the_usual(home, project):
    (project / "AGENTS.md").rename(project / "CLAUDE.md")
    (project / "a/CLAUDE.md").write_text("of another")
    (project.parent / "OUT.md").write_text("of elsewhere")
    names = ["NONE.md", " ", 5, "../OUT.md", "a/CLAUDE.md", "CLAUDE.md"]
    texts = load(home, str(project / "a"), project_doc_fallback_filenames=names)
    assert texts == ["of the user", "of project", "of a"]
    assert load(home, str(project / "a")) == ["of the user", "of a"]


@pytest.mark.parametrize(
    ("markers", "texts"),
    [([".hg"], ["of above", "of project", "of a"]), ([], ["of a"]), ([".git"], ["of project", "of a"])],
)
def test_the_root_is_where_a_marker_is(home, project, markers, texts):
    (project.parent / ".hg").mkdir()
    assert load(home, str(project / "a"), project_root_markers=markers) == ["of the user", *texts]


def test_the_client_is_warned_of_what_is_cut_off_or_left_out(home, project):
    found = agents_md.load(home, str(project / "a/b"), {"project_doc_max_bytes": 12})
    assert found.project == ("of project", "of")
    assert found.warnings == (
        f"Loaded only 2 of 4 bytes from `{project}/a/AGENTS.md` in environment `local` under the 12-byte project "
        "instruction budget. Trim your project instructions to fit the budget. If you need to keep them all, increase "
        "`project_doc_max_bytes`.",
        f"Skipped project instructions in environment `local` starting at `{project}/a/b/AGENTS.md` because the "
        "12-byte budget was exhausted. Trim your project instructions to fit the budget. If you need to keep them "
        "all, increase `project_doc_max_bytes`.",
        "Combined user instructions use 48 bytes, above the 12-byte `project_doc_max_bytes` setting. The total "
        "includes global and thread instructions. The limit applies only to project files.",
    )
    assert agents_md.load(home, str(project / "a/b"), {}).warnings == ()


def test_a_letter_that_is_cut_shows_and_a_blank_file_costs_nothing(home, project):
    (project / "AGENTS.md").write_text(" " * 20)
    (project / "a/AGENTS.md").write_text("\u00e9" * 10)
    assert load(home, str(project / "a"), project_doc_max_bytes=5) == ["of the user", "\u00e9\u00e9\ufffd"]


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
