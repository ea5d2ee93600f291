"""What all tests of a real sandbox need: a place, for each user that can be had."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sandbox.place import USERS, Place, place_for


@pytest.fixture(params=USERS, ids=lambda uid: f"uid-{uid}")
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """A project with a `.git`, and files outside that must stay as they are."""
    with place_for(request.param) as made:
        yield made


@pytest.fixture
def runtime(place: Place) -> Path:
    """A runtime directory of the user's, without anything of ours in it yet."""
    made = place.root / "runtime"
    made.mkdir()
    place.give()
    made.chmod(0o700)
    return made
