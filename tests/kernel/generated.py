"""Files for execve to judge, each made from a seed and a number: ELF and ``#!``, whole and broken.

They are made by breaking what works: the headers of real programs, fields set to the values at
which rules turn, interpreters of every kind. All are small, and none is meant to run.
"""

from __future__ import annotations

import os
import random
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HEAD_BYTES = 4096  # what is kept of a real program: headers and the loader's path
BARE = "void _start(void) { for (;;) { } }\n"

EDGES = (
    0, 1, 2, 3, 4, 6, 31, 32, 33, 40, 52, 55, 56, 57, 62, 64, 183, 255, 256, 0x7FF, 0x800,
    1170, 1171, 2048, 2049, 4095, 4096, 4097, 0x7FFF, 0x8000, 0xFFFF, 0x10000,
    0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 32, 1 << 40,
    (1 << 63) - 4096, (1 << 63) - 1, 1 << 63, (1 << 64) - 4096, (1 << 64) - 1,
)  # fmt: skip
SEGMENT_TYPES = (0, 1, 1, 1, 2, 3, 3, 4, 6, 7, *range(0x6474E550, 0x6474E554), 0x70000001)
MACHINES = (3, 6, 62, 62, 183, 40, 8, 0, 2, 0x8003)
TYPES = (0, 1, 2, 2, 3, 3, 4, 5, 0x302)

# offset and size of each field of the file header and of a program header, by class
_IDENT = ((4, 1), (5, 1), (6, 1), (7, 1), (16, 2), (18, 2), (20, 4))
HEADER = {
    64: (*_IDENT, (24, 8), (32, 8), (48, 4), (52, 2), (54, 2), (56, 2), (58, 2), (60, 2)),
    32: (*_IDENT, (24, 4), (28, 4), (36, 4), (40, 2), (42, 2), (44, 2), (46, 2), (48, 2)),
}
SEGMENT = {
    64: ((0, 4), (4, 4), (8, 8), (16, 8), (24, 8), (32, 8), (40, 8), (48, 8)),
    32: tuple((at, 4) for at in range(0, 32, 4)),
}
START = {64: 64, 32: 52}
ENTRY = {64: 56, 32: 32}
PT_INTERP = 3


class Made(NamedTuple):
    """A file's content and mode."""

    content: bytes
    mode: int = 0o755


class Furniture(NamedTuple):
    """What generated files start from: heads of real programs, and paths to name."""

    programs: tuple[bytes, ...]
    paths: tuple[bytes, ...]


def furnish(folder: Path) -> Furniture:
    """Make interpreters and loaders, good and bad, in ``folder``; return what to start from."""
    loader = Path(os.path.realpath("/proc/self/exe"))
    programs = [Path("/bin/true"), Path("/bin/sh"), loader, *_loaders(), *_bare(folder)]
    made = {
        "text": (b"echo hello\n", 0o755),
        "empty": (b"", 0o755),
        "closed": (b"\x7fELF", 0o644),
        "short": (Path("/bin/true").read_bytes()[:60], 0o755),
        "headless": (Path("/bin/true").read_bytes()[:64], 0o755),
        "foreign": (_set(Path("/bin/true").read_bytes(), 18, 2, 50), 0o755),
        "script": (b"#!/bin/true\n", 0o755),
        "again": (b"#!" + os.fsencode(folder / "script") + b" word\n", 0o755),
        "endless": (b"#!" + os.fsencode(folder / "endless") + b"\n", 0o755),
        "lost": (b"#!/nowhere\n", 0o755),
    }
    for name, (content, mode) in made.items():
        (folder / name).write_bytes(content)
        (folder / name).chmod(mode)
    (folder / "directory").mkdir()
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "fifo")
    names = [*made, "directory", "loop", "fifo", "text/below", "nothing", "n" * 256]
    paths = [os.fsencode(folder / name) for name in names] + [os.fsencode(one) for one in programs]
    odd = [
        b"",
        b"/",
        b".",
        b"..",
        b"./0",
        b"./1",
        b"true",
        b"/bin/true\r",
        b"/dev/null",
        b"/" * 300,
    ]
    return Furniture(tuple(_head(one) for one in programs), (*paths, *odd))


def _loaders() -> list[Path]:
    names = ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux.so.2", "/lib/ld-linux-aarch64.so.1")
    return [Path(name) for name in names if os.path.exists(name)]


def _bare(folder: Path) -> list[Path]:
    """Compile what needs no C library; a compiler that cannot is passed over."""
    made = []
    flags = "-x c - -nostdlib -ffreestanding -static -fno-pie -no-pie -Wl,-n"
    for name, compiler in {
        "bare": "cc",
        "bare32": "cc -m32",
        "cross": "aarch64-linux-gnu-gcc",
    }.items():
        command = [*compiler.split(), *flags.split(), "-o", str(folder / name)]
        try:
            subprocess.run(command, input=BARE.encode(), check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        made.append(folder / name)
    return made


def _head(program: Path) -> bytes:
    with program.open("rb") as file:
        return file.read(HEAD_BYTES)


def generate(seed: int, number: int, furniture: Furniture) -> Made:
    """Make the file of this number."""
    chance = random.Random(seed << 40 | number)
    kinds: Sequence[Callable[[random.Random, Furniture], bytes]] = (broken_elf, built_elf, script)
    content = chance.choices(kinds, (6, 3, 3))[0](chance, furniture)
    if chance.random() < 0.05:
        content = _damage(chance, content)
    return Made(content, chance.choices((0o755, 0o644, 0o111, 0), (96, 2, 1, 1))[0])


# --- ELF ---------------------------------------------------------------------------------------


def broken_elf(chance: random.Random, furniture: Furniture) -> bytes:
    """Break a real program's headers, in one place mostly."""
    raw = chance.choice(furniture.programs)
    for _ in range(chance.choice((0, 1, 1, 1, 2, 3))):
        raw = chance.choice((_break_header, _break_segment, _break_segment, _name_loader))(
            chance, raw, furniture
        )
    return raw


def _class(raw: bytes) -> int:
    return 32 if raw[4:5] == b"\1" else 64


def _break_header(chance: random.Random, raw: bytes, _: Furniture) -> bytes:
    at, size = chance.choice(HEADER[_class(raw)])
    return _set(raw, at, size, _value(chance, raw, size, at))


def _break_segment(chance: random.Random, raw: bytes, _: Furniture) -> bytes:
    cls = _class(raw)
    at, size = chance.choice(SEGMENT[cls])
    count = raw[56 if cls == 64 else 44] if len(raw) > START[cls] else 1
    start = START[cls] + ENTRY[cls] * chance.randrange(max(1, min(count, 16)))
    value = chance.choice(SEGMENT_TYPES) if at == 0 else _value(chance, raw, size, at)
    return _set(raw, start + at, size, value)


def _name_loader(chance: random.Random, raw: bytes, furniture: Furniture) -> bytes:
    """Name another loader, at the end of the file, in the first header or in PT_INTERP's own."""
    cls = _class(raw)
    path = chance.choice(furniture.paths) + chance.choice((b"\0", b"\0", b"\0", b"", b"\0more\0"))
    index = next((n for n in range(16) if _type(raw, cls, n) == PT_INTERP), 0)
    return _put(raw, START[cls] + ENTRY[cls] * index, _interp(cls, len(raw), len(path))) + path


def _type(raw: bytes, cls: int, index: int) -> int:
    at = START[cls] + ENTRY[cls] * index
    return int.from_bytes(raw[at : at + 4], "little")


def _interp(cls: int, offset: int, size: int) -> bytes:
    return _segment(cls, PT_INTERP, 4, offset, 0, size, size)


def _segment(
    cls: int, kind: int, flags: int, offset: int, vaddr: int, filesz: int, memsz: int
) -> bytes:
    if cls == 64:
        return struct.pack("<IIQQQQQQ", kind, flags, offset, vaddr, vaddr, filesz, memsz, 4096)
    words = (kind, offset, vaddr, vaddr, filesz, memsz, flags, 4096)
    return struct.pack("<8I", *(word & 0xFFFFFFFF for word in words))


def built_elf(chance: random.Random, furniture: Furniture) -> bytes:
    """Build a file from nothing: mostly valid fields, any segments."""
    cls = chance.choice((64, 64, 32))
    path = chance.choice(furniture.paths) + b"\0"
    count = chance.randrange(1, 6)
    after = START[cls] + ENTRY[cls] * count
    table = b"".join(_any_segment(chance, cls, after, len(path)) for _ in range(count))
    machine = chance.choice(MACHINES) if chance.random() < 0.3 else {64: 62, 32: 3}[cls]
    kind = chance.choice(TYPES)
    ident = (
        b"\x7fELF"
        + bytes((cls // 32 if chance.random() < 0.9 else chance.randrange(4), 1, 1, 0))
        + bytes(8)
    )
    word = "Q" if cls == 64 else "I"
    start, entry = START[cls], ENTRY[cls]
    header = struct.pack(
        f"<HHI{word}{word}{word}IHHHHHH",
        kind,
        machine,
        1,
        0x400000,
        start,
        0,
        0,
        start,
        entry,
        count,
        0,
        0,
        0,
    )
    return ident + header + table + path


def _any_segment(chance: random.Random, cls: int, after: int, size: int) -> bytes:
    kind = chance.choice(SEGMENT_TYPES)
    if kind == PT_INTERP and chance.random() < 0.8:
        return _interp(cls, after, size)
    offset, vaddr = (chance.choice((0, 0x1000, chance.choice(EDGES))) for _ in range(2))
    return _segment(
        cls, kind, chance.randrange(8), offset, vaddr, chance.choice(EDGES), chance.choice(EDGES)
    )


def _value(chance: random.Random, raw: bytes, size: int, at: int) -> int:
    """A value at which a rule may turn: an edge, the file's size and its like, or any."""
    if (at, size) == (18, 2):
        return chance.choice(MACHINES)
    near = len(raw) + chance.randrange(-2, 3)
    return chance.choice(
        (chance.choice(EDGES), chance.choice(EDGES), near, chance.getrandbits(8 * size))
    )


def _set(raw: bytes, at: int, size: int, value: int) -> bytes:
    return _put(raw, at, (value & (1 << 8 * size) - 1).to_bytes(size, "little"))


def _put(raw: bytes, at: int, value: bytes) -> bytes:
    return raw[:at].ljust(at, b"\0") + value + raw[at + len(value) :]


def _damage(chance: random.Random, raw: bytes) -> bytes:
    """Cut a file, lengthen it, or change any byte."""
    if chance.random() < 0.5:
        return raw[: chance.randrange(len(raw) + 1)]
    if raw and chance.random() < 0.8:
        return _put(raw, chance.randrange(min(len(raw), 400)), bytes((chance.randrange(256),)))
    return raw + bytes(chance.randrange(5000))


# --- #! ----------------------------------------------------------------------------------------

BLANKS = (b" ", b"\t", b"  ", b" \t ", b" " * 120, b"\t" * 250, b"")
ENDS = (
    b"\n",
    b"\n",
    b"\n",
    b"",
    b"\0",
    b" \n",
    b"\t",
    b"\r\n",
    b"\0\n",
    b" \0\n",
    b"\necho\n",
    b"\n\n",
)
WORDS = (b"", b"-x", b"a b", b"\0", b"x" * 240, b"\0x", b"-x\0", b"\xff")


def script(chance: random.Random, furniture: Furniture) -> bytes:
    """Make a text, with a ``#!`` line mostly, some of them as long as the kernel looks."""
    parts = [b"#!", chance.choice(BLANKS), chance.choice(furniture.paths)]
    if chance.random() < 0.5:
        parts += [chance.choice(BLANKS), chance.choice(WORDS)]
    line = b"".join(parts)
    if chance.random() < 0.3:  # to the edge of the 256 bytes
        line = (line + chance.choice((b" ", b"x", b"/", b"\0")) * 256)[
            : 256 + chance.randrange(-3, 4)
        ]
    line += chance.choice(ENDS)
    if chance.random() < 0.1:
        line = line[chance.randrange(1, 4) :]
    return line + chance.choice((b"", b"", b"true\n", bytes(chance.randrange(300))))
