"""ChatGPT credentials: $CODEX_HOME/auth.json, its refresh, and who is signed in.

The file is the original's, shared with it: unknown members are kept, and it is replaced whole, mode 0600.
"""

import asyncio
import base64
import contextlib
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

REFRESH_URL = "https://auth.openai.com/oauth/token"
# The original's public client id (observed in its refresh requests).
CLIENT_ID = "app_EMoamEEZ73f0CkXaXp7hrann"
# A token that ends within this many seconds is refreshed before it is used.
EXPIRY_MARGIN_S = 60.0

_CLAIMS = "https://api.openai.com/auth"

# (url, JSON body) -> (status, decoded answer)
PostJson = Callable[[str, dict[str, Any]], Awaitable[tuple[int, Any]]]


class NotSignedIn(Exception):
    """There are no credentials; the text says what to do."""


class AuthFailed(Exception):
    """There are credentials, and they cannot be used; the text says why, without them."""


class RefreshFailed(AuthFailed):
    """The sign-in service gave no new tokens; it may do so later."""


@dataclass(frozen=True, slots=True)
class Account:
    """Who is signed in. `mode` is "chatgpt" or "apikey"; the rest is None for an API key."""

    mode: str
    email: str | None = None
    plan: str | None = None
    user_id: str | None = None
    account_id: str | None = None


@dataclass(frozen=True, slots=True)
class Bearer:
    """What a request carries."""

    mode: str
    token: str = field(repr=False)
    account_id: str | None = None


@dataclass(frozen=True, slots=True)
class ExternalTokens:
    """ChatGPT tokens that a client manages: never written down, and renewed by that client alone.

    Args:
        plan: As the client calls it; None to take it from the token's claims.
    """

    token: str = field(repr=False)
    account_id: str
    plan: str | None = None


# (account id of the tokens so far) -> new tokens; raises AuthFailed
Renew = Callable[[str | None], Awaitable[ExternalTokens]]


class Auth:
    """The credentials of one CODEX_HOME.

    Args:
        post_json: Sends the refresh; through the proxy, like everything else.
    """

    def __init__(self, home: Path, post_json: PostJson) -> None:
        self._path = home / "auth.json"
        self._post_json = post_json
        self._content: dict[str, Any] | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._external: ExternalTokens | None = None
        self._renew: Renew | None = None
        # Counts who has signed in and out: what a refresh brings that began before is nobody's any more.
        self._sign_ins = 0

    @property
    def is_external(self) -> bool:
        """Whether a client manages the tokens."""
        return self._external is not None

    def sign_in_with_api_key(self, key: str) -> None:
        """Keep an API key in the file, in place of whatever was there.

        Raises:
            AuthFailed: It cannot be sent in a header, or not be written down.
        """
        if not _usable(key):
            raise AuthFailed("an API key is a text of printable ASCII characters, without blanks around it")
        self._keep({"auth_mode": "apikey", "OPENAI_API_KEY": key, "tokens": None, "last_refresh": None})

    def sign_in_with_tokens(self, id_token: str, access_token: str, refresh_token: str) -> None:
        """Keep what a sign-in has brought in the file, in place of whatever was there. Raises AuthFailed likewise."""
        if not all(map(_usable, (id_token, access_token, refresh_token))):
            raise AuthFailed("the sign-in service answered without usable tokens; sign in again")
        tokens = {"id_token": id_token, "access_token": access_token, "refresh_token": refresh_token}
        account_id = workspace_of(id_token)
        content = {"tokens": {**tokens, "account_id": account_id}, "last_refresh": _now()}
        self._keep({"auth_mode": "chatgpt", "OPENAI_API_KEY": None, **content})

    def sign_in_externally(self, tokens: ExternalTokens, renew: Renew) -> None:
        """Use a client's tokens from now on; the file is neither read nor changed until they are signed out.

        Raises:
            AuthFailed: They cannot be sent in a header.
        """
        if not _usable(tokens.token) or not _usable(tokens.account_id):
            raise AuthFailed("accessToken and chatgptAccountId are texts of printable ASCII characters")
        self._sign_ins += 1
        self._external, self._renew = tokens, renew

    def sign_out(self) -> None:
        """Forget all credentials. Raises AuthFailed where the file cannot be removed."""
        self._sign_ins += 1
        self._external = self._renew = self._content = None
        try:
            self._path.unlink(missing_ok=True)
        except OSError as exc:
            raise AuthFailed(f"{str(self._path)!r} cannot be removed: {exc.strerror}") from exc

    def _keep(self, content: dict[str, Any]) -> None:
        _replace(self._path, json.dumps(content, indent=2))
        self._sign_ins += 1
        self._external = self._renew = None
        self._content = content

    def load(self) -> None:
        """Read the file anew.

        Raises:
            AuthFailed: It is there and cannot be read or understood.
        """
        if self._external is not None:
            return
        try:
            content = json.loads(self._path.read_text("utf-8"))
        except FileNotFoundError:
            self._content = None
            return
        except OSError as exc:
            raise AuthFailed(f"{str(self._path)!r} cannot be read: {exc.strerror}") from exc
        except (ValueError, RecursionError) as exc:
            # Not the decoder's text: it may quote the file.
            raise AuthFailed(f"{str(self._path)!r} is not JSON; sign in again") from exc
        if not isinstance(content, dict):
            raise AuthFailed(f"{str(self._path)!r} is no JSON object; sign in again")
        match _mode(content):
            case "apikey":
                if not _usable(content.get("OPENAI_API_KEY")):
                    raise AuthFailed(f"{str(self._path)!r} has no usable OPENAI_API_KEY; sign in again")
            case "chatgpt":
                tokens = content.get("tokens")
                if not isinstance(tokens, dict):
                    raise AuthFailed(f"{str(self._path)!r} holds neither tokens nor an API key; sign in again")
                for name in ("access_token", "refresh_token"):
                    if not _usable(tokens.get(name)):
                        raise AuthFailed(f"{str(self._path)!r} has no usable tokens.{name}; sign in again")
            case _:
                raise AuthFailed(f"{str(self._path)!r} has an auth_mode that is not supported; sign in again")
        self._content = content

    def account(self) -> Account | None:
        """Who is signed in, from the file as it is now; None if nobody is. Raises AuthFailed as `load` does."""
        self.load()
        if self._external is not None:
            return _external_account(self._external)
        if self._content is None:
            return None
        if _mode(self._content) == "apikey":
            return Account("apikey")
        tokens = self._content["tokens"]
        claims = _claims(tokens.get("id_token")) | _claims(tokens["access_token"])
        ours = claims.get(_CLAIMS)
        ours = ours if isinstance(ours, dict) else {}
        email = claims.get("email") or _claims(tokens.get("id_token")).get("email")
        return Account(
            mode="chatgpt",
            email=email if isinstance(email, str) else None,
            plan=_optional(ours.get("chatgpt_plan_type")),
            user_id=_optional(ours.get("chatgpt_user_id") or ours.get("user_id")),
            account_id=_optional(tokens.get("account_id") or ours.get("chatgpt_account_id")),
        )

    async def bearer(self) -> Bearer:
        """What to send now; an access token that has expired is refreshed first.

        Raises:
            NotSignedIn: There are no credentials.
            AuthFailed: They cannot be used, or the refresh failed.
        """
        if self._external is not None:
            return self._bearer()
        if self._content is None:
            self.load()
        if self._content is None:
            raise NotSignedIn(f"nobody is signed in: there is no {str(self._path)!r}; sign in with the desktop first")
        if _mode(self._content) == "chatgpt":
            token = self._content["tokens"]["access_token"]
            if _expires_at(token) < time.time() + EXPIRY_MARGIN_S:
                await self.refresh("proactive_expiry", token)
        return self._bearer()

    async def refresh(self, reason: str, rejected: str) -> None:
        """Get new tokens and keep them, unless somebody has replaced `rejected` meanwhile.

        Whoever comes while one runs waits for that one. It goes on when all of them have given up: the service has
        replaced the refresh token by then, and an answer that is not kept signs the user out.

        Raises:
            RefreshFailed: The sign-in service failed or could not be reached.
            AuthFailed: It refused, there is nothing to refresh, or the new tokens cannot be kept.
        """
        if self._refreshing is None:
            self._refreshing = asyncio.create_task(self._refresh(reason, rejected))
            self._refreshing.add_done_callback(self._refreshed)
        await asyncio.shield(self._refreshing)

    async def aclose(self, patience_s: float) -> None:
        """Let a refresh that runs come to its end, but not longer than this."""
        if self._refreshing is not None:
            _, late = await asyncio.wait({self._refreshing}, timeout=patience_s)
            for task in late:
                logger.warning("a refresh of the sign-in was given up; the next start may ask to sign in again")
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _refreshed(self, task: asyncio.Task[None]) -> None:
        self._refreshing = None
        if not task.cancelled():
            task.exception()  # it is told to whoever waits; nobody may

    async def _refresh(self, reason: str, rejected: str) -> None:
        if self._external is not None:
            return await self._refresh_external(self._external, rejected)
        self.load()  # the original, or another process of ours, may have been here
        sign_ins = self._sign_ins
        content = self._content
        if content is None or _mode(content) != "chatgpt":
            raise AuthFailed("only ChatGPT credentials can be refreshed")
        tokens = content["tokens"]
        if tokens["access_token"] != rejected:
            return
        body = {
            "client_id": CLIENT_ID,
            "grant_type": "refresh_token",
            "refresh_token": tokens["refresh_token"],
            "refresh_reason": reason,
        }
        status, answer = await self._post_json(REFRESH_URL, body)
        if self._sign_ins != sign_ins:
            return  # somebody has signed in or out meanwhile
        with contextlib.suppress(AuthFailed):  # a file that nobody can read any more is the better for new tokens
            self.load()
        now = self._content
        if now is None or _mode(now) != "chatgpt" or now.get("tokens") != tokens:
            return  # somebody else has, who shares the file, or has refreshed the same tokens first
        if status in (400, 401, 403):
            raise AuthFailed(f"the sign-in is no longer valid (the service answered {status}); sign in again")
        new: dict[str, Any] = {}
        if status == 200 and isinstance(answer, dict):
            new = {name: answer[name] for name in ("id_token", "access_token", "refresh_token") if answer.get(name)}
        if "access_token" not in new or not all(_usable(token) for token in new.values()):
            raise RefreshFailed(f"the sign-in service answered {status}; sign in again if this goes on")
        self._content = {**now, "tokens": {**tokens, **new}, "last_refresh": _now()}
        _replace(self._path, json.dumps(self._content, indent=2))

    async def _refresh_external(self, tokens: ExternalTokens, rejected: str) -> None:
        if tokens.token != rejected:
            return
        assert self._renew is not None
        sign_ins = self._sign_ins
        new = await self._renew(tokens.account_id)
        if self._sign_ins != sign_ins:
            return
        if not _usable(new.token) or new.account_id != tokens.account_id:
            raise RefreshFailed("the client answered with tokens that cannot be used; sign in with it again")
        self._external = new

    def _bearer(self) -> Bearer:
        if self._external is not None:
            return Bearer("chatgpt", self._external.token, self._external.account_id)
        content = self._content
        if content is None:  # during a refresh
            raise NotSignedIn("the user has signed out; sign in with the desktop first")
        if _mode(content) == "apikey":
            return Bearer("apikey", content["OPENAI_API_KEY"])
        tokens = content["tokens"]
        account_id = tokens.get("account_id")
        return Bearer("chatgpt", tokens["access_token"], account_id if _usable(account_id) else None)


def workspace_of(token: str) -> str | None:
    """The ChatGPT account that a token is for, by its claims."""
    ours = _claims(token).get(_CLAIMS)
    return _optional(ours.get("chatgpt_account_id")) if isinstance(ours, dict) else None


def _external_account(tokens: ExternalTokens) -> Account:
    claims = _claims(tokens.token)
    ours = claims.get(_CLAIMS)
    ours = ours if isinstance(ours, dict) else {}
    profile = claims.get("https://api.openai.com/profile")
    return Account(
        mode="chatgpt",
        email=_optional(claims.get("email")) or _optional(profile.get("email") if isinstance(profile, dict) else None),
        plan=tokens.plan or _optional(ours.get("chatgpt_plan_type")),
        user_id=_optional(ours.get("chatgpt_user_id") or ours.get("user_id")),
        account_id=tokens.account_id,
    )


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _mode(content: dict[str, Any]) -> str:
    """Whose credentials count where there are several: `auth_mode`, else the API key, else the tokens (observed)."""
    named = content.get("auth_mode")
    if named is None:
        return "apikey" if content.get("OPENAI_API_KEY") else "chatgpt"
    return {"apikey": "apikey", "chatgpt": "chatgpt", "chatgptAuthTokens": "chatgpt"}.get(str(named), "")


def _claims(token: object) -> dict[str, Any]:
    """The claims of a JWT, unverified: they are only shown, and looked at for the expiry."""
    if not isinstance(token, str) or token.count(".") != 2:
        return {}
    payload = token.split(".")[1]
    try:
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


def _expires_at(token: str) -> float:
    expiry = _claims(token).get("exp")
    if isinstance(expiry, bool) or not isinstance(expiry, int | float):
        return float("inf")
    return expiry


def _usable(token: object) -> bool:
    """Whether it can be sent in a header."""
    return isinstance(token, str) and token != "" and token.isascii() and token.isprintable()


def _optional(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _replace(path: Path, text: str) -> None:
    """Replace the file in one step: a crash leaves the old one or the new one."""
    import tempfile  # 3 ms of the start, of which only a refresh has need

    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".auth-")  # mkstemp makes it 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as exc:
        Path(temporary).unlink(missing_ok=True)
        raise AuthFailed(f"{str(path)!r} cannot be written: {exc.strerror}") from exc
