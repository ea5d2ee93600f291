"""Who may read and write what: beside a slow reference written from the facts, and by tables."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.sandbox.policy import (
    DISABLED,
    PROTECTED_NAMES,
    Access,
    Entry,
    GlobTarget,
    Network,
    PathTarget,
    Places,
    Profile,
    ProfileKind,
    SpecialTarget,
    resolve,
)

READ, WRITE, DENY = STRENGTH = list(Access)
HERE = Places(cwd="/a", project_roots=("/a", "/b"), tmpdir="/t", slash_tmp=True)

NAMES = ("a", "b", ".git", ".aws", "x")
paths = st.lists(st.sampled_from(NAMES), max_size=4).map(lambda names: "/" + "/".join(names))
specials = st.sampled_from(
    [
        *(SpecialTarget(kind) for kind in ("root", "minimal", "project_roots", "tmpdir", "slash_tmp")),
        SpecialTarget("project_roots", ".git"),
        SpecialTarget("project_roots", "x/.aws"),
        SpecialTarget("unknown", path=":x"),
    ]
)
entries = st.lists(
    st.builds(Entry, st.one_of(paths.map(PathTarget), specials), st.sampled_from(list(Access))), max_size=7
)


def managed(*given_: Entry, network: Network = Network.RESTRICTED) -> Profile:
    return Profile(ProfileKind.MANAGED, network, entries=given_)


def at(path: str, access: Access) -> Entry:
    return Entry(PathTarget(path), access)


def components(path: str) -> list[str]:
    return [name for name in path.split("/") if name]


def covers(directory: str, path: str) -> bool:
    names = components(directory)
    return components(path)[: len(names)] == names


def spread(given_: list[Entry], places: Places) -> list[tuple[str, Access]]:
    """Each entry at each of its paths."""
    where = {"root": ["/"], "tmpdir": [places.tmpdir], "slash_tmp": ["/tmp"], "project_roots": places.project_roots}
    found = []
    for entry in given_:
        target = entry.target
        if isinstance(target, PathTarget):
            found.append((target.path, entry.access))
        elif isinstance(target, SpecialTarget):
            below = f"/{target.subpath}" if target.subpath else ""
            found += [(f"{path}{below}", entry.access) for path in where.get(target.kind, [])]
    return found


def decided(rules: list[tuple[str, Access]], path: str) -> Access | None:
    """By most components, then deny before write before read."""
    fitting = [(len(components(where)), STRENGTH.index(access)) for where, access in rules if covers(where, path)]
    return STRENGTH[max(fitting)[1]] if fitting else None


def may_write(rules: list[tuple[str, Access]], path: str) -> bool:
    if decided(rules, path) is not WRITE:
        return False
    writable = [where for where, _ in rules if decided(rules, where) is WRITE]
    for root in writable:
        for name in PROTECTED_NAMES:
            protected = f"{root.rstrip('/')}/{name}"
            reopened = any(covers(protected, where) and covers(where, path) for where in writable)
            if covers(protected, path) and where_it_counts(rules, root) and not reopened:
                return False
    return True


def where_it_counts(rules: list[tuple[str, Access]], root: str) -> bool:
    """Whether a path has an entry of its own that grants writing, not only one from above."""
    return max(STRENGTH.index(access) for where, access in rules if where == root) == STRENGTH.index(WRITE)


@given(entries, paths)
def test_reading_is_decided_as_the_reference_decides(given_, path):
    rules = spread(given_, HERE)
    assert resolve(managed(*given_), HERE).can_read(path) is (decided(rules, path) in (READ, WRITE))


@given(entries, paths)
def test_writing_is_decided_as_the_reference_decides(given_, path):
    policy = resolve(managed(*given_), HERE)
    assert policy.can_write(path) is (policy.has_full_disk_write or may_write(spread(given_, HERE), path))


@given(entries, st.randoms(use_true_random=False))
def test_the_order_of_entries_is_irrelevant(given_, rnd: random.Random):
    shuffled = list(given_)
    rnd.shuffle(shuffled)
    one, other = resolve(managed(*given_), HERE), resolve(managed(*shuffled), HERE)
    assert {path: rule.access for path, rule in one.rules.items()} == {p: r.access for p, r in other.rules.items()}
    assert one.has_full_disk_write is other.has_full_disk_write
    assert (one.writable_roots(), one.readable_roots()) == (other.writable_roots(), other.readable_roots())


@given(entries, paths)
def test_what_may_be_written_may_be_read(given_, path):
    policy = resolve(managed(*given_), HERE)
    assert policy.can_read(path) or not policy.can_write(path)


@given(entries)
def test_roots_are_the_paths_whose_own_rule_says_so(given_):
    policy = resolve(managed(*given_), HERE)
    for access, roots in ((WRITE, policy.writable_roots()), (READ, policy.readable_roots())):
        assert set(roots) == {path for path, rule in policy.rules.items() if rule.access is access}
    assert "/" not in policy.denied_roots()
    depths = [len(components(root)) for root in policy.writable_roots()]
    assert depths == sorted(depths)


@pytest.mark.parametrize("name", PROTECTED_NAMES)
def test_a_protected_name_at_the_top_of_a_writable_root_is_read_only(name):
    policy = resolve(managed(at("/a", WRITE)), HERE)
    for path in (f"/a/{name}", f"/a/{name}/hooks/x"):
        assert not policy.can_write(path)
        assert policy.can_read(path)
        assert policy.protection_of(path) == f"/a/{name}"
    for path in (f"/a/sub/{name}", f"/a/{name}ignore", f"/a/x{name}"):
        assert policy.can_write(path), path
        assert policy.protection_of(path) is None


@pytest.mark.parametrize(
    ("opened", "writable", "kept"),
    [
        ("/a/.git", "/a/.git/config", "/a/.codex/x"),
        ("/a/.git/objects", "/a/.git/objects/x", "/a/.git/config"),
        ("/a/.git/objects/pack", "/a/.git/objects/pack/x", "/a/.git/objects/x"),
    ],
)
def test_an_entry_at_or_below_a_protected_name_opens_itself_only(opened, writable, kept):
    policy = resolve(managed(at("/a", WRITE), at(opened, WRITE)), HERE)
    assert policy.can_write(writable)
    assert not policy.can_write(kept)


def test_a_root_inside_another_has_protected_names_of_its_own():
    entries_ = (at("/a", WRITE), at("/a/sub", WRITE))
    assert not resolve(managed(*entries_), HERE).can_write("/a/sub/.git/config")
    assert resolve(managed(entries_[0]), HERE).can_write("/a/sub/.git/config")


ROOT_WRITES = Entry(SpecialTarget("root"), WRITE)
ROOT_READS = Entry(SpecialTarget("root"), READ)


@pytest.mark.parametrize(
    ("given_", "full_write", "full_read"),
    [
        ((), False, False),
        ((ROOT_READS,), False, True),
        ((ROOT_WRITES,), True, True),
        ((ROOT_WRITES, at("/x", WRITE)), True, True),
        ((ROOT_WRITES, ROOT_READS), True, True),
        ((ROOT_WRITES, at("/x", READ)), False, True),
        ((ROOT_WRITES, at("/x", READ), at("/x", WRITE)), True, True),
        ((ROOT_WRITES, at("/x", DENY)), False, False),
        ((ROOT_WRITES, at("/x", DENY), at("/x", WRITE)), False, False),
        ((ROOT_WRITES, Entry(SpecialTarget("root"), DENY)), False, False),
        ((ROOT_WRITES, Entry(GlobTarget("*.env"), DENY)), False, False),
        # What is said narrows, and not what comes of it.
        ((ROOT_WRITES, Entry(GlobTarget("*.env"), READ)), False, True),
        ((ROOT_WRITES, Entry(GlobTarget("*.env"), WRITE)), True, True),
        ((ROOT_WRITES, Entry(SpecialTarget("tmpdir"), READ)), False, True),
        ((ROOT_WRITES, Entry(SpecialTarget("tmpdir"), READ), Entry(SpecialTarget("tmpdir"), WRITE)), True, True),
        ((ROOT_WRITES, at("/tmp", READ), Entry(SpecialTarget("slash_tmp"), WRITE)), True, True),
        ((ROOT_WRITES, at("/", READ)), True, True),
        ((ROOT_READS, Entry(GlobTarget("/x/*.env"), DENY)), False, False),
        ((ROOT_WRITES, Entry(SpecialTarget("unknown", path=":x"), DENY)), True, True),
        ((at("/", WRITE),), False, True),  # only the entry `root` lifts the confinement of writes
        ((at("/", READ),), False, True),
        ((Entry(SpecialTarget("minimal"), READ),), False, False),
    ],
)
def test_the_whole_disk_is_open_only_where_nothing_narrows_it(given_, full_write, full_read):
    policy = resolve(managed(*given_), HERE)
    assert policy.has_full_disk_write is full_write
    assert policy.has_full_disk_read is full_read


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        (managed(ROOT_READS), True),
        (managed(ROOT_READS, network=Network.ENABLED), True),
        (managed(ROOT_WRITES), True),
        (managed(ROOT_WRITES, network=Network.ENABLED), False),
        (Profile(ProfileKind.MANAGED, Network.RESTRICTED, unrestricted=True), True),
        (Profile(ProfileKind.MANAGED, Network.ENABLED, unrestricted=True), False),
        (DISABLED, False),
        # As observed: also where something outside confines, the helper cuts off the network.
        (Profile(ProfileKind.EXTERNAL, Network.RESTRICTED, unrestricted=True), True),
        (Profile(ProfileKind.EXTERNAL, Network.ENABLED, unrestricted=True), False),
    ],
)
def test_a_sandbox_is_needed_for_the_network_or_for_part_of_the_disk(profile, expected):
    assert resolve(profile, HERE).needs_sandbox is expected


def test_special_targets_are_where_the_places_say():
    kinds = ("project_roots", "tmpdir", "slash_tmp")
    profile = managed(*(Entry(SpecialTarget(kind), WRITE) for kind in kinds))
    assert set(resolve(profile, HERE).rules) == {"/a", "/b", "/t", "/tmp"}
    nowhere = Places(cwd="/a", project_roots=("/a",), tmpdir=None, slash_tmp=False)
    assert set(resolve(profile, nowhere).rules) == {"/a"}


def test_a_relative_pattern_belongs_to_each_project_root_and_an_absolute_one_to_none():
    """It was joined to the working directory only, so the other roots' files stayed readable."""
    profile = managed(ROOT_READS, Entry(GlobTarget("**/*.env"), DENY), Entry(GlobTarget("/x/*.env"), DENY))
    found = [glob.pattern for glob in resolve(profile, HERE).globs]
    assert found == ["/a/**/*.env", "/b/**/*.env", "/x/*.env"]


def test_minimal_is_kept_apart_since_it_has_no_path_of_its_own():
    granted = resolve(managed(Entry(SpecialTarget("minimal"), READ)), HERE)
    assert granted.minimal
    assert not granted.can_read("/usr")
    assert not resolve(managed(Entry(SpecialTarget("minimal"), DENY)), HERE).minimal


def test_the_rule_that_decides_names_its_entry():
    wide, narrow = at("/a", WRITE), at("/a/b", DENY)
    policy = resolve(managed(wide, narrow), HERE)
    assert policy.rule_for("/a/b/c").entry is narrow
    assert policy.rule_for("/a/c").entry is wide
    assert policy.rule_for("/c") is None
    assert [str(wide), str(narrow)] == ["write /a", "deny /a/b"]
