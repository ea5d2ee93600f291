"""The Seatbelt profile: its committed text, and what an evaluator of SBPL says it allows, beside the policy.

No Mac is needed, and none was at hand: `sbpl` stands in for the kernel, `seatbelt_cases` has the policies.
"""

import re
from collections.abc import Mapping
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.sandbox.disk import Kind, Route
from agent.sandbox.paths import normal
from agent.sandbox.plan import Backend, Host, Options, SandboxPlan, SandboxUnavailable, plan
from agent.sandbox.policy import (
    PROTECTED_NAMES,
    PolicyError,
    Profile,
)
from agent.sandbox.seatbelt import MAX_COMMAND_BYTES
from tests.agent.sandbox.imagined_disk import DIRECTORY, File, ImaginedDisk, Link
from tests.agent.sandbox.sbpl import ProfileError, SeatbeltProfile, definitions
from tests.agent.sandbox.seatbelt_cases import (
    APP,
    CASES,
    COMMAND,
    DENY,
    ENABLED,
    GOLDENS,
    MAC,
    READ,
    RESTRICTED,
    WRITE,
    golden,
    host_of,
    managed,
    policy_of,
)


def evaluator(made: SandboxPlan) -> SeatbeltProfile:
    text, params, _ = definitions(made.argv)
    profile = SeatbeltProfile(text, params)
    assert profile.used == set(params), "each -D is named in the profile"
    return profile


def judge(
    profile: Profile, contents: Mapping[str, Kind | File | Link] | None = None, **facts: object
) -> SeatbeltProfile:
    return evaluator(plan(policy_of(profile), COMMAND, host_of(contents, **facts)))


each_case = pytest.mark.parametrize("name", CASES)


@each_case
def test_the_command_line_is_the_committed_one_byte_for_byte(name):
    assert golden(CASES[name].plan()) == (GOLDENS / f"{name}.sb").read_bytes()


def test_each_committed_text_has_its_case():
    assert {path.stem for path in GOLDENS.iterdir()} == set(CASES)


@each_case
def test_the_kernel_would_decide_as_the_policy_does(name):
    case = CASES[name]
    profile, policy = evaluator(case.plan()), policy_of(case.profile)
    disk = host_of(case.contents).disk
    for row in case.rows:
        real = Route(row.path, disk).real
        judged = "r" * profile.may_read(real) + "w" * profile.may_write(real)
        assert judged == row.may, row
        if not row.beyond:
            assert "r" * policy.can_read(row.path) + "w" * policy.can_write(row.path) == row.may, row


@each_case
def test_the_same_policy_gives_the_same_bytes_whatever_the_order_of_its_entries(name):
    case = CASES[name]
    turned = Profile(case.profile.kind, case.profile.network, entries=case.profile.entries[::-1])
    again = plan(policy_of(turned), COMMAND, host_of(case.contents, **case.facts), case.options)
    assert again.argv == case.plan().argv


@each_case
def test_the_command_and_what_it_is_told_are_handed_on(name):
    made = CASES[name].plan()
    assert made.backend is Backend.SEATBELT
    assert definitions(made.argv)[2] == list(COMMAND.argv)
    assert made.cwd == COMMAND.cwd
    told = dict(made.environment)
    assert told.pop("CODEX_SANDBOX") == "seatbelt"
    restricted = CASES[name].profile.network is RESTRICTED
    assert told == ({"CODEX_SANDBOX_NETWORK_DISABLED": "1"} if restricted else {})


NAMES = ["a", "b", ".git", ".codex"]
TREE = ["/", *("/" + "/".join(parts) for n in (1, 2, 3) for parts in product(NAMES, repeat=n))]
PLACES = st.sampled_from(TREE)
LINES = st.lists(st.tuples(PLACES, st.sampled_from([READ, WRITE, DENY])), max_size=6)
FOREST = ImaginedDisk({**dict.fromkeys(TREE, DIRECTORY), "/usr/bin/sandbox-exec": File()}, sealed=frozenset())


@settings(max_examples=300)
@given(LINES, st.booleans(), st.lists(st.tuples(PLACES, st.sampled_from(["", "/x", "/.aws", "/.aws/x"])), max_size=30))
def test_any_policy_on_an_existing_tree_holds_as_it_is_meant(lines, root_reads, asked):
    policy = policy_of(managed(*([(":root", READ)] if root_reads else []), *lines))
    profile = evaluator(plan(policy, COMMAND, Host("darwin", "arm64", 501, FOREST)))
    for path in {normal(place + name) for place, name in asked} | set(policy.rules):
        assert profile.may_read(path) == policy.can_read(path), path
        assert profile.may_write(path) == policy.can_write(path), path


@settings(max_examples=100)
@given(LINES, LINES)
def test_a_denial_more_never_opens_anything(lines, more):
    policies = [
        policy_of(managed(*lines)),
        policy_of(managed(*lines, *((path, DENY) for path, _ in more))),
    ]
    before, after = (evaluator(plan(policy, COMMAND, Host("darwin", "arm64", 501, FOREST))) for policy in policies)
    for path in TREE:
        assert before.may_read(path) >= after.may_read(path)
        assert before.may_write(path) >= after.may_write(path)


# Names that lead elsewhere


def test_a_symlinked_root_is_granted_where_it_leads():
    profile = judge(managed((":root", READ), ("/Users/me/link", WRITE)), {"/Users/me/link": Link("other")})
    assert profile.may_write("/Users/me/other/a")
    assert not profile.may_write("/Users/me/other/.git/a")
    assert not profile.may_write("/Users/me/link")


@pytest.mark.parametrize("name", PROTECTED_NAMES)
@pytest.mark.parametrize("target", ["real", "/Users/me/other", "nowhere"])
def test_a_protected_name_that_is_a_symlink_stops_the_launch(name, target):
    bare = {path: what for path, what in MAC.items() if not path.startswith(f"{APP}/.git")}
    disk = ImaginedDisk({**bare, f"{APP}/real": DIRECTORY, f"{APP}/{name}": Link(target)})
    with pytest.raises(PolicyError, match=re.escape(f"{APP}/{name}")):
        plan(policy_of(managed((":root", READ), (APP, WRITE))), COMMAND, Host("darwin", "arm64", 501, disk))


@pytest.mark.parametrize("access", [READ, DENY])
def test_a_kept_path_behind_a_symlink_that_a_tool_could_turn_stops_the_launch(access):
    with pytest.raises(PolicyError, match=f"{APP}/link"):
        judge(managed((":root", READ), (APP, WRITE), (f"{APP}/link/secret", access)), {f"{APP}/link": Link("src")})


@pytest.mark.parametrize("access", [READ, DENY])
def test_a_kept_path_behind_a_symlink_out_of_reach_is_kept_where_it_leads(access):
    contents = {"/Users/me/link": Link(f"{APP}/src")}
    profile = judge(managed((":root", READ), (APP, WRITE), ("/Users/me/link", access)), contents)
    assert not profile.may_write(f"{APP}/src/a")
    assert profile.may_read(f"{APP}/src/a") == (access is READ)


def test_a_pattern_behind_a_symlink_that_a_tool_could_turn_stops_the_launch():
    contents = {f"{APP}/link": Link("/Users/me/other")}
    with pytest.raises(PolicyError, match=f"{APP}/link"):
        judge(managed((":root", READ), (APP, WRITE), (f"{APP}/link/**/*.env", DENY)), contents)


@pytest.mark.parametrize(
    ("pointer", "kept"),
    [
        ("gitdir: ../other/store", True),
        ("gitdir: /Users/me/other/store", True),
        ("  gitdir:/Users/me/link/store  \n", True),
        ("gitdir: ../other/elsewhere", False),
        ("../other/store", False),
        ("gitdir:", False),
        ("", False),
    ],
)
def test_the_directory_that_a_git_file_names_is_kept_from_writes(pointer, kept):
    bare = {path: what for path, what in MAC.items() if not path.startswith(f"{APP}/.git")}
    tree = {f"{APP}/.git": File(pointer), "/Users/me/other/store": DIRECTORY, "/Users/me/link": Link("other")}
    disk = ImaginedDisk({**bare, **tree})
    policy = policy_of(managed((":root", READ), (APP, WRITE), ("/Users/me/other", WRITE)))
    profile = evaluator(plan(policy, COMMAND, Host("darwin", "arm64", 501, disk)))
    assert profile.may_write("/Users/me/other/store/hooks") == (not kept)
    assert profile.may("file-write-unlink", "/Users/me/other/store") == (not kept)
    assert not profile.may_write(f"{APP}/.git")
    assert profile.may_write("/Users/me/other/a")


def test_an_entry_that_opens_the_directory_of_a_git_file_wins():
    case = CASES["worktree"]
    store = "/Users/me/other/store/app"
    opened = managed(*((e.target, e.access) for e in case.profile.entries), (store, WRITE))
    assert judge(opened, case.contents).may_write(f"{store}/config")


# Letter case


@pytest.mark.parametrize("name", [".GIT", ".Git", ".AGENTS", ".agentſ", ".awſ", ".CodeX"])
def test_a_protected_name_in_another_letter_case_cannot_be_made_either(name):
    profile = judge(managed((":root", READ), (APP, WRITE)))
    assert not profile.may_write(f"{APP}/{name}")
    assert not profile.may_write(f"{APP}/{name}/hooks")


@pytest.mark.parametrize("name", ["git", "x.git", ".gits", ".agent", ".aw", ".awful", ".codexs", "-git"])
def test_names_that_only_resemble_protected_ones_are_free(name):
    assert judge(managed((":root", READ), (APP, WRITE))).may_write(f"{APP}/{name}")


@pytest.mark.parametrize("ignores_case", [True, False])
def test_an_entry_spelled_in_another_letter_case_means_the_name_on_the_disk(ignores_case):
    contents = {"/Users/me/Secrets": DIRECTORY, "/Users/me/Ä": DIRECTORY}
    profile = judge(
        managed((":root", READ), ("/users/ME/secrets", DENY), ("/Users/me/a\u0308", DENY)),
        contents,
        ignores_case=ignores_case,
    )
    assert profile.may_read("/Users/me/Secrets/a") == (not ignores_case)
    assert profile.may_read("/Users/me/other")


# Renames: the kernel asks about the name that goes, not about what it takes along


@pytest.mark.parametrize(
    ("line", "held"),
    [
        ((f"{APP}/src/sub", READ), [f"{APP}/src", APP]),
        ((f"{APP}/src/sub", DENY), [f"{APP}/src", APP]),
        ((f"{APP}/src/**/*.env", DENY), [f"{APP}/src/sub", f"{APP}/src", APP]),
        ((f"{APP}/other", WRITE), [APP]),
    ],
)
def test_what_leads_to_a_kept_path_cannot_be_renamed_away(line, held):
    contents = {f"{APP}/src/sub/x.env": File(), f"{APP}/src/free": DIRECTORY}
    profile = judge(managed((":root", READ), ("/Users/me", WRITE), (APP, WRITE), line), contents)
    for path in [*held, "/Users/me"]:
        assert not profile.may("file-write-unlink", path), path
    for path in (f"{APP}/src/free", f"{APP}/a", "/Users/me/other"):
        assert profile.may("file-write-unlink", path), path
    assert profile.may_write(f"{APP}/src/a")


def test_a_writable_file_cannot_be_replaced_by_a_symlink_for_the_next_launch():
    profile = judge(
        managed((":root", READ), ("/Users/me", WRITE), ("/Users/me/notes", WRITE)), {"/Users/me/notes": File()}
    )
    assert profile.may_write("/Users/me/notes")
    assert not profile.may("file-write-unlink", "/Users/me/notes")
    assert profile.may("file-write-unlink", "/Users/me/other")


def test_the_way_to_the_agents_own_directory_cannot_be_renamed_away():
    profile = judge(
        managed((":root", READ), ("/Users", WRITE)), private_paths=("/Users/me/.codex/run", "/Users/me/.codex/keys")
    )
    assert not profile.may("file-write-unlink", "/Users/me/.codex")
    assert not profile.may("file-write-unlink", "/Users/me")
    assert profile.may("file-write-unlink", "/Users/me/.codex/a")


# The network


def connections(profile: SeatbeltProfile) -> set[tuple[str, int]]:
    ends = product(("127.0.0.1", "::1", "192.0.2.1"), (80, 3128, 3129, 8080, 8443, 9000))
    return {(host, port) for host, port in ends if profile.may_connect(host, port)}


def test_no_network_is_none_at_all():
    profile = evaluator(CASES["workspace-write"].plan())
    assert connections(profile) == set()
    assert not profile.may_connect_to_socket("/private/var/run/mDNSResponder")


def test_the_network_reaches_all_but_the_agents_own_proxies_and_sockets():
    profile = evaluator(CASES["network-and-extra-root"].plan())
    assert ("127.0.0.1", 8080) not in connections(profile)
    assert ("::1", 8443) not in connections(profile)
    assert {("127.0.0.1", 80), ("192.0.2.1", 8080)} <= connections(profile)
    assert profile.may_connect_to_socket("/private/var/run/mDNSResponder")
    assert not profile.may_connect_to_socket("/Users/me/.codex/run/socket")


@pytest.mark.parametrize("network", [RESTRICTED, ENABLED])
@pytest.mark.parametrize("target", [":root", "/Users"])
def test_the_managed_network_is_the_named_ports_and_nothing_else(network, target):
    options = Options(managed_ports=(3128, 3129))
    profile = evaluator(plan(policy_of(managed((target, WRITE), network=network)), COMMAND, host_of(), options))
    assert connections(profile) == set(product(("127.0.0.1", "::1"), (3128, 3129)))
    assert not profile.may_connect_to_socket("/private/var/run/mDNSResponder")


def test_a_managed_network_without_ports_is_no_network():
    options = Options(managed_ports=())
    profile = evaluator(plan(policy_of(managed((":root", READ), network=ENABLED)), COMMAND, host_of(), options))
    assert connections(profile) == set()


def test_the_agents_own_proxy_is_never_a_managed_port():
    policy, options = policy_of(managed((":root", READ))), Options(managed_ports=(3128, 9000))
    with pytest.raises(SandboxUnavailable, match="names port 9000, which is this agent's own attesting proxy"):
        plan(policy, COMMAND, host_of(proxy_ports=frozenset({9000})), options)
    profile = evaluator(plan(policy, COMMAND, host_of(proxy_ports=frozenset({9001})), options))
    assert profile.may_connect("127.0.0.1", 9000)


def test_output_can_always_be_thrown_away():
    profile = evaluator(CASES["read-only"].plan())
    assert profile.may("file-write-data", "/dev/null")
    assert not profile.may("file-write-create", "/dev/null") and not profile.may("file-write-data", "/dev/disk0")


# What macOS cannot do


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"options": Options(legacy_landlock=True)}, "Landlock is Linux only"),
        ({"host": Host("darwin", "arm64", 501, ImaginedDisk({}))}, "'/usr/bin/sandbox-exec' is not on this Mac"),
        ({"policy": policy_of(managed(*((f"/x/{i:050}", READ) for i in range(10_000))))}, "fewer entries"),
    ],
)
def test_what_cannot_be_enforced_is_refused_with_its_reason(change, reason):
    given_ = {"policy": policy_of(managed((":root", READ))), "host": host_of(), "options": Options()}
    plan(given_["policy"], COMMAND, given_["host"], given_["options"])
    changed = given_ | change
    with pytest.raises(SandboxUnavailable, match=reason) as refused:
        plan(changed["policy"], COMMAND, changed["host"], changed["options"])
    assert refused.value.backend is Backend.SEATBELT


def test_ten_thousand_short_entries_are_planned():
    made = plan(policy_of(managed(*((f"/x/{i:05}", READ) for i in range(10_000)))), COMMAND, host_of())
    assert MAX_COMMAND_BYTES / 2 < sum(len(word) + 1 for word in made.argv) <= MAX_COMMAND_BYTES


def test_a_pattern_that_cannot_be_searched_is_refused_where_a_tool_could_rename_its_matches():
    everywhere = ("/**/*.env", DENY)
    assert not judge(managed((":root", READ), everywhere)).may_read("/a.env")
    with pytest.raises(PolicyError, match=r"/\*\*/\*.env"):
        judge(managed((":root", READ), (APP, WRITE), everywhere))


# The evaluator itself: what it must not take


@pytest.mark.parametrize(
    "text",
    [
        "(allow default)",
        "(version 1)(allow default)",
        '(version 1)(deny default)(allow file-raed* (literal "/"))',
        '(version 1)(deny default)(allow file-read* (param "MISSING"))',
        '(version 1)(deny default)(allow file-read* (subpath (param "MISSING")))',
        '(version 1)(deny default)(allow file-read* (regex #"a"b"))',
        r'(version 1)(deny default)(allow file-read* (regex #"^\d"))',
        '(version 1)(deny default)(allow file-read* (regex #"(?:a)"))',
        '(version 1)(deny default)(allow file-read* (literal "/")',
        '(version 1)(deny default)(allow file-read* (literal "/")))',
    ],
)
def test_the_evaluator_refuses_what_a_mac_might(text):
    with pytest.raises(ProfileError):
        SeatbeltProfile(text, {})


def test_the_evaluator_lets_the_last_rule_decide():
    start = '(version 1)\n(deny default)\n(allow file-read* (subpath "/a"))\n'
    profile = SeatbeltProfile(
        start + '(deny file-read-data (literal "/a/b")) ; (allow default)\n(allow file-write* (regex #"^/a/c$"))', {}
    )
    assert profile.may_read("/a/x") and profile.may_read("/a") and not profile.may_read("/ab")
    assert not profile.may_read("/a/b") and profile.may("file-read-metadata", "/a/b")
    assert profile.may_write("/a/c") and not profile.may_write("/a/c\n") and not profile.may_write("/a/cd")
