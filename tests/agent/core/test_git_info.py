"""What a thread says of its repository: read from its files, as git would say it."""

import os
import subprocess
import time

import pytest

from agent.core.git_info import git_info
from tests.agent.core import model_says
from tests.agent.core.memory_app import app_and_desktop
from tests.agent.core.scripted_model import ScriptedModel
from tests.agent.rpc.test_methods import HELLO, start, turn


def git(directory, *words):
    own = {"HOME": str(directory), "PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1"}
    who = ("-c", "user.email=a@example.com", "-c", "user.name=a", "-c", "init.defaultBranch=main")
    done = subprocess.run(["git", *who, *words], cwd=directory, env=own, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path):
    """One commit on `main`, without an origin."""
    root = tmp_path / "repository"
    root.mkdir()
    git(root, "init")
    git(root, "commit", "--allow-empty", "-m", "first")
    return root


def test_it_is_the_commit_and_the_branch_that_git_tells_also_from_a_directory_below(repository):
    (repository / "a/b").mkdir(parents=True)
    told = {"sha": git(repository, "rev-parse", "HEAD"), "branch": "main", "originUrl": None}
    assert git_info(str(repository)) == git_info(str(repository / "a/b")) == told


def test_a_branch_of_a_worktree_a_packed_ref_and_a_detached_head(repository):
    first = git(repository, "rev-parse", "HEAD")
    git(repository, "worktree", "add", "../beside", "-b", "feature/x")
    git(repository, "pack-refs", "--all")
    assert git_info(str(repository.parent / "beside")) == {"sha": first, "branch": "feature/x", "originUrl": None}
    git(repository, "commit", "--allow-empty", "-m", "second")
    assert git_info(str(repository))["sha"] == git(repository, "rev-parse", "HEAD") != first
    git(repository, "checkout", "--detach", first)
    assert git_info(str(repository)) == {"sha": first, "branch": None, "originUrl": None}


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://example.com/a.git", "https://example.com/a.git"),
        ("https://user:secret@example.com/a.git", "https://example.com/a.git"),
        ("https://token@example.com/a.git", "https://example.com/a.git"),
        ("ssh://git:secret@example.com/a.git", "ssh://git@example.com/a.git"),
        ("git@example.com:a/b.git", "git@example.com:a/b.git"),
        ("../a b", "../a b"),
    ],
)
def test_the_origin_is_told_without_credentials(repository, url, told):
    git(repository, "remote", "add", "origin", url)
    assert git_info(str(repository))["originUrl"] == told


def test_without_a_repository_or_a_commit_there_is_nothing_to_tell(tmp_path, repository):
    (tmp_path / "empty").mkdir()
    assert git_info(str(tmp_path / "empty")) is None
    git(tmp_path / "empty", "init")
    assert git_info(str(tmp_path / "empty")) is None
    assert git_info(str(tmp_path / "missing")) is None


@pytest.mark.parametrize(
    "head", ["", "garbage", "ref: ", "ref: refs/../../secret", "ref: /etc/passwd", "ref: refs/heads/HEAD\0", "a" * 39]
)
def test_a_head_that_is_none_tells_nothing(repository, head):
    (repository.parent / "secret").write_text("b" * 40)
    (repository / ".git/HEAD").write_text(head)
    assert git_info(str(repository)) is None


def test_refs_that_name_each_other_and_a_pipe_do_not_hold_anybody_up(repository):
    (repository / ".git/refs/heads/main").write_text("ref: refs/heads/other\n")
    (repository / ".git/refs/heads/other").write_text("ref: refs/heads/main\n")
    assert git_info(str(repository)) is None
    for name in ("HEAD", "config"):
        (repository / ".git" / name).unlink()
        os.mkfifo(repository / ".git" / name)
    began = time.monotonic()
    assert git_info(str(repository)) is None
    assert time.monotonic() - began < 1


def test_no_program_that_the_repository_names_is_started(repository):
    """The control: git itself starts this one."""
    ran = repository.parent / "ran"
    git(repository, "config", "core.fsmonitor", f"touch {ran}")
    assert git_info(str(repository)) is not None
    assert not ran.exists()
    git(repository, "status")
    assert ran.exists()


def test_a_thread_keeps_what_its_first_turn_found(run, tmp_path, repository):
    async def scenario():
        first = git(repository, "rev-parse", "HEAD")
        answers = [model_says.answer("one"), model_says.answer("two", item_id="msg-2")]
        with ScriptedModel(*answers) as model:
            async with app_and_desktop(tmp_path, model) as (_, desktop):

                async def told(thread_id):
                    return (await desktop.request("thread/read", {"threadId": thread_id}))["thread"]["gitInfo"]

                thread_id = await start(desktop, cwd=str(repository))
                assert await told(thread_id) is None
                await turn(desktop, thread_id, HELLO)
                found = await told(thread_id)
                assert found == {"sha": first, "branch": "main", "originUrl": None}
                git(repository, "commit", "--allow-empty", "-m", "second")
                await turn(desktop, thread_id, HELLO)
                assert await told(thread_id) == found
                fork = (await desktop.request("thread/fork", {"threadId": thread_id}))["thread"]
                assert fork["gitInfo"] == {**found, "sha": git(repository, "rev-parse", "HEAD")}
        async with app_and_desktop(tmp_path) as (_, desktop):
            listed = (await desktop.request("thread/list", {}))["data"]
            assert found in [one["gitInfo"] for one in listed]

    run(scenario())
