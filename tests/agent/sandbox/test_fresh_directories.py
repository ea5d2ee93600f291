"""What is denied of the directories that a sandbox has of its own, on imagined disks."""

import pytest

from agent.sandbox.disk import Kind
from agent.sandbox.ground import Ground, MaskKind
from agent.sandbox.policy import PolicyError
from tests.agent.sandbox.imagined_disk import DIRECTORY, File, ImaginedDisk, Link
from tests.agent.sandbox.policies import policy

_, DENIED_DIRECTORY, DENIED_FILE = MaskKind


def denied(contents, *lines):
    masks = Ground(policy(*lines), ImaginedDisk({"/w": DIRECTORY, **contents})).denied()
    return {mask.path: (mask.kind, mask.placeholder) for mask in masks}


FRESH = {"/dev/null": Kind.OTHER, "/dev/shm/x": File(), "/dev/sda": Kind.OTHER, "/dev/fd": Link("/proc/self/fd")}
FRESH |= {"/proc/self": Link("7"), "/proc/7/fd": DIRECTORY, "/proc/stat": File()}


@pytest.mark.parametrize(
    ("line", "masked"),
    [
        ("deny /dev", {"/dev": (DENIED_DIRECTORY, None)}),
        ("deny /dev/shm", {"/dev/shm": (DENIED_DIRECTORY, None)}),
        ("deny /dev/null", {"/dev/null": (DENIED_FILE, None)}),
        ("deny /dev/nul?", {"/dev/null": (DENIED_FILE, None)}),
        ("deny /proc", {"/proc": (DENIED_DIRECTORY, None)}),
        ("deny /proc/stat", {"/proc/stat": (DENIED_FILE, None)}),
        # Only the host has them.
        ("deny /dev/sda", {}),
        ("deny /dev/shm/x", {}),
    ],
)
@pytest.mark.parametrize("opened", ["read /", "read :minimal", "write /"])
def test_what_is_denied_of_a_fresh_directory_is_masked_where_that_has_it_too(line, masked, opened):
    if opened == "write /" and line == "deny /dev/shm/x":
        masked = {"/dev/shm/x": (DENIED_FILE, None)}  # there it is the host's
    assert denied(FRESH, opened, line) == masked


def test_what_the_host_has_as_a_symlink_is_masked_by_the_name_that_the_fresh_directory_has():
    contents = {"/dev/shm": Link("/run/shm"), "/run/shm": DIRECTORY}
    assert "/dev/shm" in denied(contents, "read /", "deny /dev/shm")


@pytest.mark.parametrize("line", ["deny /proc/self", "deny /dev/fd", "deny /proc/7/fd", "deny /proc/*/environ"])
def test_what_is_denied_of_single_processes_cannot_be_held_in_a_proc_of_its_own(line):
    with pytest.raises(PolicyError, match="its own"):
        denied(FRESH, "read /", line)
    if "*" not in line:
        assert Ground(policy("read /", line), ImaginedDisk(FRESH), own_proc=False).denied() != []


@pytest.mark.parametrize(("line", "refused"), [("write /proc", True), ("write /sys", True), ("write /sys/x", False)])
def test_the_kernels_directories_cannot_be_granted(line, refused):
    if refused:
        with pytest.raises(PolicyError, match=f"'{line}' cannot be granted"):
            Ground(policy("read /", line), ImaginedDisk({"/proc": DIRECTORY, "/sys": DIRECTORY}))
    else:
        assert Ground(policy("read /", line), ImaginedDisk({"/sys/x": File()})).writable == ["/sys/x"]
