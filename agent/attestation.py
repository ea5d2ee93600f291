"""The one edge that goes back: the proxy's question, put to a desktop over JSON-RPC."""

from collections.abc import Callable
from typing import Any

from agent.rpc.jsonrpc import RequestFailed
from agent.rpc.server import ClientGone, Connection
from proxy.attestation import AttestationMalformed, AttestationRefused, NoAttester


class DesktopAttestation:
    """An `AttestationProvider` over RPC.

    Args:
        attester_for: Who to ask for a token of a thread, if anybody.
    """

    def __init__(self, attester_for: Callable[[str | None], Connection | None]) -> None:
        self._attester_for = attester_for

    async def generate(self, thread_id: str | None) -> str:
        """See `AttestationProvider.generate`. The deadline comes from outside; a later answer is dropped."""
        connection = self._attester_for(thread_id)
        if connection is None:
            raise NoAttester
        try:
            result = await connection.request("attestation/generate", {})
        except RequestFailed as exc:
            raise AttestationRefused from exc
        except ClientGone as exc:
            # The original sends the status of a timeout here, not of a cancellation, and asks nobody else (observed).
            raise TimeoutError("the client left while it was asked") from exc
        return _token(result)


def _token(result: Any) -> str:
    """The token of `{"token": "..."}`; also of `["..."]`, which the original's decoder takes as well (observed)."""
    match result:
        case {"token": str(token)} | [str(token)]:
            return token
        case _:
            raise AttestationMalformed
