"""Attempts to reach something by a socket: TCP, UDP, the agent's and the proxy's sockets, and the odder families."""

import contextlib
import ctypes
import json
import mmap
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes import COUNTERSIGN
from tests.sandbox.attempts import attempt, carry_out, environment
from tests.sandbox.place import Place, as_user
from tests.sandbox.profiles import MINIMAL, WRITE_TMP, WRITE_TMPDIR, restricted, unrestricted, workspace
from tests.sandbox.system import system_call

HELD = {"bubblewrap": workspace(), "filter-only": unrestricted(), "restricted-reads": restricted([MINIMAL])}


class Ears:
    """Sockets outside that listen, and what reached them."""

    def __init__(self, directory: Path) -> None:
        self.sockets: dict[str, socket.socket] = {}
        abstract = f"\0countersign-{directory.parent.name}"
        for name, family, kind, address in (
            ("tcp", socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
            ("udp", socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
            ("path", socket.AF_UNIX, socket.SOCK_STREAM, str(directory / "agent.sock")),
            ("abstract", socket.AF_UNIX, socket.SOCK_STREAM, abstract),
            ("abstract-datagram", socket.AF_UNIX, socket.SOCK_DGRAM, abstract + "-datagram"),
        ):
            ear = self.sockets[name] = socket.socket(family, kind)
            ear.bind(address)
            if kind == socket.SOCK_STREAM:
                ear.listen()
            ear.settimeout(0)
        (directory / "agent.sock").chmod(0o777)

    def address(self, name: str) -> object:
        found = self.sockets[name].getsockname()
        return os.fsdecode(found) if isinstance(found, bytes) else found

    def heard(self, name: str) -> bool:
        """Whether somebody came."""
        ear = self.sockets[name]
        try:
            if ear.type == socket.SOCK_STREAM:
                ear.accept()[0].close()
            else:
                ear.recv(100)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        for ear in self.sockets.values():
            ear.close()


@pytest.fixture
def ears(place: Place) -> Iterator[Ears]:
    """Listening sockets outside, one in the file system."""
    opened = Ears(place.outside)
    yield opened
    opened.close()


def connect_tcp(address):
    socket.create_connection(tuple(address), timeout=5).close()


def send_udp(address):
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"hello", tuple(address))


def connect_unix(address):
    socket.socket(socket.AF_UNIX).connect(address)


def send_unix_datagram(address):
    """By sendmsg, which the filter allows (facts 6): it takes an address, too."""
    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendmsg([b"hello"], [], 0, address)


def send_on_unconnected_stream(address):
    socket.socket(socket.AF_UNIX).sendmsg([b"hello"], [], 0, address)


REACHES = {
    "tcp": connect_tcp,
    "udp": send_udp,
    "path": connect_unix,
    "abstract": connect_unix,
    "abstract-datagram": send_unix_datagram,
}


@pytest.mark.parametrize("name", REACHES)
@pytest.mark.parametrize("held", HELD)
def test_without_the_network_nothing_outside_is_reached(place: Place, ears: Ears, name, held):
    told = place.confined(REACHES[name], ears.address(name), profile=HELD[held])
    if name == "abstract-datagram":
        # The network namespace has abstract names of its own; where there is none, nothing of it is left to stop it.
        assert told.outcome == ("OK" if held == "filter-only" else "ECONNREFUSED")
        assert ears.heard(name) == (held == "filter-only")
    else:
        assert told.outcome == "EPERM", told
        assert not ears.heard(name)
    assert place.with_full_access(REACHES[name], ears.address(name)).outcome == "OK"
    assert ears.heard(name)


def test_a_stream_socket_of_the_agent_is_not_reached_by_a_message_with_an_address(place: Place, ears: Ears):
    """sendmsg is not filtered: on a stream socket without a connection it does not connect."""
    told = place.confined(send_on_unconnected_stream, ears.address("path"))
    assert told.outcome in {"ENOTCONN", "ENOTSUP"}, told
    assert not ears.heard("path")


def test_with_the_network_files_stay_closed_and_the_network_is_open(place: Place, ears: Ears):
    """The network is the host's then, UNIX sockets included: who listens there has to ask who comes."""
    for name, reach in REACHES.items():
        assert place.confined(reach, ears.address(name), profile=workspace(network=True)).outcome == "OK"
        assert ears.heard(name)


# Families, and ways around the filter


def open_socket(family, kind, protocol):
    socket.socket(family, kind, protocol)


AF_NETLINK, AF_PACKET, AF_ALG, AF_VSOCK, AF_XDP = 16, 17, 38, 40, 44
FAMILIES = {
    "inet": (socket.AF_INET, socket.SOCK_STREAM, 0),
    "inet6": (socket.AF_INET6, socket.SOCK_DGRAM, 0),
    "raw": (socket.AF_INET, socket.SOCK_RAW, 1),
    "netlink": (AF_NETLINK, socket.SOCK_RAW, 0),
    "packet": (AF_PACKET, socket.SOCK_RAW, 0),
    "alg": (AF_ALG, socket.SOCK_SEQPACKET, 0),
    "vsock": (AF_VSOCK, socket.SOCK_STREAM, 0),
    "xdp": (AF_XDP, socket.SOCK_RAW, 0),
}
# Without privileges, or without the kernel's module, these are refused outside, too, and with these errors.
NOT_FOR_ALL = {"raw", "packet", "alg", "vsock", "xdp"}


@pytest.mark.parametrize("family", FAMILIES)
def test_no_family_but_unix_can_be_opened_without_the_network(place: Place, family):
    assert place.confined(open_socket, *FAMILIES[family]).outcome == "EPERM"
    assert place.confined(open_socket, socket.AF_UNIX, socket.SOCK_STREAM, 0).outcome == "OK"
    control = place.with_full_access(open_socket, *FAMILIES[family]).outcome
    assert control == "OK" or family in NOT_FOR_ALL and control in {"EPERM", "EAFNOSUPPORT", "EACCES"}


def test_vsock_is_refused_with_the_network_too(place: Place):
    """It leads to the machine's hypervisor, which is no network that anybody meant."""
    profile = workspace(network=True)
    assert place.confined(open_socket, AF_VSOCK, socket.SOCK_STREAM, 0, profile=profile).outcome == "EPERM"
    assert place.confined(open_socket, AF_NETLINK, socket.SOCK_RAW, 0, profile=profile).outcome == "OK"
    control = place.with_full_access(open_socket, AF_VSOCK, socket.SOCK_STREAM, 0)
    assert control.outcome in {"OK", "EAFNOSUPPORT"}


def enter_ring():
    """On a descriptor that is none: whoever gets so far is told EBADF, whatever the kernel's settings for rings are."""
    system_call("io_uring_enter", -1, 0, 0, 0, None, 0)


def register_ring():
    system_call("io_uring_register", -1, 0, None, 0)


def set_up_ring():
    """The pointer leads nowhere."""
    system_call("io_uring_setup", 1, 1)


@pytest.mark.parametrize("ring", [enter_ring, register_ring, set_up_ring], ids=lambda ring: ring.__name__)
@pytest.mark.parametrize("network", [False, True], ids=["network-off", "network-on"])
def test_a_ring_cannot_do_what_the_filter_does_not_see(place: Place, ring, network):
    assert place.confined(ring, profile=workspace(network=network)).outcome == "EPERM"
    with open("/proc/sys/kernel/io_uring_disabled") as setting:
        disabled = setting.read().strip() != "0"
    control = place.with_full_access(ring).outcome
    assert control in {"EBADF", "EFAULT", "EINVAL"} or disabled and ring is set_up_ring and control == "EPERM"


def call_by_the_table_of_32_bits():
    """getpid by int 0x80; as machine code, since no Python is built for it."""
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\x53\xb8\x14\x00\x00\x00\xcd\x80\x5b\xc3")
    address = ctypes.addressof(ctypes.c_char.from_buffer(code))
    return ctypes.CFUNCTYPE(ctypes.c_int)(address)()


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the machine code is x86_64's")
def test_the_calls_of_another_architecture_kill(place: Place):
    for profile in (workspace(), workspace(network=True)):
        told = place.confined(call_by_the_table_of_32_bits, profile=profile)
        assert told.outcome == "SIGSYS", told
    told = place.with_full_access(call_by_the_table_of_32_bits)
    # A kernel without IA32 emulation has no such table: the instruction faults.
    assert told.outcome in {"OK", "SIGSEGV"}, told


# The real proxy


@contextlib.contextmanager
def proxy_of(place: Place) -> Iterator[dict[str, Any]]:
    """A running `countersign proxy` of the user, and what it says about itself."""
    (place.outside / "home").mkdir(mode=0o700)
    place.give()
    line = [COUNTERSIGN, "proxy", "--json", "--rpc", f"unix://{place.outside}/home/rpc.sock"]
    with subprocess.Popen(
        as_user(place.uid, *line),
        env=environment({"CODEX_HOME": str(place.outside / "home")}),
        cwd=place.outside,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            said = process.stdout.readline()
            assert said, process.stderr.read()
            yield json.loads(said)
        finally:
            process.terminate()
            process.communicate(timeout=20)


def proxy_variables():
    return {name: value for name, value in os.environ.items() if name.upper().endswith(("S_PROXY", "_CERTIFICATE"))}


def test_a_tool_reaches_neither_the_proxy_nor_its_socket_and_is_not_told_its_password(place: Place):
    with proxy_of(place) as facts:
        variables = facts["env"]
        socket_path = facts["rpc"].removeprefix("unix://")
        for reach, address in ((connect_tcp, ("127.0.0.1", facts["port"])), (connect_unix, socket_path)):
            for profile in HELD.values():
                assert place.confined(reach, address, profile=profile, environ=variables).outcome == "EPERM"
            assert place.with_full_access(reach, address).outcome == "OK"

        assert place.confined(proxy_variables, environ=variables).value == {}
        told = carry_out(attempt(proxy_variables), env=environment(variables))
        assert told.value["HTTPS_PROXY"] == variables["HTTPS_PROXY"]


def all_that_is_said_in(directory):
    said = []
    for name in os.listdir(directory):
        if os.path.isfile(os.path.join(directory, name)):
            with open(os.path.join(directory, name), errors="replace") as file:
                said.append(file.read())
    os.close(os.open(os.path.join(directory, "bundle.pem"), os.O_WRONLY))
    return "PRIVATE KEY" in "".join(said)


def test_the_key_of_the_proxys_authority_is_not_for_tools(place: Place):
    """Whoever has it can change what the agent says to its model; nor may a tool add to what the agent trusts."""
    with proxy_of(place) as facts:
        run_directory = Path(facts["ca_file"]).parent
        told = place.confined(all_that_is_said_in, run_directory, profile=workspace(WRITE_TMP, WRITE_TMPDIR))
        assert told.outcome in {"EACCES", "ENOENT"}, told
        assert place.with_full_access(all_that_is_said_in, run_directory).value is True
