"""`countersign` itself: what it prints, and with which code it ends."""

import os
import subprocess
import sys

import pytest

from agent.cli import COMMANDS, main
from tests.processes import COUNTERSIGN


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ([], 2, "a command is needed"),
        (["proyx"], 2, "unknown command 'proyx'; did you mean 'proxy'?"),
        (["--colour"], 2, "unknown option '--colour'"),
        (["-c"], 2, "-c needs KEY=VALUE"),
    ],
)
def test_a_call_that_cannot_be_understood_says_why_and_what_there_is(capsys, arguments, code, text):
    assert main(arguments) == code
    error = capsys.readouterr().err
    assert text in error
    assert all(name in error for name in COMMANDS)


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)


def test_version_is_the_installed_one(capsys):
    from importlib.metadata import version

    assert main(["--version"]) == 0
    assert capsys.readouterr().out.split() == ["countersign", version("countersign")]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_page(command):
    done = subprocess.run([COUNTERSIGN, command, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "usage: countersign" in done.stdout


@pytest.mark.parametrize("option", ["--bogus", "--port=x"])
@pytest.mark.parametrize("command", ["proxy", "app-server"])
def test_a_bad_option_ends_with_code_2(command, option):
    done = subprocess.run([COUNTERSIGN, command, option], capture_output=True, text=True, check=False, input="")
    assert done.returncode == 2
    assert option.split("=")[0] in done.stderr


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["verify", "--offlin", "--", "true"], "did you mean --offline? "),
        (["wrap", "--reprot=x", "--", "true"], "did you mean --report? "),
        (["capture", "list", "--jsn"], "did you mean --json? "),
        (["proxy", "--zzz"], "--zzz; `"),
        (["live", "one", "two"], "two; `"),
    ],
)
def test_an_unknown_option_is_told_what_may_have_been_meant_and_where_all_are_listed(typed, meant):
    """It was told that it is unrecognized, and nothing more."""
    done = subprocess.run([COUNTERSIGN, *typed], capture_output=True, text=True, check=False)
    assert (
        done.returncode == 2 and meant in done.stderr and ("did you mean" in meant) is ("did you mean" in done.stderr)
    )
    command = " ".join(typed[:2]) if typed[0] == "capture" else typed[0]
    assert done.stderr.endswith(f"`countersign {command} --help` lists the options\n")


@pytest.mark.parametrize(
    ("option", "there_are"), [("--stamp", "'always', 'missing', 'never'"), ("--on-failure", "'send', 'refuse'")]
)
def test_a_bad_choice_is_told_what_can_be_typed(option, there_are):
    """It was told `<StampMode.ALWAYS: 'always'>`."""
    done = subprocess.run([COUNTERSIGN, "proxy", option, "bad"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"invalid choice: 'bad' (choose from {there_are})" in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full, which is always full, is Linux's")
@pytest.mark.parametrize("arguments", [["--version"], ["verify-token", "--help"]])
def test_what_cannot_be_printed_is_told_in_a_line_with_code_1(arguments):
    """Python ended with 120 and a traceback, or with 0."""
    with open("/dev/full", "w") as full:
        done = subprocess.run([COUNTERSIGN, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "countersign: cannot write to stdout: No space left on device\n")


def test_a_reader_that_had_enough_is_not_complained_of():
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([COUNTERSIGN, "--help"], stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_what_is_meant_for_a_stderr_that_was_closed_does_not_come_out_of_stdout():
    """print() takes no stream for stdout, where a desktop would read it."""
    for command, code in (("bogus", 2), ("--version", 0)):
        script = f'exec "$0" {command} 2>&-'
        done = subprocess.run(["sh", "-c", script, COUNTERSIGN], capture_output=True, text=True, check=False)
        assert done.returncode == code and done.stdout.startswith("countersign ") is (code == 0)


@pytest.mark.parametrize("command", [["demo"], ["standin", "chatgpt"], ["standin", "desktop"]])
def test_a_command_that_reads_no_config_takes_no_override(command):
    """They took it and did nothing with it."""
    assert "--config" not in subprocess.run([COUNTERSIGN, *command, "--help"], capture_output=True, text=True).stdout
    done = subprocess.run([COUNTERSIGN, "-c", "a=secret", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert f"{command[0]} reads no config, so that -c 'a' cannot have an effect" in done.stderr
    assert "secret" not in done.stderr


def app_server(home, *arguments, **environment):
    """An app-server whose client says nothing and leaves."""
    command, variables = [COUNTERSIGN, "app-server", *arguments], {**os.environ, "CODEX_HOME": str(home), **environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, input="", env=variables)


def test_the_app_server_refuses_a_socket_for_the_desktop_with_a_reason(tmp_path):
    """It took --rpc and never listened there."""
    done = app_server(tmp_path, "--rpc", f"unix://{tmp_path}/rpc.sock")
    assert done.returncode == 2
    assert "--rpc is for `countersign proxy` and `run`; clients of the app-server reach it by --listen" in done.stderr
    assert "--rpc" not in app_server(tmp_path, "--help").stdout


def test_the_app_server_says_that_a_socket_in_its_surroundings_is_not_used(tmp_path):
    address = f"unix://{tmp_path}/rpc.sock"
    done = app_server(tmp_path, COUNTERSIGN_RPC=address)
    assert done.returncode == 0 and done.stderr.count("\n") == 1
    assert "COUNTERSIGN_RPC is not used: clients of the app-server reach it by --listen" in done.stderr
    (tmp_path / "config.toml").write_text(f'[countersign]\nrpc = "{address}"\n')
    assert f"{tmp_path}/config.toml: countersign.rpc is not used" in app_server(tmp_path).stderr


def test_what_looks_like_a_setting_and_is_none_is_warned_of(tmp_path):
    (tmp_path / "config.toml").write_text("[countersing]\nport = 5\n")
    done = app_server(tmp_path, COUNTERSIGN_PROT="5")
    assert done.returncode == 0 and done.stderr.count(" WARNING ") == 2
    assert "did you mean COUNTERSIGN_PORT?" in done.stderr
    assert f"{tmp_path}/config.toml: countersing is ignored" in done.stderr


def test_a_bad_setting_is_blamed_on_the_file_by_its_path_or_on_the_override(tmp_path):
    (tmp_path / "config.toml").write_text('[countersign]\nport = "x"\n')
    assert f"app-server: {tmp_path}/config.toml: countersign.port: a port must be" in app_server(tmp_path).stderr
    done = app_server(tmp_path, "-c", "countersign.port=y")
    assert done.returncode == 2
    assert "app-server: -c countersign.port: a port must be" in done.stderr
    # The file cannot be read, and is done without.
    (tmp_path / "config.toml").write_text("[")
    assert "app-server: -c countersign.port: " in app_server(tmp_path, "-c", "countersign.port=y").stderr


def test_the_first_answer_of_the_app_server_imports_neither_asyncio_nor_any_library():
    """House: what the first answer does not need is imported later."""
    probe = """
import json, os, sys
read, write = os.pipe()
message = {"id": 1, "method": "initialize", "params": {"clientInfo": {"name": "c", "version": "1"}}}
os.write(write, json.dumps(message).encode() + b"\\n")
os.dup2(read, 0)
os.environ["CODEX_HOME"] = "/"
from agent.commands.app_server import _greet
greeting = _greet()
assert greeting is not None and greeting.answered
heavy = {"asyncio", "argparse", "pydantic", "aiohttp", "mitmproxy", "websockets", "uvloop", "rich", "cryptography"}
sys.exit(",".join(sorted(heavy & set(sys.modules))) or 0)
"""
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode == 0
    assert '"id":1' in done.stdout
