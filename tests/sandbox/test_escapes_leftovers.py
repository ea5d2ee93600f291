"""Attempts to live longer than the command, and to use what the caller or bubblewrap left open."""

import asyncio
import contextlib
import fcntl
import os
import select
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.sandbox.host import look, places
from agent.sandbox.plan import Command, Options, plan
from agent.sandbox.policy import resolve
from agent.sandbox.profile_json import parse_profile
from agent.sandbox.run import Outcome, Runner
from tests.sandbox.attempts import attempt, carry_out, heard
from tests.sandbox.place import Place, as_user, place_for
from tests.sandbox.profiles import FULL_ACCESS, Profile, unrestricted, workspace
from tests.sandbox.system import tried


def leave_children_behind(lock, count):
    """Children in sessions of their own that ignore signals, each with a shared lock."""
    ready, told = os.pipe()
    for _ in range(count):
        if os.fork() == 0:
            os.setsid()
            for number in (1, 2, 3, 13, 15):
                signal.signal(number, signal.SIG_IGN)
            if os.fork() == 0:
                held = os.open(lock, os.O_RDWR)
                fcntl.flock(held, fcntl.LOCK_SH)
                # Nobody waits for our streams, so that only the lock tells.
                for stream in (0, 1, 2):
                    os.close(stream)
                os.write(told, b".")
                select.select([], [], [], 60)
            os._exit(0)
    got = 0
    while got < count:
        got += len(os.read(ready, count))
    return got


def is_locked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextlib.contextmanager
def lock_in(place: Place) -> Iterator[Path]:
    """A file in the project; whoever holds a lock on it at the end is killed."""
    path = place.project / "lock"
    path.touch()
    place.give()
    try:
        yield path
    finally:
        end_holders(path)


def end_holders(path: Path) -> None:
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if os.readlink(descriptor) == str(path) and int(descriptor.parts[2]) != os.getpid():
                os.kill(int(descriptor.parts[2]), signal.SIGKILL)


def test_nothing_that_a_command_started_lives_longer_than_the_command(place: Place):
    with lock_in(place) as lock:
        assert place.confined(leave_children_behind, lock, 5).value == 5
        assert not is_locked(lock)

        assert place.with_full_access(leave_children_behind, lock, 5).value == 5
        assert is_locked(lock)


def leave_children_and_stay(lock, count):
    leave_children_behind(lock, count)
    os.write(2, b"made")
    select.select([], [], [], 60)


async def run_by_agent(
    place: Place, profile: Profile, command: list[str], timeout_s: float | None, until: bytes | None = None
) -> Outcome | None:
    """Run a command as the agent does; None if it was given up when it had said `until`."""
    policy = resolve(parse_profile(profile), places(str(place.project), os.environ))
    options = Options()
    cwd = str(place.project)

    def make_plan():
        return plan(policy, Command(tuple(command), cwd), look(policy, cwd, options, os.environ), options)

    runner = Runner()
    said = asyncio.Event()

    def hear(stream: str, piece: bytes) -> None:
        if until is not None and until in piece:
            said.set()

    try:
        running = asyncio.ensure_future(
            runner.run(make_plan, os.environ, timeout_s=timeout_s, max_output_bytes=1 << 16, on_output=hear)
        )
        if until is None:
            return await running
        await asyncio.wait_for(said.wait(), 20)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            return await running
        return None
    finally:
        runner.close()


@pytest.fixture
def own_place() -> Iterator[Place]:
    """A place of the user that the agent in this process is."""
    with place_for(os.geteuid()) as place:
        yield place


def test_a_bomb_of_processes_is_dead_when_the_agent_gives_the_command_up(own_place: Place, run):
    """200 processes that leave the session and ignore signals; nothing of them is left when `run` returns."""
    with lock_in(own_place) as lock:
        bomb = attempt(leave_children_and_stay, lock, 200)
        assert run(run_by_agent(own_place, workspace(), bomb, None, until=b"made")) is None
        assert not is_locked(lock)

        assert run(run_by_agent(own_place, FULL_ACCESS, bomb, None, until=b"made")) is None
        assert is_locked(lock)


def test_a_bomb_of_processes_is_dead_when_the_time_is_up(own_place: Place, run):
    with lock_in(own_place) as lock:
        outcome = run(run_by_agent(own_place, workspace(), attempt(leave_children_and_stay, lock, 50), 2.0))
        assert outcome.timed_out and outcome.stderr == b"made"
        assert not is_locked(lock)


# What is left open


def list_a_directory_by_descriptor(descriptor):
    secret = os.open("../outside/secret.txt", os.O_RDONLY, dir_fd=descriptor)
    return os.read(secret, 100).decode()


def create_by_descriptor(descriptor):
    os.mkdir("made", dir_fd=descriptor)


def write_to_descriptor(descriptor):
    os.write(descriptor, b"from inside")


def take_what_is_sent(descriptor):
    """SCM_RIGHTS: by a socket that was left open, more can be handed in at any time."""
    held = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=descriptor)
    _, taken, _, _ = socket.recv_fds(held, 1, 1)
    return os.read(taken[0], 100).decode()


CONFINED = (workspace(), workspace(network=True), unrestricted())
BY_DESCRIPTOR = [list_a_directory_by_descriptor, create_by_descriptor, write_to_descriptor, take_what_is_sent]


@contextlib.contextmanager
def left_open(place: Place, use) -> Iterator[int]:
    """An inheritable descriptor as careless callers have it: on a directory, or a socket with a secret on its way."""
    with contextlib.ExitStack() as stack:
        if use in (list_a_directory_by_descriptor, create_by_descriptor):
            descriptor = os.open(place.outside, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, descriptor)
        else:
            ours, theirs = socket.socketpair()
            stack.enter_context(ours)
            stack.enter_context(theirs)
            with place.secret.open() as secret:
                socket.send_fds(ours, [b"."], [secret.fileno()])
            descriptor = theirs.fileno()
        os.set_inheritable(descriptor, True)
        yield descriptor


@pytest.mark.parametrize("profile", CONFINED, ids=("network-off", "network-on", "filter-only"))
@pytest.mark.parametrize("use", BY_DESCRIPTOR, ids=lambda use: use.__name__)
def test_what_the_caller_left_open_is_closed(place: Place, use, profile):
    with left_open(place, use) as descriptor:
        told = place.confined(use, descriptor, profile=profile, pass_fds=[descriptor])
        assert told.outcome == "EBADF", told
        assert place.with_full_access(use, descriptor, pass_fds=[descriptor]).outcome == "OK"


@pytest.mark.parametrize("use", BY_DESCRIPTOR, ids=lambda use: use.__name__)
def test_what_the_agent_has_open_is_closed(own_place: Place, use, run):
    """Also what it inherited itself, from a shell or a service manager, and never looked at.

    There is no control with full access: subprocess closes everything. That the descriptor can be used is seen by
    the one before this.
    """
    with left_open(own_place, use) as descriptor:
        outcome = run(run_by_agent(own_place, workspace(), attempt(use, descriptor), 20))
        assert heard(outcome.exit_code, outcome.stdout, outcome.stderr).outcome == "EBADF"
        told = carry_out(attempt(use, descriptor), pass_fds=[descriptor], cwd=own_place.project)
        assert told.outcome == "OK"


def list_descriptors():
    return [int(name) for name in os.listdir("/proc/self/fd") if int(name) > 2]


def descriptors_of_all():
    """Of every process that is seen: what any of them holds can be opened anew by /proc."""
    found = []
    for pid in [pid for pid in os.listdir("/proc") if pid.isdigit()]:
        for name in os.listdir(f"/proc/{pid}/fd"):
            if int(name) > 2 and tried(os.readlink, f"/proc/{pid}/fd/{name}") == "OK":
                found.append((pid, name, os.readlink(f"/proc/{pid}/fd/{name}")))
    return found


def write_what_init_holds(text):
    """By /proc/1/fd a file is opened anew, with the rights of its mode, whatever it was opened for."""
    written = 0
    for name in os.listdir("/proc/1/fd"):
        path = f"/proc/1/fd/{name}"
        if int(name) > 2 and os.path.isfile(path):
            with open(path, "w") as file:
                file.write(text)
            written += 1
    return written


def test_what_init_holds_open_says_nothing_to_who_cleans_up(place: Place):
    """Once it was the launch's record: a tool could let an empty directory of the user's be removed, anywhere."""
    target = place.outside / "empty"
    target.mkdir()
    place.give()
    forged = f"0 0 1 1 {str(target).encode().hex()}\n"

    with subprocess.Popen(
        place.sandbox(workspace(), *attempt(forge_and_stay, forged)),
        cwd=place.project,
        stdout=subprocess.PIPE,
    ) as launch:
        assert launch.stdout is not None
        assert launch.stdout.readline() == b"forged\n"
        launch.kill()
        launch.stdout.read()
    # The next launch sweeps up after the killed one.
    assert place.confined(list_descriptors).outcome == "OK"
    assert target.is_dir()


def forge_and_stay(text):
    write_what_init_holds(text)
    print("forged", flush=True)
    select.select([], [], [], 60)


def test_a_record_of_a_killed_launch_is_what_is_swept_up(place: Place):
    """The control of the forged record: written where records are, the same line has the directory removed."""
    target = place.outside / "empty"
    target.mkdir()
    place.give()
    forged = f"0 0 1 1 {str(target).encode().hex()}\n"
    record = f"/dev/shm/countersign-sandbox-{place.uid}/launches/0-0"
    assert place.confined(list_descriptors).outcome == "OK"
    carry_out(as_user(place.uid, *attempt(write_file, record, forged)))
    assert place.confined(list_descriptors).outcome == "OK"
    assert not target.exists()


def write_file(path, text):
    with open(path, "w") as file:
        file.write(text)


def test_init_holds_no_directory_and_no_file_with_something_in_it(place: Place):
    told = place.confined(list_init_files)
    assert told.outcome == "OK", told
    assert told.value == [0] * len(told.value)


def list_init_files():
    """The sizes of what init has open beside its streams; a directory would be an error."""
    sizes = []
    for name in os.listdir("/proc/1/fd"):
        path = f"/proc/1/fd/{name}"
        if int(name) > 2 and os.readlink(path).startswith("/"):
            with open(path, "rb") as file:
                sizes.append(len(file.read()))
    return sizes
