"""Attempts on the launch itself: on the locks that keep its masks, and on what starts the sandbox from outside."""

import contextlib
import fcntl
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.processes import COUNTERSIGN
from tests.sandbox.attempts import attempt, carry_out, environment
from tests.sandbox.place import Place, as_user
from tests.sandbox.profiles import Profile, workspace
from tests.sandbox.system import system_call, tried

NAMES = (".codex", ".agents", ".aws")


def unlock(descriptor):
    tried(fcntl.flock, descriptor, fcntl.LOCK_UN)
    tried(fcntl.lockf, descriptor, fcntl.LOCK_UN)


def unlock_by_name(path):
    unlock(os.open(path, os.O_RDWR | os.O_NONBLOCK))


def drop_the_locks():
    """Every lock on what the init holds open: by its own descriptors, and by opening what they are open on."""
    dropped = []
    init = system_call("pidfd_open", 1, 0)
    for number in range(64):
        try:
            taken = system_call("pidfd_getfd", init, number, 0)
        except OSError:
            continue
        if "alive" in os.readlink(f"/proc/self/fd/{taken}"):
            unlock(taken)
            tried(unlock_by_name, f"/proc/1/fd/{number}")
            dropped.append(number)
    return dropped


def drop_the_locks_and_make(names, dropping):
    """Then try to make protected names until stdin ends; says what was dropped, and how many were made."""
    dropped = drop_the_locks() if dropping else []
    os.write(1, json.dumps(dropped).encode() + b"\n")
    os.set_blocking(0, False)
    made = 0
    while True:
        for name in names:
            made += tried(os.mkdir, name) == "OK"
        try:
            if os.read(0, 1) == b"":
                break
        except BlockingIOError:
            continue
    os.write(1, f"{made}\n".encode())


def do_nothing():
    pass


@contextlib.contextmanager
def making(place: Place, dropping: bool, profile: Profile) -> Iterator[subprocess.Popen[bytes]]:
    line = place.sandbox(profile, *attempt(drop_the_locks_and_make, NAMES, dropping))
    with subprocess.Popen(line, cwd=place.project, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: subprocess.Popen[bytes]):
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def made_by(process: subprocess.Popen[bytes]) -> int:
    return int(process.communicate(timeout=20)[0].splitlines()[0])


@pytest.mark.parametrize("network", [False, True], ids=["network-off", "network-on"])
def test_no_mask_is_lost_to_a_command_that_drops_the_locks_of_its_launch(place: Place, network):
    """The next launch of the same user took the first for dead, and took its placeholders with the masks away."""
    with making(place, True, workspace(network=network)) as process:
        assert line_of(process) != [], "it got at no lock: there was nothing to try"
        for _ in range(3):
            assert place.confined(do_nothing).outcome == "OK"
        assert made_by(process) == 0
    assert [name for name in os.listdir(place.project) if name in NAMES] == []


def test_a_mask_is_lost_where_somebody_outside_takes_its_placeholder_away(place: Place):
    """The control: that is how masks are lost, and making the names is all it takes then."""
    with making(place, False, workspace()) as process:
        assert line_of(process) == []
        for name in NAMES:
            (place.project / name).rmdir()
        deadline = time.monotonic() + 10
        while len(os.listdir(place.project)) < 2 + len(NAMES) and time.monotonic() < deadline:
            select.select([], [], [], 0.01)
        assert made_by(process) == len(NAMES)


def test_a_killed_launch_that_has_dropped_its_locks_is_ended_and_leaves_nothing(place: Place):
    with making(place, True, workspace()) as process:
        assert line_of(process) != []
        process.kill()
        assert process.stdout is not None
        # At the end of all that hold it.
        assert process.stdout.read() == b""
    deadline = time.monotonic() + 10
    while any(name in NAMES for name in os.listdir(place.project)) and time.monotonic() < deadline:
        select.select([], [], [], 0.01)
    assert [name for name in os.listdir(place.project) if name in NAMES] == []


# Variables


VARIABLES = ("LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "GLIBC_TUNABLES")


def complaints(stderr: str) -> int:
    """How many programs have said that they cannot preload: an empty file is no library."""
    return stderr.count("cannot be preloaded")


@pytest.mark.parametrize("mode", ["read-only", "workspace-write"])
def test_a_variable_for_the_dynamic_linker_reaches_the_command_and_no_program_before_it(place: Place, mode):
    """Configuration may set one, and a relative path in it leads into the workspace: to code of the model's."""
    (place.project / "planted.so").touch()
    place.give()
    options = ["-c", f'sandbox_mode="{mode}"', "-c", "sandbox_workspace_write.exclude_slash_tmp=true"]
    options += ["-c", "sandbox_workspace_write.exclude_tmpdir_env_var=true"]
    options += ["-c", 'shell_environment_policy.set.LD_PRELOAD="./planted.so"']
    told = place.run(*options, command=["/usr/bin/env"], environ=dict.fromkeys(VARIABLES))
    assert told.code == 0 and "LD_PRELOAD=./planted.so" in told.stdout.splitlines()
    assert complaints(told.stderr) == 1, told.stderr
    # The control: two programs, two complaints.
    control = place.run(*options, command=["/usr/bin/env", "/usr/bin/env"], environ=dict.fromkeys(VARIABLES))
    assert complaints(control.stderr) == 2


SECRETS = {
    "HTTPS_PROXY": "http://countersign:password@127.0.0.1:5555",
    "COUNTERSIGN_TOKEN": "word",
    "CODEX_API_KEY": "word",
    "SSL_CERT_FILE": "/nowhere/ca.pem",
}
KEPT = {"http_proxy": "http://proxy.example:3128", "OPENAI_API_KEY": "the user's", "MY_TOKEN": "mine"}


@pytest.mark.parametrize("started_as", ["helper", "sandbox"])
def test_the_way_to_the_stamp_is_not_in_the_commands_environment_however_it_is_started(place: Place, started_as):
    """As the helper it passed on what it was given, with the credentials of the attesting proxy around it."""
    if started_as == "helper":
        helper = place.outside / "codex-linux-sandbox"
        helper.symlink_to(COUNTERSIGN)
        profile = json.dumps(workspace())
        line = [str(helper), "--sandbox-policy-cwd", str(place.project), "--permission-profile", profile, "--", "env"]
    else:
        line = place.line(workspace(), "env")
    told = carry_out(as_user(place.uid, *line), cwd=place.project, env=environment({**SECRETS, **KEPT}))
    assert told.code == 0, told
    found = dict(pair.split("=", 1) for pair in told.stdout.splitlines() if "=" in pair)
    assert found.keys().isdisjoint(SECRETS)
    assert {name: found.get(name) for name in KEPT} == KEPT
