"""`countersign-wrap`: what is wrapped, and what is left to codex."""

import asyncio
import json
import os
import signal
import stat
import sys
import tempfile
from pathlib import Path

import pytest

from agent.commands.wrap_persona import Invocation, invocation
from proxy.standins.chatgpt import ChatGPT
from tests.processes import finish, play, world

PYTHON = sys.executable


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ("app-server", Invocation.SERVES_STDIO),
        ("app-server --listen stdio://", Invocation.SERVES_STDIO),
        ("app-server --stdio --analytics-default-enabled", Invocation.SERVES_STDIO),
        ("-c model=x --config a=b app-server -c app=1", Invocation.SERVES_STDIO),
        ("--enable f --disable=g app-server --strict-config", Invocation.SERVES_STDIO),
        ("-C /x --profile p app-server", Invocation.SERVES_STDIO),
        ("app-server --new-option value", Invocation.SERVES_STDIO),
        ("app-server --listen", Invocation.SERVES_STDIO),
        ("app-server --code-mode-host help", Invocation.SERVES_STDIO),
        ("app-server --listen ws://127.0.0.1:1 --stdio", Invocation.SERVES_STDIO),
        ("app-server --listen ws://127.0.0.1:1", Invocation.SERVES_ELSEWHERE),
        ("app-server --listen=unix://", Invocation.SERVES_ELSEWHERE),
        ("app-server --listen off", Invocation.SERVES_ELSEWHERE),
        ("", Invocation.OTHER),
        ("--version", Invocation.OTHER),
        ("-V", Invocation.OTHER),
        ("app-server --help", Invocation.OTHER),
        ("login status", Invocation.OTHER),
        ("exec app-server", Invocation.OTHER),
        ("-c app-server exec", Invocation.OTHER),
        ("exec -- app-server", Invocation.OTHER),
        ("-- app-server", Invocation.SERVES_STDIO),
        ("app-server generate-json-schema --out x", Invocation.OTHER),
        ("app-server -c a=b daemon start", Invocation.OTHER),
        ("app-server proxy --sock x", Invocation.OTHER),
        ("mcp add app-server", Invocation.OTHER),
    ],
)
def test_what_serves_a_desktop_on_its_pipe_is_told_from_everything_else(arguments, kind):
    assert invocation(arguments.split()) is kind


# A codex of one's own: it says what it was given, and that it is there.
CODEX = f"""#!{PYTHON}
import json, os, sys
said = [sys.argv[1:], os.getpid(), dict(os.environ), sys.stdin.read()]
print(json.dumps(said))
sys.exit(8)
"""


@pytest.fixture
def persona(tmp_path):
    """The executable under its other name, and a codex. The launcher leaves installed packages out, as ours does."""
    launcher = tmp_path / "countersign-wrap"
    root = Path(__file__).parents[3]
    launcher.write_text(
        f"#!{PYTHON} -IS\nimport sys\nsys.path.insert(0, {str(root)!r})\n"
        "from agent.commands.wrap_persona import main\nsys.exit(main(sys.argv[1:]))\n"
    )
    codex = tmp_path / "codex"
    codex.write_text(CODEX)
    for program in (launcher, codex):
        program.chmod(program.stat().st_mode | stat.S_IXUSR)

    def start(*arguments, program=codex, **more):
        environment = {**os.environ, "COUNTERSIGN_WRAP": str(program), **more}
        return finish(str(launcher), *arguments, environment=environment, stdin=b"typed")

    return start


def test_a_desktop_that_passes_only_arguments_gets_its_app_server_wrapped(persona, tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            done = await persona("-c", "a=b", "app-server", "--listen", "stdio://", **here.environment)
            assert done.code == 8, done.stderr
            arguments, _, environment, stdin = json.loads(done.stdout)
            assert arguments == ["-c", "a=b", "app-server", "--listen", "stdio://"]
            assert stdin == "typed"
            assert "HTTPS_PROXY" in environment and "COUNTERSIGN_WRAP" not in environment
            assert done.stderr.splitlines()[-1].startswith("No scoped request was made")

    play(scenario())


@pytest.mark.parametrize(
    "arguments", [[], ["--version"], ["login", "status"], ["app-server", "--help"], ["exec", "app-server"]]
)
def test_everything_else_is_codex_itself(persona, arguments):
    async def scenario():
        done = await persona(*arguments)
        given, _, environment, stdin = json.loads(done.stdout)
        assert (done.code, given, stdin, done.stderr) == (8, arguments, "typed", "")
        assert "HTTPS_PROXY" not in environment and "COUNTERSIGN_WRAP" not in environment

    play(scenario())


def test_one_that_listens_on_a_socket_runs_unattested_and_says_so(persona):
    async def scenario():
        done = await persona("app-server", "--listen", "ws://127.0.0.1:0")
        assert done.code == 8 and json.loads(done.stdout)[0] == ["app-server", "--listen", "ws://127.0.0.1:0"]
        assert done.stderr.startswith("countersign-wrap: this app-server listens on a socket")
        assert "HTTPS_PROXY" not in json.loads(done.stdout)[2]

    play(scenario())


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
def test_codex_takes_the_place_of_the_process_and_dies_of_a_broken_pipe_as_it_would(persona, tmp_path):
    async def scenario():
        script = tmp_path / "pipes"
        script.write_text("#!/bin/sh\necho $$; grep SigIgn /proc/$$/status\n")
        script.chmod(0o755)
        environment = {**os.environ, "COUNTERSIGN_WRAP": str(script)}
        process = await asyncio.create_subprocess_exec(
            str(tmp_path / "countersign-wrap"), stdout=asyncio.subprocess.PIPE, env=environment
        )
        stdout, _ = await process.communicate()
        pid, _, ignored = stdout.split()
        assert int(pid) == process.pid
        assert not int(ignored, 16) & 1 << signal.SIGPIPE - 1

    play(scenario())


@pytest.mark.parametrize("arguments", [["--version"], ["app-server"]])
@pytest.mark.parametrize(
    ("program", "code", "reason"),
    [
        ("", 2, "COUNTERSIGN_WRAP is not set; set it to the codex to wrap, such as /usr/local/bin/codex"),
        ("/x/countersign-wrap", 2, "COUNTERSIGN_WRAP is '/x/countersign-wrap', which is this program"),
        ("/no/such/codex", 127, "cannot run '/no/such/codex': not found"),
        (tempfile.gettempdir(), 126, "Permission denied"),
    ],
)
def test_what_cannot_be_wrapped_is_told(persona, arguments, program, code, reason):
    async def scenario():
        done = await persona(*arguments, program=program)
        assert (done.code, done.stdout) == (code, "") and reason in done.stderr

    play(scenario())
