"""What the doctor says of the real codex, and what the real codex does."""

import json

import pytest

from agent.doctor.dotenv import parse_dotenv
from tests.agent.doctor.test_dotenv import PASSED_OVER, READ
from tests.interop.original import codex
from tests.processes import COUNTERSIGN, finish, play

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("codex")]

ENVIRON = {"PATH": "/usr/bin:/bin", "HOME": "/root"}


@pytest.mark.parametrize("content", [content for content, _ in (*READ, *PASSED_OVER)])
def test_the_env_file_is_read_as_codex_reads_it(outside, content):
    """`codex sandbox` hands its own environment on, which the file has gone into."""

    async def scenario():
        (outside / ".env").write_bytes(content + b"\nLAST=1\n")
        command = [codex(), "sandbox", "--", "env", "-0"]
        done = await finish(*command, environment={**ENVIRON, "CODEX_HOME": str(outside)}, cwd=outside)
        assert done.code == 0, done.stderr
        return dict(item.split("=", 1) for item in done.stdout.split("\0") if item)

    theirs = play(scenario())
    ours = {name: one.value for name, one in parse_dotenv(content + b"\nLAST=1\n", ENVIRON).last().items()}
    names = {"A", "B", "C", "A.b", "_C9", "export", "CODEX_X", "codex_ca_certificate", "LAST", "HOME"}
    expected = {**ENVIRON, **ours}
    assert {name: theirs.get(name) for name in names} == {name: expected.get(name) for name in names}


@pytest.mark.parametrize(
    ("dotenv", "arrived", "blamed"),
    [
        ("EDITOR=vi", ["responses by websocket"], ""),
        ("HTTPS_PROXY=http://127.0.0.1:9", [], "HTTPS_PROXY"),
        ("SSL_CERT_FILE=/nowhere.pem", ["responses by websocket"], ""),
    ],
)
def test_codex_behind_the_doctor_arrives_or_the_line_that_leads_it_elsewhere_is_named(outside, dotenv, arrived, blamed):
    """Without the lines that would let it leave this machine, such as NO_PROXY=chatgpt.com: tried by hand."""

    async def scenario():
        home = outside / "home"
        home.mkdir(mode=0o700)
        (home / ".env").write_text(dotenv + "\n")
        done = await finish(
            COUNTERSIGN, "doctor", "--json", "--timeout", "40" if arrived else "8",
            "--", codex(), "exec", "--skip-git-repo-check", "hi",
            environment={**ENVIRON, "CODEX_HOME": str(home)}, cwd=outside,
        )  # fmt: skip
        findings = json.loads(done.stdout)["findings"]
        command = [one for one in findings if one["topic"] == "command"]
        assert [one["looked_at"] for one in command if " arrived, stamped with" in one["found"]] == arrived
        problems = [one["looked_at"] for one in findings if one["topic"] == "home" and one["level"] == "problem"]
        assert problems == ([f"'{home}/.env' line 1: {blamed}"] if blamed else [])
        if not arrived:
            (finding,) = [one for one in command if "by way of the proxy" in one["found"]]
            assert f"line 1: {blamed}" in finding["advice"]

    play(scenario())
