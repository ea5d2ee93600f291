"""The bridge of the managed network: listeners inside a sandbox's network namespace, relayed to the same ports outside.

A socket stays in the namespace it was made in. So a child of ours enters the sandbox's namespaces just to open the
listeners and hands them back; we accept on them here and connect there, and nothing of ours runs inside.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import os
import socket
import struct
import threading

from agent.sandbox.plan import BLOCK_FD, Backend, SandboxUnavailable

# ioctl(2) on a namespace: the user namespace that owns it (linux/nsfs.h)
_NS_GET_USERNS = 0xB701
_CHUNK = 65536


class Bridge:
    """One sandbox's way to some loopback ports of the host.

    Args:
        ports: To be reached at 127.0.0.1 inside, at the same numbers.
    """

    def __init__(self, ports: tuple[int, ...]) -> None:
        self._ports = ports
        self._block_end, self._block = os.pipe()
        self._listeners: list[socket.socket] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def descriptors(self) -> dict[int, int]:
        """What bubblewrap is given: its number for each descriptor of ours."""
        return {BLOCK_FD: self._block_end}

    def open(self, pid: int | None) -> None:
        """Once bubblewrap has its namespaces: open the listeners, and let the command go.

        Args:
            pid: A process in them; None if bubblewrap ended before it had them.

        Raises:
            SandboxUnavailable: The namespaces cannot be entered. The command has not run; closing the bridge lets
                bubblewrap end without it, as long as it is killed first.
        """
        self._close_block_end()
        try:
            if pid is None:
                raise OSError("bubblewrap ended before its namespaces were made")
            self._listeners = _listeners_inside(pid, self._ports)
        except OSError as exc:
            raise SandboxUnavailable(
                Backend.BUBBLEWRAP, f"the managed network cannot be connected: {exc.strerror or exc}"
            ) from exc
        started = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(started,), daemon=True)
        self._thread.start()
        started.wait()
        os.write(self._block, b".")

    def close(self) -> None:
        """Stop relaying. The sandbox must be gone."""
        self._close_block_end()
        os.close(self._block)
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=1)
        for listener in self._listeners:
            listener.close()

    def _close_block_end(self) -> None:
        if self._block_end >= 0:
            os.close(self._block_end)
            self._block_end = -1

    def _serve(self, started: threading.Event) -> None:
        loop = self._loop = asyncio.new_event_loop()

        async def serve() -> None:
            for listener, port in zip(self._listeners, self._ports, strict=True):
                await asyncio.start_server(functools.partial(_relay, port), sock=listener)
            started.set()

        task = loop.create_task(serve())
        try:
            loop.run_forever()
        finally:
            task.cancel()
            for pending in asyncio.all_tasks(loop):
                pending.cancel()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()


async def _relay(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        outside_reader, outside_writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        # Closed without lingering it is a reset inside; otherwise it would look like an empty answer.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        return
    await asyncio.gather(_pump(reader, outside_writer), _pump(outside_reader, writer), return_exceptions=True)
    for end in (writer, outside_writer):
        end.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await source.read(_CHUNK):
            sink.write(chunk)
            await sink.drain()
        sink.write_eof()


def _listeners_inside(pid: int, ports: tuple[int, ...]) -> list[socket.socket]:
    """Listening sockets on 127.0.0.1 in the network namespace of a process.

    Raises:
        OSError: The namespaces cannot be entered, or a port is refused.
    """
    network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    here, there = socket.socketpair()
    try:
        child = os.fork()
        if child == 0:
            # A child, because there is no way back into our own namespaces.
            os._exit(_open_inside(network, ports, there))
        there.close()
        message, descriptors, _, _ = socket.recv_fds(here, 4096, len(ports))
        os.waitpid(child, 0)
        if message != b"ok":
            raise OSError(message.decode(errors="replace") or "the listener process died")
        return [socket.socket(fileno=descriptor) for descriptor in descriptors]
    finally:
        here.close()
        os.close(network)


def _open_inside(network: int, ports: tuple[int, ...], answer: socket.socket) -> int:
    try:
        owner = fcntl.ioctl(network, _NS_GET_USERNS)
        os.setns(owner, 0)
        os.setns(network, 0)
        listeners = []
        for port in ports:
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            listener.listen(64)
            listener.setblocking(False)
            listeners.append(listener)
        socket.send_fds(answer, [b"ok"], [listener.fileno() for listener in listeners])
    except OSError as exc:
        answer.send(str(exc).encode())
        return 1
    return 0
