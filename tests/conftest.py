"""What all tests need. Whatever is shared by fewer lives with them."""

import os
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import hypothesis
import pytest

from tests.loops import run_on

# The same examples in each run, and no file of former failures: a test that fails here fails everywhere.
hypothesis.settings.register_profile("same everywhere", derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile("same everywhere")

_STEERING = ("CODEX_", "COUNTERSIGN_", "OPENAI_", "CHATGPT_", "SSL_CERT_", "NODE_EXTRA_")
_PROXY_NAMES = {"http_proxy", "https_proxy", "all_proxy", "no_proxy", "ws_proxy", "wss_proxy"}
_TLS_NAMES = {"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSLKEYLOGFILE"}


@pytest.fixture(scope="session")
def empty_home() -> Iterator[str]:
    """A home without profiles: a developer's may be slow, and one that is killed half way may leave a lock behind.

    Not below /tmp, where a sandboxed command may usually write.
    """
    with tempfile.TemporaryDirectory(prefix="countersign-home-", dir="/var/tmp", ignore_cleanup_errors=True) as home:
        yield home


@pytest.fixture(autouse=True)
def clean_environ(monkeypatch: pytest.MonkeyPatch, empty_home: str) -> None:
    """Nothing of the developer's machine decides what a client trusts, where it connects or what is configured."""
    monkeypatch.setenv("HOME", empty_home)
    for name in list(os.environ):
        if name.startswith(_STEERING) or name.lower() in _PROXY_NAMES or name in _TLS_NAMES:
            monkeypatch.delenv(name)


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Runs a scenario to its end, on uvloop as production does; `on_each_loop` runs the test on both."""
    loop = getattr(request, "param", "uvloop")

    def run_scenario(scenario: Coroutine[Any, Any, Any]) -> Any:
        return run_on(loop, scenario)

    return run_scenario
