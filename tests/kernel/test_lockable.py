"""The rule of what mlockall locks, against the kernel that does it."""

from __future__ import annotations

import ctypes
import mmap
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rtlaunch.core.proc import Mapping, parse_smaps
from rtlaunch.core.proof import lockable, unlocked
from rtlaunch.linux import libc, proc
from tests.kernel import execve
from tests.kernel.execve import NOBODY, become_user, in_child
from tests.skips import skip

MIB = 1 << 20
MAP_DROPPABLE = 8  # since Linux 6.11
CURRENT_FUTURE = libc.MCL_CURRENT | libc.MCL_FUTURE


def need_root() -> None:
    if os.geteuid() != 0:
        skip("not-root")


def books() -> tuple[Mapping, ...]:
    return parse_smaps(proc.read_text(os.getpid(), "smaps"))


def judged(onfault: bool = False) -> tuple[Mapping, ...]:
    length = partial(proc.mapped_file_bytes, os.getpid())
    return unlocked(books(), onfault, length, mmap.PAGESIZE)


def anonymous(prot: int, flags: int = mmap.MAP_PRIVATE) -> mmap.mmap:
    return mmap.mmap(-1, MIB, flags | mmap.MAP_ANONYMOUS, prot)


def odd_memory(folder: Path) -> list[Any]:
    """Map one of everything that a program may have."""
    held: list[Any] = [
        anonymous(mmap.PROT_READ | mmap.PROT_WRITE),
        anonymous(mmap.PROT_READ),
        anonymous(0),
        anonymous(mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED),
    ]
    path = folder / "cut short after mapping"
    path.write_bytes(bytes(16 * mmap.PAGESIZE))
    with path.open("r+b") as file:
        for access in (mmap.ACCESS_READ, mmap.ACCESS_WRITE, mmap.ACCESS_COPY):
            held.append(mmap.mmap(file.fileno(), 0, access=access))
        file.truncate(5000)
    return held


def test_after_mlockall_nothing_is_found_unlocked(here: Path) -> None:
    """Anonymous, read-only, forbidden, shared memory, and files shorter than their mappings."""
    need_root()

    def found() -> list[str]:
        held = odd_memory(here)
        libc.mlockall(CURRENT_FUTURE)
        held.append(anonymous(mmap.PROT_READ | mmap.PROT_WRITE))
        return [repr(mapping) for mapping in judged()]

    assert in_child(found) == []


def test_a_deleted_file_is_measured_too(here: Path) -> None:
    """Its name leads nowhere; /proc/PID/map_files still does, for who may."""
    need_root()

    def found() -> list[str]:
        held = odd_memory(here)
        for path in here.iterdir():
            path.unlink()
        libc.mlockall(CURRENT_FUTURE)
        assert held
        return [repr(mapping) for mapping in judged()]

    assert in_child(found) == []


def test_one_unlocked_mapping_among_all_is_found() -> None:
    """Exactly that one, though it is resident."""
    need_root()

    def found() -> tuple[int, list[tuple[int, int]]]:
        libc.mlockall(CURRENT_FUTURE)
        memory = anonymous(mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED)
        place = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        execve.call("munlock", ctypes.c_void_p(place), ctypes.c_size_t(MIB))
        return place, [(mapping.start, mapping.size) for mapping in judged()]

    place, spans = in_child(found)
    assert spans == [(place, MIB)]


def test_on_fault_locks_what_is_not_there() -> None:
    """MCL_ONFAULT leaves untouched memory out; asked strictly it is found, asked for it is not."""
    need_root()

    def found() -> tuple[int, int]:
        libc.mlockall(CURRENT_FUTURE | libc.MCL_ONFAULT)
        held = anonymous(mmap.PROT_READ | mmap.PROT_WRITE)
        assert held
        return len(judged(onfault=True)), len(judged())

    lenient, strict = in_child(found)
    assert lenient == 0
    assert strict >= 1


def test_without_a_lock_all_that_is_lockable_is_found() -> None:
    """Ourselves: every mapping but those that the kernel never locks.

    Droppable ones among these: from 2.41 on glibc has one for getrandom(2) in the vdso.
    """
    spared = [mapping for mapping in books() if not lockable(mapping)]
    names = {mapping.path for mapping in spared if "dp" not in mapping.flags}
    assert names <= {"[vdso]", "[vvar]", "[vvar_vclock]", "[vsyscall]"}
    assert len(judged()) == len([one for one in books() if lockable(one)])


def test_droppable_memory_is_never_locked() -> None:
    """The kernel passes over it in silence, and so must the proof."""
    need_root()

    def found() -> list[bool]:
        memory = mmap.mmap(-1, MIB, MAP_DROPPABLE | mmap.MAP_ANONYMOUS)
        place = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        libc.mlockall(CURRENT_FUTURE)
        (mapping,) = [one for one in books() if one.start <= place < one.end]
        return [lockable(mapping), "lo" in mapping.flags]

    try:
        mmap.mmap(-1, MIB, MAP_DROPPABLE | mmap.MAP_ANONYMOUS).close()
    except OSError:
        skip("no-droppable")
    assert in_child(found) == [False, False]


def test_books_that_may_not_be_read_are_an_error() -> None:
    """Another user's smaps: PermissionError, not an empty proof."""
    need_root()
    parent = os.getpid()

    def found() -> str:
        become_user(NOBODY)
        with pytest.raises(PermissionError):
            proc.read_text(parent, "smaps")
        return "refused"

    assert in_child(found) == "refused"


def test_a_process_that_is_gone_is_told_from_a_missing_proc() -> None:
    """FileNotFoundError for a pid that is nobody's."""
    child = os.fork()
    if not child:
        os._exit(0)
    reader = proc.StatReader(child)
    os.waitpid(child, 0)
    with pytest.raises(FileNotFoundError):
        proc.read_text(child, "status")
    with pytest.raises(ProcessLookupError):
        reader.read()
    reader.close()


def test_a_missing_proc_is_named() -> None:
    """Where /proc is not mounted the error says so, whatever file was wanted."""
    need_root()

    def found() -> str:
        try:
            execve.mount_private(0, Path("/proc"))
        except OSError:
            return "no-mount"
        with pytest.raises(proc.ProcMissing) as caught:
            proc.read_text(os.getpid(), "status")
        return str(caught.value)

    said = in_child(found)
    if said == "no-mount":
        skip("no-mount")
    assert "/proc is not mounted here" in said
