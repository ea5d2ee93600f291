"""The canaries: clients of three libraries that go by their environment alone, as children of the proxy do.

A process of its own (`python -m agent.doctor.canary ORIGIN MARK`), since libraries read proxies and authorities from
the environment that a process began with. It prints one JSON object: name -> why it failed, "" if it got its answer.
No error text of a library is passed on: some of them quote the proxy URL with its credentials.
"""

import asyncio
import json
import os
import socket
import ssl
import sys
import urllib.request
from collections.abc import Awaitable, Callable

# Its value tells the requests of the canaries from others at the stand-in.
CANARY_HEADER = "x-countersign-canary"
TIMEOUT_S = 15.0
LOGIN_URL = "https://auth.openai.com/oauth/token"


def main(arguments: list[str]) -> int:
    origin, mark = arguments
    sys.stdout.write(json.dumps(asyncio.run(_fly(origin, mark))))
    return 0


async def _fly(origin: str, mark: str) -> dict[str, str]:
    flights: dict[str, Callable[[str, dict[str, str]], Awaitable[None]]] = {
        "post": _post,
        "websocket": _websocket,
        "login": _login,
    }
    reports = {}
    for name, fly in flights.items():
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await fly(origin, {CANARY_HEADER: f"{mark}-{name}"})
            reports[name] = ""
        except Exception as exc:  # whatever it is, it is the report
            reports[name] = _told(exc)
    return reports


async def _post(origin: str, headers: dict[str, str]) -> None:
    import aiohttp

    body = {"model": "canary", "input": [], "stream": True}
    async with aiohttp.ClientSession(trust_env=True) as session:
        url = f"{origin}/backend-api/codex/responses"
        async with session.post(url, json=body, headers=headers, raise_for_status=True) as response:
            await response.read()


async def _websocket(origin: str, headers: dict[str, str]) -> None:
    from websockets.asyncio.client import connect

    url = f"{origin.replace('https://', 'wss://', 1)}/backend-api/codex/responses"
    async with connect(url, additional_headers=headers, open_timeout=TIMEOUT_S):
        pass


async def _login(origin: str, headers: dict[str, str]) -> None:
    body = json.dumps({"grant_type": "refresh_token", "refresh_token": "canary"}).encode()
    headers = {**headers, "Content-Type": "application/json"}
    request = urllib.request.Request(LOGIN_URL, data=body, headers=headers, method="POST")  # noqa: S310 (https)

    def ask() -> None:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310 (https)
            response.read()

    await asyncio.to_thread(ask)


def _told(exc: BaseException) -> str:
    """What is known to be safe of an error, and of those that it came from."""
    told: list[str] = []
    seen: BaseException | None = exc
    while seen is not None:
        word = _word(seen)
        if word not in told:
            told.append(word)
        inner = getattr(seen, "reason", None)  # URLError
        seen = inner if isinstance(inner, BaseException) else seen.__cause__ or seen.__context__
    return ", from ".join(told)


def _word(exc: BaseException) -> str:
    """The type, and what is known to hold nothing of the URL: not its own text, into which libraries put that."""
    name = type(exc).__name__
    # aiohttp has subclasses of the errors of ssl without their attributes.
    for attribute in ("verify_message", "code", "status"):
        told = getattr(exc, attribute, None)
        if told and isinstance(told, str | int):
            return f"{name} ({told})"
    status = getattr(getattr(exc, "response", None), "status_code", None)
    if isinstance(status, int):
        return f"{name} ({status})"
    if isinstance(exc, TimeoutError):
        return f"{name} (no answer within {TIMEOUT_S:g} s)"
    if isinstance(exc, ssl.SSLError):
        reason = getattr(exc, "reason", None)
        return f"{name} ({reason})" if reason else name
    if isinstance(exc, socket.gaierror):
        return f"{name} ({exc.strerror})"
    return f"{name} ({os.strerror(exc.errno)})" if isinstance(exc, OSError) and exc.errno else name


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
