"""What counts as the same: messages and requests without what is allowed to differ (recordings.py)."""

import base64
import hashlib
import itertools
import re

from tests.agent.recordings import (
    ABOUT_US,
    AS_FAR_AS_FOUND,
    BAD_ARGUMENTS,
    ESTIMATED,
    FEATURE,
    NOT_COMPARED,
    NOT_THERE_YET,
    OUR_WORDS,
    OUTPUT_AS_IT_COMES,
    STAMPED_BY_US,
    STOPPED_COMMAND,
    TRUSTED_DIRECTORY,
    UNKNOWN_MODELS,
)

NOT_INITIALIZED = {"code": -32600, "message": "Not initialized"}


def normal_message(message, asked, name):
    """A message as it is compared; `asked` are the requests by id, `name` is the recording."""
    request = asked.get(message.get("id"), {})
    method = request.get("method")
    if method in NOT_THERE_YET and message != {"error": NOT_INITIALIZED, "id": message["id"]}:
        return {"id": message["id"], "not there yet": method}
    message = walked(message, short)
    if method == "model/list" and "result" in message:  # descriptions and offers are ours
        offered = [model["id"] for model in message["result"]["data"]]
        message["result"]["data"] = [slug for slug in offered if slug not in UNKNOWN_MODELS]
    if method in ABOUT_US and "result" in message:
        message["result"] = "about us"
    if method == "modelProvider/list":
        del message["result"]["canChangeDefault"]  # ours has no other
    if method == "account/rateLimits/read" and "error" in message:  # the original says what the backend said
        message["error"]["message"] = message["error"]["message"].partition(";")[0]
    if method == "thread/start" and "result" in message:
        if (name, message["id"]) in TRUSTED_DIRECTORY:
            del message["result"]["sandbox"], message["result"]["activePermissionProfile"]
    match message.get("method"):
        case "thread/tokenUsage/updated" if name in ESTIMATED:
            if not message["params"]["tokenUsage"]["last"]["inputTokens"]:
                message["params"]["tokenUsage"]["last"]["totalTokens"] = "<an estimate>"
        case "warning":
            message["params"]["message"] = message["params"]["message"].partition(". ")[0]
        case "error":
            in_our_words(message["params"]["error"])
        case "turn/completed" if message["params"]["turn"]["error"] is not None:
            in_our_words(message["params"]["turn"]["error"])
    return message


def compared(messages):
    left_out = {*NOT_COMPARED, *AS_FAR_AS_FOUND, "attestation/generate", OUTPUT_AS_IT_COMES}
    told = [message for message in messages if message.get("method") not in left_out and not of_a_feature(message)]
    told = goal_begins_at_once([message for message in told if not is_stopped_command(message)])
    # The original tells the diff of a turn again after each count of tokens; we tell it when it has changed.
    diffs = [message for message in told if message.get("method") == "turn/diff/updated"]
    again = [two for one, two in itertools.pairwise(diffs) if one["params"] == two["params"]]
    return in_one_piece([message for message in told if not any(message is one for one in again)])


def goal_begins_at_once(messages):
    """The begin of a goal's turn directly behind the news of the goal: what is heard in between is a matter of time."""
    methods = [message.get("method") for message in messages]
    if "thread/goal/updated" not in methods:
        return messages
    goal = methods.index("thread/goal/updated")
    if "turn/started" not in methods[goal:]:
        return messages
    begins = methods.index("turn/started", goal)
    begin = messages[begins - 1 : begins + 1]  # the status, and the turn
    return [*messages[: goal + 1], *begin, *messages[goal + 1 : begins - 1], *messages[begins + 1 :]]


def is_stopped_command(message):
    """The end of a user's command that its thread was put away under: the original says nothing of it."""
    if message.get("method") != "item/completed" or not is_command(message):
        return False
    return message["params"]["item"]["aggregatedOutput"] == STOPPED_COMMAND


def in_one_piece(messages):
    """What a streamed command said without a pause, as one: into how many pieces it falls is a matter of time."""
    joined = []
    for message in messages:
        last = joined[-1] if joined else {}
        if message.get("method") == last.get("method") == "command/exec/outputDelta":
            params, before = message["params"], last["params"]
            if (params["processId"], params["stream"]) == (before["processId"], before["stream"]):
                said = b"".join(base64.b64decode(one["deltaBase64"]) for one in (before, params))
                joined[-1] = {**last, "params": {**params, "deltaBase64": base64.b64encode(said).decode()}}
                continue
        joined.append(message)
    return joined


def of_a_feature(message):
    return message.get("method") == "warning" and message["params"]["message"].startswith(FEATURE)


def tokens_asked(messages):
    return [one for one in messages if one.get("method") == "attestation/generate"]


def is_command(message):
    return message.get("params", {}).get("item", {}).get("type") == "commandExecution"


def processes(messages):
    """The numbers of the commands that a client was shown, in order."""
    begun = [one["params"]["item"] for one in messages if one.get("method") == "item/started" and is_command(one)]
    return [item["processId"] for item in begun if item["processId"] is not None]


TIMES = {
    "<unix-ms>": ("emittedAtMs", "startedAtMs", "completedAtMs", "modifiedAtMs"),
    "<unix-s>": ("startedAt", "completedAt", "createdAt", "updatedAt", "recencyAt"),
    "<ms>": ("durationMs",),
}
PLACEHOLDERS = {name: placeholder for placeholder, names in TIMES.items() for name in names}


def walked(value, leaf, name=""):
    if isinstance(value, dict):
        return {key: walked(one, leaf, key) for key, one in value.items()}
    if isinstance(value, list):
        return [walked(one, leaf, name) for one in value]
    return leaf(name, value)


def short(name, value):
    """Times as placeholders, and long texts as the recordings keep them."""
    if name == "processId" and value is not None:
        return "<pid>"
    if name == "sha" and isinstance(value, str):
        return "<sha>"
    if name in PLACEHOLDERS and isinstance(value, int):
        return PLACEHOLDERS[name]
    if isinstance(value, str) and value.startswith('{"requestedThreadId"'):
        return "<cursor>"
    if name in ("nextCursor", "backwardsCursor") and isinstance(value, str):
        value = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "<iso-time>", value)
    if isinstance(value, str) and len(value) > 700:
        digest = hashlib.sha256(value.encode()).hexdigest()[:12]
        return f"<<elided {len(value)} chars sha256={digest}: {value[:80]}...>>"
    return value


def in_our_words(error):
    if not error["message"].startswith("Reconnecting... "):
        error["message"] = OUR_WORDS
    if error["additionalDetails"] is not None:
        error["additionalDetails"] = OUR_WORDS


def essentials(kind, path, headers, body):
    """What must be the same of a request that reached the backend: its instructions, tools and metadata are ours."""
    given = {name.lower(): value for name, value in headers.items()}
    essence = {"kind": kind, "path": path}
    if kind != "ws-message":
        essence["attestation"] = given.get("x-oai-attestation")
        essence["account"] = given.get("chatgpt-account-id")
        essence["encoding"] = given.get("content-encoding")
    if isinstance(body, dict) and "input" in body:
        essence["continues"] = body.get("previous_response_id")
        essence["generate"] = body.get("generate", True)
        essence["model"] = body["model"]
        essence["effort"] = body["reasoning"]["effort"]
        said = [brief(item) for item in body["input"]]
        if essence["generate"]:
            essence["input"] = [one for one in said if not one.startswith(OUR_OWN)]
    return essence


def without_what_differs(essences, name):
    left_out = {"attestation"} if name in STAMPED_BY_US else set()
    return [{key: value for key, value in one.items() if key not in left_out} for one in essences]


# Each has instructions and context of its own.
OUR_OWN = ("additional_tools", "developer", "context")


def brief(item):
    if item["type"] == "function_call_output" and str(item["output"]).startswith(BAD_ARGUMENTS):
        return f"function_call_output: {BAD_ARGUMENTS}"
    if item["type"] != "message":
        output = re.sub(r"Chunk ID: \S+", "Chunk ID: <hex>", str(item.get("output", "")))
        output = re.sub(r"Wall time: \S+", "Wall time: <secs>", output)
        return f"{item['type']}: {re.sub(r'session ID [0-9]+', 'session ID <pid>', output)}"
    text = "".join(part.get("text", "") for part in item["content"])
    if text.startswith(("<environment_context>", "<codex_internal_context", "<<elided")):
        return "context"
    if text.startswith("<turn_aborted>"):
        return "turn aborted"
    if text.startswith(("<user_action>", "<review>")):
        return "review"
    return f"{item['role']}: {text}" if item["role"] != "developer" else "developer"
