"""Keys of config.toml that neither the original knows nor we do: typos, for the most part. Pure.

They are ignored, and clients are told so in the original's words (codex-cli 0.169). What the original knows and we have
no use for is not told of. Of tables, those are looked into that mean something here.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from agent.features import KNOWN as FEATURES

# The members of the original's answer to config/read.
KNOWN = tuple(
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
# What there may be in a table; "*" is any name. Of what is supported in none of them, as the original shows it.
TABLES: dict[tuple[str, ...], tuple[str, ...]] = {
    ("features",): FEATURES,
    ("model_providers", "*"): tuple(
        """
        name base_url model_catalog_url env_key env_key_instructions experimental_bearer_token auth gateway_oauth aws
        project_id location credential_file wire_api capabilities query_params http_headers env_http_headers
        request_max_retries stream_max_retries stream_idle_timeout_ms websocket_connect_timeout_ms
        requires_openai_auth supports_websockets supports_standalone_web_search
        """.split()
    ),
    ("permissions", "*"): tuple("description extends workspace_roots filesystem network".split()),
    ("permissions", "*", "network"): tuple(
        """
        enabled proxy_url enable_socks5 socks_url enable_socks5_udp allow_upstream_proxy
        dangerously_allow_non_loopback_proxy dangerously_allow_all_unix_sockets mode domains unix_sockets
        allow_local_binding mitm
        """.split()
    ),
    ("profiles", "*"): tuple(
        """
        model service_tier model_provider approval_policy approvals_reviewer sandbox_mode model_reasoning_effort
        plan_mode_reasoning_effort model_reasoning_summary model_verbosity model_catalog_json personality
        chatgpt_base_url model_instructions_file js_repl_node_path js_repl_node_module_dirs
        experimental_compact_prompt_file include_permissions_instructions include_apps_instructions
        include_collaboration_mode_instructions include_environment_context include_environment_context_time
        experimental_use_unified_exec_tool tools web_search analytics tui windows features oss_provider
        """.split()
    ),
    ("projects", "*"): ("trust_level",),
    ("sandbox_workspace_write",): tuple(
        "writable_roots network_access exclude_tmpdir_env_var exclude_slash_tmp".split()
    ),
    ("shell_environment_policy",): tuple(
        "inherit ignore_default_excludes exclude set include_only filters experimental_use_profile".split()
    ),
}
# As many are named.
_MOST_NAMED = 3


def unknown_keys(config: Mapping[str, Any]) -> list[str]:
    """Their dotted names, sorted."""
    known = {*KNOWN, _OURS}
    found = [name for name in config if name not in known]
    for place, members in TABLES.items():
        for path, table in _tables(config, place):
            found += [f"{path}{name}" for name in table if name not in members]
    return sorted(found)


def _tables(within: Any, place: tuple[str, ...], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The tables at a place, each with its dotted path."""
    if not isinstance(within, Mapping):
        return
    if not place:
        yield path, within
        return
    for name in within if place[0] == "*" else {place[0]} & within.keys():
        yield from _tables(within[name], place[1:], f"{path}{name}.")


def notice_of_request(wanted: Mapping[str, Any]) -> str | None:
    """What a client is told of the `config` of its request."""
    return notice_of_unknown(wanted, wanted, "")


def notice_of_unknown(config: Mapping[str, Any], flags: Mapping[str, Any], path: str) -> str | None:
    """What clients are told; None if there is nothing to tell.

    Args:
        config: With the overrides of the command line.
        flags: These overrides alone.
        path: Of config.toml.
    """
    of_flags = set(unknown_keys(flags))
    names = unknown_keys(config)
    lines = [f"  session-flags: `{name}` is ignored." for name in names if name in of_flags]
    lines += [f"  user ({path}): `{name}` is ignored." for name in names if name not in of_flags]
    if not lines:
        return None
    more = len(lines) - _MOST_NAMED
    settings = "setting" if len(lines) == 1 else "settings"
    first = f"Codex is ignoring {len(lines)} unrecognized configuration {settings}. "
    rest = [f"  ... and {more} more ignored settings."] if more > 0 else []
    return "\n".join([first + "Check for typos or deprecated settings.", *lines[:_MOST_NAMED], *rest])
