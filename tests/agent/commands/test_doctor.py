"""`countersign doctor` as a whole process; what each check makes of its facts is in tests/agent/doctor."""

import asyncio
import datetime as dt
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from certs.authority import LocalAuthority
from proxy.standins.chatgpt import auth_json
from tests.processes import COUNTERSIGN, Finished, finish, play

PYTHON = sys.executable
POST = """
import sys, urllib.request
request = urllib.request.Request("https://chatgpt.com/backend-api/codex/responses", data=b"{}", method="POST")
print(urllib.request.urlopen(request, timeout=20).status)
"""
# It could not reach ChatGPT by any other way: the name belongs to nobody.
AROUND = """
import urllib.request
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
direct.open("https://chatgpt.invalid/backend-api/codex/responses", data=b"{}", timeout=20)
"""
TRUSTS_ANOTHER = "import ssl" + POST.replace(
    "timeout=20", "timeout=20, context=ssl.create_default_context(cadata=open(sys.argv[1]).read())"
)


@dataclass(frozen=True, slots=True)
class Patient:
    """A home, and the environment that names it."""

    home: Path
    environment: dict[str, str]

    async def examined(self, *arguments: str, **environ: str) -> Finished:
        environment = {**self.environment, **environ}
        return await finish(COUNTERSIGN, "doctor", *arguments, environment=environment, cwd=self.home.parent)

    def findings(self, *arguments: str, **environ: str) -> list[dict[str, str]]:
        """As JSON; the exit code must say the same."""
        done = play(self.examined("--json", *arguments, **environ))
        told = json.loads(done.stdout)
        assert done.code == int(any(one["level"] == "problem" for one in told["findings"])), done.stderr
        assert told["ok"] is (done.code == 0)
        for one in told["findings"]:
            assert one["advice"] or one["level"] in ("ok", "note"), one
        return told["findings"]


@pytest.fixture
def patient(tmp_path):
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "auth.json").touch(0o600)
    (home / "auth.json").write_text(json.dumps(auth_json()))
    (tmp_path / "tmp").mkdir()
    return Patient(
        home, {**os.environ, "CODEX_HOME": str(home), "TMPDIR": str(tmp_path / "tmp"), "XDG_RUNTIME_DIR": ""}
    )


def about(findings, topic):
    return [one for one in findings if one["topic"] == topic]


def problems(findings, *topics):
    """Of these topics; what the machine of a test has to say of sandboxes is not asked."""
    return [one["looked_at"] for one in findings if one["level"] == "problem" and one["topic"] in topics]


# All that there is to see


def test_a_healthy_patient_has_a_route_that_is_stamped_and_a_proxy_that_refuses(patient):
    findings = patient.findings()
    route = about(findings, "route")
    assert [one["looked_at"].rpartition(" ")[2] for one in route] == ["aiohttp", "websockets", "urllib"]
    # On a machine that is busy with other tests a token may be late, which is a warning.
    assert all(one["level"] == "ok" or "timeout" in one["found"] for one in route)
    assert [one["found"] for one in about(findings, "refusals")] == [
        f"was refused with {status}" for status in (407, 407, 403, 403, 502)
    ]
    assert problems(findings, "environment", "trust", "home", "route", "refusals", "command", "versions") == []
    assert {one["topic"] for one in findings} >= {"environment", "trust", "home", "sandbox", "versions"}


def test_people_get_a_table_and_what_to_do(patient):
    (patient.home / ".env").write_text("# mine\nHTTPS_PROXY=http://proxy.corp:3128\n")
    done = play(patient.examined())
    assert done.code == 1
    lines = done.stdout.splitlines()
    head = next(line for line in lines if line.split()[:1] == ["level"])
    assert head.split() == ["level", "about", "looked", "at", "found"]
    assert any(f"'{patient.home}/.env' line 2: HTTPS_PROXY" in line for line in lines)
    assert "      -> remove the line; set a proxy in your shell instead, which countersign replaces" in done.stdout
    assert lines[-1].startswith("There is a problem (")


# Bad patients


def test_a_home_that_is_a_file_is_a_problem_and_the_rest_is_examined_nevertheless(patient):
    path = patient.home / "file"
    path.touch()
    findings = patient.findings(CODEX_HOME=str(path))
    assert problems(findings, "home") == [f"CODEX_HOME {str(path)!r}"]
    assert len(about(findings, "route")) == 3


def test_a_home_that_is_not_there_yet_is_not_made(patient, tmp_path):
    findings = patient.findings(CODEX_HOME="", HOME=str(tmp_path / "new"))
    assert any(one["level"] == "note" and "not there yet" in one["found"] for one in about(findings, "home"))
    assert not (tmp_path / "new").exists()


def test_a_binary_env_file_and_a_broken_config_are_told_and_named(patient):
    (patient.home / ".env").write_bytes(b"\x00\xff\x00\xfe\nA=\x00\n")
    (patient.home / "config.toml").write_text("model = \n")
    assert problems(patient.findings(), "home") == [
        f"'{patient.home}/.env' line 2: A",
        f"'{patient.home}/config.toml' line 1",
    ]


def test_a_bundle_that_the_proxy_cannot_start_with_is_told_as_such(patient):
    path = patient.home / "junk.pem"
    path.write_text("no certificate")
    findings = patient.findings(SSL_CERT_FILE=str(path))
    assert problems(findings, "trust") == [f"SSL_CERT_FILE {str(path)!r}"]
    (finding,) = about(findings, "route")
    assert "cannot make itself trusted" in finding["found"]


def test_a_shell_that_names_a_proxy_that_has_ended_is_told_so(patient):
    findings = patient.findings(HTTPS_PROXY="http://countersign:s3cret@127.0.0.1:9")
    assert problems(findings, "route") == ["HTTPS_PROXY http://127.0.0.1:9 (credentials not shown)"]


def test_an_exception_for_everything_does_not_lead_children_around(patient):
    """Control: without what children are given instead, the canaries would have gone elsewhere."""
    findings = patient.findings(NO_PROXY="*", no_proxy="*")
    assert problems(findings, "route") == []
    warnings = [one["looked_at"] for one in about(findings, "environment") if one["level"] == "warning"]
    assert warnings == ["NO_PROXY", "no_proxy"]


def test_where_nothing_can_be_written_the_trial_is_a_problem_and_the_rest_is_told(patient):
    """A file size limit of 0 stands for a full disk."""

    async def scenario():
        command = ["sh", "-c", 'ulimit -f 0; exec "$0" doctor --json', COUNTERSIGN]
        return await finish(*command, environment=patient.environment, cwd=patient.home.parent)

    done = play(scenario())
    assert done.code == 1
    findings = json.loads(done.stdout)["findings"]
    assert problems(findings, "route") == ["the trial"]
    assert about(findings, "home") and about(findings, "versions")


OFFLINE = ["unshare", "--user", "--map-root-user", "--net"]


@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run([*OFFLINE, "true"], check=False, stderr=subprocess.DEVNULL).returncode != 0,
    reason="no unshare(1), or none that a user may make a network namespace with",
)
def test_a_machine_without_its_loopback_interface_is_told_so_and_its_sandbox_is_looked_at(patient):
    """It was told to make room in the temporary directory, and nothing of the sandbox."""

    async def scenario():
        command = [*OFFLINE, COUNTERSIGN, "doctor", "--json"]
        return await finish(*command, environment=patient.environment, cwd=patient.home.parent)

    findings = json.loads(play(scenario()).stdout)["findings"]
    (trial,) = about(findings, "route")
    assert trial["level"] == "problem" and "bring the loopback interface up" in trial["advice"]
    assert about(findings, "sandbox")


def test_a_working_directory_that_was_removed_is_no_obstacle(patient, tmp_path):
    async def scenario():
        gone = tmp_path / "gone"
        gone.mkdir()
        command = ["sh", "-c", 'rmdir "$PWD"; exec "$0" doctor --json', COUNTERSIGN]
        return await finish(*command, environment=patient.environment, cwd=gone)

    findings = json.loads(play(scenario()).stdout)["findings"]
    assert problems(findings, "route") == [] and len(about(findings, "route")) == 3


def test_origins_of_ones_own_are_tried_in_place_of_the_usual_one(patient):
    findings = patient.findings(COUNTERSIGN_ORIGINS="https://chat.example:8443", NO_PROXY="chat.example")
    assert problems(findings, "route") == []
    assert any("'chat.example'" in one["found"] for one in about(findings, "environment"))


# A command


def test_a_command_that_goes_through_is_seen_to_arrive_stamped(patient):
    command = about(patient.findings("--", PYTHON, "-c", POST), "command")
    assert command[0]["looked_at"] == "responses by post"
    assert command[0]["found"].startswith("1 arrived, stamped with")
    assert command[-1]["found"] == "ended with 0"


@pytest.mark.parametrize("script", ["pass", AROUND])
def test_a_command_that_goes_around_is_a_problem(patient, script):
    findings = patient.findings("--", PYTHON, "-c", script)
    (finding,) = [one for one in about(findings, "command") if one["level"] == "problem"]
    assert "nothing by way of the proxy" in finding["found"]


def test_a_command_that_does_not_trust_the_authority_is_told_apart(patient, tmp_path):
    foreign = tmp_path / "foreign.pem"
    authority = LocalAuthority.create(["chatgpt.com"], dt.datetime.now(dt.UTC), dt.timedelta(hours=1))
    foreign.write_bytes(authority.certificate_pem)
    findings = patient.findings("--", PYTHON, "-c", TRUSTS_ANOTHER, str(foreign))
    (finding,) = [one for one in about(findings, "command") if one["level"] == "problem"]
    assert "connected to chatgpt.com by way of the proxy, and sent nothing" in finding["found"]


def test_a_command_that_is_not_there_is_a_problem(patient):
    (finding,) = about(patient.findings("--", "no-such-command"), "command")
    assert finding["level"] == "problem" and "not found on PATH" in finding["found"]


def test_a_command_that_hangs_is_killed_at_its_deadline_and_told(patient, tmp_path):
    pid = tmp_path / "pid"
    began = time.monotonic()
    findings = patient.findings("--timeout", "1", "--", "sh", "-c", f"echo $$ > {pid}; sleep 600")
    assert time.monotonic() - began < 60
    assert any("had not ended after 1 s, and was killed" in one["found"] for one in about(findings, "command"))
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_the_command_has_a_home_of_its_own_and_the_users_stays_as_it_was(patient):
    (patient.home / ".env").write_text("EDITOR=vi\n")
    before = {path.name: path.read_bytes() for path in patient.home.iterdir()}
    script = (
        "import os, pathlib, sys; home = pathlib.Path(os.environ['CODEX_HOME']);"
        "print(sorted(path.name for path in home.iterdir()), file=sys.stderr);"
        "print({'COUNTERSIGN_CREDENTIALS', 'COUNTERSIGN_METRICS_TOKEN'} & set(os.environ), file=sys.stderr);"
        "(home / 'auth.json').write_text('refreshed')"
    )
    ours = {"COUNTERSIGN_CREDENTIALS": "me:correct-horse", "COUNTERSIGN_METRICS_TOKEN": "correct-horse"}
    done = play(patient.examined("-v", "--", PYTHON, "-c", script, **ours))
    assert "['.env', 'auth.json']\nset()\n" in done.stderr
    assert {path.name: path.read_bytes() for path in patient.home.iterdir()} == before


def test_what_the_command_says_is_shown_only_if_it_is_asked_for(patient):
    script = "import sys; print('out'.upper()); print('err'.upper(), file=sys.stderr)"
    quiet = play(patient.examined("--json", "--", PYTHON, "-c", script))
    loud = play(patient.examined("-v", "--json", "--", PYTHON, "-c", script))
    assert "OUT" not in quiet.stdout + quiet.stderr and "ERR" not in quiet.stderr
    assert "OUT" in loud.stderr and "ERR" in loud.stderr
    assert json.loads(loud.stdout)["findings"]


def test_a_signal_ends_it_with_its_command_and_leaves_nothing_behind(patient, tmp_path):
    async def scenario():
        ready = tmp_path / "ready"
        os.mkfifo(ready)
        reading = os.open(ready, os.O_RDWR | os.O_NONBLOCK)  # a thread that opens it waits for a writer without end
        readable = asyncio.Event()
        asyncio.get_running_loop().add_reader(reading, readable.set)
        process = await asyncio.create_subprocess_exec(
            COUNTERSIGN, "doctor", "--", "sh", "-c", f"echo $$ > {ready}; exec sleep 600",
            env=patient.environment, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        await readable.wait()
        pid = int(os.read(reading, 100))
        asyncio.get_running_loop().remove_reader(reading)
        os.close(reading)
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 128 + signal.SIGTERM
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        left = [path for path in (tmp_path / "tmp").rglob("*") if not path.name.startswith("countersign-runs-")]
        assert left == []

    play(scenario())


# Secrets


@pytest.mark.parametrize("arguments", [["-vv"], ["-vv", "--json"]])
def test_no_secret_is_told_however_loud(patient, tmp_path, arguments):
    secret = "canary-7f3a"
    auth = auth_json()
    auth["tokens"]["refresh_token"] = secret
    (patient.home / "auth.json").write_text(json.dumps(auth))
    (patient.home / "config.toml").write_text(f'openai_base_url = "https://me:{secret}@elsewhere.example/{secret}"\n')
    (patient.home / ".env").write_text(
        f"HTTPS_PROXY=http://me:{secret}@proxy.corp:3128\nhttps_proxy={secret}\nOPENAI_API_KEY={secret}\n"
        f"NO_PROXY=me:{secret}@chatgpt.com\nSSL_CERT_FILE=/{secret}\nno pair {secret}\nCODEX_API_KEY='{secret}\n"
    )
    key = tmp_path / "key.pem"
    key.write_text(f"-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----\n")
    environ = {
        "HTTPS_PROXY": f"http://me:{secret}@127.0.0.1:9",
        "https_proxy": f"http://{secret}@proxy.corp:3128",
        "ALL_PROXY": secret,
        "NO_PROXY": f"me:{secret}@chatgpt.com",
        "NODE_EXTRA_CA_CERTS": str(key),
        "COUNTERSIGN_CREDENTIALS": f"me:{secret}",
        "OPENAI_API_KEY": secret,
    }
    done = play(patient.examined(*arguments, "--", PYTHON, "-c", POST, secret, **environ))
    # They were looked at.
    for place in ("/.env' line 1: HTTPS_PROXY", "ALL_PROXY", "openai_base_url", "holds a private key", "elsewhere.exa"):
        assert place in done.stdout
    assert "INFO proxy.stamp: attestation" in done.stderr
    assert secret not in done.stdout + done.stderr


def test_nor_is_the_secret_of_the_trials_own_proxy(patient):
    script = "import os, pathlib; pathlib.Path(os.environ['TMPDIR'], 'url').write_text(os.environ['HTTPS_PROXY'])"
    done = play(patient.examined("-vv", "--", PYTHON, "-c", script))
    secret = Path(patient.environment["TMPDIR"], "url").read_text().rpartition("@")[0].rpartition(":")[2]
    assert len(secret) > 16 and secret not in done.stdout + done.stderr


# Usage


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--bogus"], "--bogus"),
        (["--"], "a command is needed behind --"),
        (["--timeout", "soon"], "a finite number of seconds"),
        (["-c", "nonsense"], "KEY=VALUE"),
    ],
)
def test_wrong_usage_ends_with_2(patient, arguments, word):
    done = play(patient.examined(*arguments))
    assert done.code == 2 and word in done.stderr and done.stdout == ""


def test_an_override_is_looked_at_as_the_file_is(patient):
    findings = patient.findings("-c", "countersign.stamp='never'")
    assert any(one["looked_at"] == "-c countersign.stamp" and one["level"] == "warning" for one in findings)
