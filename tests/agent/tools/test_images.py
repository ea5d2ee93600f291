"""Images that the model looks at."""

import base64
import json
import os

import pytest

from agent.tools.images import MAX_IMAGE_BYTES
from tests.agent.tools.workbench import Workbench

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
KINDS = {
    "image/png": PNG,
    "image/jpeg": b"\xff\xd8\xff\xe0" + bytes(20),
    "image/gif": b"GIF89a" + bytes(20),
    "image/webp": b"RIFF\x10\x00\x00\x00WEBP" + bytes(20),
}


async def view(bench, path):
    return (await bench.call("view_image", json.dumps({"path": str(path)}))).content


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_shown_to_the_model_and_to_the_client(run, tmp_path, kind):
    async def scenario():
        async with Workbench(tmp_path) as bench:
            (bench.cwd / "image").write_bytes(KINDS[kind])
            (part,) = await view(bench, "image")
            assert part["image_url"] == f"data:{kind};base64,{base64.b64encode(KINDS[kind]).decode()}"
            (item,) = bench.items("item/completed")
            assert (item["type"], item["path"]) == ("imageView", str(bench.cwd / "image"))

    run(scenario())


def test_what_is_no_image_or_not_there_is_an_output(run, tmp_path):
    async def scenario():
        async with Workbench(tmp_path) as bench:
            (bench.cwd / "text").write_text("password")
            (bench.cwd / "directory").mkdir()
            (bench.cwd / "big").write_bytes(PNG)
            os.truncate(bench.cwd / "big", MAX_IMAGE_BYTES + 1)
            os.mkfifo(bench.cwd / "fifo")
            for name in ("text", "big"):
                assert "no image" in await view(bench, name)
            for name in ("directory", "nowhere", "fifo"):
                assert "unable to locate image" in await view(bench, name)
            assert bench.told == []

    run(scenario())


@pytest.mark.parametrize("text", ["{", "{}", '{"path": 1}', '{"path": ""}', '{"path": "a\\u0000b"}'])
def test_arguments_that_cannot_be_used_are_an_output(run, tmp_path, text):
    async def scenario():
        async with Workbench(tmp_path) as bench:
            assert "failed to parse" in (await bench.call("view_image", text)).content

    run(scenario())
