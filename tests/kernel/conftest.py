"""Where kernel tests put files that other users shall reach."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kernel import execve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def room() -> Iterator[Path]:
    """A directory of one file of tests that every user can reach."""
    with execve.open_directory() as directory:
        yield directory


@pytest.fixture
def here(room: Path, request: pytest.FixtureRequest) -> Path:
    """A directory of one test that every user can reach."""
    made = room / request.node.name.replace("/", "-")[:80]
    made.mkdir()
    return made
