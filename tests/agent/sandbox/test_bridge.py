"""The managed network for real: a command without a network, and the one loopback port that it reaches."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.agent.sandbox.policies import as_json

HELPER = f"""
import sys; sys.path[:0] = {sys.path!r}
from agent.commands.sandbox_helper import main
sys.exit(main(sys.argv[1:]))
"""
INSIDE = "import os, socket, sys\nport = int(os.environ['HTTPS_PROXY'].rpartition(':')[2])\n"
DEADLINE_S = 20


@pytest.fixture
def workspace(tmp_path):
    (tmp_path / "workspace").mkdir()
    return tmp_path / "workspace"


@contextlib.contextmanager
def listening(serve=None):
    """A listener on loopback, served by a thread: each connection is given to `serve`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(DEADLINE_S)

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.settimeout(DEADLINE_S)
                        serve(connection)

        thread = threading.Thread(target=accept)
        if serve is not None:
            thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            if serve is not None:
                thread.join()


def words(workspace, port, script):
    profile = as_json("read /", "write :project_roots")
    command = ["/usr/bin/python3", "-c", INSIDE + script]
    helper = [sys.executable, "-c", HELPER, "--sandbox-policy-cwd", str(workspace), "--permission-profile", profile]
    environ = {**os.environ, "HTTPS_PROXY": f"http://127.0.0.1:{port}"}
    return [*helper, "--managed-network", "{}", "--", *command], {"env": environ, "cwd": workspace, "text": True}


def inside(workspace, port, script):
    """What a script prints that runs in the managed network with a proxy at this port."""
    command, options = words(workspace, port, script)
    done = subprocess.run(command, capture_output=True, timeout=DEADLINE_S, check=False, **options)
    assert done.returncode == 0, done.stderr
    assert os.listdir(workspace) == []
    return done.stdout


def read_all(connection):
    return b"".join(iter(lambda: connection.recv(65536), b""))


def test_what_is_sent_arrives_and_the_answer_comes_after_the_senders_end(workspace):
    """A half-closed connection goes on in the other direction, a megabyte each way."""

    def answer(connection):
        asked = read_all(connection)
        connection.sendall(b"%d:" % len(asked) + asked[::-1])

    script = """
connection = socket.create_connection(("127.0.0.1", port))
connection.sendall(b"begin" + b"x" * 1_000_000)
connection.shutdown(socket.SHUT_WR)
answer = b"".join(iter(lambda: connection.recv(65536), b""))
print(len(answer), answer[:9], answer[-5:])
"""
    with listening(answer) as port:
        assert inside(workspace, port, script) == "1000013 b'1000005:x' b'nigeb'\n"


def test_the_other_side_may_end_first(workspace):
    heard = []

    def close_first(connection):
        connection.sendall(b"goodbye")
        connection.shutdown(socket.SHUT_WR)
        heard.append(read_all(connection))

    script = """
connection = socket.create_connection(("127.0.0.1", port))
print(b"".join(iter(lambda: connection.recv(65536), b"")))
connection.sendall(b"still here")
connection.close()
"""
    with listening(close_first) as port:
        assert inside(workspace, port, script) == "b'goodbye'\n"
    assert heard == [b"still here"]


def test_many_connections_at_once_are_kept_apart(workspace):
    script = """
connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(50)]
for number, connection in enumerate(connections):
    connection.sendall(b"%d" % number)
    connection.shutdown(socket.SHUT_WR)
print([int(connection.recv(100)) for connection in connections] == list(range(50)))
"""
    with listening(lambda connection: connection.sendall(read_all(connection))) as port:
        assert inside(workspace, port, script) == "True\n"


def test_a_proxy_that_is_not_there_is_a_broken_connection_inside_and_not_a_silent_one(workspace):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    script = """
connection = socket.create_connection(("127.0.0.1", port))
try:
    print(connection.recv(1))
except ConnectionResetError:
    print("reset")
"""
    assert inside(workspace, port, script) == "reset\n"


def test_no_other_port_nor_address_is_reached(workspace):
    def tell(connection):
        connection.sendall(b"reached")

    script = """
for address in (("127.0.0.1", port), ("127.0.0.1", {other}), ("192.0.2.1", 80), ("::1", {other})):
    try:
        print(socket.create_connection(address, timeout=5).recv(7))
    except OSError as exc:
        print(type(exc).__name__, exc.errno)
for family in (socket.AF_UNIX, socket.AF_NETLINK):
    try:
        print(socket.socket(family))
    except PermissionError:
        print("EPERM")
"""
    with listening(tell) as port, listening(tell) as other:
        assert inside(workspace, port, script.format(other=other)).splitlines() == [
            "b'reached'",
            "ConnectionRefusedError 111",
            "OSError 101",
            "ConnectionRefusedError 111",
            "EPERM",
            "EPERM",
        ]
        # The control: from here the other one answers.
        with socket.create_connection(("127.0.0.1", other)) as control:
            assert read_all(control) == b"reached"


def test_the_exit_code_and_the_proxy_variables_are_passed_on_unchanged(workspace):
    with listening() as port:
        command, options = words(workspace, port, "print(os.environ['HTTPS_PROXY'], flush=True); os._exit(7)")
        done = subprocess.run(command, capture_output=True, timeout=DEADLINE_S, check=False, **options)
        assert (done.returncode, done.stdout) == (7, f"http://127.0.0.1:{port}\n")


def test_when_bubblewrap_is_killed_in_the_middle_nothing_is_left(workspace):
    ended = threading.Event()

    def hold(connection):
        connection.sendall(b"x")
        if connection.recv(1) == b"":
            ended.set()

    script = """
connection = socket.create_connection(("127.0.0.1", port))
print(connection.recv(1), flush=True)
connection.recv(1)
"""
    with listening(hold) as port:
        command, options = words(workspace, port, script)
        with subprocess.Popen(command, stdout=subprocess.PIPE, **options) as helper:
            assert helper.stdout.readline() == "b'x'\n"
            children = Path(f"/proc/{helper.pid}/task/{helper.pid}/children").read_text().split()
            (bubblewrap,) = [pid for pid in children if Path(f"/proc/{pid}/comm").read_text() == "bwrap\n"]
            os.kill(int(bubblewrap), signal.SIGKILL)
            assert helper.stdout.read() == ""
            assert helper.wait(DEADLINE_S) == -signal.SIGKILL
        assert ended.wait(DEADLINE_S)
    assert os.listdir(workspace) == []
