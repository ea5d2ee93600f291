"""A workspace for commands, and what runs them."""

import pytest

from agent.sandbox.run import Runner


@pytest.fixture
def workspace(tmp_path):
    """A writable root that is to be empty again after each command."""
    (tmp_path / "workspace").mkdir()
    return tmp_path / "workspace"


@pytest.fixture
def runner():
    """A runner, closed afterwards."""
    runner = Runner()
    yield runner
    runner.close()
