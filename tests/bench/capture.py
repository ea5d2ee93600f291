"""What capture costs: proxied requests a second and CPU time of each, without capture, with it, and with bodies.

`countersign proxy` is started once in each of these ways, in front of one upstream; the same client asks one after the
other, in turn. The ratio is the median of the paired ratios. Then one answer of a gigabyte, for the memory.
"""

import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from certs.trust import client_context
from proxy.credentials import Credentials
from tests.proxy.origin import Origin, Visit
from tests.proxy.wire import RESPONSES, Wire, basic, dial, post

COUNTERSIGN = [sys.executable, "-m", "agent"]
WAYS: dict[str, tuple[str, ...]] = {
    "without": ("--no-capture",),
    "capture": ("--capture",),
    "with bodies": ("--capture", "--bodies"),
}
CLIENTS = 8
SECONDS = 0.5  # short, so that what else the machine does falls on both of a pair
LARGE_BYTES = 1024**3

# As many headers, and as long ones, as codex-cli 0.169 sends; secrets among them.
HEADERS = (
    "Authorization: Bearer " + "a" * 900,
    "chatgpt-account-id: 00000000-0000-4000-8000-000000000000",
    "originator: codex_exec",
    "User-Agent: codex_exec/0.169.0 (Debian 12.0.0; x86_64) unknown",
    "version: 0.169.0",
    "session-id: 019a0000-0000-7000-8000-000000000000",
    "thread-id: 019a0000-0000-7000-8000-000000000000",
    "x-client-request-id: 019a0000-0000-7000-8000-000000000000",
    "x-codex-window-id: 019a0000-0000-7000-8000-000000000000:0",
    "x-codex-turn-metadata: " + "{}" * 150,
    "x-codex-beta-features: remote_compaction_v2",
    "Accept: text/event-stream",
    "Content-Type: application/json",
)
BODY = b'{"model":"gpt-5.5","stream":true,"input":[' + b'{"type":"message","content":"' + b"word " * 400 + b'"}]}'
EVENTS = b"".join(
    b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"word %d"}\n\n' % number
    for number in range(20)
)
COOKIES = "".join(f"Set-Cookie: name{number}={'c' * 80}; Secure\r\n" for number in range(3)).encode()
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nServer: upstream\r\ncf-ray: 0123456789abcdef\r\n"
    b"x-request-id: 0123456789abcdef\r\n" + COOKIES + b"Content-Length: %d\r\n\r\n" % len(EVENTS)
) + EVENTS


@contextlib.asynccontextmanager
async def _process(*command: str, home: Path) -> AsyncIterator[tuple[int, dict[str, Any]]]:
    """(its pid, the line of JSON that it printed when it was ready)."""
    started = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "CODEX_HOME": str(home)},
    )
    try:
        assert started.stdout is not None
        async with asyncio.timeout(20):
            line = await started.stdout.readline()
        yield started.pid, json.loads(line)
    finally:
        started.terminate()
        await started.wait()


@dataclass(slots=True)
class Proxy:
    """One running proxy, and what was measured with it."""

    pid: int
    facts: Mapping[str, Any]
    rates: list[float]
    cpu_us: list[float]


async def bench_capture(rounds: int) -> None:
    """Measure and print.

    Args:
        rounds: How often each of the ways is measured; 30 take a minute.
    """
    async with _proxies() as proxies:
        for proxy in proxies.values():
            await _load(proxy, SECONDS)
            proxy.rates.clear()
            proxy.cpu_us.clear()
        for number in range(rounds):
            for proxy in list(proxies.values())[:: -1 if number % 2 else 1]:
                await _load(proxy, SECONDS)
        _report(proxies, rounds)
        for way, proxy in proxies.items():
            before, peak, mib_s = await _large(proxy)
            print(f"1 GiB answer, {way:<12} {mib_s:6.0f} MiB/s, RSS {before:.0f} MiB before, {peak:.0f} MiB at most")


def _report(proxies: Mapping[str, Proxy], rounds: int) -> None:
    print(f"{rounds} rounds of {SECONDS:g} s each in turn, {CLIENTS} connections; ratio: median of the paired ratios")
    print(f"{'':<14}{'requests/s':>26}{'ratio':>8}{'CPU us/request':>26}{'ratio':>8}")
    base = proxies["without"]
    for way, proxy in proxies.items():
        rate = statistics.median(a / b for a, b in zip(proxy.rates, base.rates, strict=True))
        cpu = statistics.median(a / b for a, b in zip(proxy.cpu_us, base.cpu_us, strict=True))
        print(f"{way:<14}{_spread(proxy.rates):>26}{rate:>8.3f}{_spread(proxy.cpu_us):>26}{cpu:>8.3f}")


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.0f} ({min(values):.0f} to {max(values):.0f})"


async def _answer(visit: Visit) -> None:
    while (request := await visit.head()) is not None:
        await visit.body(request)
        # An Origin keeps what it gets.
        visit.origin.requests.clear()
        visit.received.clear()
        if request.head.startswith(b"POST /large"):
            await visit.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % LARGE_BYTES
            )
            chunk = (EVENTS * (1024 * 1024 // len(EVENTS) + 1))[: 1024 * 1024]
            for _ in range(LARGE_BYTES // len(chunk)):
                await visit.write(chunk)
        else:
            await visit.write(ANSWER)


@contextlib.asynccontextmanager
async def _proxies() -> AsyncIterator[dict[str, Proxy]]:
    with tempfile.TemporaryDirectory(prefix="countersign-bench-") as name:
        directory = Path(name)
        async with contextlib.AsyncExitStack() as stack:
            origin = await stack.enter_async_context(Origin(_answer))
            ca_file = directory / "upstream.pem"
            ca_file.write_bytes(origin.ca_pem)
            proxies = {}
            for way, options in WAYS.items():
                home = directory / way.replace(" ", "-")
                home.mkdir(mode=0o700)
                pid, facts = await stack.enter_async_context(
                    _process(
                        *COUNTERSIGN, "proxy", "--json", "--quiet", *options,
                        "--upstream-map", f"chatgpt.com=127.0.0.1:{origin.port}", "--upstream-ca", str(ca_file),
                        home=home,
                    )
                )  # fmt: skip
                proxies[way] = Proxy(pid, facts, [], [])
            yield proxies


async def _connected(proxy: Proxy) -> Wire:
    user, _, rest = str(proxy.facts["https_proxy"]).removeprefix("http://").partition(":")
    secret, _, _ = rest.partition("@")
    wire = await dial(int(proxy.facts["port"]))
    await wire.send(
        b"CONNECT chatgpt.com:443 HTTP/1.1\r\nHost: chatgpt.com:443\r\nProxy-Authorization: %s\r\n\r\n"
        % basic(Credentials(user, secret))
    )
    await wire.receive_until(b"\r\n\r\n")
    context = client_context(Path(str(proxy.facts["ca_file"])).read_bytes())
    context.set_alpn_protocols(["http/1.1"])
    await wire.start_tls(context, "chatgpt.com")
    return wire


async def _load(proxy: Proxy, seconds: float) -> None:
    request = post(RESPONSES, headers=HEADERS, body=BODY)
    wires = [await _connected(proxy) for _ in range(CLIENTS)]
    for wire in wires:
        await wire.exchange(request)
    cpu, begun = _cpu_s(proxy.pid), time.perf_counter()
    counts = await asyncio.gather(*(_ask(wire, request, begun + seconds) for wire in wires))
    took, used = time.perf_counter() - begun, _cpu_s(proxy.pid) - cpu
    for wire in wires:
        await wire.close()
    proxy.rates.append(sum(counts) / took)
    proxy.cpu_us.append(used / sum(counts) * 1e6)


async def _ask(wire: Wire, request: bytes, until: float) -> int:
    count = 0
    while time.perf_counter() < until:
        answer = await wire.exchange(request)
        assert answer.status == 200, answer
        count += 1
    return count


async def _large(proxy: Proxy) -> tuple[float, float, float]:
    """(RSS before, peak RSS meanwhile, MiB/s) of one answer of a gigabyte."""
    before = _memory_mib(proxy.pid, "VmRSS")
    Path(f"/proc/{proxy.pid}/clear_refs").write_text("5")  # forget the peak so far
    wire = await _connected(proxy)
    begun = time.perf_counter()
    await wire.send(post("/large", headers=HEADERS))
    head = await wire.receive_until(b"\r\n\r\n")
    assert b"200 OK" in head, head
    size = 0
    while size < LARGE_BYTES:
        arrived = await wire.receive()
        assert arrived, "the answer was cut"
        size += len(arrived)
    took = time.perf_counter() - begun
    await wire.close()
    return before, _memory_mib(proxy.pid, "VmHWM"), LARGE_BYTES / 2**20 / took


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory_mib(pid: int, name: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"no {name}: this benchmark needs Linux")


if __name__ == "__main__":
    uvloop.run(bench_capture(int(sys.argv[1]) if len(sys.argv) > 1 else 30))
