"""`python -m tests.bench.upstream DIRECTORY`: a ChatGPT whose model runs `true` when it is told to, and talks else.

Prints one line of JSON, as `countersign standin chatgpt` does, and serves until a signal.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import uvloop

from proxy.standins.answers import Answers, Event
from proxy.standins.chatgpt import ChatGPT
from tests.processes import NAMES

RUN_TRUE = "run true"
_CALL = {"name": "exec_command", "arguments": {"cmd": "true"}}


class _Model(Answers):
    def events(self, request: dict[str, Any]) -> list[Event]:
        if request["input"] and RUN_TRUE in json.dumps(request["input"][-1]) and request.get("generate") is not False:
            self._steps = [{"call": _CALL}]
        return super().events(request)


async def main(directory: Path) -> None:
    async with ChatGPT(answers=_Model()) as upstream:
        ca_file = directory / "upstream-ca.pem"
        ca_file.write_bytes(upstream.ca_pem)
        mapped = ",".join(f"{name}=127.0.0.1:{upstream.port}" for name in NAMES)
        print(json.dumps({"upstream_map": mapped, "ca_file": str(ca_file)}), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1])))
