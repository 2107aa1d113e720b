"""A program that has mapped more, before main(), than there is memory: not to be locked whole.

Sanitizers do: terabytes of shadow, of which they touch little. mlockall(MCL_CURRENT) would take a
page for each, until the kernel kills this program, or another one. Imported where the size of all
that is mapped is above what there is; what of it the lock would take is looked at here.
"""

from __future__ import annotations

from rtlaunch.core.findings import Finding
from rtlaunch.core.proc import parse_maps
from rtlaunch.core.units import format_size
from rtlaunch.linux import proc

OWN_PAGES = ("rw-p", "rwxp")  # of the others, the lock finds what is there, or one page of zeros


def findings(pid: int, room: int) -> tuple[Finding, ...]:
    """Find more private writable memory than ``room`` bytes; nothing where it cannot be seen."""
    try:
        mappings = parse_maps(proc.read_text(pid, "maps"))
        name = proc.read_text(pid, "comm").rstrip("\n")
    except OSError:
        return ()
    sizes = [each.end - each.start for each in mappings if each.perms in OWN_PAGES]
    taken = sum(sizes)
    return (too_large(name, taken, max(sizes), room),) if taken > room else ()


def too_large(name: str, taken: int, largest: int, room: int) -> Finding:
    """Return the finding for a program that the lock would make larger than what there is."""
    return Finding(
        "memory-budget",
        f"{name} has mapped {format_size(taken)} before main(), of which the lock would take every "
        f"page (one mapping has {format_size(largest)}); {format_size(room)} can be had",
        why="a program that maps more than it touches, as those with a sanitizer do; when memory "
        "is out, the kernel kills some program",
        values={"needed_bytes": taken, "available_bytes": room, "untouched": largest},
    )
