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

from agent.standins.desktop import Script, connect, spawn
from proxy.standins.chatgpt import auth_json
from tests.bench.capture import bench_capture
from tests.bench.sandbox import bench_sandbox

COUNTERSIGN = [sys.executable, "-m", "agent"]
INSTALLED = str(Path(sys.executable).parent / "countersign")
LATER_TURNS = 4
FIGURES = {
    "initialize_ms": "process start to the `initialize` answer",
    "thread_ms": "thread/start",
    "first_turn_ms": "process start to the end of the first turn",
    "later_turn_ms": "a later turn (median of 4)",
    "peak_mib": "peak memory (VmHWM)",
}


@dataclass(frozen=True, slots=True)
class Run:
    """One start of one server, in the units of FIGURES."""

    initialize_ms: float
    thread_ms: float
    first_turn_ms: float
    later_turn_ms: float
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
    """Start the server, run a thread with five turns, and end it."""
    begun = time.perf_counter()
    async with spawn(command, Script(), environment, home) as desktop:
        await desktop.initialize()
        initialized = time.perf_counter()
        answer = await desktop.request("thread/start", {"cwd": str(home), "model": "gpt-5.5"})
        threaded = time.perf_counter()
        thread_id = answer["thread"]["id"]
        turn = await desktop.turn(thread_id, "hello")
        first = time.perf_counter()
        later = []
        for number in range(LATER_TURNS):
            asked = time.perf_counter()
            await desktop.turn(thread_id, f"and again {number}")
            later.append(time.perf_counter() - asked)
        if turn["status"] != "completed":
            raise SystemExit(f"{command[0]}: the turn ended {turn['status']}: {turn['error']}")
        peak = peak_mib(desktop.process.pid)
    return Run(
        (initialized - begun) * 1e3,
        (threaded - initialized) * 1e3,
        (first - begun) * 1e3,
        statistics.median(later) * 1e3,
        peak,
    )


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


async def bench(rounds: int) -> int:
    # The original refuses to install its sandbox helper under the temp directory.
    base = "/var/tmp" if os.path.isdir("/var/tmp") else None
    with tempfile.TemporaryDirectory(prefix="countersign-bench-", dir=base) as name:
        directory = Path(name)
        ours_home, theirs_home, proxy_home = (home_for(directory, one) for one in ("ours", "theirs", "proxy"))
        rpc = directory / "rpc.sock"
        async with contextlib.AsyncExitStack() as stack:
            upstream = await stack.enter_async_context(
                process(*COUNTERSIGN, "standin", "chatgpt", "--directory", str(directory / "upstream"))
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
            ours_env = {**os.environ, **mapped, "CODEX_HOME": str(ours_home)}
            theirs_env = {**os.environ, **environment, "CODEX_HOME": str(theirs_home)}
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
    arguments = parser.parse_args()
    return uvloop.run(bench(arguments.rounds))


if __name__ == "__main__":
    sys.exit(main())
