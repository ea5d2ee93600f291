"""A headless Chromium for the tests of the live page."""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from playwright.async_api import Browser, Page, async_playwright, expect

FINDER = Path(__file__).parents[3] / ".ci" / "find-chromium"
DEADLINE_S = 60.0
TIMEOUT_MS = 20_000

# What Chromium itself says when the server is gone, or answers with an error.
NO_SERVER = "Failed to load resource: net::ERR_"
NO_ACCESS = "Failed to load resource: the server responded with a status of 401"


class Chromium:
    """The browser, and the loop that it lives on."""

    def __init__(self, runner: asyncio.Runner, browser: Browser) -> None:
        self._runner = runner
        self._browser = browser

    def play[T](self, scenario: Coroutine[Any, Any, T]) -> T:
        """Run a scenario to its end on the browser's loop."""

        async def bounded() -> T:
            async with asyncio.timeout(DEADLINE_S):
                return await scenario

        return self._runner.run(bounded())

    @contextlib.asynccontextmanager
    async def tab(
        self, url: str, *, width: int = 1280, height: int = 800, scheme: Any = "light", allowed: tuple[str, ...] = ()
    ) -> AsyncIterator[Page]:
        """A tab of its own profile at `url`; what its console complains of at the end fails the test.

        Args:
            allowed: Beginnings of complaints that belong to the scenario.
        """
        context = await self._browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, accept_downloads=True
        )
        complaints: list[str] = []
        try:
            tab = await context.new_page()
            tab.set_default_timeout(TIMEOUT_MS)
            tab.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
            tab.on("pageerror", lambda error: complaints.append(str(error)))
            await tab.goto(url)
            yield tab
        finally:
            await context.close()
        assert [one for one in complaints if not one.startswith(allowed)] == []


def launched() -> Iterator[Chromium]:
    """For a fixture: the browser, as long as it is needed."""
    found = subprocess.run([FINDER], capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.fail(found.stderr)
    # As root Chromium starts without its sandbox only; it shows nothing but our page here.
    arguments = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    expect.set_options(timeout=TIMEOUT_MS)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        driver = runner.run(async_playwright().start())
        browser = runner.run(driver.chromium.launch(executable_path=found.stdout.strip(), args=arguments))
        try:
            yield Chromium(runner, browser)
        finally:
            runner.run(browser.close())
            runner.run(driver.stop())
