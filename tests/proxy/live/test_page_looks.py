"""The page for all eyes and all screens, and for those who cannot see it."""

from dataclasses import replace
from pathlib import Path

import pytest
from playwright.async_api import expect

from proxy.attestation import AttestationStatus
from proxy.capture.exchange import Stamp
from tests.proxy.live.exchanges import POST, SLOW, SORTS, decided, numbered
from tests.proxy.live.pages import row, rows, served

pytestmark = pytest.mark.xdist_group("chromium")

CONTRAST = Path(__file__).with_name("contrast.js").read_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_in_light_and_in_dark(chromium, scheme):
    async def scenario():
        async with served(*SORTS, *[numbered(one, one.number + 20) for one in SLOW]) as (page, _):
            async with chromium.tab(page.url, scheme=scheme) as tab:
                await row(tab, 37).click()
                await expect(tab.locator("#detail .verdict")).to_be_visible()
                await tab.get_by_role("button", name="Show all texts").click()
                await tab.keyboard.press("p")
                await tab.emulate_media(color_scheme=scheme, reduced_motion="reduce")
                contrast, text = await tab.evaluate(CONTRAST)
                assert contrast >= 4.5, text
                ground = await tab.evaluate("getComputedStyle(document.body).backgroundColor")
                assert (sum(map(int, ground[4:-1].split(","))) > 384) == (scheme == "light")

    chromium.play(scenario())


# What is too long for its cell; only of a path or a route something may be left out.
CUT = """[...document.querySelectorAll("#table th, #table td")].filter(
    (cell) => cell.checkVisibility() && cell.scrollWidth > cell.clientWidth && !cell.matches(".c-where, .c-route")
).map((cell) => cell.textContent)"""


@pytest.mark.parametrize("width", [360, 768, 1024, 1360])
def test_nothing_is_cut_off_on_a_narrow_screen(chromium, width):
    async def scenario():
        long = replace(POST, stamp=Stamp.NATIVE, attestation=AttestationStatus.MALFORMED, error="server closed it")
        async with served(*SORTS, *[numbered(one, one.number + 20) for one in SLOW], numbered(long, 40)) as (page, _):
            async with chromium.tab(page.url, width=width, height=740) as tab:
                await expect(rows(tab)).to_have_count(12)

                async def sideways():
                    return await tab.evaluate("document.scrollingElement.scrollWidth - innerWidth")

                assert await sideways() <= 0
                assert await tab.evaluate(CUT) == []
                for name in ("stamp", "status", "duration"):
                    box = await row(tab, 6).locator(f".c-{name}").bounding_box()
                    assert box["width"] > 20 and box["x"] + box["width"] <= width
                await row(tab, 37).click()
                await expect(tab.locator("#detail .verdict")).to_be_visible()
                assert await sideways() <= 0
                wider = """[...document.querySelectorAll("#detail, #detail *")].filter(
                    (one) => one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).display !== "inline"
                ).map((one) => one.className || one.tagName)"""
                assert await tab.evaluate(wider) == []
                assert await tab.evaluate(CUT) == []
                await tab.keyboard.press("Escape")
                await expect(tab.locator("#detail")).to_be_hidden()

    chromium.play(scenario())


def test_two_thousand_requests_and_a_flood_of_more_are_shown(chromium):
    async def scenario():
        async with served(*(numbered(POST, number) for number in range(1, 2001))) as (page, feed):
            async with chromium.tab(page.url) as tab:
                await expect(tab.locator("#shown")).to_have_text("2000 requests")
                await tab.get_by_role("button", name="1700 older ones not drawn; show more").click()
                await expect(tab.locator("#rows tr")).to_have_count(600)
                for number in range(2001, 4001):
                    feed.changed(numbered(decided(POST), number))
                    feed.changed(numbered(POST, number))
                await expect(row(tab, 4000)).to_be_visible()
                await expect(tab.locator("#shown")).to_have_text("2000 requests")
                await expect(tab.locator("#coverage")).to_have_text("4000 of 4000 scoped requests stamped")
                await expect(tab.locator("#coverage-rest")).to_contain_text("2000 older ones no longer shown")

    chromium.play(scenario())


def test_whoever_cannot_see_it_is_told_the_same(chromium):
    async def scenario():
        async with served(*SORTS) as (page, feed), chromium.tab(page.url) as tab:
            grid = tab.get_by_role("grid", name="Requests, the newest first")
            await expect(grid.get_by_role("columnheader")).to_have_count(10)
            await expect(grid.get_by_role("row", name="no stamp")).to_have_count(1)
            await expect(tab.get_by_role("log")).to_have_attribute("aria-live", "polite")
            assert (
                await tab.evaluate(
                    "[...document.querySelectorAll('button, input')].filter((one) => one.checkVisibility() && "
                    "!(one.ariaLabel || one.textContent.trim())).length"
                )
                == 0
            )
            ids = await tab.evaluate("[...document.querySelectorAll('[id]')].map((one) => one.id)")
            assert len(ids) == len(set(ids))
            # Tab leads into the table once, and on.
            assert await tab.locator('#rows tr[tabindex="0"]').count() == 1

    chromium.play(scenario())
