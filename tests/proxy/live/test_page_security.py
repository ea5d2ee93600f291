"""What the page keeps out, in a real browser."""

from dataclasses import replace

import pytest
from aiohttp import web
from playwright.async_api import expect

from proxy.live.server import LivePage
from proxy.live.source import CaptureSource
from tests.proxy.live.captures import captured, post_with_events
from tests.proxy.live.chromium import NO_ACCESS
from tests.proxy.live.exchanges import POST, numbered
from tests.proxy.live.pages import row, rows, served

pytestmark = pytest.mark.xdist_group("chromium")

HOSTILE = '"><img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'


def test_hostile_text_stays_text_wherever_it_stands(chromium):
    async def scenario():
        hostile = replace(
            POST, path=f"/{HOSTILE}", host=HOSTILE, method=HOSTILE, thread_id=HOSTILE, http_version=HOSTILE,
            error=HOSTILE, route=HOSTILE, request_headers=((HOSTILE, HOSTILE),), response_headers=((HOSTILE, HOSTILE),),
        )  # fmt: skip
        async with (
            served(hostile, numbered(hostile, 2), run_name=HOSTILE) as (page, feed),
            chromium.tab(page.url) as tab,
        ):
            await row(tab, 1).click()
            for place in ("#run", "#rows", "#notices", "#detail .headers", "#detail .url", "#detail .facts"):
                await expect(tab.locator(place).first).to_contain_text(HOSTILE)
            feed.restart(HOSTILE + HOSTILE)
            await expect(tab.locator("#banner")).to_contain_text(HOSTILE)
            assert await tab.evaluate("window.hacked") is None
            assert await tab.locator("img").count() == 0
            assert await tab.locator("script").count() == 1

    chromium.play(scenario())


def test_what_the_model_says_stays_text(chromium, tmp_path):
    async def scenario():
        delta = {"type": "response.output_text.delta", "delta": HOSTILE}
        ended = {"type": "response.completed", "response": {"id": HOSTILE, "model": HOSTILE}}
        with captured(tmp_path, bodies=True) as log:
            post_with_events(log, [{"type": HOSTILE}, delta, ended])
        async with CaptureSource(tmp_path, None) as source, LivePage(source) as page, chromium.tab(page.url) as tab:
            await row(tab, 1).click()
            detail = tab.locator("#detail")
            await expect(detail.locator(".events code").first).to_contain_text("request body")
            await expect(detail.locator(".events")).to_contain_text(HOSTILE)
            await expect(detail.locator(".thread")).to_contain_text(HOSTILE)  # the model's name
            assert await tab.evaluate("window.hacked") is None
            assert await tab.locator("img").count() == 0

    chromium.play(scenario())


def test_the_policy_is_in_force_and_its_violations_are_seen(chromium):
    """The control of all other tests here: they would fail if the page broke its own policy."""

    async def scenario():
        async with (
            served() as (page, _),
            chromium.tab(page.url, allowed=("Executing inline", "Applying inline")) as tab,
        ):
            seen = await tab.evaluate(
                """() => new Promise((resolve) => {
                    const seen = [];
                    document.addEventListener("securitypolicyviolation", (event) => {
                        seen.push(event.effectiveDirective);
                        if (seen.length === 2) resolve(seen.sort());
                    });
                    const script = document.createElement("script");
                    script.textContent = "window.hacked = 1";
                    document.body.append(script);
                    document.body.insertAdjacentHTML("beforeend", "<p style='color: red'>x</p>");
                })"""
            )
            assert seen == ["script-src-elem", "style-src-attr"]
            assert await tab.evaluate("window.hacked") is None

    chromium.play(scenario())


def test_the_token_leaves_the_address_and_a_reload_still_has_it(chromium):
    async def scenario():
        async with served(POST) as (page, _), chromium.tab(page.url) as tab:
            await expect(rows(tab)).to_have_count(1)
            assert tab.url == f"http://127.0.0.1:{page.port}/"
            await tab.reload()
            await expect(rows(tab)).to_have_count(1)
            assert await tab.evaluate("document.cookie") == ""

    chromium.play(scenario())


def test_a_page_without_the_token_says_what_to_open(chromium):
    async def scenario():
        async with served(POST) as (page, _):
            async with chromium.tab(page.url.partition("#")[0], allowed=(NO_ACCESS,)) as tab:
                await expect(tab.get_by_role("alert")).to_contain_text("open the whole address that it printed")
                await expect(tab.locator("#connection")).to_have_text("no access")
                await expect(rows(tab)).to_have_count(0)
                # With the right one in the same tab it goes on.
                await tab.evaluate(f"location.hash = {page.url.partition('#')[2]!r}")
                await expect(rows(tab)).to_have_count(1)

    chromium.play(scenario())


def test_the_page_of_another_site_gets_nothing_even_with_the_token(chromium):
    async def scenario():
        async def other_site(_):
            return web.Response(text="<!doctype html><title>other</title>", content_type="text/html")

        runner = web.ServerRunner(web.Server(other_site))
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            other = f"http://localhost:{runner.addresses[0][1]}/"
            refused = ("Access to fetch", "Failed to load resource", "Framing '", "Refused to frame")
            async with served(POST) as (page, _), chromium.tab(other, allowed=refused) as tab:
                token = page.url.partition("token=")[2]
                seen = await tab.evaluate(
                    """async ([base, token]) => {
                        const seen = [];
                        for (const [path, options] of [
                            ["/", {}],
                            ["/api/exchanges", {}],
                            ["/api/exchanges", { headers: { Authorization: `Bearer ${token}` } }],
                            ["/api/exchanges", { mode: "no-cors" }],
                            ["/page.js", { mode: "no-cors" }],
                        ]) {
                            try {
                                const answer = await fetch(base + path, options);
                                seen.push(answer.type === "opaque" ? "opaque" : await answer.text());
                            } catch (error) {
                                seen.push("failed");
                            }
                        }
                        return seen;
                    }""",
                    [f"http://127.0.0.1:{page.port}", token],
                )
                assert set(seen) <= {"failed", "opaque"}
                # What a link in it leads to is the page, in a window of its own; in a frame it is nothing.
                framed = await tab.evaluate(
                    """(url) => new Promise((resolve) => {
                        const frame = document.createElement("iframe");
                        frame.onload = () => {
                            try { resolve(frame.contentDocument?.title ?? "closed"); } catch { resolve("closed"); }
                        };
                        frame.src = url;
                        document.body.append(frame);
                    })""",
                    page.url,
                )
                assert framed == "closed"
                assert [await frame.locator("#rows").count() for frame in tab.frames] == [0, 0]
                await tab.evaluate(f"location.href = {page.url!r}")
                await expect(rows(tab)).to_have_count(1)
        finally:
            await runner.cleanup()

    chromium.play(scenario())
