"""The app-server's sockets beside the recordings of the original's."""

import base64
import hashlib
import hmac
import json
import re
import time

import pytest
import websockets

from proxy.standins.chatgpt import ChatGPT
from tests.e2e.listening import GOLDENS, SECRET, TOKEN, UPGRADE, listening, secret_file, with_recordings
from tests.processes import play, world


def recorded(name):
    return [json.loads(line) for line in (GOLDENS / f"{name}.jsonl").read_text("utf-8").splitlines()][1:]


def head_of(answer):
    """The parts of an answer that are compared: ours has `connection: close` and a type for an empty body besides."""
    head, _, body = answer.partition("\r\n\r\n")
    status, *lines = head.split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    kept = ("sec-websocket-accept", "content-length", "content-type") if body else ("sec-websocket-accept",)
    return status, {name: headers[name] for name in kept if name in headers}, body


@with_recordings
def test_raw_upgrades_are_answered_as_by_the_original(place):
    async def scenario():
        token = ("--ws-auth", "capability-token", "--ws-token-file", secret_file(place, f"{TOKEN}\n".encode()))
        upgrades = [line for line in recorded("transport_ws_auth_raw") if line.get("what") == "ws upgrade"]
        assert len(upgrades) == 5
        async with world(place, ChatGPT()) as here, listening(here, "ws://127.0.0.1:0", *token) as server:
            for line in upgrades:
                headers = line["request_headers"].replace("<tok>", TOKEN).replace("<redacted>", "wrong")
                ours = await server.raw(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n{UPGRADE}{headers}\r\n")
                assert head_of(ours.decode()) == head_of(line["answer"])

    play(scenario())


def jwt(claims, secret=SECRET):
    def part(content):
        return base64.urlsafe_b64encode(content).rstrip(b"=")

    head = part(b'{"alg":"HS256","typ":"JWT"}') + b"." + part(json.dumps(claims).encode())
    return (head + b"." + part(hmac.digest(secret, head, "sha256"))).decode()


def bearer(case):
    """What the recorded client of this case sent."""
    valid = {"iss": "iss1", "aud": "aud1", "exp": time.time() + 600}
    return {
        "none": None,
        "wrong": "Bearer wrong",
        "good": f"Bearer {TOKEN}",
        "basic": f"Basic {TOKEN}",
        "jwt good": f"Bearer {jwt(valid)}",
        "jwt none": None,
        "jwt expired": f"Bearer {jwt({**valid, 'exp': time.time() - 600})}",
        "jwt noexp": f"Bearer {jwt({'iss': 'iss1', 'aud': 'aud1'})}",
        "jwt badiss": f"Bearer {jwt({**valid, 'iss': 'other'})}",
        "jwt badsig": f"Bearer {jwt(valid, b'another secret of 32 bytes or more')}",
    }[case]


@with_recordings
@pytest.mark.parametrize("name", ["transport_ws_auth_token", "transport_ws_auth_sha", "transport_ws_auth_jwt"])
def test_who_was_let_in_by_the_original_is_let_in_and_nobody_else(place, name):
    lines = recorded(name)
    cases = [line["case"] for line in lines if line.get("what") == "connect"]
    turned_away = {line["conn"] for line in lines if line.get("what", "").startswith("connect failed")}
    assert turned_away and "good" in set(cases) - turned_away
    files = {
        "--ws-token-file": secret_file(place, TOKEN.encode()),
        "--ws-shared-secret-file": secret_file(place, SECRET),
        "--ws-token-sha256": hashlib.sha256(TOKEN.encode()).hexdigest(),
    }
    _, _, _, _, *given = lines[0]["argv"]  # codex app-server --listen ws://...
    arguments = [files.get(before, argument) for before, argument in zip(["", *given], given, strict=False)]
    kind = "jwt " if name.endswith("jwt") else ""

    async def scenario():
        async with world(place, ChatGPT()) as here, listening(here, "ws://127.0.0.1:0", *arguments) as server:
            refused_here = set()
            for case in cases:
                header = bearer(kind + case)
                try:
                    async with server.dial(additional_headers={"Authorization": header} if header else {}):
                        pass
                except websockets.InvalidStatus as exc:
                    assert exc.response.status_code == 401
                    refused_here.add(case)
            assert refused_here == turned_away

    play(scenario())


@with_recordings
def test_a_websocket_client_gets_what_it_got_from_the_original(place):
    """Framing, health and the end; the contents of answers are compared by tests/agent/test_goldens.py."""
    lines = recorded("transport_ws")

    async def scenario():
        async with world(place, ChatGPT()) as here, listening(here) as server:
            sockets, ours = {}, []
            host = f"Host: 127.0.0.1:{server.port}\r\n"
            for line in lines:
                what, conn = line.get("what", ""), line.get("conn")
                if line["dir"] == "c>s":
                    if conn not in sockets:
                        sockets[conn] = await server.dial()
                    text = line.get("text") or json.dumps(line["msg"])
                    await sockets[conn].send(text.replace("<CWD>", "/"))
                    if "msg" in line and "id" in line["msg"]:
                        ours.append((conn, await answer_to(sockets[conn])))
                elif what.startswith("sent id 52"):
                    await sockets["A"].send(b'{"id": 52, "method": "thread/loaded/list", "params": {}}')
                elif match := re.match(r"GET (\S+)( with Origin)? -> (\d+) ?(.*)", what):
                    origin = "Origin: https://evil.example\r\n" if match[2] else ""
                    got = await server.raw(f"GET {match[1]} HTTP/1.1\r\n{host}{origin}\r\n")
                    status, _, body = head_of(got.decode())
                    assert status.split()[1] == match[3]
                    assert not match[4] or repr(body) == match[4]
                elif conn == "origin":
                    with pytest.raises(websockets.InvalidStatus) as failure:
                        await server.dial(origin="https://evil.example")
                    assert failure.value.response.status_code == 403
                elif what == "ws upgrade response headers":
                    headers = {name.lower() for name in sockets["A"].response.headers}
                    assert headers == {name.lower() for name in line["headers"]}
                elif what == "SIGTERM":
                    assert (await server.stop())[0] == 0
            theirs = [(one["conn"], one["msg"]) for one in lines if one["dir"] == "s>c" and "id" in one["msg"]]
            assert [shape(*one) for one in ours] == [shape(*one) for one in theirs]
            for socket in sockets.values():
                await socket.close()

    play(scenario())


async def answer_to(socket):
    """The next answer; notifications are passed over."""
    while "id" not in (message := json.loads(await socket.recv())):
        pass
    return message


def shape(conn, message):
    """An answer without what differs from machine to machine."""
    result = message.get("result")
    if result is None or "userAgent" not in result:
        return conn, message["id"], message.get("error"), sorted(result or ())
    agent = re.sub(r"\(.*?\) \S+ ", "", result["userAgent"])
    return conn, message["id"], agent.partition("/")[0], agent.rpartition(" (")[2]
