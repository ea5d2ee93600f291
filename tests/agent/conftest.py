"""What all tests of the agent need."""

from collections.abc import Iterator

import pytest

from tests.agent.core.published_schema import MISFITS


@pytest.fixture(autouse=True)
def all_that_is_sent_fits_the_published_schema() -> Iterator[None]:
    """Each notification, request and answer of a server of ours, in every test with a client in memory."""
    MISFITS.clear()
    yield
    assert MISFITS == []
