"""Files for clients: `fuzzyFileSearch`, and the plain `fs/*` calls. All of it in threads; a disk may be slow.

A client speaks for the user, so that nothing here is confined: it may what the user may.
"""

import asyncio
import base64
import binascii
import os
import shutil
import stat
import threading
from collections.abc import Callable
from typing import Any

from agent.rpc.file_search import search
from agent.rpc.jsonrpc import INTERNAL_ERROR, INVALID_REQUEST, RequestFailed
from agent.rpc.search_sessions import match_wire
from agent.rpc.serde_text import InvalidParams
from agent.rpc.server import Answer, Connection, Method, Methods
from agent.rpc.shapes import flag, list_of, optional, struct, text
from agent.rpc.thread_pages import given

# As in the original.
MOST_FILE_BYTES = 512 * 1024 * 1024


def absolute_path(value: Any) -> str:
    """An absolute path, in the original's words where it is none."""
    path = text(value)
    if not os.path.isabs(path):
        raise InvalidParams("AbsolutePathBuf deserialized without a base path")
    if "\0" in path:
        raise InvalidParams("a path must not hold a NUL")
    return path


_SEARCH = struct(
    "struct FuzzyFileSearchParams",
    3,
    {"query": text, "roots": list_of(text), "cancellationToken": optional(text)},
    ("query", "roots"),
)
_PATH = {"path": absolute_path}
_ONE = struct("struct FsPathParams", 1, _PATH, ("path",))
_WRITE = struct("struct FsWriteFileParams", 2, {**_PATH, "dataBase64": text}, ("path", "dataBase64"))
_MAKE = struct("struct FsCreateDirectoryParams", 2, {**_PATH, "recursive": optional(flag)}, ("path",))
_REMOVE = struct("struct FsRemoveParams", 3, {**_PATH, "recursive": optional(flag), "force": optional(flag)}, ("path",))
_COPY = struct(
    "struct FsCopyParams",
    3,
    {"sourcePath": absolute_path, "destinationPath": absolute_path, "recursive": flag},
    ("sourcePath", "destinationPath"),
)


class FileMethods:
    """The methods."""

    def __init__(self) -> None:
        # (connection, token) -> what gives up the search that has it
        self._searches: dict[tuple[int, str], threading.Event] = {}

    def table(self) -> Methods:
        """The rows."""
        return {
            "fuzzyFileSearch": Method(given(_SEARCH), self._search),
            "fs/readFile": Method(given(_ONE), _in_thread(_read)),
            "fs/writeFile": Method(given(_WRITE), _in_thread(_write)),
            "fs/createDirectory": Method(given(_MAKE), _in_thread(_make)),
            "fs/getMetadata": Method(given(_ONE), _in_thread(_metadata)),
            "fs/readDirectory": Method(given(_ONE), _in_thread(_list)),
            "fs/remove": Method(given(_REMOVE), _in_thread(_remove)),
            "fs/copy": Method(given(_COPY), _in_thread(_copy)),
        }

    async def _search(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        """A search takes the place of the one that has the same token, which answers with what it has found by then."""
        given_up = threading.Event()
        token = wanted.get("cancellationToken")
        key = None if token is None else (connection.number, token)
        if key is not None:
            if (former := self._searches.get(key)) is not None:
                former.set()
            self._searches[key] = given_up
        roots = [os.path.abspath(root) for root in wanted["roots"]]  # noqa: ASYNC240 - a matter of the text alone
        try:
            found = await asyncio.to_thread(search, wanted["query"], roots, given_up.is_set)
        finally:
            given_up.set()  # the client has gone: the thread need not go on
            if key is not None and self._searches.get(key) is given_up:
                del self._searches[key]
        shown = dict(zip(roots, wanted["roots"], strict=True))
        return Answer({"files": [match_wire(match, shown[match.root]) for match in found]})


def _in_thread(act: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Connection, dict[str, Any]], Any]:
    """The act as a handler; what the system refuses is told in the words of the original, whose library adds a code."""

    async def handle(connection: Connection, wanted: dict[str, Any]) -> Answer:
        try:
            return Answer(await asyncio.to_thread(act, wanted))
        except shutil.Error as exc:
            raise RequestFailed(INTERNAL_ERROR, f"not everything was copied: {exc.args[0][0][2]}") from exc
        except OSError as exc:
            raise RequestFailed(INTERNAL_ERROR, os_error(exc)) from exc

    return handle


def os_error(exc: OSError) -> str:
    """Such as "No such file or directory (os error 2)"."""
    return f"{exc.strerror} (os error {exc.errno})" if exc.errno is not None else str(exc)


def _read(wanted: dict[str, Any]) -> dict[str, Any]:
    # Not to wait for a pipe's writer.
    descriptor = os.open(wanted["path"], os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(21, "Is a directory")
        if not stat.S_ISREG(status.st_mode):
            raise RequestFailed(INVALID_REQUEST, f"{wanted['path']!r} is no regular file; only those can be read")
        content = file.read(MOST_FILE_BYTES + 1)
    if len(content) > MOST_FILE_BYTES:
        raise RequestFailed(INVALID_REQUEST, f"file is too large to read: limit is {MOST_FILE_BYTES} bytes")
    return {"dataBase64": base64.b64encode(content).decode()}


def _write(wanted: dict[str, Any]) -> dict[str, Any]:
    try:
        content = base64.b64decode(wanted["dataBase64"], validate=True)
    except (binascii.Error, ValueError) as exc:
        text = f"fs/writeFile requires valid base64 dataBase64: {exc}"
        raise RequestFailed(INVALID_REQUEST, text) from exc
    with open(wanted["path"], "wb") as file:
        file.write(content)
    return {}


def _make(wanted: dict[str, Any]) -> dict[str, Any]:
    if wanted.get("recursive") is False:
        os.mkdir(wanted["path"])
    else:
        os.makedirs(wanted["path"], exist_ok=True)
    return {}


def _metadata(wanted: dict[str, Any]) -> dict[str, Any]:
    # Of what a link leads to, as the original; a link that leads nowhere is an error.
    status = os.stat(wanted["path"])
    born = getattr(status, "st_birthtime", 0.0)
    return {
        "isDirectory": stat.S_ISDIR(status.st_mode),
        "isFile": stat.S_ISREG(status.st_mode),
        "isSymlink": os.path.islink(wanted["path"]),
        "createdAtMs": int(born * 1000),
        "modifiedAtMs": status.st_mtime_ns // 1_000_000,
    }


def _list(wanted: dict[str, Any]) -> dict[str, Any]:
    entries: list[dict[str, Any]] = []
    with os.scandir(wanted["path"]) as listing:
        for entry in listing:
            # A name that is no UTF-8 is shown as well as it can be.
            name = os.fsencode(entry.name).decode("utf-8", "replace")
            try:
                entries.append({"fileName": name, "isDirectory": entry.is_dir(), "isFile": entry.is_file()})
            except OSError:
                continue  # gone by now, or a link in circles
    return {"entries": entries}


def _remove(wanted: dict[str, Any]) -> dict[str, Any]:
    """As rm: with its directories and without a word about what is missing, unless told otherwise (original's)."""
    path = wanted["path"]
    try:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            os.remove(path)
        elif wanted.get("recursive") is False:
            os.rmdir(path)
        else:
            shutil.rmtree(path)
    except FileNotFoundError:
        if wanted.get("force") is False:
            raise
    return {}


def _copy(wanted: dict[str, Any]) -> dict[str, Any]:
    source, destination = wanted["sourcePath"], wanted["destinationPath"]
    mode = os.lstat(source).st_mode
    if stat.S_ISDIR(mode):
        if not wanted.get("recursive"):
            raise RequestFailed(INVALID_REQUEST, "fs/copy requires recursive: true when sourcePath is a directory")
        inside = os.path.join(os.path.realpath(source), "")
        if os.path.join(os.path.realpath(destination), "").startswith(inside):
            text = "fs/copy cannot copy a directory to itself or one of its descendants"
            raise RequestFailed(INVALID_REQUEST, text)
        shutil.copytree(source, destination, symlinks=True, dirs_exist_ok=True)
    elif stat.S_ISLNK(mode):
        os.symlink(os.readlink(source), destination)
    elif stat.S_ISREG(mode):
        shutil.copyfile(source, destination)
        shutil.copymode(source, destination)
    else:
        raise RequestFailed(INVALID_REQUEST, "fs/copy only supports regular files, directories, and symlinks")
    return {}
