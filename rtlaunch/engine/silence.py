"""Programs that did not speak: what a target did that never announced itself, or never got to go.

It looks and words; what follows is the supervisor's to do.
"""

from __future__ import annotations

import os

from rtlaunch.core.findings import Finding
from rtlaunch.core.proc import parse_maps, parse_stat
from rtlaunch.core.units import signal_name
from rtlaunch.linux import files, proc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rtlaunch.core.outcome import Exit

SIGILL, SIGBUS, SIGKILL, SIGSEGV, SIGSYS = 4, 7, 9, 11, 31
LOADER_FAILED = 127  # what ld.so exits with when it cannot start a program

# Deaths that a launch itself can bring about; by any other signal somebody ended the program.
CAUSES = {
    SIGSYS: "a seccomp filter kills it for one of the calls that locking takes",
    SIGSEGV: "touching the stack went below its limit, or the program itself is broken",
    SIGBUS: "a page could not be had: a hugetlb or memory cgroup limit, or a truncated file",
    SIGKILL: "somebody killed it, or memory ran out while it was locked (see the kernel's log)",
    SIGILL: "the program or its loader is not for this processor",
}

# What a program has that AddressSanitizer is in: its library's name, or its own first symbol.
SANITIZER_MARKS = (b"libasan.so", b"libclang_rt.asan", b"__asan_init")
LARGEST_BYTES = 256 << 20  # of a program that is searched for them

# A process stopped or waiting for the disk is not asked why it is silent.
BUSY_STATES = "TtD"


def runs_without_shim(pid: int, shim_path: str) -> bool:
    """Tell whether ``pid`` has exec()ed, runs, and has nothing mapped from the shim's folder.

    False where it cannot be seen, and while the loader may still come to it.
    """
    try:
        mappings = parse_maps(proc.read_text(pid, "maps"))
        state = parse_stat(proc.read_text(pid, "stat")).state
        same_image = os.readlink(f"/proc/{pid}/exe") == os.readlink("/proc/self/exe")
    except OSError:
        return False
    folder = os.path.dirname(os.path.realpath(shim_path)) + "/"
    return (
        not same_image
        and state not in BUSY_STATES
        and not any(mapping.path.startswith(folder) for mapping in mappings)
    )


def ignored_preload(command: str, pid: int) -> Finding:
    """Return the finding for a program that runs although its loader mapped no shim."""
    return Finding(
        "shim-silent",
        f"{command}[{pid}] runs without the shim: its loader ignored LD_PRELOAD",
        why="a secure-execution program, or a loader that knows no preload",
        values={"pid": pid},
    )


def died_before_go(command: str, end: Exit, entered: bool, program: str | None) -> Finding | None:
    """Say why a target is dead that was never told to go; None where somebody else ended it."""
    if end.signal is not None:
        cause = CAUSES.get(end.signal)
        if cause is None:
            return None
        name = signal_name(end.signal)
        when = "while it was being locked" if entered else "before the shim could announce itself"
        return Finding(
            "died-before-go",
            f"{command} died of SIG{name} {when}: {cause}",
            why="it did not get to main()",
            values={"signal": name, "entered": entered},
        )
    how = "ended" if end.code is None else f"exited with {end.code}"  # its parent may know
    if entered:
        return Finding(
            "died-before-go",
            f"{command} {how} while it was being locked",
            why="the program did not get to main()",
            values={"code": end.code, "entered": entered},
        )
    return Finding(
        "shim-silent",
        f"{command} {how} and never announced itself",
        why="its loader could not start it; what it said stands above"
        if end.code == LOADER_FAILED
        else "its loader ignored LD_PRELOAD, and it ran unlocked; or a library of its own, which "
        "comes before the shim, ended it",
        values={"code": end.code, **sanitizer_of(program)},
    )


def sanitizer_of(program: str | None) -> dict[str, str]:
    """Name AddressSanitizer, for a finding, where a program has it or asks for its library."""
    if program is None:
        return {}
    try:
        fd = files.open_read(program)
    except OSError:
        return {}
    try:
        image = files.read_at(fd, 0, LARGEST_BYTES)
    finally:
        os.close(fd)
    marked = any(mark in image for mark in SANITIZER_MARKS)
    return {"sanitizer": "AddressSanitizer"} if marked else {}
