"""`python -m tests.bench`: the app-server beside the original's, same upstream, same desktop, one proxy each; then the
sandbox (`tests.bench.sandbox`).

Ours goes through its embedded proxy; the original goes through `countersign proxy --stamp never` and attests by
itself. The runs alternate, after one of each that is not counted; the ratio is the median of the paired ratios.
CODEX_BENCH_EXE names another original than the one that is installed for the tests.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import uvloop

from agent.standins.desktop import Desktop, Script, connect, spawn
from proxy.standins.chatgpt import auth_json
from tests.bench.capture import bench_capture
from tests.bench.sandbox import bench_sandbox
from tests.bench.upstream import RUN_TRUE

COUNTERSIGN = [sys.executable, "-m", "agent"]
INSTALLED = str(Path(sys.executable).parent / "countersign")
LATER_TURNS = 4
# As a user with pyenv or nvm has it, and less.
SLOW = "-with-a-slow-profile"
SLOW_PROFILE = "sleep 0.05\n"
FIGURES = {
    "initialize_ms": "process start to the `initialize` answer",
    "thread_ms": "thread/start",
    "first_turn_ms": "process start to the end of the first turn",
    "later_turn_ms": "a later turn (median of 4)",
    "tool_turn_ms": "a turn with one sandboxed `true` (median of 4)",
    "profile_turn_ms": "the same, of a user with a slow profile",
    "later_cpu_ms": "CPU time of the server in a later turn",
    "peak_mib": "peak memory (VmHWM)",
}


@dataclass(frozen=True, slots=True)
class Run:
    """One start of one server, in the units of FIGURES."""

    initialize_ms: float
    thread_ms: float
    first_turn_ms: float
    later_turn_ms: float
    tool_turn_ms: float
    profile_turn_ms: float
    later_cpu_ms: float
    peak_mib: float


def codex_exe() -> str:
    """The original's binary."""
    if named := os.environ.get("CODEX_BENCH_EXE"):
        return named
    import codex_cli_bin

    return str(codex_cli_bin.bundled_codex_path())


@contextlib.asynccontextmanager
async def process(*command: str, **environment: str) -> AsyncIterator[dict[str, object]]:
    """A helper process that prints one line of JSON when it is ready."""
    started = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, env={**os.environ, **environment}
    )
    try:
        assert started.stdout is not None
        async with asyncio.timeout(20):
            line = await started.stdout.readline()
        yield json.loads(line)
    finally:
        started.terminate()
        await started.wait()


async def measure(command: list[str], environment: dict[str, str], home: Path) -> Run:
    """Start the server, run a thread with turns, and end it; and again for a user with a slow profile."""
    begun = time.perf_counter()
    async with spawn(command, Script(), environment, home) as desktop:
        await desktop.initialize()
        initialized = time.perf_counter()
        thread_id = await started(desktop, home)
        threaded = time.perf_counter()
        turn = await desktop.turn(thread_id, "hello")
        first = time.perf_counter()
        if turn["status"] != "completed":
            raise SystemExit(f"{command[0]}: the turn ended {turn['status']}: {turn['error']}")
        later_ms, later_cpu_ms = await later_turns(desktop, thread_id, "and again")
        tool_ms = await tool_turns(desktop, thread_id)
        peak = peak_mib(desktop.process.pid)
    async with spawn(command, Script(), {**environment, "HOME": environment["HOME"] + SLOW}, home) as desktop:
        await desktop.initialize()
        profile_ms = await tool_turns(desktop, await started(desktop, home))
    return Run(
        (initialized - begun) * 1e3,
        (threaded - initialized) * 1e3,
        (first - begun) * 1e3,
        later_ms,
        tool_ms,
        profile_ms,
        later_cpu_ms,
        peak,
    )


async def started(desktop: Desktop, home: Path) -> str:
    """The id of a new thread."""
    wanted = {"cwd": str(home), "model": "gpt-5.5", "sandbox": "workspace-write", "approvalPolicy": "never"}
    thread_id = (await desktop.request("thread/start", wanted))["thread"]["id"]
    assert isinstance(thread_id, str)
    return thread_id


async def tool_turns(desktop: Desktop, thread_id: str) -> float:
    """The median of some turns with a `true`, in milliseconds."""
    await desktop.turn(thread_id, RUN_TRUE)  # the first command finds out what the machine can do
    tool_ms, _ = await later_turns(desktop, thread_id, RUN_TRUE)
    ran = [said["params"]["item"] for said in desktop.notifications if said["method"] == "item/completed"]
    codes = [item["exitCode"] for item in ran if item["type"] == "commandExecution"]
    if codes != [0] * (1 + LATER_TURNS):
        raise SystemExit(f"`true` ended with {codes}")
    return tool_ms


async def later_turns(desktop: Desktop, thread_id: str, text: str) -> tuple[float, float]:
    """(the median of some turns in milliseconds, CPU time of each of them in milliseconds)."""
    took = []
    cpu = cpu_s(desktop.process.pid)
    for _ in range(LATER_TURNS):
        asked = time.perf_counter()
        await desktop.turn(thread_id, text)
        took.append(time.perf_counter() - asked)
    return statistics.median(took) * 1e3, (cpu_s(desktop.process.pid) - cpu) / LATER_TURNS * 1e3


def cpu_s(pid: int) -> float:
    """CPU time of a process, of the threads that it has, in seconds."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int(task.joinpath("schedstat").read_text().split()[0]) for task in tasks) / 1e9


def peak_mib(pid: int) -> float:
    """VmHWM of a process in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("no VmHWM: this benchmark needs Linux")


def home_for(directory: Path, name: str) -> Path:
    home = directory / name
    home.mkdir(mode=0o700)
    (home / "auth.json").write_text(json.dumps(auth_json()))
    return home


async def bench(rounds: int, *, everything: bool) -> int:
    # The original refuses to install its sandbox helper under the temp directory.
    base = "/var/tmp" if os.path.isdir("/var/tmp") else None
    with tempfile.TemporaryDirectory(prefix="countersign-bench-", dir=base) as name:
        directory = Path(name)
        ours_home, theirs_home, proxy_home = (home_for(directory, one) for one in ("ours", "theirs", "proxy"))
        rpc = directory / "rpc.sock"
        async with contextlib.AsyncExitStack() as stack:
            upstream = await stack.enter_async_context(
                process(sys.executable, "-m", "tests.bench.upstream", str(directory))
            )
            mapped = {
                "COUNTERSIGN_UPSTREAM_MAP": str(upstream["upstream_map"]),
                "COUNTERSIGN_UPSTREAM_CA": str(upstream["ca_file"]),
            }
            proxy = await stack.enter_async_context(
                process(
                    *COUNTERSIGN,
                    "proxy",
                    "--json",
                    "--stamp",
                    "never",
                    "--rpc",
                    f"unix://{rpc}",
                    CODEX_HOME=str(proxy_home),
                    **mapped,
                )  # fmt: skip
            )
            await stack.enter_async_context(connect(rpc, Script(attests=False)))
            environment = proxy["env"]
            assert isinstance(environment, dict)
            # A login shell reads what lies in HOME, which may take longer than all that is measured here.
            (user := directory / "user").mkdir()
            (slow := directory / f"user{SLOW}").mkdir()
            (slow / ".profile").write_text(SLOW_PROFILE)
            ours_env = {**os.environ, **mapped, "CODEX_HOME": str(ours_home), "HOME": str(user)}
            theirs_env = {**os.environ, **environment, "CODEX_HOME": str(theirs_home), "HOME": str(user)}
            ours_command, theirs_command = [INSTALLED, "app-server", "--quiet"], [codex_exe(), "app-server"]
            ours: list[Run] = []
            theirs: list[Run] = []
            with quiet():
                await measure(ours_command, ours_env, ours_home)
                await measure(theirs_command, theirs_env, theirs_home)
                for _ in range(rounds):
                    ours.append(await measure(ours_command, ours_env, ours_home))
                    theirs.append(await measure(theirs_command, theirs_env, theirs_home))
        report(ours, theirs)
        if everything:
            await bench_sandbox(4 * rounds, directory, codex_exe())
            await bench_capture(3 * rounds)
    return 0


@contextlib.contextmanager
def quiet():
    """The servers' stderr is ours; it does not belong into the table."""
    kept = os.dup(2)
    with open(os.devnull, "wb") as null:
        os.dup2(null.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def report(ours: list[Run], theirs: list[Run]) -> None:
    print(f"{len(ours)} runs each, alternating; median (min to max); ratio: median of the paired ratios, below 1 is us")
    print(f"{'':<46}{'countersign':>26}{'original':>26}{'ratio':>8}")
    for figure, what in FIGURES.items():
        a = [getattr(run, figure) for run in ours]
        b = [getattr(run, figure) for run in theirs]
        ratio = statistics.median(x / y for x, y in zip(a, b, strict=True))
        print(f"{what:<46}{spread(a):>26}{spread(b):>26}{ratio:>8.2f}")


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--turns-only", action="store_true", help="neither the sandbox nor the capture by itself")
    arguments = parser.parse_args()
    return uvloop.run(bench(arguments.rounds, everything=not arguments.turns_only))


if __name__ == "__main__":
    sys.exit(main())
