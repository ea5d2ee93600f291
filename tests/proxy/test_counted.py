"""What the proof counts: no request and no connection is lost because it was of an odd form, or came to nothing."""

import socket
import ssl

import pytest

from certs.trust import client_context
from proxy.capture.coverage import CoverageCount
from proxy.capture.exchange import Stamp, Transport
from proxy.capture.log import CaptureLog
from proxy.capture.observation import Observation
from proxy.capture.store import read_exchanges
from proxy.server import LOOPBACK
from tests.proxy.origin import Origin, answering
from tests.proxy.wire import RESPONSES, ConnectionEnded, connect_head, connected, dial, post, tunnel, upgrade

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def coverage_of(exchanges):
    count = CoverageCount()
    for exchange in exchanges:
        count.add(exchange)
    return count.coverage()


def outcomes(exchanges):
    return [(row.route, row.transport, row.outcome) for row in coverage_of(exchanges).rows]


async def exchanges_of(stage, request, host="chatgpt.com", **options):
    """The exchanges that were reported of one request, and what arrived of it."""
    async with stage(Origin(answering(OK)), **options) as it, tunnel(it.proxy, host) as wire:
        await wire.exchange(request)
        return await it.reported(), len(it.origin.requests)


# In the sense of this scope none of these is a request to be stamped, and to an upstream each may be one.
ODD = [
    (post(headers=["Connection: Upgrade", "Upgrade: h2c"]), "post"),
    (post(headers=["X-HTTP-Method-Override: GET"]), "post"),
    (post().replace(b"POST", b"PUT").replace(b"Host", b"X-HTTP-Method-Override: POST\r\nHost"), "post"),
    (post().replace(b"POST", b"post"), "post"),
    (upgrade().replace(b"Connection: Upgrade", b"Connection: Upgrade, x"), "websocket"),
    (upgrade().replace(b"Version: 13", b"Version: 8"), "websocket"),
]


@pytest.mark.parametrize(("request_", "transport"), ODD)
def test_a_request_that_may_be_taken_for_a_scoped_one_is_counted_as_unstamped(run, stage, request_, transport):
    """It passed as out of scope, and the proof held although an unstamped model request had gone out."""
    exchanges, arrived = run(exchanges_of(stage, request_))
    assert arrived == 1
    assert outcomes(exchanges) == [("responses", transport, "absent")]


@pytest.mark.parametrize(
    ("request_", "host"),
    [
        (post().replace(b"POST", b"GET", 1).replace(b"{}", b"").replace(b"Content-Length: 2\r\n", b""), "chatgpt.com"),
        (post("/backend-api/codex/models"), "chatgpt.com"),
        (upgrade("/v1/realtime", host="api.openai.com"), "api.openai.com"),  # with an API key: nothing to carry again
        (post(host="api.openai.com"), "api.openai.com"),
    ],
)
def test_what_cannot_be_taken_for_one_stays_out_of_scope(run, stage, request_, host):
    exchanges, _ = run(exchanges_of(stage, request_, host))
    assert outcomes(exchanges) == [] and coverage_of(exchanges).out_of_scope == 1


@pytest.mark.parametrize(
    "request_",
    [
        post(headers=["Content-Length: 3"]),
        post(headers=["Transfer-Encoding: chunked"]),
        post(f"https://chatgpt.com{RESPONSES}?canary"),
        post("/" + RESPONSES),
    ],
)
def test_a_request_that_is_refused_before_it_is_looked_at_is_counted(run, stage, request_):
    """What mitmproxy answered by itself was neither counted nor captured."""
    exchanges, arrived = run(exchanges_of(stage, request_))
    assert arrived == 0 and [one.stamp for one in exchanges] == [Stamp.REFUSED]
    assert coverage_of(exchanges).refused == 1
    assert "canary" not in str(exchanges)


def test_a_fragment_is_kept_as_little_as_a_query(run, stage):
    exchanges, _ = run(exchanges_of(stage, post(f"{RESPONSES}#access_token=canary")))
    assert exchanges[0].path == RESPONSES and exchanges[0].stamp is Stamp.REFUSED


def test_a_connection_whose_upstream_is_not_there_is_told_with_the_place(run, stage, tmp_path):
    """`countersign run` said "No scoped request was made", and nothing of the 502 that the client had got."""
    log = CaptureLog(tmp_path / "captures", "run")
    log.start()

    async def scenario():
        with socket.create_server((LOOPBACK, 0)) as nobody:
            port = nobody.getsockname()[1]
        async with stage(upstream_port=port, observation=Observation(log.redactor, (log.changed,))) as it:
            for target in ("chatgpt.com:443", "auth.openai.com:443"):
                async with await dial(it.proxy.port) as wire:
                    assert (await wire.exchange(connect_head(it.proxy, target))).status == 502
            return await it.reported(3), port

    exchanges, port = run(scenario())
    log.close()
    failed = {one.target: (one.connections, one.reason) for one in coverage_of(exchanges).failed}
    assert failed.keys() == {"chatgpt.com:443", "auth.openai.com:443"}
    for connections, reason in failed.values():
        assert connections == 1 and reason.startswith(f"the upstream connection to {LOOPBACK}:{port} failed: ")
    assert [(one.transport, one.method) for one in read_exchanges(log.run)] == [(Transport.TUNNEL, "CONNECT")] * 2


def test_a_client_that_does_not_trust_the_proxy_is_told(run, stage, tmp_path):
    """An agent whose WebSockets ignore the authority falls back to POST: the run looked as if it had tried none."""

    async def scenario():
        async with stage() as it:
            async with connected(it.proxy) as wire:
                with pytest.raises((ssl.SSLCertVerificationError, ConnectionEnded)):
                    await wire.start_tls(client_context(it.origin.ca_pem), "chatgpt.com")
                await wire.close()
            return await it.reported()

    ((target, reason, connections),) = [
        (one.target, one.reason, one.connections) for one in coverage_of(run(scenario())).failed
    ]
    assert (target, connections) == ("chatgpt.com:443", 1) and "the client broke off TLS" in reason


def test_a_connection_on_which_nothing_failed_is_not_told(run, stage):
    """The control: a tunnel to a scoped host with a request in it, and one without."""

    async def scenario():
        async with stage(Origin(answering(OK))) as it:
            async with tunnel(it.proxy) as wire:
                await wire.exchange(post())
            async with tunnel(it.proxy):
                pass
            async with tunnel(it.proxy) as wire:
                await wire.exchange(post())
            return await it.reported(2)

    exchanges = run(scenario())
    assert coverage_of(exchanges).failed == () and len(exchanges) == 2
