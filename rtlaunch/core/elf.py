"""Read the headers of what execve is given: ELF and ``#!``, from bytes alone.

It judges as the kernel does (fs/binfmt_elf.c: load_elf_binary; fs/binfmt_script.c:
load_script), up to the point where a program is committed to; what is broken
comes back as a value, a :class:`Flaw` with execve's errno. It must not open
files: a caller hands in the first bytes and a way to read more.
"""

from __future__ import annotations

from _struct import calcsize, iter_unpack, unpack_from
from errno import EINVAL, EIO, ELIBBAD, ENOEXEC

from rtlaunch.core.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    ReadAt = Callable[[int, int], bytes]  # (offset, size) -> what is there, maybe less

HEAD_BYTES = 256  # the kernel's BINPRM_BUF_SIZE: all that a binary handler sees at first
MAGIC = b"\x7fELF"
PATH_MAX = 4096
HEADERS_MAX = 65536  # load_elf_phdrs: the table of program headers may not be larger
OFFSET_MAX = (1 << 63) - 1  # loff_t
DYNAMIC_MAX = 8192  # an executable's dynamic section has some 30 entries of 16 bytes

# (e_machine, class): the name, as uname -m spells it where it has one
MACHINES: dict[tuple[int, int], str] = {
    (62, 64): "x86_64",
    (62, 32): "x32",
    (3, 32): "i386",
    (6, 32): "i386",  # EM_486
    (183, 64): "aarch64",
    (40, 32): "arm",
    (243, 64): "riscv64",
    (243, 32): "riscv32",
    (21, 64): "ppc64",
    (20, 32): "ppc",
    (22, 64): "s390x",
    (22, 32): "s390",
    (258, 64): "loongarch64",
    (8, 64): "mips64",
    (8, 32): "mips",
    (43, 64): "sparc64",
    (2, 32): "sparc",
    (42, 32): "sh4",
    (4, 32): "m68k",
    (50, 64): "ia64",
    (247, 64): "bpf",
}

# host: e_machine -> the class that its kernel reads the headers as. These kernels
# never look at EI_CLASS and EI_DATA (elf_check_arch): the number alone decides.
_BY_NUMBER: dict[str, dict[int, int]] = {
    "x86_64": {62: 64, 3: 32, 6: 32},
    "i386": {3: 32, 6: 32},
    "aarch64": {183: 64, 40: 32},
    "arm": {40: 32},
}
# host: what else its kernel runs itself, when built and booted so
_COMPANIONS = {
    "x86_64": ("i386", "x32"),
    "aarch64": ("arm",),
    "riscv64": ("riscv32",),
    "ppc64": ("ppc",),
    "s390x": ("s390",),
}
_UNAMES = {"i486": "i386", "i586": "i386", "i686": "i386", "s390": "s390x"}
_WIDE = {"i386": "x86_64", "arm": "aarch64"}  # uname -m under setarch(8) on a 64-bit kernel

_TYPES = {2: "EXEC", 3: "DYN"}
_NOT_PROGRAMS = {1: "an object file (ET_REL), not linked yet", 4: "a core dump (ET_CORE)"}
_EHDR = {64: "HHIQQQIHHH", 32: "HHIIIIIHHH"}  # from e_type to e_phnum
_PHDR = {64: "IIQQQQQQ", 32: "IIIIIIII"}
# where type, flags, offset, vaddr, filesz, memsz are in a program header
_PHDR_FIELDS = {64: (0, 1, 2, 3, 5, 6), 32: (0, 6, 1, 2, 4, 5)}
_HEADER_BYTES = {64: 64, 32: 52}
_IDENT_BYTES = 16
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP, _PT_GNU_STACK = 1, 2, 3, 0x6474E551
_READ_TYPES = frozenset((_PT_LOAD, _PT_DYNAMIC, _PT_INTERP, _PT_GNU_STACK))
_PF_X = 1
_DT_NULL, _DT_FLAGS_1, _DF_1_PIE = 0, 0x6FFFFFFB, 0x08000000


class Flaw(Record):
    """A header rule that is broken: its name, execve's errno, and words with the values."""

    rule: str
    errno: int
    what: str


class Elf(Record):
    """What an ELF header says about a program.

    ``linkage`` is ``dynamic`` (a loader is named), ``static``, ``static-pie`` or
    ``loader`` (position independent, no loader named and not marked as a program:
    ld.so itself, run as a command). ``load_bytes`` is the sum of the segments to
    map, each rounded out to pages; ``bss_bytes`` is what of it no file holds: zeroed memory.
    ``interp`` is None where none is named.
    """

    cls: int
    machine: str
    order: str
    type: str
    interp: bytes | None
    linkage: str
    load_bytes: int
    stack_exec: bool
    bss_bytes: int = 0

    @property
    def dynamic(self) -> bool:
        """Whether a dynamic loader runs first, and so honours LD_PRELOAD."""
        return self.linkage in ("dynamic", "loader")


class Script(Record):
    """A ``#!`` line: the interpreter's path and its one optional argument."""

    interpreter: bytes
    argument: bytes | None


class _Shape(Record):
    """How the fixed header was read: its layout and the fields that later steps need."""

    cls: int
    order: str
    machine: str
    type: int
    phoff: int
    phentsize: int
    phnum: int


class _Segment(Record):
    """One program header, in one order of fields for both classes."""

    type: int
    flags: int
    offset: int
    vaddr: int
    filesz: int
    memsz: int


def host_machine(uname: str, bits: int) -> str:
    """Name the host's machine as here, from ``uname -m`` and the pointer size of our own process.

    Our size is asked because setarch(8) makes a 64-bit kernel say ``i686`` or ``armv8l``.
    """
    name = "arm" if uname.startswith("arm") else _UNAMES.get(uname, uname)
    return _WIDE.get(name, name) if bits == 64 else name


def runs_natively(machine: str, host: str) -> bool:
    """Tell whether a kernel of ``host`` may run ``machine`` itself (it may be built without)."""
    return machine == host or machine in _COMPANIONS.get(host, ())


def read_elf(head: bytes, read_at: ReadAt, host: str, page: int = 4096) -> Elf | Flaw:
    """Read a program's headers as the kernel of machine ``host`` would.

    ``head`` is the file's beginning, at least 256 bytes where there are so many;
    ``read_at`` reads elsewhere and may return less than asked. A program for
    another machine is described, not refused: binfmt_misc may run it.
    """
    shape = _read_header(head, host)
    if isinstance(shape, Flaw):
        return shape
    if shape.type not in _TYPES:
        kind = _NOT_PROGRAMS.get(shape.type, f"an ELF file of type {shape.type}")
        return Flaw("e_type", ENOEXEC, f"is {kind}, not a program")

    take = _reader(head, read_at)
    table = _read_table(shape, take)
    if isinstance(table, Flaw):
        return table
    segments = _segments(shape, table)
    interp = _read_interp(segments, take)
    if isinstance(interp, Flaw):
        ours = runs_natively(shape.machine, host)  # else elf_check_arch has refused it before
        return interp if ours else Flaw(interp.rule, ENOEXEC, interp.what)
    return Elf(
        cls=shape.cls,
        machine=shape.machine,
        order=shape.order,
        type=_TYPES[shape.type],
        interp=interp,
        linkage=_linkage(shape, segments, interp, take),
        load_bytes=sum(_pages(s, page) for s in segments if s.type == _PT_LOAD),
        stack_exec=any(s.type == _PT_GNU_STACK and s.flags & _PF_X for s in segments),
        bss_bytes=sum(_zeroed(s, page) for s in segments if s.type == _PT_LOAD),
    )


def check_loader(head: bytes, read_at: ReadAt, program: Elf, host: str) -> Flaw | None:
    """Say what the kernel would refuse ``program``'s loader for, or None.

    ``head`` is the loader's beginning, at least 64 bytes where there are so many.
    """
    needed = _HEADER_BYTES[program.cls]
    if len(head) < needed:
        return Flaw("short", EIO, f"has {len(head)} bytes, fewer than an ELF header's {needed}")
    shape = _read_header(head, host)
    if isinstance(shape, Flaw):
        return Flaw(shape.rule, ELIBBAD, shape.what)
    if (shape.machine, shape.cls) != (program.machine, program.cls):
        what = f"is for {shape.machine}, the program for {program.machine}"
        return Flaw("machine", ELIBBAD, what)
    table = _read_table(shape, _reader(head, read_at))
    return Flaw(table.rule, ELIBBAD, table.what) if isinstance(table, Flaw) else None


def _reader(head: bytes, read_at: ReadAt) -> ReadAt:
    """Return a way to read that takes from ``head`` what lies in it."""

    def take(offset: int, size: int) -> bytes:
        return head[offset : offset + size] if offset + size <= len(head) else read_at(offset, size)

    return take


def _read_header(head: bytes, host: str) -> _Shape | Flaw:
    """Read the fixed header: as the host's kernel would, else by what the file claims of itself."""
    if head[:4] != MAGIC:
        return Flaw("magic", ENOEXEC, "is no ELF file")
    padded = head[:HEAD_BYTES].ljust(HEAD_BYTES, b"\0")  # as the kernel pads a short file
    claimed = {1: 32, 2: 64}.get(padded[4])
    number = int.from_bytes(padded[18:20], "little")
    cls = _BY_NUMBER.get(host, {}).get(number)
    if cls is None:
        if claimed is None:
            return Flaw("class", ENOEXEC, f"is a damaged ELF file: class {padded[4]}")
        return _unpack_header(padded, claimed, "big" if padded[5] == 2 else "little")
    shape = _unpack_header(padded, cls, "little")
    if shape.machine == "x86_64" and claimed == 32 and shape.phentsize != calcsize(_PHDR[64]):
        return _unpack_header(padded, 32, "little")  # x32: the same number, the small layout
    return shape


def _unpack_header(padded: bytes, cls: int, order: str) -> _Shape:
    fields = unpack_from(_sign(order) + _EHDR[cls], padded, _IDENT_BYTES)
    number = fields[1]
    name = MACHINES.get((number, cls), f"machine {number}")
    if name == "ppc64" and order == "little":
        name = "ppc64le"
    return _Shape(cls, order, name, fields[0], fields[4], fields[8], fields[9])


def _sign(order: str) -> str:
    return ">" if order == "big" else "<"


def _read_table(shape: _Shape, take: ReadAt) -> bytes | Flaw:
    """Read the program headers by load_elf_phdrs's rules."""
    entry = calcsize(_PHDR[shape.cls])
    size = entry * shape.phnum
    if shape.phentsize != entry:
        what = f"a program header has {shape.phentsize} bytes, not {entry}"
        return Flaw("e_phentsize", ENOEXEC, f"is a damaged ELF file: {what}")
    if not 0 < size <= HEADERS_MAX:
        return Flaw("e_phnum", ENOEXEC, f"is a damaged ELF file: {shape.phnum} program headers")
    table = take(shape.phoff, size) if shape.phoff <= OFFSET_MAX else b""
    if len(table) != size:
        what = f"program headers at byte {shape.phoff}, past its end"
        return Flaw("e_phoff", ENOEXEC, f"is a damaged or truncated ELF file: {what}")
    return table


def _segments(shape: _Shape, table: bytes) -> list[_Segment]:
    """Unpack the program headers that matter here; a record for each would cost the launch."""
    layout = _sign(shape.order) + _PHDR[shape.cls]
    pick = _PHDR_FIELDS[shape.cls]
    wanted = (raw for raw in iter_unpack(layout, table) if raw[0] in _READ_TYPES)
    return [_Segment(*[raw[i] for i in pick]) for raw in wanted]


def _read_interp(segments: list[_Segment], take: ReadAt) -> bytes | Flaw | None:
    """Read the loader's path from the first PT_INTERP, or None if there is none."""
    named = next((s for s in segments if s.type == _PT_INTERP), None)
    if named is None:
        return None
    if not 2 <= named.filesz <= PATH_MAX:
        what = f"its loader's path has {named.filesz} bytes"
        return Flaw("PT_INTERP size", ENOEXEC, f"is a damaged ELF file: {what}")
    if named.offset + named.filesz > OFFSET_MAX:  # rw_verify_area: where the read would end
        what = f"its loader's path at byte {named.offset}"
        return Flaw("PT_INTERP offset", EINVAL, f"is a damaged ELF file: {what}")
    path = take(named.offset, named.filesz)
    if len(path) != named.filesz:
        what = f"its loader's path, at byte {named.offset}, is past its end"
        return Flaw("PT_INTERP offset", EIO, f"is a damaged or truncated ELF file: {what}")
    if path[-1]:
        return Flaw("PT_INTERP end", ENOEXEC, "is a damaged ELF file: its loader's path has no end")
    return path[: path.index(0)]


def _linkage(shape: _Shape, segments: list[_Segment], interp: bytes | None, take: ReadAt) -> str:
    if interp is not None:
        return "dynamic"
    if _TYPES[shape.type] == "EXEC":
        return "static"
    dynamic = next((s for s in segments if s.type == _PT_DYNAMIC), None)
    if dynamic is None or _marked_as_program(shape, dynamic, take):
        return "static-pie"
    return "loader"


def _marked_as_program(shape: _Shape, dynamic: _Segment, take: ReadAt) -> bool:
    """Look for DF_1_PIE, which linkers give to programs (binutils since 2.26) and not to ld.so."""
    layout = _sign(shape.order) + ("QQ" if shape.cls == 64 else "II")
    size = min(dynamic.filesz, DYNAMIC_MAX)
    raw = take(dynamic.offset, size) if dynamic.offset <= OFFSET_MAX else b""
    entries = _until_null(layout, raw[: len(raw) - len(raw) % calcsize(layout)])
    return any(tag == _DT_FLAGS_1 and value & _DF_1_PIE for tag, value in entries)


def _until_null(layout: str, raw: bytes) -> Iterator[tuple[int, int]]:
    for tag, value in iter_unpack(layout, raw):
        if tag == _DT_NULL:
            return
        yield tag, value


def _pages(segment: _Segment, page: int) -> int:
    start = segment.vaddr // page * page
    return -(-(segment.vaddr + segment.memsz) // page) * page - start


def _zeroed(segment: _Segment, page: int) -> int:
    held = -(-(segment.vaddr + segment.filesz) // page) * page
    return max(0, -(-(segment.vaddr + segment.memsz) // page) * page - held)


def read_script(head: bytes) -> Script | Flaw | None:
    """Parse a ``#!`` line as load_script does; None where the file has none.

    The kernel looks at 256 bytes: without a newline in them the path must be
    ended by a blank or NUL, else it may be cut off and is refused (ENOEXEC).
    A cut argument is not.
    """
    if head[:2] != b"#!":
        return None
    line = head[:HEAD_BYTES].ljust(HEAD_BYTES, b"\0")
    end = line.partition(b"\0")[0].find(b"\n")
    if end < 0:
        name = line[2:].lstrip(b" \t")
        if name and not any(stop in name for stop in (b" ", b"\t", b"\0")):
            return Flaw("#! length", ENOEXEC, f"has a #! path that goes beyond {HEAD_BYTES} bytes")
        end = HEAD_BYTES - 1
    words = line[2:end].strip(b" \t")
    if not words:
        return Flaw("#! path", ENOEXEC, "has a #! line that names no interpreter")
    return _split_words(words)


def _split_words(words: bytes) -> Script:
    """Split path from argument; either ends at a NUL, as C strings do."""
    size = next((i for i, byte in enumerate(words) if byte in b" \t\0"), len(words))
    if words[size : size + 1] in (b"", b"\0"):
        return Script(words[:size], None)
    return Script(words[:size], words[size:].lstrip(b" \t").partition(b"\0")[0])
