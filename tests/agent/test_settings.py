import pytest

from agent.settings import NO_DEFAULTS, Config, SettingError, ignored_settings, proxy_settings
from proxy.credentials import Credentials
from proxy.modes import OnFailure, StampMode
from proxy.scope import DEFAULT_ALLOWED_HOSTS, Scope, Target
from proxy.upstream import UpstreamMap

PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"

# What the command line gives where nothing was said (argparse: vars of the namespace).
NO_FLAGS = {"origins": None, "allow_hosts": None, "upstream_map": None, "upstream_ca": None, "port": None,
            "rpc": None, "stamp": None, "on_failure": None, "verbose": 0, "overrides": []}  # fmt: skip
NO_CONFIG = Config({})
FILE = "/home/me/.codex/config.toml"


def from_flag(name, value):
    return proxy_settings({**NO_FLAGS, name: value}, {}, NO_CONFIG)


def from_environ(name, value):
    return proxy_settings(NO_FLAGS, {f"COUNTERSIGN_{name.upper()}": value}, NO_CONFIG)


def from_file(name, value):
    return proxy_settings(NO_FLAGS, {}, Config({"countersign": {name: value}}, path=FILE))


def test_without_anything_said_the_defaults_hold():
    settings = proxy_settings(NO_FLAGS, {}, NO_CONFIG)
    assert settings.scope == Scope.of()
    assert settings.upstream == UpstreamMap({})
    assert (settings.port, settings.credentials, settings.rpc) == (0, None, None)
    assert (settings.stamp, settings.on_failure) == (StampMode.ALWAYS, OnFailure.SEND)


# One setting: how each source writes it, its value, and where it is found in ProxySettings
CASES = {
    "port": ("8080", "8081", 8082, lambda s: s.port, [8080, 8081, 8082]),
    "stamp": ("always", "missing", "never", lambda s: s.stamp, [StampMode.ALWAYS, StampMode.MISSING, StampMode.NEVER]),
    "on_failure": (
        "refuse", "send", "refuse", lambda s: s.on_failure, [OnFailure.REFUSE, OnFailure.SEND, OnFailure.REFUSE],
    ),
    "rpc": ("unix:///a", "unix:///b", "unix:///c", lambda s: s.rpc, ["unix:///a", "unix:///b", "unix:///c"]),
    "origins": (
        ["https://a.example"], "https://b.example,https://c.example", ["https://d.example"],
        lambda s: [str(target) for target in s.scope.origins],
        [["a.example:443"], ["b.example:443", "c.example:443"], ["d.example:443"]],
    ),
    "allow_hosts": (
        [NO_DEFAULTS, "a.example"], "none, b.example , c.example", [NO_DEFAULTS, "d.example"],
        lambda s: s.scope.allowed_hosts,
        [("a.example",), ("b.example", "c.example"), ("d.example",)],
    ),
    "upstream_map": (
        ["a.example=127.0.0.1:1"], "b.example=127.0.0.1:2,c.example=127.0.0.1:3", ["d.example=127.0.0.1:4"],
        lambda s: [target.host for target in s.upstream.addresses],
        [["a.example"], ["b.example", "c.example"], ["d.example"]],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(CASES))
def test_each_source_is_read(name):
    flag, environ, file, get, values = CASES[name]
    found = [get(from_flag(name, flag)), get(from_environ(name, environ)), get(from_file(name, file))]
    assert found == values


@pytest.mark.parametrize("name", list(CASES))
def test_a_flag_beats_the_environment_and_the_environment_beats_the_file(name):
    flag, environ, file, get, (of_flag, of_environ, _) = CASES[name]
    variables, config = {f"COUNTERSIGN_{name.upper()}": environ}, Config({"countersign": {name: file}})
    assert get(proxy_settings({**NO_FLAGS, name: flag}, variables, config)) == of_flag
    assert get(proxy_settings(NO_FLAGS, variables, config)) == of_environ


def test_one_source_does_not_add_to_another():
    settings = proxy_settings(
        {**NO_FLAGS, "origins": ["https://a.example"]}, {"COUNTERSIGN_ORIGINS": "https://b.example"}, NO_CONFIG
    )
    assert settings.scope.origins == (Target("a.example", 443),)


def test_an_empty_variable_is_as_good_as_none():
    config = Config({"countersign": {"port": 5}})
    assert proxy_settings(NO_FLAGS, {"COUNTERSIGN_PORT": "", "COUNTERSIGN_STAMP": ""}, config).port == 5


def test_credentials_come_from_the_environment_or_the_file_only():
    assert from_environ("credentials", "me:12345678").credentials == Credentials("me", "12345678")
    assert from_file("credentials", "me:12345678").credentials == Credentials("me", "12345678")
    assert "12345678" not in repr(from_file("credentials", "me:12345678"))


def test_hosts_are_added_to_the_built_in_list_unless_that_is_dropped():
    assert from_flag("allow_hosts", ["a.example"]).scope.allowed_hosts == (*DEFAULT_ALLOWED_HOSTS, "a.example")
    assert from_flag("allow_hosts", [NO_DEFAULTS]).scope.allowed_hosts == ()
    # At the front only: elsewhere it would be a host of that name.
    assert from_flag("allow_hosts", ["a.example", NO_DEFAULTS]).scope.allowed_hosts[-2:] == ("a.example", NO_DEFAULTS)


def test_the_map_and_its_authorities_go_together(tmp_path):
    (tmp_path / "ca.pem").write_text(PEM)
    settings = proxy_settings(
        {**NO_FLAGS, "upstream_ca": str(tmp_path / "ca.pem")},
        {"COUNTERSIGN_UPSTREAM_MAP": "a.example=127.0.0.1:1"},
        NO_CONFIG,
    )
    assert settings.upstream.ca_file == tmp_path / "ca.pem"
    assert settings.upstream.addresses == {Target("a.example", 443): ("127.0.0.1", 1)}


BAD = [
    ("port", "x", "'x'", "0 to 65535"),
    ("port", "65536", "'65536'", "0 to 65535"),
    ("port", "-1", "'-1'", "0 to 65535"),
    ("port", "8080.0", "'8080.0'", "0 to 65535"),
    ("port", "٨٠٨٠", "'٨٠٨٠'", "0 to 65535"),
    ("stamp", "sometimes", "'sometimes'", "always, missing, never"),
    ("on_failure", "Refuse", "'Refuse'", "send, refuse"),
    ("rpc", "ws://localhost", "'ws://localhost'", "unix://PATH"),
    ("rpc", "unix://", "'unix://'", "unix://PATH"),
    ("rpc", "unix:///", "'unix:///'", "unix://PATH"),
    ("rpc", "unix://rpc.sock", "'unix://rpc.sock'", "absolute path"),
    ("rpc", "unix://~/rpc.sock", "'unix://~/rpc.sock'", "absolute path"),
    ("origins", "http://a.example", "'http://a.example'", "https://HOST"),
    ("origins", "https://a.example/path", "'https://a.example/path'", "https://HOST"),
    ("allow_hosts", "a b", "'a b'", "HOST, HOST:PORT"),
    ("allow_hosts", "https://a.example", "'https://a.example'", "1 to 65535"),
    ("upstream_map", "a.example", "'a.example'", "HOST[:PORT]=ADDRESS:PORT"),
    ("upstream_ca", "/does/not/exist", "'/does/not/exist'", "cannot be read"),
]
FLAGS = {"on_failure": "--on-failure", "origins": "--origin", "allow_hosts": "--allow-host",
         "upstream_map": "--upstream-map", "upstream_ca": "--upstream-ca"}  # fmt: skip
LISTS = ("origins", "allow_hosts", "upstream_map")


@pytest.mark.parametrize(("name", "value", "found", "rule"), BAD)
def test_a_bad_value_is_refused_with_its_source_its_value_and_the_rule(name, value, found, rule):
    sources = {
        FLAGS.get(name, f"--{name}"): lambda: from_flag(name, [value] if name in LISTS else value),
        f"COUNTERSIGN_{name.upper()}": lambda: from_environ(name, value),
        f"{FILE}: countersign.{name}": lambda: from_file(name, value),
    }
    for source, read in sources.items():
        with pytest.raises(SettingError) as refusal:
            read()
        text = str(refusal.value)
        assert text.startswith(f"{source}: ") and found in text and rule in text, text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", True),
        ("port", [8080]),
        ("port", 80.5),
        ("stamp", 5),
        ("stamp", ["always"]),
        ("on_failure", {}),
        ("rpc", 5),
        ("rpc", ""),
        ("origins", 5),
        ("origins", ["https://a.example", 5]),
        ("origins", {"a": 1}),
        ("allow_hosts", True),
        ("upstream_map", [["a"]]),
        ("upstream_ca", 5),
        ("credentials", 5),
        ("credentials", ["me:12345678"]),
    ],
)
def test_a_value_of_a_wrong_type_in_the_file_is_refused_with_its_place(name, value):
    with pytest.raises(SettingError, match=rf"^{FILE}: countersign\.{name}: "):
        from_file(name, value)


@pytest.mark.parametrize("value", ["no colon 12345678", "me:123", ":12345678"])
def test_bad_credentials_are_refused_without_being_repeated(value):
    with pytest.raises(SettingError, match=r"^COUNTERSIGN_CREDENTIALS: .*USER:SECRET") as refusal:
        from_environ("credentials", value)
    assert "123" not in str(refusal.value)


def test_an_authority_file_without_certificates_is_refused_by_its_own_source(tmp_path):
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(SettingError, match=r"^--upstream-ca: .*holds none"):
        proxy_settings(
            {**NO_FLAGS, "upstream_ca": str(tmp_path / "ca.pem"), "upstream_map": ["a.example=127.0.0.1:1"]},
            {},
            NO_CONFIG,
        )


def test_a_setting_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(
        SettingError, match=rf"^{FILE}: countersign\.prot: .* has no setting 'prot'; there are .*port.*stamp"
    ):
        from_file("prot", 5)


def test_a_home_that_does_not_exist_is_a_bad_value_like_others():
    with pytest.raises(SettingError, match="^--upstream-ca: "):
        from_flag("upstream_ca", "~nobody-of-that-name/ca.pem")


@pytest.mark.parametrize(
    ("override", "content", "key"),
    [
        ("countersign.port=x", {"port": "x"}, "countersign.port"),
        ("countersign . port = x", {"port": "x"}, "countersign.port"),
        ('countersign={port="x"}', {"port": "x"}, "countersign.port"),
        ("countersign.port.deep=5", {"port": {"deep": 5}}, "countersign.port"),
        ("countersign.prot=5", {"prot": 5}, "countersign.prot"),
        ("countersign=5", 5, "countersign"),
    ],
)
def test_a_value_of_an_override_is_not_blamed_on_the_file(override, content, key):
    """It named a config.toml that there was not even."""
    config = Config({"countersign": content}, ["model=gpt", override], FILE)
    with pytest.raises(SettingError, match=rf"^-c {key}: "):
        proxy_settings(NO_FLAGS, {}, config)


@pytest.mark.parametrize("override", ["model=gpt", "countersign.stamp=never", "countersigned=5"])
def test_a_value_of_the_file_is_not_blamed_on_an_override_of_something_else(override):
    config = Config({"countersign": {"port": "x", "stamp": "never"}}, [override], FILE)
    with pytest.raises(SettingError, match=rf"^{FILE}: countersign\.port: "):
        proxy_settings(NO_FLAGS, {}, config)


def test_the_settings_tell_where_what_was_given_came_from():
    config = Config({"countersign": {"rpc": "unix:///a", "port": 5}}, path=FILE)
    settings = proxy_settings({**NO_FLAGS, "stamp": "never"}, {"COUNTERSIGN_RPC": "unix:///b"}, config)
    assert settings.sources == {
        "stamp": "--stamp",
        "rpc": "COUNTERSIGN_RPC",
        "port": f"{FILE}: countersign.port",
    }
    assert settings.blamed("rpc", OSError("it is taken")) == "COUNTERSIGN_RPC: it is taken"
    assert settings.blamed("origins", OSError("it is bad")) == "it is bad"


def test_what_looks_like_a_setting_and_is_none_is_told_without_its_value():
    config = Config({"countersing": {"port": 1}, "model": "gpt", "tools": {}}, ["Countersign.port=2"], FILE)
    told = ignored_settings({"COUNTERSIGN_PROT": "5", "COUNTERSIGN_XYZ": "secret", "COUNTERSIGN_PORT": "5"}, config)
    assert told[0] == "COUNTERSIGN_PROT is ignored, since there is no such setting; did you mean COUNTERSIGN_PORT?"
    assert told[1].startswith("COUNTERSIGN_XYZ is ignored") and "UPSTREAM_MAP" in told[1]
    assert told[2:] == [f"{FILE}: countersing is ignored, since it is no table of ours; did you mean countersign?"]
    assert "secret" not in "".join(told)


def test_an_override_of_a_table_that_is_nearly_ours_is_told_as_such():
    told = ignored_settings({}, Config({"countersing": {"port": 1}}, ["countersing.port=1"], FILE))
    assert told == ["-c countersing is ignored, since it is no table of ours; did you mean countersign?"]


def test_nothing_is_told_of_settings_of_others():
    config = Config({"model": "gpt", "countersign": {}, "countries": {}, "sandbox_mode": "read-only"}, path=FILE)
    assert ignored_settings({"PATH": "/bin", "CODEX_HOME": "/", "COUNTERSIGN_STAMP": "never"}, config) == []
