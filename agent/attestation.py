"""The one edge that goes back: the proxy's question, put to a desktop over JSON-RPC."""

from collections.abc import Callable
from typing import Any, Protocol

from agent.rpc.jsonrpc import RequestFailed
from agent.rpc.server import ClientGone
from proxy.attestation import AttestationMalformed, AttestationRefused, NoAttester


class Attester(Protocol):
    """A client that can be asked for a token."""

    async def request(self, method: str, params: dict[str, Any]) -> Any:
        """Raises RequestFailed for an error, ClientGone when it leaves before it has answered."""
        ...


class DesktopAttestation:
    """An `AttestationProvider` over RPC.

    Args:
        attester_for: Who to ask for a token of a thread, if anybody: a client that is still there.
    """

    def __init__(self, attester_for: Callable[[str | None], Attester | None]) -> None:
        self._attester_for = attester_for

    async def generate(self, thread_id: str | None) -> str:
        """See `AttestationProvider.generate`. The deadline comes from outside; a later answer is dropped.

        When the asked client hangs up, the next one is asked, within the same deadline: the original asks nobody else.
        """
        left: list[Attester] = []
        while (attester := self._attester_for(thread_id)) is not None and attester not in left:
            try:
                result = await attester.request("attestation/generate", {})
            except RequestFailed as exc:
                raise AttestationRefused from exc
            except ClientGone:
                left.append(attester)
            else:
                return _token(result)
        if not left:
            raise NoAttester
        # The original sends the status of a timeout here, not of a cancellation (observed).
        raise TimeoutError("every client that could be asked has left")


def _token(result: Any) -> str:
    """The token of `{"token": "..."}`; also of `["..."]`, which the original's decoder takes as well (observed)."""
    match result:
        case {"token": str(token)} | [str(token)]:
            return token
        case _:
            raise AttestationMalformed
