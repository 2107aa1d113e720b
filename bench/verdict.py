"""What a measurement says: one line of the table, held against its budget or shown for information.

Pure: it decides and formats, and measures nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

OVER = "OVER BUDGET"
FAILED = "NOT MEASURED"


class BenchError(Exception):
    """A measurement could not be taken; the text says why."""


@dataclass(frozen=True)
class Row:
    """One line: ``measured`` in ``unit``, at most ``budget``; no budget is information only.

    ``measured`` is None for what could not be measured; ``note`` says why.
    """

    what: str
    measured: float | None
    budget: float | None = None
    unit: str = ""
    note: str = ""

    @property
    def verdict(self) -> str:
        """Say whether the budget is kept."""
        if self.measured is None:
            return FAILED
        if self.budget is None:
            return ""
        return "ok" if self.measured <= self.budget else OVER

    @property
    def broken(self) -> bool:
        """Whether the run fails for it: over budget, or not to be had."""
        return self.verdict in (OVER, FAILED)

    def cells(self) -> tuple[str, str, str, str, str]:
        """Format the line: what, budget, measured, verdict, note."""
        budget = "" if self.budget is None else f"<= {_number(self.budget)}{self.unit}"
        measured = "-" if self.measured is None else f"{_number(self.measured)}{self.unit}"
        return self.what, budget, measured, self.verdict, self.note


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() and value != 1 else f"{value:,.3f}"


def table(rows: Sequence[Row]) -> str:
    """Lay all rows out in columns."""
    lines = [("what", "budget", "measured", "verdict", ""), *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), line[1].rjust(widths[1]), line[2].rjust(widths[2]),
                   line[3].ljust(widths[3]), line[4]]).rstrip()
        for line in lines
    )  # fmt: skip
