"""Programs with tools in them that check memory: they map terabytes, and mind a preload.

What a sanitizer does is done here by a library of the program's own, before any constructor of a
preloaded one; a real one would do as well, where the compiler has it.
"""

from __future__ import annotations

import shutil

import pytest

from tests.kernel.programs import compile_source
from tests.skips import skip

MODES = ["supervise", "exec"]
MIB = 1 << 20
# More than there is; from 8 TiB on the kernel miscounts VmLck (mlock_fixup, mm/mlock.c).
MAPPED = 4 << 40

LIBRARY = """
#include <stdlib.h>
#include <sys/mman.h>
__attribute__((constructor)) static void begin(void)
{
#ifdef BYTES
    if (mmap(0, BYTES, ACCESS, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) == MAP_FAILED)
        abort();
#else
    if (getenv("LD_PRELOAD"))
        exit(1);
#endif
}
"""
PROGRAM = """
#include <stdio.h>
int main(void)
{
    puts("ran");
    return 0;
}
"""


def program_with(folder, library, *flags):
    """A program whose library, of that name, does something before main()."""
    compile_source("cc", " ".join(["-shared -fPIC", *flags]), LIBRARY, folder / library)
    linked = f"-L{folder} -Wl,--no-as-needed -l:{library} -Wl,-rpath,{folder}"
    return compile_source("cc", linked, PROGRAM, folder / "program")


@pytest.fixture(scope="module")
def vast(room):
    """A program that has mapped, and not touched, 4 TiB before the shim comes."""
    folder = room / "vast"
    folder.mkdir()
    return program_with(
        folder, "libvast.so", f"-DBYTES={MAPPED}UL", "-DACCESS=PROT_READ|PROT_WRITE"
    )


@pytest.mark.parametrize("mode", MODES)
def test_more_than_there_is_is_not_locked_to_death(rtlaunch, vast, mode):
    """Refused before mlockall, with its size and the way out; nothing of it is touched."""
    process = rtlaunch.start("--mode", mode, "--", vast)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (125, "")
    assert err.startswith("rtlaunch: refused [memory-budget]: program has mapped 4")
    assert f"try now: rtlaunch --mode {mode} --lock current,future,onfault -- {vast}\n" in err


def test_that_way_out_is_one(rtlaunch, vast):
    """With onfault it is locked, all of it by the kernel's book, and takes next to no memory."""
    ran = rtlaunch.run("--lock", "current,onfault", "--", vast)
    assert (ran.code, ran.out, ran.report["lock"]["ok"]) == (0, "ran\n", True)
    assert ran.report["lock"]["locked_bytes"] > MAPPED
    assert ran.report["lock"]["resident_bytes"] < 64 * MIB


def test_a_child_that_is_so_large_runs_unlocked(rtlaunch, vast):
    """--children all: a warning, not a death, of the child or of the program."""
    ran = rtlaunch.run("--children", "all", "--", "sh", "-c", f"{vast}; exit 3")
    assert (ran.code, ran.out) == (3, "ran\n")
    assert "warning [child-unlocked]: the child program[" in ran.err
    assert ran.report["lock"]["children_locked"] == 0


def test_what_is_mapped_and_cannot_be_touched_does_not_count(rtlaunch, here):
    """As the reservations of a runtime, without access: mlockall passes over them."""
    program = program_with(here, "libnone.so", f"-DBYTES={MAPPED}UL", "-DACCESS=PROT_NONE")
    ran = rtlaunch.run("--lock", "current", "--", program)
    assert (ran.code, ran.out, ran.report["lock"]["ok"]) == (0, "ran\n", True)


def test_address_sanitizer_is_named_with_its_own_way_out(rtlaunch, here):
    """Its library ends a program before the shim could speak; that is no loader's fault."""
    program = program_with(here, "libasan.so.99")
    ran = rtlaunch.run("--", program)
    assert (ran.code, ran.out) == (125, "")
    assert ran.err.startswith("rtlaunch: refused [shim-silent]: ")
    assert "try now: ASAN_OPTIONS=verify_asan_link_order=0 rtlaunch " in ran.err


def test_valgrind_finds_nothing_to_say_of_the_shim(rtlaunch):
    """Not one byte is handed to the kernel that nobody wrote."""
    if not shutil.which("valgrind"):
        skip("no-such-program")
    ran = rtlaunch.run("--", "valgrind", "-q", "--error-exitcode=9", "/bin/true", timeout=60)
    assert (ran.code, ran.err) == (0, "")
