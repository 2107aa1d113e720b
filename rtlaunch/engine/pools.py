"""What an administrator does to pools through us: list, reserve, release, gc.

As :mod:`rtlaunch.engine.lease`, everything that changes a pool goes through the books. What is
reserved counts as set by the administrator, and stays until it is released.
"""

from __future__ import annotations

import os

from rtlaunch.core import hugefindings
from rtlaunch.core import hugepages as deciding
from rtlaunch.core.findings import Refusal
from rtlaunch.core.ledger import NOTHING, of_size
from rtlaunch.core.record import Record, replace
from rtlaunch.engine import inherit, ledger, shims
from rtlaunch.engine.lease import look_into, reason, unusable
from rtlaunch.engine.ledger import Books
from rtlaunch.linux import hugepages as pools
from rtlaunch.linux import proc, processes, state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rtlaunch.core.hugepages import Size
    from rtlaunch.core.ledger import Lease, Ledger, Mark
    from rtlaunch.core.options import HugePages


class Shown(Record):
    """A lease as it is listed: ``lives`` tells whether its launcher does, ``name`` its target."""

    lease: Lease
    name: str
    lives: bool


class Listing(Record):
    """All pools, what the ledger knows of them, and the leases."""

    folder: str
    unsafe: str
    sizes: tuple[Size, ...]
    marks: tuple[Mark, ...]
    leases: tuple[Shown, ...]


def listing(environ: Mapping[str, str]) -> Listing:
    """Read pools and leases; nothing is changed."""
    folder = shims.state_directory(environ)
    unsafe, _ = look_into(folder)
    nodes = pools.nodes()
    sizes = tuple(pools.read_size(size, nodes) for size in pools.page_sizes())
    whole = [] if unsafe else [ledger.peek(folder, os.geteuid())]
    whole += roots()
    here = processes.namespace()
    leases = [lease for one in whole for lease in one.leases]
    shown = tuple(
        Shown(lease, name_of(lease), processes.is_alive(lease.launcher, here)) for lease in leases
    )
    return Listing(folder, unsafe, sizes, tuple(mark for one in whole for mark in one.pools), shown)


def roots() -> list[Ledger]:
    """Return root's ledger to other users, where it can be read."""
    try:
        return [ledger.peek(ledger.ROOTS_OWN, 0)] if os.geteuid() != 0 else []
    except (OSError, state.UnsafeError):
        return []


def name_of(lease: Lease) -> str:
    """Return what the target's process is called; "-" if it is gone or was not started yet."""
    if lease.target is None:
        return NOTHING
    try:
        return proc.read_text(lease.target.pid, "comm").rstrip("\n")
    except OSError:
        return NOTHING


def collect(environ: Mapping[str, str]) -> tuple[Lease, ...]:
    """Give back the leases of killed launchers and return them; Refusal ``state-directory``."""
    with open_books(environ) as books:
        ended = books.bury(strictly=True)
        books.reduce(books.sizes())
    return ended


def open_books(environ: Mapping[str, str]) -> Books:
    """Return the books of the state directory; Refusal where that cannot be used."""
    folder = shims.state_directory(environ)
    try:
        os.close(state.open_directory(folder, make=True))
        books = Books(folder)
    except (OSError, state.UnsafeError) as error:
        raise Refusal(unusable(folder, error)) from None
    inherit.block_signals()  # what is begun is brought to an end
    return books


def reserve(environ: Mapping[str, str], asked: Sequence[HugePages]) -> None:
    """Have so many pages reserved, beside what the administrator set; Refusal, with all undone.

    What is reserved already counts: a second call changes nothing.
    """
    known = {size: pools.read_size(size, pools.nodes()) for size in pools.page_sizes()}
    for each in asked:
        size = known.get(each.page_bytes)
        finding = hugefindings.unknown_size(each, known)
        if size:
            finding = hugefindings.unknown_node(each, size)
        if finding:
            raise Refusal(finding)
    with open_books(environ) as books:
        books.bury(strictly=False)
        done: list[tuple[HugePages, int]] = []
        try:
            for each in asked:
                done.append((each, reserved(books, each)))
                set_reserved(books, each)
        except Refusal:
            for each, before in done:
                lower(books, each, max(0, reserved(books, each) - before))
            books.reduce({each.page_bytes for each in asked})
            raise
        books.reduce({each.page_bytes for each in asked})


def reserved(books: Books, asked: HugePages) -> int:
    """Return how many pages are reserved of a size, on a node or, None, on all."""
    books.observe(asked.page_bytes)
    marks = books.marks(asked.page_bytes)
    return sum(mark.reserved for mark in marks if asked.node in (None, mark.node))


def set_reserved(books: Books, asked: HugePages) -> None:
    """Grow or lower the reservation to what was asked; Refusal where it does not grow so far."""
    more = asked.count - reserved(books, asked)
    if more < 0:
        lower(books, asked, -more)
    elif more:
        raise_base(books, asked, more)


def lower(books: Books, asked: HugePages, fewer: int) -> None:
    """Take pages out of the reservation; the pool shrinks when the books are reduced."""
    marks = []
    for mark in books.marks(asked.page_bytes):
        part = min(fewer, mark.reserved) if asked.node in (None, mark.node) else 0
        fewer -= part
        marks.append(replace(mark, base=mark.base - part, reserved=mark.reserved - part))
    books.set_marks(asked.page_bytes, marks)


def raise_base(books: Books, asked: HugePages, more: int) -> None:
    """Grow a pool by pages that are the administrator's; Refusal if it does not grow so far."""
    page_bytes = asked.page_bytes
    size = books.observe(page_bytes)
    wanted = (deciding.as_lease(replace(asked, count=more)),)
    refuse_what_cannot_be(size, wanted, more)
    for attempt in range(ledger.STALLED_TRIES):
        if attempt:
            ledger.compact()
        old = size if asked.node is None else deciding.node_of(size, asked.node)
        before = {mark.node: mark for mark in books.marks(page_bytes)}
        try:
            size = books.put(size, deciding.Write(asked.node, old.persistent + more))
        except OSError as error:
            raise Refusal(hugefindings.short(size, wanted, (), 0, reason(error))) from None
        more -= adopt(books, page_bytes, before)
        if more <= 0:
            return
    got = wanted[0].count - more
    raise Refusal(hugefindings.short(size, wanted, books.leases(page_bytes), got))


def refuse_what_cannot_be(size: Size, wanted: Sequence[Lease], more: int) -> None:
    """Refuse what memory cannot hold, or what is not ours to do, before the pool is touched."""
    available = pools.meminfo()["MemAvailable"]
    if not pools.may_write(size.page_bytes):
        raise Refusal(hugefindings.denied(size, wanted, ()))
    if more * size.page_bytes > available:
        raise Refusal(hugefindings.unavailable(size, wanted, (), available, "what is available"))


def adopt(books: Books, page_bytes: int, before: Mapping[int | None, Mark]) -> int:
    """Make the pages by which a pool grew the administrator's, and return how many they are.

    A pool that the administrator has set meanwhile is his already, and nothing of it reserved.
    """
    marks = []
    grown = 0
    for mark in books.marks(page_bytes):
        old = before[mark.node]
        part = max(0, mark.written - old.written) if mark.base == old.base else 0
        grown += part
        marks.append(replace(mark, base=mark.base + part, reserved=mark.reserved + part))
    books.set_marks(page_bytes, marks)
    return grown


def release(environ: Mapping[str, str], sizes: Iterable[int]) -> int:
    """Release what is reserved, of some sizes or, if there are none, of all; return the pages."""
    released = 0
    with open_books(environ) as books:
        for page_bytes in tuple(sizes) or books.sizes():
            books.observe(page_bytes)
            marks = books.marks(page_bytes)
            released += sum(mark.reserved for mark in marks)
            books.set_marks(
                page_bytes,
                [replace(mark, base=mark.base - mark.reserved, reserved=0) for mark in marks],
            )
        books.reduce(books.sizes())
    return released


def sized(marks: Sequence[Mark], size: Size, node: int | None) -> Mark | None:
    """Return the mark of one pool, None if the ledger knows nothing of it."""
    return next((mark for mark in of_size(marks, size.page_bytes) if mark.node == node), None)
