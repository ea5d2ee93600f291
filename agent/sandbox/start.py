"""The start of a plan's process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

from agent.sandbox import open_files, stage
from agent.sandbox.init import Init
from agent.sandbox.placeholders import Hold
from agent.sandbox.plan import Backend, SandboxPlan, SandboxUnavailable
from agent.sandbox.spawn import spawn


def start(
    plan: SandboxPlan,
    hold: Hold | None,
    environ: Mapping[str, str],
    streams: tuple[int, int, int],
    init: Init | None,
) -> int:
    """Start it in a session of its own; returns its pid.

    Raises:
        SandboxUnavailable: It cannot be started.
    """
    if plan.backend is Backend.BUBBLEWRAP:
        if plan.bridge_ports:
            raise SandboxUnavailable(
                plan.backend, "the managed network is built for one command at a time; start the sandbox helper for it"
            )
        # From this thread, which lives as long as the agent: bubblewrap dies with the thread that started it.
        descriptors = init.descriptors if init is not None else {}
        return spawn(plan, environ, hold, descriptors, streams=streams, posix_spawn=open_files.posix_spawn)
    argv, given = plan.argv, environ
    pass_fds: tuple[int, ...] = ()
    told = -1
    if plan.backend in (Backend.SECCOMP, Backend.LANDLOCK):
        # A file and not a pipe, which takes no more than 64 KiB before it has a reader.
        told = os.memfd_create("plan")
        os.pwrite(told, stage.describe(plan, environ), 0)
        # The command's environment is told. The stage is not confined yet, and LD_PRELOAD or LD_LIBRARY_PATH may lead
        # to where the command can write.
        argv, pass_fds, given = (sys.executable, "-I", "-S", stage.__file__, str(told)), (told,), {}
    try:
        process = subprocess.Popen(  # noqa: S603 - what the model wants run, confined by the plan
            argv,
            stdin=streams[0],
            stdout=streams[1],
            stderr=streams[2],
            cwd=plan.cwd,
            env=given,
            start_new_session=True,
            pass_fds=pass_fds,
        )
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise SandboxUnavailable(plan.backend, f"{argv[0]!r} cannot be started in {plan.cwd!r}: {reason}") from exc
    finally:
        if told >= 0:
            os.close(told)
    # We wait for it by its pid; Popen must not wait for it as well when it is collected.
    process.returncode = 0
    open_files.limit(process.pid)
    return process.pid
