import os
import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def outside():
    """A directory outside the temp directory, below which codex refuses to install its sandbox helper."""
    base = "/var/tmp" if os.path.isdir("/var/tmp") else None
    with tempfile.TemporaryDirectory(prefix="countersign-test-", dir=base) as name:
        yield Path(name)
