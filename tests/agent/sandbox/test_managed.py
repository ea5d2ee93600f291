"""Which loopback ports the proxy variables name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.sandbox.managed import PROXY_VARIABLES, loopback_port, managed_ports
from agent.sandbox.plan import SandboxUnavailable
from agent.sandbox.policy import PolicyError

VARIABLES = [
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "WS_PROXY", "WSS_PROXY", "FTP_PROXY"),
    *("NPM_CONFIG_HTTP_PROXY", "NPM_CONFIG_HTTPS_PROXY", "NPM_CONFIG_PROXY", "YARN_HTTP_PROXY", "YARN_HTTPS_PROXY"),
    *("BUNDLE_HTTP_PROXY", "BUNDLE_HTTPS_PROXY", "PIP_PROXY", "DOCKER_HTTP_PROXY", "DOCKER_HTTPS_PROXY"),
]


@pytest.mark.parametrize("name", VARIABLES)
def test_each_proxy_variable_counts_in_any_case(name):
    for spelled in (name, name.lower(), name.title()):
        assert managed_ports("{}", {spelled: "http://127.0.0.1:3128"}) == (3128,)


def test_the_table_has_no_other_variable_and_none_like_it_counts():
    assert sorted(PROXY_VARIABLES) == sorted(name.lower() for name in VARIABLES)
    for name in ("NO_PROXY", "XHTTP_PROXY", "HTTP_PROXY_", "PROXY"):
        with pytest.raises(SandboxUnavailable, match="proxy environment variables that name a proxy on IPv4 loopback"):
            managed_ports("{}", {name: "http://127.0.0.1:3128"})


def test_the_agents_own_proxy_is_never_an_endpoint():
    """`countersign run` puts it into its child's environment, with the credentials."""
    own = {"HTTPS_PROXY": "http://countersign:secret@127.0.0.1:4000", "HTTP_PROXY": "http://127.0.0.1:3128"}
    with pytest.raises(SandboxUnavailable, match="HTTPS_PROXY names an agent's attesting proxy"):
        managed_ports("{}", own)
    with pytest.raises(SandboxUnavailable, match="HTTPS_PROXY names an agent's attesting proxy"):
        managed_ports("{}", {**own, "HTTPS_PROXY": " countersign:secret@127.0.0.1:4000/"})
    for other in ("http://me:secret@127.0.0.1:4000", "me:secret@127.0.0.1:4000", "127.0.0.1:4000/countersign:x@y"):
        assert managed_ports("{}", {**own, "HTTPS_PROXY": other}) == (3128, 4000)


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("http://127.0.0.1:3128", 3128),
        ("http://127.0.0.1:3128/", 3128),
        (" http://LOCALHOST:3128 ", 3128),
        ("http://[::1]:3128", None),
        ("http://user:secret@127.0.0.1:3128", 3128),
        ("http://us@er:se:cret@127.0.0.1:3128/x@y:1", 3128),
        ("127.0.0.1:3128", 3128),
        ("localhost", 80),
        ("http://127.0.0.1", 80),
        ("HTTPS://127.0.0.1", 443),
        ("socks5h://127.0.0.1", 1080),
        ("gopher://127.0.0.1", None),
        ("gopher://127.0.0.1:70", 70),
        ("http://127.0.0.1.example.com:3128", None),
        ("http://example.com:3128", None),
        ("http://127.0.0.1@example.com:3128", None),
        ("http://10.0.0.1:3128", None),
        ("http://127.0.0.1:0", None),
        ("http://127.0.0.1:65536", None),
        ("http://127.0.0.1:x", None),
        ("http://127.0.0.1:-1", None),
        ("http://127.0.0.1:³", None),
        ("", None),
    ],
)
def test_a_proxy_url_gives_the_port_it_has_on_loopback(url, port):
    assert loopback_port(url) == port


@given(st.text())
def test_no_value_of_a_variable_breaks_the_reading(url):
    port = loopback_port(url)
    assert port is None or 0 < port < 65536


def test_ports_are_sorted_and_named_once_and_one_elsewhere_is_left_out():
    environ = {"HTTPS_PROXY": "http://localhost:8080", "http_proxy": "http://127.0.0.1:3128", "FTP_PROXY": "h:1"}
    assert managed_ports("{}", {**environ, "ALL_PROXY": "socks5://[::1]:8080"}) == (3128, 8080)


def test_not_asked_for_is_none_whatever_the_variables_say():
    assert managed_ports(None, {"HTTP_PROXY": "http://127.0.0.1:3128"}) is None


@pytest.mark.parametrize(
    ("context", "text"), [("{", "not JSON"), ("[]", "not a JSON object"), ('{"allow": []}', "the member 'allow'")]
)
def test_a_context_that_says_something_else_is_refused(context, text):
    with pytest.raises(PolicyError, match=text):
        managed_ports(context, {"HTTP_PROXY": "http://127.0.0.1:3128"})
