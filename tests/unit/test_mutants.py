"""What `make mutants` breaks is still there; CI, for which that takes too long, sees to it."""

from __future__ import annotations

import pytest

from tests.mutants import MUTANTS, ROOT, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.what)
def test_what_it_replaces_stands_there_once(mutant: Mutant) -> None:
    """The code has not moved on from under it, and the tests that are to see it are there."""
    source = (ROOT / mutant.file).read_text()
    assert [source.count(old) for old, _ in mutant.changes] == [1] * len(mutant.changes)
    for test in mutant.tests:
        path, _, name = test.partition("::")
        assert f"def {name.partition('[')[0]}" in (ROOT / path).read_text()
