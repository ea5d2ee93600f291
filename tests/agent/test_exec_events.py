"""What `exec --json` prints."""

from agent.exec_events import ExecEvents


def command(item_id, **more):
    item = {"type": "commandExecution", "id": item_id, "command": "true", "aggregatedOutput": None, "exitCode": None}
    return {"item": {**item, "status": "inProgress", **more}}


def numbers(*told):
    events = ExecEvents()
    return [event["item"]["id"] for method, params in told for event in events.of(method, params)]


def test_an_item_keeps_its_number_and_the_next_one_has_another_also_under_the_same_id():
    """A model that used one id for each of its calls had all of them shown as one item."""
    assert numbers(
        ("item/started", command("c1")),
        ("item/started", command("c2")),
        ("item/completed", command("c1")),
        ("item/completed", command("c2")),
        ("item/started", command("c1")),
        ("item/completed", command("c1")),
    ) == ["item_0", "item_1", "item_0", "item_1", "item_2", "item_2"]


def test_a_search_keeps_its_own_id_and_counts():
    """As in the original; the official SDK has such items, and they were left out."""

    def search(action):
        return {"item": {"type": "webSearch", "id": "ws_1", "query": "cats", "action": action, "results": None}}

    events = ExecEvents()
    (begun,) = events.of("item/started", search({"type": "search", "query": "cats", "queries": None}))
    action = {"type": "search", "query": "cats"}
    assert begun == {
        "type": "item.started",
        "item": {"id": "ws_1", "type": "web_search", "query": "cats", "action": action},
    }
    (done,) = events.of("item/completed", search({"type": "openPage", "url": "https://a"}))
    assert (done["type"], done["item"]["action"]) == ("item.completed", {"type": "open_page", "url": "https://a"})
    (after,) = events.of("item/started", command("c1"))
    assert after["item"]["id"] == "item_1"


def test_the_usage_has_all_members_of_the_original():
    events = ExecEvents()
    total = {
        "totalTokens": 15,
        "inputTokens": 1,
        "cachedInputTokens": 2,
        "cacheWriteInputTokens": 3,
        "outputTokens": 4,
        "reasoningOutputTokens": 5,
    }
    list(events.of("thread/tokenUsage/updated", {"tokenUsage": {"total": total}}))
    (end,) = events.of("turn/completed", {"turn": {"status": "completed"}})

    assert end == {
        "type": "turn.completed",
        "usage": {
            "input_tokens": 1,
            "cached_input_tokens": 2,
            "cache_write_input_tokens": 3,
            "output_tokens": 4,
            "reasoning_output_tokens": 5,
        },
    }
    (nothing,) = ExecEvents().of("turn/completed", {"turn": {"status": "completed"}})
    assert set(nothing["usage"].values()) == {0}
