"""What of a policy has to be mounted over what, on imagined disks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.sandbox.disk import Kind
from agent.sandbox.ground import Ground, MaskKind
from agent.sandbox.legacy import LegacyPolicy, Mode, to_profile
from agent.sandbox.paths import ancestors
from agent.sandbox.policy import PROTECTED_NAMES, Places, PolicyError, resolve
from tests.agent.sandbox.imagined_disk import DIRECTORY, File, ImaginedDisk, Link
from tests.agent.sandbox.policies import policy

DIRECTORY_MADE, FILE_MADE = True, False
READ_ONLY, DENIED_DIRECTORY, DENIED_FILE = MaskKind
PROTECTED = {f"/w/{name}": (READ_ONLY, DIRECTORY_MADE) for name in PROTECTED_NAMES}


def ground(contents, *lines, **options):
    return Ground(policy(*lines, **options), ImaginedDisk({"/w": DIRECTORY, **contents}))


def shown(masks):
    """path -> (kind, what is to be made)"""
    paths = [mask.path for mask in masks]
    assert len(paths) == len(set(paths))
    return {mask.path: (mask.kind, mask.placeholder) for mask in masks}


def read_only(contents, *lines, **options):
    return shown(ground(contents, *lines, **options).read_only())


def denied(contents, *lines, private=(), **options):
    return shown(ground(contents, *lines, **options).denied(private))


# Read-only


def test_each_protected_name_is_masked_whatever_it_is_and_made_where_it_is_missing():
    masks = read_only({"/w/.git": DIRECTORY, "/w/.codex": File()}, "read /", "write /w")
    assert masks == PROTECTED | {"/w/.git": (READ_ONLY, None), "/w/.codex": (READ_ONLY, None)}


def test_only_the_top_of_a_writable_root_is_protected():
    contents = {"/w/sub/.git": DIRECTORY, "/w/.gitignore": File(), "/r/.git": DIRECTORY}
    assert read_only(contents, "read /", "write /w", "read /r") == PROTECTED


def test_a_writable_file_has_no_protected_names():
    assert read_only({"/w/one": File()}, "read /", "write /w/one") == {}
    assert read_only({"/w/one": DIRECTORY}, "read /", "write /w/one") != {}


def test_a_name_that_is_written_explicitly_is_not_protected():
    contents = {"/w/.git": DIRECTORY}
    without = PROTECTED.keys() - {"/w/.git"}
    assert read_only(contents, "read /", "write /w", "write /w/.git").keys() >= without
    assert "/w/.git" not in read_only(contents, "read /", "write /w", "write /w/.git")
    # That grant is itself a writable root, with names of its own.
    assert "/w/.git/.git" in read_only(contents, "read /", "write /w", "write /w/.git")


def test_writing_below_a_protected_name_opens_that_and_not_the_name():
    spot = ground({"/w/.git/hooks": DIRECTORY}, "read /", "write /w", "write /w/.git/hooks")
    assert shown(spot.read_only())["/w/.git"] == (READ_ONLY, None)
    assert spot.writable == ["/w", "/w/.git/hooks"]


def test_a_read_entry_inside_a_writable_root_is_masked_and_one_outside_is_not():
    contents = {"/w/docs": DIRECTORY, "/w/notes": File(), "/r": DIRECTORY}
    masks = read_only(contents, "read /", "write /w", "read /w/docs", "read /w/notes", "read /r")
    assert masks == PROTECTED | {"/w/docs": (READ_ONLY, None), "/w/notes": (READ_ONLY, None)}


def test_a_missing_read_entry_is_held_at_its_first_missing_component_by_an_empty_file():
    masks = read_only({}, "read /", "write /w", "read /w/a/b/c", "read /w/.git/hooks")
    assert masks == PROTECTED | {"/w/a": (READ_ONLY, FILE_MADE)}


def test_what_stands_in_a_sealed_directory_needs_no_placeholder():
    """Once the workspace-write policy spelled the names out and so could not start where nobody may make them."""
    workspace = resolve(to_profile(LegacyPolicy(Mode.WORKSPACE_WRITE)), Places("/w", ("/w",), None, False))

    def held(sealed):
        return shown(Ground(workspace, ImaginedDisk({"/w/.git": DIRECTORY}, sealed=sealed)).read_only())

    assert held(frozenset({"/w"})) == {"/w/.git": (READ_ONLY, None)}
    assert held(frozenset()) == PROTECTED | {"/w/.git": (READ_ONLY, None)}


# Pointer files of git


@pytest.mark.parametrize(
    "text",
    [
        "gitdir: store/tree",
        "gitdir:store/tree\n",
        "  gitdir: \t store/tree  \n\nmore",
        "gitdir: /w/store/tree",
        "gitdir: store/tree\r\n",
        "\n\ngitdir : store/tree\nworktree: elsewhere\n",
        "gitdir: ./store//tree/" + "\n" * 9000,
    ],
)
def test_a_pointer_file_protects_the_directory_that_it_names(text):
    contents = {"/w/.git": File(text), "/w/store/tree": DIRECTORY}
    assert read_only(contents, "read /", "write /w") == PROTECTED | {
        "/w/.git": (READ_ONLY, None),
        "/w/store/tree": (READ_ONLY, None),
    }


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("gitdir: store \n", "store "),
        ("gitdir:  store\r\n\r\n", " store"),
        ("gitdir: a\nb\n", "a\nb"),
        ("gitdir: store\0 and more\n", "store"),
        ("gitdir: " + "d" * 4090, "d" * 4090),
    ],
)
def test_what_git_itself_reads_in_a_pointer_file_is_protected_too(text, name):
    """git takes all behind "gitdir: " but the line ends after it: a blank at the end named another directory."""
    assert f"/w/{name}" in read_only({"/w/.git": File(text), f"/w/{name}": DIRECTORY}, "read /", "write /w")
    trimmed = name.partition("\n")[0].strip()
    if "\0" not in text:
        both = {"/w/.git": File(text), f"/w/{name}": DIRECTORY, f"/w/{trimmed}": DIRECTORY}
        assert {f"/w/{name}", f"/w/{trimmed}"} <= read_only(both, "read /", "write /w").keys()


@pytest.mark.parametrize(
    "text",
    ["", "gitdir", "gitdir:", "gitdir:  \n", "store/tree", "worktree: store/tree", "gitdir: none", "git\0dir: x"],
)
def test_of_a_malformed_pointer_only_the_file_is_protected(text):
    contents = {"/w/.git": File(text), "/w/store/tree": DIRECTORY}
    assert read_only(contents, "read /", "write /w") == PROTECTED | {"/w/.git": (READ_ONLY, None)}


def test_a_pointer_into_another_writable_root_protects_there_and_one_elsewhere_needs_nothing():
    contents = {"/w/.git": File("gitdir: ../other/store"), "/other/store": DIRECTORY}
    assert "/other/store" in read_only(contents, "read /", "write /w", "write /other")
    assert "/other/store" not in read_only(contents, "read /", "write /w")


def test_an_explicit_write_on_the_named_directory_wins():
    contents = {"/w/.git": File("gitdir: store"), "/w/store": DIRECTORY}
    assert "/w/store" not in read_only(contents, "read /", "write /w", "write /w/store")
    for other in ("write /w/other", "write /w/.git", "deny /w/.git"):
        assert "/w/store" in read_only(contents, "read /", "write /w", other)


def test_a_pointer_through_a_symlink_and_back_is_followed_as_git_follows_it():
    """`..` was taken off the text, so another directory was protected than the one that git uses."""
    contents = {
        "/w/.git": File("gitdir: /link/../store"),
        "/link": Link("/w/deep/inner"),
        "/w/deep/inner": DIRECTORY,
        "/w/deep/store": DIRECTORY,
        "/store": DIRECTORY,
    }
    assert "/w/deep/store" in read_only(contents, "read /", "write /w")


# Denied


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        ({"/w/x": DIRECTORY}, {"/w/x": (DENIED_DIRECTORY, None)}),
        ({"/w/x": File()}, {"/w/x": (DENIED_FILE, None)}),
        ({}, {"/w/x": (DENIED_FILE, FILE_MADE)}),
    ],
)
def test_a_denied_path_in_a_writable_root_is_masked_by_what_it_is(contents, expected):
    assert denied(contents, "read /", "write /w", "deny /w/x") == expected


def test_a_denied_path_that_is_missing_is_held_only_where_it_could_be_made():
    assert denied({}, "read /", "write /w", "deny /w/a/b", "deny /gone/x") == {"/w/a": (DENIED_FILE, FILE_MADE)}
    sealed = Ground(
        policy("read /", "write /w", "deny /w/x"), ImaginedDisk({"/w": DIRECTORY}, sealed=frozenset({"/w"}))
    )
    assert sealed.denied() == []


def test_a_sealed_directory_below_the_root_could_be_moved_away_with_its_name():
    disk = ImaginedDisk({"/w/theirs": DIRECTORY}, sealed=frozenset({"/w/theirs"}))
    spot = Ground(policy("read /", "write /w", "deny /w/theirs/x", "read /w/theirs/y"), disk)
    assert shown(spot.denied()) == {"/w/theirs/x": (DENIED_FILE, FILE_MADE)}
    assert "/w/theirs/y" in shown(spot.read_only())
    fixed = ImaginedDisk({"/w/theirs": DIRECTORY}, sealed=frozenset({"/w/theirs", "/w"}))
    assert Ground(spot.policy, fixed).denied() == Ground(spot.policy, fixed).read_only() == []


def test_a_symlink_that_only_others_can_turn_is_followed():
    contents = {"/w/theirs/l": Link("/r"), "/r": DIRECTORY, "/w": DIRECTORY}
    asked = policy("read /", "write /w", "deny /w/theirs/l")
    masks = Ground(asked, ImaginedDisk(contents, sealed=frozenset({"/w/theirs", "/w"}))).denied()
    assert shown(masks) == {"/r": (DENIED_DIRECTORY, None)}
    for sealed in (frozenset({"/w/theirs"}), frozenset({"/w"}), frozenset()):
        with pytest.raises(PolicyError, match="crosses writable symlink /w/theirs/l"):
            Ground(asked, ImaginedDisk(contents, sealed=sealed)).denied()


def test_a_denied_path_outside_writable_roots_is_masked_where_it_would_be_seen():
    contents = {"/s": File(), "/d/x": File(), "/usr/key": File(), "/r/x": DIRECTORY}
    seen = {"/s": (DENIED_FILE, None), "/d": (DENIED_DIRECTORY, None)}
    assert denied(contents, "read /", "deny /s", "deny /d") == seen
    assert denied(contents, "read :minimal", "read /r", "deny /s", "deny /d") == {}
    assert denied(contents, "read :minimal", "deny /usr/key") == {"/usr/key": (DENIED_FILE, None)}
    assert denied(contents, "read /r", "deny /r/x") == {"/r/x": (DENIED_DIRECTORY, None)}


def test_below_a_denied_directory_only_writing_is_reopened():
    contents = {"/d/read": DIRECTORY, "/d/write": DIRECTORY, "/d/hidden": File()}
    spot = ground(contents, "read /", "deny /d", "read /d/read", "write /d/write", "deny /d/hidden")
    assert shown(spot.denied()) == {"/d": (DENIED_DIRECTORY, None)}
    assert spot.reopened("/d")
    assert not ground(contents, "read /", "deny /d", "read /d/read").reopened("/d")
    assert spot.writable == ["/d/write"]


def test_what_is_denied_again_below_a_reopened_directory_is_masked_again():
    contents = {"/d/w/x": DIRECTORY}
    masks = denied(contents, "read /", "deny /d", "write /d/w", "deny /d/w/x")
    assert masks == {"/d": (DENIED_DIRECTORY, None), "/d/w/x": (DENIED_DIRECTORY, None)}


def test_a_deny_pattern_masks_the_files_that_match_now():
    contents = {"/w/a.env": File(), "/w/sub/b.env": File(), "/w/c.txt": File(), "/w/d.env": DIRECTORY}
    assert denied(contents, "read /", "deny /w/**/*.env") == {
        "/w/a.env": (DENIED_FILE, None),
        "/w/sub/b.env": (DENIED_FILE, None),
    }
    assert denied(contents, "read /", "deny /w/**/*.env", depth=1) == {"/w/a.env": (DENIED_FILE, None)}
    assert denied(contents, "read /", "deny /w/**/*.env", "deny /w/sub").keys() == {"/w/a.env", "/w/sub"}


def test_private_directories_are_denied_wherever_the_view_would_show_them():
    contents = {"/tmp/keys": DIRECTORY, "/dev/shm/keys": DIRECTORY}
    private = ("/tmp/keys", "/dev/shm/keys", "/tmp/none")
    assert denied(contents, "read /", private=private) == {"/tmp/keys": (DENIED_DIRECTORY, None)}
    assert denied(contents, "read :minimal", private=private) == {}
    assert denied(contents, "read :minimal", "write /tmp", private=private) == {"/tmp/keys": (DENIED_DIRECTORY, None)}


def test_where_the_hosts_shared_memory_is_seen_its_private_parts_are_denied_too():
    """With a writable root directory /dev/shm is the host's, and the agent's records in it could be rewritten."""
    contents = {"/dev/shm/keys": DIRECTORY, "/dev/shm/s": File(), "/dev/input": File()}
    masks = denied(contents, "write /", "deny /dev/shm/s", "deny /dev/input", private=("/dev/shm/keys",))
    assert masks == {"/dev/shm/keys": (DENIED_DIRECTORY, None), "/dev/shm/s": (DENIED_FILE, None)}
    assert denied(contents, "read /", "deny /dev/shm/s", private=("/dev/shm/keys",)) == {}


# Symlinks


CROSSING = "cannot enforce sandbox {} {} because it crosses writable symlink {}"


@pytest.mark.parametrize(
    ("contents", "lines", "text"),
    [
        ({"/w/.git": Link("real"), "/w/real": DIRECTORY}, (), ("read-only path", "/w/.git", "/w/.git")),
        ({"/w/.codex": Link("nowhere")}, (), ("read-only path", "/w/.codex", "/w/.codex")),
        ({"/w/l": Link("/r"), "/r": DIRECTORY}, ("deny /w/l/x",), ("denied path", "/w/l/x", "/w/l")),
        ({"/w/a/l": Link("b"), "/w/a/b": File()}, ("deny /w/a/l",), ("denied path", "/w/a/l", "/w/a/l")),
        ({"/w/l": Link("d"), "/w/d": DIRECTORY}, ("read /w/l",), ("read-only path", "/w/l", "/w/l")),
        ({"/w/l": Link("d"), "/w/d": DIRECTORY}, ("deny /w/l/*.env",), ("deny pattern", "/w/l/*.env", "/w/l")),
    ],
)
def test_a_mask_behind_a_symlink_that_a_tool_could_turn_is_refused(contents, lines, text):
    spot = ground(contents, "read /", "write /w", *lines)
    with pytest.raises(PolicyError) as refused:
        spot.read_only()
        spot.denied()
    assert str(refused.value) == CROSSING.format(*text)


def test_a_symlink_that_no_tool_can_turn_leads_the_mask_to_its_target():
    contents = {"/link": Link("/w/deep"), "/w/deep": DIRECTORY, "/to-w": Link("/w")}
    assert denied(contents, "read /", "write /w", "deny /link") == {"/w/deep": (DENIED_DIRECTORY, None)}
    assert read_only(contents, "read /", "write /to-w") == PROTECTED


def test_two_spellings_of_one_directory_are_one_and_the_stricter_entry_wins():
    contents = {"/alias": Link("/w"), "/w/x": DIRECTORY}
    assert ground(contents, "read /", "write /w", "write /alias").writable == ["/w"]
    assert ground(contents, "read /", "write /w", "read /alias").writable == ["/w"]
    assert ground(contents, "read /", "write /w", "deny /alias").writable == []
    assert denied(contents, "read /", "write /w/x", "deny /alias/x") == {"/w/x": (DENIED_DIRECTORY, None)}


# What is seen


@pytest.mark.parametrize(
    ("lines", "seen", "unseen"),
    [
        (("read /",), ["/x", "/", "/usr"], ["/dev", "/dev/sda", "/proc/1", "/proc"]),
        (("read :minimal", "write /w"), ["/usr/bin", "/etc", "/w/x"], ["/", "/x", "/usrs", "/proc/1"]),
        (("read /r",), ["/r/x"], ["/", "/usr", "/rs"]),
        (("read /", "write /dev/dri"), ["/dev/dri/x"], ["/dev/sda"]),
        (("deny /", "read /r"), ["/r"], ["/", "/x"]),
    ],
)
def test_a_path_is_seen_where_an_entry_opens_the_hosts_and_dev_and_proc_are_fresh(lines, seen, unseen):
    assert ground({}, "read /").is_visible("/proc/1") is False
    assert Ground(policy("read /"), ImaginedDisk({}), own_proc=False).is_visible("/proc/1") is True
    spot = ground({}, *lines)
    assert [path for path in seen if not spot.is_visible(path)] == []
    assert [path for path in unseen if spot.is_visible(path)] == []


def test_what_is_denied_in_the_systems_directories_is_masked_also_where_the_root_is_denied():
    """The denied root once counted before the entry that opens the system's directories: nothing was masked there."""
    contents = {"/etc/key": File(), "/etc/x.pem": File()}
    lines = ("read :minimal", "deny /etc/key", "deny /etc/*.pem")
    expected = {"/etc/key": (DENIED_FILE, None), "/etc/x.pem": (DENIED_FILE, None)}
    assert denied(contents, *lines) == denied(contents, "deny :root", *lines) == expected


@pytest.mark.parametrize("line", ["read /w/file/x", "deny /w/file/x/y"])
def test_an_entry_below_a_file_is_named(line):
    with pytest.raises(PolicyError, match=f"'{line}' cannot be held: /w/file is a file"):
        spot = ground({"/w/file": File()}, "read /", "write /w", line)
        spot.read_only(), spot.denied()
    outside = ground({"/o/file": File()}, "read /", "write /w", line.replace("/w", "/o"))
    assert outside.denied() == []


# Any policy


parts = st.sampled_from(["a", "b", ".git"])
paths = st.lists(parts, min_size=1, max_size=3).map(lambda names: "/w/" + "/".join(names))
lines = st.lists(st.builds("{} {}".format, st.sampled_from(["read", "write", "deny"]), paths), max_size=5)
contents = st.dictionaries(paths, st.sampled_from([DIRECTORY, File(), File("gitdir: ../a")]), max_size=6)


@given(contents, lines)
def test_on_any_disk_what_the_policy_takes_back_from_a_writable_place_has_a_mask_above(held, given_lines):
    disk = ImaginedDisk(
        {path: what for path, what in held.items() if not _below_a_file(path, held)} | {"/w": DIRECTORY}
    )
    # What is below a file is refused.
    asked = policy("read /", "write /w", *(line for line in given_lines if not _below_a_file(line.split()[1], held)))
    spot = Ground(asked, disk)
    masks = {mask.path for mask in (*spot.read_only(), *spot.denied())}
    directories = [root for root in spot.writable if disk.kind(root) is Kind.DIRECTORY]
    for path in [*held, *asked.rules, *(f"{root}/.git/x" for root in directories)]:
        opened = [above for above in ancestors(path) if above in directories]
        masked = [above for above in ancestors(path) if above in masks]
        if opened and not asked.can_write(path):
            # The nearest of the two decides; a mask on the root itself is nearer.
            assert masked and len(masked[0]) >= len(opened[0]), (path, opened, masks)


def _below_a_file(path, held):
    return any(isinstance(held.get(above), File) for above in list(ancestors(path))[1:])


# Size


class CountingDisk(ImaginedDisk):
    """Counts what it is asked."""

    asked = 0

    def kind(self, path):
        self.asked += 1
        return super().kind(path)


def questions(entries):
    disk = CountingDisk({f"/w/d{number}": DIRECTORY for number in range(entries)})
    given_lines = [f"deny /w/d{number}" for number in range(0, entries, 2)]
    given_lines += [f"read /w/d{number}" for number in range(1, entries, 2)]
    spot = Ground(policy("read /", "write /w", *given_lines), disk)
    assert len(spot.read_only()) + len(spot.denied()) == entries + len(PROTECTED_NAMES)
    return disk.asked


def test_ten_thousand_entries_cost_ten_times_a_thousand():
    assert questions(10_000) <= 11 * questions(1_000)
    assert questions(1_000) <= 5_000
