"""A workspace with the tools of the model, a thread that works in it, and the client of that thread."""

import contextlib
import itertools
import json
import os

from agent.core.thread import Thread, sandbox_policy
from agent.core.tooling import CallContext, ToolCall
from agent.sandbox.environment import ShellEnvironmentPolicy
from agent.sandbox.run import Runner
from agent.tools.asking import AskUser, ClientTools
from agent.tools.confinement import Confinement
from agent.tools.granting import RequestPermissions
from agent.tools.images import ViewImage
from agent.tools.patching import Patching
from agent.tools.shell import Shell
from agent.tools.toolbox import Tools


class Workbench:
    """Real tools and a real sandbox.

    Args:
        answers: What the client says to each question: a value, or an exception that is raised.
        grants: The model may ask for permissions.
        environment, environ, config: Of the confinement; `environ` is laid over ours.
    """

    def __init__(
        self,
        directory,
        *,
        mode="workspace-write",
        policy="on-request",
        answers=(),
        dynamic_tools=(),
        grants=False,
        environment=None,
        environ=None,
        config=None,
    ):
        self.directory = directory
        self.cwd = directory / "project"
        (directory / "user").mkdir(parents=True)
        self.cwd.mkdir()
        # Neither /tmp nor $TMPDIR, in which the tests lie.
        sandbox = sandbox_policy(mode, {"excludeTmpdirEnvVar": True, "excludeSlashTmp": True})
        self.thread = Thread(
            id="thread-1",
            cwd=str(self.cwd),
            model="gpt-5.5",
            originator="test",
            approval_policy=policy,
            sandbox=sandbox,
            profile=None,
            created_at=0,
            cli_version="0",
            dynamic_tools=list(dynamic_tools),
        )
        self.told, self.asked, self.waited_for = [], [], []
        self.kept, self.turn_id, self.goals = {}, "turn-1", None
        self._answers = iter(answers)
        self._numbers = itertools.count()
        self.runner = Runner()
        environ = {**os.environ, "HOME": str(directory / "user"), "SHELL": "/bin/sh"} | (environ or {})
        flags = dict.fromkeys(("exec_permission_approvals", "request_permissions_tool"), grants)
        config = {"features": flags} | (config or {})
        self.confinement = confinement = Confinement(
            environment or ShellEnvironmentPolicy(), lambda: (None, frozenset(), ()), environ, config
        )
        patching = Patching(self.runner, confinement)
        shell = Shell(self.runner, confinement, patching)
        self.tools = Tools(
            ClientTools(),
            shell,
            patching,
            ViewImage(confinement.reach),
            AskUser(),
            RequestPermissions(confinement),
            user_command=shell.user_command,
            is_busy=shell.is_busy,
        )

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.tools.forget(self.thread.id, self.kept)
        self.runner.close()

    async def call(self, name, text, *, kind="function_call"):
        """What the model is told of a call."""
        return await self.tools.run(ToolCall(f"call-{next(self._numbers)}", kind, name, text), self._context())

    async def command(self, cmd, **more):
        """What the model is told of a command."""
        return (await self.call("exec_command", json.dumps({"cmd": cmd, **more}))).content

    async def patch(self, text):
        """What the model is told of a patch."""
        return (await self.call("apply_patch", text, kind="custom_tool_call")).content

    def items(self, method):
        """The items that the client was told of."""
        return [params["item"] for heard, params in self.told if heard == method]

    def _context(self):
        return CallContext(
            thread=self.thread,
            turn_id=self.turn_id,
            notify=lambda method, params: self.told.append((method, params)),
            ask=self._ask,
            waiting=self._waiting,
            now_ms=lambda: 1_700_000_000_000,
            new_id=lambda: f"id-{next(self._numbers)}",
            session=self.kept,
        )

    async def _ask(self, method, params):
        self.asked.append((method, params))
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @contextlib.contextmanager
    def _waiting(self, flag):
        self.waited_for.append(flag)
        yield


def session_of(told):
    """The number of the command that goes on, of what the model was told."""
    return int(told.partition("session ID ")[2].split()[0])


def output_of(told):
    """What the command said, of what the model was told."""
    return told.partition("Output:\n")[2]
