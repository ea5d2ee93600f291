"""A desk at which tokens are verified."""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

from proxy.standins.apple import PRODUCTION, Apple
from tests.processes import COUNTERSIGN, finish

ROOT = Path(__file__).parents[3]


GOOD_KEY = ["--key", "AuthKey_STANDINKEY.p8", "--team-id", "STANDIN123"]
NOWHERE = ["--server", "https://127.0.0.1:1"]  # nobody is there; none of these gets so far


@dataclass
class Desk:
    """A running stand-in, and the files that a user of it has."""

    apple: Apple
    directory: Path

    @property
    def options(self):
        return [
            "--key", str(self.directory / "AuthKey_STANDINKEY.p8"), "--team-id", "STANDIN123",
            "--server", self.apple.url(PRODUCTION), "--server-ca", str(self.directory / "ca.pem"),
        ]  # fmt: skip

    async def verify(self, *arguments, stdin=b"", environment=None):
        return await finish(
            COUNTERSIGN, "verify-token", *self.options, *arguments, stdin=stdin, environment=environment
        )


@contextlib.asynccontextmanager
async def desk(directory, **options):
    async with Apple(**options) as apple:
        (directory / "AuthKey_STANDINKEY.p8").write_bytes(apple.key_pem)
        (directory / "ca.pem").write_bytes(apple.ca_pem)
        yield Desk(apple, directory)


def told(done):
    return json.loads(done.stdout)
