"""An agent to be verified: one turn by WebSocket, one by POST and a list of models, through the proxy it is given.

It stands for an agent of your own, and knows nothing of attestation: the proxy and whom to trust come from the
environment that `countersign run` and `countersign verify` give, the sign-in from $CODEX_HOME/auth.json. Ends with 0
if both turns were completed.
"""

import asyncio
import json
import os
import ssl
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import aiohttp

ORIGIN = "https://chatgpt.com/backend-api/codex"
TURN_TIMEOUT_S = 30.0
REQUEST = {"model": "gpt-5", "input": [{"role": "user", "content": "hello"}], "stream": True}


class TurnFailed(Exception):
    """The model did not complete its answer, or could not be asked; the text says why."""


class Agent:
    """Runs turns as the environment wants it.

    Raises:
        TurnFailed: There is no proxy, no authority or no sign-in in it.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        try:
            proxy = urlsplit(environ["HTTPS_PROXY"])
            self._context = ssl.create_default_context(cafile=environ["SSL_CERT_FILE"])
            tokens = json.loads((Path(environ["CODEX_HOME"]) / "auth.json").read_text("utf-8"))["tokens"]
            sign_in = {"Authorization": f"Bearer {tokens['access_token']}", "chatgpt-account-id": tokens["account_id"]}
        except KeyError as exc:
            raise TurnFailed(
                f"{exc} is missing in the environment or the sign-in; start turns.py by `countersign verify`"
            ) from exc
        except OSError as exc:
            raise TurnFailed(f"{exc.filename!r} cannot be read: {exc.strerror}") from exc
        # Not in the proxy's URL: aiohttp's errors would print them.
        credentials = aiohttp.encode_basic_auth(unquote(proxy.username or ""), unquote(proxy.password or ""))
        self._how: dict[str, Any] = {
            # With each request, and not with the session, whose headers aiohttp 3.14 also sends to the proxy.
            "headers": {**sign_in, "thread-id": str(uuid.uuid4())},
            "proxy": f"http://{proxy.hostname}:{proxy.port}",
            "proxy_headers": {"Proxy-Authorization": credentials},
        }

    async def run(self) -> None:
        """Both turns on one thread, and a request that is in no scope.

        Raises:
            TurnFailed, aiohttp.ClientError, OSError, TimeoutError, ValueError: One of them was not completed.
        """
        timeout = aiohttp.ClientTimeout(total=TURN_TIMEOUT_S)
        connector = aiohttp.TCPConnector(ssl=self._context)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as client:
            await self._models(client)
            async with asyncio.timeout(TURN_TIMEOUT_S):
                await self._by_websocket(client)
            await self._by_post(client)

    async def _models(self, client: aiohttp.ClientSession) -> None:
        async with client.get(f"{ORIGIN}/models", **self._how) as response:
            response.raise_for_status()

    async def _by_websocket(self, client: aiohttp.ClientSession) -> None:
        async with client.ws_connect(f"{ORIGIN}/responses", **self._how) as socket:
            await socket.send_json({"type": "response.create", **REQUEST})
            async for message in socket:
                if message.type is aiohttp.WSMsgType.TEXT and _is_end(json.loads(message.data)):
                    return
        raise TurnFailed("the WebSocket ended before the answer was complete")

    async def _by_post(self, client: aiohttp.ClientSession) -> None:
        async with client.post(f"{ORIGIN}/responses", json=REQUEST, **self._how) as response:
            response.raise_for_status()
            async for line in response.content:
                if line.startswith(b"data: ") and _is_end(json.loads(line[6:])):
                    return
        raise TurnFailed("the stream of the POST ended before the answer was complete")


def _is_end(event: dict[str, Any]) -> bool:
    if event["type"] in ("error", "response.failed"):
        raise TurnFailed(f"the model failed with {event['type']}")
    return bool(event["type"] == "response.completed")


def main() -> int:
    """Run; the exit code."""
    try:
        asyncio.run(Agent(os.environ).run())
    except (TurnFailed, aiohttp.ClientError, OSError, TimeoutError, ValueError) as exc:
        sys.stderr.write(f"turns.py: {type(exc).__name__}: {exc}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
