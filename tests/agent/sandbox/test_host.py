"""This machine, as the data of a plan."""

import os
import stat
import sys

import pytest

from agent.sandbox.discovery import bundled
from agent.sandbox.host import look, places
from agent.sandbox.plan import Command, Options, SandboxUnavailable, plan
from agent.sandbox.policy import DISABLED, Places, resolve
from agent.sandbox.state import state_directory
from tests.agent.sandbox.policies import ENABLED, policy
from tests.bubblewrap import BWRAP

WITHOUT_PATH = {"PATH": "/nowhere"}


@pytest.mark.parametrize(
    ("environ", "tmpdir"),
    [({}, None), ({"TMPDIR": ""}, None), ({"TMPDIR": "/var/tmp/"}, "/var/tmp"), ({"TMPDIR": "/gone"}, "/gone")],
)
def test_tmpdir_counts_only_if_it_says_something(environ, tmpdir):
    assert places("/w", environ) == Places("/w", ("/w",), tmpdir, True)


def test_a_relative_tmpdir_belongs_to_where_this_process_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert places("/w", {"TMPDIR": "x"}).tmpdir == str(tmp_path / "x")


def test_workspace_roots_take_the_place_of_the_policys_directory():
    assert places("/w", {}, ("/a", "/b")).project_roots == ("/a", "/b")
    assert places("/w", {}).project_roots == ("/w",)


def test_this_machine_is_described_as_it_is():
    host = look(policy("read /"), "/", Options(), os.environ)
    assert (host.platform, host.machine, host.uid) == (sys.platform, os.uname().machine, os.geteuid())
    assert host.bubblewrap is not None and os.path.isabs(host.bubblewrap.path)
    assert any(path.startswith("/dev/shm/countersign-sandbox-") for path in host.private_paths)
    assert not host.wsl1


def test_a_home_counts_if_a_command_without_capabilities_could_enter_it(tmp_path):
    def home(path):
        return look(policy("read /"), "/", Options(), {**os.environ, "HOME": str(path)}).home

    inner = tmp_path / "shut" / "in"
    inner.mkdir(parents=True)
    (tmp_path / "link").symlink_to(inner)
    assert (home(inner), home(tmp_path / "link")) == (str(inner), str(inner))
    inner.parent.chmod(0o600)
    for not_one in (inner, tmp_path / "gone", "relative", ""):
        assert home(not_one) == "/"


def test_denied_files_are_shown_as_an_empty_one_that_is_mended_if_it_was_changed():
    def file_for(*lines):
        return look(policy(*lines), "/", Options(), os.environ).denied_file

    assert file_for("read /") == "/dev/null"
    path = file_for("read /", "deny /etc/passwd")
    assert path == file_for("read /", "deny /etc/*.pem") == f"{state_directory()}/denied"
    os.chmod(path, 0o644)
    with open(path, "w") as file:
        file.write("x")
    file_for("read /", "deny /etc/passwd")
    assert (os.stat(path).st_mode, os.stat(path).st_size) == (stat.S_IFREG, 0)


def test_a_bubblewrap_in_a_writable_root_or_in_the_command_s_directory_is_not_taken(tmp_path):
    directory = tmp_path / "bin"
    directory.mkdir()
    (tmp_path / "link").symlink_to("bin")
    (directory / "bwrap").symlink_to(BWRAP)
    planted = directory / "planted" / "bwrap"
    planted.parent.mkdir()
    planted.write_text(f'#!/bin/sh\nexec {BWRAP} "$@"\n')
    planted.chmod(0o755)
    environ = {"PATH": str(planted.parent)}

    def taken(cwd, *lines):
        return look(policy("read /", *lines), str(cwd), Options(), environ).bubblewrap.path

    assert taken("/") == str(planted)
    assert taken(directory) != str(planted)
    assert taken(tmp_path / "link") != str(planted)
    assert taken("/", f"write {tmp_path}/link") != str(planted)
    # A policy in which everything may be written has no roots, and a tool could have put it anywhere.
    for full in (resolve(DISABLED, places("/", {})), policy("write :root"), policy("write :root", network=ENABLED)):
        found = look(full, "/", Options(managed_ports=(3128,)), environ).bubblewrap
        assert found is None or found.path == bundled()


def test_what_needs_no_bubblewrap_looks_for_none():
    for asked, options in [
        (resolve(DISABLED, places("/", {})), Options()),
        (policy("write :root"), Options()),
        (policy("write :root", network=ENABLED), Options()),
        (policy("read /"), Options(legacy_landlock=True)),
    ]:
        host = look(asked, "/", options, WITHOUT_PATH)
        assert host.bubblewrap is None and bool(host.private_paths) == options.legacy_landlock
    assert look(policy("read /"), "/", Options(legacy_landlock=True), WITHOUT_PATH).landlock_abi >= 1
    assert look(policy("write :root"), "/", Options(managed_ports=(3128,)), WITHOUT_PATH).bubblewrap is not None


def test_the_caller_s_own_proxies_are_part_of_the_plan():
    ports = frozenset({4000})
    host = look(policy("read /"), "/", Options(managed_ports=(3128, 4000)), os.environ, ports)
    with pytest.raises(SandboxUnavailable, match="port 4000 is this agent's own attesting proxy"):
        plan(policy("read /"), Command(("true",), "/"), host, Options(managed_ports=(3128, 4000)))
    assert look(policy("read /"), "/", Options(), os.environ).proxy_ports == frozenset()


def test_on_a_mac_the_private_directories_are_known_too(monkeypatch):
    """They were looked for on Linux only, so that no Seatbelt profile had any."""
    monkeypatch.setattr(sys, "platform", "darwin")
    host = look(policy("read /"), "/", Options(), {"TMPDIR": "/var/folders/T"}, frozenset({4000}))
    assert f"/var/folders/T/countersign-runs-{os.geteuid()}" in host.private_paths
    assert host.proxy_ports == frozenset({4000})
