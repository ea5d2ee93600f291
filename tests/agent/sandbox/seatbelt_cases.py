"""Policies for the Seatbelt planner, each with what may be done with some paths under it, and the Mac they are for.

The command lines are committed in goldens/seatbelt. After a change that is meant, write them anew and read the diff:

    .venv/bin/python -m tests.agent.sandbox.seatbelt_cases
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent.sandbox.disk import Kind
from agent.sandbox.legacy import LegacyPolicy, Mode, to_profile
from agent.sandbox.plan import Command, Host, Options, SandboxPlan, plan
from agent.sandbox.policy import (
    Access,
    Entry,
    GlobTarget,
    Network,
    PathTarget,
    Places,
    Policy,
    Profile,
    ProfileKind,
    SpecialTarget,
    Target,
    resolve,
)
from tests.agent.sandbox.imagined_disk import DIRECTORY, File, ImaginedDisk, Link
from tests.agent.sandbox.sbpl import definitions

GOLDENS = Path(__file__).parent / "goldens" / "seatbelt"

READ, WRITE, DENY = Access
RESTRICTED, ENABLED = Network

APP = "/Users/me/app"
TMPDIR = "/var/folders/ab/T"
MAC: dict[str, Kind | File | Link] = {
    "/usr/bin/sandbox-exec": File(),
    "/tmp": Link("private/tmp"),
    "/var": Link("private/var"),
    "/etc": Link("private/etc"),
    "/private/tmp": DIRECTORY,
    "/private/var/folders/ab/T": DIRECTORY,
    "/private/etc/ssh/key": File(),
    APP: DIRECTORY,
    f"{APP}/.git/hooks": DIRECTORY,
    f"{APP}/src/sub": DIRECTORY,
    "/Users/me/other": DIRECTORY,
}
COMMAND = Command(("/bin/ls", "-l", "--"), APP)


def entries(*lines: tuple[Target | str, Access]) -> tuple[Entry, ...]:
    """A string is a path, with a `:` in front a special, with a `*` in it a pattern."""

    def target(of: Target | str) -> Target:
        if not isinstance(of, str):
            return of
        if of.startswith(":"):
            return SpecialTarget(of[1:])
        return GlobTarget(of) if "*" in of else PathTarget(of)

    return tuple(Entry(target(of), access) for of, access in lines)


def managed(*lines: tuple[Target | str, Access], network: Network = RESTRICTED) -> Profile:
    return Profile(ProfileKind.MANAGED, network, entries=entries(*lines))


def policy_of(profile: Profile) -> Policy:
    return resolve(profile, Places(APP, (APP,), TMPDIR, slash_tmp=True))


def host_of(contents: Mapping[str, Kind | File | Link] | None = None, **facts: object) -> Host:
    disk = ImaginedDisk({**MAC, **(contents or {})}, ignores_case=bool(facts.pop("ignores_case", False)))
    return Host("darwin", "arm64", 501, disk, **facts)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Row:
    """What may be done with a path as it is spelled.

    `beyond` says what decides beside the entries and names, of which `Policy` knows nothing.
    """

    path: str
    may: str
    beyond: str = ""


@dataclass(frozen=True)
class Case:
    profile: Profile
    rows: list[Row]
    contents: dict[str, Kind | File | Link] = field(default_factory=dict)
    facts: dict[str, object] = field(default_factory=dict)
    options: Options = Options()

    def plan(self) -> SandboxPlan:
        return plan(policy_of(self.profile), COMMAND, host_of(self.contents, **self.facts), self.options)


HOSTILE = [
    '/Users/me/a"quote',
    '/Users/me/a" (allow default) "',
    "/Users/me/a\n(allow default)\n",
    "/Users/me/back\\slash",
    "/Users/me/ends\\",
    "/Users/me/(paren) (",
    "/Users/me/;comment",
    "/Users/me/eq=ual",
    "/Users/me/[b].*+?|^$ {x}",
    "/Users/me/naïve 日本",
    "/Users/me/\udcff",
]

# Without what would have a meaning in a pattern.
PLAIN = [path for path in HOSTILE if not set(path) & set("\\*")]

CASES = {
    "read-only": Case(
        to_profile(LegacyPolicy(Mode.READ_ONLY)),
        [
            Row(f"{APP}/a", "r"),
            Row("/etc/passwd", "r"),
            Row("/tmp/a", "r"),
        ],
    ),
    "workspace-write": Case(
        to_profile(LegacyPolicy(Mode.WORKSPACE_WRITE)),
        [
            Row(APP, "rw"),
            Row(f"{APP}/a", "rw"),
            Row(f"{APP}/.git", "r"),
            Row(f"{APP}/.git/hooks/pre-commit", "r"),
            Row(f"{APP}/.agents", "r"),
            Row(f"{APP}/.codex/config.toml", "r"),
            Row(f"{APP}/.aws/credentials", "r"),
            Row(f"{APP}/.gitignore", "rw"),
            Row(f"{APP}/sub/.git/config", "rw"),
            Row(f"{APP}x", "r"),
            Row("/tmp/a", "rw"),
            Row("/private/tmp/a", "rw", "it is /tmp"),
            Row("/tmp/.codex", "r"),
            Row(f"{TMPDIR}/a", "rw"),
            Row(f"{TMPDIR}/.git/a", "r"),
            Row("/var/a", "r"),
            Row("/", "r"),
        ],
    ),
    "network-and-extra-root": Case(
        to_profile(
            LegacyPolicy(
                Mode.WORKSPACE_WRITE,
                writable_roots=("/Users/me/other",),
                network_access=True,
                exclude_tmpdir_env_var=True,
                exclude_slash_tmp=True,
            )
        ),
        [
            Row("/Users/me/other/a", "rw"),
            Row("/Users/me/other/.aws", "r"),
            Row("/tmp/a", "r"),
            Row(f"{TMPDIR}/a", "r"),
            Row("/Users/me/.codex/run/socket", "", "the agent's own"),
        ],
        facts={"private_paths": ("/Users/me/.codex/run",), "proxy_ports": frozenset({8080, 8443})},
    ),
    "worktree": Case(
        managed((":root", READ), (":project_roots", WRITE), ("/Users/me/other", WRITE)),
        [
            Row(f"{APP}/a", "rw"),
            Row(f"{APP}/.git", "r"),
            Row("/Users/me/other/store/app/config", "r", "the .git file points there"),
            Row("/Users/me/other/store/app", "r", "the .git file points there"),
            Row("/Users/me/other/store/b", "rw"),
        ],
        {
            **dict.fromkeys([f"{APP}/.git/hooks"], File()),
            f"{APP}/.git": File("gitdir: ../other/store/app\n"),
            "/Users/me/other/store/app": DIRECTORY,
        },
    ),
    "limited-reads": Case(
        managed((":minimal", READ), (":project_roots", WRITE), ("/Users/me/other", READ)),
        [
            Row(f"{APP}/a", "rw"),
            Row("/Users/me/other/a", "r"),
            Row("/Users/me/a", ""),
            Row("/Users/me", ""),
            Row("/usr/bin/git", "r", "the system's"),
            Row("/System/Library/dyld/cache", "r", "the system's"),
            Row("/etc/hosts", "r", "the system's"),
            Row("/usr/local/bin/x", ""),
            Row("/opt/homebrew/bin/x", ""),
            Row("/tmp/a", ""),
            Row("/private/var/tmp/a", ""),
        ],
    ),
    "limited-reads-without-system": Case(
        managed((APP, READ)),
        [Row(f"{APP}/a", "r"), Row("/usr/bin/git", ""), Row("/", ""), Row("/Users/me/other", "")],
    ),
    "denied-with-a-window": Case(
        managed(
            (":root", READ),
            (APP, WRITE),
            ("/Users/me", DENY),
            (f"{APP}/src", DENY),
            (f"{APP}/src/sub", READ),
        ),
        [
            Row("/Users/you/a", "r"),
            Row("/Users/me", ""),
            Row("/Users/me/other/a", ""),
            Row(f"{APP}/a", "rw"),
            Row(f"{APP}/src/a", ""),
            Row(f"{APP}/src/sub/a", "r"),
        ],
    ),
    "read-only-with-a-window": Case(
        managed((":root", READ), (APP, WRITE), (f"{APP}/src", READ), (f"{APP}/src/sub", WRITE)),
        [
            Row(f"{APP}/src/a", "r"),
            Row(f"{APP}/src", "r"),
            Row(f"{APP}/src/sub/a", "rw"),
            Row(f"{APP}/src/sub/.git/a", "r"),
            Row(f"{APP}/srcs", "rw"),
        ],
    ),
    "git-made-writable": Case(
        managed((":root", READ), (APP, WRITE), (f"{APP}/.git", WRITE), (f"{APP}/.codex/sessions", WRITE)),
        [
            Row(f"{APP}/.git/hooks/a", "rw"),
            Row(f"{APP}/.git", "rw"),
            Row(f"{APP}/.codex", "r"),
            Row(f"{APP}/.codex/a", "r"),
            Row(f"{APP}/.codex/sessions/a", "rw"),
            Row(f"{APP}/.agents/a", "r"),
        ],
        {f"{APP}/.codex/sessions": DIRECTORY},
    ),
    "nested-roots": Case(
        managed((":root", READ), ("/Users/me", WRITE), (APP, WRITE)),
        [
            Row(f"{APP}/a", "rw"),
            Row(f"{APP}/.git/a", "r"),
            Row("/Users/me/.git/a", "r"),
            Row("/Users/me/other/.git/a", "rw"),
        ],
    ),
    "deny-patterns": Case(
        managed((":root", READ), (APP, WRITE), ("**/*.env", DENY), ("/tmp/[!k]?*.key", DENY)),
        [
            Row(f"{APP}/a", "rw"),
            Row(f"{APP}/a.env", "", "matches"),
            Row(f"{APP}/src/sub/.env", "", "matches"),
            Row(f"{APP}/a.envy", "rw"),
            Row("/Users/me/a.env", "r"),
            Row("/tmp/id.key", "", "matches, by its real path too"),
            Row("/tmp/ka.key", "r"),
            Row("/tmp/sub/id.key", "r"),
        ],
        {f"{APP}/src/sub/.env": File()},
    ),
    "full-write-without-network": Case(
        managed((":root", WRITE)),
        [
            Row("/a", "rw"),
            Row(f"{APP}/.git/a", "rw"),
            Row("/Users/me/.codex/run/key", "", "the agent's own"),
            Row("/Users/me/.codex/a", "rw"),
        ],
        facts={"private_paths": ("/Users/me/.codex/run",)},
    ),
    "full-write-but": Case(
        managed((":root", WRITE), ("/Users/me/other", DENY), (APP, READ)),
        [
            Row("/Users/me/a", "rw"),
            Row("/Users/me/other/a", ""),
            Row(f"{APP}/a", "r"),
            Row("/.git/a", "r", "the name is protected, and could not even be made: the root is sealed"),
        ],
        {"/.git": DIRECTORY},
    ),
    "managed-network": Case(
        to_profile(LegacyPolicy(Mode.READ_ONLY)),
        [Row(f"{APP}/a", "r")],
        facts={"proxy_ports": frozenset({9000})},
        options=Options(managed_ports=(3129, 3128, 3129)),
    ),
    "hostile-names": Case(
        managed(
            (":minimal", READ),
            *((PathTarget(path), WRITE) for path in HOSTILE),
            *((GlobTarget(f"{path}/*.env"), DENY) for path in PLAIN),
        ),
        [
            *(Row(f"{path}/a", "rw") for path in HOSTILE),
            *(Row(f"{path}/.git/a", "r") for path in HOSTILE),
            *(Row(f"{path}/.git/a\nb", "r") for path in HOSTILE),
            *(Row(f"{path}/a.env", "", "matches") for path in PLAIN),
            Row("/Users/me/a", ""),
            Row(f"{APP}/a", ""),
        ],
        dict.fromkeys(HOSTILE, DIRECTORY),
    ),
    "missing-paths": Case(
        managed(
            (":root", READ),
            (APP, WRITE),
            ("/Users/me/gone", WRITE),
            (f"{APP}/Conf/inner/file", READ),
            (f"{APP}/secret", DENY),
        ),
        [
            Row("/Users/me/gone/a", "r", "a root that does not exist is not writable"),
            Row("/Users/me/gone", "r", "a root that does not exist is not writable"),
            Row(f"{APP}/Conf/inner/file", "r"),
            Row(f"{APP}/Conf", "r", "what would lead there cannot be made"),
            Row(f"{APP}/cONF", "r", "another spelling of what would lead there"),
            Row(f"{APP}/conf2", "rw"),
            Row(f"{APP}/secret", ""),
            Row(f"{APP}/SECRET", "r", "another spelling"),
        ],
    ),
    "denied-in-the-system": Case(
        managed((":minimal", READ), ("/etc/ssh", DENY), ("/etc/ssh/open", READ), ("/usr/share/**/*.key", DENY)),
        [
            Row("/etc/hosts", "r", "the system's"),
            Row("/etc/ssh/key", ""),
            Row("/etc/ssh/open/a", "r"),
            Row("/usr/share/a/b.key", "", "matches"),
            Row("/usr/share/a/b.txt", "r", "the system's"),
        ],
        {"/private/etc/ssh/open": DIRECTORY},
    ),
}


def golden(made: SandboxPlan) -> bytes:
    """The profile as it is, then the other words of the command line, one to a line, as Python would write them."""
    text, _, _ = definitions(made.argv)
    words = "".join(f";; {word!a}\n" for word in made.argv if word != text)
    return (text + words).encode(errors="surrogateescape")


def write_goldens() -> None:
    GOLDENS.mkdir(parents=True, exist_ok=True)
    for path in GOLDENS.iterdir():
        path.unlink()
    for name, case in CASES.items():
        (GOLDENS / f"{name}.sb").write_bytes(golden(case.plan()))


if __name__ == "__main__":
    write_goldens()
