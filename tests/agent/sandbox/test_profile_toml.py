"""Permission profiles from configuration. The rows of tables were tried on codex 0.169, unless they say so."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.sandbox.legacy import READ_ONLY
from agent.sandbox.policy import DISABLED, Access, GlobTarget, Network, PolicyError, SpecialTarget
from agent.sandbox.profile_toml import NamedProfile, default_profile, named_profile

HOME, CWD = "/home/me", "/src"


def compiled(toml: str, name: str = "p") -> NamedProfile:
    return named_profile(name, tomllib.loads(toml), HOME, CWD)


def lines(toml: str) -> list[str]:
    """The entries, each as `access place`, patterns and unknown places marked as such."""
    return [f"{mark(entry.target)}{entry}" for entry in compiled(toml).profile.entries]


def mark(target) -> str:
    if isinstance(target, GlobTarget):
        return "pattern "
    return "unknown " if getattr(target, "kind", None) == "unknown" else ""


def filesystem(table: str) -> str:
    return f"[permissions.p.filesystem]\n{table}"


def below(base: str, table: str) -> str:
    return f'[permissions.p.filesystem."{base}"]\n{table}'


def refusal(toml: str, name: str = "p") -> str:
    with pytest.raises(PolicyError) as raised:
        compiled(toml, name)
    return str(raised.value)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ('"/a" = "read"', ["read /a"]),
        ('"/a" = "write"', ["write /a"]),
        ('"/a" = "deny"', ["deny /a"]),
        ('"/a" = "none"', ["deny /a"]),
        ('"/opt/./x//y/../z/" = "read"', ["read /opt/x/z"]),
        ('"~" = "read"\n"~/x" = "write"\n"~/../y" = "deny"', ["read /home/me", "deny /home/y", "write /home/me/x"]),
        ('":root" = "read"\n":minimal" = "read"', ["read :minimal", "read :root"]),
        ('":tmpdir" = "write"\n":slash_tmp" = "write"', ["write :slash_tmp", "write :tmpdir"]),
        ('":workspace_roots" = "write"', ["write :project_roots"]),
        ('":project_roots" = "write"', ["write :project_roots"]),
        ('"/a" = "read"\n"/a/" = "write"', ["read /a", "write /a"]),
        ('"/a/**" = "write"', ["write /a"]),
        ('"~/**" = "read"', ["read /home/me"]),
        ('":root/**" = "read"', ["read :root"]),
        ('"/a/**" = "deny"', ["pattern deny /a/**"]),
        ('"/a/*/../b//*.x" = "deny"', ["pattern deny /a/b/*.x"]),
        ('"~/*.x" = "deny"', ["pattern deny /home/me/*.x"]),
        ('"/a/x]" = "deny"', ["pattern deny /a/x]"]),
        ('"/a/{x,y}" = "deny"', ["deny /a/{x,y}"]),  # braces alone are no sign of a pattern
        ('"/a\\nb" = "read"', ["read /a\nb"]),  # the original loses the newline, and grants another path
    ],
)
def test_a_key_is_a_place_and_its_value_the_access(table, expected):
    assert lines(filesystem(table)) == expected


@pytest.mark.parametrize(
    ("base", "table", "expected"),
    [
        ("/a", '"." = "read"\n"b" = "write"', ["read /a", "write /a/b"]),
        ("~/a", '"b/c" = "write"', ["write /home/me/a/b/c"]),
        ("/a/../b", '"c//d/./e/" = "read"', ["read /b/c/d/e"]),
        ("/a", '"b/**" = "read"\n"./**" = "read"', ["read /a", "read /a/b"]),
        ("/a", '"**/*.x" = "deny"\n"*/" = "deny"', ["pattern deny /a/**/*.x", "pattern deny /a/*"]),
        (":workspace_roots", '"." = "write"\n"b" = "deny"', ["write :project_roots", "deny :project_roots/b"]),
        (":workspace_roots", '"b//*.x" = "deny"', ["pattern deny b/*.x"]),
        (":project_roots", '"b" = "read"', ["read :project_roots/b"]),
        (":tmpdir", '"." = "read"', ["read :tmpdir"]),
        (":later", '"b/**" = "read"', ["unknown read :later/b"]),
        ("/a*", '"b" = "deny"', ["deny /a*/b"]),
        ("/a", "", []),
    ],
)
def test_a_table_names_paths_below_its_key(base, table, expected):
    assert lines(below(base, table)) == expected


def test_a_place_of_the_future_is_kept_as_unknown_with_a_warning():
    profile = compiled(filesystem('":later" = "write"'))
    assert [entry.target for entry in profile.profile.entries] == [SpecialTarget("unknown", path=":later")]
    (warning,) = profile.warnings
    assert 'permissions.p.filesystem.":later" is ignored' in warning and ":workspace_roots" in warning


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        (filesystem('"x" = "read"'), ["permissions.p.filesystem.x", "'x'", "absolute"]),
        (filesystem('"" = "read"'), ['permissions.p.filesystem.""', "absolute"]),
        (filesystem('"~you/x" = "read"'), ['filesystem."~you/x"', "'~you/x'", "'~/'"]),
        (filesystem('"/a\\u0000" = "read"'), ['filesystem."/a\\u0000"', "NUL"]),
        (filesystem('"/a" = "exec"'), ['filesystem."/a"', "'exec'", "read, write or deny"]),
        (filesystem('"/a" = "Read"'), ["'Read'", "read, write or deny"]),
        (filesystem('"/a" = true'), ["True", "read, write or deny"]),
        (filesystem('"/a/*.x" = "read"'), ['filesystem."/a/*.x"', "'read'", "'/**'"]),
        (filesystem('"/a/**/**" = "write"'), ['filesystem."/a/**/**"', "'write'"]),
        (filesystem('"/a/x]" = "read"'), ['filesystem."/a/x]"', "pattern"]),
        (filesystem('"/**" = "write"'), ['filesystem."/**"', "absolute"]),
        (filesystem('":workspace_roots/**" = "deny"'), ['filesystem.":workspace_roots/**"', "absolute"]),
        (filesystem("glob_scan_max_depth = 0"), ["filesystem.glob_scan_max_depth", "0", "at least 1"]),
        (filesystem("glob_scan_max_depth = -1"), ["filesystem.glob_scan_max_depth", "-1"]),
        (filesystem("glob_scan_max_depth = 1.0"), ["filesystem.glob_scan_max_depth", "1.0"]),
        (filesystem("glob_scan_max_depth = true"), ["filesystem.glob_scan_max_depth", "True"]),
        (below("/a", '"../b" = "read"'), ['filesystem."/a"."../b"', "'../b'", "'..'"]),
        (below("/a", '"./b" = "read"'), ['filesystem."/a"."./b"', "'./b'", "'.'"]),
        (below("/a", '"/b" = "read"'), ['filesystem."/a"."/b"', "'/b'", "relative"]),
        (below("/a", '"" = "read"'), ['filesystem."/a".""', "''"]),
        (below("/a", '"../*.x" = "deny"'), ['filesystem."/a"."../*.x"', "'..'"]),
        (below("/a", '"**" = "write"'), ['filesystem."/a"."**"', "'write'"]),
        (below("/a", 'b.c = "read"'), ['filesystem."/a".b', "{'c': 'read'}"]),
        (below("/a", "glob_scan_max_depth = 2"), ['filesystem."/a".glob_scan_max_depth', "2"]),
        (below("x", '"b" = "read"'), ["filesystem.x.b", "'x'", "absolute"]),
        (below(":root", '"b" = "read"'), ['filesystem.":root".b', "':root'", "absolute path"]),
        (below(":tmpdir", '"b" = "read"'), ['filesystem.":tmpdir".b', "':tmpdir'"]),
        (below(":tmpdir", '"*.x" = "deny"'), ['filesystem.":tmpdir"."*.x"', "'deny'"]),
        (below(":later", '"*.x" = "deny"'), ['filesystem.":later"."*.x"', "'deny'"]),
        ("permissions = 3", ["permissions is 3", "a table"]),
        ("[permissions]\np = 3", ["permissions.p is 3", "a table"]),
        ("[permissions.p]\nfilesystem = true", ["permissions.p.filesystem", "True", "a table"]),
        ("[permissions.p]\nnetwork = true", ["permissions.p.network", "True", "a table"]),
        ("[permissions.p.network]\nenabled = 'yes'", ["permissions.p.network.enabled", "'yes'", "true or false"]),
        ("[permissions.p]\nworkspace_roots = ['/a']", ["permissions.p.workspace_roots", "a table"]),
        ("[permissions.p.workspace_roots]\n'/a' = 'yes'", ['workspace_roots."/a"', "'yes'", "true or false"]),
        ("[permissions.p]\nextends = 3", ["permissions.p.extends", "3", "a string"]),
        ("[permissions.p]\ndescription = 3", ["permissions.p.description", "3", "a string"]),
        ("[permissions.p]\n[permissions.q]\nextends = 3", ["permissions.q.extends", "3"]),
        ("[permissions.p]\n[permissions.':q']", ['permissions.":q"', "built-in"]),
        ("[permissions.p]\nextends = 'q'", ["permissions.p.extends", "'q'", "defined in [permissions]"]),
        ("[permissions.p]\nextends = ':danger-full-access'", ["extends", "':danger-full-access'", ":workspace"]),
        ("[permissions.p]\nextends = 'p'", ["permissions.p.extends", "p -> p"]),
        (
            "[permissions.p]\nextends = 'q'\n[permissions.q]\nextends = 'p'",
            ["permissions.q.extends", "'p'", "p -> q -> p"],
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_value_and_the_rule(toml, words):
    text = refusal(toml)
    assert [word for word in words if word not in text] == [], text


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (":later", ["':later'", ":read-only, :workspace, :danger-full-access"]),
        ("q", ["'q'", "(defined: p)"]),
        ("", ["''", "(defined: p)"]),
    ],
)
def test_an_unknown_profile_is_refused_with_those_that_are_known(name, words):
    text = refusal("[permissions.p]", name)
    assert [word for word in words if word not in text] == []


def test_an_error_names_the_profile_that_the_value_comes_from():
    toml = "[permissions.p]\nextends = 'q'\n[permissions.q.filesystem]\n'/a' = 'read'\n'x' = 'read'"
    assert "permissions.q.filesystem.x names 'x'" in refusal(toml)


def test_a_home_that_is_not_known_is_said_only_where_it_is_needed():
    with pytest.raises(PolicyError, match=r'filesystem."~/x" begins with .* home directory is \'\'; set HOME'):
        named_profile("p", tomllib.loads(filesystem('"~/x" = "read"')), "", CWD)
    assert named_profile("p", tomllib.loads(filesystem('"/x" = "read"')), "", CWD).profile.entries != ()


def test_the_built_in_profiles_are_the_legacy_policies_and_settings_of_those_do_not_change_them():
    config = "[sandbox_workspace_write]\nwritable_roots = ['/a']\nnetwork_access = true\n"
    assert compiled(config, ":read-only").profile == READ_ONLY
    assert compiled(config, ":danger-full-access").profile == DISABLED
    workspace = compiled(config, ":workspace")
    assert workspace.profile.network is Network.RESTRICTED
    assert workspace.workspace_roots == (CWD,)
    writable = {str(entry.target) for entry in workspace.profile.entries if entry.access is Access.WRITE}
    assert writable == {":project_roots", ":slash_tmp", ":tmpdir"}


WORKSPACE = {"read :root", "write :slash_tmp", "write :tmpdir", "write :project_roots"}


@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        (
            "[permissions.p]\nextends = ':read-only'\n[permissions.p.filesystem]\n'/a' = 'write'",
            {"read :root", "write /a"},
        ),
        ("[permissions.p]\nextends = ':workspace'", WORKSPACE),
        (
            "[permissions.p]\nextends = ':workspace'\n[permissions.p.filesystem]\n':workspace_roots' = 'read'",
            WORKSPACE - {"write :project_roots"} | {"read :project_roots"},
        ),
        (
            "[permissions.p]\nextends = ':workspace'\n[permissions.p.filesystem.':workspace_roots']\n'x' = 'deny'",
            WORKSPACE | {"deny :project_roots/x"},
        ),
        (  # the older name is a key of its own: nothing is overridden
            "[permissions.p]\nextends = ':workspace'\n[permissions.p.filesystem]\n':project_roots' = 'read'",
            WORKSPACE | {"read :project_roots"},
        ),
    ],
)
def test_a_built_in_profile_can_be_extended_key_by_key(toml, expected):
    assert set(lines(toml)) == expected


@pytest.mark.parametrize(
    ("child", "parent", "expected"),
    [
        ("'/a' = 'deny'", "'/a' = 'write'\n'/b' = 'write'", {"deny /a", "write /b"}),
        ("'/a' = 'deny'", "'/a' = {'.' = 'write', b = 'read'}", {"deny /a"}),
        ("'/a' = {b = 'deny'}", "'/a' = 'write'", {"deny /a/b"}),
        ("'/a' = {b = 'deny'}", "'/a' = {b = 'read', c = 'write'}", {"deny /a/b", "write /a/c"}),
        ("'/a/' = 'read'", "'/a' = 'write'", {"read /a", "write /a"}),
    ],
)
def test_a_childs_key_replaces_its_parents(child, parent, expected):
    toml = f"[permissions.p]\nextends = 'q'\n[permissions.p.filesystem]\n{child}\n[permissions.q.filesystem]\n{parent}"
    assert set(lines(toml)) == expected


@pytest.mark.parametrize(
    ("child", "parent", "depth", "network"),
    [
        ("", "network.enabled = true\nfilesystem.glob_scan_max_depth = 4", 4, Network.ENABLED),
        (
            "network = {}\nfilesystem = {}",
            "network.enabled = true\nfilesystem.glob_scan_max_depth = 4",
            4,
            Network.ENABLED,
        ),
        (
            "network.enabled = false\nfilesystem.glob_scan_max_depth = 2",
            "network.enabled = true",
            2,
            Network.RESTRICTED,
        ),
        ("filesystem.glob_scan_max_depth = 3", "filesystem.glob_scan_max_depth = 0", 3, Network.RESTRICTED),
        ("", "", None, Network.RESTRICTED),
    ],
)
def test_depth_and_network_come_from_the_nearest_that_has_them(child, parent, depth, network):
    profile = compiled(f"[permissions.p]\nextends = 'q'\n{child}\n[permissions.q]\n{parent}").profile
    assert (profile.glob_scan_max_depth, profile.network) == (depth, network)


def test_workspace_roots_are_the_directory_and_those_that_are_switched_on():
    own = "'/a' = false\n'/c' = true\n'~/d' = true\n'e' = true\n'../f' = true"
    toml = (
        f"[permissions.p]\nextends = 'q'\n[permissions.p.workspace_roots]\n{own}\n"
        "[permissions.q.workspace_roots]\n'/a' = true\n'/b' = true"
    )
    assert compiled(toml).workspace_roots == ("/src", "/f", "/b", "/c", "/src/e", "/home/me/d")
    again = "[permissions.p.workspace_roots]\n'.' = true\n'/src/' = true"
    assert compiled(again).workspace_roots == ("/src",)


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("[permissions.p]", ["permissions.p.filesystem has no entries"]),
        (filesystem('"/a/**/*.x" = "deny"'), ['filesystem."/a/**/*.x"', "glob_scan_max_depth"]),
        (below(":workspace_roots", '"**/*.x" = "deny"'), ['filesystem.":workspace_roots"."**/*.x"', "all levels"]),
        (below("/a*", '"b" = "deny"'), ['filesystem."/a*"', "no pattern"]),  # ours
        (filesystem('"/a" = "read"') + "\n[permissions.p.netwrok]", ["permissions.p.netwrok is not used"]),  # ours
        (filesystem('"/a" = "read"') + "\n[permissions.p.network.domains]", ["network.domains is not used"]),  # ours
    ],
)
def test_what_is_odd_gives_one_warning_that_names_it(toml, words):
    (warning,) = compiled(toml).warnings
    assert [word for word in words if word not in warning] == [], warning


@pytest.mark.parametrize(
    "toml",
    [
        filesystem('"/a/**/*.x" = "deny"\nglob_scan_max_depth = 2'),
        filesystem('"/a/*.x" = "deny"'),
        filesystem('"/a/**" = "read"'),
        '[permissions.p]\ndescription = "x"\n[permissions.p.network]\nenabled = true\n' + filesystem('"/a" = "read"'),
    ],
)
def test_what_is_not_odd_gives_none(toml):
    assert compiled(toml).warnings == ()


values = st.recursive(
    st.one_of(
        st.booleans(), st.integers(-1, 3), st.floats(), st.sampled_from(["read", "write", "deny", ":workspace", "p"])
    ),
    lambda inner: st.dictionaries(
        st.sampled_from(
            ["/a", "~/b/*", ":root", ":workspace_roots", "filesystem", "extends", "enabled", ".", "..", ""]
        ),
        inner,
    ),
    max_leaves=6,
)
members = st.sampled_from(["filesystem", "network", "extends", "workspace_roots", "description", "x"])


@given(st.dictionaries(members, values))
def test_no_table_makes_anything_but_a_profile_or_a_policy_error(table):
    config = {"permissions": {"p": table}}
    try:
        first = named_profile("p", config, HOME, CWD)
    except PolicyError as exc:
        assert str(exc)
    else:
        assert first == named_profile("p", config, HOME, CWD)


@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        ("", None),
        ("default_permissions = 'p'", "p"),
        ("default_permissions = ':workspace'\nsandbox_mode = 'read-only'", ":workspace"),
        ("sandbox_mode = 'read-only'\n[permissions.p]", None),
        ("[permissions]", None),
    ],
)
def test_the_default_profile_is_what_is_named(toml, expected):
    assert default_profile(tomllib.loads(toml)) == expected


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("default_permissions = 3", ["default_permissions is 3", "name of a profile"]),
        ("[permissions.p]", ["default_permissions is missing", "[permissions]"]),
    ],
)
def test_a_default_that_cannot_be_told_is_refused(toml, words):
    with pytest.raises(PolicyError) as raised:
        default_profile(tomllib.loads(toml))
    assert [word for word in words if word not in str(raised.value)] == []
