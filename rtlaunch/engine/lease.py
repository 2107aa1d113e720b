"""The lease of huge pages of one launch: taken before the fork, confirmed at ``go``, given back.

What a lease means is docs/decisions/0020; the books that it is entered in are
:mod:`rtlaunch.engine.ledger`. Imported only where a lease was asked for.
"""

from __future__ import annotations

import _signal
import os

from rtlaunch.core import hugefindings
from rtlaunch.core import hugepages as deciding
from rtlaunch.core.findings import Finding, Refusal
from rtlaunch.core.hugepages import HugeFacts
from rtlaunch.core.ledger import Process, of_size
from rtlaunch.core.outcome import HugeLease
from rtlaunch.core.preflight import waive
from rtlaunch.core.record import replace
from rtlaunch.engine import inherit, ledger, shims
from rtlaunch.engine.ledger import Books, Short
from rtlaunch.linux import hugepages as pools
from rtlaunch.linux import processes, state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from rtlaunch.core.ledger import Lease
    from rtlaunch.core.options import HugePages, Options
    from rtlaunch.core.outcome import Outcome
    from rtlaunch.engine.listener import Listener

# Waived, these mean that there is no lease of that size: nothing is tried.
HOPELESS = frozenset(("hugepages-unavailable", "hugepages-denied"))

ENDING = frozenset((_signal.SIGINT, _signal.SIGQUIT))


def look(asked: Sequence[HugePages], environ: Mapping[str, str]) -> HugeFacts:
    """Read all that a lease is decided on; nothing is made or changed."""
    folder = shims.state_directory(environ)
    unsafe, promised = look_into(folder)
    memory = pools.meminfo()
    nodes = pools.nodes()
    sizes = tuple(pools.read_size(size, nodes) for size in pools.page_sizes())
    wanted = {each.page_bytes for each in asked}
    return HugeFacts(
        sizes=sizes,
        promised=promised if os.geteuid() == 0 else (*promised, *ledger.of_root()),
        rooms=tuple(room for size in sizes for room in pools.cgroup_rooms(size.page_bytes)),
        may_grow=all(pools.may_write(size) for size in wanted),
        memory_bytes=memory["MemTotal"],
        available_bytes=memory.get("MemAvailable", memory["MemFree"]),
        state_directory=folder,
        unsafe=unsafe,
    )


def look_into(folder: str) -> tuple[str, tuple[Lease, ...]]:
    """Return what is wrong with the state directory, "" if nothing is, and the leases of others.

    One that is not there yet is fine, if it can be made.
    """
    try:
        os.close(state.open_directory(folder, make=False))
    except FileNotFoundError:
        return unmakable(folder), ()
    except (OSError, state.UnsafeError) as error:
        return reason(error), ()
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        return f"uid {os.geteuid()} may not write to it", ()
    try:
        here = processes.namespace()
        leases = ledger.peek(folder, os.geteuid()).leases
    except (OSError, state.UnsafeError) as error:
        return reason(error), ()
    return "", tuple(
        lease
        for lease in leases
        if processes.is_alive(lease.launcher, here) or processes.is_alive(lease.target, here)
    )


def unmakable(folder: str) -> str:
    """Return why the state directory cannot be made, "" if it can."""
    above = os.path.dirname(os.path.abspath(folder))
    while not os.path.lexists(above):
        above = os.path.dirname(above)
    if os.access(above, os.W_OK | os.X_OK, effective_ids=True):
        return ""
    return f"it is not there, and uid {os.geteuid()} may not make it in {above}"


def reason(error: Exception) -> str:
    """Return why the state directory cannot be used."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


class Held:
    """What one launch leases; without a ledger, as was allowed, only what is free already."""

    def __init__(
        self, options: Options, huge: HugeFacts, found: Sequence[Finding], listener: Listener
    ) -> None:
        self.options = options
        self.listener = listener
        self.folder = "" if huge.unsafe else huge.state_directory
        hopeless = {each.values["page_bytes"] for each in found if each.code in HOPELESS}
        self.asked = options.hugepages
        self.wanted = tuple(each for each in self.asked if each.page_bytes not in hopeless)
        self.launcher: Process | None = None
        self.findings: list[Finding] = []
        self.rows = tuple(
            HugeLease(page_bytes=each.page_bytes, node=each.node, asked=each.count, got=0)
            for each in self.asked
        )

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes that are leased, in bytes."""
        return tuple(sorted({each.page_bytes for each in self.wanted}))

    def mine(self, books: Books) -> tuple[Lease, ...]:
        """Return our leases in the ledger."""
        return tuple(each for each in books.ledger.leases if each.launcher == self.launcher)

    # ---- take

    def take(self) -> None:
        """Lease what was asked for, all of it or nothing; Refusal with the finding."""
        if not self.wanted or not self.folder:
            return
        self.launcher = processes.identify(os.getpid())
        try:
            with Books(self.folder) as books:
                inherit.block_signals()  # what is begun is brought to an end
                self.note_damage(books)
                self.enter(books)
        except (OSError, state.UnsafeError) as error:
            self.weigh(unusable(self.folder, error))
            self.folder = ""

    def enter(self, books: Books) -> None:
        """Write our leases down, then see to the pages; undo both where those cannot be had."""
        assert self.launcher is not None
        books.bury(strictly=False)
        uid = os.getuid()
        books.enter([deciding.as_lease(each, self.launcher, uid) for each in self.wanted])
        try:
            for page_bytes in self.sizes:
                books.provide(page_bytes)
            books.reduce(set(books.sizes()) - set(self.sizes))
        except Short as short:
            finding = self.undo(books, short)
            self.weigh(finding)
        except OSError:
            books.strike(self.mine(books))
            books.reduce(self.sizes)
            raise

    def undo(self, books: Books, short: Short) -> Finding:
        """Take our leases back, all of them; return the finding for the one that lacked."""
        mine = self.mine(books)
        books.strike(mine)
        others = books.leases(short.size.page_bytes)
        books.reduce(self.sizes)
        lacked = of_size(mine, short.size.page_bytes)
        self.wanted = ()
        if not pools.may_write(short.size.page_bytes):
            return hugefindings.denied(short.size, lacked, others)
        whole = sum(lease.count for lease in lacked)
        got = max(0, whole - short.missing)
        now = pools.read_size(short.size.page_bytes, books.nodes)
        return hugefindings.short(now, lacked, others, got, short.error)

    def yield_to_keys(self, blocked: Collection[int]) -> None:
        """Let a key that was pressed meanwhile end us, as it would have, with nothing left behind.

        Signals were blocked when the first page was touched; ``blocked`` are those that were so
        when we were started.
        """
        waiting = _signal.sigpending() & ENDING
        if any(not inherit.is_ignored(number) for number in waiting - set(blocked)):
            self.give_back()
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, inherit.KEYS - set(blocked))

    # ---- go

    def confirm(self, pid: int) -> Finding | None:
        """See to it, and write down, that at this moment the promise holds; say what ends it.

        From now on the lease is the target's: what that one touches is no longer owed.
        """
        try:
            if self.folder and self.wanted:
                with Books(self.folder) as books:
                    return self.promise(books, pid)
            self.count_free()
        except (OSError, state.UnsafeError) as error:
            return waive(unusable(self.folder, error), self.options)
        return None

    def promise(self, books: Books, pid: int) -> Finding | None:
        """Name the target in our leases, and take the pages again that somebody else took."""
        mine = self.mine(books)
        target = processes.identify(pid)
        books.exchange(mine, [replace(lease, target=target) for lease in mine])
        try:
            for page_bytes in self.sizes:
                books.provide(page_bytes)
        except Short as short:
            return waive(self.undo(books, short), self.options)
        books.save()
        for row in self.rows:
            row.got = row.asked if row.page_bytes in self.sizes else 0
        return None

    def count_free(self) -> None:
        """Note how much is there for a program that runs without a lease, as was allowed."""
        nodes = pools.nodes()
        known = pools.page_sizes()
        for row in self.rows:
            if row.page_bytes in known and row.asked:
                size = pools.read_size(row.page_bytes or 0, nodes)
                row.got = min(row.asked, max(0, deciding.usable(size, (), row.node)))

    # ---- the end

    def give_back(self) -> None:
        """Give all of it back; what goes wrong is said, and costs the target nothing."""
        if self.launcher is None or not self.folder:
            return
        try:
            with Books(self.folder) as books:
                mine = self.mine(books)
                books.strike(mine)
                books.reduce({lease.page_bytes for lease in mine})
        except (OSError, state.UnsafeError) as error:
            self.tell(
                Finding(
                    "hugepages-kept",
                    f"the lease of huge pages could not be given back: {reason(error)}",
                    why="the pool stays larger until somebody does",
                    values={"path": self.folder},
                )
            )
            return
        for row in self.rows:
            row.released = row.got

    # ---- saying

    def weigh(self, finding: Finding) -> None:
        """Refuse, or say what was allowed."""
        weighed = waive(finding, self.options)
        if weighed.refuses:
            raise Refusal(weighed)
        self.tell(weighed)

    def tell(self, finding: Finding) -> None:
        """Say a finding that does not end the launch, and keep it for the report."""
        self.findings.append(finding)
        self.listener.finding(finding)

    def note_damage(self, books: Books) -> None:
        """Say that the ledger was not whole."""
        if books.damaged:
            self.tell(damaged(self.folder))


def damaged(folder: str) -> Finding:
    """Return the finding for a ledger that was not whole."""
    kept = os.path.join(folder, ledger.DAMAGED)
    return Finding(
        "ledger-damaged",
        f"the ledger of huge page leases in {folder} was not whole; what could be read of it "
        f"holds, and it is kept as {kept}",
        why="pages of leases that could not be read may be given to others, or stay in the pool",
        values={"path": folder, "kept": kept},
    )


def unusable(folder: str, error: Exception) -> Finding:
    """Return the finding for a state directory that cannot be used."""
    return Finding(
        "state-directory",
        f"the state directory {folder} cannot be used: {reason(error)}",
        why="leases are written down there, so that others respect them and a killed launcher's "
        "are given back",
        values={"path": folder},
    )


def take(
    options: Options,
    huge: HugeFacts,
    found: Sequence[Finding],
    listener: Listener,
    outcome: Outcome,
) -> Held:
    """Lease what ``options`` ask for; Refusal where that cannot be had."""
    held = Held(options, huge, found, listener)
    outcome.hugepages = held.rows
    held.take()
    return held
