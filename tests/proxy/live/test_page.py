"""The page in a real browser."""

import json
from dataclasses import replace

import pytest
from playwright.async_api import expect

from proxy.capture.exchange import SocketTurn
from proxy.live.server import LivePage
from proxy.live.source import CaptureSource
from tests.proxy.live.captures import captured, socket_with_turn
from tests.proxy.live.exchanges import OTHER, POST, SLOW, SOCKET, SORTS, UNSTAMPED, answered, decided, numbered
from tests.proxy.live.pages import row, rows, served

# One browser for all of them.
pytestmark = pytest.mark.xdist_group("chromium")


def test_requests_appear_and_change_as_they_go_on(chromium):
    async def scenario():
        async with served() as (page, feed), chromium.tab(page.url) as tab:
            await expect(tab.locator("#empty")).to_contain_text("No request has come yet.")
            await expect(tab.locator("#connection")).to_have_text("live")
            feed.changed(decided(POST))
            await expect(rows(tab)).to_have_count(1)
            await expect(row(tab, 1).locator(".c-status")).to_have_text("…")
            feed.changed(POST)
            await expect(row(tab, 1).locator(".c-status")).to_have_text("200")
            for name, text in {
                "route": "responses", "transport": "POST", "where": "/backend-api/codex/responseschatgpt.com",
                "stamp": "✓stamped", "token": "30 ms", "first": "1.00 s", "duration": "3.00 s", "bytes": "↑ 0 B↓ 0 B",
            }.items():  # fmt: skip
                await expect(row(tab, 1).locator(f".c-{name}")).to_have_text(text)
            feed.changed(numbered(answered(SOCKET), 2))
            await expect(rows(tab).first).to_contain_text("WebSocket")
            await expect(row(tab, 2).locator(".c-duration")).to_contain_text("⇄")

    chromium.play(scenario())


def test_the_coverage_is_told_in_words(chromium):
    async def scenario():
        async with served(*(numbered(POST, number) for number in range(1, 13))) as (page, feed):
            async with chromium.tab(page.url) as tab:
                await expect(tab.locator("#coverage")).to_have_text("12 of 12 scoped requests stamped")
                await expect(tab.locator("#coverage-tile")).to_have_attribute("data-tone", "good")
                feed.changed(numbered(UNSTAMPED, 13))
                await expect(tab.locator("#coverage")).to_have_text("12 of 13 scoped requests stamped")
                await expect(tab.locator("#coverage-tile")).to_have_attribute("data-tone", "bad")
                await expect(tab.locator("#notices")).to_contain_text("Scoped request without a stamp")

    chromium.play(scenario())


def test_the_page_alone_tells_why_a_turn_was_slow(chromium):
    async def scenario():
        async with served() as (page, feed), chromium.tab(page.url) as tab:
            await expect(tab.locator("#notices")).to_be_hidden()
            for exchange in SLOW:
                feed.changed(exchange)
            notices = tab.get_by_role("log")
            await expect(notices).to_contain_text(
                "Thread …11dead01 went over to POST: 2 failed upgrades (the last was #2: Client disconnected); "
                "16.0 s passed before the POST."
            )
            # The tries that failed are a part of the turn, and the largest one.
            await expect(tab.locator("#slow")).to_have_text("#17 took 26.0 s")
            await expect(tab.locator("#slow-rest")).to_have_text("62 % of that: failed tries before it")
            await expect(row(tab, 17).locator(".c-duration")).to_have_text("26.0 s")
            await row(tab, 17).click()
            detail = tab.get_by_role("complementary")
            await expect(detail).to_contain_text("Tries that failed before it: 62 % of the 26.0 s that the turn took")
            await expect(detail).to_contain_text("16.0 s passed before the POST")
            times = detail.locator(".waterfall:not(.thread) .number")
            await expect(times).to_have_text(["16.0 s", "30 ms", "20 ms", "9.00 s", "950 ms"])
            await expect(detail.locator(".thread li")).to_have_count(3)

    chromium.play(scenario())


def test_the_page_tells_why_a_turn_on_a_socket_was_slow_without_what_it_carried(chromium):
    async def scenario():
        async with served(numbered(OTHER, 1, duration_s=99.0)) as (page, feed), chromium.tab(page.url) as tab:
            socket = numbered(answered(SOCKET), 2, turns=(SocketTurn(1, 1.0, 1.5, 2.0),))
            feed.changed(socket)
            # What no turn is made of is none, however long it took.
            await expect(tab.locator("#slow-title")).to_have_text("Slowest turn")
            await expect(tab.locator("#slow")).to_have_text("#2 took 1.00 s")
            await row(tab, 2).click()
            detail = tab.get_by_role("complementary")
            await expect(detail.locator(".verdict")).to_contain_text("Its only turn took 1.00 s")
            feed.changed(replace(socket, turns=(*socket.turns, SocketTurn(2, 5.0, 5.1, 17.0, 6.0, 15.0))))
            await expect(tab.locator("#slow")).to_have_text("#2, turn 2, took 12.0 s")
            await expect(tab.locator("#slow-rest")).to_have_text("76 % of that: waiting for upstream")
            await expect(row(tab, 2).locator(".c-duration")).to_have_text("turn 12.0 s")
            await expect(detail.locator(".verdict")).to_contain_text("for 76 % of it nothing came from upstream")
            await expect(detail.locator(".thread li").nth(1)).to_contain_text(
                "9.00 s of silence after its first answer"
            )
            feed.changed(replace(socket, turns=(SocketTurn(3, 20.0),)))
            await expect(detail.locator(".verdict")).to_contain_text("Turn 3 waits for upstream")

    chromium.play(scenario())


def test_the_filter_finds_by_words_and_by_sort(chromium):
    async def scenario():
        async with served(*SORTS) as (page, _), chromium.tab(page.url) as tab:
            await expect(rows(tab)).to_have_count(8)
            for text, count in {
                "models": 1,
                "post 429": 1,
                "-post": 3,
                "#5": 1,
                "no stamp": 1,
                "ab.chat": 1,
                "zzz": 0,
            }.items():
                await tab.fill("#filter", text)
                await expect(rows(tab)).to_have_count(count)
            await expect(tab.locator("#empty")).to_contain_text("Nothing matches the filter.")
            await tab.keyboard.press("Escape")
            await expect(rows(tab)).to_have_count(8)
            await tab.get_by_role("button", name="Scoped").click()
            await expect(rows(tab)).to_have_count(6)
            await tab.get_by_role("button", name="Problems").click()
            await expect(rows(tab)).to_have_count(3)
            await expect(tab.locator("#shown")).to_have_text("3 of 8 requests")
            await tab.keyboard.press("Escape")
            for name, count in {"WebSocket": 1, "POST": 5, "HTTP": 1, "Tunnel": 1, "All": 8}.items():
                await tab.locator("#transports").get_by_role("button", name=name, exact=True).click()
                await expect(rows(tab)).to_have_count(count)

    chromium.play(scenario())


def test_what_comes_into_a_filtered_table_is_filtered_too(chromium):
    async def scenario():
        async with served(POST) as (page, feed), chromium.tab(page.url) as tab:
            await tab.fill("#filter", "models")
            feed.changed(numbered(POST, 2))
            feed.changed(numbered(OTHER, 3, path="/backend-api/codex/models"))
            await expect(rows(tab)).to_have_count(1)
            await expect(tab.locator("#shown")).to_have_text("1 of 3 requests")

    chromium.play(scenario())


def test_while_it_is_paused_nothing_moves_and_nothing_is_lost(chromium):
    async def scenario():
        async with served(decided(POST)) as (page, feed), chromium.tab(page.url) as tab:
            await expect(rows(tab)).to_have_count(1)
            await tab.keyboard.press("p")
            await expect(tab.locator("#connection")).to_have_text("paused · 0 new")
            feed.changed(POST)
            feed.changed(numbered(UNSTAMPED, 2))
            feed.changed(numbered(decided(POST), 3))
            feed.changed(numbered(POST, 3))
            await expect(tab.locator("#connection")).to_have_text("paused · 3 new")
            await expect(rows(tab)).to_have_count(1)
            await expect(tab.locator("#notices")).to_be_hidden()
            await tab.get_by_role("button", name="Go on").click()
            await expect(rows(tab)).to_have_count(3)
            await expect(row(tab, 1).locator(".c-status")).to_have_text("200")
            await expect(tab.locator("#notices")).to_be_visible()
            await expect(tab.locator("#connection")).to_have_text("live")

    chromium.play(scenario())


def test_one_exchange_opens_to_its_waterfall_its_headers_and_its_facts(chromium):
    async def scenario():
        async with served(replace(POST, connect_s=0.5)) as (page, _), chromium.tab(page.url) as tab:
            await row(tab, 1).click()
            parts = tab.locator("#detail .waterfall").first.locator("li")
            await expect(parts).to_have_count(5)
            assert [await part.locator(".number").inner_text() for part in await parts.all()] == [
                "500 ms", "30 ms", "20 ms", "950 ms", "2.00 s",
            ]  # fmt: skip
            boxes = [await part.locator(".bar").bounding_box() for part in await parts.all()]
            lane = await parts.first.locator(".lane").bounding_box()
            # On one time axis of 3.5 s: each begins where the one before ends.
            assert boxes[3]["width"] / lane["width"] == pytest.approx(0.95 / 3.5, abs=0.01)
            assert boxes[4]["x"] == pytest.approx(boxes[3]["x"] + boxes[3]["width"], abs=1.5)
            assert boxes[4]["x"] + boxes[4]["width"] == pytest.approx(lane["x"] + lane["width"], abs=1.5)
            detail = tab.locator("#detail")
            await expect(detail.locator(".headers").first).to_contain_text("Bearer [redacted 9 bytes #0123456789ab]")
            await expect(detail.locator(".headers").nth(1)).to_contain_text("text/event-stream")
            await expect(detail.locator(".facts").first).to_contain_text("2048 bytes (never kept)")
            await expect(detail).to_contain_text("a run with --bodies shows it here")
            await detail.get_by_role("button", name="Close").click()
            await expect(detail).to_be_hidden()

    chromium.play(scenario())


def test_what_was_carried_is_shown_with_the_turns_in_it(chromium, tmp_path):
    async def scenario():
        with captured(tmp_path, bodies=True) as log:
            socket_with_turn(log)
        async with CaptureSource(tmp_path, None) as source, LivePage(source) as page, chromium.tab(page.url) as tab:
            await row(tab, 1).click()
            detail = tab.locator("#detail")
            await expect(detail.locator(".verdict")).to_contain_text("Its only turn took")
            await expect(detail.locator(".thread li")).to_contain_text("a-model · completed · 7 in, 2 out")
            await expect(detail.locator(".events code")).to_have_text(
                ["response.create", "response.created", "response.output_text.delta × 2", "response.completed"]
            )
            await expect(detail.locator(".events pre").nth(2)).to_be_hidden()
            await detail.get_by_text("response.output_text.delta").click()
            await expect(detail.locator(".events pre").nth(2)).to_have_text("Hello")
            await expect(detail.locator(".direction")).to_have_text(["↑", "↓", "↓", "↓"])

    chromium.play(scenario())


def test_an_open_detail_goes_on_with_its_exchange(chromium):
    async def scenario():
        async with served(replace(decided(POST), sent_s=0.05)) as (page, feed), chromium.tab(page.url) as tab:
            await row(tab, 1).click()
            detail = tab.locator("#detail")
            await expect(detail).to_contain_text("upstream has not begun to answer.")
            await detail.get_by_text("Request headers").click()  # folded, and it stays so
            feed.changed(POST)
            await expect(detail).to_contain_text("Receiving the answer: 67 % of the 3.00 s that it took")
            await expect(detail.locator(".headers").first).to_be_hidden()

    chromium.play(scenario())


def test_everything_can_be_done_with_the_keyboard(chromium):
    async def scenario():
        async with served(*SORTS) as (page, _), chromium.tab(page.url) as tab:
            await expect(rows(tab)).to_have_count(8)
            selected = tab.locator('#rows tr[aria-selected="true"]')
            for key, number in [
                ("j", 8),
                ("j", 7),
                ("ArrowDown", 6),
                ("k", 7),
                ("End", 1),
                ("Home", 8),
                ("ArrowUp", 8),
            ]:
                await tab.keyboard.press(key)
                await expect(selected).to_have_attribute("data-number", str(number))
                await expect(selected).to_be_focused()
            await tab.keyboard.press("Enter")
            await expect(tab.locator("#detail h2")).to_contain_text("#8")
            await tab.keyboard.press("j")  # the open one follows
            await expect(tab.locator("#detail h2")).to_contain_text("#7")
            await tab.keyboard.press("Escape")
            await expect(tab.locator("#detail")).to_be_hidden()
            await expect(row(tab, 7)).to_be_focused()
            await tab.keyboard.press("/")
            await expect(tab.locator("#filter")).to_be_focused()
            await tab.keyboard.type("jp?x")  # keys are letters there
            await expect(tab.locator("#filter")).to_have_value("jp?x")
            await tab.keyboard.press("Escape")
            await expect(tab.locator("#filter")).to_have_value("")
            await tab.keyboard.press("x")
            await expect(rows(tab)).to_have_count(3)
            await tab.keyboard.press("Escape")
            await tab.keyboard.press("s")
            await expect(rows(tab)).to_have_count(6)
            await tab.keyboard.press("?")
            await expect(tab.get_by_role("dialog")).to_be_visible()
            await tab.keyboard.press("Escape")
            await expect(tab.get_by_role("dialog")).to_be_hidden()

    chromium.play(scenario())


def test_the_har_is_downloaded_with_the_token(chromium, tmp_path):
    async def scenario():
        async with served(*SORTS, run_name="20261122T231001Z-4f2a") as (page, _), chromium.tab(page.url) as tab:
            await expect(rows(tab)).to_have_count(8)
            async with tab.expect_download() as waiting:
                await tab.get_by_role("button", name="Download HAR").click()
            download = await waiting.value
            assert download.suggested_filename == "countersign-20261122T231001Z-4f2a.har"
            await download.save_as(tmp_path / "run.har")

    chromium.play(scenario())
    content = json.loads((tmp_path / "run.har").read_text())
    assert (content["log"]["version"], len(content["log"]["entries"])) == ("1.2", 8)
