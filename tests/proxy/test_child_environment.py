"""What a child process is given, and what it keeps of its own."""

import pytest

from proxy.child_environment import child_environment

HOSTS = ("chatgpt.com", "api.openai.com")


def given(**own):
    return child_environment("http://proxy", "/bundle.pem", "/node.pem", HOSTS, own)


def test_without_anything_of_its_own_only_loopback_is_not_proxied():
    assert given()["NO_PROXY"] == given()["no_proxy"] == "localhost,127.0.0.1,::1"


@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
def test_the_users_own_exceptions_stay(name):
    """They were once replaced, so a company's inner hosts went through the proxy, which refuses them."""
    child = given(**{name: "git.corp.example, .inner.example 10.0.0.0/8,localhost"})
    assert child["NO_PROXY"] == child["no_proxy"]
    assert child["NO_PROXY"] == "localhost,127.0.0.1,::1,git.corp.example,.inner.example,10.0.0.0/8"


def test_of_two_spellings_both_count():
    assert given(NO_PROXY="a.example", no_proxy="b.example")["NO_PROXY"].endswith("::1,b.example,a.example")


@pytest.mark.parametrize(
    "entry",
    [
        "*", "chatgpt.com", "ChatGPT.com", ".chatgpt.com", "*.chatgpt.com", "chatgpt.com:443", "com", ".com",
        "openai.com", "*.openai.com", "api.openai.com.", ".", "https://chatgpt.com",
    ],
)  # fmt: skip
def test_an_exception_that_takes_in_a_scoped_host_is_dropped(entry):
    assert given(NO_PROXY=f"a.example,{entry},b.example")["NO_PROXY"].endswith("::1,a.example,b.example")


@pytest.mark.parametrize("entry", ["a.chatgpt.com", "hatgpt.com", "mychatgpt.com", "auth.openai.com", "::2", "1.2.3.4"])
def test_one_that_does_not_stays(entry):
    """The negative control."""
    assert given(NO_PROXY=entry)["NO_PROXY"].endswith(f",{entry}")


def test_every_common_client_is_led_through_the_proxy_and_told_whom_to_trust():
    child = given(HTTPS_PROXY="http://elsewhere", SSL_CERT_FILE="/own.pem", NODE_EXTRA_CA_CERTS="/own-node.pem")
    assert child["HTTPS_PROXY"] == child["https_proxy"] == "http://proxy"
    for name in ("CODEX_CA_CERTIFICATE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        assert child[name] == "/bundle.pem"
    assert child["NODE_EXTRA_CA_CERTS"] == "/node.pem"
