"""Talking with the shim of each image: entered, lock, record, proof, go.

Who is meant is judged here, by the sender's pid as the kernel gives it: the
target's images lock and are proven one after another, children as
``--children`` says. The judgement itself is :mod:`rtlaunch.core.proof`'s; here
the books are read, and the watch is armed before the word ``go``.
"""

from __future__ import annotations

import _socket
import os
import time
from errno import EMFILE

from rtlaunch.core import budget, proof, protocol
from rtlaunch.core import proc as books_of
from rtlaunch.core.caps import CapSets
from rtlaunch.core.findings import Finding
from rtlaunch.core.outcome import Image
from rtlaunch.core.preflight import waive
from rtlaunch.core.protocol import Message
from rtlaunch.engine import channel
from rtlaunch.linux import proc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Union

    from rtlaunch.core.facts import Facts
    from rtlaunch.core.options import Options
    from rtlaunch.core.outcome import Outcome
    from rtlaunch.engine.inject import Injection
    from rtlaunch.engine.listener import Listener
    from rtlaunch.engine.readiness import Readiness

    Speaker = Union["Conversation", Injection]  # noqa: UP007  (a name in quotes takes no |)

# The most that is said of helpers that could not lock; the count goes on.
CHILD_WARNINGS = 8


class Refused(Exception):
    """An image that must not run; carries the finding."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.what)
        self.finding = finding


class Conversation:
    """One image that announced itself: who it is, and the socket it is spoken to on.

    With ``--thread-stack``, ``stack_at_exec`` is the soft limit that it began with, and
    ``stack_restored`` the one that the shim was told to set, 0 for none.
    """

    __slots__ = (
        "entered_ns", "is_shared", "is_target", "kept", "notifying", "pid", "sock", "stack_at_exec",
        "stack_restored",
    )  # fmt: skip
    can_keep = True  # that socket, once it was told to go
    way = "preload"
    stays = False  # traced: where it is, it is by an injection of its own

    def __init__(self, sock: _socket.socket, pid: int, is_target: bool, entered_ns: int) -> None:
        self.sock = sock
        self.pid = pid
        self.is_target = is_target
        self.entered_ns = entered_ns
        self.kept = False
        self.is_shared = False  # whether that socket is the channel, which others hear too
        self.notifying = False  # told to say READY=1, and not yet heard of
        self.stack_at_exec: int | None = None
        self.stack_restored = 0

    def say(self, message: Message) -> None:
        """Send it one message."""
        channel.tell(self.sock, message)

    def notify(self, ready: _socket.socket) -> Message | None:
        """Have its shim say READY=1 on ``ready``; None where it will answer."""
        if self.is_shared:  # it has no descriptor left to take one
            return Message(protocol.NOTIFIED, error=EMFILE)
        from rtlaunch.engine import readiness

        told = readiness.ask(self.sock, ready)
        self.notifying = told is None
        return told


class Handshake:
    """The conversations of one launch.

    ``arm(pid, books)`` is called for each image of the target that may go on,
    while it still stands; ``sees_exec()`` then tells whether the watch will
    notice an exec.
    """

    def __init__(
        self,
        options: Options,
        facts: Facts,
        outcome: Outcome,
        listener: Listener,
        arm: Callable[[int, proof.Books], None],
        sees_exec: Callable[[], bool],
    ) -> None:
        self.options = options
        self.facts = facts
        self.outcome = outcome
        self.listener = listener
        self.arm = arm
        self.sees_exec = sees_exec
        self.target_pid = 0
        self.images: list[Image] = []
        self.went = 0
        self.unlocked_children = 0
        if options.children != "none":
            outcome.lock.children_locked = 0
        self.accepted: list[Finding] = []
        self.smaps = ""  # of the last image whose books were read
        self.readiness: Readiness | None = None  # who is told that the program is ready
        self.promise: Callable[[int], Finding | None] | None = None  # of the lease, before go
        self.follow: Callable[[Speaker], object] = bool  # called for the target's images, before go

    @property
    def flags(self) -> int:
        """The MCL_* flags asked for."""
        return sum(proof.MCL[flag] for flag in self.options.lock)

    # ---- entered -> lock

    def begin(self, arrival: channel.Arrival) -> Conversation | None:
        """Answer an image that entered; None when there is nothing more to say to it."""
        try:
            sock = _socket.socket(fileno=arrival.fd)
        except OSError:  # no socket: whoever holds the channel may send what he likes
            os.close(arrival.fd)
            return None
        pid = arrival.sender.pid
        conversation = Conversation(sock, pid, pid == self.target_pid, arrival.message.time_ns)
        if not conversation.is_target and not self.means(pid):
            channel.tell(sock, Message(protocol.SKIP))
            sock.close()
            return None
        if conversation.is_target:
            self.outcome.time.entered_ns = self.outcome.time.entered_ns or conversation.entered_ns
        return conversation

    def open(self, conversation: Conversation) -> None:
        """Tell an image to lock; Refused where there is less memory than that would take."""
        found = self.oversized(conversation.pid)
        if found and not conversation.is_target:
            self.child_unlocked(conversation.pid, found[0].what, found[0].values)
            channel.tell(conversation.sock, Message(protocol.SKIP))
            return
        self.weigh(found)
        channel.tell(conversation.sock, self.order(conversation))

    def oversized(self, pid: int) -> tuple[Finding, ...]:
        """Find that the lock would take more than there is, of what is mapped and not touched."""
        room = budget.least_room(self.facts.memory)
        if not self.touches_all or proc.mapped_bytes(pid) <= room:
            return ()
        from rtlaunch.engine import oversized

        return oversized.findings(pid, room)

    @property
    def touches_all(self) -> bool:
        """Whether the lock takes all that is mapped, touched or not."""
        return "current" in self.options.lock and "onfault" not in self.options.lock

    def means(self, child: int) -> bool:
        """Tell whether a child of the target is to be locked, by what it runs."""
        if self.options.children == "none":
            return False
        from rtlaunch.core import children

        return children.is_meant(self.options.children, executable(child) or "")

    def order(self, conversation: Speaker) -> Message:
        """Return the LOCK message: flags, and how far down the stack may be touched."""
        flags, signal = self.flags, 0
        if conversation.is_target:
            flags |= protocol.STRICT if not self.options.best_effort else 0
            if not self.went:
                flags, signal = flags | protocol.DEATHSIG, self.options.pdeathsig
        if self.options.thread_stack is not None and conversation.is_target:
            from rtlaunch.engine import threadstack

            threadstack.look(conversation, self.options, self.facts)
        restored = conversation.stack_restored
        wanted = self.options.prefault_stack
        low = self.stack_low(conversation.pid, restored) if wanted else 0
        touch = wanted if low else 0
        return Message(
            protocol.LOCK,
            flags,
            signal,
            stack_low=low,
            stack_bytes=touch,
            stack_limit=restored,
        )

    def stack_low(self, pid: int, restored: int) -> int:
        """Return the lowest address the shim may touch; 0 (touch nothing) if it cannot be known.

        ``restored`` is the soft limit that it sets first, 0 if it leaves that in force.
        """
        try:
            mappings = books_of.parse_stack(proc.read_text(pid, "maps"))
            limits = books_of.parse_limits(proc.read_text(pid, "limits"))
        except OSError:
            return 0
        soft = restored or limits["stack"][0]
        return proof.stack_floor(mappings, soft, self.facts.host.page_bytes)

    # ---- record -> proof -> go

    def conclude(self, conversation: Speaker, record: Message) -> None:
        """Judge a record and say go, or raise :class:`Refused` (the image still stands)."""
        if conversation.notifying:
            self.conclude_readiness(conversation, record)
        elif conversation.is_target:
            self.conclude_target(conversation, record)
            self.keep_promise(conversation.pid)
            self.follow(conversation)
            if self.readiness is not None and not self.went:
                told = self.readiness.announce(conversation)
                if told is None:
                    return  # it says go on its answer
                self.conclude_readiness(conversation, told)
        else:
            self.conclude_child(conversation, record)
        self.let_go(conversation)

    def conclude_readiness(self, conversation: Speaker, told: Message) -> None:
        """Note that READY=1 was sent, or weigh that it was not."""
        conversation.notifying = False
        if self.readiness is None:
            return
        if told.error:
            self.weigh((self.readiness.not_said(told.error),))
        else:
            self.outcome.time.ready_ns = told.time_ns or time.monotonic_ns()
        self.readiness.close()
        self.readiness = None

    def let_go(self, conversation: Speaker) -> None:
        """Say go."""
        conversation.say(self.word_to_go(conversation))
        if conversation.is_target:
            self.went += 1
            self.outcome.time.go_ns = self.outcome.time.go_ns or time.monotonic_ns()

    def keep_promise(self, pid: int) -> None:
        """Confirm the lease of huge pages at the first word to go; Refused where it cannot be."""
        if self.promise is None or self.went:
            return
        finding = self.promise(pid)
        if finding:
            self.weigh((finding,))

    def word_to_go(self, conversation: Speaker) -> Message:
        """Return GO; the target keeps the pair open where only that will tell of its next exec."""
        watched = self.sees_exec() or conversation.stays
        conversation.kept = conversation.is_target and conversation.can_keep and not watched
        if not watched and not conversation.can_keep:
            from rtlaunch.core.unproven import EXEC_UNSEEN

            self.weigh((EXEC_UNSEEN,))
        return Message(protocol.GO, protocol.KEEP if conversation.kept else 0)

    def conclude_child(self, conversation: Speaker, record: Message) -> None:
        """Let a child go on, locked or not; say so if not."""
        if not record.error:
            self.outcome.lock.children_locked = (self.outcome.lock.children_locked or 0) + 1
            return
        from rtlaunch.core.unproven import errno_name

        how = f"locking failed with {errno_name(record.error)}"
        self.child_unlocked(conversation.pid, how, {"errno": record.error})

    def child_unlocked(self, pid: int, how: str, values: Mapping[str, object]) -> None:
        """Say that a child runs unlocked, the first few times."""
        self.unlocked_children += 1
        if self.unlocked_children > CHILD_WARNINGS:
            return
        from rtlaunch.core import unproven

        self.accept(unproven.child_unlocked(command_name(pid), pid, how, values))

    def conclude_target(self, conversation: Speaker, record: Message) -> None:
        """Prove one image of the target, write it down, arm the watch."""
        pid = conversation.pid
        name = command_name(pid)
        try:
            books = self.read_books(pid)
        except PermissionError as error:
            from rtlaunch.engine import unproven

            unproven.refuse_unreadable(self, conversation, name, error)
            return
        judged = proof.judge(
            name,
            self.options.lock,
            record,
            books,
            self.file_bytes(pid),
            conversation.stack_at_exec,
        )
        self.write_down(conversation, record, judged, books)
        self.weigh((*self.shape_findings(conversation, name, books), *judged.findings))
        self.arm(pid, books)

    def shape_findings(
        self, conversation: Speaker, name: str, books: proof.Books
    ) -> tuple[Finding, ...]:
        """Find stacks of threads, huge pages and a heap that are not as asked, by the books."""
        options = self.options
        asked = (options.thread_stack, options.heap) != (None, None) or options.thp != "inherit"
        if not asked:
            return ()
        from rtlaunch.engine import shapeproof

        return shapeproof.find(self, conversation, name, books)

    def note_image(self, image: Image) -> None:
        """Write down one image more."""
        self.images.append(image)
        self.outcome.target.images = tuple(self.images)

    def read_books(self, pid: int, mapped: bool = True) -> proof.Books:
        """Read status, limits and, if ``mapped``, smaps of a target that stands still."""
        status, limits = proc.read_text(pid, "status"), proc.read_text(pid, "limits")
        self.smaps = proc.read_text(pid, "smaps") if mapped else ""
        return proof.Books(
            books_of.parse_status(status),
            books_of.parse_limits(limits),
            books_of.parse_smaps(self.smaps),
            self.facts.who.initial_userns,
            self.facts.host.page_bytes,
        )

    @staticmethod
    def file_bytes(pid: int) -> Callable[[books_of.Mapping], int | None]:
        """Return the question for the length of a mapping's file."""
        return lambda mapping: proc.mapped_file_bytes(pid, mapping)

    def weigh(self, findings: tuple[Finding, ...]) -> None:
        """Refuse by the first finding that nobody allowed; tell the others."""
        for finding in findings:
            weighed = waive(finding, self.options)
            if weighed.refuses:
                raise Refused(weighed)
            self.accept(weighed)

    def accept(self, finding: Finding) -> None:
        """Note and tell a finding that refuses nothing."""
        self.accepted.append(finding)
        self.listener.finding(finding)

    def write_down(
        self,
        conversation: Speaker,
        record: Message,
        judged: proof.Judgement,
        books: proof.Books,
    ) -> None:
        """Put what was found into the outcome; the lock described is the last image's."""
        image = Image(
            path=executable(conversation.pid),
            at_ns=conversation.entered_ns,
            locked=judged.locked if self.flags else False,
            via=conversation.way,
        )
        if not judged.locked:
            image.why = judged.findings[0].what
        elif not self.flags:
            image.why = "--lock none"
        self.note_image(image)
        lock = self.outcome.lock
        lock.flags = judged.flags
        lock.errno = record.error or None
        lock.locked_bytes = judged.locked_bytes
        lock.resident_bytes = judged.resident_bytes
        lock.headroom_bytes = judged.headroom_bytes
        lock.stack_bytes = record.stack_bytes
        if conversation.stack_at_exec is not None:
            lock.thread_stack_bytes = proof.thread_stack_bytes(books, conversation.stack_at_exec)
        lock.lock_ns = record.lock_ns
        lock.unlocked_mappings = judged.unlocked
        times = self.outcome.time
        times.locked_ns, times.proven_ns = record.time_ns, time.monotonic_ns()
        read_back(self.outcome, books)


def read_back(outcome: Outcome, books: proof.Books) -> None:
    """Write down what the kernel says of limits, identity and CPUs of the target."""
    status = books.status
    outcome.target.uid, outcome.target.gid = status.uids[1], status.gids[1]
    for name, row in outcome.limits.items():
        row.after = books.limits[name]
    outcome.caps.target = CapSets(
        status.cap_inh, status.cap_prm, status.cap_eff, status.cap_bnd, status.cap_amb
    ).as_dict()
    outcome.caps.no_new_privs = bool(status.no_new_privs)
    outcome.sched.cpu_list = status.cpus


def executable(pid: int) -> str | None:
    """Return the path of the image that ``pid`` runs; None where it may not be seen."""
    try:
        return proc.read_exe(pid)
    except OSError:
        return None


def command_name(pid: int) -> str:
    """Return what the kernel calls the process (its comm), or "the program"."""
    try:
        return proc.read_text(pid, "comm").rstrip("\n")
    except OSError:
        return "the program"
