"""A stopped process as numbers: its registers, and what they must be for a system call of ours.

Pure: the bytes that ptrace(2) gives go in, those to write come out. A tracee's architecture is told
by how many bytes of registers it has, so a 32-bit program on a 64-bit kernel is known for what it
is. Which calls are made, and in which order, is :mod:`rtlaunch.engine.inject`'s.
"""

from __future__ import annotations

from rtlaunch.core.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_ERRNO = 4095  # include/linux/err.h: results from -4095 to -1 are errnos


class Layout(Record):
    """Where an architecture keeps what a system call needs, as indices into its registers.

    ``original`` holds the number of the call that the kernel might restart, -1 where there is no
    such register; ``instruction`` is the one that enters the kernel.
    """

    machine: str
    word_bytes: int
    count: int
    number: int
    arguments: tuple[int, ...]
    result: int
    pc: int
    sp: int
    original: int
    instruction: bytes
    calls: Mapping[str, int]


# arch/x86/include/asm/user_64.h, user_32.h; arch/arm64/include/uapi/asm/ptrace.h; syscall(2).
X86_64 = Layout(
    "x86_64", 8, 27, 10, (14, 13, 12, 7, 9, 8), 10, 16, 19, 15, b"\x0f\x05",
    {"write": 1, "close": 3, "fcntl": 72, "madvise": 28, "mlockall": 151, "munlockall": 152,
     "prctl": 157, "clock_gettime": 228, "exit_group": 231, "prlimit64": 302},
)  # fmt: skip
I386 = Layout(
    "i386", 4, 17, 6, (0, 1, 2, 3, 4, 5), 6, 12, 15, 11, b"\xcd\x80",
    {"write": 4, "close": 6, "fcntl": 55, "madvise": 219, "mlockall": 152, "munlockall": 153,
     "prctl": 172, "clock_gettime": 265, "exit_group": 252, "prlimit64": 340},
)  # fmt: skip
AARCH64 = Layout(
    "aarch64", 8, 34, 8, (0, 1, 2, 3, 4, 5), 0, 32, 31, -1, b"\x01\x00\x00\xd4",
    {"write": 64, "close": 57, "fcntl": 25, "madvise": 233, "mlockall": 230, "munlockall": 231,
     "prctl": 167, "clock_gettime": 113, "exit_group": 94, "prlimit64": 261},
)  # fmt: skip
BY_BYTES = {layout.word_bytes * layout.count: layout for layout in (X86_64, I386, AARCH64)}


class Registers(Record):
    """The registers of a tracee, as unsigned numbers in the kernel's order."""

    layout: Layout
    values: tuple[int, ...]

    @property
    def pc(self) -> int:
        """The address of the next instruction."""
        return self.values[self.layout.pc]

    @property
    def sp(self) -> int:
        """The stack pointer."""
        return self.values[self.layout.sp]

    @property
    def result(self) -> int:
        """What the last system call returned; -errno where it failed."""
        value = self.values[self.layout.result]
        top = 1 << 8 * self.layout.word_bytes
        return value - top if value >= top - MAX_ERRNO else value


def parse_registers(raw: bytes) -> Registers | None:
    """Return the registers; None for an architecture that we do not know."""
    layout = BY_BYTES.get(len(raw))
    if layout is None:
        return None
    size = layout.word_bytes
    words = (raw[at : at + size] for at in range(0, len(raw), size))
    return Registers(layout, tuple(int.from_bytes(word, "little") for word in words))


def pack_registers(registers: Registers) -> bytes:
    """Return the bytes that :func:`parse_registers` read."""
    size = registers.layout.word_bytes
    return b"".join(value.to_bytes(size, "little") for value in registers.values)


def for_call(registers: Registers, at: int, name: str, arguments: Sequence[int]) -> Registers:
    """Return the registers that make system call ``name`` by the instruction at address ``at``."""
    layout = registers.layout
    top = 1 << 8 * layout.word_bytes
    values = list(registers.values)
    values[layout.pc] = at
    values[layout.number] = layout.calls[name]
    if layout.original >= 0:
        values[layout.original] = top - 1  # no call to restart
    for index, argument in zip(layout.arguments, arguments, strict=False):
        values[index] = argument % top
    return Registers(layout, tuple(values))


def errno_of(result: int) -> int:
    """Return the errno of a system call's result, 0 where it succeeded."""
    return max(0, -result)


def find_instruction(code: bytes, layout: Layout) -> int:
    """Return the offset of an instruction that enters the kernel; -1 where there is none."""
    step = len(layout.instruction) if layout is AARCH64 else 1  # theirs are aligned
    found = code.find(layout.instruction)
    while found >= 0 and found % step:
        found = code.find(layout.instruction, found + 1)
    return found
