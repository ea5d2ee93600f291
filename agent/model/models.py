"""The models that are offered: the service's list once it was told, ours until then."""

import asyncio
import logging
from collections.abc import Callable, Mapping

from agent.auth import Auth, AuthFailed, NotSignedIn
from agent.model.catalog import Catalog
from agent.model.endpoint import ClientIdentity
from agent.model.failures import StreamBroken, Unavailable
from agent.model.http import HttpClient
from agent.model.provider import OPENAI

logger = logging.getLogger(__name__)

# Seconds to wait for the service's list before ours is shown.
TIMEOUT_S = 5.0


class Models:
    """Asks the service once; a list that it does not give in time is asked for again the next time.

    Args:
        environ: Where headers of the service's provider are.
    """

    def __init__(
        self,
        origin: str,
        auth: Auth,
        http: HttpClient,
        identity: Callable[[], ClientIdentity],
        environ: Mapping[str, str],
    ) -> None:
        self._environ = environ
        self._origin = origin
        self._auth = auth
        self._http = http
        self._identity = identity
        self._listed: Catalog | None = None
        self._built_in = Catalog()

    @property
    def known(self) -> Catalog:
        """What is known without asking."""
        return self._listed or self._built_in

    async def ask(self) -> Catalog:
        """The service's list, or ours where it gives none within five seconds."""
        if self._listed is None:
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    self._listed = await self._fetch()
            except (TimeoutError, NotSignedIn, AuthFailed, StreamBroken, Unavailable) as exc:
                logger.info("the models are the built-in ones: %s", exc or type(exc).__name__)
        return self.known

    async def _fetch(self) -> Catalog | None:
        bearer = await self._auth.bearer()
        if bearer.mode != "chatgpt":
            return None
        identity = self._identity()
        headers = {
            **OPENAI.headers(self._environ),
            "Authorization": f"Bearer {bearer.token}",
            "User-Agent": identity.user_agent,
            "originator": identity.originator,
            "version": identity.version,
        }
        if bearer.account_id is not None:
            headers["chatgpt-account-id"] = bearer.account_id
        url = f"{self._origin}/backend-api/codex/models?client_version={identity.version}"
        status, answer = await self._http.request_json("GET", url, headers=headers)
        return Catalog.from_service(answer) if status == 200 else None
