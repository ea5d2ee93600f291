"""The Windows planner, row by row of the recorded table: which level could hold a policy, and that none is run."""

import pytest

from agent.sandbox.legacy import LegacyPolicy, Mode, to_profile
from agent.sandbox.plan import Backend, Command, Host, Options, SandboxUnavailable, plan
from agent.sandbox.policy import DISABLED, Access, Network, Policy, Profile, ProfileKind
from agent.sandbox.windows import Level, enforceable, windows_plan
from tests.agent.sandbox.imagined_disk import ImaginedDisk
from tests.agent.sandbox.seatbelt_cases import APP, managed, policy_of

READ, WRITE, DENY = Access
UNELEVATED, ELEVATED = Level
HOST = Host("win32", "AMD64", 0, ImaginedDisk({}))
COMMAND = Command(("cmd", "/c", "dir"), APP)

BOTH, ONLY_ELEVATED, NEITHER = {UNELEVATED, ELEVATED}, {ELEVATED}, set()
WORKSPACE = ((":root", READ), (":project_roots", WRITE))


def legacy(mode: Mode, **more: object) -> Policy:
    return policy_of(to_profile(LegacyPolicy(mode, **more)))  # type: ignore[arg-type]


# need, levels that can, what the refusal of the others names; beside each need its control, one entry less or other
ROWS = {
    "legacy read-only": (legacy(Mode.READ_ONLY), BOTH, ""),
    "legacy read-only with network": (legacy(Mode.READ_ONLY, network_access=True), BOTH, ""),
    "legacy workspace-write": (legacy(Mode.WORKSPACE_WRITE), BOTH, ""),
    "legacy workspace-write and more": (legacy(Mode.WORKSPACE_WRITE, writable_roots=("/x",)), BOTH, ""),
    "split, as a legacy one": (policy_of(managed(*WORKSPACE)), BOTH, ""),
    "reads limited to roots": (
        policy_of(managed((APP, WRITE), ("/y", READ))),
        ONLY_ELEVATED,
        "reads are limited to '/y'",
    ),
    "reads limited to the system": (policy_of(managed((":minimal", READ))), ONLY_ELEVATED, "limited to the system"),
    "reads limited by a denied root": (
        policy_of(managed(("/", DENY), (APP, WRITE))),
        ONLY_ELEVATED,
        "reads are limited",
    ),
    "a denied path": (policy_of(managed(*WORKSPACE, ("/x", DENY))), ONLY_ELEVATED, "'deny /x' denies a path"),
    "a deny pattern": (policy_of(managed(*WORKSPACE, ("**/*.env", DENY))), ONLY_ELEVATED, "denies by pattern"),
    "roots without the workspace": (
        policy_of(managed((":root", READ), ("/x", WRITE))),
        ONLY_ELEVATED,
        "'/x' is writable",
    ),
    "a protected name opened": (
        policy_of(managed(*WORKSPACE, (f"{APP}/.git", WRITE))),
        ONLY_ELEVATED,
        "protected name",
    ),
    "a read-only carveout": (policy_of(managed(*WORKSPACE, (f"{APP}/src", READ))), BOTH, ""),
    "a writable path in a read-only carveout": (
        policy_of(managed(*WORKSPACE, (f"{APP}/src", READ), (f"{APP}/src/sub", WRITE))),
        NEITHER,
        f"writable inside '{APP}/src'",
    ),
    "a writable path beside a read-only carveout": (
        policy_of(managed(*WORKSPACE, (f"{APP}/src", READ), (f"{APP}/srcs", WRITE))),
        BOTH,
        "",
    ),
    "a writable path in a readable root": (
        policy_of(managed(*WORKSPACE, ("/y", READ), ("/y/z", WRITE))),
        BOTH,
        "",
    ),
    "a writable path in a protected name": (
        policy_of(managed(*WORKSPACE, (f"{APP}/.git/refs", WRITE))),
        NEITHER,
        f"writable inside '{APP}/.git'",
    ),
    "a writable path in a denied one": (
        policy_of(managed(*WORKSPACE, ("/x", DENY), ("/x/y", WRITE))),
        NEITHER,
        "writable inside '/x'",
    ),
    "the network alone": (policy_of(managed((":root", WRITE))), NEITHER, "whole disk is writable"),
    "somebody else's confinement": (
        policy_of(Profile(ProfileKind.EXTERNAL, Network.RESTRICTED, unrestricted=True)),
        NEITHER,
        "permission profile is external",
    ),
}

each_row = pytest.mark.parametrize("row", ROWS)


@each_row
def test_each_level_could_enforce_what_the_table_says(row):
    policy, levels, _ = ROWS[row]
    assert {level for level in Level if enforceable(policy, level) is None} == levels


@each_row
def test_a_managed_network_takes_the_elevated_level_besides(row):
    policy, levels, _ = ROWS[row]
    could = {level for level in Level if enforceable(policy, level, managed_network=True) is None}
    assert could == levels & {ELEVATED}


@each_row
def test_every_confined_plan_is_refused_with_what_it_needs_and_what_to_do(row):
    policy, levels, reason = ROWS[row]
    with pytest.raises(SandboxUnavailable) as refused:
        plan(policy, COMMAND, HOST)
    text = refused.value.reason
    assert refused.value.backend is Backend.WINDOWS
    assert reason in text
    assert "no Windows backend" in text and "refusing to run unsandboxed" in text and "WSL 2" in text
    for level in Level:
        could_not = f"the {level.value} one could not: "
        assert (could_not in text) == (level not in levels)
    assert ("no Windows sandbox could enforce this policy" in text) == (not levels)


def test_the_refusal_names_the_managed_network():
    with pytest.raises(SandboxUnavailable, match="unelevated one could not: the network is limited to a proxy's ports"):
        windows_plan(legacy(Mode.READ_ONLY), HOST, managed_network=True)


@pytest.mark.parametrize("options", [Options(), Options(legacy_landlock=True), Options(no_proc=True)])
def test_no_option_makes_a_confined_command_run(options):
    with pytest.raises(SandboxUnavailable):
        plan(legacy(Mode.WORKSPACE_WRITE, network_access=True), COMMAND, HOST, options)


def test_full_access_is_not_refused_since_nothing_is_to_be_enforced():
    made = plan(policy_of(DISABLED), COMMAND, HOST)
    assert made.backend is Backend.NONE and made.argv == COMMAND.argv
    with pytest.raises(SandboxUnavailable):
        plan(policy_of(DISABLED), COMMAND, HOST, Options(managed_ports=(3128,)))
