"""A CODEX_HOME in which somebody is signed in, and the service that refreshes the tokens."""

import asyncio
import base64
import json

from agent.auth import Auth

CLAIMS = "https://api.openai.com/auth"


def jwt(**claims):
    def part(content):
        return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'none'})}.{part(claims)}.{part({})}"


FRESH = jwt(exp=4_000_000_000, jti="fresh")
EXPIRED = jwt(exp=1_000_000_000, jti="expired")


def tokens(access_token=FRESH, **more):
    given = {"access_token": access_token, "refresh_token": "refresh-4711", "account_id": "acc-1", **more}
    return {"auth_mode": "chatgpt", "OPENAI_API_KEY": None, "tokens": given, "future_member": {"kept": True}}


NEXT_TOKENS = object()


class SignIn:
    """The sign-in service: answers each refresh with the next tokens, or with what it was told to."""

    def __init__(self, status=200, answer=NEXT_TOKENS):
        self.asked = []
        self.status, self.answer = status, answer
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, url, body):
        self.asked.append((url, body))
        await self.go.wait()
        number = len(self.asked)
        new = {"access_token": jwt(exp=4_000_000_000, n=number), "refresh_token": f"refresh-{number}"}
        return self.status, new if self.answer is NEXT_TOKENS else self.answer


class Home:
    """A CODEX_HOME; `home(content)` signs somebody in."""

    def __init__(self, path):
        self.path = path
        self.file = path / "auth.json"

    def __call__(self, content, service=None):
        self.file.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
        return Auth(self.path, SignIn() if service is None else service)

    def read(self):
        return json.loads(self.file.read_text("utf-8"))
