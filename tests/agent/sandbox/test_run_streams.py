"""What commands read and write."""

import asyncio
import time

import pytest

from agent.sandbox.plan import Backend
from agent.sandbox.streams import Output
from tests.agent.sandbox.test_run import ENVIRON, on_each_backend, planner, shell, started
from tests.loops import on_each_loop


@pytest.mark.parametrize(
    ("limit", "head", "tail"), [(10, b"01234", b"56789"), (11, b"01234", b"456789"), (0, b"", b"")]
)
def test_of_too_much_output_the_beginning_and_the_end_are_kept(limit, head, tail):
    output = Output(limit)
    for _ in range(100_000):
        output.write(b"0123456789")
    assert output.kept() == head + tail
    assert output.dropped == 1_000_000 - len(head + tail)
    exact = Output(20)
    exact.write(b"0123456789" * 2)
    assert (exact.kept(), exact.dropped) == (b"0123456789" * 2, 0)


@on_each_loop
def test_each_stream_is_cut_by_itself_and_passed_on_whole(run, runner, workspace):
    heard = {"stdout": bytearray(), "stderr": bytearray()}
    script = "seq 1 200000; echo short >&2"
    made = run(
        started(
            runner,
            shell(workspace, script),
            max_output_bytes=1000,
            on_output=lambda stream, piece: heard[stream].extend(piece),
        )
    )
    whole = b"".join(b"%d\n" % number for number in range(1, 200_001))
    assert bytes(heard["stdout"]) == whole and heard["stderr"] == b"short\n"
    assert made.stdout == whole[:500] + whole[-500:]
    assert (made.dropped_stdout, made.stderr, made.dropped_stderr) == (len(whole) - 1000, b"short\n", 0)


@on_each_loop
@on_each_backend
def test_stdin_is_what_is_given_and_nothing_otherwise(run, runner, workspace, backend):
    megabyte = bytes(1_000_000)
    assert run(started(runner, shell(workspace, "wc -c", backend), stdin=megabyte)).stdout.strip() == b"1000000"
    assert run(started(runner, shell(workspace, "wc -c", backend), stdin=b"")).stdout.strip() == b"0"
    nothing = run(started(runner, shell(workspace, "readlink /proc/self/fd/0", backend)))
    assert nothing.stdout == b"/dev/null\n"


def test_what_a_listener_raises_costs_it_nothing_of_the_result(runner, workspace):
    def fail(_stream, _piece):
        raise RuntimeError("the listener's own")

    heard = []

    async def scenario():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(str(context["exception"])))
        return await started(runner, shell(workspace, "echo out"), on_output=fail)

    assert asyncio.run(scenario()).stdout == b"out\n"
    assert heard == ["the listener's own"]


@on_each_loop
@pytest.mark.parametrize("backend", [Backend.BUBBLEWRAP, Backend.LANDLOCK])
def test_what_a_slow_listener_has_not_heard_when_the_command_ends_is_kept_all_the_same(run, runner, workspace, backend):
    """What was still in the pipe half a second after the end was neither kept nor counted."""
    big = "import fcntl, os; fcntl.fcntl(1, 1031, 1 << 20); os.write(1, b'x' * (1 << 20))"
    heard = bytearray()

    def hear(_stream, piece):
        deadline = time.monotonic() + 0.08
        while time.monotonic() < deadline:
            pass
        heard.extend(piece)

    # Something that it leaves behind has the pipe, too, and never ends it.
    script = f'/usr/bin/python3 -I -S -c "{big}"; sleep 5 &'
    make_plan = shell(workspace, script, backend)
    made = run(started(runner, make_plan, max_output_bytes=1 << 21, on_output=hear))
    assert made.stdout == bytes(heard) == b"x" * (1 << 20)


def test_a_command_that_does_not_read_its_stdin_ends_all_the_same(run, runner, workspace):
    assert run(started(runner, shell(workspace, "exec <&-; exit 3"), stdin=bytes(1_000_000))).exit_code == 3


@on_each_backend
def test_the_environment_is_what_is_given_and_what_the_plan_adds(run, runner, workspace, backend):
    environ = {"PATH": "/usr/bin:/bin", "GREETING": "good\nday"}
    made = run(started(runner, planner(workspace, backend, "env", "-0"), environ=environ))
    found = dict(pair.split("=", 1) for pair in made.stdout.decode().split("\0") if pair)
    network = {} if backend is Backend.NONE else {"CODEX_SANDBOX_NETWORK_DISABLED": "1"}
    # bubblewrap says where it went.
    here = {"PWD": str(workspace)} if backend is Backend.BUBBLEWRAP else {}
    assert found == {**environ, **network, **here}


@on_each_backend
def test_a_command_line_longer_than_a_pipe_is_started_too(run, runner, workspace, backend):
    """The stage was told its plan by a pipe, which takes 64 KiB: a longer one stopped the whole agent."""
    made = run(started(runner, planner(workspace, backend, "sh", "-c", "echo $#", *["x" * 1000] * 200)))
    assert made.stdout == b"199\n"


@on_each_backend
def test_a_library_that_the_tools_environment_names_is_loaded_by_nothing_that_is_not_confined(
    run, runner, workspace, backend
):
    """LD_PRELOAD of the model's choice ran in bubblewrap, and in the interpreter that confines itself.

    The dynamic linker complains of an empty file: once for each program that starts with the variable.
    """
    (workspace / "planted.so").touch()
    environ = {**ENVIRON, "LD_PRELOAD": str(workspace / "planted.so")}
    made = run(started(runner, planner(workspace, backend, "env"), environ=environ))
    assert f"LD_PRELOAD={environ['LD_PRELOAD']}" in made.stdout.decode().splitlines()
    # The one is the command's own.
    assert made.stderr.count(b"ERROR: ld.so") == 1
