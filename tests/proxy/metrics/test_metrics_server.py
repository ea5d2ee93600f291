"""The metrics are for who has the token of the run, and for no web page."""

import os
import stat

import aiohttp
import pytest

from proxy.metrics.counts import Metrics
from proxy.metrics.server import TOKEN_VARIABLE, MetricsServer
from tests.proxy.metrics.exchanges import exchange


@pytest.fixture(autouse=True)
def private_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    tmp_path.chmod(0o700)


async def asked(server, method="GET", path="/metrics", **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items() if value is not None}
    async with aiohttp.ClientSession() as session:
        async with session.request(method, f"http://127.0.0.1:{server.port}{path}", headers=headers) as answer:
            return answer.status, await answer.text(), answer.headers


def test_with_the_token_of_the_file_they_are_told(run):
    async def scenario():
        metrics = Metrics()
        metrics.changed(exchange())
        async with MetricsServer(metrics) as server:
            assert stat.S_IMODE(os.stat(server.token_file).st_mode) == 0o600
            with open(server.token_file) as file:
                token = file.read()
            assert token not in server.told and server.token_file in server.told
            status, text, headers = await asked(server, Authorization=f"Bearer {token}")
            assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
            assert "countersign_scoped_requests_total" in text
        assert not os.path.exists(server.token_file)

    run(scenario())


@pytest.mark.parametrize(
    ("headers", "path", "status"),
    [
        ({"Authorization": None}, "/metrics", 401),
        ({"Authorization": "Bearer wrong"}, "/metrics", 401),
        ({"Authorization": "Basic fixed"}, "/metrics", 401),
        ({"Authorization": "Bearer ünfit"}, "/metrics", 401),
        ({"Authorization": None}, "/metrics?token=fixed", 401),
        ({"Origin": "null"}, "/metrics", 403),
        ({"Origin": "http://127.0.0.1"}, "/metrics", 403),
        ({"Host": "evil.example"}, "/metrics", 403),
        ({"Host": "127.0.0.1"}, "/metrics", 403),
        ({}, "/other", 404),
        ({}, "/metrics", 200),
    ],
)
def test_who_else_asks_is_told_nothing(run, monkeypatch, headers, path, status):
    monkeypatch.setenv(TOKEN_VARIABLE, "fixed")

    async def scenario():
        async with MetricsServer(Metrics()) as server:
            got, text, _ = await asked(server, path=path, **{"Authorization": "Bearer fixed", **headers})
            assert got == status and ("countersign_" in text) == (status == 200)

    run(scenario())


def test_they_are_read_and_not_written(run):
    async def scenario():
        async with MetricsServer(Metrics()) as server:
            assert (await asked(server, "POST"))[0] == 405

    run(scenario())


def test_a_port_that_is_taken_is_named(run):
    async def scenario():
        async with MetricsServer(Metrics()) as server:
            with pytest.raises(OSError, match=f"the metrics cannot be served on 127.0.0.1:{server.port}: .*--metrics"):
                async with MetricsServer(Metrics(), server.port):
                    raise AssertionError

    run(scenario())
