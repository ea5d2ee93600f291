"""Looks at this machine, and makes facts of it; what they mean is said elsewhere. Nothing is changed.

Values of variables and contents of files go no further than the facts, whose reprs do not show them.
"""

import asyncio
import contextlib
import importlib.metadata
import os
import re
import shutil
import socket
import ssl
import stat
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.doctor.configuration import ConfigFacts
from agent.doctor.dotenv import parse_dotenv
from agent.doctor.home import DotenvFacts, HomeFacts, SignInFacts
from agent.doctor.processes import run_quietly
from agent.doctor.sandbox import APPARMOR_SWITCH, CLONE_SWITCH, NAMESPACE_LIMIT, SEATBELT, Launch, SandboxFacts
from agent.doctor.trust import TRUST_FILES, TrustFile, holds_private_key, pem_certificates
from agent.doctor.versions import Program, VersionFacts
from agent.home import ConfigBroken, HomeError, config_path, load_config, override_config, position_of_key
from agent.settings import Config, ProxySettings, SettingError, ignored_settings, proxy_settings
from agent.unknown_keys import unknown_keys

# Of a file at most so much is read, in bytes; a bundle of all public roots has a quarter of a MiB.
MAX_FILE_BYTES = 4 * 1024 * 1024
# Seconds that a program has to say its version.
VERSION_TIMEOUT_S = 10.0
LAUNCH_TIMEOUT_S = 20.0

LIBRARIES = ("countersign", "mitmproxy", "aiohttp", "websockets", "cryptography")


class _NotReadable(Exception):
    """Why a file cannot be read: `kind` if it is not a regular one, else the system's words."""

    def __init__(self, text: str, kind: str = "") -> None:
        super().__init__(text)
        self.kind = kind


def _read(path: str) -> tuple[bytes, int]:
    """(content, mode) of a regular file. Raises FileNotFoundError, and _NotReadable."""
    try:
        # A FIFO without a writer would otherwise be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise _NotReadable(exc.strerror or type(exc).__name__) from exc
    except ValueError as exc:
        raise _NotReadable("its name holds a NUL byte") from exc
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise _NotReadable("is not a regular file", _kind(mode))
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(MAX_FILE_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(content) > MAX_FILE_BYTES:
        raise _NotReadable(f"is longer than {MAX_FILE_BYTES} bytes")
    return content, mode


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a directory"
    return "a FIFO" if stat.S_ISFIFO(mode) else "a device or a socket"


# Trust


def trust_files(environ: Mapping[str, str]) -> dict[str, TrustFile]:
    """What the variables that name files of authorities lead to; only those that are set."""
    return {name: trust_file(environ[name]) for name in TRUST_FILES if environ.get(name)}


def trust_file(path: str) -> TrustFile:
    """Read one file of authorities."""
    try:
        content, mode = _read(path)
    except FileNotFoundError:
        return TrustFile(path, "does not exist", is_file=False)
    except _NotReadable as exc:
        problem = f"is {exc.kind}" if exc.kind else f"cannot be read ({exc})"
        return TrustFile(path, problem, is_file=not exc.kind)
    certificates = expired = broken = 0
    for pem in pem_certificates(content):
        try:
            over = _is_over(pem.decode("ascii"))
        except (ssl.SSLError, ValueError):
            broken += 1
            continue
        certificates += 1
        expired += over
    return TrustFile(
        path,
        certificates=certificates,
        broken=broken,
        expired=expired,
        private_key=holds_private_key(content),
        others_may_read=bool(mode & 0o044),
    )


def _is_over(pem: str) -> bool:
    """Raises ssl.SSLError or ValueError if it is no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=pem)
    (found,) = context.get_ca_certs() or [{}]  # of those that are not for authorities nothing is told
    until = found.get("notAfter")
    return isinstance(until, str) and ssl.cert_time_to_seconds(until) < time.time()


# CODEX_HOME


def home_facts(environ: Mapping[str, str]) -> HomeFacts:
    """The directory, which is not made if it is not there."""
    named = environ.get("CODEX_HOME", "")
    path = named or os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".codex")
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        if named:
            return HomeFacts(path, "does not exist", exists=False)
        return HomeFacts(path, exists=False)
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else exc
        return HomeFacts(path, f"cannot be looked at ({reason})", exists=False)
    if not stat.S_ISDIR(status.st_mode):
        return HomeFacts(path, "is no directory", exists=False)
    if not os.access(path, os.R_OK | os.X_OK):
        return HomeFacts(path, "cannot be entered by this user", exists=False)
    is_ours = status.st_uid == os.geteuid()
    may_write = os.access(path, os.W_OK, effective_ids=True)
    return HomeFacts(os.path.realpath(path), mode=stat.S_IMODE(status.st_mode), is_ours=is_ours, may_write=may_write)


def dotenv_facts(home: str, environ: Mapping[str, str]) -> DotenvFacts:
    """The file `.env` of a home that is there."""
    path = os.path.join(home, ".env")
    try:
        content, mode = _read(path)
    except FileNotFoundError:
        return DotenvFacts(path)
    except _NotReadable as exc:
        return DotenvFacts(path, True, exc.kind, str(exc))
    return DotenvFacts(path, True, mode=stat.S_IMODE(mode), content=parse_dotenv(content, environ))


def sign_in_facts(home: str) -> SignInFacts:
    """The file auth.json of a home that is there, by the rules of our own agent."""
    from agent.auth import Auth, AuthFailed

    async def no_network(url: str, body: dict[str, Any]) -> tuple[int, Any]:
        raise AssertionError("looking at the account sends nothing")

    path = os.path.join(home, "auth.json")
    others = False
    with contextlib.suppress(OSError):
        others = bool(os.stat(path).st_mode & 0o077)
    try:
        account = Auth(Path(home), no_network).account()
    except AuthFailed as exc:
        # The path stands at its beginning already.
        return SignInFacts(path, problem=str(exc).removeprefix(f"{path!r} "), others_may_read=others)
    return SignInFacts(path, None if account is None else account.mode, others_may_read=others)


def config_facts(home: str | None, environ: Mapping[str, str], overrides: Sequence[str]) -> ConfigFacts:
    """config.toml and the proxy's settings.

    Args:
        home: None if there is none that can be used: then the environment and the overrides are looked at alone.
    """
    path = config_path(home or "")
    exists = home is not None and os.path.exists(path)
    if exists and not os.path.isfile(path):
        return ConfigFacts(path, exists, f"is {_kind(os.stat(path).st_mode)}, and should be a file")
    try:
        content = override_config({}, overrides) if home is None else load_config(home, overrides)
    except ConfigBroken as exc:
        problem = str(exc).removeprefix(f"{path!r} ")
        return ConfigFacts(path, exists, problem, exc.position)
    except HomeError as exc:
        return ConfigFacts(path, exists, str(exc))
    config = Config(content, overrides, path)
    settings: ProxySettings | None = None
    setting_problem = ""
    try:
        settings = proxy_settings({}, environ, config)
    except SettingError as exc:
        setting_problem = str(exc)
    return ConfigFacts(
        path,
        exists,
        content=content,
        ignored=tuple(ignored_settings(environ, config)),
        settings=settings,
        setting_problem=setting_problem,
        unknown=tuple(unknown_keys(content)),
        thread_problem=_thread_problem(home, content),
        port_taken=settings is not None and settings.port != 0 and _is_taken(settings.port),
    )


def _thread_problem(home: str | None, content: dict[str, Any]) -> str:
    from agent.config import ConfigError, thread_defaults

    try:
        thread_defaults(content, {})
    except ConfigError as exc:
        place = position_of_key(home, exc.key) if home is not None else None
        return str(exc) if place is None else f"line {place[0]}: {exc}"
    return ""


def _is_taken(port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


# The sandbox


async def sandbox_facts(environ: Mapping[str, str], scratch: Path) -> SandboxFacts:
    """What holds commands here, found as the agent finds it for the working directory, and tried with one.

    Args:
        scratch: A directory that a confined command may see.
    """
    if sys.platform == "linux":
        facts = await asyncio.to_thread(_linux_facts, environ)
        if facts.bubblewrap is None:
            return facts
    elif sys.platform == "darwin":
        facts = SandboxFacts(sys.platform, seatbelt=os.access(SEATBELT, os.X_OK))
        if not facts.seatbelt:
            return facts
    else:
        return SandboxFacts(sys.platform)
    return _with_launch(facts, await _launch(environ, scratch))


def _linux_facts(environ: Mapping[str, str]) -> SandboxFacts:
    from agent.sandbox.discovery import find_bubblewrap, wsl_version
    from agent.sandbox.landlock import LandlockError, abi_version, unavailable

    try:
        workspace = os.path.realpath(os.getcwd())
    except FileNotFoundError:  # it was removed
        workspace = os.sep
    found = find_bubblewrap(environ, workspace, (workspace,))
    abi: int | None = None
    with contextlib.suppress(LandlockError):
        abi = abi_version()
    version = ""
    with contextlib.suppress(OSError):
        version = Path("/proc/version").read_text(errors="replace")
    return SandboxFacts(
        platform="linux",
        wsl=wsl_version(version),
        bubblewrap=None if found.bubblewrap is None else found.bubblewrap.path,
        missing=found.missing,
        on_path=found.on_path,
        passed_over=found.passed_over,
        switches=_switches(),
        landlock_abi=abi,
        landlock_lacks=unavailable(abi, True) if abi else (),
    )


def _switches() -> tuple[tuple[str, int], ...]:
    found = []
    for path in (NAMESPACE_LIMIT, CLONE_SWITCH, APPARMOR_SWITCH):
        with contextlib.suppress(OSError, ValueError):
            found.append((path, int(Path(path).read_text())))
    return tuple(found)


def _with_launch(facts: SandboxFacts, launch: Launch) -> SandboxFacts:
    import dataclasses

    return dataclasses.replace(facts, launch=launch)


# Reads its argument, and must fail to write it: 3 if it could.
_ATTEMPT = 'cat "$1" >/dev/null || exit 2; if (: >"$1") 2>/dev/null; then exit 3; fi'


async def _launch(environ: Mapping[str, str], scratch: Path) -> Launch:
    file = scratch / "sandboxed.txt"
    file.write_text("a confined command may read this\n")
    # With a home of its own: what the user's config.toml says of sandboxes is not what is tried.
    environment = {**environ, "CODEX_HOME": str(scratch)}
    command = [sys.executable, "-P", "-m", "agent", "sandbox", "-c", "sandbox_mode=read-only", "--"]
    ended = await run_quietly([*command, "/bin/sh", "-c", _ATTEMPT, "sh", str(file)], environment, LAUNCH_TIMEOUT_S)
    if file.stat().st_size == 0:
        return Launch(False, "could write a file that was to be read-only")
    match ended.code:
        case 0:
            return Launch(True)
        case None:
            reason = ended.not_started or f"did not end within {LAUNCH_TIMEOUT_S:g} s"
            return Launch(False, reason)
        case code:
            said = ended.stderr.strip().rpartition("\n")[2][:300]
            return Launch(False, f"could not be run (exit {code}): {said}" if said else f"ended with {code}")


# Versions


async def version_facts(
    environ: Mapping[str, str], bubblewrap: str | None, timeout_s: float = VERSION_TIMEOUT_S
) -> VersionFacts:
    """What is installed, asked of the programs themselves, which have `timeout_s` seconds for their answer."""
    codex, bwrap = await asyncio.gather(
        _program(shutil.which("codex", path=environ.get("PATH")), environ, timeout_s),
        _program(bubblewrap, {"LC_ALL": "C"}, timeout_s),
    )
    return VersionFacts(
        python=".".join(str(part) for part in sys.version_info[:3]),
        executable=sys.executable,
        openssl=ssl.OPENSSL_VERSION,
        libraries={name: _installed(name) for name in LIBRARIES},
        codex=codex,
        bubblewrap=bwrap,
    )


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


async def _program(path: str | None, environ: Mapping[str, str], timeout_s: float) -> Program:
    if path is None:
        return Program(None)
    ended = await run_quietly([path, "--version"], environ, timeout_s)
    # Nothing else of what it says: it may be anything.
    found = re.search(r"\b(\d+\.\d+(?:\.\d+)*(?:-[0-9A-Za-z.]+)?)\b", ended.stdout)
    if ended.code == 0 and found is not None:
        return Program(path, found[1])
    if ended.code is None:
        return Program(path, None, ended.not_started or f"it did not end within {timeout_s:g} s")
    return Program(path, None, f"it ended with {ended.code}")
