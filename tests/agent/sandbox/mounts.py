"""A bubblewrap command line read back as the mounts that it makes."""

from collections.abc import Iterator, Sequence

from agent.sandbox.paths import is_under
from agent.sandbox.plan import Backend, Command, plan
from tests.agent.sandbox.imagined_disk import DIRECTORY, ImaginedDisk
from tests.agent.sandbox.policies import RESTRICTED, linux, policy

# option -> how many words belong to it
WORDS = {
    **dict.fromkeys(("--bind", "--ro-bind", "--bind-try", "--symlink"), 2),
    **dict.fromkeys(("--tmpfs", "--dev", "--proc", "--perms", "--remount-ro", "--chdir", "--cap-drop"), 1),
    **dict.fromkeys(("--seccomp", "--sync-fd", "--info-fd", "--block-fd"), 1),
    **dict.fromkeys(("--new-session", "--die-with-parent", "--unshare-user", "--unshare-ipc"), 0),
    **dict.fromkeys(("--unshare-pid", "--unshare-net", "--disable-userns"), 0),
}
MOUNTS = ("--bind", "--ro-bind", "--bind-try", "--tmpfs", "--dev", "--proc")


def steps(argv: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The options before `--`, each with its words; one that bubblewrap 0.8 does not have is an error here."""
    words = list(argv[1 : argv.index("--")])
    while words:
        count = WORDS[words[0]]
        yield tuple(words[: count + 1])
        del words[: count + 1]


def mounts(argv):
    """(option, what, where), in order."""
    return [(step[0], step[1], step[-1]) for step in steps(argv) if step[0] in MOUNTS]


def flags(argv):
    return {step[0]: step[1:] for step in steps(argv) if step[0] not in MOUNTS}


def planned(contents, *lines, cwd="/w", host=None, options=None, argv=("true",), network=RESTRICTED):
    disk = ImaginedDisk({"/w": DIRECTORY, **contents})
    made = plan(policy(*lines, network=network), Command(argv, cwd), linux(disk, **(host or {})), options)
    assert made.backend is Backend.BUBBLEWRAP
    return made


def view(argv, path):
    """What the last mount above a path makes of it: "write", "read", "nothing" (or the host's, for /dev and /proc)."""
    at = [(option, what) for option, what, where in mounts(argv) if is_under(path, where)]
    option, what = at[-1]
    if option == "--ro-bind" and what == "/dev/null":
        return "nothing"
    return {"--bind": "write", "--bind-try": "write", "--ro-bind": "read", "--tmpfs": "nothing"}.get(option, option)


def bound(argv: Sequence[str]) -> list[str]:
    """What is bound on itself, writable."""
    return [where for option, what, where in mounts(argv) if option == "--bind" and what == where]
