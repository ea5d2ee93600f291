"""Files for clients."""

import base64
import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.rpc.file_methods import FileMethods
from agent.rpc.file_search import MOST_RESULTS, score, search, walk
from agent.rpc.jsonrpc import INTERNAL_ERROR
from tests.agent.rpc.desk import desk
from tests.agent.rpc.test_goldens import transcript

HOOKS = """
push-to-checkout pre-applypatch update pre-push pre-commit pre-rebase post-update pre-receive pre-merge-commit
prepare-commit-msg
""".split()


def tree(root, *paths, content=""):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)


def found(query, root):
    return [match.path for match in search(query, [str(root)], lambda: False)]


def listed(root):
    return {path for path, is_directory in walk(str(root)) if not is_directory}


def test_a_search_finds_and_ranks_as_recorded(run, tmp_path):
    """fuzzy_file_search."""
    tree(tmp_path, "hello.txt", *(f".git/hooks/{name}.sample" for name in HOOKS))

    async def scenario():
        async with desk(FileMethods().table()) as it:
            answer = await it.call("fuzzyFileSearch", query="hel", roots=[str(tmp_path)])
            assert await it.call("fuzzyFileSearch", query="", roots=[str(tmp_path)]) == {"files": []}
            assert await it.call("fuzzyFileSearch", query="hel", roots=[]) == {"files": []}
            assert await it.refused("fuzzyFileSearch", query="x") == "Invalid request: missing field `roots`"
        return answer["files"]

    files = run(scenario())
    assert files[0] == {
        "root": str(tmp_path),
        "path": "hello.txt",
        "match_type": "file",
        "file_name": "hello.txt",
        "score": 65620,
        "indices": [0, 1, 2],
    }
    theirs = next(one["msg"]["result"]["files"] for one in transcript("fuzzy_file_search") if one.get("seq") == 13)
    assert [{**one, "root": "<CWD>"} for one in files] == theirs


def test_what_gitignore_files_rule_out_is_left_out(tmp_path):
    tree(tmp_path, "a.log", "keep.log", "build/x.txt", "src/build/y.txt", "src/a.py", "src/tmp/z", "docs/deep/a/b.pdf")
    (tmp_path / ".gitignore").write_text("# comment\n*.log\n!keep.log\n/build/\ndocs/**/*.pdf\n")
    (tmp_path / "src/.gitignore").write_text("tmp\n")

    assert listed(tmp_path) == {".gitignore", "keep.log", "src/.gitignore", "src/a.py", "src/build/y.txt"}


def test_a_hostile_gitignore_does_not_hold_up_the_search(tmp_path):
    tree(tmp_path, "a" * 200)
    (tmp_path / ".gitignore").write_text("*a" * 60 + "b\n" + "**/" * 60 + "b\n[z-a]\n[\n\\\n/\n!\n")
    done = threading.Event()
    thread = threading.Thread(target=lambda: (listed(tmp_path), done.set()), daemon=True)
    thread.start()
    assert done.wait(5.0)


def test_links_are_not_followed_and_names_that_are_no_text_are_left_out(tmp_path):
    tree(tmp_path, "real/file")
    (tmp_path / "circle").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / os.fsdecode(b"\xff")).write_text("")

    assert listed(tmp_path) == {"real/file", "circle", "pipe"}


def test_a_search_gives_up_when_told_to_and_has_a_bound(tmp_path):
    tree(tmp_path, *(f"d/file-{number:03}" for number in range(100)))

    assert search("file", [str(tmp_path)], lambda: True) == []
    assert len(found("file", tmp_path)) == MOST_RESULTS  # the control, and the bound


def test_a_search_takes_the_place_of_the_one_with_its_token(run, tmp_path):
    async def scenario():
        async with desk(FileMethods().table()) as it:
            for _ in range(2):
                answer = await it.call("fuzzyFileSearch", query="zzz", roots=[str(tmp_path)], cancellationToken="t")
                assert answer == {"files": []}

    run(scenario())


@pytest.mark.parametrize(
    ("query", "path", "indices"),
    [
        ("fb", "foo_bar.py", (0, 4)),
        ("FB", "foo_bar.py", None),
        ("fB", "fooBar.py", (0, 3)),
        ("rpc meth", "agent/rpc/methods.py", (6, 7, 8, 10, 11, 12, 13)),
        ("rpc nope", "agent/rpc/methods.py", None),
        ("İ", "xİ", (1,)),
        (" ", "a", None),
    ],
)
def test_letters_fit_in_order_and_best_at_the_beginning_of_words(query, path, indices):
    fit = score(query, path)
    assert (None if fit is None else fit[1]) == indices


@given(st.text(alphabet="abcB/_1 ", max_size=5), st.text(alphabet="abcB/_1", min_size=1, max_size=12))
def test_places_spell_the_query(query, path):
    fit = score(query, path)
    if fit is None or " " in query:
        return
    spelled = "".join(path[place] for place in fit[1])
    assert spelled == query or spelled.lower() == query
    assert list(fit[1]) == sorted(set(fit[1])) and fit[0] > 0


# fs/*


def test_files_are_written_read_listed_copied_and_removed(run, tmp_path):
    """misc_requests."""
    root = str(tmp_path)
    (tmp_path / "hello.txt").write_text("hello world\n")

    async def scenario():
        async with desk(FileMethods().table()) as it:
            assert await it.call("fs/readFile", path=f"{root}/hello.txt") == {"dataBase64": "aGVsbG8gd29ybGQK"}
            assert await it.call("fs/writeFile", path=f"{root}/a.txt", dataBase64="aGk=") == {}
            entries = (await it.call("fs/readDirectory", path=root))["entries"]
            assert {"fileName": "a.txt", "isDirectory": False, "isFile": True} in entries and len(entries) == 2
            about = await it.call("fs/getMetadata", path=f"{root}/a.txt")
            assert about["isFile"] and not about["isSymlink"] and about["modifiedAtMs"] > 1_600_000_000_000
            assert await it.call("fs/createDirectory", path=f"{root}/d/e") == {}
            await it.call("fs/copy", sourcePath=f"{root}/a.txt", destinationPath=f"{root}/d/b.txt")
            await it.call("fs/copy", sourcePath=f"{root}/d", destinationPath=f"{root}/copy", recursive=True)
            assert (tmp_path / "copy/b.txt").read_text() == "hi"
            await it.call("fs/remove", path=f"{root}/d")
            await it.call("fs/remove", path=f"{root}/d")
            assert not (tmp_path / "d").exists()

    run(scenario())


def test_what_the_system_refuses_is_told_in_its_words(run, tmp_path):
    root = str(tmp_path)
    missing = "No such file or directory (os error 2)"
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "d").mkdir()

    async def scenario():
        async with desk(FileMethods().table()) as it:
            assert await it.refused("fs/readFile", INTERNAL_ERROR, path=f"{root}/nope") == missing
            assert await it.refused("fs/remove", INTERNAL_ERROR, path=f"{root}/nope", force=False) == missing
            assert await it.refused("fs/readFile", INTERNAL_ERROR, path=root) == "Is a directory (os error 21)"
            assert "no regular file" in await it.refused("fs/readFile", path=f"{root}/pipe")
            assert "directory" in await it.refused("fs/copy", sourcePath=root, destinationPath=f"{root}/x")
            inside = {"sourcePath": root, "destinationPath": f"{root}/d/x", "recursive": True}
            assert "itself or one of its descendants" in await it.refused("fs/copy", **inside)
            bad = {"path": f"{root}/x", "dataBase64": "%"}
            assert "valid base64" in await it.refused("fs/writeFile", **bad)
            relative = "Invalid request: AbsolutePathBuf deserialized without a base path"
            assert await it.refused("fs/readFile", path="rel") == relative
            assert "NUL" in await it.refused("fs/readFile", path="/a\0")
        assert not (tmp_path / "x").exists()

    run(scenario())


def test_bytes_come_back_as_they_went(run, tmp_path):
    content = base64.b64encode(bytes(range(256))).decode()

    async def scenario():
        async with desk(FileMethods().table()) as it:
            await it.call("fs/writeFile", path=str(tmp_path / "b"), dataBase64=content)
            assert (await it.call("fs/readFile", path=str(tmp_path / "b")))["dataBase64"] == content

    run(scenario())
