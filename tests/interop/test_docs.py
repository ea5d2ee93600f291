"""Every command that README and a page show can be typed as it stands.

Others are run beside what they tell of: tests/interop/test_wrap.py, tests/agent/commands/test_standin_apple.py, and
tests/containers (with a container engine by run-with-podman).
"""

import asyncio
import os
import re
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.standins.chatgpt import ChatGPT
from tests.interop.original import codex
from tests.processes import COUNTERSIGN, play, world
from tests.proxy.live.captures import captured, post_with_events, socket_with_turn
from tests.proxy.live.exchanges import POST

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("codex")]

ROOT = Path(__file__).parents[2]
ELSEWHERE = ("docs/wrap.md", "docs/verify-token.md", "docs/containers.md")
# What `make` does is what runs these tests; the demo has its own.
LEFT_OUT = re.compile(r"^make (demo|test) ", re.MULTILINE)


def shown(page: str) -> list[str]:
    return re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)


ALL_PAGES = sorted(str(path.relative_to(ROOT)) for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")))
BLOCKS = [
    pytest.param(page, block, id=f"{Path(page).name}-{number}")
    for page in ALL_PAGES
    if page not in ELSEWHERE
    for number, block in enumerate(shown(page))
    if not LEFT_OUT.search(block)
]

# Begins a command that serves until it is ended, waits until it has said where, and ends it.
SERVE = """
serve() {
  rm -f served
  "$@" > served 2>&1 &
  until grep -qs 127.0.0.1 served; do kill -0 $!; sleep 0.05; done
  kill $! && wait $!
}
"""


def as_typed(page: str, block: str, place: Path) -> str:
    """The block as a script that comes to its end, with what is an example in it as it is here."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    for example, here in {
        "20261122T101112Z": "20261122T231001Z",
        "RUN/": f"{place}/home/countersign/captures/20261122T231001Z-4f2a/",
        "/run/user/1000/countersign.sock": f"{place}/rpc.sock",
        "8443": port,
        ":9732": ":0",
    }.items():
        block = block.replace(example, here)
    block = re.sub(r"^(countersign (live|app-server --listen)\b)", r"serve \1", block, flags=re.MULTILINE)
    # It says whether this machine has a problem, which it may.
    block = re.sub(r"^(countersign doctor[^#\n]*)", r"\1 || test $? -eq 1 ", block, flags=re.MULTILINE)
    if "countersign proxy > env.sh &" in block:
        block += "\nkill $! && wait $!"
    return SERVE + block


def two_runs(captures: Path) -> None:
    """Captured runs under the names that the pages show."""
    made = []
    for _ in range(2):
        with captured(captures, bodies=True) as log:
            post_with_events(log)
            for number in (2, 3):
                log.changed(replace(POST, number=number))
            socket_with_turn(log, 4)
        made.append(log.run.path)
    # Only now: the start of a run removes old ones.
    for path, name in zip(made, ("20261101T090000Z-77c1", "20261122T231001Z-4f2a"), strict=True):
        path.rename(captures / name)


@pytest.mark.parametrize(("page", "block"), BLOCKS)
def test_what_a_page_shows_can_be_typed(outside, page, block):
    programs, work = outside / "programs", outside / "work"
    for directory in (programs, work):
        directory.mkdir()
    (work / "Makefile").write_text("test:\n\ttrue\n")
    (programs / "countersign").symlink_to(COUNTERSIGN)
    (programs / "codex").symlink_to(codex())

    async def scenario():
        async with world(outside, ChatGPT()) as here:
            two_runs(here.home / "countersign" / "captures")
            environment = {**here.environment, "PATH": f"{programs}:{os.environ['PATH']}"}
            desktop = await asyncio.create_subprocess_exec(
                COUNTERSIGN, "standin", "desktop", "--connect", f"unix://{outside}/rpc.sock", env=environment
            )
            try:
                process = await asyncio.create_subprocess_exec(
                    "sh", "-eu", "-c", as_typed(page, block, outside), env=environment, cwd=work,
                    stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                )  # fmt: skip
                stdout, stderr = await process.communicate()
                assert process.returncode == 0, (stdout + stderr).decode()
            finally:
                if desktop.returncode is None:
                    desktop.terminate()
                await desktop.wait()

    play(scenario())


def test_no_page_with_commands_is_forgotten():
    with_commands = {page for page in ALL_PAGES if shown(page)}
    assert with_commands == {block.values[0] for block in BLOCKS} | set(ELSEWHERE)


@pytest.mark.parametrize("page", ALL_PAGES)
def test_the_links_of_a_page_lead_somewhere(page):
    text = (ROOT / page).read_text("utf-8")
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
        assert "://" in target or (ROOT / page).parent.joinpath(target).exists(), target
