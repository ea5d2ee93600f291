"""`countersign live` as a process."""

import asyncio
import contextlib
import json
import os
import signal
import stat
import urllib.error
import urllib.request

import pytest

from proxy.capture.log import CaptureLog
from tests.processes import COUNTERSIGN, Finished, finish, play
from tests.proxy.live.exchanges import POST, numbered


@contextlib.asynccontextmanager
async def live(*arguments, home, **environment):
    """The process and the address that it printed."""
    process = await asyncio.create_subprocess_exec(
        COUNTERSIGN, "live", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "CODEX_HOME": str(home), **environment},
    )  # fmt: skip
    try:
        line = await process.stdout.readline()
        assert line, await process.stderr.read()
        yield process, line.decode().strip()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def end(process, number=signal.SIGINT):
    process.send_signal(number)
    stdout, stderr = await process.communicate()
    return Finished(process.returncode, stdout.decode(), stderr.decode())


def asked(url, path, token=None):
    base, _, own = url.partition("#token=")
    request = urllib.request.Request(base.rstrip("/") + path, headers={"Authorization": f"Bearer {token or own}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def captured(base):
    log = CaptureLog(base, "run")
    log.start()
    for number in (1, 2, 3):
        log.changed(numbered(POST, number))
    log.close()
    return log.run


async def shown(url):
    """The exchanges of the page, once there are any."""
    while not (content := await asyncio.to_thread(asked, url, "/api/exchanges"))["exchanges"]:
        await asyncio.sleep(0)
    return content


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_newest_run_is_shown_until_a_signal_ends_it(tmp_path, number):
    async def scenario():
        captured(tmp_path / "countersign" / "captures")
        newest = captured(tmp_path / "countersign" / "captures")
        async with live(home=tmp_path) as (process, url):
            content = await shown(url)
            # Of two that began in one second the digits decide, which are drawn by lot.
            assert content["run"][:15] == newest.id[:15]
            assert content["coverage"]["scoped"] == 3
            with pytest.raises(urllib.error.HTTPError, match="401"):
                await asyncio.to_thread(asked, url, "/api/exchanges", "wrong")
            done = await end(process, number)
        assert (done.code, done.stdout, done.stderr) == (0, "", "")

    play(scenario())


def test_a_run_can_be_named_and_the_place_where_runs_lie(tmp_path):
    async def scenario():
        run = captured(tmp_path / "elsewhere")
        async with live(run.id, "--captures", str(tmp_path / "elsewhere"), home=tmp_path) as (process, url):
            assert (await shown(url))["run"] == run.id
            await end(process)
        async with live(home=tmp_path, COUNTERSIGN_CAPTURES=str(tmp_path / "elsewhere")) as (process, url):
            assert (await shown(url))["run"] == run.id
            await end(process)

    play(scenario())


def test_without_a_run_it_waits_for_the_first(tmp_path):
    async def scenario():
        async with live(home=tmp_path) as (process, url):
            assert (await asyncio.to_thread(asked, url, "/api/exchanges"))["exchanges"] == []
            run = captured(tmp_path / "countersign" / "captures")
            assert (await shown(url))["run"] == run.id
            done = await end(process)
        assert "no run is captured in" in done.stderr

    play(scenario())


def test_the_browser_is_led_to_the_page_by_a_private_file_and_the_token_is_no_argument(tmp_path):
    async def scenario():
        browser = tmp_path / "browser"
        browser.write_text(
            f'#!/bin/sh\ncd {tmp_path}\nprintf "%s\\n" "$@" > arguments.part\nmv arguments.part arguments\n'
        )
        browser.chmod(0o755)
        async with live("--open", home=tmp_path, BROWSER=f"{browser} %s &") as (process, url):
            while not (tmp_path / "arguments").exists():
                await asyncio.sleep(0)
            (argument,) = (tmp_path / "arguments").read_text().split()
            assert argument.startswith("file:///") and "token" not in argument
            page = argument.removeprefix("file://")
            assert stat.S_IMODE(os.stat(os.path.dirname(page)).st_mode) == 0o700
            with open(page) as file:
                assert f'url={url}"' in file.read()
            done = await end(process)
        assert not os.path.exists(os.path.dirname(page))
        assert done.code == 0

    play(scenario())


def test_without_a_screen_no_browser_is_started_and_that_is_told(tmp_path):
    async def scenario():
        none = dict.fromkeys(("BROWSER", "DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME"), "")
        async with live("--open", home=tmp_path, **none) as (process, _):
            assert b"no run" in await process.stderr.readline()
            assert b"no browser could be started" in await process.stderr.readline()
            await end(process)

    play(scenario())


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("nothing",), 2, "no run 'nothing' in"),
        (("--port", "65536"), 2, "a port is a number from 0 to 65535, found '65536'"),
        (("--port", "-1"), 2, "--port"),
        (("one", "two"), 2, "unrecognized arguments"),
    ],
)
def test_what_cannot_be_done_is_told(tmp_path, arguments, code, told):
    async def scenario():
        environment = {**os.environ, "CODEX_HOME": str(tmp_path)}
        done = await finish(COUNTERSIGN, "live", *arguments, environment=environment)
        assert (done.code, done.stdout) == (code, "")
        assert told in done.stderr
        assert "Traceback" not in done.stderr

    play(scenario())


def test_a_setting_that_could_have_no_effect_is_refused(tmp_path):
    async def scenario():
        environment = {**os.environ, "CODEX_HOME": str(tmp_path)}
        done = await finish(COUNTERSIGN, "-c", "a=1", "live", environment=environment)
        assert (done.code, "reads no config" in done.stderr) == (2, True)

    play(scenario())


def test_a_port_in_use_is_told(tmp_path):
    async def scenario():
        async with live(home=tmp_path) as (_, url):
            port = url.partition("#")[0].rstrip("/").rpartition(":")[2]
            done = await finish(
                COUNTERSIGN, "live", "--port", port, environment={**os.environ, "CODEX_HOME": str(tmp_path)}
            )
            assert done.code == 1
            assert f"cannot listen on 127.0.0.1:{port}: it is in use" in done.stderr

    play(scenario())
