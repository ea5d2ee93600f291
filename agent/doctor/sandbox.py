"""Whether commands can be sandboxed on this machine, and what stands in the way. Pure.

The judgement is the sandbox's own (`agent.sandbox.discovery`) and a launch that was tried; what the kernel and the
distribution have set is here to say why, and what to do.
"""

from dataclasses import dataclass

from agent.doctor.findings import Finding, Topic

APPARMOR_SWITCH = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"
CLONE_SWITCH = "/proc/sys/kernel/unprivileged_userns_clone"
NAMESPACE_LIMIT = "/proc/sys/user/max_user_namespaces"
SEATBELT = "/usr/bin/sandbox-exec"


@dataclass(frozen=True, slots=True)
class Launch:
    """A command that was run in a read-only sandbox: it had to read a file, and fail to write it.

    Args:
        held: It read, and could not write.
        problem: What happened instead; empty if it was held.
    """

    held: bool
    problem: str = ""


@dataclass(frozen=True, slots=True)
class SandboxFacts:
    """The machine, as far as the sandbox depends on it. Of other platforms than its own, nothing is filled in.

    Args:
        platform: As sys.platform.
        wsl: 1 or 2 under the Windows Subsystem for Linux.
        bubblewrap: The binary that would be used; None with `missing` saying why there is none.
        on_path: It is the one on PATH, and not the one that came with us.
        passed_over: What was found on PATH and not used, with the reason.
        switches: file below /proc/sys -> its number; only of those that are there.
        landlock_abi: 0 if there is none, None if the kernel did not say.
        landlock_lacks: What a Landlock of this ABI leaves open, a clause each.
        seatbelt: `sandbox-exec` is there.
        launch: None if none was tried.
    """

    platform: str
    wsl: int | None = None
    bubblewrap: str | None = None
    missing: str = ""
    on_path: bool = True
    passed_over: tuple[str, ...] = ()
    switches: tuple[tuple[str, int], ...] = ()
    landlock_abi: int | None = None
    landlock_lacks: tuple[str, ...] = ()
    seatbelt: bool = False
    launch: Launch | None = None


def sandbox_findings(facts: SandboxFacts) -> list[Finding]:
    """Whether a confined command would run here, and why not."""
    match facts.platform:
        case "linux":
            found = _linux(facts)
        case "darwin":
            found = [_darwin(facts)]
        case _:
            text = f"no backend holds a command on {facts.platform}: every confined one is refused"
            advice = "run the agent in Linux, such as WSL 2"
            return [Topic.SANDBOX.problem("backend", text, advice)]
    if facts.launch is not None:
        found.append(_launch(facts.launch))
    return found


def _linux(facts: SandboxFacts) -> list[Finding]:
    if facts.wsl == 1:
        text = "Windows Subsystem for Linux 1 has no namespaces, so no command can be sandboxed"
        return [Topic.SANDBOX.problem("kernel", text, "convert the distribution to WSL 2")]
    found = []
    if facts.wsl is not None:
        found.append(Topic.SANDBOX.ok("kernel", f"Windows Subsystem for Linux {facts.wsl}"))
    found.append(_bubblewrap(facts))
    found += _switches(dict(facts.switches), works=facts.bubblewrap is not None)
    found.append(_landlock(facts))
    return found


def _bubblewrap(facts: SandboxFacts) -> Finding:
    if facts.bubblewrap is None:
        advice = "install bubblewrap 0.8 or later and allow user namespaces; in a container, allow them for it"
        if facts.landlock_abi:
            advice += ", or set features.use_legacy_landlock, which holds the simpler policies"
        return Topic.SANDBOX.problem("bubblewrap", f"no command can be sandboxed: {facts.missing}", advice)
    looked_at = f"bubblewrap {facts.bubblewrap!r}"
    if facts.on_path:
        return Topic.SANDBOX.ok(looked_at, "can do what is needed")
    reason = "; ".join(facts.passed_over) or "no 'bwrap' is on PATH"
    return Topic.SANDBOX.note(looked_at, f"the one that came with countersign is used, since {reason}")


# file -> (the value that shuts namespaces, what it means, what to do)
_SHUT = {
    NAMESPACE_LIMIT: (
        0,
        "is 0: no user namespace can be made",
        "sysctl user.max_user_namespaces=10000, as root; in a container, on its host",
    ),
    CLONE_SWITCH: (
        0,
        "is 0: only root may make user namespaces",
        "sysctl kernel.unprivileged_userns_clone=1, as root",
    ),
    APPARMOR_SWITCH: (
        1,
        "is 1: AppArmor keeps programs without a profile of their own from using user namespaces",
        "load a profile that allows userns for bwrap (Ubuntu: package apparmor-profiles, bwrap-userns-restrict), or "
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0, as root",
    ),
}


def _switches(switches: dict[str, int], *, works: bool) -> list[Finding]:
    found = []
    for path, (shut, text, advice) in _SHUT.items():
        if switches.get(path) != shut:
            continue
        if works:
            note = f"{text}; bubblewrap works nevertheless"
            found.append(Topic.SANDBOX.note(path, note))
        else:
            found.append(Topic.SANDBOX.warning(path, text, advice))
    if not found:
        seen = ", ".join(switches) or NAMESPACE_LIMIT
        found.append(Topic.SANDBOX.ok(seen, "user namespaces are allowed"))
    return found


def _landlock(facts: SandboxFacts) -> Finding:
    if not facts.landlock_abi:
        text = "is not there or cannot be asked; it is needed only with features.use_legacy_landlock"
        return Topic.SANDBOX.note("Landlock", text)
    text = f"ABI {facts.landlock_abi}, for features.use_legacy_landlock"
    if facts.landlock_lacks:
        return Topic.SANDBOX.note("Landlock", f"{text}: {'; '.join(facts.landlock_lacks)}")
    return Topic.SANDBOX.ok("Landlock", text)


def _darwin(facts: SandboxFacts) -> Finding:
    if facts.seatbelt:
        return Topic.SANDBOX.ok(SEATBELT, "is there")
    advice = "it is part of macOS; restore it, or run the agent in a virtual machine"
    return Topic.SANDBOX.problem(SEATBELT, "is missing, so no command can be sandboxed", advice)


def _launch(launch: Launch) -> Finding:
    looked_at = "a command in a read-only sandbox"
    if launch.held:
        return Topic.SANDBOX.ok(looked_at, "could read a file, and could not write it")
    advice = (
        "run `countersign sandbox -- true` to see it, and mend what the findings above name; in a container, allow "
        "user namespaces for it"
    )
    return Topic.SANDBOX.problem(looked_at, launch.problem, advice)
