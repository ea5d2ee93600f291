"""Linux's choice between bubblewrap, Landlock and a filter alone, and its refusals."""

import pytest

from agent.sandbox.plan import Backend, Command, LandlockRules, Options, SandboxUnavailable, plan
from agent.sandbox.policy import Places, PolicyError, Profile, ProfileKind, resolve
from agent.sandbox.seccomp import NetworkFilter, program
from tests.agent.sandbox.imagined_disk import DIRECTORY, ImaginedDisk, Link
from tests.agent.sandbox.policies import ENABLED, RESTRICTED, linux, policy

DISK = ImaginedDisk({"/w/a": DIRECTORY, "/x": DIRECTORY, "/link": Link("/x")})
LANDLOCK = Options(legacy_landlock=True)
EVERYTHING = resolve(Profile(ProfileKind.MANAGED, RESTRICTED, unrestricted=True), Places("/w", ("/w",), None, True))


def planned(asked, options=None, **facts):
    return plan(asked, Command(("true",), "/w"), linux(DISK, **facts), options)


def refusal(asked, options=None, **facts):
    with pytest.raises(SandboxUnavailable) as refused:
        planned(asked, options, **facts)
    return refused.value


def test_without_bubblewrap_the_refusal_says_what_was_found_and_names_landlock():
    refused = refusal(policy("read /"), bubblewrap=None, no_bubblewrap="bubblewrap cannot be used: REASON")
    assert refused.backend is Backend.BUBBLEWRAP
    assert refused.reason.startswith("bubblewrap cannot be used: REASON; ")
    assert "features.use_legacy_landlock" in refused.reason and "user namespaces" in refused.reason


def test_wsl1_is_refused_before_bubblewrap_is_looked_at():
    assert "Subsystem for Linux 1" in refusal(policy("read /"), wsl1=True, bubblewrap=None).reason
    # What needs no namespaces runs there too.
    assert planned(EVERYTHING, wsl1=True).backend is Backend.SECCOMP
    assert planned(policy("read /"), LANDLOCK, wsl1=True).backend is Backend.LANDLOCK


@pytest.mark.parametrize("asked", [policy("read /"), EVERYTHING])
@pytest.mark.parametrize("options", [None, LANDLOCK])
def test_an_unknown_machine_is_refused_because_its_system_calls_are_not_known(asked, options):
    assert "riscv64" in refusal(asked, options, machine="riscv64").reason
    assert planned(asked, options, machine="aarch64").seccomp


def test_the_filter_is_that_of_the_machine():
    assert planned(EVERYTHING, machine="aarch64").seccomp == program(NetworkFilter.RESTRICTED, "aarch64")


# Landlock


@pytest.mark.parametrize(
    ("lines", "writable"),
    [
        (("read /",), ()),
        (("read /", "write /w"), ("/w",)),
        (("read /", "write /w", "write /link", "write /gone"), ("/w", "/x")),
    ],
)
@pytest.mark.parametrize(
    ("network", "mode"), [(RESTRICTED, NetworkFilter.RESTRICTED), (ENABLED, NetworkFilter.NETWORK_ON)]
)
def test_what_a_legacy_policy_can_say_landlock_can_hold(lines, writable, network, mode):
    made = planned(policy(*lines, network=network), LANDLOCK)
    assert made.backend is Backend.LANDLOCK
    assert made.landlock == LandlockRules(writable, network is RESTRICTED)
    assert made.seccomp == program(mode, "x86_64")
    assert (made.placeholders, made.masked, made.argv) == ((), (), ("true",))


def test_a_plan_of_landlock_says_what_it_does_not_protect():
    assert any("NOT protected" in note for note in planned(policy("read /", "write /w"), LANDLOCK).notes)
    assert not any("NOT protected" in note for note in planned(policy("read /"), LANDLOCK).notes)


def test_a_plan_of_landlock_says_what_the_kernel_lacks():
    said = [note for note in planned(policy("read /"), LANDLOCK, landlock_abi=2).notes if "On this kernel" in note]
    assert "On this kernel any file can be truncated by its path (needs Landlock ABI 3)." in said
    assert not any("On this kernel" in note for note in planned(policy("read /"), LANDLOCK, landlock_abi=6).notes)


def test_landlock_does_not_open_a_root_in_which_keys_are():
    """The private directories were forgotten, and a tool could put another certificate authority in place of ours."""

    def made(contents, *lines):
        disk = ImaginedDisk({"/w": DIRECTORY, "/x/k": DIRECTORY, **contents})
        host = linux(disk, private_paths=("/x/k", "/gone"))
        return plan(policy("read /", "write /w", *lines), Command(("true",), "/w"), host, LANDLOCK)

    key = {"/x/k/run-1": DIRECTORY}
    with pytest.raises(SandboxUnavailable) as refused:
        made(key, "write /x")
    assert refused.value.backend is Backend.LANDLOCK
    assert refused.value.reason.startswith("'/x/k' holds sockets and keys of an agent in a writable root")
    # Nothing is in it, or it cannot be written: then it can only be read, as anything.
    for plan_made in (made({}, "write /x"), made(key)):
        assert any("NOT hidden" in note for note in plan_made.notes)
    with pytest.raises(PolicyError, match="somebody made it a symlink"):
        made({"/gone": Link("/usr")})


def test_landlock_follows_no_root_through_a_symlink_that_a_tool_planted():
    disk = ImaginedDisk({"/w/build": Link("/x"), "/x": DIRECTORY})
    with pytest.raises(PolicyError, match="crosses writable symlink /w/build"):
        plan(policy("read /", "write /w", "write /w/build"), Command(("true",), "/w"), linux(disk), LANDLOCK)


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        (("read /", "deny /w/a"), "deny /w/a"),
        (("read /", "deny /w/*.env"), "deny /w/*.env"),
        (("read /", "write /w", "read /w/a"), "read /w/a"),
        (("read :minimal", "write /w"), "minimal"),
        (("read /w",), "single paths"),
        (("write :root", "read /w/a"), "read /w/a"),
        (("read /", "write /w", "write /w/.git"), "write /w/.git"),
    ],
)
def test_what_landlock_cannot_hold_is_refused_by_the_entry_that_prevents_it(lines, named):
    refused = refusal(policy(*lines), LANDLOCK)
    assert refused.backend is Backend.LANDLOCK
    assert named in refused.reason and "requires bubblewrap" in refused.reason
    # The same policy without the request is bubblewrap's.
    assert planned(policy(*lines)).backend is Backend.BUBBLEWRAP


def test_a_kernel_without_landlock_is_refused_and_bubblewrap_does_not_step_in():
    assert "no Landlock" in refusal(policy("read /"), LANDLOCK, landlock_abi=0).reason
    assert planned(policy("read /"), LANDLOCK, landlock_abi=1).backend is Backend.LANDLOCK


def test_landlock_is_used_only_by_name():
    refused = refusal(policy("read /"), bubblewrap=None, landlock_abi=6)
    assert refused.backend is Backend.BUBBLEWRAP


# The managed network


def test_a_port_of_our_own_attesting_proxy_is_never_bridged():
    managed = Options(managed_ports=(3128, 8080))
    refused = refusal(policy("read /"), managed, proxy_ports=frozenset({8080}))
    assert "port 8080 is this agent's own attesting proxy" in refused.reason
    assert planned(policy("read /"), managed, proxy_ports=frozenset({9090})).bridge_ports == (3128, 8080)
    assert planned(policy("read /"), proxy_ports=frozenset({8080})).backend is Backend.BUBBLEWRAP


def test_the_managed_network_needs_a_namespace_also_where_all_may_be_written():
    managed = Options(managed_ports=(3128,))
    made = planned(EVERYTHING, managed)
    assert made.backend is Backend.BUBBLEWRAP and "--unshare-net" in made.argv
    assert made.argv[made.argv.index("--bind") :][:3] == ("--bind", "/", "/")
    assert "Landlock has none" in refusal(policy("read /"), Options(legacy_landlock=True, managed_ports=(3128,))).reason
