"""The app-server as it is put together, where it ends while a client still asks."""

import asyncio
import contextlib

import pytest

from agent.app import App
from agent.recording_options import RecordingOptions
from agent.settings import Config, proxy_settings
from agent.standins.desktop import Desktop, Script
from tests.agent.core.memory_app import MemoryPipe


@contextlib.asynccontextmanager
async def app_and_pipe(home):
    app = App(proxy_settings({}, {}, Config({})), RecordingOptions(), str(home), {}, None)
    pipe = MemoryPipe()
    serving = asyncio.create_task(app.serve(pipe.server, greeted=False))
    try:
        async with Desktop(Script(name="codex_desktop"), pipe.desktop) as desktop:
            yield app, desktop
    finally:
        await serving
        await app.aclose()


@pytest.mark.parametrize("asked", ["before", "after"])
def test_what_is_asked_while_it_ends_is_answered(run, tmp_path, asked):
    """The first was never answered, and for the second parts were built anew, which nobody ended."""

    async def scenario():
        async with app_and_pipe(tmp_path) as (app, desktop):
            await desktop.initialize()
            await desktop.request("thread/list", {})
            asking = None
            if asked == "before":
                asking = asyncio.create_task(desktop.request("config/read", {}))
                while app._others is None:
                    await asyncio.sleep(0)
            await app.aclose()
            async with asyncio.timeout(5):
                if asking is not None:
                    assert "config" in await asking
                else:
                    with pytest.raises(Exception, match="the app-server is ending"):
                        await desktop.request("config/read", {})
                    assert app._others is None

    run(scenario())


def test_nothing_is_loaded_for_a_client_that_comes_when_it_has_ended(run, tmp_path):
    async def scenario():
        async with app_and_pipe(tmp_path) as (app, desktop):
            await app.aclose()
            await desktop.initialize()
            with pytest.raises(Exception, match="the app-server is ending"):
                await desktop.request("thread/list", {})
            assert app._loading is None and app._core is None

    run(scenario())
