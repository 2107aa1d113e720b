"""The ledger of huge page leases: who was promised what, and what the pools were before.

One line of text for each entry, so that it costs no import to read, a person can
read it too, and a file that was cut short still gives all lines before the cut.

It must not decide how pools change (:mod:`rtlaunch.core.hugepages` does) and knows
no files (:mod:`rtlaunch.linux.state`).
"""

from __future__ import annotations

from rtlaunch.core.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

FORMAT = "rtlaunch.hugepages/1"
END = "end"
NOTHING = "-"


class Process(Record):
    """A process that no other can be taken for, within one boot.

    ``start`` is field 22 of /proc/PID/stat, ``namespace`` the inode of its pid namespace.
    """

    pid: int
    start: int
    namespace: int


class Lease(Record):
    """A promise of ``count`` pages of ``page_bytes``, on ``node`` or, None, anywhere.

    ``claimed`` is the most of them that the target was seen to have at one time: that part of
    the promise is kept. ``target`` is None until it was told to go.
    """

    page_bytes: int
    node: int | None
    count: int
    launcher: Process
    uid: int
    claimed: int = 0
    target: Process | None = None

    @property
    def unclaimed(self) -> int:
        """The pages that are still owed."""
        return max(0, self.count - self.claimed)


class Mark(Record):
    """A number of the kernel's that the administrator sets and we change.

    ``base`` is what the administrator set last, ``reserved`` what of it is from ``hugepages
    reserve``; ``written`` what we left there, ``intent`` what we were about to write (the same
    where nothing was begun). For a pool the number counts the pages of one node without surplus.
    """

    page_bytes: int
    node: int | None
    base: int
    written: int
    intent: int
    reserved: int = 0


class Stamp(Record):
    """When a file that sets a pool was last opened for writing by others.

    ``scope`` is ``all``, or the number of a node. Opening with O_TRUNC, as a shell and sysctl(8)
    do, sets the time; we never do. Another ``inode`` is another file: nothing is known then.
    """

    page_bytes: int
    scope: str
    file: str
    inode: int
    time_ns: int


class Ledger(Record):
    """All of it, of one boot. ``nets`` are the marks of nr_overcommit_hugepages."""

    boot_id: str
    pools: tuple[Mark, ...] = ()
    nets: tuple[Mark, ...] = ()
    stamps: tuple[Stamp, ...] = ()
    leases: tuple[Lease, ...] = ()


# --- writing -------------------------------------------------------------------------------------


def _word(value: int | None) -> int | str:
    return NOTHING if value is None else value


def _process(process: Process | None) -> str:
    if process is None:
        return f"{NOTHING} {NOTHING} {NOTHING}"
    return f"{process.pid} {process.start} {process.namespace}"


def _lease(lease: Lease) -> str:
    return (
        f"lease {lease.page_bytes} {_word(lease.node)} {lease.count} {lease.claimed} {lease.uid} "
        f"{_process(lease.launcher)} {_process(lease.target)}"
    )


def _mark(kind: str, mark: Mark) -> str:
    return (
        f"{kind} {mark.page_bytes} {_word(mark.node)} {mark.base} {mark.written} {mark.intent} "
        f"{mark.reserved}"
    )


def _stamp(stamp: Stamp) -> str:
    return f"file {stamp.page_bytes} {stamp.scope} {stamp.inode} {stamp.time_ns} {stamp.file}"


def write(ledger: Ledger) -> str:
    """Return the text of a ledger; what the pools were stands first."""
    lines = [
        f"{FORMAT} {ledger.boot_id}",
        *(_mark("pool", mark) for mark in ledger.pools),
        *(_mark("net", mark) for mark in ledger.nets),
        *map(_lease, ledger.leases),
        *map(_stamp, ledger.stamps),
    ]
    return "\n".join([*lines, f"{END} {len(lines)}", ""])


# --- reading -------------------------------------------------------------------------------------


def _maybe(word: str) -> int | None:
    return None if word == NOTHING else int(word)


def _read_process(words: Sequence[str]) -> Process | None:
    return None if words[0] == NOTHING else Process(*map(int, words))


def _read_mark(words: Sequence[str]) -> Mark:
    size, node, base, written, intent, reserved = words
    return Mark(int(size), _maybe(node), int(base), int(written), int(intent), int(reserved))


def _read_lease(words: Sequence[str]) -> Lease:
    size, node, count, claimed, uid = words[:5]
    launcher, target = _read_process(words[5:8]), _read_process(words[8:11])
    if launcher is None:
        raise ValueError("a lease of nobody's")
    numbers = int(size), _maybe(node), int(count)
    return Lease(*numbers, launcher, int(uid), int(claimed), target)


def _read_stamp(words: Sequence[str]) -> Stamp:
    size, scope, inode, time_ns, file = words
    return Stamp(int(size), scope, file, int(inode), int(time_ns))


_READERS: dict[str, tuple[int, Callable[[Sequence[str]], Any]]] = {
    "pool": (6, _read_mark),
    "net": (6, _read_mark),
    "lease": (11, _read_lease),
    "file": (5, _read_stamp),
}


def read(text: str, boot_id: str) -> tuple[Ledger, bool]:
    """Return the ledger that ``text`` holds, and whether it is whole.

    One of an earlier boot is empty: pools and processes are gone with it. Of a damaged one every
    line counts that is readable.
    """
    head, *lines = text.split("\n")
    if head.split(" ") != [FORMAT, boot_id]:
        return Ledger(boot_id), not text or (bool(lines) and _is_of_another_boot(head))
    found: dict[str, list[Any]] = {kind: [] for kind in _READERS}
    whole = lines[-2:] == [f"{END} {len(lines) - 1}", ""]
    for line in lines[:-2] if whole else lines:
        whole &= _read_line(line, found)
    return Ledger(
        boot_id,
        pools=tuple(found["pool"]),
        nets=tuple(found["net"]),
        stamps=tuple(found["file"]),
        leases=tuple(found["lease"]),
    ), whole


def _is_of_another_boot(head: str) -> bool:
    words = head.split(" ")
    return len(words) == 2 and words[0] == FORMAT


def _read_line(line: str, found: dict[str, list[Any]]) -> bool:
    """Add what one line says; return whether it says anything."""
    kind, *words = line.split(" ")
    fields, reader = _READERS.get(kind, (0, None))
    if reader is None or len(words) != fields:
        return False
    try:
        found[kind].append(reader(words))
    except ValueError:
        return False
    return True


def of_size(records: Iterable[Any], page_bytes: int) -> tuple[Any, ...]:
    """Return those records of a ledger that are about one size of pages."""
    return tuple(record for record in records if record.page_bytes == page_bytes)
