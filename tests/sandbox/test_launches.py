"""Launches that share a workspace, are killed, or find somebody else's things where their placeholders were."""

import contextlib
import os
import random
import select
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.sandbox.attempts import attempt
from tests.sandbox.place import Place
from tests.sandbox.profiles import Profile, workspace
from tests.sandbox.system import tried

ENDED_S = 3.0


def stay(word):
    """Say that we run, and wait for our stdin to end."""
    os.write(1, word.encode() + b"\n")
    os.read(0, 1)


def make_git_until_told(count_to):
    """Try to make a protected name in a tight loop until stdin ends; say what succeeded."""
    os.write(1, b"trying\n")
    os.set_blocking(0, False)
    made = tries = 0
    while True:
        for name in (".codex", ".agents", ".aws"):
            made += tried(os.mkdir, name) == "OK"
        tries += 1
        try:
            if os.read(0, 1) == b"":
                break
        except BlockingIOError:
            continue
    os.write(1, f"{made} of {tries}\n".encode())


@contextlib.contextmanager
def launch(place: Place, function, *arguments, profile: Profile | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A launch with pipes, killed in the end if it still runs."""
    line = place.sandbox(workspace() if profile is None else profile, *attempt(function, *arguments))
    with subprocess.Popen(line, cwd=place.project, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def placeholders(place: Place) -> list[str]:
    return sorted(name for name in os.listdir(place.project) if name in (".codex", ".agents", ".aws"))


def wait_until_gone(place: Place) -> list[str]:
    """What is left of the placeholders, when they are gone or at the latest after a while."""
    deadline = time.monotonic() + ENDED_S
    while placeholders(place) and time.monotonic() < deadline:
        select.select([], [], [], 0.01)
    return placeholders(place)


def test_however_a_launch_is_killed_the_other_keeps_its_masks_and_nothing_stays(place: Place):
    """30 launches killed at a random moment, from before they plan until long after their command runs."""
    moments = random.Random(place.uid)
    with launch(place, make_git_until_told, 0) as survivor:
        assert line_of(survivor) == b"trying"
        assert placeholders(place) == [".agents", ".aws", ".codex"]
        for _ in range(30):
            with launch(place, stay, "runs") as killed:
                assert killed.stdout is not None
                # Wait for the command to run, but not longer than up to that moment.
                select.select([killed.stdout], [], [], moments.uniform(0, 0.15))
                killed.kill()
            assert placeholders(place) == [".agents", ".aws", ".codex"]
        out, _ = survivor.communicate(timeout=20)
        made, _, tries = out.splitlines()[0].split()
        assert made == b"0" and int(tries) > 100, out
    assert wait_until_gone(place) == []


def test_a_launch_alone_that_is_killed_at_any_moment_leaves_nothing_and_nobody(place: Place):
    """Also in the moments before bubblewrap has asked to die with its parent; a few of a hundred stayed once."""
    moments = random.Random(place.uid)
    for _ in range(30):
        with launch(place, stay, "runs") as killed:
            assert killed.stdout is not None
            select.select([killed.stdout], [], [], moments.uniform(0, 0.12))
            killed.kill()
            # Its end is the end of all who have it; the guardian has not.
            killed.stdout.read()
        assert wait_until_gone(place) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_a_launch_that_is_told_to_end_ends_of_that_signal_and_cleans_up(place: Place, number):
    """No trap of the command is waited for."""
    with launch(place, ignore_and_stay) as told:
        assert line_of(told) == b"runs"
        assert len(placeholders(place)) == 3
        told.send_signal(number)
        assert told.wait(timeout=10) == -number
        # At once, not some time later: whoever waited for it may rely on it.
        assert placeholders(place) == []


def ignore_and_stay():
    for number in (1, 2, 3, 15):
        signal.signal(number, signal.SIG_IGN)
    os.write(1, b"runs\n")
    while True:
        select.select([], [], [])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_no_mask_is_lost_while_a_launch_ends(place: Place, number):
    """A command in a tight loop has all the time from the signal to its own death."""
    for _ in range(10):
        with launch(place, make_git_until_told, 0) as told:
            assert line_of(told) == b"trying"
            told.send_signal(number)
            assert told.wait(timeout=10) == -number
        assert placeholders(place) == []


def leave_somebody_trying():
    """Children that go on trying after the command has ended; the command ends when they run."""
    ready, told = os.pipe()
    for _ in range(3):
        if os.fork() == 0:
            os.write(told, b".")
            while True:
                for name in (".codex", ".agents", ".aws"):
                    tried(os.mkdir, name + "/made")
                    tried(os.makedirs, name + "/made")
    os.read(ready, 3)


def test_no_mask_is_lost_to_what_a_command_leaves_behind(place: Place):
    """What was in the background is dead before the placeholders go."""
    for _ in range(20):
        assert place.confined(leave_somebody_trying).outcome == "OK"
        assert placeholders(place) == []


def test_what_somebody_outside_put_into_a_placeholder_is_kept(place: Place):
    with launch(place, stay, "runs") as running:
        assert line_of(running) == b"runs"
        (place.project / ".codex").chmod(0o755)
        (place.project / ".codex" / "config.toml").write_text("mine")
        (place.project / ".aws").rmdir()
        (place.project / ".aws").write_text("mine, too")
        running.communicate(timeout=10)
    assert placeholders(place) == [".aws", ".codex"]
    assert (place.project / ".codex" / "config.toml").read_text() == "mine"
    assert (place.project / ".aws").read_text() == "mine, too"


def test_an_empty_directory_that_was_there_before_is_kept(place: Place):
    (place.project / ".codex").mkdir()
    place.give()
    before = (place.project / ".codex").stat().st_ino
    with launch(place, stay, "runs") as running:
        assert line_of(running) == b"runs"
        running.communicate(timeout=10)
    assert placeholders(place) == [".codex"]
    assert (place.project / ".codex").stat().st_ino == before


def test_the_last_of_many_removes_what_they_share(place: Place):
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(launch(place, stay, "runs")) for _ in range(5)]
        assert [line_of(one) for one in running] == [b"runs"] * 5
        for one in running[:-1]:
            one.communicate(timeout=10)
            assert len(placeholders(place)) == 3
        running[-1].communicate(timeout=10)
    assert placeholders(place) == []
