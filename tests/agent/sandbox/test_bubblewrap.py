"""The bubblewrap command line of a policy, read back as the mounts that it makes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.sandbox.disk import Kind
from agent.sandbox.ground import Ground
from agent.sandbox.paths import ancestors, is_under
from agent.sandbox.plan import Bubblewrap, Command, Options, Placeholder, SandboxUnavailable, plan
from agent.sandbox.seccomp import NetworkFilter, program
from tests.agent.sandbox.imagined_disk import DIRECTORY, File, ImaginedDisk, Link
from tests.agent.sandbox.mounts import bound, flags, mounts, planned, steps, view
from tests.agent.sandbox.policies import BWRAP, ENABLED, RESTRICTED, linux, policy

# What is mounted


def test_everything_readable_is_the_whole_tree_read_only():
    argv = planned({}, "read /").argv
    assert mounts(argv) == [("--ro-bind", "/", "/"), ("--dev", "/dev", "/dev"), ("--proc", "/proc", "/proc")]


def test_limited_reads_are_an_empty_tree_with_the_roots_that_exist():
    contents = {"/usr": DIRECTORY, "/etc": DIRECTORY, "/bin": Link("usr/bin"), "/usr/bin": DIRECTORY, "/r": DIRECTORY}
    argv = planned(contents, "read :minimal", "read /r", "read /gone", "write /w").argv
    roots = [where for option, _, where in mounts(argv) if option == "--ro-bind"]
    assert mounts(argv)[0] == ("--tmpfs", "/", "/")
    assert roots[:3] == ["/etc", "/r", "/usr"]
    assert ("--symlink", "/usr/bin", "/bin") in steps(argv)
    assert [view(argv, path) for path in ("/r/x", "/w/x", "/home/x", "/gone")] == [
        "read",
        "write",
        "nothing",
        "nothing",
    ]


def test_where_the_whole_disk_may_be_written_nothing_is_masked_in_its_root():
    """Placeholders were made in `/`. As observed it is the host's tree as it is; only a literal `/` has the names."""
    managed = Options(managed_ports=(3128,))
    made = planned({"/.git": DIRECTORY}, "write :root", options=managed, host={"private_paths": ("/w",)})
    assert mounts(made.argv)[0] == ("--bind", "/", "/")
    assert (made.placeholders, made.masked) == ((), ("/w",))
    assert "/.git" in planned({"/.git": DIRECTORY}, "write /", options=managed).masked


def test_a_denied_proc_is_masked_the_hosts_and_after_its_mount_a_fresh_one():
    for options in (None, Options(no_proc=True), Options(keep_pid_namespace=True)):
        assert (
            view(planned({"/proc/1": DIRECTORY}, "read /", "deny /proc", options=options).argv, "/proc/1") == "nothing"
        )
    assert view(planned({"/proc/1": DIRECTORY}, "read /").argv, "/proc/1") == "--proc"
    forbidden = {"bubblewrap": Bubblewrap(BWRAP, mounts_proc=False)}
    assert view(planned({"/proc/1": DIRECTORY}, "read /", "deny /proc", host=forbidden).argv, "/proc/1") == "nothing"


def test_a_writable_root_directory_keeps_its_protected_names():
    argv = planned({"/.git": DIRECTORY}, "write /").argv
    assert mounts(argv)[0] == ("--bind", "/", "/")
    assert [view(argv, path) for path in ("/x", "/.git/x", "/dev/sda", "/dev/shm/x")] == [
        "write",
        "read",
        "--dev",
        "write",
    ]


def test_a_symlinked_root_is_bound_at_its_target():
    argv = planned({"/link": Link("/w")}, "read /", "write /link").argv
    assert ("--bind", "/w", "/w") in mounts(argv)
    assert not any("/link" in step for step in steps(argv))


def test_a_reopened_directory_is_closed_only_after_its_mount_points_are_made():
    argv = planned({"/d/w": DIRECTORY, "/e": DIRECTORY}, "read /", "deny /d", "write /d/w", "deny /e").argv
    text = " ".join(argv)
    assert "--perms 0111 --tmpfs /d " in text and "--perms 0000 --tmpfs /e --remount-ro /e" in text
    assert text.index("--tmpfs /d ") < text.index("--bind /d/w /d/w") < text.index("--remount-ro /d ")


def test_below_a_denied_directory_nothing_is_opened_for_reading_also_in_an_empty_tree():
    contents = {"/d/r": DIRECTORY, "/d/w": DIRECTORY}
    argv = planned(contents, "deny /d", "read /d/r", "write /d/w", "read /w").argv
    assert [view(argv, path) for path in ("/d/x", "/d/r/x", "/d/w/x", "/w/x")] == [
        "nothing",
        "nothing",
        "write",
        "read",
    ]


def test_a_denied_file_is_covered_by_a_device_that_the_mount_forbids_to_open():
    argv = planned({"/w/key": File("secret")}, "read /", "write /w", "deny /w/key").argv
    assert ("--ro-bind", "/dev/null", "/w/key") in mounts(argv)


def test_a_fresh_proc_keeps_the_kernels_settings_from_user_0_and_can_be_left_out():
    guarded = ("--ro-bind", "/proc/sys", "/proc/sys")
    assert guarded in mounts(planned({}, "read /", host={"uid": 0}).argv)
    assert guarded not in mounts(planned({}, "read /").argv)
    for options in (Options(no_proc=True), Options(keep_pid_namespace=True)):
        assert "--proc" not in planned({}, "read /", options=options).argv
    forbidden = {"bubblewrap": Bubblewrap(BWRAP, mounts_proc=False)}
    assert "--proc" not in planned({}, "read /", host=forbidden).argv


# Namespaces and filters


@pytest.mark.parametrize(
    ("network", "options", "isolated", "mode"),
    [
        (RESTRICTED, None, True, NetworkFilter.RESTRICTED),
        (ENABLED, None, False, NetworkFilter.NETWORK_ON),
        (RESTRICTED, Options(managed_ports=(3128,)), True, NetworkFilter.PROXY_ROUTED),
        (ENABLED, Options(managed_ports=(3128,)), True, NetworkFilter.PROXY_ROUTED),
    ],
)
def test_the_network_namespace_and_the_filter_follow_the_network(network, options, isolated, mode):
    made = planned({}, "read /", network=network, options=options)
    given_flags = flags(made.argv)
    assert ("--unshare-net" in given_flags) is isolated
    assert made.seccomp == program(mode, "x86_64")
    assert dict(made.environment) == ({"CODEX_SANDBOX_NETWORK_DISABLED": "1"} if network is RESTRICTED else {})
    assert ("--block-fd" in given_flags) is (options is not None)
    assert made.bridge_ports == (() if options is None else (3128,))


def test_the_callers_pid_namespace_is_kept_only_on_request():
    assert "--unshare-pid" in flags(planned({}, "read /").argv)
    assert "--unshare-pid" not in flags(planned({}, "read /", options=Options(keep_pid_namespace=True)).argv)


def test_the_placeholders_of_a_plan_are_what_is_missing_and_all_masks_are_listed():
    made = planned({"/w/.git": DIRECTORY}, "read /", "write /w", "deny /w/key")
    assert set(made.placeholders) == {
        Placeholder("/w/key", directory=False),
        *(Placeholder(f"/w/{name}", directory=True) for name in (".agents", ".aws", ".codex")),
    }
    assert set(made.masked) == {"/w/.git", *(held.path for held in made.placeholders)}
    assert "--sync-fd" in made.argv
    assert "--sync-fd" not in planned({}, "read /").argv


# The working directory


@pytest.mark.parametrize(
    ("lines", "cwd", "expected"),
    [
        (("read /",), "/w", "/w"),
        (("read /",), "/link", "/w"),
        (("read /r",), "/w", "/"),
        (("read /", "deny /w"), "/w", "/"),
        (("read /", "deny /d", "write /d/w"), "/d/w", "/d/w"),
        (("read /", "deny /d", "read /d/w"), "/d/w", "/"),
        (("read /", "deny /d"), "/d/w", "/"),
    ],
)
def test_a_working_directory_that_the_command_would_not_find_is_the_root(lines, cwd, expected):
    """A readable directory below a denied one was once entered, though nothing reopens it; bubblewrap then failed."""
    argv = planned({"/link": Link("w"), "/d/w": DIRECTORY, "/r": DIRECTORY}, *lines, cwd=cwd).argv
    assert flags(argv)["--chdir"] == (expected,)


@pytest.mark.parametrize(
    ("lines", "cwd", "expected"),
    [
        (("read /", "deny /w"), "/w", "/home/me"),
        (("read /", "deny /w", "deny /home"), "/w", "/"),
        (("read /r",), "/w", "/"),
        (("read /r", "read /home"), "/w", "/home/me"),
        # bubblewrap makes the directories above what it mounts.
        (("read :minimal", "write /w/a/b"), "/w", "/w"),
        (("read :minimal", "read /w/a/b"), "/w/a", "/w/a"),
        (("read :minimal", "read /w/a/b"), "/w/a/c", "/"),
        (("read /", "deny /w", "write /w/a/b"), "/w/a", "/w/a"),
        (("read /",), "/dev/shm", "/dev/shm"),
        (("read /", "deny /dev/shm"), "/dev/shm", "/home/me"),
        (("read /",), "/dev/shm/x", "/home/me"),
    ],
)
def test_a_command_whose_directory_is_not_there_starts_at_home_or_else_at_the_root(lines, cwd, expected):
    contents = {"/w/a/b": DIRECTORY, "/w/a/c": DIRECTORY, "/r": DIRECTORY, "/home/me": DIRECTORY}
    contents |= {"/dev/shm/x": DIRECTORY}
    argv = planned(contents, *lines, cwd=cwd, host={"home": "/home/me"}).argv
    assert flags(argv)["--chdir"] == (expected,)


@pytest.mark.parametrize("cwd", ["/gone", "/w/file", "/loop"])
def test_a_working_directory_that_is_none_is_refused(cwd):
    with pytest.raises(SandboxUnavailable, match=f"'{cwd}' is not a directory"):
        planned({"/w/file": File(), "/loop": Link("loop")}, "read /", cwd=cwd)


# Bad input


def test_a_name_with_a_quote_a_newline_or_a_dash_is_one_word():
    names = ["/w/a b", "/w/it's", '/w/"', "/w/new\nline", "/w/--bind"]
    argv = planned(dict.fromkeys(names, DIRECTORY), "read /", *(f"write {name}" for name in names)).argv
    assert {where for option, _, where in mounts(argv) if option == "--bind"} == set(names)


def test_the_words_of_the_command_come_last_and_unchanged():
    words = ("--bind", "/", "/", "--", "")
    assert planned({}, "read /", argv=words).argv[-6:] == ("--", *words)


def test_a_policy_of_too_many_words_is_refused_with_what_to_do_and_a_long_command_is_not():
    def many(count):
        contents = {f"/w/{number}": File() for number in range(count)}
        return planned(contents, "read /", *(f"deny {path}" for path in contents), argv=("echo", *"x" * 9000))

    assert len(many(2900).argv) > 9000
    with pytest.raises(SandboxUnavailable, match="9000 words at most; deny or grant whole directories"):
        many(3100)


# Any policy


names = st.sampled_from(["a", "b", ".git", ".aws"])
paths = st.lists(names, min_size=1, max_size=4).map(lambda parts: "/w/" + "/".join(parts))
lines = st.lists(
    st.builds("{} {}".format, st.sampled_from(["read", "write", "deny"]), st.one_of(paths, st.just("/"))), max_size=7
)
directories = st.lists(paths, max_size=8)
files = st.lists(paths, max_size=3)


@given(lines, directories, files, st.booleans())
def test_any_policy_is_mounted_outer_before_inner_and_grants_no_more_than_it_says(
    given_lines, held_directories, held_files, minimal
):
    whole = {above for path in ["/usr", "/w", *held_directories] for above in ancestors(path)} - {"/"}
    plain = [path for path in held_files if path not in whole]
    plain = [path for path in plain if not set(list(ancestors(path))[1:]) & set(plain)]
    contents = {**dict.fromkeys(whole, DIRECTORY), **{path: File() for path in plain}}
    disk = ImaginedDisk(contents)
    asked = policy(*given_lines, *(["read :minimal"] if minimal else []), cwd="/w")
    made = plan(asked, Command(("true",), "/w"), linux(disk))
    spot = Ground(asked, disk)
    order = [where for _, _, where in mounts(made.argv)]
    for earlier, inner in enumerate(order):
        # The same place twice (a root bound, then masked) is fine: the later one counts.
        assert not any(outer != inner and is_under(inner, outer) for outer in order[earlier + 1 :] if outer != "/proc")
    given_flags = flags(made.argv)
    assert given_flags["--cap-drop"] == ("ALL",) and given_flags["--seccomp"] == ("3",)
    assert {"--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-net"} <= given_flags.keys()
    assert {"--new-session", "--die-with-parent"} <= given_flags.keys()
    masks = [*spot.read_only(), *spot.denied()]
    assert set(bound(made.argv)) == {*spot.writable, *spot.held_in_place(masks)}
    assert {mask.path for mask in masks} == set(made.masked) <= set(order)
    for path in order:
        # Nothing between a writable root and what is mounted below it can be moved.
        way = list(ancestors(path))[1:]
        root = next((above for above in way if above in set(spot.writable) | set(made.masked)), "/")
        assert root not in spot.writable or {above for above in way if is_under(above, root)} <= set(order), path
    for path in [*contents, *(f"{path}/new" for path in whole)]:
        seen = view(made.argv, path)
        if seen == "write":
            assert asked.can_write(path), path
        if seen == "read" and not (minimal and is_under(path, "/usr")):
            assert asked.can_read(path), path
        rule = asked.rule_for(path)
        if asked.can_write(path) and rule is not None and disk.kind(rule.path) is Kind.DIRECTORY:
            assert seen == "write", path
