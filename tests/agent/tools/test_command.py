"""What the command tools take and say, without running any."""

import json
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.tools.command import (
    BadArguments,
    ExecCommand,
    WriteStdin,
    output_text,
    parse_exec,
    parse_write,
    shell_words,
    shorten,
    shown,
    workdir,
)


def test_what_is_not_said_has_its_default():
    wanted = parse_exec('{"cmd": "true"}')
    assert (wanted.login, wanted.tty, wanted.escalated) == (True, False, False)
    assert (wanted.yield_s, wanted.output_bytes) == (10.0, 40_000)
    assert shell_words(wanted, "/bin/bash") == ("/bin/bash", "-lc", "true")


@pytest.mark.parametrize(
    ("given_ms", "expected_s"), [(0, 0.25), (250, 0.25), (1500, 1.5), (10**9, 30.0), (1e308, 30.0)]
)
def test_a_command_is_waited_for_within_bounds(given_ms, expected_s):
    assert parse_exec(json.dumps({"cmd": "x", "yield_time_ms": given_ms})).yield_s == expected_s


@pytest.mark.parametrize(("tokens", "expected"), [(0, 0), (10, 40), (10**9, 200_000)])
def test_no_more_output_is_returned_than_a_bound(tokens, expected):
    assert parse_exec(json.dumps({"cmd": "x", "max_output_tokens": tokens})).output_bytes == expected


@pytest.mark.parametrize(
    "text",
    [
        *("{}", '{"cmd": null}', '{"cmd": "x", "tty": 1}', '{"cmd": "x", "login": "no"}'),
        *('{"cmd": "x", "workdir": 1}', '{"cmd": "x", "shell": []}', '{"cmd": "x", "prefix_rule": [1]}'),
        *('{"cmd": "x", "yield_time_ms": NaN}', '{"cmd": "x", "yield_time_ms": -1}', '{"cmd": "x", "tty": "yes"}'),
        *('{"cmd": "x", "yield_time_ms": true}', "[" * 100_000, "null", "\ud800"),
    ],
)
def test_what_cannot_be_used_is_refused(text):
    with pytest.raises(BadArguments):
        parse_exec(text)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"session_id": "1"}',
        '{"session_id": 1.5}',
        '{"session_id": true}',
        '{"session_id": NaN}',
        '{"session_id": 1e999}',
    ],
)
def test_a_session_has_a_number(text):
    with pytest.raises(BadArguments):
        parse_write(text)


@given(st.text(max_size=300))
def test_any_text_is_parsed_or_refused(text):
    for parse, arguments in ((parse_exec, ExecCommand), (parse_write, WriteStdin)):
        try:
            parsed = parse(text)
        except BadArguments as exc:
            assert str(exc)
        else:
            assert isinstance(parsed, arguments)


@given(st.binary(max_size=200), st.integers(0, 100))
def test_what_is_shortened_keeps_its_beginning_and_its_end(output, limit):
    text, left_out = shorten(output, limit)
    if len(output) <= limit:
        assert (text, left_out) == (output.decode(errors="replace"), 0)
    else:
        assert len(output) - left_out <= limit
        assert f"[... {left_out} bytes left out ...]" in text


def test_the_model_is_told_in_the_form_that_it_knows():
    told = output_text(0.5, b"a\n", 100, exit_code=3, session_id=7)
    assert told.partition("\n")[2] == (
        "Wall time: 0.5000 seconds\nProcess exited with code 3\nOriginal token count: 1\nOutput:\na\n"
    )
    assert "running with session ID 7" in output_text(0.5, b"", 100, exit_code=None, session_id=7)
    assert "Left out of the middle: 12 bytes" in output_text(0, b"x" * 14, 4, exit_code=0, session_id=7, dropped=2)


def test_a_command_is_shown_as_a_shell_would_take_it():
    """Each was seen of the original."""
    for command, quoted in {
        "echo 'a b'": "\"echo 'a b'\"",
        "a b": "'a b'",
        "a=b": "'a=b'",
        "a:b@c+d-e.f/g_h]": "a:b@c+d-e.f/g_h]",
        "a^b": "a'^b'",
        "^a b": "'^a b'",
        "a\\b": '"a\\\\b"',
        "it's $x": "\"it's \"'$x'",
        "it's !x": "\"it's \"'!x'",
        "a'b\"c\\d$e": "\"a'b\\\"c\\\\d\"'$e'",
        "é": "'é'",
        "": "''",
    }.items():
        assert shown(("/bin/bash", "-lc", command)) == f"/bin/bash -lc {quoted}"
        assert shlex.split(quoted) == [command]
    assert shown(("sh", "a\0b")) == "<command included NUL byte>"


@pytest.mark.parametrize(("wanted", "expected"), [(None, "/a/b"), ("c", "/a/b/c"), ("..", "/a"), ("/x", "/x")])
def test_a_directory_is_relative_to_that_of_the_thread(wanted, expected):
    assert workdir(wanted, "/a/b") == expected
