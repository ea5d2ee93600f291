"""Legacy policies from configuration, as profiles, and which profiles a legacy policy could say."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.sandbox.legacy import READ_ONLY, LegacyPolicy, Mode, beyond_legacy, to_profile
from agent.sandbox.policy import (
    DISABLED,
    PROTECTED_NAMES,
    Access,
    Entry,
    GlobTarget,
    Network,
    PathTarget,
    Places,
    PolicyError,
    Profile,
    ProfileKind,
    SpecialTarget,
    resolve,
)
from agent.sandbox.profile_toml import legacy_policy

READ, WRITE, DENY = Access
HERE = Places("/src", ("/src",), "/t", slash_tmp=True)

roots = st.lists(st.sampled_from(["/", "/src", "/src/sub", "/data", "/tmp", "/t/x", "/data/.gitx"]), max_size=3)
places = st.builds(
    Places,
    st.just("/src"),
    st.sampled_from([("/src",), ("/src", "/other"), ("/src", "/src/sub")]),
    st.sampled_from([None, "/t", "/tmp", "/src/tmp"]),
    st.booleans(),
)
policies = st.builds(LegacyPolicy, st.sampled_from(list(Mode)), roots.map(tuple), *[st.booleans()] * 3)


@given(policies, places)
def test_every_legacy_policy_is_equal_to_itself(policy, where):
    """A writable root `/` was taken for a profile's, whose protected names narrow it."""
    assert beyond_legacy(resolve(to_profile(policy), where)) is None


@given(policies, places)
def test_a_workspace_policy_writes_its_roots_and_nothing_else(policy, where):
    granted = resolve(to_profile(policy), where)
    if policy.mode is not Mode.WORKSPACE_WRITE:
        assert granted.can_write("/src/x") is (policy.mode in (Mode.DANGER_FULL_ACCESS, Mode.EXTERNAL))
        return
    expected = {*where.project_roots, *policy.writable_roots}
    if where.slash_tmp and not policy.exclude_slash_tmp:
        expected.add("/tmp")
    if where.tmpdir and not policy.exclude_tmpdir_env_var:
        expected.add(where.tmpdir)
    assert set(granted.writable_roots()) == expected
    for root in expected:
        assert not granted.can_write(f"{root.rstrip('/')}/.git/config")
    assert granted.can_read("/etc/passwd")


@pytest.mark.parametrize("access", [False, True])
def test_the_network_is_as_the_policy_says(access):
    expected = Network.ENABLED if access else Network.RESTRICTED
    for mode in (Mode.READ_ONLY, Mode.WORKSPACE_WRITE, Mode.EXTERNAL):
        assert to_profile(LegacyPolicy(mode, network_access=access)).network is expected
    assert to_profile(LegacyPolicy(Mode.DANGER_FULL_ACCESS, network_access=access)) == DISABLED


def test_the_read_only_profile_is_that_of_the_read_only_policy():
    assert to_profile(LegacyPolicy(Mode.READ_ONLY)) == READ_ONLY
    assert to_profile(LegacyPolicy(Mode.EXTERNAL)).kind is ProfileKind.EXTERNAL


def test_each_protected_name_is_an_entry_that_may_be_missing():
    entries = to_profile(LegacyPolicy(Mode.WORKSPACE_WRITE)).entries
    skipping = [entry.target for entry in entries if entry.skip_missing]
    assert skipping == [SpecialTarget("project_roots", name) for name in PROTECTED_NAMES]


ROOT_READS = Entry(SpecialTarget("root"), READ)


def at(path: str, access: Access) -> Entry:
    return Entry(PathTarget(path), access)


@pytest.mark.parametrize(
    ("entries", "named"),
    [
        ([ROOT_READS, at("/src", WRITE), at("/src/x", READ)], "read /src/x is read-only inside the writable '/src'"),
        ([ROOT_READS, at("/src", WRITE), at("/src/x", DENY)], "deny /src/x"),
        ([ROOT_READS, at("/src", WRITE), at("/src/.git", WRITE)], "write /src/.git opens a name"),
        ([ROOT_READS, at("/src", WRITE), at("/src/.aws/x", WRITE)], "write /src/.aws/x opens a name"),
        ([ROOT_READS, at("/etc", DENY)], "deny /etc denies a path"),
        ([ROOT_READS, Entry(GlobTarget("*.env"), DENY)], "deny *.env denies by pattern"),
        ([Entry(SpecialTarget("minimal"), READ)], "'minimal'"),
        ([at("/usr", READ)], "single paths"),
        ([], "single paths"),
        ([Entry(SpecialTarget("root"), WRITE), at("/src", READ)], "read /src is read-only inside the writable '/'"),
    ],
)
def test_what_a_legacy_policy_cannot_say_is_named(entries, named):
    profile = Profile(ProfileKind.MANAGED, Network.RESTRICTED, entries=tuple(entries))
    assert named in (beyond_legacy(resolve(profile, HERE)) or "nothing")


@pytest.mark.parametrize(
    "entries",
    [
        [ROOT_READS],
        [at("/", READ)],
        [ROOT_READS, at("/src", WRITE), at("/src/.git", READ)],
        [ROOT_READS, at("/src", WRITE), at("/etc", READ)],
        [ROOT_READS, at("/src", WRITE), at("/src/.github", WRITE)],
        [Entry(SpecialTarget("root"), WRITE)],
        [at("/", WRITE), at("/.git", READ)],
    ],
)
def test_what_a_legacy_policy_can_say_is_not_refused(entries):
    """The negative control of the table above: the same entries without what goes beyond."""
    profile = Profile(ProfileKind.MANAGED, Network.RESTRICTED, entries=tuple(entries))
    assert beyond_legacy(resolve(profile, HERE)) is None


HOME = "/home/me"


def legacy(toml: str) -> LegacyPolicy | None:
    return legacy_policy(tomllib.loads(toml), HOME, "/base")


WRITE_ROOTS = "sandbox_mode = 'workspace-write'\n[sandbox_workspace_write]\nwritable_roots = "


# Tried on codex 0.169.
@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        ("", None),
        ("[sandbox_workspace_write]\nnetwork_access = true", None),
        ("sandbox_mode = 'read-only'", LegacyPolicy(Mode.READ_ONLY)),
        (
            "sandbox_mode = 'read-only'\n[sandbox_workspace_write]\nnetwork_access = true",
            LegacyPolicy(Mode.READ_ONLY),
        ),
        ("sandbox_mode = 'danger-full-access'", LegacyPolicy(Mode.DANGER_FULL_ACCESS, network_access=True)),
        ("sandbox_mode = 'workspace-write'", LegacyPolicy(Mode.WORKSPACE_WRITE)),
        (
            "sandbox_mode = 'workspace-write'\n[sandbox_workspace_write]\nnetwork_access = true\nlater = 1\n"
            "exclude_tmpdir_env_var = true\nexclude_slash_tmp = true",
            LegacyPolicy(Mode.WORKSPACE_WRITE, (), True, True, True),
        ),
        (WRITE_ROOTS + "['/a/../b/./c//']", LegacyPolicy(Mode.WORKSPACE_WRITE, ("/b/c",))),
        (
            WRITE_ROOTS + "['x', '../y', '', '.']",
            LegacyPolicy(Mode.WORKSPACE_WRITE, ("/base/x", "/y", "/base", "/base")),
        ),
        (WRITE_ROOTS + "['~', '~/x']", LegacyPolicy(Mode.WORKSPACE_WRITE, ("/home/me", "/home/me/x"))),
        (WRITE_ROOTS + "['~you', '/a*']", LegacyPolicy(Mode.WORKSPACE_WRITE, ("/base/~you", "/a*"))),
    ],
)
def test_the_legacy_policy_is_what_mode_and_table_say(toml, expected):
    assert legacy(toml) == expected


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("sandbox_mode = 'external-sandbox'", ["sandbox_mode", "'external-sandbox'", "read-only, workspace-write"]),
        ("sandbox_mode = 'Read-Only'", ["sandbox_mode", "'Read-Only'"]),
        ("sandbox_mode = 3", ["sandbox_mode is 3"]),
        ("sandbox_workspace_write = 3", ["sandbox_workspace_write is 3", "a table"]),
        (WRITE_ROOTS + "'/a'", ["sandbox_workspace_write.writable_roots", "'/a'", "a list"]),
        (WRITE_ROOTS + "['/a', 3]", ["sandbox_workspace_write.writable_roots[1] is 3", "a path"]),
        (
            "[sandbox_workspace_write]\nnetwork_access = 1",
            ["sandbox_workspace_write.network_access is 1", "true or false"],
        ),
        ("[sandbox_workspace_write]\nexclude_slash_tmp = 'a'", ["sandbox_workspace_write.exclude_slash_tmp", "'a'"]),
    ],
)
def test_what_is_wrong_in_the_legacy_policy_is_named(toml, words):
    with pytest.raises(PolicyError) as raised:
        legacy(toml)
    assert [word for word in words if word not in str(raised.value)] == []
