"""What all tests of the core need."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the threads of a test are kept: its working directory, which is nobody else's."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
