import os
import signal
import subprocess
import sys
import time

import pytest

from agent.doctor.processes import MAX_OUTPUT_BYTES, NotStarted, child, run_quietly

PYTHON = sys.executable


def dies(pid):
    """Whether it has ended within five seconds: a signal that was sent need not have done its work yet."""
    for _ in range(500):
        try:
            with open(f"/proc/{pid}/stat") as file:
                state = file.read().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def test_a_program_is_run_to_its_end_and_what_it_said_is_kept(run):
    script = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    ended = run(run_quietly([PYTHON, "-c", script], os.environ, 30.0))
    assert (ended.code, ended.stdout, ended.stderr) == (3, "out\n", "err\n")


def test_a_signal_is_told_as_shells_do(run):
    assert run(run_quietly(["sh", "-c", "kill -KILL $$"], os.environ, 30.0)).code == 128 + signal.SIGKILL


@pytest.mark.parametrize(
    ("command", "reason"),
    [(["no-such-program"], "not found on PATH"), (["/no/such"], "not found"), (["/"], "Permission denied")],
)
def test_what_cannot_be_started_says_why(run, command, reason):
    ended = run(run_quietly(command, os.environ, 30.0))
    assert ended.code is None and ended.not_started == reason


def test_what_cannot_be_started_raises_where_it_is_to_be_watched(run):
    async def scenario():
        with pytest.raises(NotStarted, match="not found"):
            async with child(["no-such-program"], os.environ, subprocess.DEVNULL, subprocess.DEVNULL):
                pass

    run(scenario())


def test_it_has_no_input_to_wait_for(run):
    assert run(run_quietly(["cat"], os.environ, 30.0)).code == 0


def test_a_deadline_ends_it_and_all_that_it_started(run, tmp_path):
    """The grandchild is in the group; it holds our pipes open, which must not be waited for."""
    pids = tmp_path / "pids"
    script = f"sleep 600 & echo $! > {pids}; echo $$ >> {pids}; wait"
    began = time.monotonic()
    assert run(run_quietly(["sh", "-c", script], os.environ, 0.5)).code is None
    assert time.monotonic() - began < 10
    assert [dies(int(pid)) for pid in pids.read_text().split()] == [True, True]


def test_one_that_does_not_listen_is_killed(run):
    script = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.pause()"
    assert run(run_quietly([PYTHON, "-c", script], os.environ, 1.0)).code is None


def test_what_is_left_of_its_group_when_it_ends_is_ended_too(run, tmp_path):
    pids = tmp_path / "pids"
    script = f"sleep 600 >/dev/null 2>&1 & echo $! > {pids}"
    assert run(run_quietly(["sh", "-c", script], os.environ, 30.0)).code == 0
    assert dies(int(pids.read_text()))


def test_of_a_flood_the_beginning_is_kept(run):
    script = "import sys; sys.stdout.write('x' * 5_000_000)"
    ended = run(run_quietly([PYTHON, "-c", script], os.environ, 30.0))
    assert ended.code == 0 and len(ended.stdout) == MAX_OUTPUT_BYTES
