"""A patch outside of the sandbox, while a command exchanges a directory on its way for a symlink."""

import os

import pytest

from agent.tools.apply_patch import PatchNotApplied, apply
from agent.tools.patch import parse

HUNKS = [
    "*** Add File: sub/file\n+changed",
    "*** Update File: sub/file\n@@\n-x\n+changed",
    "*** Delete File: sub/file",
    "*** Update File: sub/file\n*** Move to: moved\n@@\n-x\n+changed",
]


@pytest.mark.parametrize("turns", [True, False], ids=["turned", "the control"])
@pytest.mark.parametrize("hunk", HUNKS, ids=["add", "update", "delete", "move"])
def test_a_directory_that_is_turned_after_the_check_leads_a_patch_nowhere(tmp_path, monkeypatch, hunk, turns):
    """Between the check and the deed it wrote to, and removed, what the symlink led to."""
    for name in ("elsewhere", "sub"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x\n")
    places = {name: (str(tmp_path / name),) * 2 for name in ("sub/file", "moved")}
    realpath = os.path.realpath

    def checked(path, *args, **more):
        found = realpath(path, *args, **more)
        if turns and not (tmp_path / "sub").is_symlink():
            (tmp_path / "sub").rename(tmp_path / "was")
            (tmp_path / "sub").symlink_to(tmp_path / "elsewhere")
        return found

    monkeypatch.setattr(os.path, "realpath", checked)
    try:
        apply(parse(f"*** Begin Patch\n{hunk}\n*** End Patch"), str(tmp_path), places)
    except PatchNotApplied:
        assert turns
    else:
        assert not turns
    assert (tmp_path / "elsewhere" / "file").read_text() == "x\n"
