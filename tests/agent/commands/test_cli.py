"""`countersign` itself: what it prints, and with which code it ends."""

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
