"""The rules about what a command gets beside files: network, system calls, environment, streams, its end."""

import asyncio
import os
import signal
import socket
import subprocess

import pytest

from tests.processes import COUNTERSIGN
from tests.sandbox.attempts import NOT_RUN, attempt, carry_out
from tests.sandbox.place import Place, as_user
from tests.sandbox.profiles import (
    FULL_ACCESS,
    Profile,
    deny,
    restricted,
    special,
    unrestricted,
    workspace,
)
from tests.sandbox.system import system_call, tried

# Not that of mounts: whoever is not root here has one of their own already (`as_user`).
NAMESPACES = ("user", "pid", "ipc", "net", "uts", "cgroup")


def namespaces(names):
    return {name: os.readlink(f"/proc/self/ns/{name}") for name in names}


@pytest.mark.parametrize("network", [False, True], ids=["network-off", "network-on"])
def test_the_namespaces_are_new_but_for_host_name_and_control_group(place: Place, network):
    """And the network's, if there is to be a network."""
    inside = place.confined(namespaces, NAMESPACES, profile=workspace(network=network)).value
    outside = place.with_full_access(namespaces, NAMESPACES).value
    kept = {"uts", "cgroup"} | ({"net"} if network else set())
    assert {name for name in NAMESPACES if inside[name] == outside[name]} == kept


def test_with_the_whole_disk_writable_there_is_no_namespace_at_all(place: Place):
    inside = place.confined(namespaces, NAMESPACES, profile=unrestricted()).value
    assert inside == place.with_full_access(namespaces, NAMESPACES).value
    write_all = restricted([special("root", "write")])
    assert place.confined(namespaces, NAMESPACES, profile=write_all).value == inside
    narrowed = restricted([special("root", "write"), deny(place.outside)])
    if place.uid == 0:
        # Others cannot make /.git, and a root that they cannot protect is none.
        told = place.confined(namespaces, NAMESPACES, profile=narrowed)
        assert told.value["pid"] != inside["pid"]


# System calls

CONNECTED = ("getpeername", "getsockname", "shutdown", "getsockopt", "setsockopt", "send", "sendto", "sendmmsg")


def on_a_pair():
    """What works on a pair of connected UNIX sockets without the network: reading, writing, messages."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    return {
        "write": tried(os.write, ours.fileno(), b"x"),
        "sendmsg": tried(ours.sendmsg, [b"x"]),
        "recv": tried(theirs.recv, 1),
        "recvmsg": tried(theirs.recvmsg, 1),
        "send": tried(ours.send, b"x"),
        "sendto": tried(ours.sendto, b"x", "/x"),
        "getpeername": tried(ours.getpeername),
        "getsockname": tried(ours.getsockname),
        "getsockopt": tried(ours.getsockopt, socket.SOL_SOCKET, socket.SO_TYPE),
        "setsockopt": tried(ours.setsockopt, socket.SOL_SOCKET, socket.SO_PASSCRED, 1),
        "shutdown": tried(ours.shutdown, socket.SHUT_RDWR),
        "bind": tried(socket.socket(socket.AF_UNIX).bind, f"\0countersign-test-{os.getpid()}"),
        "listen": tried(socket.socket(socket.AF_UNIX).listen),
        "pair-of-inet": tried(socket.socketpair, socket.AF_INET),
    }


def test_without_the_network_a_pair_of_sockets_still_carries_messages(place: Place):
    allowed = ("write", "sendmsg", "recv", "recvmsg")
    told = place.confined(on_a_pair).value
    assert {name for name, outcome in told.items() if outcome == "OK"} == set(allowed)
    assert {outcome for name, outcome in told.items() if name not in allowed} == {"EPERM"}
    assert place.confined(on_a_pair, profile=unrestricted()).value == told
    control = place.with_full_access(on_a_pair).value
    assert "EPERM" not in control.values() and control["getpeername"] == "OK"


def trace_me():
    trace_me = 0
    system_call("ptrace", trace_me, 0, 0, 0)


def test_tracing_is_for_those_with_the_network(place: Place):
    assert place.confined(trace_me).outcome == "EPERM"
    assert place.confined(trace_me, profile=workspace(network=True)).outcome == "OK"


def seccomp_mode():
    with open("/proc/self/status") as file:
        return [line.split()[1] for line in file if line.startswith(("Seccomp:", "NoNewPrivs:"))]


def test_with_nothing_to_enforce_nothing_is_done(place: Place):
    assert place.confined(seccomp_mode, profile=unrestricted(network=True)).value == ["0", "0"]
    assert place.confined(seccomp_mode, profile=FULL_ACCESS).value == ["0", "0"]
    assert place.confined(seccomp_mode, profile=unrestricted()).value == ["1", "2"]


# The managed network


def ask(url, others):
    """What is said at the proxy that a variable names, and what becomes of the other ports and of UNIX sockets."""
    port = int(os.environ[url].rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"hello")
        connection.shutdown(socket.SHUT_WR)
        said = connection.recv(100).decode()
    refused = [tried(socket.create_connection, ("127.0.0.1", other), 5) for other in others]
    return said, refused, tried(socket.socket, socket.AF_UNIX)


def test_the_managed_network_leads_to_the_named_proxy_and_nowhere_else(place: Place, run):
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"to you: " + await reader.read())
        writer.close()

    async def scenario():
        proxy = await asyncio.start_server(answer, "127.0.0.1", 0)
        other = await asyncio.start_server(answer, "127.0.0.1", 0)
        port, other_port = (server.sockets[0].getsockname()[1] for server in (proxy, other))
        options = ("-c", 'sandbox_mode="workspace-write"', "--managed-network")
        environ = {"HTTPS_PROXY": f"http://127.0.0.1:{port}"}
        command = attempt(ask, "HTTPS_PROXY", [other_port])
        async with proxy, other:
            told = await asyncio.to_thread(place.run, *options, command=command, environ=environ)
            assert told.outcome == "OK", told
            assert told.value == ["to you: hello", ["ECONNREFUSED"], "EPERM"]
            told = await asyncio.to_thread(place.with_full_access, ask, "HTTPS_PROXY", [other_port], environ=environ)
            assert told.value == ["to you: hello", ["OK"], "OK"]
        told = await asyncio.to_thread(place.run, *options, command=command)
        assert told.outcome == NOT_RUN and "proxy" in told.stderr

    run(scenario())


# How its end is told

ENDS = {
    "its-code": (["sh", "-c", "exit 7"], 7),
    "the-highest": (["sh", "-c", "exit 255"], 255),
    "terminated": (["sh", "-c", "kill -TERM $$"], 128 + signal.SIGTERM),
    "killed": (["sh", "-c", "kill -KILL $$"], 128 + signal.SIGKILL),
    "crashed": (["sh", "-c", "kill -SEGV $$"], 128 + signal.SIGSEGV),
}


EACH_WAY = {
    "bubblewrap": workspace(),
    "filter-only": unrestricted(),
    "nothing-to-enforce": unrestricted(network=True),
    "full-access": FULL_ACCESS,
}


@pytest.mark.parametrize("profile", EACH_WAY.values(), ids=EACH_WAY.keys())
@pytest.mark.parametrize(("command", "code"), ENDS.values(), ids=ENDS.keys())
def test_the_end_of_a_command_is_told_as_a_shell_would(place: Place, profile: Profile, command, code):
    assert carry_out(place.sandbox(profile, *command), cwd=place.project).code == code


@pytest.mark.parametrize("profile", EACH_WAY.values(), ids=EACH_WAY.keys())
@pytest.mark.parametrize("name", ["no-such-command-here", "./notes.txt"])
def test_what_cannot_be_executed_is_a_failure_that_names_it(place: Place, profile: Profile, name):
    told = carry_out(place.sandbox(profile, name), cwd=place.project)
    assert f"execvp {name}: " in told.stderr
    # The original starts a command under full access itself, and everything else by its helper.
    assert told.code == (1 if profile is FULL_ACCESS else 101)


HELPER = "codex-linux-sandbox"
ROOT_READ = '{"type":"managed","file_system":{"type":"restricted","entries":[]},"network":"restricted"}'
MISUSES = {
    "no-profile": (["--sandbox-policy-cwd", "/"], 101),
    "no-command": (["--sandbox-policy-cwd", "/", "--permission-profile", ROOT_READ], 101),
    "no-policy-cwd": (["--permission-profile", ROOT_READ, "--", "true"], 2),
    "no-json": (["--sandbox-policy-cwd", "/", "--permission-profile", "{", "--", "true"], 2),
    "unknown-option": (["--sandbox-policy-cwd", "/", "--no-sandbox", "--", "true"], 2),
}


@pytest.mark.parametrize(("arguments", "code"), MISUSES.values(), ids=MISUSES.keys())
def test_the_helper_tells_misuse_by_its_code_and_runs_nothing(place: Place, arguments, code):
    helper = place.outside / HELPER
    helper.symlink_to(COUNTERSIGN)
    told = carry_out(as_user(place.uid, str(helper), *arguments), cwd=place.project)
    assert told.code == code and told.stderr.startswith(f"{HELPER}: error:"), told


def test_a_command_line_without_a_command_is_refused(place: Place):
    told = carry_out(place.sandbox(workspace()), cwd=place.project)
    assert told.code == 1 and "empty" in told.stderr


# Environment and streams


def variables(names):
    return {name: os.environ.get(name) for name in names}


def test_the_environment_is_the_callers_and_says_that_there_is_no_network(place: Place):
    names = ("CODEX_SANDBOX_NETWORK_DISABLED", "CODEX_SANDBOX", "MY_TOKEN", "COUNTERSIGN_RPC")
    environ = {"MY_TOKEN": "mine", "COUNTERSIGN_RPC": "unix:///x"}
    for profile, disabled in ((workspace(), "1"), (workspace(network=True), None), (unrestricted(), "1")):
        told = place.confined(variables, names, profile=profile, environ=environ)
        assert told.value == dict(zip(names, (disabled, None, "mine", None), strict=True))


def descriptors_and_session():
    return sorted(os.listdir("/proc/self/fd"))[:-1], os.getpid() != os.getsid(0)


def test_a_command_has_its_three_streams_and_a_session_that_is_not_the_callers(place: Place):
    open_now, other_session = place.confined(descriptors_and_session).value
    assert open_now == ["0", "1", "2"] and other_session


def test_streams_are_passed_through_whole_and_apart(place: Place):
    script = "cat; head -c 3000000 /dev/zero >&2; echo end"
    line = place.sandbox(workspace(), "sh", "-c", script)
    finished = subprocess.run(line, input=b"in\n" * 100_000, capture_output=True, cwd=place.project, timeout=30)
    assert finished.stdout == b"in\n" * 100_000 + b"end\n"
    assert finished.stderr == bytes(3_000_000)
