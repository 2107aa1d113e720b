"""`make matrix`: try every cell, show what was expected and what was found; 1 if they differ."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from tests import launching
from tests.matrix import table
from tests.matrix.cells import Made, faults_without, found, make
from tests.matrix.kinds import KINDS

LINE = "{:<13} {:<8} {:<8} {:<38} {:<30} {}"


def folder_in(base: Path, name: str) -> Path:
    """Make a folder that every user can reach."""
    made = base / name
    made.mkdir(mode=0o755)
    return made


class Matrix:
    """All cells, tried one after the other."""

    def __init__(self, base: Path, entry: Path) -> None:
        self.base = base
        self.launchers = {
            who: launching.Launcher(entry, folder_in(base, f"as-{who}"), who)
            for who in launching.USERS
        }
        self.made: dict[str, Made] = {}
        self.wrong = 0

    def of_kind(self, name: str) -> Made:
        """Return the program of a kind; the first time make it, and show that it can be hurt."""
        if name not in self.made:
            self.made[name] = make(KINDS[name], self.base / name)
            faults = faults_without(self.made[name], self.base)
            self.wrong += not faults
            harm = f"{faults} major faults" if faults else "UNHARMED, which is wrong"
            print(f"\n{KINDS[name].what}; attacked without rtlaunch: {harm}", flush=True)
        return self.made[name]

    def try_cell(self, cell: table.Cell) -> None:
        """Try one cell and print its line."""
        what = found(self.of_kind(cell.kind), self.launchers[cell.who], cell.via)
        differs = not cell.accepts(what)
        self.wrong += differs
        sign = "<-- DIFFERS" if differs else ""
        words = (cell.kind, cell.who, cell.via, cell.expected, what, sign)
        print(LINE.format(*words).rstrip(), flush=True)


def main() -> int:
    if os.geteuid() != 0:
        print("make matrix needs root: it runs programs as other users, and attacks them")
        return 1
    public = launching.public_copy()
    base = Path(tempfile.mkdtemp(prefix="rtlaunch-matrix-"))
    base.chmod(0o755)
    try:
        matrix = Matrix(base, public / "bin" / "rtlaunch")
        print(LINE.format("kind", "who", "via", "expected", "found", "").rstrip())
        cells = table.load()
        for cell in cells:
            matrix.try_cell(cell)
    finally:
        shutil.rmtree(base)
        shutil.rmtree(public)
    print(f"\n{len(cells)} cells, {matrix.wrong} not as expected")
    return 1 if matrix.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
