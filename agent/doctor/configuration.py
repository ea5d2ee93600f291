"""What config.toml and the settings of the proxy mean for scoped traffic. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from agent.doctor.findings import Finding, Topic
from agent.settings import ProxySettings
from proxy.modes import StampMode

# Keys of the original that move its requests; with either of them elsewhere no scoped request was seen (0.163).
_BASE_URLS = ("chatgpt_base_url", "openai_base_url")


@dataclass(frozen=True, slots=True)
class ConfigFacts:
    """config.toml with the overrides of the command line, and the proxy's settings that come of it.

    Args:
        exists: The file is there.
        problem: Why it cannot be used; empty if it can.
        position: (line, column) of what is wrong, from 1, where that is known.
        content: As plain data; empty if there is a problem.
        ignored: Sentences about what looks like a setting of ours and is none.
        settings: None where they cannot be used, with `setting_problem` saying why.
        unknown: Keys that nobody knows, and that are ignored.
        thread_problem: Why our app-server starts no thread with it; empty if it does.
        port_taken: Somebody listens on the port that is set for the proxy.
    """

    path: str
    exists: bool = False
    problem: str = ""
    position: tuple[int, int] | None = None
    content: Mapping[str, Any] = field(default_factory=dict, repr=False)
    ignored: tuple[str, ...] = ()
    settings: ProxySettings | None = None
    setting_problem: str = ""
    unknown: tuple[str, ...] = ()
    thread_problem: str = ""
    port_taken: bool = False


def config_findings(facts: ConfigFacts, hosts: Sequence[str]) -> list[Finding]:
    """Whether the file can be read, and what in it keeps requests from being stamped.

    Args:
        hosts: Those whose traffic is to be stamped.
    """
    looked_at = repr(facts.path)
    if facts.problem:
        place = looked_at if facts.position is None else f"{looked_at} line {facts.position[0]}"
        return [Topic.HOME.problem(place, facts.problem, "mend the file; nothing of it is read")]
    found = [Topic.HOME.warning(looked_at, sentence, "rename it, or take it out") for sentence in facts.ignored]
    if facts.unknown:
        names = ", ".join(f"`{name}`" for name in facts.unknown)
        advice = "look for misspelt keys; neither countersign nor Codex knows these"
        found.append(Topic.HOME.warning(looked_at, f"ignored: {names}", advice))
    if facts.setting_problem:
        advice = "mend the setting; countersign does not start with it"
        found.append(Topic.HOME.problem("proxy settings", facts.setting_problem, advice))
    if facts.thread_problem:
        advice = "mend the key; countersign app-server starts no thread with it"
        found.append(Topic.HOME.warning(looked_at, facts.thread_problem, advice))
    found += _route_findings(looked_at, facts.content, hosts)
    if facts.settings is not None:
        found += _setting_findings(facts.settings, facts.port_taken)
    if not found:
        text = "can be read, and moves no request" if facts.exists else "is not there; everything is as it comes"
        found.append(Topic.HOME.ok(looked_at, text))
    return found


def _route_findings(looked_at: str, content: Mapping[str, Any], hosts: Sequence[str]) -> list[Finding]:
    found = []
    for key in _BASE_URLS:
        url = content.get(key)
        if not isinstance(url, str) or (host := _host(url)) in hosts:
            continue
        to = "something that is no URL (not shown)" if host is None else repr(host)
        text = f"leads to {to}, which is not in scope: codex sends no request there that is stamped"
        advice = "remove the key, or name that origin with --origin if it is ChatGPT's back end under another name"
        found.append(Topic.HOME.problem(f"{looked_at}: {key}", text, advice))
    provider = content.get("model_provider", "openai")
    if provider != "openai" and not _leads_to_chatgpt(content, provider, hosts):
        text = f"is {provider!r}: its requests do not go to ChatGPT, so they are never stamped"
        advice = "remove the key, or set it to 'openai', where attestation is wanted"
        found.append(Topic.HOME.warning(f"{looked_at}: model_provider", text, advice))
    if content.get("sandbox_mode") == "danger-full-access":
        text = "is 'danger-full-access': commands run without a sandbox"
        advice = "set it to 'workspace-write', unless the machine itself is the sandbox"
        found.append(Topic.HOME.warning(f"{looked_at}: sandbox_mode", text, advice))
    return found


def _leads_to_chatgpt(content: Mapping[str, Any], provider: Any, hosts: Sequence[str]) -> bool:
    """Whether a provider of the user's own is the service by another name, as its budgets may need."""
    tables = content.get("model_providers")
    table = tables.get(provider) if isinstance(tables, Mapping) and isinstance(provider, str) else None
    if not isinstance(table, Mapping) or table.get("requires_openai_auth") is not True:
        return False
    url = table.get("base_url")
    return url is None or table.get("name") == "OpenAI" or (isinstance(url, str) and _host(url) in hosts)


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname or None
    except ValueError:
        return None


def _setting_findings(settings: ProxySettings, port_taken: bool) -> list[Finding]:
    found = []

    def warn(name: str, text: str, advice: str) -> None:
        found.append(Topic.HOME.warning(settings.sources.get(name, name), text, advice))

    if settings.stamp is StampMode.NEVER:
        warn("stamp", "is 'never': requests are only observed", "set it to 'always' where attestation is wanted")
    if "*" in settings.scope.allowed_hosts:
        warn("allow_hosts", "is '*': every host may be reached by way of the proxy", "name the hosts that are needed")
    if settings.upstream.addresses:
        names = ", ".join(str(target) for target in settings.upstream.addresses)
        warn("upstream_map", f"leads {names} elsewhere, which is for testing", "take it out to reach the real service")
    if port_taken:
        text = f"is {settings.port}, and somebody listens there already"
        advice = "stop that one, if it is not the proxy that you want to use, or set no port for any free one"
        warn("port", text, advice)
    return found
