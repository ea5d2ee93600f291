"""Which recordings of the original are replayed, and every difference from them that is allowed, with its reason.

The recordings lie beside the checkout (CI has them).
"""

import json
from pathlib import Path

GOLDENS = Path(__file__).parents[3] / "shared/protocol/goldens"

# Differences in what the client is sent

# Not sent by the parts that are under test here: the first two are the app's (tests/e2e), the third has nothing behind
# it (we have no MCP servers yet).
NOT_COMPARED = {
    *("remoteControl/status/changed", "account/updated", "mcpServer/startupStatus/updated"),
    # What comes of methods that we do not have.
    *("fs/changed", "process/outputDelta", "process/exited"),
}
# Answered with METHOD_NOT_SUPPORTED until we have them (docs/differences.md).
NOT_THERE_YET = {
    *("skills/list", "hooks/list", "app/list", "mcpServerStatus/list", "plugin/list", "marketplace/add"),
    *("modelProvider/capabilities/read", "account/usage/read", "collaborationMode/list", "remoteControl/status/read"),
    *("server/diagnostics", "environment/info", "config/value/write", "config/batchWrite", "fs/watch", "fs/unwatch"),
    "process/spawn",
}
# Answers about ourselves: that there is one is compared here, and its shape by the schema. `config/read` is compared in
# tests/agent/rpc/test_config_methods.py.
ABOUT_US = {"config/read", "experimentalFeature/list"}
# Models that the original knows and does not offer; we do not know them.
UNKNOWN_MODELS = {"gpt-daybreak-blue-latest", "gpt-daybreak-red-latest", "codex-auto-review"}
# The texts of model failures are ours, with the same codes: only that there is one is compared.
OUR_WORDS = "<a text>"
# The original trusts a directory for good once a thread could write there: the next thread may write by default.
TRUSTED_DIRECTORY = {("thread_start_options", 5), ("thread_list", 4), ("thread_lifecycle", 33)}
# The recording was made with a feature that one of its own warnings tells of.
FEATURE = "Under-development features enabled"
# The original shows nothing of a command that fails at once because of the sandbox, and shows all others (3 of 3 runs);
# we show each.
QUICKLY_DENIED = {"tool_exec_sandbox_denied"}
# Of threads that were begun last the original had warmed nothing when it was stopped.
STOPPED_EARLY = {"thread_start_options", "thread_fork"}
# The original warms a thread that is taken up again, or forked, before anybody follows it: it has nobody to ask then.
STAMPED_BY_US = {
    *("thread_resume_restart", "thread_lifecycle", "thread_fork"),
    "thread_fork_model_change",
    *("review_start", "review_start_http"),  # it does not ask for its reviewer
    "attestation_disconnect",  # when the one who was asked is gone it asks nobody else
}
# What a user's command has said when it was stopped.
STOPPED_COMMAND = "command aborted by user"
# How full the window is after a compaction is an estimate, and our instructions are shorter.
ESTIMATED = {"compact_v2_ws", "compact_v1", "compact_auto", "thread_fork_model_change"}

# Differences in what the backend is sent

# Recordings with another number of questions for a token.
OTHER_QUESTIONS = {
    "retry_exhausted_http500",  # the original sends the token of a failed POST again
    *STOPPED_EARLY,
    *STAMPED_BY_US,
}
# What is wrong with the arguments of a call is told in the words of another parser.
BAD_ARGUMENTS = "failed to parse function arguments: "


def provider(**changes):
    """The model provider that a recording was made with, but where the service is: only there a token is sent."""
    table = {"name": "Other", "base_url": "https://chatgpt.com/backend-api/codex", "requires_openai_auth": True}
    return {"config": {"model_provider": "fake", "model_providers": {"fake": table | changes}}}


RECORDED = {
    "plain_turn_ws": {},
    "plain_turn_http": {},
    "plain_turn_http_classic": {},
    "err_401_refresh_fails": {},
    "err_http_400": {},
    "err_http_401_refresh": {},
    "err_http_429_usage": {},
    "err_http_cut_midway": {},
    "err_response_failed": {},
    "err_response_failed_context": {},
    "err_ws_429_usage": {},
    "err_ws_500": {},
    "err_ws_cut_midway": {},
    "err_ws_handshake_401": {},
    "err_ws_handshake_500": {},
    "idle_timeout_http": provider(stream_idle_timeout_ms=1000, stream_max_retries=2),
    "idle_timeout_ws": provider(stream_idle_timeout_ms=1000, stream_max_retries=2, supports_websockets=True),
    "turn_interrupt": {},
    "turn_steer": {},
    "turn_start_while_active": {},
    "thread_start_options": {},
    "initialize_ok": {},
    "initialize_errors": {},
    "initialize_no_experimental": {},
    "initialize_without_initialized": {},
    "account_read_none": {"account": None},
    "account_read_chatgpt": {},
    "retry_exhausted_http500": provider(request_max_retries=2, stream_max_retries=2),
    "retry_exhausted_ws": provider(stream_max_retries=2, supports_websockets=True),
    "ws_closed_between_turns": {},
    "tool_misc": {},
    "tool_local_shell_call": {},
    "tool_exec_fail_exit": {},
    "tool_exec_workspace_write": {},
    "tool_exec_sandbox_exit3": {},
    "tool_exec_sandbox_ok_slow": {},
    "tool_exec_sandbox_denied_slow": {},
    "tool_exec_on_request_accept": {},
    "tool_exec_on_request_decline": {},
    "tool_exec_on_request_cancel": {},
    "tool_exec_approval_error_reply": {},
    "tool_exec_approval_never": {},
    "tool_exec_untrusted": {},
    "tool_exec_long_running": {},
    "tool_patch_approval_accept": {},
    "tool_patch_approval_decline": {},
    "tool_patch_workspace_write": {},
    "tool_dynamic": {},
    "tool_request_user_input": {},
    "turn_interrupt_approval": {},
    "ws_prewarm_then_tool": {},
    "turn_state_http": {},
    "thread_resume_restart": {},
    "thread_fork": {},
    "thread_list": {},
    "tool_exec_sandbox_denied": {},
    "two_clients_approval": {},
    "two_clients_ws": {},
    "compact_v2_ws": {},
    "compact_v2_bad": {},
    "compact_v1": {},
    "compact_auto": {},
    "thread_fork_model_change": {},
    "realtime_apikey_ws": {"account": "apikey"},
    "thread_lifecycle": {},
    "attestation_ok_ws": {},
    "attestation_ok_http": {},
    "attestation_80ms": {},
    "attestation_error": {},
    "attestation_malformed": {},
    "attestation_malformed_null": {},
    "attestation_malformed_type": {},
    "attestation_never": {},
    "attestation_no_capability": {},
    "attestation_timeout": {},
    "attestation_timeout_http": {},
    "attestation_disconnect": {},
    "attestation_apikey": {"account": "apikey"},
    "attestation_apikey_http": {"account": "apikey"},
    "command_exec": {},
    "config_read": {},
    "direct_custom_provider_http": provider(),
    "direct_custom_provider_other": provider(),
    "direct_custom_provider_ws": provider(supports_websockets=True),
    "fuzzy_file_search": {},
    "misc_requests": {},
    "model_list": {},
    "review_start": {},
    "review_start_http": {},
    "stdio_invalid_utf8": {},
    "stdio_no_newline_eof": {},
    "tool_web_search_item": {},
    "transport_unix": {},
    "turn_options": {},
}
# Compared by other tests.
ELSEWHERE = {
    "transport_ws": "tests/e2e/test_transports_recorded.py",
    "transport_ws_auth_raw": "tests/e2e/test_transports_recorded.py",
    "transport_ws_auth_jwt": "tests/e2e/test_transports_recorded.py",
    "transport_ws_auth_sha": "tests/e2e/test_transports_recorded.py",
    "transport_ws_auth_token": "tests/e2e/test_transports_recorded.py",
}
# What the original does there is not what we do: docs/differences.md says so to users.
NOT_REPLAYED = {
    "attestation_subagent": "there are no sub-agents yet",
    "attestation_subagent_http": "there are no sub-agents yet",
    "attestation_unicode_token": "a token that no header can hold is a failed attestation, not a failed handshake",
    "auth_expiring_token": "the token is refreshed when it is first needed, not before the first request",
    "auth_external_tokens": "a thread that was begun before the login is stamped too, and warmed once more",
    "direct_openai_base_url": (
        "only that the service could not be reached is in it; that a ChatGPT account's requests go there whatever "
        "openai_base_url says: tests/agent/model/test_providers.py"
    ),
    "direct_workspace_origin": "no other origin of the model service is taken from its answers: `--origin` names it",
    "mcp_tool_call": "there are no MCP servers yet",
    "mcp_tool_call_approval": "there are no MCP servers yet",
    "no_auth_turn": "without credentials nothing is sent, and the turn fails at once",
    "stamp_http": "another proxy than ours stamps",
    "stamp_ws": "another proxy than ours stamps",
    "stamp_ws_with_client": "another proxy than ours stamps",
    "stdio_eof_mid_turn": "how a process ends is not replayed here: tests/e2e/test_app_server.py",
    "tool_code_mode_exec": "there is no JavaScript engine",
    "tool_code_mode_patch": "there is no JavaScript engine",
    "transport_unix_default": "only a path: tests/e2e/test_transports.py listens there",
}
# Pieces of output come as they are read; the original keeps them back a while, and shows none of a quick command.
OUTPUT_AS_IT_COMES = "item/commandExecution/outputDelta"
# How often a search tells what it has found is a matter of time.
AS_FAR_AS_FOUND = {"fuzzyFileSearch/sessionUpdated", "fuzzyFileSearch/sessionCompleted"}


def recorded(name):
    lines = [json.loads(line) for line in (GOLDENS / f"{name}.jsonl").read_text("utf-8").splitlines()]
    return [line for line in lines if line.get("dir") in ("c>s", "s>c", "in", "out", "event")]
