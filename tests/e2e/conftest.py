"""What several tests of processes need."""

import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def place():
    """A directory with a short path: those of sockets are limited to some 100 characters."""
    with tempfile.TemporaryDirectory(prefix="cs-") as directory:
        yield Path(directory)
