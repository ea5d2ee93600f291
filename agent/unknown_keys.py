"""Keys of config.toml that neither the original knows nor we do: typos, for the most part. Pure.

They are ignored, and clients are told so in the original's words (codex-cli 0.169). What the original knows and we have
no use for is not told of. Of tables, only `sandbox_workspace_write` is looked into.
"""

from collections.abc import Mapping
from typing import Any

# The members of the original's answer to config/read.
_KNOWN = frozenset(
    """
    agents allow_login_shell allow_symlinked_codex_home analytics approval_policy approvals_reviewer apps
    apps_mcp_product_sku audio auto_review background_terminal_max_timeout browser_use chatgpt_base_url
    check_for_update_on_startup cli_auth_credentials_store client_search_provider cloud compact_prompt computer_use
    daybreak default_permissions desktop developer_instructions disable_paste_burst experimental_compact_prompt_file
    experimental_realtime_start_instructions experimental_realtime_webrtc_call_base_url
    experimental_realtime_ws_backend_prompt experimental_realtime_ws_base_url experimental_realtime_ws_model
    experimental_realtime_ws_startup_context experimental_thread_store experimental_thread_store_endpoint
    experimental_use_unified_exec_tool features feedback file_opener forced_chatgpt_workspace_id forced_login_method
    ghost_snapshot goals hide_agent_reasoning history hooks include_apps_instructions
    include_collaboration_mode_instructions include_environment_context include_environment_context_time
    include_permissions_instructions instructions js_repl_node_module_dirs js_repl_node_path log_dir marketplaces
    mcp_enterprise_managed_auth mcp_oauth_callback_port mcp_oauth_callback_url mcp_oauth_credentials_store
    mcp_optional_startup_grace_ms mcp_servers memories model model_auto_compact_token_limit
    model_auto_compact_token_limit_scope model_catalog_json model_context_window model_instructions_file
    model_post_turn_compact_threshold_percent model_provider model_providers model_reasoning_effort
    model_reasoning_summary model_verbosity notice notify openai_base_url orchestrator oss_provider otel permissions
    personality plan_mode_reasoning_effort plugins profile profiles project_doc_fallback_filenames
    project_doc_max_bytes project_root_markers projects realtime responses_api_metadata review_model sandbox_mode
    sandbox_workspace_write service_tier shell_environment_policy show_raw_agent_reasoning skills sqlite_home
    suppress_unstable_features_warning thread_unload_delay_secs tool_output_token_limit tool_suggest tools tui
    web_search windows
    """.split()
)
_OURS = "countersign"
_SANDBOX = "sandbox_workspace_write"
_OF_SANDBOX = frozenset(("writable_roots", "network_access", "exclude_tmpdir_env_var", "exclude_slash_tmp"))
# As many are named.
_MOST_NAMED = 3


def unknown_keys(config: Mapping[str, Any]) -> list[str]:
    """Their dotted names, sorted."""
    table = config.get(_SANDBOX)
    inner = [f"{_SANDBOX}.{name}" for name in table if name not in _OF_SANDBOX] if isinstance(table, Mapping) else []
    return sorted([*(name for name in config if name not in _KNOWN and name != _OURS), *inner])


def notice_of_unknown(config: Mapping[str, Any], flags: Mapping[str, Any], path: str) -> str | None:
    """What clients are told; None if there is nothing to tell.

    Args:
        config: With the overrides of the command line.
        flags: These overrides alone.
        path: Of config.toml.
    """
    of_flags = set(unknown_keys(flags))
    names = unknown_keys(config)
    lines = [f"  user ({path}): `{name}` is ignored." for name in names if name not in of_flags]
    lines += [f"  session-flags: `{name}` is ignored." for name in names if name in of_flags]
    if not lines:
        return None
    more = len(lines) - _MOST_NAMED
    settings = "setting" if len(lines) == 1 else "settings"
    first = f"Codex is ignoring {len(lines)} unrecognized configuration {settings}. "
    rest = [f"  ... and {more} more ignored settings."] if more > 0 else []
    return "\n".join([first + "Check for typos or deprecated settings.", *lines[:_MOST_NAMED], *rest])
