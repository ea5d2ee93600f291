"""(policy, command, host) -> plan: which means is chosen, and that a failing one never leads to none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.sandbox.plan import Backend, Command, Options, SandboxPlan, SandboxUnavailable, plan
from agent.sandbox.policy import DISABLED, Entry, Places, PolicyError, Profile, ProfileKind, SpecialTarget, resolve
from agent.sandbox.seccomp import NetworkFilter, program
from tests.agent.sandbox.imagined_disk import DIRECTORY, File, ImaginedDisk, Link
from tests.agent.sandbox.policies import ENABLED, RESTRICTED, entry, linux, policy

DISK = ImaginedDisk({"/w/a": DIRECTORY, "/w/b": File(), "/w/l": Link("a"), "/usr/bin": DIRECTORY})
PLACES = Places("/w", ("/w",), None, True)
TRUE = Command(("true",), "/w")


def unrestricted(network, kind=ProfileKind.MANAGED):
    return resolve(Profile(kind, network, unrestricted=True), PLACES)


def test_a_disabled_policy_runs_unconfined_and_says_so():
    made = plan(resolve(DISABLED, PLACES), TRUE, linux(DISK))
    assert (made.backend, made.argv, made.seccomp, made.environment) == (Backend.NONE, ("true",), None, ())
    assert "danger-full-access" in made.notes[0]


@pytest.mark.parametrize("kind", [ProfileKind.MANAGED, ProfileKind.EXTERNAL])
def test_full_write_with_the_network_leaves_nothing_to_enforce_and_without_it_takes_a_filter(kind):
    assert plan(unrestricted(ENABLED, kind), TRUE, linux(DISK)).backend is Backend.NONE
    made = plan(unrestricted(RESTRICTED, kind), TRUE, linux(DISK))
    assert made.backend is Backend.SECCOMP
    assert made.seccomp == program(NetworkFilter.RESTRICTED, "x86_64")
    assert made.environment == (("CODEX_SANDBOX_NETWORK_DISABLED", "1"),)
    assert (made.argv, made.cwd) == (("true",), "/w")


def test_a_root_entry_that_writes_is_full_write_and_a_literal_slash_is_not():
    assert plan(policy("write :root", network=ENABLED), TRUE, linux(DISK)).backend is Backend.NONE
    assert plan(policy("write /", network=ENABLED), TRUE, linux(DISK)).backend is Backend.BUBBLEWRAP


@pytest.mark.parametrize(
    "narrowing", ["read /w/a", "deny /w/a", "deny /w/*.env", "read :project_roots", "deny :slash_tmp"]
)
def test_one_narrowing_entry_takes_full_write_away(narrowing):
    made = plan(policy("write :root", narrowing, network=ENABLED), TRUE, linux(DISK))
    assert made.backend is Backend.BUBBLEWRAP
    assert plan(policy("write :root", "write /w/a", network=ENABLED), TRUE, linux(DISK)).backend is Backend.NONE


def test_the_network_alone_needs_a_sandbox_also_where_all_may_be_written():
    assert not unrestricted(ENABLED).needs_sandbox
    assert unrestricted(RESTRICTED).needs_sandbox


@pytest.mark.parametrize("platform", ["freebsd14", "cygwin", ""])
def test_a_foreign_platform_is_refused_unless_there_is_nothing_to_enforce(platform):
    with pytest.raises(SandboxUnavailable, match=f"no sandbox is known for the platform '{platform}'"):
        plan(policy("read /"), TRUE, linux(DISK, platform=platform))
    assert plan(resolve(DISABLED, PLACES), TRUE, linux(DISK, platform=platform)).backend is Backend.NONE


def test_windows_says_that_there_is_no_backend():
    with pytest.raises(SandboxUnavailable):
        plan(policy("read /"), TRUE, linux(DISK, platform="win32"))
    assert plan(resolve(DISABLED, PLACES), TRUE, linux(DISK, platform="win32")).backend is Backend.NONE


def test_two_plans_of_the_same_are_equal():
    asked = policy("read /", "write /w", "deny /w/b", "write /w/a")
    assert plan(asked, TRUE, linux(DISK)) == plan(asked, TRUE, linux(DISK))


# Any policy on any host


targets = st.sampled_from(["/", "/w", "/w/a", "/w/b", "/w/l", "/w/l/x", "/w/gone/x", ":root", ":minimal", ":tmpdir"])
entries = st.one_of(
    st.builds("{} {}".format, st.sampled_from(["read", "write", "deny"]), targets), st.just("deny /w/*")
).map(entry)
profiles = st.one_of(
    st.just(DISABLED),
    st.builds(
        Profile,
        st.sampled_from([ProfileKind.MANAGED, ProfileKind.EXTERNAL]),
        st.sampled_from([RESTRICTED, ENABLED]),
        st.just(True),
    ),
    st.builds(
        Profile,
        st.just(ProfileKind.MANAGED),
        st.sampled_from([RESTRICTED, ENABLED]),
        st.just(False),
        st.lists(entries, max_size=4).map(tuple),
    ),
)
hosts = st.fixed_dictionaries(
    {},
    optional={
        "platform": st.sampled_from(["darwin", "win32", "aix", "linux"]),
        "machine": st.sampled_from(["aarch64", "riscv64", ""]),
        "uid": st.sampled_from([0, -1]),
        "bubblewrap": st.none(),
        "landlock_abi": st.just(0),
        "wsl1": st.just(True),
        "proxy_ports": st.just(frozenset({3128})),
    },
)
options = st.builds(
    Options,
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, (), (3128,), (3128, 8080)]),
)


@given(profiles, hosts, options, st.sampled_from(["/w", "/w/b", "/gone"]))
def test_no_policy_that_needs_a_sandbox_is_ever_planned_without_one(asked, facts, how, cwd):
    resolved = resolve(asked, PLACES)
    try:
        made = plan(resolved, Command(("true",), cwd), linux(DISK, **facts), how)
    except (SandboxUnavailable, PolicyError) as refused:
        assert str(refused)
        return
    assert isinstance(made, SandboxPlan)
    confined = resolved.needs_sandbox or how.managed_ports is not None
    assert (made.backend is not Backend.NONE) is confined
    if made.backend in (Backend.SECCOMP, Backend.BUBBLEWRAP, Backend.LANDLOCK):
        assert made.seccomp
    if made.backend is Backend.LANDLOCK:
        assert how.legacy_landlock and made.landlock is not None
    if made.backend is Backend.SECCOMP:
        assert resolved.has_full_disk_write and resolved.network is RESTRICTED
    assert not set(made.bridge_ports) & linux(DISK, **facts).proxy_ports


def test_the_property_above_has_cases_of_each_kind():
    """Its control: among these policies and hosts are some that are refused, confined and left alone."""
    root = Profile(ProfileKind.MANAGED, RESTRICTED, entries=(Entry(SpecialTarget("root"), entry("read /").access),))
    assert plan(resolve(root, PLACES), TRUE, linux(DISK)).backend is Backend.BUBBLEWRAP
    with pytest.raises(SandboxUnavailable):
        plan(resolve(root, PLACES), TRUE, linux(DISK, bubblewrap=None))
    with pytest.raises(PolicyError):
        plan(policy("read /", "write /w", "deny /w/l"), TRUE, linux(DISK))
