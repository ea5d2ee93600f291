"""Rules on disk, and what becomes of commands under them."""

import json

from agent.core.rules import Ruling
from agent.tools.rule_files import RuleFiles
from tests.agent.tools.workbench import Workbench


def test_anything_in_a_script_that_is_forbidden_forbids_all_of_it(tmp_path):
    (tmp_path / "a.rules").write_text('prefix_rule(pattern=["cat"], decision="forbidden")\n')
    (tmp_path / "not-rules.txt").write_text("garbage(")
    rules = RuleFiles(tmp_path)

    for script in ("cat x", "touch b && cat y", "echo $(cat y)", "if true; then cat y; fi"):
        assert rules.of(script, (script,)).ruling is Ruling.FORBIDDEN
    assert rules.of("echo cat", ("echo", "cat")) is None


def test_rules_that_cannot_be_read_have_the_user_asked_about_everything(tmp_path):
    (tmp_path / "a.rules").write_text("prefix_rule(pattern=5)\n")

    rule = RuleFiles(tmp_path).of("ls", ("ls",))
    assert rule.ruling is Ruling.PROMPT and "a.rules:1: prefix_rule needs pattern" in rule.justification
    assert RuleFiles(None).of("ls", ("ls",)) is RuleFiles(tmp_path / "missing").of("ls", ("ls",)) is None


def test_rules_that_cannot_be_read_are_not_taken_for_none_the_second_time(tmp_path):
    """The first command failed, and the next one ran with the rules that had been read so far: with none of these."""
    (tmp_path / "a.rules").write_text("prefix_rule(pattern=[{[]: 1}])\n")
    (tmp_path / "b.rules").write_text('prefix_rule(pattern=["cat"], decision="forbidden")\n')

    rules = RuleFiles(tmp_path)
    assert [rules.of("cat x", ("cat", "x")).ruling for _ in range(2)] == [Ruling.PROMPT] * 2


def test_a_rule_is_written_behind_a_line_that_has_no_end(tmp_path):
    """The two were one line, which nobody could read any more."""
    (tmp_path / "default.rules").write_text('prefix_rule(pattern=["cat"], decision="forbidden")')
    RuleFiles(tmp_path).amend(("touch",))

    rules = RuleFiles(tmp_path)
    assert rules.of("touch a", ("touch", "a")).ruling is Ruling.ALLOW
    assert rules.of("cat a", ("cat", "a")).ruling is Ruling.FORBIDDEN


def test_only_what_is_allowed_as_a_whole_is_allowed(tmp_path):
    rules = RuleFiles(tmp_path / "rules")
    rules.amend(("touch",))
    rules.amend(("touch",))

    assert (tmp_path / "rules" / "default.rules").read_text() == 'prefix_rule(pattern=["touch"], decision="allow")\n'
    assert RuleFiles(tmp_path / "rules").of("touch a", ("touch", "a")).ruling is Ruling.ALLOW
    chain = "touch a && rm x"
    assert rules.of(chain, ("/bin/bash", "-lc", chain)) is None


def test_a_command_that_removes_by_force_runs_only_with_a_yes(run, tmp_path):
    async def scenario():
        answers = [{"decision": "decline"}, {"decision": "accept"}]
        async with Workbench(tmp_path, answers=answers) as bench:
            file = bench.cwd / "x"
            file.write_text("x")
            assert "rejected by user" in await bench.command("rm -f x")
            assert file.exists()
            await bench.command("rm -f x")
            assert not file.exists()
        async with Workbench(tmp_path / "never", policy="never") as bench:
            file = bench.cwd / "x"
            file.write_text("x")
            assert "rm -f style commands are not permitted" in await bench.command("rm -f x")
            assert file.exists() and bench.asked == []
            await bench.command("rm x")
            assert not file.exists()

    run(scenario())


def test_a_command_of_the_model_is_told_that_nobody_looks(run, tmp_path):
    """`git log` on a terminal waited in a pager for ever."""

    async def scenario():
        async with Workbench(tmp_path) as bench:
            names = "$PAGER,$GIT_PAGER,$NO_COLOR,$LC_ALL,$CODEX_CI,$CODEX_THREAD_ID"
            assert "cat,cat,1,C.UTF-8,1,thread-1" in await bench.command(f"echo {names}", login=False)
            assert "24 80" in await bench.command("stty size", tty=True)

    run(scenario())


def test_a_profile_of_the_configuration_confines_the_commands_of_its_threads(run, tmp_path):
    """Profiles were shown to clients and not enforced."""
    closed = {"filesystem": {":minimal": "read", ":project_roots": {".": "read"}}}

    async def scenario():
        async with Workbench(tmp_path) as bench:
            assert "code 0" in await bench.command("echo x > here")
            bench.confinement.config["permissions"] = {"closed": closed}
            bench.thread.profile = "closed"
            assert "code 0" not in await bench.command("echo x > there")
            bench.thread.profile = "undefined"
            told = (await bench.call("exec_command", json.dumps({"cmd": "true"}))).content
            assert "the sandbox policy cannot be used" in told and "'undefined'" in told

    run(scenario())
