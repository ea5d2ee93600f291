"""What proxy variables mean; the entries of NO_PROXY that codex goes by were measured with codex-cli 0.163."""

import pytest

from agent.doctor.findings import Level
from agent.doctor.proxy_variables import Bypass, bypass, bypassing, environment_findings, proxy_address
from proxy.child_environment import child_environment

HOSTS = ("chatgpt.com", "api.openai.com")


def findings(**environ):
    return environment_findings(environ, HOSTS)


def levels(**environ):
    return {finding.looked_at: finding.level for finding in findings(**environ)}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("http://proxy.corp:3128", "http://proxy.corp:3128"),
        ("proxy.corp:3128", "http://proxy.corp:3128"),
        ("HTTP://Proxy.Corp:3128/", "http://proxy.corp:3128"),
        ("socks5h://[::1]:1080", "socks5h://[::1]:1080"),
        ("http://proxy.corp", "http://proxy.corp"),
        ("http://user:s3cret@proxy.corp:3128", "http://proxy.corp:3128 (credentials not shown)"),
        ("user:s3cret@proxy.corp:3128", "http://proxy.corp:3128 (credentials not shown)"),
        ("http://s3cret@proxy.corp", "http://proxy.corp (credentials not shown)"),
        ("http://user:s3c@ret/more@proxy.corp:1", "http://proxy.corp:1 (credentials not shown)"),
        ("http://user:s3c\nret@proxy.corp:1", "http://proxy.corp:1 (credentials not shown)"),
    ],
)
def test_a_proxy_is_shown_without_its_credentials(value, shown):
    address = proxy_address(value)
    assert address.shown == shown
    assert "s3c" not in repr(address) + address.shown


@pytest.mark.parametrize(
    "value", ["", "s3cret", "http://", "http://user:s3cret", "http://a:0", "http://a:99999", "a b"]
)
def test_what_is_no_proxy_url_is_not_shown_at_all(value):
    assert proxy_address(value) is None
    told = str(findings(HTTPS_PROXY=value))
    assert "s3cret" not in told


@pytest.mark.parametrize(
    ("entry", "host", "readers"),
    [
        ("*", "chatgpt.com", Bypass.MOST),
        ("chatgpt.com", "chatgpt.com", Bypass.MOST),
        ("ChatGPT.com", "chatgpt.com", Bypass.MOST),
        (".chatgpt.com", "chatgpt.com", Bypass.MOST),
        ("com", "chatgpt.com", Bypass.MOST),
        (".openai.com", "api.openai.com", Bypass.MOST),
        ("chatgpt.com:443", "chatgpt.com", Bypass.MOST),
        ("chatgpt.com:80", "chatgpt.com", Bypass.SOME),
        ("*.chatgpt.com", "chatgpt.com", Bypass.SOME),
        ("chatgpt.com.", "chatgpt.com", Bypass.SOME),
        ("https://chatgpt.com", "chatgpt.com", Bypass.SOME),
        ("https://chatgpt.com:443", "chatgpt.com", Bypass.SOME),
        ("me@chatgpt.com", "chatgpt.com", Bypass.SOME),
        ("chatgpt.com", "api.openai.com", Bypass.NOBODY),
        ("notchatgpt.com", "chatgpt.com", Bypass.NOBODY),
        ("gpt.com", "chatgpt.com", Bypass.NOBODY),
        ("a.chatgpt.com", "chatgpt.com", Bypass.NOBODY),
        ("10.0.0.0/8", "chatgpt.com", Bypass.NOBODY),
        ("::1", "chatgpt.com", Bypass.NOBODY),
    ],
)
def test_who_reads_an_entry_as_a_host(entry, host, readers):
    assert bypass(entry, host) is readers


ENTRIES = ["*", "chatgpt.com", ".com", "*.chatgpt.com", "chatgpt.com:443", "api.openai.com", "corp.example", "10.1.2.3"]


@pytest.mark.parametrize("entry", ENTRIES)
def test_what_is_found_is_what_children_are_not_given(entry):
    kept = child_environment("", "", "", HOSTS, {"NO_PROXY": entry})["NO_PROXY"].split(",")
    assert (entry not in kept) is bool(bypassing(entry, HOSTS))


def test_a_blank_parts_entries_for_some_clients_only():
    assert bypassing("git.corp chatgpt.com", HOSTS) == [("chatgpt.com", Bypass.SOME)]
    assert bypassing("git.corp, chatgpt.com", HOSTS) == [("chatgpt.com", Bypass.MOST)]


def test_nothing_set_is_one_finding_and_fine():
    (finding,) = findings(PATH="/bin", HTTPS_PROXY="")
    assert finding.level is Level.OK


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"HTTPS_PROXY": "http://proxy.corp:3128"}, {"HTTPS_PROXY": Level.WARNING}),
        ({"https_proxy": "http://127.0.0.1:8080"}, {"https_proxy": Level.OK}),
        ({"HTTPS_PROXY": "nonsense"}, {"HTTPS_PROXY": Level.WARNING}),
        ({"HTTP_PROXY": "http://p:1", "all_proxy": "http://p:1"}, {"HTTP_PROXY": Level.NOTE, "all_proxy": Level.NOTE}),
        ({"wss_proxy": "http://p:1"}, {"wss_proxy": Level.WARNING}),
        ({"SOCKS_PROXY": "socks5://p:1"}, {"SOCKS_PROXY": Level.WARNING}),
        (
            {"HTTPS_PROXY": "http://127.0.0.1:1", "https_proxy": "http://127.0.0.1:2"},
            {"HTTPS_PROXY": Level.OK, "https_proxy": Level.OK, "HTTPS_PROXY and https_proxy": Level.WARNING},
        ),
    ],
)
def test_what_each_proxy_variable_means(environ, expected):
    assert levels(**environ) == expected


def test_an_exception_for_a_stamped_host_is_named_by_its_entry():
    (finding,) = [one for one in findings(NO_PROXY="localhost,.openai.com,corp") if one.looked_at == "NO_PROXY"]
    assert finding.level is Level.WARNING
    assert "'.openai.com'" in finding.found and "corp" not in finding.found
    assert "take '.openai.com' out of NO_PROXY" in finding.advice


def test_an_exception_for_other_hosts_is_fine():
    assert levels(NO_PROXY="localhost,127.0.0.1,corp.example")["NO_PROXY"] is Level.OK


def test_what_stands_before_an_at_sign_in_a_list_is_not_shown():
    told = str(findings(NO_PROXY="user:s3cret@chatgpt.com"))
    assert "'chatgpt.com'" in told and "s3cret" not in told


@pytest.mark.parametrize(
    ("name", "careless", "fine"),
    [("NODE_TLS_REJECT_UNAUTHORIZED", "0", "1"), ("GIT_SSL_NO_VERIFY", "true", "false"), ("SSLKEYLOGFILE", "/k", "")],
)
def test_a_switch_that_turns_protection_off_is_a_warning(name, careless, fine):
    assert levels(**{name: careless})[name] is Level.WARNING
    assert name not in levels(**{name: fine})
