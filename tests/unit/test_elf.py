"""ELF and #! headers are read as the kernel reads them, whatever the bytes."""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtlaunch.core.elf import (
    MACHINES,
    Elf,
    Flaw,
    Script,
    check_loader,
    host_machine,
    read_elf,
    read_script,
    runs_natively,
)

LOAD, DYNAMIC, INTERP, STACK = 1, 2, 3, 0x6474E551
EXEC, DYN = 2, 3
X86_64, I386, AARCH64, PPC64 = 62, 3, 183, 21
LOADER = b"/lib/ld.so\0"
FLAGS_1, PIE = 0x6FFFFFFB, 0x08000000
HEADER_BYTES = {64: 64, 32: 52}
ENTRY_BYTES = {64: 56, 32: 32}
AFTER = 1024  # where the tests put what a header points at
HOSTS = ("x86_64", "i386", "aarch64", "arm", "riscv64", "s390x", "ppc64le", "unknown")

Segments = tuple[tuple[int, int, int, int, int, int], ...]  # type flags offset vaddr filesz memsz


def elf_file(
    segments: Segments,
    content: bytes = b"",
    *,
    cls: int = 64,
    sign: str = "<",
    kind: int = DYN,
    machine: int = X86_64,
    count: int | None = None,
) -> bytes:
    """Build a file: header, program headers, and ``content`` at byte AFTER."""
    ident = b"\x7fELF" + bytes((cls // 32, 2 if sign == ">" else 1, 1, 0)) + bytes(8)
    count = len(segments) if count is None else count
    size, entry = HEADER_BYTES[cls], ENTRY_BYTES[cls]
    word = "Q" if cls == 64 else "I"
    header = ident + struct.pack(
        f"{sign}HHI{word}{word}{word}IHHHHHH",
        kind, machine, 1, 0, size, 0, 0, size, entry, count, 0, 0, 0,
    )  # fmt: skip
    table = b"".join(packed(cls, sign, *segment) for segment in segments)
    return (header + table).ljust(AFTER, b"\0") + content


def packed(
    cls: int, sign: str, kind: int, flags: int, offset: int, vaddr: int, filesz: int, memsz: int
) -> bytes:
    if cls == 64:
        fields = kind, flags, offset, vaddr, vaddr, filesz, memsz, 4096
        return struct.pack(f"{sign}IIQQQQQQ", *fields)
    fields = kind, offset, vaddr, vaddr, filesz, memsz, flags, 4096
    return struct.pack(f"{sign}8I", *fields)


def read(raw: bytes, host: str = "x86_64", head: int = 4096) -> Elf | Flaw:
    return read_elf(raw[:head], lambda offset, size: raw[offset : offset + size], host)


def good(raw: bytes, host: str = "x86_64") -> Elf:
    elf = read(raw, host)
    assert isinstance(elf, Elf), elf
    return elf


def flaw(raw: bytes, host: str = "x86_64") -> tuple[str, int]:
    found = read(raw, host)
    assert isinstance(found, Flaw), found
    return found.rule, found.errno


INTERP_SEGMENT = (INTERP, 4, AFTER, 0, len(LOADER), len(LOADER))
LOAD_SEGMENT = (LOAD, 5, 0, 0, 4096, 4096)
DYNAMIC_SEGMENT = (DYNAMIC, 6, AFTER, 0, 48, 48)
DYNAMIC_FILE = elf_file((LOAD_SEGMENT, INTERP_SEGMENT), LOADER)


# --- what a good file says -------------------------------------------------------------------


def test_a_loader_named_makes_a_program_dynamic() -> None:
    """PT_INTERP's string is the loader, without its NUL."""
    elf = good(DYNAMIC_FILE)
    assert (elf.interp, elf.linkage, elf.dynamic) == (b"/lib/ld.so", "dynamic", True)


def test_the_loaders_path_ends_at_its_first_nul() -> None:
    """As a C string, whatever room the segment has."""
    segment = (INTERP, 4, AFTER, 0, 8, 8)
    assert good(elf_file((segment,), b"/ld\0abc\0")).interp == b"/ld"


def test_the_first_interp_counts() -> None:
    """load_elf_binary stops at the first PT_INTERP."""
    second = (INTERP, 4, AFTER + 100, 0, 2, 2)
    assert good(elf_file((INTERP_SEGMENT, second), LOADER)).interp == b"/lib/ld.so"


@pytest.mark.parametrize(
    ("kind", "flags", "linkage"),
    [
        (EXEC, None, "static"),
        (DYN, None, "static-pie"),
        (DYN, PIE, "static-pie"),
        (DYN, 0, "loader"),
    ],
)
def test_a_program_without_loader_is_static_or_the_loader_itself(
    kind: int, flags: int | None, linkage: str
) -> None:
    """Position independent and with a dynamic section that lacks DF_1_PIE: ld.so as a command."""
    dynamic = () if flags is None else (DYNAMIC_SEGMENT,)
    content = struct.pack("<6Q", 1, 1, FLAGS_1, flags or 0, 0, 0)
    assert good(elf_file((LOAD_SEGMENT, *dynamic), content, kind=kind)).linkage == linkage


def test_nothing_counts_after_the_end_of_the_dynamic_section() -> None:
    """DT_NULL ends it: what lies behind is no flag."""
    content = struct.pack("<6Q", 1, 1, 0, 0, FLAGS_1, PIE)
    assert good(elf_file((DYNAMIC_SEGMENT,), content)).linkage == "loader"


def test_load_bytes_are_rounded_out_to_pages() -> None:
    """A segment from the end of one page into a third takes three pages."""
    segments = ((LOAD, 5, 0, 0xFFF, 16, 4098), (LOAD, 6, 0, 0x9000, 0, 1), (STACK, 6, 0, 0, 0, 99))
    assert good(elf_file(segments)).load_bytes == 4 * 4096


def test_what_no_file_holds_is_counted_apart() -> None:
    """Zeroed memory begins with the page after the file's last one."""
    segments = ((LOAD, 6, 0, 0x1000, 0x10, 0x1001), (LOAD, 6, 0, 0x9000, 0x1000, 0x1000))
    assert good(elf_file(segments)).bss_bytes == 4096


@pytest.mark.parametrize(("flags", "executable"), [(7, True), (6, False)])
def test_an_executable_stack_is_seen(flags: int, executable: bool) -> None:
    """PT_GNU_STACK with PF_X."""
    assert good(elf_file(((STACK, flags, 0, 0, 0, 0),))).stack_exec is executable


@pytest.mark.parametrize(("number", "cls"), MACHINES)
@pytest.mark.parametrize("sign", ["<", ">"])
def test_every_machine_is_read_in_its_own_layout(number: int, cls: int, sign: str) -> None:
    """A foreign file is described by what it says of itself: class, byte order, loader."""
    raw = elf_file((INTERP_SEGMENT,), LOADER, cls=cls, sign=sign, machine=number)
    elf = good(raw, "none of them")
    named = "ppc64le" if (number, sign) == (PPC64, "<") else MACHINES[number, cls]
    order = "little" if sign == "<" else "big"
    assert (elf.machine, elf.cls, elf.order, elf.interp) == (named, cls, order, b"/lib/ld.so")


def test_an_unknown_machine_has_its_number_for_a_name() -> None:
    """A machine that the table lacks is still told apart."""
    assert good(elf_file((LOAD_SEGMENT,), machine=9999)).machine == "machine 9999"


def test_a_32_bit_program_is_read_in_the_small_layout() -> None:
    """An i386 program on x86_64."""
    elf = good(elf_file((INTERP_SEGMENT,), LOADER, cls=32, machine=I386))
    assert (elf.cls, elf.machine, elf.interp) == (32, "i386", b"/lib/ld.so")


def test_the_small_layout_with_the_large_machine_is_x32() -> None:
    """x32 programs share x86_64's number."""
    assert good(elf_file((INTERP_SEGMENT,), LOADER, cls=32)).machine == "x32"


def test_x86_reads_by_the_machine_and_not_by_the_class() -> None:
    """The kernel's elf_check_arch never looks at EI_CLASS, so neither do we."""
    raw = bytearray(DYNAMIC_FILE)
    raw[4], raw[5] = 1, 2
    assert good(bytes(raw)).interp == b"/lib/ld.so"


def test_headers_beyond_the_first_page_are_read_where_they_are() -> None:
    """A table of headers at the end of a file, as some tools move it there."""
    raw = bytearray(DYNAMIC_FILE.ljust(10000, b"\0"))
    raw[9000 : 9000 + 112] = raw[64 : 64 + 112]
    raw[32:40] = struct.pack("<Q", 9000)
    assert good(bytes(raw)).interp == b"/lib/ld.so"


# --- what is broken --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "rule", "error"),
    [
        (b"", "magic", errno.ENOEXEC),
        (b"\x7fELF", "class", errno.ENOEXEC),
        (elf_file((LOAD_SEGMENT,), kind=1), "e_type", errno.ENOEXEC),
        (elf_file((LOAD_SEGMENT,), kind=4), "e_type", errno.ENOEXEC),
        (elf_file(()), "e_phnum", errno.ENOEXEC),
        (elf_file((LOAD_SEGMENT,), bytes(70000), count=1171), "e_phnum", errno.ENOEXEC),
        (elf_file((LOAD_SEGMENT,))[:100], "e_phoff", errno.ENOEXEC),
        (elf_file(((INTERP, 4, AFTER, 0, 1, 1),), b"\0"), "PT_INTERP size", errno.ENOEXEC),
        (elf_file(((INTERP, 4, 0, 0, 4097, 0),), bytes(5000)), "PT_INTERP size", errno.ENOEXEC),
        (elf_file(((INTERP, 4, AFTER, 0, 9, 9),), b"/ld\0"), "PT_INTERP offset", errno.EIO),
        (elf_file(((INTERP, 4, 1 << 63, 0, 9, 9),)), "PT_INTERP offset", errno.EINVAL),
        (elf_file(((INTERP, 4, (1 << 63) - 9, 0, 9, 9),)), "PT_INTERP offset", errno.EINVAL),
        (elf_file(((INTERP, 4, AFTER, 0, 3, 3),), b"/ld\0"), "PT_INTERP end", errno.ENOEXEC),
    ],
)
def test_each_broken_rule_has_its_name_and_errno(raw: bytes, rule: str, error: int) -> None:
    """The rules of load_elf_binary and load_elf_phdrs, one by one."""
    assert flaw(raw) == (rule, error)


def test_a_foreign_program_is_refused_for_its_machine_first() -> None:
    """Whatever else is broken in it, the errno is that of elf_check_arch."""
    raw = elf_file(((INTERP, 4, AFTER, 0, 9, 9),), b"/ld\0", machine=AARCH64)
    assert flaw(raw) == ("PT_INTERP offset", errno.ENOEXEC)


def test_the_most_headers_that_the_kernel_reads_are_read() -> None:
    """65536 bytes of program headers are the limit: 1170 of them are below it."""
    raw = elf_file((LOAD_SEGMENT,), bytes(70000), count=1170)
    assert isinstance(read(raw), Elf)


def test_a_header_entry_of_another_size_is_refused() -> None:
    """e_phentsize must be the kernel's own."""
    raw = bytearray(DYNAMIC_FILE)
    raw[54] = 57
    assert flaw(bytes(raw)) == ("e_phentsize", errno.ENOEXEC)


@pytest.mark.parametrize(
    ("raw", "rule", "error"),
    [
        (b"", "short", errno.EIO),
        (DYNAMIC_FILE[:63], "short", errno.EIO),
        (b"x" * 100, "magic", errno.ELIBBAD),
        (elf_file((LOAD_SEGMENT,), machine=AARCH64), "machine", errno.ELIBBAD),
        (elf_file((LOAD_SEGMENT,), cls=32, machine=I386), "machine", errno.ELIBBAD),
        (elf_file(()), "e_phnum", errno.ELIBBAD),
    ],
)
def test_a_loader_must_be_one_for_the_program(raw: bytes, rule: str, error: int) -> None:
    """What load_elf_binary demands of an interpreter: ELIBBAD, or EIO when it is too short."""
    found = check_loader(raw, lambda at, size: raw[at : at + size], good(DYNAMIC_FILE), "x86_64")
    assert found is not None
    assert (found.rule, found.errno) == (rule, error)


def test_a_loader_for_the_program_passes() -> None:
    """Its type is not looked at: a static program may be named as a loader."""
    raw = elf_file((LOAD_SEGMENT,), kind=EXEC)
    assert check_loader(raw, lambda at, size: b"", good(DYNAMIC_FILE), "x86_64") is None


@given(st.binary(max_size=600), st.sampled_from(HOSTS))
def test_any_bytes_are_read_or_refused(raw: bytes, host: str) -> None:
    """No bytes raise: there is an Elf, or a flaw with an errno of execve."""
    found = read(b"\x7fELF" + raw, host)
    assert isinstance(found, Elf) or errno.errorcode[found.errno]


@given(st.data())
def test_any_damage_to_a_program_is_read_or_refused(data: st.DataObject) -> None:
    """A good file with bytes overwritten never raises either, for whatever host."""
    raw = bytearray(DYNAMIC_FILE)
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(4, 180))] = data.draw(st.integers(0, 255))
    found = read(bytes(raw), data.draw(st.sampled_from(HOSTS)))
    assert isinstance(found, Elf) or errno.errorcode[found.errno]


# --- machines --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uname", "bits", "machine"),
    [
        ("x86_64", 64, "x86_64"),
        ("i686", 64, "x86_64"),
        ("i686", 32, "i386"),
        ("aarch64", 64, "aarch64"),
        ("armv8l", 64, "aarch64"),
        ("armv7l", 32, "arm"),
        ("riscv64", 64, "riscv64"),
    ],
)
def test_setarch_does_not_hide_the_host(uname: str, bits: int, machine: str) -> None:
    """The personality changes what uname says, not the size of our own pointers."""
    assert host_machine(uname, bits) == machine


def test_a_host_runs_its_own_and_its_small_companion() -> None:
    """32-bit programs are the kernel's own business; another machine's are not."""
    assert runs_natively("i386", "x86_64")
    assert runs_natively("riscv64", "riscv64")
    assert not runs_natively("aarch64", "x86_64")
    assert not runs_natively("x86_64", "i386")


# --- #! --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "interpreter", "argument"),
    [
        (b"#!/bin/sh\n", b"/bin/sh", None),
        (b"#! \t/bin/sh \t\n", b"/bin/sh", None),
        (b"#!/bin/sh -e  -x \nrest", b"/bin/sh", b"-e  -x"),
        (b"#!/bin/sh\r\n", b"/bin/sh\r", None),
        (b"#!/bin/sh", b"/bin/sh", None),
        (b"#!/bin/sh -e", b"/bin/sh", b"-e"),
        (b"#!/bin/sh -e\0x\n", b"/bin/sh", b"-e"),
        (b"#!sh\n", b"sh", None),
        (b"#!", b"", None),
        (b"#!/bin/env " + b"x" * 300, b"/bin/env", b"x" * 244),
        (b"#!/" + b"x" * 252 + b"\n", b"/" + b"x" * 252, None),
    ],
)
def test_a_script_names_interpreter_and_one_argument(
    line: bytes, interpreter: bytes, argument: bytes | None
) -> None:
    """Blanks around, everything after the path as one argument, cut off at 255 bytes."""
    assert read_script(line) == Script(interpreter, argument)


@pytest.mark.parametrize(
    "line", [b"#!\n", b"#!  \t\n", b"#!" + b" " * 300, b"#!/" + b"x" * 300, b"#!" + b"x" * 254]
)
def test_a_script_without_whole_interpreter_is_refused(line: bytes) -> None:
    """Nothing named, or a path that 256 bytes may have cut off: ENOEXEC."""
    found = read_script(line)
    assert isinstance(found, Flaw)
    assert found.errno == errno.ENOEXEC


def test_what_does_not_begin_so_is_no_script() -> None:
    """Not even with a blank in front."""
    assert read_script(b" #!/bin/sh\n") is None


def load_script(head: bytes) -> Script | None:
    """Follow load_script of fs/binfmt_script.c pointer by pointer; None where it gives ENOEXEC."""
    buf = head[:256].ljust(256, b"\0")
    last = 255

    def next_non_blank(first: int, end: int) -> int | None:
        return next((at for at in range(first, end + 1) if buf[at] not in b" \t"), None)

    def next_terminator(first: int, end: int) -> int | None:
        return next((at for at in range(first, end + 1) if buf[at] in b" \t\0"), None)

    end: int | None = next((at for at in range(256) if buf[at] in b"\n\0"), None)
    if end is None or buf[end] != ord("\n"):
        start = next_non_blank(2, last)
        if start is None or next_terminator(start, last) is None:
            return None
        end = last
    while buf[end - 1] in b" \t":
        end -= 1
    name = next_non_blank(2, end)
    if name is None or name == end:
        return None
    separator = next_terminator(name, end)
    argument = None
    if separator is not None and buf[separator] != 0:
        argument = next_non_blank(separator, end)
    stop = end if separator is None else separator
    word = None if argument is None else buf[argument:end].split(b"\0")[0]
    return Script(buf[name:stop].split(b"\0")[0], word)


BLANKS_AND_MORE = st.sampled_from(
    [b" ", b"\t", b"\n", b"\0", b"/", b"x", b"\r", b"x" * 60, b" " * 60]
)


@given(st.lists(BLANKS_AND_MORE, max_size=40).map(b"".join))
def test_the_line_is_read_as_the_kernel_reads_it(rest: bytes) -> None:
    """For any line, ours and a transliteration of the kernel's code give the same."""
    found = read_script(b"#!" + rest)
    assert (None if isinstance(found, Flaw) else found) == load_script(b"#!" + rest)
