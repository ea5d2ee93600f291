import pytest

from tests.proxy.live.chromium import launched


@pytest.fixture(scope="session")
def chromium():
    """A headless browser; its tests are one xdist group, so that there is one of it."""
    yield from launched()
