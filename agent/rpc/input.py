"""What the user gives to a turn, as the model gets it."""

import asyncio
import base64
import os
import re
import stat
from typing import Any

from agent.rpc.jsonrpc import INVALID_PARAMS, INVALID_REQUEST, RequestFailed

NAME = "countersign"

Part = dict[str, Any]  # of a Responses message, and the message

# Characters of all texts of one input together (observed).
MAX_INPUT_CHARACTERS = 1024 * 1024
MAX_IMAGE_BYTES = 20 * 1024 * 1024

# What stands for an image that was read and is none (observed: the turn goes on, and the model is told).
OMITTED = "image content omitted because it could not be processed"

# How the formats that the model takes begin; the file name says nothing.
_FORMATS = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg", b"GIF87a": "gif", b"GIF89a": "gif"}


def check_input(given: list[dict[str, Any]]) -> None:
    """Raises RequestFailed if a part of the input cannot be sent, whatever its files hold."""
    for one in given:
        match one["type"]:
            case "image" if (one.get("url") or "").lower().startswith(("http:", "https:")):
                text = "remote image URLs are not supported; use an inline data URL instead"
                raise RequestFailed(INVALID_REQUEST, text)
            case "audio" | "localAudio":
                raise RequestFailed(INVALID_REQUEST, f"{one['type']} input is not supported by {NAME}")


_TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")


def check_dynamic_tools(given: list[Any]) -> None:
    """Raises RequestFailed if a tool of the client's own cannot be offered to the model."""
    names = set()
    for number, tool in enumerate(given):
        where = f"thread/start.dynamicTools[{number}]"
        if not isinstance(tool, dict) or tool.get("type", "function") != "function":
            kind = tool.get("type") if isinstance(tool, dict) else type(tool).__name__
            raise RequestFailed(INVALID_REQUEST, f"{where}: tools of type {kind!r} are not supported by {NAME}")
        name = tool.get("name")
        if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
            raise RequestFailed(INVALID_REQUEST, f"{where}: a name of letters, digits, _ and - is needed")
        if name in names:
            raise RequestFailed(INVALID_REQUEST, f"{where}: the name {name!r} is there twice")
        names.add(name)
        schema = tool.get("inputSchema")
        if not isinstance(schema, dict):
            raise RequestFailed(INVALID_REQUEST, f"{where}: inputSchema must be a JSON Schema object")
        if not isinstance(tool.get("description", ""), str):
            raise RequestFailed(INVALID_REQUEST, f"{where}: description must be a text")


def check_length(given: list[dict[str, Any]]) -> None:
    """Raises RequestFailed if the texts are longer than the original takes."""
    if sum(len(one["text"]) for one in given if one["type"] == "text") > MAX_INPUT_CHARACTERS:
        text = f"Input exceeds the maximum length of {MAX_INPUT_CHARACTERS} characters."
        raise RequestFailed(INVALID_PARAMS, text)


async def user_message(given: list[dict[str, Any]]) -> Part:
    """The Responses message of an input that `check_input` let pass. Images are read in a thread."""
    parts: list[Part] = []
    images = 0
    for one in given:
        match one["type"]:
            case "text":
                parts.append(_text(one["text"]))
            case "image":
                images += 1
                parts.append(_image(one.get("url"), one.get("detail"), one.get("fileId")))
            case "localImage":
                images += 1
                parts += await asyncio.to_thread(_local_image, one["path"], one.get("detail"), images)
            case "skill":
                parts.append(_text(f"Use the skill {one['name']!r} described in {one['path']}."))
            case "mention":
                parts.append(_text(f"@{one['name']} ({one['path']})"))
            case kind:
                raise AssertionError(f"check_input let {kind!r} pass")
    return {"type": "message", "role": "user", "content": parts}


def _local_image(path: str, detail: str | None, number: int) -> list[Part]:
    """The parts that a file becomes: between tags that name it, or a text that says why it cannot be read."""
    try:
        content = _read(path)
    except OSError as exc:
        reason = exc.strerror or type(exc).__name__
        return [_text(f"{NAME} could not read the local image at `{path}`: {reason}")]
    except ValueError:  # a zero byte in the path
        return [_text(f"{NAME} could not read the local image at `{path}`: it is no path")]
    kind = _format(content)
    if kind is None or len(content) > MAX_IMAGE_BYTES:
        image = _text(OMITTED)
    else:
        image = _image(f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}", detail)
    return [_text(f'<image name=[Image #{number}] path="{path}">'), image, _text("</image>")]


def _read(path: str) -> bytes:
    """The file, or one byte more than an image may have. Raises OSError, also for what is no file."""
    # Not blocking: to open a FIFO would wait for a writer, without end.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(0, "not a regular file")
        return file.read(MAX_IMAGE_BYTES + 1)


def _format(content: bytes) -> str | None:
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "webp"
    return next((name for start, name in _FORMATS.items() if content.startswith(start)), None)


def _image(url: str | None, detail: str | None, file_id: str | None = None) -> Part:
    source = {"file_id": file_id} if url is None else {"image_url": url}
    part: Part = {"type": "input_image", **source}
    if detail is not None:
        part["detail"] = detail
    return part


def _text(text: str) -> Part:
    return {"type": "input_text", "text": text}
