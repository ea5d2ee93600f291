"""Whether a failed command failed because of the sandbox. Pure; a guess: the kernel's errors do not say who denied."""

# What commands, shells and our own helper print when the kernel refused them something; compared in lower case.
_SIGNS = (
    "operation not permitted",
    "permission denied",
    "read-only file system",
    "seccomp",
    "sandbox",
    "landlock",
    "failed to write file",
)
# SIGSYS (31) on top of the shell's 128: a seccomp filter killed the command.
_KILLED_BY_SECCOMP = 128 + 31


def likely_denied(exit_code: int, output: str, platform: str) -> bool:
    """Whether to offer the command again with more access. The rule is the original's (sandboxing/src/denial.rs).

    The words decide before the exit code does: 126 without them is a file that is not executable, 126 with "permission
    denied" may be a mount without execution.

    Args:
        exit_code: 128 + N for a death by signal N.
        output: stdout and stderr, in any order.
        platform: As sys.platform. Only Linux has seccomp.
    """
    if exit_code == 0:
        return False
    lowered = output.lower()
    if any(sign in lowered for sign in _SIGNS):
        return True
    return platform == "linux" and exit_code == _KILLED_BY_SECCOMP
