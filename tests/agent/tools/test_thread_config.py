"""A thread's own configuration, where it brings one, counts for its tools in the place of that of all threads."""

from agent.tools.toolbox import Tools
from tests.agent.tools.workbench import Workbench

FEATURES = {"exec_permission_approvals": True, "request_permissions_tool": True}


def names(tools: Tools, thread):
    return {item["name"] for item in tools.declared(thread)}


def may_ask(tools: Tools, thread):
    (exec_command,) = (item for item in tools.declared(thread) if item["name"] == "exec_command")
    return "additional_permissions" in exec_command["parameters"]["properties"]


def test_which_features_are_on_is_the_threads_own_matter(tmp_path):
    bench = Workbench(tmp_path)
    assert "request_permissions" not in names(bench.tools, bench.thread) and not may_ask(bench.tools, bench.thread)
    bench.thread.config = {"features": FEATURES}
    assert "request_permissions" in names(bench.tools, bench.thread) and may_ask(bench.tools, bench.thread)
    bench.runner.close()


def test_the_environment_of_commands_is_the_threads_own_matter(run, tmp_path):
    """And so is what it may not have: that was decided by the file alone."""

    async def scenario():
        async with Workbench(tmp_path, environ={"A_SECRET": "s3cret"}) as bench:
            policy = {"exclude": ["A_*"], "set": {"FOO": "bar"}}
            for own, said in ((None, "-s3cret"), ({"shell_environment_policy": policy}, "bar-")):
                bench.thread.config = own
                assert f"[{said}]" in await bench.command("echo [$FOO-$A_SECRET]")

    run(scenario())


def test_a_permission_profile_may_be_defined_by_the_thread(tmp_path):
    """It was looked for in the file, and every command failed."""
    bench = Workbench(tmp_path)
    bench.thread.profile = "mine"
    bench.thread.config = {"permissions": {"mine": {"filesystem": {":root": "read", str(bench.cwd): "write"}}}}
    policy = bench.confinement.policy(bench.thread)
    assert policy.can_write(str(bench.cwd / "x")) and not policy.can_write(str(tmp_path / "x"))
    bench.runner.close()
