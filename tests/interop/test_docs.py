"""Every command that a page shows can be typed as it stands."""

import asyncio
import os
import re
from pathlib import Path

import pytest

from tests.interop.original import codex
from tests.processes import COUNTERSIGN, play

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("codex")]

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("verify-a-build.md", "debug-outbound-traffic.md")
BLOCKS = [
    (page, number, block)
    for page in PAGES
    for number, block in enumerate(re.findall(r"```sh\n(.*?)```", (DOCS / page).read_text("utf-8"), re.DOTALL))
]


@pytest.mark.parametrize("script", [pytest.param(block, id=f"{page}-{number}") for page, number, block in BLOCKS])
def test_what_a_page_shows_can_be_typed(outside, script):
    programs, home = outside / "programs", outside / "home"
    for directory in (programs, home):
        directory.mkdir()
    (programs / "countersign").symlink_to(COUNTERSIGN)
    (programs / "codex").symlink_to(codex())
    environment = {**os.environ, "CODEX_HOME": str(home), "PATH": f"{programs}:{os.environ['PATH']}"}

    async def scenario():
        process = await asyncio.create_subprocess_exec(
            "sh", "-eu", "-c", script, env=environment, cwd=outside,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        stdout, stderr = await process.communicate()
        assert process.returncode == 0, (stdout + stderr).decode()

    play(scenario())


def test_each_page_shows_something():
    assert {page for page, _, _ in BLOCKS} == set(PAGES)


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md")))
def test_the_links_of_a_page_lead_somewhere(page):
    text = (DOCS / page).read_text("utf-8")
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
        assert "://" in target or (DOCS / target).exists(), target
