"""Profiles and legacy policies as JSON: both shapes, there and back, and every refusal with its member named."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.sandbox.legacy import LegacyPolicy, Mode
from agent.sandbox.policy import (
    DISABLED,
    Access,
    Entry,
    GlobTarget,
    Network,
    PathTarget,
    PolicyError,
    Profile,
    ProfileKind,
    SpecialTarget,
)
from agent.sandbox.profile_json import parse_legacy, parse_profile, profile_json

names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=5)
names = names.filter(lambda name: name not in (".", ".."))
subpaths = st.one_of(st.none(), names)
targets = st.one_of(
    st.lists(names, max_size=3).map(lambda parts: PathTarget("/" + "/".join(parts))),
    names.map(GlobTarget),
    st.builds(SpecialTarget, st.sampled_from(["root", "minimal", "tmpdir", "slash_tmp"])),
    st.builds(SpecialTarget, st.just("project_roots"), subpaths),
    st.builds(SpecialTarget, st.just("unknown"), subpaths, names),
)
entries = st.lists(st.builds(Entry, targets, st.sampled_from(list(Access)), st.booleans()), max_size=4).map(tuple)
depths = st.one_of(st.none(), st.integers(1, 9))
networks = st.sampled_from(list(Network))
profiles = st.one_of(
    st.just(DISABLED),
    st.builds(Profile, st.just(ProfileKind.EXTERNAL), networks, st.just(True)),
    st.builds(Profile, st.just(ProfileKind.MANAGED), networks, st.just(True)),
    st.builds(Profile, st.just(ProfileKind.MANAGED), networks, st.just(False), entries, depths),
)


@given(profiles)
def test_a_profile_comes_back_from_json_as_it_was(profile):
    assert parse_profile(json.loads(json.dumps(profile_json(profile)))) == profile


@given(st.recursive(st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=3)), st.lists))
def test_no_json_value_makes_anything_but_a_policy_error(value):
    shapes = [value, {"type": value}, {"type": "managed", "network": "enabled", "file_system": value}]
    shapes += [restricted(value), restricted([value]), restricted([entry(value)]), restricted([], depth=value)]
    shapes += [restricted([entry({"type": "special", "value": value})]), {"network": value}, {"file_system": value}]
    for shape in shapes:
        try:
            parse_profile(shape)
        except PolicyError as exc:
            assert str(exc)


def restricted(given_, depth=None):
    file_system = {"type": "restricted", "entries": given_}
    if depth is not None:
        file_system["glob_scan_max_depth"] = depth
    return {"type": "managed", "network": "restricted", "file_system": file_system}


def entry(path, access="read", **more):
    return {"path": path, "access": access, **more}


ROOT = {"type": "special", "value": {"kind": "root"}}


def special(**value):
    return {"type": "special", "value": value}


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ({"type": "path", "path": "/a/./b//../c/"}, PathTarget("/a/c")),
        ({"type": "glob_pattern", "pattern": "**/*.env"}, GlobTarget("**/*.env")),
        ({"type": "glob_pattern", "pattern": "codex-project-roots://**/*.env"}, GlobTarget("**/*.env")),
        (ROOT, SpecialTarget("root")),
        (special(kind="current_working_directory"), SpecialTarget("project_roots")),
        (special(kind="project_roots", subpath="a/b"), SpecialTarget("project_roots", "a/b")),
        (special(kind="project_roots", subpath=None), SpecialTarget("project_roots")),
        (special(kind="project_roots", subpath=""), SpecialTarget("project_roots", "")),
        (special(kind="unknown", path=":x", subpath="y"), SpecialTarget("unknown", "y", ":x")),
    ],
)
def test_each_way_to_name_a_place_is_read(path, target):
    assert parse_profile(restricted([entry(path)])).entries == (Entry(target, Access.READ),)


@pytest.mark.parametrize(
    ("with_more", "without"),
    [
        ({"type": "disabled", "network": "enabled"}, {"type": "disabled"}),
        ({"type": "external", "network": "enabled", "x": 1}, {"type": "external", "network": "enabled"}),
        ({**restricted([]), "x": 1}, restricted([])),
        (restricted([entry(ROOT, unless="x")]), restricted([entry(ROOT)])),
        (restricted([entry({**ROOT, "x": 1})]), restricted([entry(ROOT)])),
        (restricted([entry(special(kind="root", subpath="a", path="/b"))]), restricted([entry(ROOT)])),
        (
            {"type": "managed", "network": "enabled", "file_system": {"type": "unrestricted", "entries": [7]}},
            {"type": "managed", "network": "enabled", "file_system": {"type": "unrestricted"}},
        ),
    ],
)
def test_members_that_are_not_known_are_passed_over_in_the_tagged_shape_as_by_the_original(with_more, without):
    assert parse_profile(with_more) == parse_profile(without)


@pytest.mark.parametrize("word", ["deny", "none"])
def test_none_is_another_word_for_deny(word):
    (parsed,) = parse_profile(restricted([entry(ROOT, word, missing_path_behavior="skip")])).entries
    assert parsed == Entry(SpecialTarget("root"), Access.DENY, skip_missing=True)
    assert profile_json(parse_profile(restricted([entry(ROOT, word)])))["file_system"]["entries"][0]["access"] == "deny"


@pytest.mark.parametrize(
    ("given_", "network", "count", "depth"),
    [
        ({}, Network.RESTRICTED, 0, None),
        ({"network": {"enabled": True}}, Network.ENABLED, 0, None),
        ({"network": {}}, Network.RESTRICTED, 0, None),
        ({"network": {"enabled": None}}, Network.RESTRICTED, 0, None),
        ({"network": {"enabled": True, "more": 1}}, Network.ENABLED, 0, None),
        ({"file_system": {"entries": [entry(ROOT, more=1)]}}, Network.RESTRICTED, 1, None),
        ({"network": None, "file_system": None}, Network.RESTRICTED, 0, None),
        ({"file_system": {"entries": [entry(ROOT)], "glob_scan_max_depth": 2}}, Network.RESTRICTED, 1, 2),
    ],
)
def test_the_older_shape_without_a_type_is_read(given_, network, count, depth):
    parsed = parse_profile(given_)
    assert (parsed.kind, parsed.unrestricted) == (ProfileKind.MANAGED, False)
    assert (parsed.network, len(parsed.entries), parsed.glob_scan_max_depth) == (network, count, depth)


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ([], ["the permission profile", "[]", "an object"]),
        ({"type": "full"}, ["type", "'full'", "managed, disabled or external"]),
        ({"type": "external"}, ["lacks 'network'"]),
        ({"type": "managed", "network": "enabled"}, ["lacks 'file_system'"]),
        (
            {"type": "managed", "network": True, "file_system": {"type": "unrestricted"}},
            ["network", "True", "'enabled'"],
        ),
        ({"type": "managed", "network": "enabled", "file_system": {"type": "x"}}, ["file_system.type", "'x'"]),
        ({"entries": []}, ["'entries'", "not known"]),
        ({"file_system": {"entries": [], "more": 1}}, ["'more'", "not known"]),
        ({"network": {"enabled": 1}}, ["enabled", "1", "true or false"]),
        (restricted({}), ["file_system.entries", "{}", "a list"]),
        (restricted([], depth=0), ["glob_scan_max_depth", "0", "at least 1"]),
        (restricted([], depth=2**64), ["glob_scan_max_depth", str(2**64)]),
        (restricted([], depth=True), ["glob_scan_max_depth", "True"]),
        (restricted([entry(ROOT, "exec")]), ["entries[0].access", "'exec'", "read, write or deny"]),
        (restricted([entry(ROOT), entry({"type": "path", "path": "a"})]), ["entries[1].path.path", "'a'", "absolute"]),
        (restricted([entry({"type": "path", "path": "/a\0"})]), ["entries[0].path.path", "NUL"]),
        (restricted([entry({"type": "path", "path": "/a\ud800"})]), ["entries[0].path.path", "'\\ud800'", "no path"]),
        (restricted([entry({"type": "glob_pattern", "pattern": ""})]), ["entries[0].path.pattern", "empty"]),
        (restricted([entry({"type": "glob_pattern", "pattern": "/a\0/*"})]), ["entries[0].path.pattern", "NUL"]),
        (
            restricted([entry({"type": "glob_pattern", "pattern": "/\ud800*"})]),
            ["entries[0].path.pattern", "'\\ud800'"],
        ),
        (restricted([entry(special(kind="project_roots", subpath="\ud800"))]), ["subpath", "'\\ud800'"]),
        (restricted([entry(special(kind="unknown", path=":\udfff"))]), ["value.path", "'\\udfff'"]),
        (restricted([entry(special(kind="home"))]), ["entries[0].path.value.kind", "'home'", "root"]),
        (restricted([entry(special(kind="unknown"))]), ["entries[0].path.value", "lacks 'path'"]),
        (restricted([entry(special(kind="project_roots", subpath="../a"))]), ["subpath", "'../a'", "'..'"]),
        (restricted([entry(special(kind="project_roots", subpath="/a"))]), ["subpath", "'/a'", "relative"]),
        (restricted([entry(ROOT, missing_path_behavior="make")]), ["missing_path_behavior", "'make'", "'skip'"]),
    ],
)
def test_what_is_wrong_is_named_with_its_value_and_the_rule(given_, words):
    with pytest.raises(PolicyError) as raised:
        parse_profile(given_)
    assert [word for word in words if word not in str(raised.value)] == []


def test_a_path_that_is_no_text_is_a_path():
    """The control: a byte that stands for no character comes as half a surrogate pair, and goes back as that byte."""
    held = restricted([entry({"type": "path", "path": "/a\udcff"})])
    assert profile_json(parse_profile(held)) == held


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ({"type": "danger-full-access"}, LegacyPolicy(Mode.DANGER_FULL_ACCESS, network_access=True)),
        ({"type": "read-only"}, LegacyPolicy(Mode.READ_ONLY)),
        ({"type": "read-only", "network_access": True}, LegacyPolicy(Mode.READ_ONLY, network_access=True)),
        ({"type": "external-sandbox"}, LegacyPolicy(Mode.EXTERNAL)),
        ({"type": "external-sandbox", "network_access": "enabled"}, LegacyPolicy(Mode.EXTERNAL, network_access=True)),
        ({"type": "workspace-write"}, LegacyPolicy(Mode.WORKSPACE_WRITE)),
        (
            {"type": "workspace-write", "writable_roots": ["/a/"], "exclude_slash_tmp": True},
            LegacyPolicy(Mode.WORKSPACE_WRITE, ("/a",), exclude_slash_tmp=True),
        ),
    ],
)
def test_a_legacy_policy_is_read(given_, expected):
    assert parse_legacy(given_) == expected


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ({"type": "full"}, ["'full'", "workspace-write"]),
        ({"type": "read-only", "writable_roots": []}, ["'writable_roots'", "not known"]),
        ({"type": "external-sandbox", "network_access": True}, ["network_access", "True", "'enabled'"]),
        ({"type": "workspace-write", "network_access": "enabled"}, ["network_access", "'enabled'", "true or false"]),
        ({"type": "workspace-write", "writable_roots": ["a"]}, ["writable_roots[0]", "'a'", "absolute"]),
    ],
)
def test_what_is_wrong_in_a_legacy_policy_is_named(given_, words):
    with pytest.raises(PolicyError) as raised:
        parse_legacy(given_)
    assert [word for word in words if word not in str(raised.value)] == []
