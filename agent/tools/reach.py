"""What a tool reads in the agent itself, outside of any sandbox: no more than a command of the thread could."""

import errno
import os
import stat
from collections.abc import Mapping

from agent.sandbox.disk import RealDisk
from agent.sandbox.ground import Ground
from agent.sandbox.host import private_paths
from agent.sandbox.paths import ancestors, flaw
from agent.sandbox.policy import Policy
from agent.tools.places import path_of


class Reach:
    """The files of a policy, as they are now. It looks at the disk.

    Args:
        environ: Of this process.

    Raises:
        PolicyError: Commands could not be confined by it either.
    """

    def __init__(self, policy: Policy, environ: Mapping[str, str]) -> None:
        self._ground = None if policy.has_full_disk_write else Ground(policy, RealDisk())
        if self._ground is not None:
            self._denied = {mask.path for mask in self._ground.denied(private_paths(environ, os.geteuid()))}
            self._fixed = self._denied | {mask.path for mask in self._ground.read_only()}

    def may_read(self, real: str) -> bool:
        """Whether a path without symlinks may be read."""
        if self._ground is None:
            return True
        for above in ancestors(real):
            if above in self._denied or above in self._ground.writable:
                return above not in self._denied
        return self._ground.is_visible(real)

    def may_write(self, real: str) -> bool:
        """Whether a path without symlinks may be written; what is protected may not."""
        if self._ground is None:
            return True
        for above in ancestors(real):
            if above in self._fixed or above in self._ground.writable:
                return above not in self._fixed
        return False

    def read(self, path: str, most: int) -> bytes:
        """The content of a regular file, symlinks followed; the first `most` bytes and one more of a longer one.

        Raises:
            OSError: It cannot be read, or must not be.
        """
        if (problem := flaw(path)) is not None:
            raise OSError(errno.EINVAL, f"the path has {problem}")
        real = self._checked(os.path.realpath(path))
        # Anything else may be without end, may wait for ever, or be the agent's own stdin.
        _check_regular(os.stat(real))
        descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            _check_regular(os.fstat(descriptor))
            # A command at work may have put a symlink on the way since.
            self._checked(path_of(descriptor))
            return file.read(most + 1)

    def _checked(self, real: str) -> str:
        if not self.may_read(real):
            raise PermissionError(errno.EACCES, "the sandbox of this thread does not let it be read", real)
        return real


def _check_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file")
