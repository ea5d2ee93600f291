import os
import stat
import uuid

import pytest

from agent.home import ConfigBroken, HomeError, codex_home, installation_id, load_config, position_of_key

# Where the home is


def test_the_home_is_where_the_environment_says(tmp_path):
    assert codex_home({"CODEX_HOME": str(tmp_path), "HOME": "/elsewhere"}) == str(tmp_path)


def test_a_link_is_resolved_so_that_all_name_it_alike(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert codex_home({"CODEX_HOME": str(tmp_path / "link")}) == str(tmp_path / "real")


@pytest.mark.parametrize("what", ["missing", "file"])
def test_a_home_that_was_named_and_is_no_directory_is_refused_and_not_made(tmp_path, what):
    (tmp_path / "file").touch()
    with pytest.raises(HomeError, match=rf"CODEX_HOME is '.*{what}'.*create it, or unset"):
        codex_home({"CODEX_HOME": str(tmp_path / what)})
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("named", [{}, {"CODEX_HOME": ""}])
def test_the_default_home_is_made_for_its_owner_only(tmp_path, named):
    previous = os.umask(0)
    try:
        path = codex_home({"HOME": str(tmp_path), **named})
    finally:
        os.umask(previous)
    assert path == str(tmp_path / ".codex")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o700
    assert codex_home({"HOME": str(tmp_path)}) == path  # and found again


def test_a_default_home_that_cannot_be_made_says_what_to_do(tmp_path):
    (tmp_path / ".codex").touch()
    with pytest.raises(HomeError, match="set CODEX_HOME to a directory of yours"):
        codex_home({"HOME": str(tmp_path)})


# config.toml and -c


def config(tmp_path, *overrides, text=None):
    if text is not None:
        (tmp_path / "config.toml").write_text(text, "utf-8")
    return load_config(str(tmp_path), overrides)


def test_without_a_file_there_is_nothing(tmp_path):
    assert config(tmp_path) == {}


def test_the_file_is_read_as_it_is(tmp_path):
    text = 'model = "gpt-5"\n[countersign]\nport = 8080\norigins = ["https://a.example"]\n'
    assert config(tmp_path, text=text) == {
        "model": "gpt-5",
        "countersign": {"port": 8080, "origins": ["https://a.example"]},
    }


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model=gpt-5", {"model": "gpt-5"}),
        ('model="gpt-5"', {"model": "gpt-5"}),
        ("model='gpt-5'", {"model": "gpt-5"}),
        ("countersign.port=8080", {"countersign": {"port": 8080}}),
        ("a.b.c=true", {"a": {"b": {"c": True}}}),
        ('a.list=["x", "y"]', {"a": {"list": ["x", "y"]}}),
        ("a={b = 1}", {"a": {"b": 1}}),
        ("a=b=c", {"a": "b=c"}),
        ("a=", {"a": ""}),
        (" a . b = 5 ", {"a": {"b": 5}}),
        ("a=5 # comment", {"a": 5}),
        ("a=not toml", {"a": "not toml"}),
        ("a=https://x.example/?a=b", {"a": "https://x.example/?a=b"}),
        ("a=[1", {"a": "[1"}),
        ("a=café", {"a": "café"}),
    ],
)
def test_an_override_is_a_dotted_key_and_a_toml_value_or_else_a_text(tmp_path, override, expected):
    assert config(tmp_path, override) == expected


def test_a_number_that_is_too_long_to_be_one_is_a_text(tmp_path):
    """It was an error that nobody caught."""
    assert config(tmp_path, f"a={'9' * 5000}") == {"a": "9" * 5000}


def test_overrides_beat_the_file_and_later_ones_beat_earlier_ones(tmp_path):
    text = "[countersign]\nport = 1\nstamp = 'never'\n"
    found = config(tmp_path, "countersign.port=2", "countersign.port=3", text=text)
    assert found == {"countersign": {"port": 3, "stamp": "never"}}


def test_an_override_that_confines_in_the_older_way_counts_for_more_than_the_files_profile(tmp_path):
    text = 'default_permissions = ":workspace"'
    assert config(tmp_path, "sandbox_mode=read-only", text=text) == {"sandbox_mode": "read-only"}
    both = config(tmp_path, "sandbox_mode=read-only", "default_permissions=:read-only", text=text)
    assert both["default_permissions"] == ":read-only"
    assert config(tmp_path, text=f'{text}\nsandbox_mode = "read-only"')["default_permissions"] == ":workspace"


def test_a_value_gives_way_to_a_table_that_is_written_into_it(tmp_path):
    assert config(tmp_path, "a.b=1", text="a = 5\n") == {"a": {"b": 1}}


@pytest.mark.parametrize("override", ["", "model", "=5", ".a=5", "a.=5", "a..b=5", " =5"])
def test_what_is_no_override_is_refused_with_its_text(tmp_path, override):
    with pytest.raises(HomeError) as refusal:
        config(tmp_path, override)
    assert "KEY=VALUE" in str(refusal.value) and repr(override) in str(refusal.value)


@pytest.mark.parametrize("content", [b"not toml", b"a = \n", b"a = 1\na = 2\n", b'a = "\xff"\n'])
def test_a_file_that_is_no_toml_is_refused_with_its_name(tmp_path, content):
    (tmp_path / "config.toml").write_bytes(content)
    with pytest.raises(HomeError, match="config.toml' is not TOML"):
        config(tmp_path)


def test_a_file_that_cannot_be_read_is_refused_with_the_reason(tmp_path):
    (tmp_path / "config.toml").mkdir()
    with pytest.raises(HomeError, match="config.toml' cannot be read: Is a directory"):
        config(tmp_path)


# The installation id


def test_the_installation_has_one_id_for_its_owner_only(tmp_path):
    first = installation_id(str(tmp_path))
    assert uuid.UUID(first) and installation_id(str(tmp_path)) == first
    assert stat.S_IMODE((tmp_path / "installation_id").stat().st_mode) == 0o600


def test_an_id_that_the_original_made_is_kept(tmp_path):
    theirs = str(uuid.uuid4())
    (tmp_path / "installation_id").write_text(theirs + "\n")
    assert installation_id(str(tmp_path)) == theirs


@pytest.mark.parametrize("content", [b"", b"not an id", b"\xff\xfe"])
def test_a_broken_one_is_replaced(tmp_path, content):
    (tmp_path / "installation_id").write_bytes(content)
    fresh = installation_id(str(tmp_path))
    assert uuid.UUID(fresh) and (tmp_path / "installation_id").read_text() == fresh


def test_a_link_in_its_place_is_not_written_through(tmp_path):
    (tmp_path / "installation_id").symlink_to(tmp_path / "target")
    assert uuid.UUID(installation_id(str(tmp_path)))
    assert not (tmp_path / "target").exists()


def test_where_nothing_can_be_written_there_is_still_an_id(tmp_path):
    assert uuid.UUID(installation_id(str(tmp_path / "missing")))


# A broken config.toml


@pytest.mark.parametrize(
    "content, position, may_be_ours",
    [
        (b'model = "a"\nfoo = = 3\n', (2, 7), False),
        (b"[countersign]\nport = = 3\n", (2, 8), True),
        (b"foo = = 3\ncountersign.port = 3\n", (1, 7), True),
        (b'model = "\xff"\n', None, False),
        (b"a = " + b"[" * 100_000, None, False),
    ],
    ids=["ours is not in it", "ours is broken", "ours is behind", "not UTF-8", "nested too deeply"],
)
def test_a_broken_file_says_where_and_whether_our_settings_may_be_in_it(tmp_path, content, position, may_be_ours):
    (tmp_path / "config.toml").write_bytes(content)
    with pytest.raises(ConfigBroken) as broken:
        config(tmp_path)
    assert (broken.value.position, broken.value.may_be_ours) == (position, may_be_ours)
    assert broken.value.path == str(tmp_path / "config.toml")


@pytest.mark.parametrize(
    "text, position",
    [
        ("model = 5\n", (1, 9)),
        ('# model = 1\n\n  "model"=  5\n', (3, 13)),
        ("[table]\nmodel = 5\n", None),
        ("models = 5\n", None),
    ],
)
def test_the_value_of_a_key_has_a_place_in_the_file(tmp_path, text, position):
    (tmp_path / "config.toml").write_text(text)
    assert position_of_key(str(tmp_path), "model") == position


def test_without_a_file_no_key_has_a_place(tmp_path):
    assert position_of_key(str(tmp_path), "model") is None
