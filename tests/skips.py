"""Skipping for a fact that is written down, and for nothing else."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

FACTS: dict[str, str] = tomllib.loads((Path(__file__).parent / "skips.toml").read_text())["facts"]
MARK = "fact "


def skip(fact: str) -> None:
    """Skip the running test because of ``fact``, a key of skips.toml; KeyError for any other."""
    pytest.skip(f"{MARK}{fact}: {FACTS[fact]}")


def is_listed(reason: str) -> bool:
    """Tell whether a skip's reason is that of a listed fact."""
    return any(reason.endswith(f"{MARK}{fact}: {words}") for fact, words in FACTS.items())
