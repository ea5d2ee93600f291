"""The page and its server: lost, back again, another run, and many pages at once."""

import contextlib

import pytest
from playwright.async_api import expect

from proxy.live import server
from proxy.live.feed import LiveFeed
from proxy.live.server import LivePage
from proxy.live.source import FeedSource
from tests.proxy.live.chromium import NO_SERVER
from tests.proxy.live.exchanges import POST, UNSTAMPED, numbered
from tests.proxy.live.pages import row, rows, served

pytestmark = pytest.mark.xdist_group("chromium")

# What a browser tells a page that another one has come before.
HIDE = """(hidden) => {
    Object.defineProperty(document, "hidden", { get: () => hidden, configurable: true });
    document.dispatchEvent(new Event("visibilitychange", { bubbles: true }));
}"""


def test_a_page_that_lost_its_server_says_so_and_comes_back_by_itself(chromium):
    async def scenario():
        feed = LiveFeed("a run")
        feed.changed(POST)
        page = LivePage(FeedSource(feed, None))
        async with contextlib.AsyncExitStack() as stack:
            async with page:
                tab = await stack.enter_async_context(chromium.tab(page.url, allowed=(NO_SERVER,)))
                await expect(rows(tab)).to_have_count(1)
                await expect(tab.locator("#banner")).to_be_hidden()
            await expect(tab.get_by_role("alert")).to_contain_text("countersign has stopped")
            await expect(tab.locator("#connection")).to_have_text("stopped")
            await expect(rows(tab)).to_have_count(1)  # what came until then is still there to be read
            feed.changed(numbered(POST, 2))
            async with page:
                await expect(tab.get_by_role("alert")).to_contain_text("Connected again.")
                await expect(tab.locator("#connection")).to_have_text("live")
                await expect(rows(tab)).to_have_count(2)

    chromium.play(scenario())


def test_another_run_is_shown_with_a_banner(chromium):
    async def scenario():
        async with served(POST, numbered(UNSTAMPED, 2)) as (page, feed), chromium.tab(page.url) as tab:
            await row(tab, 2).click()
            await expect(tab.locator("#detail")).to_be_visible()
            feed.restart("the next run")
            feed.changed(numbered(POST, 1))
            await expect(tab.get_by_role("alert")).to_contain_text("Another run began: the next run.")
            await expect(rows(tab)).to_have_count(1)
            await expect(tab.locator("#run")).to_have_text("the next run")
            await expect(tab.locator("#detail")).to_be_hidden()
            await expect(tab.locator("#notices")).to_be_hidden()

    chromium.play(scenario())


def test_a_page_that_nobody_sees_lets_its_connection_go(chromium):
    """A browser has six connections to a host: beside six pages a seventh got none, and no request could be opened."""

    async def scenario():
        async with served(POST) as (page, feed), chromium.tab(page.url) as tab:
            await expect(rows(tab)).to_have_count(1)
            await row(tab, 1).click()
            await expect(tab.locator("#detail")).to_be_visible()
            for _ in range(6):
                other = await tab.context.new_page()
                await other.goto(page.url)
                await expect(rows(other)).to_have_count(1)
                await other.evaluate(HIDE, True)
            await tab.evaluate(HIDE, True)
            feed.changed(numbered(UNSTAMPED, 2))
            await tab.evaluate(HIDE, False)
            await expect(rows(tab)).to_have_count(2)
            await expect(tab.locator("#banner")).to_be_hidden()
            await expect(tab.locator("#detail")).to_be_visible()
            await expect(tab.locator("#detail")).to_contain_text("#1 ")

    chromium.play(scenario())


def test_one_page_too_many_says_so(chromium, monkeypatch):
    monkeypatch.setattr(server, "MOST_STREAMS", 0)

    async def scenario():
        full = ("Failed to load resource: the server responded with a status of 503",)
        async with served(POST) as (page, _), chromium.tab(page.url, allowed=full) as tab:
            await expect(tab.get_by_role("alert")).to_contain_text("close one of them")
            await expect(tab.locator("#connection")).to_have_text("too many pages")
            monkeypatch.setattr(server, "MOST_STREAMS", 1)
            await expect(rows(tab)).to_have_count(1)

    chromium.play(scenario())
