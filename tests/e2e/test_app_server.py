"""The app-server as its clients meet it: a process, a pipe, and what reaches the other end."""

import asyncio
import datetime as dt
import json
import signal
import time

import pytest

from agent.rpc.jsonrpc import RequestFailed
from agent.standins.desktop import Manner, Script, ServerGone
from proxy.standins.chatgpt import ChatGPT, auth_json
from proxy.standins.faults import Fault
from tests.agent.core import published_schema
from tests.e2e.one_turn import numbered, one_turn
from tests.processes import COUNTERSIGN, app_server, finish, play, world


def test_lines_that_are_no_messages_are_dropped_and_the_next_is_answered(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            lines = [
                b"{not json", b"", b"[]", b'"text"', b'{"id":1}', b'{"id":1.5,"method":"model/list","params":{}}',
                b'{"id":91,"method":"\xff\xfe"}', b"Content-Length: 20\r",
                b'{"id":92,"method":"no/such/method","params":{}}',
                b'  {"id":"x","method":"initialize","params":{"clientInfo":{"name":"c","version":"1"}},"extra":1}  \r',
            ]  # fmt: skip
            done = await finish(
                COUNTERSIGN, "app-server", environment=here.environment, stdin=b"\n".join(lines) + b"\n"
            )  # fmt: skip
            answers = [json.loads(line) for line in done.stdout.splitlines()]
            assert [answer.get("id") for answer in answers if "id" in answer] == [92, "x"]
            assert answers[0]["error"]["message"].startswith("Invalid request: unknown variant `no/such/method`")
            assert done.code == 0

    play(scenario())


def test_a_known_method_that_is_not_supported_says_so_by_name(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here, app_server(here) as desktop:
            await desktop.initialize()
            with pytest.raises(RequestFailed, match="collaborationMode/list is not supported by countersign"):
                await desktop.request("collaborationMode/list", {})

    play(scenario())


def test_a_waiting_initialize_is_answered_the_same_as_a_late_one(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            message = {"id": 1, "method": "initialize", "params": {"clientInfo": {"name": "c", "version": "1"}}}
            line = json.dumps(message).encode() + b"\n"
            waiting = await finish(COUNTERSIGN, "app-server", environment=here.environment, stdin=line)
            # An override takes the ordinary way: nothing is answered before it was checked.
            ordinary = await finish(
                COUNTERSIGN, "-c", "model=gpt-5.5", "app-server", environment=here.environment, stdin=line
            )  # fmt: skip
            first, second = (json.loads(done.stdout.splitlines()[0]) for done in (waiting, ordinary))
            assert first == second
            assert first["result"]["codexHome"] == str(here.home)
            # Answered once, although the server gets to see it too.
            assert sum('"id":1' in line for line in waiting.stdout.splitlines()) == 1

    play(scenario())


def test_sigterm_in_the_middle_of_a_turn_ends_the_process_in_order(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT(faults=[Fault.parse("stall")])) as here:
            async with app_server(here) as desktop:
                await desktop.initialize()
                thread_id = (await desktop.request("thread/start", {"cwd": "/"}))["thread"]["id"]
                content = [{"type": "text", "text": "hello"}]
                await desktop.request("turn/start", {"threadId": thread_id, "input": content})
                await here.upstream.wait_for(2, "message")
                begun = time.monotonic()
                desktop.process.send_signal(signal.SIGTERM)
                code = await desktop.process.wait()
                assert code == 0
                assert time.monotonic() - begun < 2.0

    play(scenario())


def test_the_end_of_input_ends_the_process_also_in_the_middle_of_a_turn(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT(faults=[Fault.parse("stall")])) as here:
            async with app_server(here) as desktop:
                await desktop.initialize()
                thread_id = (await desktop.request("thread/start", {"cwd": "/"}))["thread"]["id"]
                content = [{"type": "text", "text": "hello"}]
                await desktop.request("turn/start", {"threadId": thread_id, "input": content})
                await here.upstream.wait_for(2, "message")
                desktop.process.stdin.close()
                async with asyncio.timeout(2.0):
                    assert await desktop.process.wait() == 0

    play(scenario())


def test_a_fixed_port_that_is_taken_fails_the_turn_and_names_the_port(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            here.environment["COUNTERSIGN_PORT"] = str(here.upstream.port)
            async with app_server(here) as desktop:
                turn = await one_turn(desktop)
            assert turn["status"] == "failed"
            assert f"cannot listen on 127.0.0.1:{here.upstream.port}" in turn["error"]["message"]

    play(scenario())


@pytest.mark.parametrize(
    ("environment", "arguments", "problem"),
    [
        ({"CODEX_HOME": "/no/such/home"}, [], "CODEX_HOME is '/no/such/home', which is no directory"),
        ({"COUNTERSIGN_PORT": "ninety"}, [], "COUNTERSIGN_PORT: a port must be 0 to 65535"),
        ({"COUNTERSIGN_UPSTREAM_CA": "/no/such/ca"}, [], "COUNTERSIGN_UPSTREAM_CA: '/no/such/ca' cannot be read"),
        ({}, ["-c", "nothing"], "a config override must be KEY=VALUE, found 'nothing'"),
        ({}, ["-c", "countersign.colour=1"], "[countersign] has no setting 'colour'"),
    ],
)
def test_a_bad_setting_ends_the_process_with_code_2_and_says_which(tmp_path, environment, arguments, problem):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            done = await finish(
                COUNTERSIGN, "app-server", *arguments, environment={**here.environment, **environment}
            )  # fmt: skip
            assert done.code == 2
            assert problem in done.stderr
            assert done.stdout == ""

    play(scenario())


@pytest.mark.parametrize(
    "arguments",
    [
        ["--analytics-default-enabled"],
        ["--strict-config"],
        ["--enable", "unified_exec", "--disable=tool_search", "--analytics-default-enabled", "--strict-config"],
    ],
)
def test_the_flags_of_the_original_are_accepted(tmp_path, arguments):
    """The desktop starts its server with them; it ended with a usage error."""

    async def scenario():
        async with world(tmp_path, ChatGPT()) as here, app_server(here, None, *arguments) as desktop:
            assert (await one_turn(desktop))["status"] == "completed"

    play(scenario())


@pytest.mark.parametrize(
    ("config", "place", "refusal"),
    [
        ("foo = = 3\n", {"line": 1, "column": 7}, "is not TOML"),
        ("\nmodel = 5\n", {"line": 2, "column": 9}, "model is 5"),
    ],
)
def test_a_bad_config_file_is_told_to_the_client_and_no_thread_starts_with_it(tmp_path, config, place, refusal):
    """The server answered initialize and ended; codex-cli 0.169.0 goes on like this."""

    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            path = here.home / "config.toml"
            path.write_text(config)
            async with app_server(here) as desktop:
                await desktop.initialize()
                warning = await desktop.wait_for("configWarning")
                assert warning["summary"] == "Invalid configuration; using defaults."
                assert refusal in warning["details"]
                assert (warning["path"], warning["range"]) == (str(path), {"start": place, "end": place})
                assert (await desktop.request("model/list", {}))["data"]
                with pytest.raises(RequestFailed, match=f"failed to load configuration: .*{refusal}"):
                    await desktop.request("thread/start", {"cwd": "/"})
            assert published_schema.misfit_of_notification("configWarning", warning) is None

    play(scenario())


def test_what_a_request_sets_itself_is_not_taken_from_a_bad_key(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            (here.home / "config.toml").write_text("model = 5\n")
            async with app_server(here) as desktop:
                await desktop.initialize()
                started = await desktop.request("thread/start", {"config": {"model": "gpt-5.5"}})
                assert started["model"] == "gpt-5.5"

    play(scenario())


@pytest.mark.parametrize("config", ["[countersign]\nport = = 3\n", "foo = = 3\n[countersign]\non_failure = 'refuse'\n"])
def test_a_broken_file_that_may_hold_our_settings_ends_the_process(tmp_path, config):
    """On doubt, refuse: without them a request might be sent that should not be."""

    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            (here.home / "config.toml").write_text(config)
            done = await finish(COUNTERSIGN, "app-server", environment=here.environment)
            assert done.code == 2 and "is not TOML" in done.stderr

    play(scenario())


@pytest.mark.parametrize("redirection", [">&-", ">/dev/full", "<&-"])
def test_a_standard_stream_that_is_closed_or_full_is_no_traceback(tmp_path, redirection):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            message = {"id": 1, "method": "initialize", "params": {"clientInfo": {"name": "c", "version": "1"}}}
            line = json.dumps(message).encode() + b"\n"
            shell = ["sh", "-c", f"exec {COUNTERSIGN} app-server {redirection}"]
            done = await finish(*shell, environment=here.environment, stdin=line)
            assert done.code == 0 and "Traceback" not in done.stderr

    play(scenario())


def test_a_version_that_is_no_header_value_does_not_keep_turns_from_running(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here, app_server(here) as desktop:
            client = {"name": "desk", "version": "1\n2\0"}
            await desktop.request("initialize", {"clientInfo": client, "capabilities": {"requestAttestation": True}})
            started = await desktop.request("thread/start", {"cwd": "/", "model": "bad\nmodel"})
            assert (await desktop.turn(started["thread"]["id"], "hello"))["status"] == "completed"
            assert here.scoped()[0].values("user-agent")[0].endswith("(desk; 1_2_)")

    play(scenario())


def test_a_refresh_that_runs_when_the_input_ends_is_kept(tmp_path):
    """The service had replaced the refresh token by then, and the new one was lost with the process."""

    class SlowSignIn(ChatGPT):
        async def _serve(self, request):
            answer = await super()._serve(request)
            if request.path == "/oauth/token":
                await asyncio.sleep(0.5)  # longer than the server takes to see the end of its input
            return answer

    async def scenario():
        service = SlowSignIn()
        async with world(tmp_path, service, auth_json(dt.timedelta(seconds=-60))) as here:
            async with app_server(here) as desktop:
                await desktop.initialize()
                await desktop.request("thread/start", {"cwd": "/"})
                await service.wait_for(1, path="/oauth/token")
            kept = json.loads((here.home / "auth.json").read_text())
            assert kept["tokens"]["refresh_token"] == "stand-in-refresh-1"

    play(scenario())


def test_a_refresh_that_was_not_sent_yet_does_not_hold_up_the_end(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT(), auth_json(dt.timedelta(seconds=-60))) as here:
            async with app_server(here) as desktop:
                await desktop.initialize()
                await desktop.request("thread/start", {"cwd": "/"})  # and its prewarm waits for the proxy
                desktop.process.stdin.close()
                async with asyncio.timeout(3.0):
                    assert await desktop.process.wait() == 0

    play(scenario())


def test_config_is_accepted_before_and_after_the_command(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            before = [COUNTERSIGN, "--config", "model=before", "app-server", "-q", "--listen", "stdio://"]
            after = [COUNTERSIGN, "app-server", "-q", "-c", "model=after"]
            for command in (before, after):
                from agent.standins.desktop import spawn

                async with spawn(command, Script(), here.environment, here.home) as desktop:
                    await desktop.initialize()
                    started = await desktop.request("thread/start", {})
                    assert started["model"] in command[2 if command is before else 4]

    play(scenario())


def test_a_desktop_that_dies_takes_no_turn_with_it_and_leaves_nothing_behind(tmp_path):
    async def scenario():
        runtime = tmp_path / "runtime"
        runtime.mkdir(mode=0o700)
        async with world(tmp_path, ChatGPT()) as here:
            here.environment["XDG_RUNTIME_DIR"] = str(runtime)
            async with app_server(here, numbered(Manner.HANG_UP)) as desktop:
                with pytest.raises(ServerGone):
                    await one_turn(desktop)
            assert desktop.process.returncode == 0
            # The CA key and the sockets of the run; what is left is where runs lie.
            assert [path for path in runtime.rglob("*") if not path.name.startswith("countersign-runs-")] == []

    play(scenario())


@pytest.mark.parametrize(("sandbox_mode", "told"), [("read-only", True), ("danger-full-access", False)])
def test_a_client_is_told_by_what_its_commands_will_be_sandboxed(tmp_path, sandbox_mode, told):
    """On a machine without bubblewrap on PATH; where no command is sandboxed there is nothing to tell."""

    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            here.environment["PATH"] = str(tmp_path)
            async with app_server(here, None, "-c", f"sandbox_mode={sandbox_mode}") as desktop:
                await one_turn(desktop)
                if told:
                    warning = await desktop.wait_for("configWarning")
                    assert "the bubblewrap that came with countersign" in warning["summary"]
                    assert published_schema.misfit_of_notification("configWarning", warning) is None
            heard = [said for said in desktop.notifications if said["method"] == "configWarning"]
            assert len(heard) == told

    play(scenario())
