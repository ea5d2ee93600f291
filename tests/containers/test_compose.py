"""What docker-compose.yml and the Dockerfile promise, as far as reading them can tell; run-with-podman runs them."""

import contextlib
import copy
import importlib
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from agent.cli import COMMANDS

ROOT = Path(__file__).parents[2]
# "${NAME:-default}", as compose substitutes it.
_VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")
_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|(^|_)KEY($|_)")
OURS = "countersign:local"


def read(name: str) -> dict[str, Any]:
    """A YAML file of the checkout, with the defaults of its variables."""
    text = _VARIABLE.sub(r"\2", (ROOT / name).read_text("utf-8"))
    content = YAML(typ="safe", pure=True).load(text)
    assert isinstance(content, dict)
    return content


@pytest.fixture
def compose() -> dict[str, Any]:
    """docker-compose.yml."""
    return read("docker-compose.yml")


def words(service: dict[str, Any]) -> list[str]:
    """The command line of a service: its entrypoint and its command."""
    parts = [service.get(name, []) for name in ("entrypoint", "command")]
    return [word for part in parts for word in (shlex.split(part) if isinstance(part, str) else part)]


def mounts(service: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(source, path inside, mode) of each."""
    for volume in service.get("volumes", ()):
        source, _, rest = volume.partition(":")
        path, _, mode = rest.partition(":")
        yield source, path, mode or "rw"


def published(compose: dict[str, Any]) -> list[str]:
    """Ports that others than this machine could reach."""
    ports = [str(port) for service in compose["services"].values() for port in service.get("ports", ())]
    hosts = [name for name, service in compose["services"].items() if service.get("network_mode") == "host"]
    return [port for port in ports if not port.startswith("127.0.0.1:")] + hosts


def test_no_port_is_published_beyond_this_machine(compose):
    assert published(compose) == []
    for wrong in ({"ports": ["9090:9090"]}, {"ports": ["0.0.0.0:1:1"]}, {"network_mode": "host"}):
        broken = copy.deepcopy(compose)
        broken["services"]["prometheus"] |= wrong
        assert len(published(broken)) == 1


def written_secrets(compose: dict[str, Any], dockerfile: str) -> list[str]:
    """Names of secrets that have their value in a file that is committed."""
    found = re.findall(r"^\s*(?:ENV|ARG)?\s*(\w+)=\S", dockerfile, re.MULTILINE)
    for service in compose["services"].values():
        found += [name for name, value in service.get("environment", {}).items() if value]
        found += [name for name, value in service.get("build", {}).get("args", {}).items() if value]
        found += [word.partition("=")[0] for word in words(service) if "=" in word and not word.startswith("--")]
    return [name for name in found if _SECRET_NAME.search(name.upper())]


def test_no_secret_is_written_down(compose):
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    assert written_secrets(compose, dockerfile) == []
    compose["services"]["agent"]["environment"]["COUNTERSIGN_METRICS_TOKEN"] = "abc"
    assert written_secrets(compose, dockerfile + "ENV API_KEY=abc\n") == ["API_KEY", "COUNTERSIGN_METRICS_TOKEN"]


@contextlib.contextmanager
def help_of(command: str) -> Iterator[str]:
    """What `countersign COMMAND --help` prints."""
    name, *more = command.split()
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        importlib.import_module(COMMANDS[name][0]).main([*more, "--help"], [])
    yield out.getvalue()


def commands(line: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Each `countersign` command in a command line, as (its name, the options that it is given)."""
    if "countersign" in line:
        rest = line[line.index("countersign") + 1 :]
        name = " ".join(rest[:2]) if rest[0] == "standin" else rest[0]
        options = rest[len(name.split()) :]
        # Behind the first word that is no option's value comes the command that `verify` runs.
        end = options.index("python") if "python" in options else len(options)
        yield name, [word.partition("=")[0] for word in options[:end] if word.startswith("--")]
    for script, name in (("app_server.py", "app-server"), ("desktop.py", "standin desktop")):
        for at, word in enumerate(line):
            if word.endswith("/" + script):
                yield name, [word.partition("=")[0] for word in line[at:] if word.startswith("--")]


def test_every_command_and_option_is_there(compose):
    seen = set()
    for service in compose["services"].values():
        for name, options in commands(words(service)):
            seen.add(name)
            with help_of(name) as text:
                assert text.startswith("usage: countersign")
                assert [option for option in options if not re.search(rf"{option}(?![\w-])", text)] == []
    assert seen == {"standin chatgpt", "standin desktop", "app-server", "verify"}


def test_the_options_that_variables_bring_are_there(compose):
    verify = compose["services"]["verify"]["environment"]["VERIFY_OPTIONS"]
    with help_of("verify") as text:
        assert verify == "--expect websocket,post" and "--expect" in text
    for service in compose["services"].values():
        for word in words(service):
            assert not word.startswith("@") or word[1:] in service["environment"]


def test_the_page_names_services_and_options_that_are_there(compose):
    page = (ROOT / "docs/containers.md").read_text("utf-8")
    blocks = "".join(re.findall(r"```sh\n(.*?)```", page, re.DOTALL)).replace("\\\n", " ")
    lines = [shlex.split(line, comments=True) for line in blocks.splitlines()]
    named = {word for line in lines for word in line if word in compose["services"]}
    assert named == {"verify", "desktop", "chatgpt", "prometheus"}
    takers = {"VERIFY": "verify", "DESKTOP": "standin desktop", "CHATGPT": "standin chatgpt"}
    for line in lines:
        variable, equals, options = line[0].partition("_OPTIONS=")
        if equals:
            with help_of(takers[variable]) as text:
                for option in re.findall(r"--[\w-]+", options):
                    assert re.search(rf"{option}(?![\w-])", text), option
    for name in re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE):
        assert name in compose["services"]


def test_every_script_and_mounted_file_is_there(compose):
    override = read("tests/containers/compose.override.yml")
    for service in (*compose["services"].values(), *override["services"].values()):
        for word in words(service) + service.get("healthcheck", {}).get("test", []):
            if word.startswith("/opt/countersign/deploy/"):
                assert (ROOT / "deploy" / Path(word).name).is_file(), word
        for source, _, mode in mounts(service):
            if source.startswith("."):
                assert (ROOT / source).is_file() and mode == "ro", source


def test_services_volumes_and_networks_fit_together(compose):
    services = compose["services"]
    named = {source for service in services.values() for source, _, _ in mounts(service) if source[0] != "."}
    assert named == set(compose["volumes"])
    for service in services.values():
        assert set(service.get("depends_on", ())) <= set(services)
        assert set(service.get("networks", ())) <= set(compose["networks"])
        mode = service.get("network_mode", "")
        assert mode in ("", "none", "service:loopback") and (mode == "") == ("networks" in service)
    assert compose["networks"]["private"]["internal"] is True
    assert set(read("tests/containers/compose.override.yml")["services"]) <= set(services)


def test_each_container_is_confined_and_what_is_shared_is_private(compose):
    for service in compose["services"].values():
        assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"] and not service.get("privileged")
    for volume in compose["volumes"].values():
        assert volume["driver_opts"] == {"type": "tmpfs", "device": "tmpfs", "o": "mode=0700,uid=10001,gid=10001"}
    assert "USER 10001:10001" in (ROOT / "Dockerfile").read_text("utf-8")
    assert compose["services"]["prometheus"]["user"] == "10001:10001"


def test_both_ends_of_each_port_and_file_agree(compose):
    services = compose["services"]
    chatgpt, agent, verify = (words(services[name]) for name in ("chatgpt", "agent", "verify"))
    port = chatgpt[chatgpt.index("--port") + 1]
    for service in (services["agent"], services["verify"]):
        assert f"--wait-for-port={port}" in words(service)
        mapped = service["environment"]["COUNTERSIGN_UPSTREAM_MAP"].split(",")
        assert {one.partition("=")[2] for one in mapped} == {f"127.0.0.1:{port}"}
    assert f"https://127.0.0.1:{port}/backend-api/codex/models" in services["chatgpt"]["healthcheck"]["test"]

    prometheus = {job["job_name"]: job for job in read("deploy/prometheus.yml")["scrape_configs"]}
    where = f"127.0.0.1:{agent[agent.index('--metrics') + 1]}"
    assert prometheus["countersign"]["static_configs"] == [{"targets": [where]}]
    assert f"http://{where}/metrics" in services["agent"]["healthcheck"]["test"]
    token = prometheus["countersign"]["authorization"]["credentials_file"]
    assert f"--metrics-token={token}" in agent and token in services["agent"]["healthcheck"]["test"]

    collector = read("deploy/otel-collector.yaml")
    otlp = collector["receivers"]["otlp"]["protocols"]["http"]["endpoint"].rpartition(":")[2]
    assert f"http://collector:{otlp}" in agent and f"--otlp=http://collector:{otlp}" in verify
    shown = collector["exporters"]["prometheus"]["endpoint"].rpartition(":")[2]
    assert prometheus["collector"]["static_configs"] == [{"targets": [f"collector:{shown}"]}]
    address = services["collector"]["networks"]["private"]["ipv4_address"]
    assert services["loopback"]["extra_hosts"] == [f"collector:{address}"]

    socket = services["verify"]["environment"]["COUNTERSIGN_RPC"].removeprefix("unix://")
    assert socket in words(services["desktop"])


def test_the_pipelines_of_the_collector_are_made_of_what_is_configured():
    collector = read("deploy/otel-collector.yaml")
    for pipeline in collector["service"]["pipelines"].values():
        for kind, names in pipeline.items():
            assert set(names) <= set(collector[kind])


def test_the_builder_gets_what_the_image_is_made_of_and_no_more():
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    let_through = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines()
        if line.startswith("!")
    }
    assert {source for line in copied for source in line.split()} == let_through


def pins(name: str) -> set[str]:
    """The versions in a lock."""
    text = (ROOT / "requirements" / name).read_text("utf-8")
    return set(re.findall(r"^([\w.-]+(?:\[[\w,-]+\])?==\S+)", text, re.MULTILINE))


def test_the_lock_of_the_image_is_the_others_with_opentelemetry():
    assert pins("run.txt") < pins("otel.txt") < pins("dev.txt")
    more = {pin.partition("==")[0] for pin in pins("otel.txt") - pins("run.txt")}
    assert {"opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http"} <= more
