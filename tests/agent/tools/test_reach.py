"""What the agent itself reads for the model: just what a command of the thread could."""

import asyncio
import contextlib
import os

import pytest

from agent.sandbox.policy import DISABLED, Access, Entry, GlobTarget, Network, PathTarget, Places, Profile, ProfileKind
from agent.sandbox.policy import resolve as at_place
from agent.tools.grants import NOTHING
from agent.tools.reach import Reach
from tests.agent.tools.workbench import Workbench, output_of

EVERYTHING = at_place(DISABLED, Places("/", ("/",), None, True))


def reach_of(directory, *entries):
    """Of a policy by which the directory may be written, the rest read, with these entries over it."""
    entries = (Entry(PathTarget("/"), Access.READ), Entry(PathTarget(str(directory)), Access.WRITE), *entries)
    profile = Profile(ProfileKind.MANAGED, Network.RESTRICTED, entries=entries)
    return Reach(at_place(profile, Places(str(directory), (str(directory),), None, False)), {})


@pytest.fixture
def workspace(tmp_path):
    """A directory with a file, and a symlink to the directory beside it."""
    workspace = tmp_path / "workspace"
    (workspace / "sub").mkdir(parents=True)
    (workspace / "sub" / "file").write_text("content")
    (tmp_path / "link").symlink_to(workspace)
    return workspace


@pytest.mark.parametrize("spelled", ["workspace/sub", "link/sub", "workspace/sub/file"])
def test_what_is_denied_is_not_read_however_it_is_spelled(tmp_path, workspace, spelled):
    """A denied symlink left what it leads to readable."""
    root = tmp_path / "root"
    root.mkdir()
    reach = reach_of(root, Entry(PathTarget(str(tmp_path / spelled)), Access.DENY))
    for path in (workspace / "sub" / "file", tmp_path / "link" / "sub" / "file"):
        with pytest.raises(PermissionError):
            reach.read(str(path), 100)
        assert reach_of(root).read(str(path), 100) == b"content"  # the control


def test_what_a_pattern_denies_is_not_read(tmp_path, workspace):
    """Patterns were of no account here."""
    pattern = Entry(GlobTarget(f"{tmp_path}/**/fil?"), Access.DENY)
    with pytest.raises(PermissionError):
        reach_of(workspace, pattern).read(f"{workspace}/sub/file", 100)
    (workspace / "sub" / "other").write_text("other")
    assert reach_of(workspace, pattern).read(f"{workspace}/sub/other", 100) == b"other"


def test_below_what_is_denied_what_may_be_written_is_open(tmp_path, workspace):
    reach = reach_of(workspace, Entry(PathTarget(str(tmp_path)), Access.DENY))
    assert reach.read(f"{workspace}/sub/file", 100) == b"content"
    assert reach.may_write(f"{workspace}/sub/file")
    assert not reach.may_read(str(tmp_path / "beside"))


def test_a_workspace_is_writable_through_a_symlink_and_what_is_protected_in_it_is_not(tmp_path, workspace):
    reach = reach_of(tmp_path / "link")
    assert reach.may_write(f"{workspace}/new")
    assert not reach.may_write(f"{workspace}/.git/config")
    assert not reach.may_write(f"{tmp_path}/beside")


def test_only_regular_files_are_read_and_no_more_of_them_than_is_wanted(tmp_path):
    """`/dev/zero` filled the memory, a FIFO held a thread for ever, and `/dev/stdin` took what a client had written."""
    reach = Reach(EVERYTHING, {})
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "long").write_bytes(b"x" * 100)
    assert reach.read(str(tmp_path / "long"), 10) == b"x" * 11
    for path in (str(tmp_path / "fifo"), "/dev/zero", str(tmp_path), "a\0b", "\ud800"):
        with pytest.raises(OSError):
            reach.read(path, 10)
    theirs, ours = os.pipe()
    try:
        os.write(ours, b"for somebody else")
        with pytest.raises(OSError):
            reach.read(f"/proc/self/fd/{theirs}", 100)
        assert os.read(theirs, 100) == b"for somebody else"
    finally:
        os.close(theirs)
        os.close(ours)


@pytest.mark.parametrize("path", ["fifo", "/dev/zero", "a\0b", "huge"])
@pytest.mark.parametrize("hunk", ["*** Delete File: {}", "*** Add File: {}\n+x", "*** Update File: {}\n@@\n-x\n+y"])
def test_a_patch_of_what_is_no_file_to_patch_is_an_output(run, tmp_path, path, hunk):
    async def scenario():
        async with Workbench(tmp_path) as bench:
            os.mkfifo(bench.cwd / "fifo")
            (bench.cwd / "huge").touch()
            os.truncate(bench.cwd / "huge", 2**40)
            async with asyncio.timeout(20):
                told = await bench.patch(f"*** Begin Patch\n{hunk.format(path)}\n*** End Patch")
            assert told.startswith("apply_patch verification failed: ")
            assert bench.told == []

    run(scenario())


def test_a_patch_does_not_tell_what_is_in_a_file_that_must_not_be_read(run, tmp_path):
    """Whether its lines were those of the file was told, and the client was shown the file."""
    hidden = {"filesystem": {":root": "read", ":project_roots": {".": "write"}, str(tmp_path / "hidden"): "deny"}}
    (tmp_path / "hidden").write_text("password\n")

    async def scenario():
        async with Workbench(
            tmp_path, config={"permissions": {"hidden": hidden}}, answers=[{"decision": "decline"}]
        ) as bench:
            bench.thread.profile = "hidden"
            told = [
                await bench.patch(f"*** Begin Patch\n*** Update File: ../hidden\n@@\n-{guess}\n+x\n*** End Patch")
                for guess in ("password", "wrong")
            ]
            assert told[0] == told[1]
            assert "does not let it be read" in told[0]
            assert "password" not in str(bench.told)
            bench.thread.profile = None
            await bench.patch("*** Begin Patch\n*** Update File: ../hidden\n@@\n-password\n+x\n*** End Patch")
            assert "password" in str(bench.told)  # the control

    run(scenario())


def test_a_link_that_comes_while_a_file_is_opened_leads_nowhere(tmp_path, workspace, monkeypatch):
    """A command at work may exchange a directory for a symlink at any moment."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "file").write_text("secret")
    reach = reach_of(workspace, Entry(PathTarget(str(secret)), Access.DENY))
    stat = os.stat

    def turned(path, *args, **more):
        if str(path).endswith("sub/file") and not (workspace / "sub").is_symlink():
            (workspace / "sub").rename(workspace / "was")
            (workspace / "sub").symlink_to(secret)
        return stat(path, *args, **more)

    with monkeypatch.context() as patched, contextlib.suppress(PermissionError):
        patched.setattr(os, "stat", turned)
        pytest.fail(f"it was read: {reach.read(f'{workspace}/sub/file', 100)!r}")
    assert reach.read(f"{workspace}/was/file", 100) == b"content"


def test_what_is_read_here_is_what_a_command_reads(run, tmp_path):
    """The same question to the real sandbox."""
    names = ("open", "denied", "matched.key", "below/inner", "below/open/inner")
    filesystem = {":root": "read", str(tmp_path): "read"}
    filesystem |= {f"{tmp_path}/denied": "deny", f"{tmp_path}/*.key": "deny", f"{tmp_path}/below": "deny"}
    filesystem |= {f"{tmp_path}/below/open": "write"}
    (tmp_path / "below" / "open").mkdir(parents=True)
    for name in names:
        (tmp_path / name).write_text("x")

    async def scenario():
        async with Workbench(tmp_path, config={"permissions": {"some": {"filesystem": filesystem}}}) as bench:
            bench.thread.profile = "some"
            reach = bench.confinement.reach(bench.thread, NOTHING)
            for name in names:
                path = str(tmp_path / name)
                told = output_of(await bench.command(f"cat {path}"))
                assert (told == "x") is reach.may_read(path), name

    run(scenario())
