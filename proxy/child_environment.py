"""What a child process is given so that it goes through the proxy, and trusts it. Pure."""

from collections.abc import Iterable, Mapping

_NOT_PROXIED = ("localhost", "127.0.0.1", "::1")


def child_environment(
    url: str, bundle: str, node_bundle: str, scoped_hosts: Iterable[str], own: Mapping[str, str]
) -> dict[str, str]:
    """The variables to set on top of `own`, the environment that the child would have had.

    Args:
        url: The proxy's, with its credentials.
        bundle: A PEM file with all that a child may trust.
        node_bundle: The same for Node, which adds it to roots of its own.
        scoped_hosts: Those that must not go around the proxy, whatever the user excepted from proxying.
    """
    not_proxied = ",".join((*_NOT_PROXIED, *_excepted(tuple(scoped_hosts), own)))
    return {
        "HTTPS_PROXY": url,
        "https_proxy": url,
        "NO_PROXY": not_proxied,
        "no_proxy": not_proxied,
        "CODEX_CA_CERTIFICATE": bundle,
        "SSL_CERT_FILE": bundle,
        "REQUESTS_CA_BUNDLE": bundle,
        "CURL_CA_BUNDLE": bundle,
        "NODE_EXTRA_CA_CERTS": node_bundle,
    }


def _excepted(scoped_hosts: tuple[str, ...], own: Mapping[str, str]) -> list[str]:
    """The user's own exceptions, in order, each once, but for those that would take in a scoped host."""
    listed = ",".join(own.get(name, "") for name in ("no_proxy", "NO_PROXY"))
    entries = dict.fromkeys(entry for entry in listed.replace(",", " ").split() if entry not in _NOT_PROXIED)
    return [entry for entry in entries if not any(_takes_in(entry, host) for host in scoped_hosts)]


def _takes_in(entry: str, host: str) -> bool:
    """Whether any client might read `entry` as `host`: "*", the host, a suffix of it with or without "." or "*."."""
    name = entry.lower().rsplit("@", 1)[-1].removeprefix("https://")
    if name.count(":") == 1:
        name = name.partition(":")[0]
    name = name.strip("*.")
    return not name or host == name or host.endswith("." + name)
