"""Which versions are here, and which of them are too old. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from agent.doctor.findings import Finding, Topic

# The first one with the security fixes that the proxy relies on, and the one after those it was tried with.
MITMPROXY_LEAST = "12.2.3"
MITMPROXY_TOO_NEW = "13"
PYTHON_LEAST = "3.13"


@dataclass(frozen=True, slots=True)
class Program:
    """A program that was looked for and asked for its version.

    Args:
        path: None if it is not on PATH.
        version: None if it did not say one, with `problem` saying why.
    """

    path: str | None
    version: str | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class VersionFacts:
    """What is installed.

    Args:
        libraries: distribution -> version, None where it is not installed; ours among them.
        openssl: As the interpreter's ssl module names it.
        executable: The interpreter.
    """

    python: str
    executable: str
    openssl: str
    libraries: Mapping[str, str | None]
    codex: Program
    bubblewrap: Program


def version_findings(facts: VersionFacts) -> list[Finding]:
    """One finding for each program and library."""
    found = [_python(facts), *(_library(name, version) for name, version in facts.libraries.items())]
    found.append(Topic.VERSIONS.ok("OpenSSL", facts.openssl))
    found.append(_program("codex", facts.codex, "only `countersign app-server` can be used as an agent"))
    found.append(_program("bubblewrap", facts.bubblewrap, "see the sandbox"))
    return found


def version_key(text: str) -> tuple[int, ...]:
    """The leading numbers of a version, for comparison: "12.2.3rc1" is (12, 2, 3)."""
    found = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def _python(facts: VersionFacts) -> Finding:
    looked_at = f"Python {facts.executable!r}"
    if version_key(facts.python) < version_key(PYTHON_LEAST):
        advice = f"install countersign with Python {PYTHON_LEAST} or later"
        return Topic.VERSIONS.problem(looked_at, f"{facts.python} is too old", advice)
    return Topic.VERSIONS.ok(looked_at, facts.python)


def _library(name: str, version: str | None) -> Finding:
    if version is None:
        text = "is not installed beside countersign, which needs it"
        return Topic.VERSIONS.problem(name, text, "install countersign again, with its dependencies")
    if name == "mitmproxy" and version_key(version) < version_key(MITMPROXY_LEAST):
        text = f"{version} lacks security fixes that the proxy relies on"
        return Topic.VERSIONS.problem(name, text, f"install mitmproxy {MITMPROXY_LEAST} or later")
    if name == "mitmproxy" and version_key(version) >= version_key(MITMPROXY_TOO_NEW):
        text = f"{version} is newer than what the proxy was tried with"
        return Topic.VERSIONS.warning(name, text, f"install mitmproxy below {MITMPROXY_TOO_NEW}")
    return Topic.VERSIONS.ok(name, version)


def _program(name: str, program: Program, without: str) -> Finding:
    if program.path is None:
        return Topic.VERSIONS.note(name, f"is not on PATH; {without}")
    looked_at = f"{name} {program.path!r}"
    if program.version is None:
        text = f"did not say its version: {program.problem}"
        return Topic.VERSIONS.warning(looked_at, text, f"run {program.path!r} --version to see why")
    return Topic.VERSIONS.ok(looked_at, program.version)
