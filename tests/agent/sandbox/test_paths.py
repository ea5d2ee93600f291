"""Paths as text, beside pathlib and posixpath."""

import posixpath
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.sandbox.paths import ancestors, as_pattern, is_glob, is_under, joined, levels, normal, split_pattern

parts = st.sampled_from(["a", "b", "ab", ".git", "..a", "*", "a b", "é", "\n"])
spelled = st.lists(st.one_of(parts, st.sampled_from(["", ".", ".."])), max_size=6).map(
    lambda names: "/" + "/".join(names)
)
absolute = st.lists(parts, max_size=4).map(lambda names: "/" + "/".join(names))


@given(spelled)
def test_a_normal_path_is_what_resolving_its_components_gives(path):
    kept: list[str] = []
    for part in path.split("/"):
        if part == "..":
            kept = kept[:-1]
        elif part not in ("", "."):
            kept.append(part)
    assert normal(path) == "/" + "/".join(kept)
    assert normal(normal(path)) == normal(path)


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/", "/"), ("//", "/"), ("//a", "/a"), ("///a//b/", "/a/b"), ("/..", "/"), ("/a/../..", "/"), ("/a/./b", "/a/b")],
)
def test_slashes_and_dots_leave_a_normal_path(path, expected):
    assert normal(path) == expected


@given(absolute, st.one_of(absolute, parts))
def test_joining_is_what_posix_says(directory, path):
    assert joined(directory, path) == posixpath.join(directory, path)


@given(absolute, absolute)
def test_being_under_goes_by_whole_components(path, directory):
    assert is_under(path, directory) == PurePosixPath(path).is_relative_to(directory)


def test_a_longer_name_is_not_under_a_shorter_one():
    assert not is_under("/srcs", "/src")
    assert is_under("/src/s", "/src")


@given(absolute)
def test_ancestors_go_from_the_path_up_to_the_root(path):
    pure = PurePosixPath(path)
    assert list(ancestors(path)) == [str(pure), *map(str, pure.parents)]


@given(absolute, absolute)
def test_levels_lead_from_the_top_down_to_the_bottom(top, bottom):
    found = levels(top, bottom)
    if top == bottom or not is_under(bottom, top):
        assert found == []
    else:
        assert found[-1] == bottom
        assert [posixpath.dirname(path) for path in found] == [top, *found[:-1]]


@pytest.mark.parametrize("text", ["/a/*", "/a?", "/a[b]", "/x]", "*"])
def test_any_sign_of_a_pattern_makes_one(text):
    assert is_glob(text)
    assert not is_glob("/a/{b,c}~!^-\\.")


@pytest.mark.parametrize(
    ("pattern", "directory", "rest"),
    [
        ("/src/**/*.env", "/src", "**/*.env"),
        ("/src/a{b,c}/x", "/src", "a{b,c}/x"),
        ("/*.env", "/", "*.env"),
        ("/a/b", "/a/b", ""),
        (r"/a/\[b\]/*.env", "/a/[b]", "*.env"),
        (r"/a/b\\c/?", r"/a/b\c", "?"),
        ("/a/b\\", "/a", "b\\"),
    ],
)
def test_a_pattern_starts_in_a_fixed_directory(pattern, directory, rest):
    assert split_pattern(pattern) == (directory, rest)


@given(st.text(alphabet="ab*?[]{}\\!,- ", min_size=1, max_size=8).filter(lambda name: name not in (".", "..")))
def test_a_path_as_a_pattern_is_fixed_and_means_itself(name):
    assert split_pattern(as_pattern(f"/{name}")) == (f"/{name}", "")
