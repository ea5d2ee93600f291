"""Serves the metrics on loopback, to whoever has the token of the run."""

import hmac
import os
import secrets
from types import TracebackType
from typing import Self

from aiohttp import web

from certs.run_directory import RunDirectory
from proxy.metrics.counts import Metrics

LOOPBACK = "127.0.0.1"
TOKEN_VARIABLE = "COUNTERSIGN_METRICS_TOKEN"
_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class MetricsServer:
    """`GET /metrics` with `Authorization: Bearer TOKEN`. An async context manager.

    The token is that of COUNTERSIGN_METRICS_TOKEN, or a new one; a collector reads it from the file that `told` names.

    Args:
        port: 0 for any free one.
    """

    def __init__(self, metrics: Metrics, port: int = 0) -> None:
        self._metrics = metrics
        self._wanted_port = port
        self._token = os.environ.get(TOKEN_VARIABLE) or secrets.token_urlsafe(32)
        self._directory: RunDirectory | None = None
        self._runner: web.AppRunner | None = None
        self.port = 0
        self.token_file = ""

    @property
    def url(self) -> str:
        """Where they are."""
        return f"http://{LOOPBACK}:{self.port}/metrics"

    @property
    def told(self) -> str:
        """For people: where they are, and where the token is."""
        return f"metrics at {self.url} with the bearer token in {self.token_file}"

    async def __aenter__(self) -> Self:
        """Listen.

        Raises:
            OSError: The port is in use.
        """
        application = web.Application()
        application.router.add_get("/metrics", self._serve)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        try:
            site = web.TCPSite(runner, LOOPBACK, self._wanted_port)
            try:
                await site.start()
            except OSError as exc:
                raise OSError(
                    exc.errno,
                    f"the metrics cannot be served on {LOOPBACK}:{self._wanted_port}: {os.strerror(exc.errno or 0)}; "
                    "choose another --metrics port, or 0 for a free one",
                ) from exc
            self.port = runner.addresses[0][1]
            self._directory = RunDirectory()
            file = self._directory.path / "metrics-token"
            file.touch(0o600)
            file.write_text(self._token)
            self.token_file = str(file)
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        if self._directory is not None:
            self._directory.__exit__(None, None, None)

    async def _serve(self, request: web.Request) -> web.Response:
        # A page whose name was rebound to loopback sends its own name; the token it cannot have.
        if request.host not in {f"{name}:{self.port}" for name in (LOOPBACK, "localhost", "[::1]")}:
            return web.Response(status=403, text=f"countersign: ask for {LOOPBACK}:{self.port}\n")
        if "Origin" in request.headers:
            return web.Response(status=403, text="countersign: metrics are not for web pages\n")
        given = request.headers.get("Authorization", "")
        scheme, _, token = given.partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(token.encode(), self._token.encode()):
            return web.Response(
                status=401,
                text="countersign: the token of this run is needed, as Authorization: Bearer TOKEN\n",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return web.Response(body=self._metrics.text(), headers={"Content-Type": _TYPE, "Cache-Control": "no-store"})
