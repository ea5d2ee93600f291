"""What all tests need. Whatever is shared by fewer lives with them."""

import os
from collections.abc import Callable, Coroutine
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


@pytest.fixture(autouse=True)
def clean_environ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the developer's machine decides what a client trusts, where it connects or what is configured."""
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
