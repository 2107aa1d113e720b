"""The table of expectations: read, checked for being whole, and shown beside what was found."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.launching import USERS
from tests.matrix.cells import VIAS
from tests.matrix.kinds import KINDS

EXPECTED = Path(__file__).parent / "expected.txt"
EVERYBODY = "everybody"
EITHER = "|"
VALUE = re.compile("locked|(?:refused|not-possible):[a-z0-9-]+")


@dataclass(frozen=True)
class Cell:
    """One cell: who starts what in which way, and what is expected of it."""

    kind: str
    who: str
    via: str
    expected: str

    def accepts(self, found: str) -> bool:
        """Tell whether what was found is as expected."""
        return found in self.expected.split(EITHER)

    def __str__(self) -> str:
        return f"{self.kind}-{self.who}-{self.via}"


def read(text: str) -> list[Cell]:
    """Return all cells in the order of the table; ValueError where it is not whole."""
    rows = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    cells = [cell for row in rows for cell in cells_of(*row)]
    named = [(cell.kind, cell.who, cell.via) for cell in cells]
    wanted = {(kind, who, via) for kind in KINDS for who in USERS for via in VIAS}
    if len(named) != len(set(named)) or set(named) != wanted:
        odd = wanted.symmetric_difference(named) or "a row is there twice"
        raise ValueError(f"the table is not one row for each kind and user: {odd}")
    return cells


def cells_of(kind: str, who: str, *values: str) -> list[Cell]:
    """Return the cells of one row."""
    for value in values:
        if not all(VALUE.fullmatch(one) for one in value.split(EITHER)):
            raise ValueError(f"{kind} {who}: {value!r} can be expected of no cell")
    users = USERS if who == EVERYBODY else (who,)
    return [
        Cell(kind, user, via, value)
        for user in users
        for via, value in zip(VIAS, values, strict=True)
    ]


def load() -> list[Cell]:
    """Return the cells of the committed table."""
    return read(EXPECTED.read_text())
