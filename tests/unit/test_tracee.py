"""Registers as numbers: each architecture's layout, as the kernel's headers have it.

x86_64 and i386 tracees are injected into for real in tests/kernel; aarch64's table is held here
against struct user_pt_regs alone, which no test on another machine can do better.
"""

from __future__ import annotations

import shutil
import subprocess

import pytest

from rtlaunch.core import tracee
from tests.skips import skip

LAYOUTS = tuple(tracee.BY_BYTES.values())

# Names in the headers of the C library: the structure, and the fields of Layout in C's words.
HEADERS = {
    "x86_64": (
        ("cc",), "struct user_regs_struct", "rax",
        ("rdi", "rsi", "rdx", "r10", "r8", "r9"), "rax", "rip", "rsp", "orig_rax",
    ),
    "i386": (
        ("cc", "-m32"), "struct user_regs_struct", "eax",
        ("ebx", "ecx", "edx", "esi", "edi", "ebp"), "eax", "eip", "esp", "orig_eax",
    ),
    "aarch64": (
        ("aarch64-linux-gnu-gcc",), "struct user_regs_struct", "regs[8]",
        tuple(f"regs[{n}]" for n in range(6)), "regs[0]", "pc", "sp", "",
    ),
}  # fmt: skip


def registers(layout: tracee.Layout) -> tracee.Registers:
    """Registers whose values are their indices and a bit, so that each is told from the others."""
    return tracee.Registers(layout, tuple(1 << 20 | index for index in range(layout.count)))


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.machine)
def test_registers_that_are_read_are_written_back_unchanged(layout):
    """Every bit of them, and the architecture is told by their length."""
    raw = bytes(number % 251 for number in range(layout.word_bytes * layout.count))
    parsed = tracee.parse_registers(raw)
    assert parsed is not None
    assert parsed.layout is layout
    assert tracee.pack_registers(parsed) == raw


@pytest.mark.parametrize("size", [0, 1, 72, 512])
def test_registers_of_an_unknown_architecture_are_none(size):
    """72 bytes are 32-bit ARM's."""
    assert tracee.parse_registers(bytes(size)) is None


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.machine)
def test_a_call_changes_what_it_must_and_nothing_else(layout):
    """Number, arguments, program counter; and no call is left that the kernel might restart."""
    before = registers(layout)
    after = tracee.for_call(before, 0x7000, "mlockall", (3,))
    changed = {at for at in range(layout.count) if before.values[at] != after.values[at]}
    expected = {layout.pc, layout.number, layout.arguments[0], layout.original} - {-1}
    assert changed == expected
    assert after.values[layout.number] == layout.calls["mlockall"]
    assert (after.pc, after.sp) == (0x7000, before.sp)
    assert layout.original < 0 or after.values[layout.original] == (1 << 8 * layout.word_bytes) - 1


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.machine)
def test_a_result_is_a_number_or_an_errno(layout):
    """From -4095 to -1 it is an errno; a pointer in the upper half is none."""
    top = 1 << 8 * layout.word_bytes
    rows = ((0, 0), (top - 12, -12), (top - 4095, -4095), (top - 4096, top - 4096), (77, 77))
    for value, result in rows:
        values = list(registers(layout).values)
        values[layout.result] = value
        found = tracee.Registers(layout, tuple(values)).result
        assert found == result
        assert tracee.errno_of(found) == max(0, -result)


def test_the_instruction_is_found_where_it_may_stand():
    """Anywhere on x86, at a multiple of four on aarch64."""
    x86, arm = tracee.X86_64, tracee.AARCH64
    assert tracee.find_instruction(b"\x90\x90\x90\x0f\x05", x86) == 3
    assert tracee.find_instruction(b"\x90" * 9, x86) == -1
    svc = arm.instruction
    assert tracee.find_instruction(b"\0" + svc + b"\0\0\0" + svc, arm) == 8
    assert tracee.find_instruction(b"\0" + svc + b"\0\0\0", arm) == -1


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.machine)
def test_the_layout_is_the_headers(layout):
    """Sizes, offsets and system call numbers, asked of the compiler for that architecture."""
    compiler, structure, number, arguments, result, pc, sp, original = HEADERS[layout.machine]
    size = layout.word_bytes
    rows = [f"sizeof({structure})=={layout.count * size}"]
    fields = zip((number, *arguments, result, pc, sp, original),
                 (layout.number, *layout.arguments, layout.result, layout.pc, layout.sp,
                  layout.original), strict=True)  # fmt: skip
    rows += [
        f"__builtin_offsetof({structure},{name})=={index * size}" for name, index in fields if name
    ]
    rows += [f"__NR_{name}=={value}" for name, value in layout.calls.items()]
    checks = "".join(f'_Static_assert({row}, "{row}");\n' for row in rows)
    compile_only(layout.machine, compiler, checks)


def compile_only(machine: str, compiler: tuple[str, ...], checks: str) -> None:
    """Compile what asserts something; skip where there is no compiler for it."""
    if not shutil.which(compiler[0]):
        skip("no-cross-compiler")
    include = ("-I/usr/include/x86_64-linux-gnu",) if machine == "i386" else ()
    words = [*compiler, *include, "-x", "c", "-fsyntax-only", "-"]
    prelude = "#include <sys/user.h>\n#include <asm/unistd.h>\n"
    source = prelude + checks
    done = subprocess.run(words, input=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
