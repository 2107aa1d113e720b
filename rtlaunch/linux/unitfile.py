"""Reading a unit's own file and its drop-ins, in the order in which the manager applies them."""

from __future__ import annotations

import os

from rtlaunch.core import unitfile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def texts(unit: str, folders: Sequence[str]) -> Iterator[str]:
    """Yield the texts that make up ``unit``; what cannot be read is left out."""
    for path in (*own_file(unit, folders), *drop_ins(unit, folders)):
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                yield file.read()
        except OSError:
            continue


def own_file(unit: str, folders: Sequence[str]) -> tuple[str, ...]:
    """Return the path of a unit's own file, if it has one: its own name before its template's."""
    for name in unitfile.fragments(unit):
        for folder in folders:
            path = f"{folder}/{name}"
            if os.path.lexists(path):
                return (path,)
    return ()


def drop_ins(unit: str, folders: Sequence[str]) -> list[str]:
    """Return the paths of drop-ins by name; of two of one name the first folder's counts."""
    found: dict[str, str] = {}
    for name in unitfile.drop_in_folders(unit):
        for folder in folders:
            try:
                names = os.listdir(f"{folder}/{name}")
            except OSError:
                continue
            for each in names:
                if each.endswith(".conf"):
                    found.setdefault(each, f"{folder}/{name}/{each}")
    return [found[name] for name in sorted(found)]
