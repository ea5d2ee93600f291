"""The parameters of the methods, refused in the words of the original's parser.

The texts were seen of codex-cli 0.169.0 (goldens initialize_errors, initialize_no_experimental) and, where no golden
has them, of the 0.163.0 that is installed with the tests.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.rpc.jsonrpc import MISSING
from agent.rpc.messages import AccountRead, ModelList, ThreadStart, TurnInterrupt, TurnStart, TurnSteer
from agent.rpc.serde_text import InvalidParams

ALL = (AccountRead, ModelList, ThreadStart, TurnStart, TurnSteer, TurnInterrupt)
INPUTS = "`text`, `image`, `localImage`, `audio`, `localAudio`, `skill`, `mention`"
POLICIES = "`untrusted`, `on-request`, `granular`, `never`"

GRANULAR = {"sandbox_approval": True, "rules": True, "mcp_elicitations": True}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KNOWN = st.sampled_from(
    [
        "threadId",
        "turnId",
        "expectedTurnId",
        "input",
        "cwd",
        "model",
        "approvalPolicy",
        "sandbox",
        "sandboxPolicy",
        "summary",
        "config",
        "limit",
        "cursor",
        "refreshToken",
        "outputSchema",
        "dynamicTools",
    ]
)
GIVEN_INPUT = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image", "localImage", "audio", "skill", "mention", 0, 6, 7]) | JSON},
    optional={"text": JSON, "url": JSON, "fileId": JSON, "path": JSON, "name": JSON, "detail": JSON},
)


def refusal(parse, value):
    with pytest.raises(InvalidParams) as refused:
        parse(value)
    return str(refused.value)


def turn(given={"type": "text", "text": ""}, **more):  # noqa: B006 (read only)
    return TurnStart.parse({"threadId": "t", "input": [given], **more})


# What all have in common


@pytest.mark.parametrize("message", ALL)
def test_parameters_must_be_there_and_be_an_object(message):
    assert refusal(message.parse, MISSING) == refusal(message.parse, None) == "missing field `params`"
    assert refusal(message.parse, 5).startswith("invalid type: integer `5`, expected struct ")
    assert refusal(message.parse, []).startswith("invalid length 0, expected struct ")


@pytest.mark.parametrize("message", ALL)
@given(st.dictionaries(KNOWN | st.text(max_size=5), JSON | st.lists(GIVEN_INPUT, max_size=2), max_size=5) | JSON)
def test_no_parameters_raise_anything_else(message, value):
    try:
        message.parse(value)
    except InvalidParams as exc:
        assert str(exc)


def test_members_that_nobody_knows_are_passed_over():
    assert ThreadStart.parse({"future": 1}) == ThreadStart.parse({})
    assert TurnInterrupt.parse({"threadId": "t", "turnId": "u", "future": []}) == TurnInterrupt("t", "u")


@pytest.mark.parametrize(
    "message, value, missing",
    [
        (TurnStart, {}, "threadId"),
        (TurnStart, {"threadId": "t"}, "input"),
        (TurnSteer, {"threadId": "t", "input": []}, "expectedTurnId"),
        (TurnSteer, {}, "threadId"),
        (TurnInterrupt, {"threadId": "t"}, "turnId"),
        (TurnInterrupt, {"turnId": "t"}, "threadId"),
    ],
)
def test_the_first_member_that_is_missing_is_named(message, value, missing):
    assert refusal(message.parse, value) == f"missing field `{missing}`"


def test_a_wrong_value_is_found_before_a_missing_member_and_in_the_order_of_the_client():
    """initialize_errors: the bogus input of an unknown thread."""
    bogus = [{"type": "bogus"}]

    assert refusal(TurnStart.parse, {"input": bogus}) == f"unknown variant `bogus`, expected one of {INPUTS}"
    assert "unknown variant" in refusal(TurnStart.parse, {"input": bogus, "threadId": 5})
    assert refusal(TurnStart.parse, {"threadId": 5, "input": bogus}) == "invalid type: integer `5`, expected a string"


# thread/start


@pytest.mark.parametrize(
    "params, text",
    [
        ({"cwd": 5}, "invalid type: integer `5`, expected a string"),
        ({"cwd": 1.5}, "invalid type: floating point `1.5`, expected a string"),
        ({"ephemeral": 5}, "invalid type: integer `5`, expected a boolean"),
        ({"config": [1]}, "invalid type: sequence, expected a map"),
        ({"config": 'a"b\\c\n\td\x01é\u200b'},
         r'invalid type: string "a\"b\\c\n\td\u{1}é\u{200b}", expected a map'),
        ({"serviceTier": 5}, "invalid type: integer `5`, expected a string"),
        ({"dynamicTools": 5}, "invalid type: integer `5`, expected a sequence"),
        ({"experimentalRawEvents": None}, "invalid type: null, expected a boolean"),
        ({"sandbox": 5}, "invalid type: integer `5`, expected string or map"),
        ({"sandbox": True}, "invalid type: boolean `true`, expected string or map"),
        ({"sandbox": ["x"]}, "invalid type: sequence, expected string or map"),
        ({"sandbox": {}}, "invalid value: map, expected map with a single key"),
        ({"sandbox": {"a": 1, "b": 2}}, "invalid value: map, expected map with a single key"),
        ({"sandbox": {"read-only": 5}}, "invalid type: integer `5`, expected unit"),
        ({"sandbox": 'a"b'},
         'unknown variant `a"b`, expected one of `read-only`, `workspace-write`, `danger-full-access`'),
        ({"sandbox": {"x": None}},
         "unknown variant `x`, expected one of `read-only`, `workspace-write`, `danger-full-access`"),
        ({"approvalPolicy": "bogus"}, f"unknown variant `bogus`, expected one of {POLICIES}"),
        ({"approvalPolicy": {"bogus": None}}, f"unknown variant `bogus`, expected one of {POLICIES}"),
        ({"approvalPolicy": 5}, "invalid type: integer `5`, expected string or map"),
        ({"approvalPolicy": ["x"]}, "invalid type: sequence, expected string or map"),
        ({"approvalPolicy": {}}, "invalid value: map, expected map with a single key"),
        ({"approvalPolicy": "granular"}, "invalid type: unit variant, expected struct variant"),
        ({"approvalPolicy": {"granular": {}}}, "missing field `sandbox_approval`"),
        ({"approvalPolicy": {"granular": {"rules": 1}}}, "invalid type: integer `1`, expected a boolean"),
        ({"approvalPolicy": {"granular": {**GRANULAR, "rules": None}}}, "invalid type: null, expected a boolean"),
        ({"approvalPolicy": {"granular": 5}}, "invalid type: integer `5`, expected struct variant"),
        ({"approvalPolicy": {"never": 5}}, "invalid type: integer `5`, expected unit"),
    ],
)  # fmt: skip
def test_what_a_thread_cannot_start_with(params, text):
    assert refusal(ThreadStart.parse, params) == text


@pytest.mark.parametrize(
    "params, policy",
    [
        ({}, None),
        ({"approvalPolicy": None}, None),
        ({"approvalPolicy": "never"}, "never"),
        ({"approvalPolicy": {"never": None}}, "never"),
        (
            {"approvalPolicy": {"granular": GRANULAR}},
            {"granular": {**GRANULAR, "skill_approval": False, "request_permissions": False}},
        ),
    ],
)
def test_an_approval_policy_is_a_name_or_a_granular_table(params, policy):
    assert ThreadStart.parse(params).approval_policy == policy


def test_a_sandbox_may_be_written_as_a_table_of_nothing():
    assert ThreadStart.parse({"sandbox": {"read-only": None}}).sandbox == "read-only"


def test_null_is_as_good_as_absent():
    names = ["cwd", "model", "modelProvider", "sandbox", "config", "baseInstructions", "ephemeral", "serviceTier"]

    assert ThreadStart.parse(dict.fromkeys(names)) == ThreadStart.parse({})


# turn/start, turn/steer


@pytest.mark.parametrize(
    "given, text",
    [
        (5, "invalid type: integer `5`, expected internally tagged enum UserInput"),
        ({}, "missing field `type`"),
        ({"type": "x"}, f"unknown variant `x`, expected one of {INPUTS}"),
        ({"type": None}, "invalid type: null, expected variant identifier"),
        ({"type": True}, "invalid type: boolean `true`, expected variant identifier"),
        ({"type": 1.5}, "invalid type: floating point `1.5`, expected variant identifier"),
        ({"type": -1}, "invalid type: integer `-1`, expected variant identifier"),
        ({"type": 7}, "invalid value: integer `7`, expected variant index 0 <= i < 7"),
        ({"type": 5}, "missing field `name`"),
        ({"type": "text"}, "missing field `text`"),
        ({"type": "text", "text": 5}, "invalid type: integer `5`, expected a string"),
        ({"type": "text", "text": "x", "text_elements": 5}, "invalid type: integer `5`, expected a sequence"),
        ({"type": "text", "text": "x", "text_elements": None}, "invalid type: null, expected a sequence"),
        ({"type": "image"}, "data did not match any variant of untagged enum ImageReference"),
        ({"type": "image", "url": None}, "data did not match any variant of untagged enum ImageReference"),
        ({"type": "image", "url": 5}, "data did not match any variant of untagged enum ImageReference"),
        ({"type": "image", "url": "x", "detail": 5}, "invalid type: integer `5`, expected string or map"),
        ({"type": "image", "url": "x", "detail": "bogus"},
         "unknown variant `bogus`, expected one of `auto`, `low`, `high`, `original`"),
        ({"type": "localImage", "path": "x", "detail": "bogus"},
         "unknown variant `bogus`, expected one of `auto`, `low`, `high`, `original`"),
        ({"type": "localImage"}, "missing field `path`"),
        ({"type": "mention", "name": "x"}, "missing field `path`"),
        ({"type": "skill", "path": "x"}, "missing field `name`"),
    ],
)  # fmt: skip
def test_what_a_user_cannot_say(given, text):
    assert refusal(turn, given) == text


@pytest.mark.parametrize(
    "given, taken",
    [
        ({"text": "x", "type": "text", "future": 1}, {"type": "text", "text": "x", "text_elements": []}),
        ({"type": 0, "text": "x"}, {"type": "text", "text": "x", "text_elements": []}),
        ({"type": "image", "url": "x", "fileId": 5}, {"type": "image", "url": "x", "detail": None}),
        ({"type": "image", "url": "x", "detail": None}, {"type": "image", "url": "x", "detail": None}),
        ({"type": "image", "fileId": "f"}, {"type": "image", "fileId": "f", "detail": None}),
        ({"type": "localImage", "path": "x"}, {"type": "localImage", "path": "x", "detail": None}),
        ({"type": "audio", "url": "x"}, {"type": "audio", "url": "x"}),
    ],
)
def test_what_a_user_says_is_taken_whole_with_its_type_first(given, taken):
    (one,) = turn(given).input

    assert one == taken and next(iter(one)) == "type"


@pytest.mark.parametrize(
    "more, text",
    [
        ({"summary": 5}, "invalid type: integer `5`, expected string or map"),
        ({"summary": "x"}, "unknown variant `x`, expected one of `auto`, `concise`, `detailed`, `none`"),
        ({"effort": 5}, "invalid type: integer `5`, expected a string"),
        ({"sandboxPolicy": 5}, "invalid type: integer `5`, expected internally tagged enum SandboxPolicyDeserialize"),
        ({"sandboxPolicy": {}}, "missing field `type`"),
        ({"sandboxPolicy": {"type": "x"}},
         "unknown variant `x`, expected one of `dangerFullAccess`, `readOnly`, `externalSandbox`, `workspaceWrite`"),
        ({"sandboxPolicy": {"type": 5}}, "invalid value: integer `5`, expected variant index 0 <= i < 4"),
    ],
)  # fmt: skip
def test_what_a_turn_cannot_be_overridden_with(more, text):
    assert refusal(lambda value: turn({"type": "text", "text": "x"}, **value), more) == text


def test_what_a_sandbox_policy_leaves_out_is_what_it_means():
    policy = {"writableRoots": ["/x"], "type": "workspaceWrite", "future": 1}

    assert turn({"type": 0, "text": ""}, sandboxPolicy=policy).sandbox_policy == {
        "type": "workspaceWrite",
        "writableRoots": ["/x"],
        "networkAccess": False,
        "excludeTmpdirEnvVar": False,
        "excludeSlashTmp": False,
    }
    assert turn(sandboxPolicy={"type": "externalSandbox"}).sandbox_policy["networkAccess"] == "restricted"


@pytest.mark.parametrize(
    "more, text",
    [
        ({"sandboxPolicy": {"type": "workspaceWrite", "writableRoots": ["rel"]}},
         "AbsolutePathBuf deserialized without a base path"),
        ({"sandboxPolicy": {"type": "workspaceWrite", "writableRoots": "x"}},
         'invalid type: string "x", expected a sequence'),
        ({"sandboxPolicy": {"type": "readOnly", "networkAccess": "enabled"}},
         'invalid type: string "enabled", expected a boolean'),
        ({"sandboxPolicy": {"type": "externalSandbox", "networkAccess": "x"}},
         "unknown variant `x`, expected `restricted` or `enabled`"),
        ({"effort": ""}, "reasoning_effort must not be empty"),
        ({"cwd": 5}, "invalid type: integer `5`, expected path string"),
        ({"personality": "zzz"}, "unknown variant `zzz`, expected one of `none`, `friendly`, `pragmatic`"),
        ({"runtimeWorkspaceRoots": ["rel"]}, "AbsolutePathBuf deserialized without a base path"),
        ({"additionalContext": 5}, "invalid type: integer `5`, expected a map"),
        ({"approvalsReviewer": "zz"},
         "unknown variant `zz`, expected one of `user`, `auto_review`, `guardian_subagent`"),
        ({"collaborationMode": {"mode": "bogus"}},
         "unknown variant `bogus`, expected one of `plan`, `code`, `custom`, `default`, `execute`, `pair_programming`"),
    ],
)  # fmt: skip
def test_settings_of_a_turn_that_do_not_fit_are_refused_in_the_words_of_the_original(more, text):
    """Compared with codex-cli 0.169.0; they were passed over, and a command ran under another policy than was asked."""
    with pytest.raises(InvalidParams) as refused:
        turn(**more)
    assert str(refused.value) == text


def test_the_settings_of_a_collaboration_mode_come_before_those_of_the_turn():
    settings = {"model": "gpt-5.5", "reasoning_effort": "low", "developer_instructions": None}
    taken = turn(collaborationMode={"mode": "default", "settings": settings}, model="gpt-5.4", effort="high")

    assert (taken.model, taken.effort) == ("gpt-5.5", "low")


def test_an_output_schema_is_any_json():
    assert turn({"type": 0, "text": ""}, outputSchema=5).output_schema == 5


# model/list, account/read


@pytest.mark.parametrize(
    "params, text",
    [
        ({"limit": -1}, "invalid value: integer `-1`, expected u32"),
        ({"limit": 2**32}, "invalid value: integer `4294967296`, expected u32"),
        ({"limit": 1.5}, "invalid type: floating point `1.5`, expected u32"),
        ({"limit": 1e100}, "invalid type: floating point `1e+100`, expected u32"),
        ({"limit": "x"}, 'invalid type: string "x", expected u32'),
        ({"limit": True}, "invalid type: boolean `true`, expected u32"),
        ({"includeHidden": 5}, "invalid type: integer `5`, expected a boolean"),
        ({"cursor": 5}, "invalid type: integer `5`, expected a string"),
    ],
)
def test_what_models_cannot_be_listed_with(params, text):
    assert refusal(ModelList.parse, params) == text


def test_a_refresh_is_asked_for_with_a_boolean_and_not_with_null():
    assert AccountRead.parse({}) == AccountRead(False)
    assert AccountRead.parse({"refreshToken": True}) == AccountRead(True)
    assert refusal(AccountRead.parse, {"refreshToken": None}) == "invalid type: null, expected a boolean"
