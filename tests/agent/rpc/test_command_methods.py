"""`command/exec`, with real commands in the real sandbox."""

import asyncio
import base64
import contextlib
import os

import pytest

from agent.rpc.command_methods import KILLED, CommandMethods
from agent.rpc.jsonrpc import INTERNAL_ERROR
from agent.rpc.process_streams import Capture, PipeInput, Terminal
from agent.sandbox.plan import Options
from agent.sandbox.run import Runner
from tests.agent.rpc.desk import desk
from tests.loops import on_each_loop

FREE = {"type": "dangerFullAccess"}
ENVIRON = {"PATH": "/usr/bin:/bin", "HOME": "/", "COUNTERSIGN_SECRET": "s3cret", "CODEX_API_KEY": "sk-s3cret"}
OUR_PROXY = "http://countersign:s3cret@127.0.0.1:4711"


@contextlib.asynccontextmanager
async def commands(tmp_path, config=None):
    runner = Runner()
    methods = CommandMethods(
        runner,
        config=config or {},
        options=Options(),
        own_proxy=lambda: ("127.0.0.1:4711", frozenset({4711}), ()),
        environ={**ENVIRON, "HTTPS_PROXY": OUR_PROXY},
        home=str(tmp_path),
    )
    try:
        async with desk(methods.table()) as it:
            yield it
    finally:
        runner.close()


def sh(script, **more):
    return {"command": ["sh", "-c", script], "sandboxPolicy": FREE, **more}


async def execute(it, script, cwd, **more):
    return await it.call("command/exec", **sh(script, cwd=str(cwd), **more))


def streamed(it, process_id):
    pieces = [one for one in it.told("command/exec/outputDelta") if one["processId"] == process_id]
    return b"".join(base64.b64decode(one["deltaBase64"]) for one in pieces)


def test_a_command_is_run_and_answered_as_recorded(run, tmp_path):
    """command_exec."""

    async def scenario():
        async with commands(tmp_path) as it:
            confined = {"command": ["sh", "-c", "echo out; echo err >&2; exit 2"], "cwd": str(tmp_path)}
            assert await it.call("command/exec", **confined) == {"exitCode": 2, "stdout": "out\n", "stderr": "err\n"}
            answer = await execute(it, "echo $FOO", tmp_path, env={"FOO": "bar"})
            assert answer == {"exitCode": 0, "stdout": "bar\n", "stderr": ""}
            assert await it.refused("command/exec", command=[]) == "command must not be empty"
            missing = {"command": ["/no/such/bin"], "sandboxPolicy": FREE}
            text = "failed to spawn command: No such file or directory (os error 2)"
            assert await it.refused("command/exec", INTERNAL_ERROR, **missing) == text
            answer = await execute(it, "sleep 5", tmp_path, timeoutMs=200)
            assert answer == {"exitCode": 124, "stdout": "", "stderr": ""}
            answer = await execute(it, "yes | head -c 100000", tmp_path, outputBytesCap=50)
            assert answer == {"exitCode": 0, "stdout": "y\n" * 25, "stderr": ""}

    run(scenario())


def test_a_command_may_do_what_its_policy_says_and_no_more(run, tmp_path):
    """Read-only where nothing is said; the configuration's policy; the request's."""
    work, outside = tmp_path / "work", tmp_path / "outside"
    work.mkdir()
    outside.mkdir()
    script = f"touch {work}/f 2>/dev/null; touch {outside}/f 2>/dev/null; true"
    asked = {"type": "workspaceWrite", "excludeSlashTmp": True, "excludeTmpdirEnvVar": True}

    async def made(config, policy):
        async with commands(tmp_path, config) as it:
            await it.call("command/exec", command=["sh", "-c", script], cwd=str(work), sandboxPolicy=policy)
        names = {place.name for place in (work, outside) if (place / "f").exists()}
        for place in (work, outside):
            (place / "f").unlink(missing_ok=True)
        return names

    async def scenario():
        assert await made({}, None) == set()
        configured = {"exclude_slash_tmp": True, "exclude_tmpdir_env_var": True}
        of_file = {"sandbox_mode": "workspace-write", "sandbox_workspace_write": configured}
        assert await made(of_file, None) == {"work"}
        assert await made({"sandbox_mode": "danger-full-access"}, {"type": "readOnly"}) == set()
        assert await made({}, asked) == {"work"}
        assert await made({}, {**asked, "writableRoots": [str(outside)]}) == {"work", "outside"}
        assert await made({}, FREE) == {"work", "outside"}  # the control

    run(scenario())


def test_secrets_of_ours_are_not_in_a_commands_environment(run, tmp_path):
    async def scenario():
        async with commands(tmp_path) as it:
            answer = await execute(it, "env", tmp_path, env={"HOME": None, "MINE": "yes"})
        assert "s3cret" not in answer["stdout"] and "HOME=" not in answer["stdout"]
        assert "MINE=yes" in answer["stdout"] and "PATH=" in answer["stdout"]  # the control

    run(scenario())


def test_output_is_streamed_before_the_answer_and_up_to_the_cap(run, tmp_path):
    async def scenario():
        async with commands(tmp_path) as it:
            streams = {"processId": "s", "streamStdoutStderr": True}
            answer = await execute(it, "echo out; echo err >&2", tmp_path, **streams)
            assert answer == {"exitCode": 0, "stdout": "", "stderr": ""}
            # The answer comes last, so that both are here by now.
            assert {one["stream"] for one in it.told("command/exec/outputDelta")} == {"stdout", "stderr"}
            await execute(it, "yes | head -c 100000", tmp_path, **{**streams, "processId": "c"}, outputBytesCap=7)
            assert streamed(it, "c") == b"y\ny\ny\ny"
            assert [one["capReached"] for one in it.told("command/exec/outputDelta")][-1] is True

    run(scenario())


@on_each_loop
def test_a_command_is_terminated_with_what_it_has_said(run, tmp_path):
    """command_exec."""

    async def scenario():
        async with commands(tmp_path) as it:
            going = asyncio.create_task(
                execute(it, "echo begun; sleep 60", tmp_path, processId="p", streamStdoutStderr=True)
            )
            await it.desktop.wait_for("command/exec/outputDelta")
            twice = await it.refused("command/exec", **sh("true", processId="p"))
            assert twice == 'duplicate active command/exec process id: "p"'
            assert await it.call("command/exec/terminate", processId="p") == {}
            assert await going == {"exitCode": KILLED, "stdout": "", "stderr": ""}
            gone = 'no active command/exec for process id "zzz"'
            for method, more in (("terminate", {}), ("write", {"closeStdin": True})):
                assert await it.refused(f"command/exec/{method}", processId="zzz", **more) == gone
            at_once = asyncio.create_task(execute(it, "sleep 60", tmp_path, processId="q"))
            await asyncio.sleep(0)
            await it.call("command/exec/terminate", processId="q")
            assert (await at_once)["exitCode"] == KILLED

    run(scenario())


def test_a_command_dies_with_its_connection(run, tmp_path):
    """What it holds open ends with it."""
    fifo = tmp_path / "alive"
    os.mkfifo(fifo)

    async def scenario():
        async with commands(tmp_path) as it:
            script = f"exec 9>{fifo}; echo open; sleep 60"
            going = asyncio.create_task(
                execute(it, script, tmp_path, processId="p", streamStdoutStderr=True, disableTimeout=True)
            )
            reader = await asyncio.to_thread(os.open, fifo, os.O_RDONLY)
            await it.desktop.wait_for("command/exec/outputDelta")
            os.set_blocking(reader, False)
            with pytest.raises(BlockingIOError):
                os.read(reader, 1)  # the control: it lives
        with pytest.raises(ConnectionError):
            await going
        os.set_blocking(reader, True)
        assert await asyncio.to_thread(os.read, reader, 1) == b""
        os.close(reader)

    run(scenario())


@pytest.mark.parametrize(
    ("params", "text"),
    [
        (sh("true", tty=True), "command/exec tty or streaming requires a client-supplied processId"),
        (sh("true", size={"rows": 1, "cols": 1}), "command/exec size requires tty: true"),
        (sh("true", timeoutMs=-1), "command/exec timeoutMs must be non-negative, got -1"),
        (sh("true", timeoutMs=1, disableTimeout=True), "command/exec cannot set both timeoutMs and disableTimeout"),
        (
            sh("true", outputBytesCap=1, disableOutputCap=True),
            "command/exec cannot set both outputBytesCap and disableOutputCap",
        ),
        (sh("true", env={"A=B": "c"}), "env has the name 'A=B'"),
        (sh("a\0b"), "command must not hold a NUL"),
        ({"command": ["true"], "cwd": "a\0b"}, "cwd has a NUL character"),
        ({"command": ["true"], "cwd": "\ud800"}, "cwd has '\\ud800'"),
        (sh("true", permissionProfile=":workspace"), "command/exec.permissionProfile is not supported"),
        ({"command": ["x"], "sandboxPolicy": {"type": "bogus"}}, "Invalid request: unknown variant `bogus`"),
        (
            {"command": ["x"], "sandboxPolicy": {"type": "workspaceWrite", "writableRoots": ["rel"]}},
            "Invalid request: AbsolutePathBuf deserialized without a base path",
        ),
        ({"command": "x"}, 'Invalid request: invalid type: string "x", expected a sequence'),
        (
            sh("true", tty=True, processId="t", size={"rows": 70000, "cols": 1}),
            "Invalid request: invalid value: integer `70000`, expected u16",
        ),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(run, tmp_path, params, text):
    async def scenario():
        async with commands(tmp_path) as it:
            assert (await it.refused("command/exec", **params)).startswith(text)

    run(scenario())


def test_what_is_said_to_a_command_must_make_sense(run, tmp_path):
    async def scenario():
        async with commands(tmp_path) as it:
            going = asyncio.create_task(execute(it, "sleep 60", tmp_path, processId="p"))
            await asyncio.sleep(0)
            about = {"processId": "p"}
            refused = await it.refused("command/exec/write", **about)
            assert refused == "command/exec/write requires deltaBase64 or closeStdin"
            assert "invalid deltaBase64" in await it.refused("command/exec/write", **about, deltaBase64="%")
            refused = await it.refused("command/exec/write", **about, deltaBase64="aGk=")
            assert refused == "stdin streaming is not enabled for this command/exec"
            size = {"rows": 2, "cols": 2}
            assert "tty" in await it.refused("command/exec/resize", **about, size=size)
            assert "greater than 0" in await it.refused("command/exec/resize", **about, size={**size, "rows": 0})
            await it.call("command/exec/terminate", **about)
            await going

    run(scenario())


def test_more_than_can_be_buffered_is_said_and_not_cut(run, tmp_path):
    async def scenario():
        async with commands(tmp_path) as it:
            flood = sh("head -c 40000000 /dev/zero; sleep 60", disableOutputCap=True)
            text = await it.refused("command/exec", INTERNAL_ERROR, **flood)
            assert "33554432" in text and "outputBytesCap" in text

    run(scenario())


# A command's own terminal, and a stdin that goes on


@on_each_loop
@pytest.mark.parametrize("policy", [FREE, {"type": "readOnly"}], ids=["free", "confined"])
def test_a_command_has_a_stdin_that_goes_on(run, tmp_path, policy):
    """command_exec."""

    async def scenario():
        async with commands(tmp_path) as it:
            cat = {"command": ["cat"], "streamStdin": True, "streamStdoutStderr": True, "sandboxPolicy": policy}
            going = asyncio.create_task(it.call("command/exec", **cat, processId="p1"))
            await asyncio.sleep(0)
            assert await it.call("command/exec/write", processId="p1", deltaBase64="aGVsbG8K") == {}
            await it.desktop.wait_for("command/exec/outputDelta")
            assert await it.call("command/exec/write", processId="p1", closeStdin=True) == {}
            assert await going == {"exitCode": 0, "stdout": "", "stderr": ""}
            assert streamed(it, "p1") == b"hello\n"

    run(scenario())


@on_each_loop
@pytest.mark.parametrize("policy", [FREE, {"type": "readOnly"}], ids=["free", "confined"])
def test_a_command_has_a_terminal_of_its_own_as_recorded(run, tmp_path, policy):
    """command_exec."""

    async def scenario():
        async with commands(tmp_path) as it:
            script = 'stty size; read x; stty size; echo "<$x>"'
            more = {"processId": "p2", "tty": True, "size": {"rows": 24, "cols": 80}, "sandboxPolicy": policy}
            going = asyncio.create_task(execute(it, script, tmp_path, **more))
            await it.desktop.wait_for("command/exec/outputDelta")
            await it.call("command/exec/resize", processId="p2", size={"rows": 30, "cols": 100})
            await it.call("command/exec/write", processId="p2", deltaBase64="eQo=")
            assert await going == {"exitCode": 0, "stdout": "", "stderr": ""}
            assert streamed(it, "p2") == b"24 80\r\ny\r\n30 100\r\n<y>\r\n"
            going = asyncio.create_task(execute(it, "cat", tmp_path, **{**more, "processId": "p3"}))
            await asyncio.sleep(0)
            await it.call("command/exec/write", processId="p3", closeStdin=True)
            assert (await going)["exitCode"] == 0

    run(scenario())


@on_each_loop
def test_a_writer_waits_for_a_reader_that_is_slow_and_learns_that_there_is_none(run):
    async def scenario():
        with PipeInput() as pipe:
            theirs = pipe.for_runner()["stdin"]
            writing = asyncio.create_task(pipe.write(b"x" * 300_000, closes=True))
            await asyncio.sleep(0)
            assert not writing.done()
            taken = 0
            while taken < 300_000:
                taken += len(await asyncio.to_thread(os.read, theirs, 65536))
            await writing
            assert os.read(theirs, 1) == b""
            with pytest.raises(OSError, match="closed before"):
                await pipe.write(b"x", closes=False)
        with PipeInput() as pipe:
            writing = asyncio.create_task(pipe.write(b"x" * 300_000, closes=False))
            await asyncio.sleep(0)
            pipe.ended()
            with pytest.raises(OSError, match="has ended"):
                await writing

    run(scenario())


@on_each_loop
def test_a_terminal_shows_what_is_written_on_it_and_to_it(run):
    async def scenario():
        capture = Capture(1000, strict=False)
        with Terminal(capture, (24, 80)) as terminal:
            theirs = terminal.for_runner()["terminal"]
            assert os.get_terminal_size(theirs) == os.terminal_size((80, 24))
            os.write(theirs, b"hello\n")
            terminal.ended()
            with pytest.raises(OSError, match="has ended"):
                await terminal.write(b"x", closes=False)
        assert capture.text("stdout") == "hello\r\n"

    run(scenario())
