"""What a command is, compared with what the kernel and the loader make of it."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
from pathlib import Path

import pytest

from tests.kernel import execve
from tests.kernel.execve import in_child, offer
from tests.kernel.programs import (
    HOST,
    PIE,
    PROGRAM,
    TEXT,
    classified,
    codes_for,
    compile_source,
    found_in,
    need,
    patched,
    script_chain,
    true_at,
    write,
)
from tests.skips import skip

BARE = "void _start(void) { for (;;) { } }\n"
WITNESS = """
__attribute__((constructor)) static void speak(void) {
    static const char word[] = "witness\\n";
#if defined(__x86_64__)
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "0"(1L), "D"(2L), "S"(word), "d"(8L)
                     : "rcx", "r11", "memory");
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = 64, x0 __asm__("x0") = 2, x2 __asm__("x2") = 8;
    register const char *x1 __asm__("x1") = word;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
#endif
}
"""
# name: compiler, flags, source, linkage
BUILDS = {
    "pie": ("cc", PIE, PROGRAM, "dynamic"),
    "no-pie": ("cc", "-no-pie", PROGRAM, "dynamic"),
    "static": ("cc", "-static", PROGRAM, "static"),
    "static-pie": ("cc", "-static-pie", PROGRAM, "static-pie"),
    "musl": ("musl-gcc", "", PROGRAM, "dynamic"),
    "musl-static": ("musl-gcc", "-static", PROGRAM, "static"),
}


def build(name: str, room: Path) -> Path:
    compiler, flags, source, _ = BUILDS[name]
    return compile_source(compiler, flags, source, room / name)


@pytest.fixture(scope="module")
def witness(room: Path) -> Path:
    """A preload that says a word and needs no C library, so that any loader can load it."""
    flags = "-shared -fPIC -nostdlib -ffreestanding -fno-stack-protector"
    return compile_source("cc", flags, WITNESS, room / "witness.so")


@pytest.mark.parametrize("name", BUILDS)
def test_linkage_tells_whether_a_preload_is_honoured(name: str, room: Path, witness: Path) -> None:
    """A program is called dynamic exactly when its loader runs what LD_PRELOAD names."""
    program = build(name, room)
    ran = subprocess.run(
        [program], env={"LD_PRELOAD": str(witness)}, capture_output=True, check=True
    )
    elf = classified(program).images[-1].elf
    assert elf is not None
    assert ran.stdout == b"secure 0\n"
    assert elf.linkage == BUILDS[name][3]
    assert elf.dynamic == (b"witness" in ran.stderr)


def test_the_loader_as_a_command_honours_a_preload(room: Path, witness: Path) -> None:
    """`ld.so ./app` names no loader and yet is reached by LD_PRELOAD: it is not called static."""
    program = build("pie", room)
    loader = classified(program).images[-1].interpreter
    ran = subprocess.run(
        [loader, program], env={"LD_PRELOAD": str(witness)}, capture_output=True, check=True
    )
    target = classified(loader, str(program))
    assert b"witness" in ran.stderr
    assert codes_for(target) == []


@pytest.mark.parametrize("name", ["static", "static-pie"])
def test_a_static_program_is_refused_by_name(name: str, room: Path) -> None:
    """What no loader starts is target-static, with its linkage."""
    (finding,) = found_in(classified(build(name, room)))
    assert (finding.code, finding.values["linkage"]) == ("target-static", name)


def test_a_32_bit_program_is_refused_by_its_class(room: Path) -> None:
    """The kernel runs an i386 program, and the finding says that no shim fits its class."""
    if HOST != "x86_64":
        skip("no-32-bit")
    flags = "-m32 -ffreestanding -nostdlib -static -fno-pie"
    program = compile_source("cc", flags, BARE, room / "i386")
    verdict = offer([str(program)], str(program))
    assert codes_for(classified(program)) == ["target-class", "target-static"]
    assert verdict.program == str(program) or verdict.errno == errno.ENOEXEC


@pytest.mark.parametrize("name", ["static", "static-pie", "musl-static"])
def test_load_bytes_are_what_the_kernel_maps(name: str, room: Path) -> None:
    """The sum of a program's segments is what stands in /proc/PID/maps after execve."""
    program = build(name, room)
    elf = classified(program).images[-1].elf
    assert elf is not None
    assert elf.load_bytes == offer([str(program)], str(program)).mapped_bytes


@pytest.mark.parametrize("length", range(7))
def test_a_chain_of_scripts_ends_where_the_kernel_ends_it(length: int, here: Path) -> None:
    """Five interpreters are followed, a sixth is ELOOP, and each is in the images."""
    file = script_chain(here, length)
    target, verdict = classified(file), offer([str(file)], str(file))
    assert (target.broken.errno if target.broken else 0) == verdict.errno
    assert [image.kind for image in target.images] == ["script"] * length + ["elf"] * (length < 6)


def test_a_text_without_format_runs_by_the_shell(here: Path) -> None:
    """As execvp does after ENOEXEC: /bin/sh runs it, and is the program that is judged."""
    file = write(here / "file", TEXT)
    target, verdict = classified(file, "a"), offer([str(file), "a"])
    assert target.path == "/bin/sh"
    assert target.argv == verdict.argv == ("/bin/sh", str(file), "a")
    assert verdict.program == os.path.realpath(target.images[-1].path)
    assert codes_for(target) == []


def mount_binfmt_misc() -> None:
    """Mount a binfmt_misc of our own: one of a new user namespace (Linux 6.7), gone with us."""
    execve.call("unshare", execve.CLONE_NEWUSER | execve.CLONE_NEWNS)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text("0 0 1")
    Path("/proc/self/gid_map").write_text("0 0 1")
    where = b"/proc/sys/fs/binfmt_misc"
    execve.call("mount", b"binfmt_misc", where, b"binfmt_misc", 0, None)


def foreign_machine() -> int:
    return 183 if HOST != "aarch64" else 62


def test_an_emulated_program_is_refused_by_its_machine(here: Path) -> None:
    """A handler of binfmt_misc runs a foreign program; the refusal names machine and handler."""
    need("no-binfmt-misc", mount_binfmt_misc)
    program = patched(here, 18, struct.pack("=H", foreign_machine()))
    emulator = true_at(here / "emulator")

    def judged() -> tuple[str, str, list[str], str]:
        mount_binfmt_misc()
        magic = "".join(f"\\x{byte:02x}" for byte in struct.pack("=H", foreign_machine()))
        register = f":rtlaunch-test:M:18:{magic}::{emulator}:"
        Path("/proc/sys/fs/binfmt_misc/register").write_text(register)
        target = classified(program)
        (finding,) = found_in(target)
        verdict = offer([str(program)], str(program))
        return target.images[-1].path, verdict.program, [finding.code], finding.what

    classified_as, ran, codes, what = in_child(judged)
    assert classified_as == ran == str(emulator)
    assert codes == ["target-machine"]
    assert "rtlaunch-test" in what


def test_a_handled_data_file_is_judged_by_its_handler(here: Path) -> None:
    """What a native handler runs by its extension can be preloaded like the handler itself."""
    need("no-binfmt-misc", mount_binfmt_misc)
    data = write(here / "data.rtl", b"\0binary")
    handler = true_at(here / "handler")

    def judged() -> tuple[str, str, list[str]]:
        mount_binfmt_misc()
        register = f":rtlaunch-test:E::rtl::{handler}:"
        Path("/proc/sys/fs/binfmt_misc/register").write_text(register)
        target = classified(data)
        ran = offer([str(data)], str(data)).program
        return target.images[-1].path, ran, codes_for(target)

    assert in_child(judged) == (str(handler), str(handler), [])
