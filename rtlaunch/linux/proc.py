"""Reading /proc/PID.

One function per kind of reading, nothing parsed: texts go to
:mod:`rtlaunch.core.proc`. smaps is read once, while the target stands still,
and never of a running target: its mmap would stall meanwhile. ``rtlaunch fit``,
whose runs are there to be measured, is the exception.
"""

from __future__ import annotations

import os

from rtlaunch.core.proc import Stat, parse_stack_pointer, parse_stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rtlaunch.core.proc import Mapping

_CHUNK_BYTES = 1 << 16
_PAGEMAP_BYTES, _SWAPPED = 8, 62  # an entry, and its bits from there on: in swap, in memory
_STAT_BYTES = 1024  # 52 numbers of at most 20 digits, and a name of at most 64


class ProcMissing(OSError):
    """/proc is not there, so that nothing can be read back or proven."""


def _open(pid: int, name: str) -> int:
    """Open /proc/``pid``/``name``; ProcMissing if that is because there is no /proc at all."""
    path = f"/proc/{pid}/{name}"
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        if os.geteuid():
            raise
        from rtlaunch.linux import guise

        return guise.as_owner(f"/proc/{pid}", lambda: os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except FileNotFoundError as error:
        if os.path.exists("/proc/self/stat"):
            raise
        raise ProcMissing(error.errno, "/proc is not mounted here") from error


def read_text(pid: int, name: str) -> str:
    """Read /proc/``pid``/``name`` whole.

    FileNotFoundError or ProcessLookupError if the process is gone, PermissionError where
    ptrace access is denied (smaps, maps), ProcMissing without /proc.
    """
    return read_bytes(pid, name).decode("utf-8", "surrogateescape")


def read_bytes(pid: int, name: str) -> bytes:
    """Read /proc/``pid``/``name`` as it is; the errors are those of :func:`read_text`."""
    fd = _open(pid, name)
    try:
        chunks = []
        while chunk := os.read(fd, _CHUNK_BYTES):
            chunks.append(chunk)
    finally:
        os.close(fd)
    return b"".join(chunks)


def mapped_bytes(pid: int) -> int:
    """Return the size of all that ``pid`` has mapped (VmSize); 0 where that cannot be seen."""
    try:
        return int(read_text(pid, "statm").split(None, 1)[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ProcMissing):
        return 0


def read_exe(pid: int) -> str:
    """Return the path of the program that ``pid`` runs; OSError as for :func:`read_text`."""
    path = f"/proc/{pid}/exe"
    try:
        return os.readlink(path)
    except PermissionError:
        if os.geteuid():
            raise
        from rtlaunch.linux import guise

        return guise.as_owner(f"/proc/{pid}", lambda: os.readlink(path))


def read_vdso(pid: int) -> tuple[int, bytes]:
    """Return address and bytes of the code that the kernel maps into every process (vdso(7)).

    ``(0, b"")`` where it has none (the kernel was started with vdso=0); PermissionError where
    ptrace access is denied.
    """
    lines = (line for line in read_text(pid, "maps").splitlines() if line.endswith("[vdso]"))
    start, _, end = next(lines, "0-0").partition(" ")[0].partition("-")
    fd = _open(pid, "mem")
    try:
        return int(start, 16), os.pread(fd, int(end, 16) - int(start, 16), int(start, 16))
    finally:
        os.close(fd)


def read_memory(pid: int, address: int, size: int) -> bytes:
    """Read memory of a process; OSError with EIO where nothing is mapped.

    A read below its main stack makes that grow (mm/memory.c, __access_remote_vm).
    """
    fd = _open(pid, "mem")
    try:
        return os.pread(fd, size, address)
    finally:
        os.close(fd)


def write_memory(pid: int, address: int, data: bytes) -> None:
    """Write memory of a process; the errors are those of :func:`read_memory`."""
    fd = os.open(f"/proc/{pid}/mem", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(fd, data, address)
    finally:
        os.close(fd)


def read_stat(pid: int) -> str:
    """Read /proc/``pid``/stat, which one read gives whole; the errors are those of read_text."""
    fd = _open(pid, "stat")
    try:
        return os.read(fd, _STAT_BYTES).decode("utf-8", "surrogateescape")
    finally:
        os.close(fd)


def descriptor_of(pid: int, identity: tuple[int, int]) -> int:
    """Return by which number ``pid`` has the file with this st_dev and st_ino; -1 if it has not."""
    for number in sorted(map(int, os.listdir(f"/proc/{pid}/fd")), reverse=True):
        try:
            found = os.stat(f"/proc/{pid}/fd/{number}")
        except FileNotFoundError:
            continue  # a file that is gone, of a file system that forgets
        if (found.st_dev, found.st_ino) == identity:
            return number
    return -1


def thread_ids(pid: int) -> tuple[int, ...]:
    """List the threads of ``pid``; FileNotFoundError if it is gone."""
    return tuple(int(name) for name in os.listdir(f"/proc/{pid}/task"))


def stack_pointers(pid: int) -> tuple[int, ...]:
    """Return the stack pointers of the threads of ``pid`` that do not run this moment."""
    found = []
    for tid in thread_ids(pid):
        try:
            pointer = parse_stack_pointer(read_text(pid, f"task/{tid}/syscall"))
        except OSError:
            continue  # it ended, or ptrace access is denied
        if pointer is not None:
            found.append(pointer)
    return tuple(found)


def lowest_touched(pid: int, start: int, end: int, page: int) -> int | None:
    """Return the first address from ``start`` to ``end`` whose page is in memory or in swap.

    None where none is, or where /proc/PID/pagemap cannot be read (proc(5)).
    """
    try:
        fd = _open(pid, "pagemap")
    except OSError:
        return None
    try:
        first, count = start // page, (end - start) // page
        entries = os.pread(fd, count * _PAGEMAP_BYTES, first * _PAGEMAP_BYTES)
    except OSError:
        return None
    finally:
        os.close(fd)
    words = memoryview(entries).cast("Q")
    return next((start + at * page for at, word in enumerate(words) if word >> _SWAPPED), None)


def descendants(pid: int) -> tuple[int, ...]:
    """List the children of ``pid``, their children, and so on, as far as they are there still."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        try:
            listed = [read_text(parent, f"task/{tid}/children") for tid in thread_ids(parent)]
        except OSError:
            continue
        born = [int(word) for text in listed for word in text.split()]
        found += born
        waiting += born
    return tuple(found)


def private_bytes(pid: int) -> int:
    """Return what ``pid`` has in memory that nobody shares; 0 if it is gone or cannot be read."""
    try:
        text = read_text(pid, "smaps_rollup")
    except OSError:
        return 0
    lines = (line.split() for line in text.split("\n") if line.startswith("Private_"))
    return sum(int(words[1]) << 10 for words in lines)


def _length(path: str, inode: int) -> int | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size if found.st_ino == inode else None


def mapped_file_bytes(pid: int, mapping: Mapping) -> int | None:
    """Return the length of the file behind a mapping, None if it cannot be learnt.

    By its name as the process sees it, or, for a deleted or covered file, by
    /proc/PID/map_files, which needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN.
    """
    named = _length(f"/proc/{pid}/root{mapping.path}", mapping.inode)
    if named is not None:
        return named
    return _length(f"/proc/{pid}/map_files/{mapping.start:x}-{mapping.end:x}", mapping.inode)


class StatReader:
    """/proc/PID/stat, or a thread's, over and over: 5 us each, by pread on one descriptor.

    The descriptor means this very process: once it is reaped, reading raises
    ProcessLookupError, whoever got the number since.
    """

    def __init__(self, pid: int, tid: int | None = None) -> None:
        """Open it; the errors are those of :func:`read_text`."""
        self._fd = _open(pid, "stat" if tid is None else f"task/{tid}/stat")

    def read(self) -> Stat:
        """Read and parse it; a zombie still has its counts, its stack address is 0."""
        return parse_stat(os.pread(self._fd, _STAT_BYTES, 0).decode("utf-8", "surrogateescape"))

    def close(self) -> None:
        """Close the descriptor; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def zombie_status(pid: int) -> int | None:
    """Return the wait status of a zombie; None where it is none, or may not be seen.

    The last field of stat is 0 to whom ptrace access is denied (proc_pid_stat(5)), so that a 0 is
    believed only if the stack's address, hidden by the same rule, is not asked for either.
    """
    try:
        text = read_text(pid, "stat")
        os.readlink(f"/proc/{pid}/ns/user")  # the same access check
    except OSError:
        return None
    words = text[text.rindex(")") + 2 :].split()
    return int(words[49]) if words[0] == "Z" else None


def has_controlling_terminal() -> bool:
    """Tell whether this process has a controlling terminal: /dev/tty opens (tty(4))."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
