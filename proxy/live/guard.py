"""Which requests the live page answers: those of its own page, asked for by its own name, with its token. Pure.

A page of another site can make a browser send requests here (facts: security 4.3). One that was rebound to our address
by DNS has no foreign Origin; only its Host tells. So all of Host, Origin and Sec-Fetch-Site must fit, and what is worth
reading needs a token that such a page cannot know.
"""

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus

# Never CORS headers: nothing of another origin is to read anything here.
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
    "Server": "countersign",
}


class Area(StrEnum):
    """What is asked for."""

    PAGE = "page"  # "/" itself: no secret is in it, and it may be navigated to from anywhere
    ASSET = "asset"  # what the page is made of
    API = "api"  # what it shows


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer in place of what was asked for."""

    status: HTTPStatus
    reason: str


@dataclass(frozen=True, slots=True)
class Asked:
    """The parts of a request that decide; of each header all values."""

    method: str
    target: str
    host: Sequence[str]
    origin: Sequence[str]
    authorization: Sequence[str]
    fetch_site: Sequence[str] = ()
    fetch_mode: Sequence[str] = ()
    fetch_dest: Sequence[str] = ()


class Guard:
    """Decides about requests.

    Args:
        port: Where the page is served; part of its name.
    """

    def __init__(self, port: int, token: str) -> None:
        self._names = frozenset(f"{host}:{port}" for host in ("127.0.0.1", "localhost", "[::1]"))
        self._token_hash = hashlib.sha256(token.encode()).digest()

    def __repr__(self) -> str:
        return "Guard(...)"

    def refusal(self, asked: Asked, area: Area) -> Refusal | None:
        """Why it is not answered, or None."""
        host = asked.host[0].lower() if len(asked.host) == 1 else ""
        if host not in self._names or not asked.target.startswith("/"):
            return Refusal(HTTPStatus.FORBIDDEN, "this is not a name of this page; open the address that was printed")
        if any(origin.lower() != f"http://{host}" for origin in asked.origin):
            return Refusal(HTTPStatus.FORBIDDEN, "requests of other sites are not answered")
        if not _is_own_fetch(asked) and not (area is Area.PAGE and _is_navigation(asked)):
            return Refusal(HTTPStatus.FORBIDDEN, "requests of other sites are not answered")
        if asked.method != "GET":
            return Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "nothing can be changed here; only GET is answered")
        if area is Area.API and not self._knows_token(asked.authorization):
            return Refusal(HTTPStatus.UNAUTHORIZED, "the token of this run is needed, as Authorization: Bearer TOKEN")
        return None

    def _knows_token(self, authorization: Sequence[str]) -> bool:
        given = _BEARER.fullmatch(authorization[0]) if len(authorization) == 1 else None
        found = hashlib.sha256((given[1] if given else "").encode("utf-8", "surrogateescape")).digest()
        # Of the hashes, so that neither the time nor the length says how much of it was right.
        return hmac.compare_digest(found, self._token_hash)


_BEARER = re.compile("bearer ([!-~]+)", re.IGNORECASE)


def _is_own_fetch(asked: Asked) -> bool:
    # "none" is what was typed or bookmarked; no such header, what is no browser of today: the token decides.
    return all(site in ("same-origin", "none") for site in asked.fetch_site)


def _is_navigation(asked: Asked) -> bool:
    """Whether a link to us was followed, in a window of its own."""
    return list(asked.fetch_mode) == ["navigate"] and list(asked.fetch_dest) == ["document"]
