"""The launcher's side of native/protocol.h: the same numbers, the same layout, nothing else.

Why: the shim is C and the launcher is Python, and they meet in one message. Each name here has a
twin in the header (``RTL_`` put before it); tests/native compares the two through the compiler.

It must not send, receive or decide anything.
"""

from __future__ import annotations

from _struct import Struct

from rtlaunch.core.record import Record

PROTOCOL = 3
CHANNEL_VARIABLE = "_RTL_CHANNEL"
HEAP_VARIABLE = "_RTL_HEAP"
HEAP_POPULATE = 0x1  # in its flags
READY = "READY=1"
EXIT_REFUSED = 125

# enum rtl_kind
ENTERED = 1
LOCK = 2
SKIP = 3
REFUSE = 4
RECORD = 5
GO = 6
FAILED = 7
NOTIFY = 8
NOTIFIED = 9

KIND_NAMES = {
    ENTERED: "entered",
    LOCK: "lock",
    SKIP: "skip",
    REFUSE: "refuse",
    RECORD: "record",
    GO: "go",
    FAILED: "failed",
    NOTIFY: "notify",
    NOTIFIED: "notified",
}

# beside the MCL_* bits in the flags of LOCK
STRICT = 0x10000
DEATHSIG = 0x20000

# in the flags of GO
KEEP = 0x40000

_LAYOUT = Struct("=IIIiQQQQQ")
MESSAGE_BYTES = _LAYOUT.size


class Message(Record):
    """One ``struct rtl_message``; what each field means for each kind is told in protocol.h."""

    kind: int
    flags: int = 0
    error: int = 0
    time_ns: int = 0
    stack_low: int = 0
    stack_bytes: int = 0
    lock_ns: int = 0
    stack_limit: int = 0


def pack(message: Message) -> bytes:
    """Return ``message`` as the bytes of one datagram; struct.error where a number does not fit."""
    return _LAYOUT.pack(
        PROTOCOL,
        message.kind,
        message.flags,
        message.error,
        message.time_ns,
        message.stack_low,
        message.stack_bytes,
        message.lock_ns,
        message.stack_limit,
    )


def unpack(datagram: bytes) -> Message:
    """Read one datagram; ValueError, with the numbers, where it is not one of this protocol."""
    if len(datagram) != MESSAGE_BYTES:
        raise ValueError(f"a message has {MESSAGE_BYTES} bytes, this one has {len(datagram)}")
    protocol, *fields = _LAYOUT.unpack(datagram)
    if protocol != PROTOCOL:
        raise ValueError(f"the shim speaks protocol {protocol}, this launcher speaks {PROTOCOL}")
    if fields[0] not in KIND_NAMES:
        raise ValueError(f"protocol {PROTOCOL} has no message of kind {fields[0]}")
    return Message(*fields)


def channel_variable(fd: int, dev: int, ino: int, pid: int) -> str:
    """Return the value of ``_RTL_CHANNEL``: the socket at ``fd``, its identity, and who is meant.

    ``dev`` and ``ino`` are fstat's; ``pid`` is the process meant, 0 for every one that inherits it.
    """
    return f"{fd:x}:{dev:x}:{ino:x}:{pid:x}"


def heap_variable(first: int, count: int, flags: int, pid: int) -> str:
    """Return the value of ``_RTL_HEAP``: bytes to take first, bytes to take then, and for whom."""
    return f"{first:x}:{count:x}:{flags:x}:{pid:x}"
