import functools

import pytest

# Before anything of mitmproxy, as in production: it decides which parts of it are loaded (proxy/slim.py).
import proxy.server  # noqa: F401
from tests.proxy.running import staged


@pytest.fixture
def stage(tmp_path):
    """Makes a running proxy in front of an upstream; see `staged` for what can be chosen."""
    return functools.partial(staged, tmp_path)
