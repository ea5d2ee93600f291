"""A page that is served for a test, and what is on it."""

import contextlib
from collections.abc import AsyncIterator

from playwright.async_api import Locator, Page

from proxy.capture.exchange import Exchange
from proxy.live.feed import LiveFeed
from proxy.live.server import LivePage
from proxy.live.source import FeedSource


@contextlib.asynccontextmanager
async def served(*exchanges: Exchange, run_name: str = "a run") -> AsyncIterator[tuple[LivePage, LiveFeed]]:
    """A page over a feed that has been told of these."""
    feed = LiveFeed(run_name)
    for exchange in exchanges:
        feed.changed(exchange)
    async with LivePage(FeedSource(feed, None)) as page:
        yield page, feed


def rows(tab: Page) -> Locator:
    """The lines of the table."""
    return tab.locator("#rows tr")


def row(tab: Page, number: int) -> Locator:
    """The line of one exchange."""
    return tab.locator(f'#rows tr[data-number="{number}"]')
