"""What a command line is shown as; each line was compared with codex-cli 0.169."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.tools.command_actions import actions

COMPARED = {
    "ls": "list None",
    "ls -la src": "list src",
    "ls --color=always src": "list src",
    "ls -w 80 src": "list src",
    "cat -n README.md": "read /w/README.md",
    "cat src/main.py": "read /w/src/main.py",
    "cat -- -x": "read /w/-x",
    "head -n 50 file.txt": "read /w/file.txt",
    "head file.txt": "read /w/file.txt",
    "head -c 100 file.txt": "unknown",
    "tail -n 20 file.txt": "read /w/file.txt",
    "tail -20 log": "unknown",
    "sed -n 10p src/a.py": "read /w/src/a.py",
    "sed -i s/a/b/ x": "unknown",
    "nl -ba src/a.py": "read /w/src/a.py",
    "cat foo | sed -n 1,10p": "read /w/foo",
    "rg foo": "search foo in None",
    "rg --files": "list None",
    "rg --files src | head -n 50": "list src",
    "rg -i \"foo bar\" -g '*.py' src": "search foo bar in src",
    "rg -A 3 foo src": "search foo in src",
    "rg --glob '*.py' foo": "search foo in None",
    "grep -rn foo src": "search foo in src",
    "grep foo": "search foo in None",
    "grep -A 2 foo f": "search foo in f",
    "git grep -n foo src": "search foo in src",
    "git ls-files src": "list src",
    "git diff": "unknown",
    "find src -type f": "list src",
    "find": "list None",
    "fd foo": "search foo in None",
    "fd . src": "search . in src",
    "tree -L 2 src": "list src",
    "exa -la": "list None",
    "bat x.py": "read /w/x.py",
    "more x.py": "read /w/x.py",
    "awk 'NR==1' f.txt g.txt": "read /w/f.txt",
    "wc -l": "unknown",
    "cd src && cat foo.py": "read /w/src/foo.py",
    "cd a && cd b && cat c": "read /w/a/b/c",
    "ls && cat foo": "list None + read /w/foo",
    "cat foo || true": "read /w/foo",
    "cat foo | grep bar": "read /w/foo + search bar in None",
    "cat foo | sort | uniq": "read /w/foo",
    "echo hi": "unknown",
    "npm test": "unknown",
    "python3 -c 'print(1)'": "unknown",
    "FOO=1 cat x": "unknown",
    "cat $HOME/x": "unknown",
    "cat ~/x": "unknown",
    "bash -lc 'cat foo'": "unknown",
    "sh -c 'rg foo src'": "unknown",
    "yes | head -n 5": "unknown",
    "rg foo src | sort | head": "search foo in src",
    "find . -name x | xargs rg foo": "search x in .",
    "cat a/b/c/d.txt": "read /w/a/b/c/d.txt",
    "cat /abs/path/file.rs": "read /abs/path/file.rs",
    "ag foo src": "search foo in src",
    "rg foo a b": "search foo in a",
    "cat <<EOF": "unknown",
    "ls 2>&1": "unknown",
    "nl -ba a | head -n 5": "read /w/a",
    "awk '{print}'": "unknown",
    "cat x | sed 's/a/b/'": "read /w/x",
    "ls\ncat y": "list None + read /w/y",
    "rg --version": "search None in None",
    "sed -n '1,10p;20,30p' f": "unknown",
    "egrep foo f": "search foo in f",
    "python3 -m os": "unknown",
    "python3 -c 'import glob; print(glob.glob(\"*\"))'": "list None",
    "head -q x": "unknown",
    "ls -1 src/foo/ ": "list foo",
    "git log --oneline | head -n 3": "unknown",
    "stat f": "unknown",
    "mkdir x && ls x": "unknown",
    "echo a; ls": "list None",
    "cat 'it'\"'\"'s'": "read /w/it's",
    "ls -l --time-style full-iso dir": "list dir",
    "rg -m 5 foo src": "search foo in src",
    "grep -m 2 foo f": "search foo in f",
    "grep -f pats f": "search pats in f",
    "fd -e rs": "list None",
    "find -name x": "search x in x",
    "find . -maxdepth 2 -type d": "list .",
    "du -h -d 1 src": "list src",
    "env cat x": "unknown",
    "nice ls": "unknown",
    "rg foo | wc -l": "search foo in None",
    "cat x | nl": "read /w/x",
    "sed -ne 1,3p f": "unknown",
    "tail x y": "unknown",
    "bat --style plain x": "read /w/x",
    "ls | head -n 3": "list None",
    "cat src/lib.rs | head -n 20 | grep foo": "read /w/src/lib.rs + search foo in None",
    "rg --files | rg test": "list None + search test in None",
    "find . -type f | xargs wc -l": "list .",
    "find src -name '*.py' -exec cat {} \\;": "unknown",
    "grep -c foo f": "search foo in f",
    "cd src && cd .. && ls": "list None",
    "cd src": "",
    "cd - && cat x": "read /w/x",
    "ls && ls": "list None",
    "echo start && cat x": "read /w/x",
    "true": "unknown",
    "ls || true": "list None",
    "cat x &&": "unknown",
    "ls | ": "unknown",
    "sed -n 1,2p a; sed -n 3,4p b": "read /w/a + read /w/b",
    "sed s/a/b/ f": "unknown",
    "awk -F: '{print $1}' /etc/passwd": "read /etc/passwd",
    "rg foo -tpy": "search foo in None",
    "rg foo ./src/": "search foo in .",
    "ls build/": "list build",
    "ls ..": "list ..",
    "cat .env": "read /w/.env",
    "bat -r 1:5 x": "unknown",
    "python3 script.py": "unknown",
    "git log -p": "unknown",
    "git -C x grep foo": "unknown",
    "fd foo/bar": "list bar",
    "tree -I node_modules src": "list src",
    "ls --color never dir": "list dir",
    "cat a#b": "unknown",
    "cat a=b": "read /w/a=b",
    "cat @x": "read /w/@x",
    "cat +x": "read /w/+x",
    "cat x | xargs": "read /w/x",
    "printf hi; ls": "list None",
    "sort x": "unknown",
    "tail -f x | grep y": "unknown",
    "head -n x y": "unknown",
    "nl": "unknown",
    "yes": "unknown",
    "rg -i": "search None in None",
    "find . -regex '.*x'": "search .*x in .",
    "ack foo src lib": "search foo in src",
    "cat x\\ y": "unknown",
    'cat "a!b"': "read /w/a!b",
    "cat x \ty": "unknown",
    "/bin/cat x": "unknown",
}


def _said(action):
    match action["type"]:
        case "read":
            return f"read {action['path']}"
        case "listFiles":
            return f"list {action['path']}"
        case "search":
            return f"search {action['query']} in {action['path']}"
        case other:
            return other


@pytest.mark.parametrize("cmd", COMPARED)
def test_a_command_line_is_shown_as_the_original_shows_it(cmd):
    assert " + ".join(_said(action) for action in actions(cmd, "/w")) == COMPARED[cmd]


def test_each_action_names_its_own_command_and_a_file_by_its_name():
    assert actions('cat "my file" | head -n 3; rg -n foo src/lib/', "/w") == [
        {"type": "read", "command": "cat 'my file'", "path": "/w/my file", "name": "my file"},
        {"type": "search", "command": "rg -n foo src/lib/", "path": "lib", "query": "foo"},
    ]
    (part,) = actions("nl -ba src/a.py | sed -n '3,9p'", "/w")
    assert part == {
        "type": "read",
        "command": "nl -ba src/a.py | sed -n '3,9p'",
        "path": "/w/src/a.py",
        "name": "a.py",
    }


@pytest.mark.parametrize("cmd", ["find . | xargs rm", "ls | xargs -n 1 touch", "cat x | xargs sh -c 'rm x'"])
def test_a_command_that_xargs_runs_is_not_hidden(cmd):
    """Here the original shows only what comes before."""
    assert actions(cmd, "/w") == [{"type": "unknown", "command": cmd}]


@given(st.text(alphabet="cat lsrg-n 'x/;|&\n\"$!#*<>=\\", max_size=40))
def test_any_line_is_shown(cmd):
    for action in actions(cmd, "/w"):
        assert action["type"] in ("read", "listFiles", "search", "unknown")
