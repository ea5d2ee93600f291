"""The sandbox's part of `make bench`: a confined `true`, from a running agent and as whole processes.

Everything is run in turn, in one process, and each ratio is the median of the paired ratios.
"""

import os
import shutil
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from agent.sandbox.discovery import bundled
from agent.sandbox.host import look, places
from agent.sandbox.legacy import READ_ONLY, LegacyPolicy, Mode, to_profile
from agent.sandbox.plan import Command, Options, SandboxPlan, plan
from agent.sandbox.policy import PROTECTED_NAMES, Profile, resolve
from agent.sandbox.profile_json import profile_json
from agent.sandbox.run import Runner, is_quick

COUNTERSIGN = str(Path(sys.executable).parent / "countersign")
WORKSPACE = to_profile(LegacyPolicy(Mode.WORKSPACE_WRITE, exclude_slash_tmp=True, exclude_tmpdir_env_var=True))
_NAMESPACES = ("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-net", "--proc", "/proc")

type Timed = Callable[[], Awaitable[None]]


async def bench_sandbox(rounds: int, directory: Path, codex: str) -> None:
    """Measure and print.

    Args:
        directory: Outside the temp directory: the original makes no helper below that.
        codex: The original's binary.
    """
    import json

    workspace = directory / "workspace"
    workspace.mkdir()
    helpers = {}
    for name, executable in (("ours", COUNTERSIGN), ("theirs", codex)):
        (directory / name).mkdir(exist_ok=True)
        helpers[name] = str(directory / name / "codex-linux-sandbox")
        os.symlink(executable, helpers[name])
    bwrap = shutil.which("bwrap") or bundled()
    if bwrap is None:
        raise SystemExit("the sandbox benchmark needs bubblewrap")
    runner = Runner()
    environ = {**os.environ, "CODEX_HOME": str(directory / "home"), "PATH": os.environ["PATH"]}
    (directory / "home").mkdir()

    def process(*argv: str) -> Timed:
        async def run() -> None:
            pid = os.posix_spawn(argv[0], argv, environ, setsid=True)
            if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0:  # noqa: ASYNC222 - nothing else is to run
                raise SystemExit(f"failed: {' '.join(argv)}")

        return run

    def planned(profile: Profile) -> tuple[Callable[[], SandboxPlan], bool]:
        policy = resolve(profile, places(str(workspace), environ))

        def make_plan() -> SandboxPlan:
            host = look(policy, str(workspace), Options(), environ)
            return plan(policy, Command(("true",), str(workspace)), host)

        return make_plan, is_quick(policy)

    def confined(profile: Profile) -> Timed:
        make_plan, quick = planned(profile)

        async def run() -> None:
            outcome = await runner.run(make_plan, environ, timeout_s=10, max_output_bytes=1000, plans_quickly=quick)
            if outcome.exit_code != 0:
                raise SystemExit(f"failed: {outcome}")

        return run

    def helper(name: str, profile: Profile) -> Timed:
        text = json.dumps(profile_json(profile))
        where = ("--sandbox-policy-cwd", str(workspace), "--command-cwd", str(workspace))
        return process(helpers[name], *where, "--permission-profile", text, "--", "true")

    view = (bwrap, "--ro-bind", "/", "/", "--dev", "/dev")
    bare = {
        "read-only": process(*view, *_NAMESPACES, "--", "true"),
        "workspace-write": process(*view, "--bind", str(workspace), str(workspace), *_NAMESPACES, "--", "true"),
    }
    # What keeps the four protected names from being made, by hand: they must be there before, and stay.
    guarded = directory / "guarded"
    masks = [word for name in PROTECTED_NAMES for word in ("--ro-bind", str(guarded / name), str(guarded / name))]
    for name in PROTECTED_NAMES:
        (guarded / name).mkdir(parents=True)
    masked = process(*view, "--bind", str(guarded), str(guarded), *masks, *_NAMESPACES, "--", "true")
    os.chdir(workspace)
    print()
    print(f"a confined `true`, {rounds} runs each in turn; median ms; ratio: median of the paired ratios to the last")
    for name, profile in (("read-only", READ_ONLY), ("workspace-write", WORKSPACE)):
        await _compare(
            f"from a running agent, {name}",
            rounds,
            {
                "countersign": confined(profile),
                "codex helper": helper("theirs", profile),
                **({"bwrap with its masks": masked} if profile is WORKSPACE else {}),
                "bare bwrap": bare[name],
            },
        )
        await _compare(
            f"the helper as a process, {name}",
            rounds,
            {"countersign": helper("ours", profile), "codex": helper("theirs", profile)},
        )
    await _compare(
        "`sandbox -- true` as a process",
        rounds,
        {
            "countersign": process(COUNTERSIGN, "sandbox", "--", "true"),
            "codex": process(codex, "sandbox", "--", "true"),
        },
    )
    runner.close()


async def _compare(what: str, rounds: int, timed: dict[str, Timed]) -> None:
    times: dict[str, list[float]] = {name: [] for name in timed}
    for counted in range(-2, rounds):
        for name, run in timed.items():
            begun = time.perf_counter()
            await run()
            if counted >= 0:
                times[name].append((time.perf_counter() - begun) * 1e3)
    *_, last = times
    figures = []
    for name, taken in times.items():
        ratio = statistics.median(x / y for x, y in zip(taken, times[last], strict=True))
        figures.append(f"{name} {statistics.median(taken):.1f}" + (f" ({ratio:.2f})" if name != last else ""))
    print(f"{what:<40}{',  '.join(figures)}")


def main() -> None:
    import tempfile

    from tests.bench.__main__ import codex_exe

    base = "/var/tmp" if os.path.isdir("/var/tmp") else None
    with tempfile.TemporaryDirectory(prefix="countersign-bench-", dir=base) as name:
        uvloop.run(bench_sandbox(40, Path(name), codex_exe()))


if __name__ == "__main__":
    main()
