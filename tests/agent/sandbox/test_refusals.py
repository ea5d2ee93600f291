"""What an earlier command may have prepared on the disk, and stops the launch: on Linux and on macOS."""

import pytest

from agent.sandbox.ground import Ground, MaskKind
from agent.sandbox.plan import Host, plan
from agent.sandbox.policy import PolicyError
from tests.agent.sandbox.imagined_disk import DIRECTORY, File, ImaginedDisk, Link
from tests.agent.sandbox.policies import policy
from tests.agent.sandbox.sbpl import SeatbeltProfile, definitions
from tests.agent.sandbox.seatbelt_cases import APP, COMMAND, DENY, MAC, READ, WRITE, host_of, managed, policy_of

CROSSING = "cannot enforce sandbox {} {} because it crosses writable symlink {}"


def ground(contents, *lines):
    return Ground(policy(*lines), ImaginedDisk({"/w": DIRECTORY, **contents}))


def denied(contents, *lines, private):
    return {mask.path: mask.kind for mask in ground(contents, *lines).denied(private)}


# Roots that a tool could turn


@pytest.mark.parametrize(
    ("contents", "entry", "link"),
    [
        ({"/w/build": Link("/victim"), "/victim": DIRECTORY}, "write /w/build", "/w/build"),
        ({"/w/build": Link("/victim")}, "write /w/build", "/w/build"),
        ({"/w/a": Link("/victim"), "/victim/b": DIRECTORY}, "write /w/a/b", "/w/a"),
        ({"/w/a": Link("/victim"), "/victim/b": DIRECTORY}, "write /w/a/b/c", "/w/a"),
        ({"/to": Link("/w/l"), "/w/l": Link("/victim"), "/victim": DIRECTORY}, "write /to", "/w/l"),
        ({"/w/l": Link("inside"), "/w/inside": DIRECTORY}, "write /w/l", "/w/l"),
    ],
)
def test_a_writable_root_behind_a_symlink_that_a_tool_could_turn_is_refused(contents, entry, link):
    with pytest.raises(PolicyError) as refused:
        ground(contents, "read /", "write /w", entry)
    assert str(refused.value) == CROSSING.format("writable root", entry.split()[1], link)
    assert "/victim" not in ground(contents, "read /", "write /w").writable


def test_a_writable_root_behind_a_symlink_that_no_tool_can_turn_is_where_it_leads():
    contents = {"/alias": Link("/w"), "/theirs/l": Link("/x"), "/x": DIRECTORY}
    assert ground(contents, "read /", "write /alias", "write /theirs/l").writable == ["/w", "/x"]
    # Where all may be written nothing is gained by turning one.
    assert "/x" in ground(contents, "write :root", "write /theirs/l").writable


# Directories that cannot be looked into


@pytest.mark.parametrize(
    ("pointer", "line", "what"),
    [
        ("", "deny /w/a/b/secret", "denied path /w/a/b/secret"),
        ("", "read /w/a/b/kept", "read-only path /w/a/b/kept"),
        ("", "write /w/a/b", "writable root /w/a/b"),
        ("gitdir: a/b", "read /w/other", "read-only path /w/a/b"),
    ],
)
def test_what_seems_to_be_missing_in_a_directory_that_a_tool_could_have_shut_is_refused(pointer, line, what):
    contents = {"/w/.git": File(pointer), "/w/a/b": DIRECTORY, "/w/other": DIRECTORY, "/w": DIRECTORY}
    asked = policy("read /", "write /w", line)

    def masks(barred):
        spot = Ground(asked, ImaginedDisk(contents, barred=frozenset(barred)))
        return spot.read_only() + spot.denied()

    with pytest.raises(PolicyError) as refused:
        masks({"/w/a"})
    assert str(refused.value).startswith(f"cannot enforce sandbox {what} because /w/a cannot be looked into")
    assert masks(set())
    # Outside what is writable a tool can change no mode.
    outside = Ground(policy("read /", "write /w", "deny /o/a/x"), ImaginedDisk({"/w": DIRECTORY}, barred={"/o/a"}))
    assert outside.denied() == []


# Private directories


@pytest.mark.parametrize("target", [Link("/out"), Link("/gone"), Link("store")])
def test_a_pointer_file_through_a_symlink_that_a_tool_could_turn_is_refused(target):
    """git would follow it to whatever the tool makes of it, hooks and all."""
    contents = {"/w/.git": File("gitdir: l/gd"), "/w/l": target, "/out/gd": DIRECTORY, "/w/store/gd": DIRECTORY}
    with pytest.raises(PolicyError) as refused:
        ground(contents, "read /", "write /w").read_only()
    assert str(refused.value) == CROSSING.format("read-only path", "/w/l/gd", "/w/l")
    fixed = {"/w/.git": File("gitdir: /l/gd"), "/l": Link("/w/store"), "/w/store/gd": DIRECTORY}
    assert "/w/store/gd" in {mask.path for mask in ground(fixed, "read /", "write /w").read_only()}


@pytest.mark.parametrize(
    ("contents", "lines", "text"),
    [
        ({"/run/k": Link("/usr"), "/usr": DIRECTORY}, (), "/run/k is kept for sockets and keys of the agent, and some"),
        ({"/run/k": Link("/gone")}, (), "/run/k is kept for sockets and keys of the agent, and somebody made it"),
        (
            {"/run": Link("/w/run"), "/w/run": Link("x"), "/w/x/k": DIRECTORY},
            (),
            "cannot enforce sandbox private path /run/k because it crosses writable symlink /w/run",
        ),
        ({"/run/k/run-1": DIRECTORY}, ("read /run/k/run-1",), "'read /run/k/run-1' opens /run/k/run-1, and in /run/k"),
        ({"/run/k/run-1": DIRECTORY}, ("write /run/k",), "'write /run/k' opens /run/k, and in /run/k"),
        ({"/l": Link("/run/k/x"), "/run/k/x": DIRECTORY}, ("write /l",), "'write /l' opens /run/k/x, and in /run/k"),
    ],
)
def test_a_private_directory_that_would_not_be_hidden_stops_the_launch(contents, lines, text):
    with pytest.raises(PolicyError) as refused:
        denied(contents, "read /", "write /w", *lines, private=("/run/k",))
    assert str(refused.value).startswith(text)


def test_a_private_directory_behind_a_symlink_of_the_system_is_hidden_where_it_leads():
    contents = {"/var/run": Link("/run"), "/run/k": DIRECTORY}
    expected = {"/run/k": MaskKind.DENIED_DIRECTORY}
    assert denied(contents, "read /", "write /run", private=("/var/run/k",)) == expected


# macOS


def judge(profile, contents, **facts):
    text, params, _ = definitions(plan(policy_of(profile), COMMAND, host_of(contents, **facts)).argv)
    return SeatbeltProfile(text, params)


@pytest.mark.parametrize("path", [f"{APP}/build", f"{APP}/build/deep", "/Users/me/alias"])
def test_a_writable_root_behind_a_symlink_that_a_tool_could_turn_stops_the_launch(path):
    """-DWRITABLE_ROOT_0 was the victim, whatever a tool had made of a missing root meanwhile."""
    lines = managed((":root", READ), (APP, WRITE), (path, WRITE))
    planted = {f"{APP}/build": Link("/Users/me/other"), "/Users/me/alias": Link(f"{APP}/build")}
    with pytest.raises(PolicyError, match=f"writable root {path} because it crosses writable symlink {APP}/build"):
        judge(lines, planted)
    assert not judge(lines, {f"{APP}/build/deep": DIRECTORY}).may_write("/Users/me/other/a")
    without = judge(managed((":root", READ), ("/Users/me/alias", WRITE)), {"/Users/me/alias": Link("other")})
    assert without.may_write("/Users/me/other/a")


def test_a_private_directory_that_somebody_made_a_symlink_stops_the_launch():
    keys = "/Users/me/.codex/run"
    with pytest.raises(PolicyError, match=f"{keys} is kept for sockets and keys"):
        judge(managed((":root", READ)), {keys: Link("/usr")}, private_paths=(keys,))
    assert not judge(managed((":root", READ)), {keys: DIRECTORY}, private_paths=(keys,)).may_read(f"{keys}/a")


def test_names_in_a_directory_that_cannot_be_listed_are_taken_as_they_are_spelled():
    disk = ImaginedDisk({**MAC, f"{APP}/src": DIRECTORY}, barred=frozenset({f"{APP}/src"}))
    policy = policy_of(managed((":root", READ), ("/Users/me/other", WRITE), (f"{APP}/src/x", DENY)))
    assert not SeatbeltProfile(
        *definitions(plan(policy, COMMAND, Host("darwin", "arm64", 501, disk)).argv)[:2]
    ).may_read(f"{APP}/src/x")
