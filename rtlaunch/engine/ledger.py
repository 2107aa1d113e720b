"""The ledger and the pools while the lock is held: everything that changes them goes through here.

Whatever is about to be written to a pool is written down first, so that a launcher that is
killed at any instant leaves a ledger from which the next one knows what was its doing and what
the administrator's (docs/decisions/0020). It decides nothing: :mod:`rtlaunch.core.hugepages` does.
"""

from __future__ import annotations

import os
import time

from rtlaunch.core import hugepages as deciding
from rtlaunch.core import ledger as texts
from rtlaunch.core.ledger import Lease, Mark, Process, of_size
from rtlaunch.core.record import replace
from rtlaunch.engine import claims
from rtlaunch.linux import hugepages as pools
from rtlaunch.linux import processes, state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Self

    from rtlaunch.core.hugepages import Size, Write
    from rtlaunch.core.ledger import Ledger

FILE, LOCK, DAMAGED = "hugepages", "hugepages.lock", "hugepages.damaged"
ROOTS_OWN = "/run/rtlaunch"

GROWTH_TRIES = 200  # an administrator who shrinks the pool meanwhile takes some of them
STALLED_TRIES = 3  # without a page more, each but the first after a compaction
SHRINK_TRIES = 8

# How long an open file of the pool may take to be written to, by whoever has just opened it.
OPENED_NS = 2_000_000
OVERLAPPED_NS = 20_000_000
PAUSE_S = 0.001


class Short(Exception):
    """A pool that cannot give what is promised; ``missing`` pages lack."""

    def __init__(self, size: Size, missing: int, error: str) -> None:
        super().__init__(error)
        self.size = size
        self.missing = missing
        self.error = error


def peek(folder: str, owner: int) -> Ledger:
    """Read a ledger without the lock, as a whole file was put there last; empty if there is none.

    UnsafeError if it is not safe to read.
    """
    try:
        directory = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return texts.Ledger(processes.boot_id())
    try:
        state.check(os.fstat(directory), owner)
        return texts.read(state.read(directory, FILE, owner), processes.boot_id())[0]
    finally:
        os.close(directory)


def of_root() -> tuple[Lease, ...]:
    """Return what root's ledger keeps from other users: leases, and pages that will go again."""
    try:
        ledger = peek(ROOTS_OWN, 0)
    except (OSError, state.UnsafeError):
        return ()
    lent = tuple(
        Lease(mark.page_bytes, mark.node, mark.written - mark.base, deciding.NOBODY, 0)
        for mark in ledger.pools
        if mark.written > mark.base
    )
    return (*ledger.leases, *lent)


class Books:
    """The ledger of a state directory, locked; to be used by ``with``.

    UnsafeError or OSError where the directory cannot be used.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.boot_id = processes.boot_id()
        self.namespace = processes.namespace()
        self.nodes = pools.nodes()
        self.foreign = of_root() if os.geteuid() != 0 else ()
        self.damaged = False
        self.foreign_writes = 0
        self.files: dict[int, list[tuple[str, str]]] = {}

    def __enter__(self) -> Self:
        self.directory = state.open_directory(self.folder, make=True)
        try:
            self.lock = state.lock(self.directory, LOCK)
        except BaseException:
            os.close(self.directory)
            raise
        try:
            self.load()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *why: object) -> None:
        os.close(self.lock)
        os.close(self.directory)

    def load(self) -> None:
        """Read the ledger; a damaged one is kept under another name for who wants to know."""
        self.saved = state.read(self.directory, FILE, os.geteuid())
        self.ledger, whole = texts.read(self.saved, self.boot_id)
        self.saved_nets = self.ledger.nets
        if not whole:
            self.damaged = True
            state.rename(self.directory, FILE, DAMAGED)
            self.saved = ""

    def save(self) -> None:
        """Write the ledger, if it has changed."""
        text = texts.write(self.ledger)
        if text != self.saved:
            state.write(self.directory, FILE, text)
            self.saved, self.saved_nets = text, self.ledger.nets

    # ---- leases

    def leases(self, page_bytes: int) -> tuple[Lease, ...]:
        """Return all leases of one size that bind us."""
        return of_size((*self.ledger.leases, *self.foreign), page_bytes)

    def sizes(self) -> tuple[int, ...]:
        """Return the sizes that the ledger knows of and the machine has."""
        known = {lease.page_bytes for lease in self.ledger.leases}
        known |= {mark.page_bytes for mark in (*self.ledger.pools, *self.ledger.nets)}
        return tuple(sorted(known & set(pools.page_sizes())))

    def bury(self, strictly: bool) -> tuple[Lease, ...]:
        """Strike out the leases of killed launchers and return them.

        While its target lives a promise is kept, but ``strictly``: then it ends with the launcher.
        """
        dead = tuple(
            lease
            for lease in self.ledger.leases
            if not processes.is_alive(lease.launcher, self.namespace)
            and (strictly or not processes.is_alive(lease.target, self.namespace))
        )
        self.strike(dead)
        return dead

    def strike(self, ended: Sequence[Lease]) -> None:
        """Take leases out of the ledger."""
        them = {id(lease) for lease in ended}
        kept = tuple(lease for lease in self.ledger.leases if id(lease) not in them)
        self.ledger = replace(self.ledger, leases=kept)

    def enter(self, leases: Sequence[Lease]) -> None:
        """Put leases into the ledger."""
        self.ledger = replace(self.ledger, leases=(*self.ledger.leases, *leases))

    def exchange(self, old: Sequence[Lease], new: Sequence[Lease]) -> None:
        """Put ``new`` leases in the place of ``old`` ones."""
        self.strike(old)
        self.enter(new)

    def note_claims(self, size: Size) -> None:
        """Look how much of their leases the targets have by now, if that can be more than we know.

        It cannot, where no more pages are in use than are known to be claimed.
        """
        page_bytes = size.page_bytes
        leases = of_size(self.ledger.leases, page_bytes)
        if size.nr - size.free <= sum(lease.claimed for lease in leases):
            return
        by_target: dict[Process, list[Lease]] = {}
        for lease in leases:
            if lease.target and lease.unclaimed and lease.target.namespace == self.namespace:
                by_target.setdefault(lease.target, []).append(lease)
        for target, lent in by_target.items():
            if processes.is_alive(target, self.namespace):
                self.exchange(lent, claims.claimed(target.pid, lent, self.nodes))

    # ---- pools

    def marks(self, page_bytes: int) -> tuple[Mark, ...]:
        """Return the marks of the pools of one size."""
        return of_size(self.ledger.pools, page_bytes)

    def set_marks(self, page_bytes: int, marks: Sequence[Mark]) -> None:
        """Put the marks of one size into the ledger."""
        others = tuple(mark for mark in self.ledger.pools if mark.page_bytes != page_bytes)
        self.ledger = replace(self.ledger, pools=(*others, *marks))

    def observe(self, page_bytes: int, expected: int | None = None) -> Size:
        """Read the pools of one size, and take over what the administrator has set since.

        ``expected`` is the sum that a write of ours should have made just now. Opening a file and
        writing to it are two steps of the administrator's: where only the first has been seen,
        the second is waited for.
        """
        size = pools.read_size(page_bytes, self.nodes)
        before = of_size(self.ledger.stamps, page_bytes)
        if not before:
            pools.keep_times(self.files_of(page_bytes))
        stamps = pools.read_stamps(page_bytes, self.files_of(page_bytes))
        scopes = deciding.overwritten(before, stamps)
        if scopes:
            size = self.wait_for_write(size, OPENED_NS if expected is None else OVERLAPPED_NS)
            if size.persistent == expected:
                scopes = frozenset()  # it came before ours and is lost, or will come yet
        marks = self.marks(page_bytes)
        self.foreign_writes += bool(scopes or deciding.changed(marks, size))
        self.set_marks(page_bytes, deciding.settled(marks, size, scopes))
        others = tuple(stamp for stamp in self.ledger.stamps if stamp.page_bytes != page_bytes)
        self.ledger = replace(self.ledger, stamps=(*others, *stamps))
        return size

    def files_of(self, page_bytes: int) -> list[tuple[str, str]]:
        """Return the files that set the pools of one size."""
        if page_bytes not in self.files:
            known = of_size(self.ledger.stamps, page_bytes)
            stamped = [(stamp.scope, stamp.file) for stamp in known]
            self.files[page_bytes] = stamped or pools.files(page_bytes, self.nodes)
        return self.files[page_bytes]

    def wait_for_write(self, size: Size, patience_ns: int) -> Size:
        """Read a pool until it changes, for a short time."""
        deadline = time.monotonic_ns() + patience_ns
        now = size
        while now.persistent == size.persistent and time.monotonic_ns() < deadline:
            time.sleep(PAUSE_S)
            now = pools.read_size(size.page_bytes, self.nodes)
        return now

    def put(self, size: Size, write: Write) -> Size:
        """Write to a pool, unless it has changed since ``size`` was read; return how it is then."""
        page_bytes = size.page_bytes
        marks = self.marks(page_bytes)
        self.set_marks(page_bytes, deciding.intending(marks, size, write))
        self.save()
        now = pools.read_persistent(page_bytes, self.nodes)
        if now != tuple(node.persistent for node in size.nodes):
            self.set_marks(page_bytes, marks)
            self.foreign_writes += 1
            return self.observe(page_bytes)
        pools.write_nr(page_bytes, write.node, write.value)
        old = size if write.node is None else deciding.node_of(size, write.node)
        return self.observe(page_bytes, size.persistent + write.value - old.persistent)

    def bases(self, page_bytes: int) -> dict[int | None, int]:
        """Return what the administrator set, by node."""
        return {mark.node: mark.base for mark in self.marks(page_bytes)}

    def provide(self, page_bytes: int) -> None:
        """See to it that every promise is kept, and that nothing is held for nobody.

        Raises Short if that cannot be; the caller takes back what he entered, and shrinks.
        """
        if pools.may_write(page_bytes):
            self.shrink(self.grow(page_bytes))
            return
        self.note_claims(pools.read_size(page_bytes, self.nodes))
        size = pools.read_size(page_bytes, self.nodes)
        missing = sum(pages for _, pages in deciding.missing(size, self.leases(page_bytes)))
        if missing:
            raise Short(size, missing, "")

    def reduce(self, sizes: Iterable[int]) -> None:
        """Give back what nobody needs any more of these sizes, where we may, and write it down."""
        for page_bytes in sizes:
            if pools.may_write(page_bytes):
                self.shrink(self.observe(page_bytes))
        self.tidy()
        self.save()

    def grow(self, page_bytes: int) -> Size:
        """Grow the pool until every promise is kept, and return it.

        Raises Short if it does not grow enough, also after compaction.
        """
        size = self.observe(page_bytes)
        if deciding.missing(size, self.leases(page_bytes)):
            known = self.ledger.leases
            self.note_claims(size)
            size = size if self.ledger.leases is known else self.observe(page_bytes)
        self.weave_net(size)
        stalled, error = 0, ""
        for _ in range(GROWTH_TRIES):
            lacking = deciding.missing(size, self.leases(page_bytes))
            if not lacking or stalled == STALLED_TRIES:
                break
            before, writes = size, self.foreign_writes
            try:
                size = self.put(size, deciding.growth(size, lacking))
            except OSError as failed:
                error, stalled = failed.strerror or str(failed), STALLED_TRIES
                continue
            if size.nr <= before.nr and self.foreign_writes == writes:
                stalled += 1
                compact()
        missing = sum(pages for _, pages in deciding.missing(size, self.leases(page_bytes)))
        if missing:
            raise Short(size, missing, error)
        return size

    def shrink(self, size: Size) -> None:
        """Give back what nobody needs any more of pools as just observed, and set the net."""
        page_bytes = size.page_bytes
        self.weave_net(size)
        for _ in range(SHRINK_TRIES):
            bases = self.bases(page_bytes)
            writes = deciding.shrinking(size, self.leases(page_bytes), bases)
            if not writes:
                break
            size = self.put(size, writes[0])
        self.spread_net(page_bytes)

    def weave_net(self, size: Size) -> None:
        """Note what nr_overcommit_hugepages shall be; it is saved with the next write to a pool."""
        page_bytes, now = size.page_bytes, size.overcommit
        mark = self.net(page_bytes)
        base = mark.base if mark and now in (mark.written, mark.intent) else now
        value = deciding.net(size, self.leases(page_bytes), base)
        self.set_net(Mark(page_bytes, None, base, now, value))

    def spread_net(self, page_bytes: int) -> None:
        """Set nr_overcommit_hugepages as noted; pages that cannot be made so have no net."""
        mark = self.net(page_bytes)
        if mark is None or mark.intent == mark.written:
            return
        if mark not in self.saved_nets:
            self.save()
        value = mark.intent
        try:
            pools.write_overcommit(page_bytes, value)
        except OSError:  # EINVAL: none at run time
            value = mark.written
        self.set_net(replace(mark, written=value, intent=value))

    def net(self, page_bytes: int) -> Mark | None:
        """Return the mark of nr_overcommit_hugepages for one size."""
        return next(iter(of_size(self.ledger.nets, page_bytes)), None)

    def set_net(self, mark: Mark) -> None:
        """Put a mark of nr_overcommit_hugepages into the ledger."""
        others = tuple(net for net in self.ledger.nets if net.page_bytes != mark.page_bytes)
        self.ledger = replace(self.ledger, nets=(*others, mark))

    def tidy(self) -> None:
        """Forget a size that nobody leases and that is as the administrator set it."""
        for page_bytes in self.sizes():
            marks = (*self.marks(page_bytes), *of_size(self.ledger.nets, page_bytes))
            ours = any(mark.base != mark.written or mark.reserved for mark in marks)
            if not ours and not of_size(self.ledger.leases, page_bytes):
                self.forget(page_bytes)

    def forget(self, page_bytes: int) -> None:
        """Take one size out of the ledger."""
        kept: dict[str, object] = {}
        for name in ("pools", "nets", "stamps"):
            parts = getattr(self.ledger, name)
            kept[name] = tuple(part for part in parts if part.page_bytes != page_bytes)
        self.ledger = replace(self.ledger, **kept)


def compact() -> None:
    """Compact memory where we may."""
    try:
        pools.compact_memory()
    except OSError:
        return
