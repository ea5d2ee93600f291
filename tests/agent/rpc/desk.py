"""A desktop in memory on a server with these methods; what the server says is checked against the schemas."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agent.rpc.handshake import Identity
from agent.rpc.jsonrpc import INVALID_REQUEST, RequestFailed
from agent.rpc.server import AppServer, Connections, Method, Methods
from agent.standins.desktop import Desktop, Script
from tests.agent.core import published_schema
from tests.agent.core.memory_app import MemoryPipe

RESPONSES = {
    "config/read": "ConfigReadResponse",
    "configRequirements/read": "ConfigRequirementsReadResponse",
    "permissionProfile/list": "PermissionProfileListResponse",
    "modelProvider/list": "ModelProviderListResponse",
    "experimentalFeature/list": "ExperimentalFeatureListResponse",
    "command/exec": "CommandExecResponse",
    "command/exec/write": "CommandExecWriteResponse",
    "command/exec/resize": "CommandExecResizeResponse",
    "command/exec/terminate": "CommandExecTerminateResponse",
    "account/login/start": "LoginAccountResponse",
    "account/login/cancel": "CancelLoginAccountResponse",
    "account/logout": "LogoutAccountResponse",
    "account/rateLimits/read": "GetAccountRateLimitsResponse",
    "fs/readFile": "FsReadFileResponse",
    "fs/writeFile": "FsWriteFileResponse",
    "fs/createDirectory": "FsCreateDirectoryResponse",
    "fs/getMetadata": "FsGetMetadataResponse",
    "fs/readDirectory": "FsReadDirectoryResponse",
    "fs/remove": "FsRemoveResponse",
    "fs/copy": "FsCopyResponse",
    "fuzzyFileSearch": "FuzzyFileSearchResult",
}


class Desk:
    """What a test says with, and what it hears."""

    def __init__(self, desktop: Desktop) -> None:
        self.desktop = desktop

    async def call(self, method: str, **params: Any) -> Any:
        """An answer, which fits its schema."""
        answer = await self.desktop.request(method, params)
        for one in answer["files"] if method == "fuzzyFileSearch" else [answer]:
            assert published_schema.misfit(RESPONSES[method], one) is None
        return answer

    async def refused(self, method: str, code: int = INVALID_REQUEST, **params: Any) -> str:
        """The text of an error."""
        with pytest.raises(RequestFailed) as failed:
            await self.desktop.request(method, params)
        assert failed.value.code == code, failed.value.message
        return failed.value.message

    def told(self, method: str) -> list[dict[str, Any]]:
        """The notifications of a method so far."""
        return [one["params"] for one in self.desktop.notifications if one["method"] == method]


@contextlib.asynccontextmanager
async def desk(methods: Methods, connections: Connections | None = None) -> AsyncIterator[Desk]:
    """An initialised desktop."""

    async def method(name: str) -> Method | None:
        return methods.get(name)

    server = AppServer(
        name="countersign",
        codex_home="/home/of/codex",
        connections=connections or Connections(),
        identity=lambda name: Identity(name, "Debian 12.0.0; x86_64", "xterm"),
        method=method,
        on_initialized=lambda connection: None,
    )
    pipe = MemoryPipe()
    serving = asyncio.create_task(server.serve(pipe.server))
    try:
        async with Desktop(Script(name="codex_desktop"), pipe.desktop) as desktop:
            await desktop.initialize()
            yield Desk(desktop)
        for one in desktop.notifications:
            assert published_schema.misfit_of_notification(one["method"], one["params"]) is None
    finally:
        await serving
