"""Texts of /proc/PID as values: status, stat, limits, maps and smaps (proc(5)).

It must not read anything: texts come from :mod:`rtlaunch.linux.proc`.
"""

from __future__ import annotations

from rtlaunch.core.numbers import UNLIMITED
from rtlaunch.core.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


# ---------------------------------------------------------------- status


class Status(Record):
    """/proc/PID/status: identity, capability sets and pending signals as masks, memory in bytes.

    ``uids`` and ``gids`` are real, effective, saved, file system. A zombie or a
    kernel thread has no memory: its sizes are 0. ``seccomp`` is 0 off,
    1 strict, 2 filter; ``tgid`` is the process of a thread, ``tracer`` who traces it, 0 nobody;
    ``sig_pnd`` are the signals pending for the thread alone; ``thp_enabled`` is None before
    Linux 5.0. ``vm_peak`` and ``vm_hwm`` are the most that VmSize and VmRSS ever were since exec.
    """

    name: str
    state: str
    pid: int
    ppid: int
    uids: tuple[int, ...]
    gids: tuple[int, ...]
    groups: tuple[int, ...] = ()
    threads: int = 0
    vm_size: int = 0
    vm_lck: int = 0
    vm_rss: int = 0
    tracer: int = 0
    sig_pnd: int = 0
    cap_inh: int = 0
    cap_prm: int = 0
    cap_eff: int = 0
    cap_bnd: int = 0
    cap_amb: int = 0
    no_new_privs: int = 0
    seccomp: int = 0
    seccomp_filters: int = 0
    tgid: int = 0
    cpus: str = ""
    thp_enabled: int | None = None
    vm_peak: int = 0
    vm_hwm: int = 0
    vm_pte: int = 0


def _kilobytes(text: str) -> int:
    return int(text.split(None, 1)[0]) * 1024


def _hexadecimal(text: str) -> int:
    return int(text, 16)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split())


def _letter(text: str) -> str:
    return text[:1]


# label in the file: (field, reader)
_STATUS: dict[str, tuple[str, Callable[[str], object]]] = {
    "Name": ("name", str),
    "State": ("state", _letter),
    "Pid": ("pid", int),
    "PPid": ("ppid", int),
    "Uid": ("uids", _numbers),
    "Gid": ("gids", _numbers),
    "Groups": ("groups", _numbers),
    "Threads": ("threads", int),
    "VmPeak": ("vm_peak", _kilobytes),
    "VmSize": ("vm_size", _kilobytes),
    "VmLck": ("vm_lck", _kilobytes),
    "VmHWM": ("vm_hwm", _kilobytes),
    "VmRSS": ("vm_rss", _kilobytes),
    "VmPTE": ("vm_pte", _kilobytes),
    "TracerPid": ("tracer", int),
    "SigPnd": ("sig_pnd", _hexadecimal),
    "CapInh": ("cap_inh", _hexadecimal),
    "CapPrm": ("cap_prm", _hexadecimal),
    "CapEff": ("cap_eff", _hexadecimal),
    "CapBnd": ("cap_bnd", _hexadecimal),
    "CapAmb": ("cap_amb", _hexadecimal),
    "NoNewPrivs": ("no_new_privs", int),
    "THP_enabled": ("thp_enabled", int),
    "Seccomp": ("seccomp", int),
    "Seccomp_filters": ("seccomp_filters", int),
    "Tgid": ("tgid", int),
    "Cpus_allowed_list": ("cpus", str),
}


def parse_status(text: str) -> Status:
    """Parse /proc/PID/status; TypeError if it lacks name, state, pids or ids."""
    found: dict[str, object] = {}
    for line in text.split("\n"):
        label, _, rest = line.partition(":")
        row = _STATUS.get(label)
        if row is not None:
            found[row[0]] = row[1](rest.strip())
    return Status(**found)  # type: ignore[arg-type]


# ---------------------------------------------------------------- stat


class Stat(Record):
    """/proc/PID/stat, or a thread's: what a watch counts by.

    ``minflt`` and ``majflt`` cover all threads, ended ones too, in the
    process's file and one thread in /proc/PID/task/TID/stat; times are clock
    ticks, ``starttime`` since boot; ``startstack`` is 0 where ptrace is denied. ``cutime`` and
    ``cstime`` are those of children that were waited for.
    """

    pid: int
    comm: str
    state: str
    ppid: int
    session: int
    flags: int
    minflt: int
    majflt: int
    utime: int
    stime: int
    starttime: int
    startstack: int
    processor: int
    rt_priority: int
    policy: int
    cutime: int = 0
    cstime: int = 0

    @property
    def is_ending(self) -> bool:
        """Whether it has ended, or is in do_exit: PF_EXITING (include/linux/sched.h)."""
        return self.state in "ZX" or bool(self.flags & _PF_EXITING)


_PF_EXITING = 0x4

# Positions after the command's closing parenthesis, `state` being 0: proc(5) counts it as field 3.
_STAT = (1, 3, 6, 7, 9, 11, 12, 19, 25, 36, 37, 38, 13, 14)
_STAT_WORDS = 39


def parse_stat(text: str) -> Stat:
    """Parse a stat line; the command may hold spaces and parentheses. ValueError if cut short."""
    opening, closing = text.index("("), text.rindex(")")
    words = text[closing + 2 :].split()
    if len(words) < _STAT_WORDS:
        raise ValueError(f"a stat line of {len(words) + 2} fields")
    numbers = [int(words[at]) for at in _STAT]
    return Stat(int(text[:opening]), text[opening + 1 : closing], words[0], *numbers)


# ---------------------------------------------------------------- syscall


def parse_stack_pointer(text: str) -> int | None:
    """Return a thread's stack pointer from its /proc/PID/task/TID/syscall; None while it runs.

    The last but one word, whether it is in a system call or not (fs/proc/base.c).
    """
    words = text.split()
    return int(words[-2], 16) if len(words) > 2 else None


# ---------------------------------------------------------------- limits

# label in the file: name as in --limit (fs/proc/base.c, lnames)
_LIMITS = {
    "Max cpu time": "cpu",
    "Max file size": "fsize",
    "Max data size": "data",
    "Max stack size": "stack",
    "Max core file size": "core",
    "Max resident set": "rss",
    "Max processes": "nproc",
    "Max open files": "nofile",
    "Max locked memory": "memlock",
    "Max address space": "as",
    "Max file locks": "locks",
    "Max pending signals": "sigpending",
    "Max msgqueue size": "msgqueue",
    "Max nice priority": "nice",
    "Max realtime priority": "rtprio",
    "Max realtime timeout": "rttime",
}
_LABEL_WIDTH = 25  # fs/proc/base.c, proc_pid_limits: "%-25s %-20s %-20s %-10s"


def _limit(word: str) -> int:
    return UNLIMITED if word == "unlimited" else int(word)


def parse_limits(text: str) -> dict[str, tuple[int, int]]:
    """Parse /proc/PID/limits into name: (soft, hard), UNLIMITED for no limit."""
    limits = {}
    for line in text.split("\n"):
        name = _LIMITS.get(line[:_LABEL_WIDTH].rstrip())
        if name is not None:
            soft, hard, *_ = line[_LABEL_WIDTH:].split()
            limits[name] = (_limit(soft), _limit(hard))
    return limits


# ---------------------------------------------------------------- maps and smaps


class Mapping(Record):
    """One mapping of a process: addresses, and in smaps what is in memory, in bytes.

    ``perms`` is as in ``rw-p``; ``offset`` is where in the file it begins;
    ``path`` is the kernel's name for it, with ``[stack]`` and `` (deleted)``,
    empty for anonymous memory; ``flags`` are VmFlags' two-letter codes, empty
    when read from maps.
    """

    start: int
    end: int
    perms: str
    offset: int
    dev: str
    inode: int
    path: str
    rss: int = 0
    locked: int = 0
    flags: frozenset[str] = frozenset()

    @property
    def size(self) -> int:
        """Bytes of address space."""
        return self.end - self.start

    @property
    def accessible(self) -> bool:
        """Whether any access is allowed; PROT_NONE memory has no pages to lose."""
        return self.perms[:3] != "---"


_HEADER_FIELDS = 6
_Header = tuple[int, int, str, int, str, int, str]


def _header(line: str) -> _Header:
    """Split `start-end perms offset dev inode   path`; the path may hold spaces."""
    words = line.split(None, _HEADER_FIELDS - 1)
    start, _, end = words[0].partition("-")
    path = words[5] if len(words) == _HEADER_FIELDS else ""
    return int(start, 16), int(end, 16), words[1], int(words[2], 16), words[3], int(words[4]), path


STACK_ENDS = " [stack]\n"


def parse_maps(text: str) -> tuple[Mapping, ...]:
    """Parse /proc/PID/maps; residence and flags stay empty."""
    return tuple(Mapping(*_header(line)) for line in text.split("\n") if line)


def parse_stack(text: str) -> tuple[Mapping, ...]:
    """Parse of /proc/PID/maps the main stack and what lies below it; nothing where none is named.

    The target waits meanwhile, and has some twenty others.
    """
    at = text.rfind(STACK_ENDS)
    if at < 0:
        return ()
    line = text.rfind("\n", 0, at) + 1
    below = text.rfind("\n", 0, max(line - 1, 0)) + 1
    return parse_maps(text[below : at + len(STACK_ENDS)])


def _after(text: str, label: str, start: int) -> tuple[str, int]:
    """Return the rest of the line that ``label`` opens at or after ``start``, and where it ends."""
    begin = text.index(label, start) + len(label)
    end = text.index("\n", begin)
    return text[begin:end], end


def parse_smaps(text: str) -> tuple[Mapping, ...]:
    """Parse /proc/PID/smaps; ValueError if a mapping lacks its lines.

    Three of some 25 lines of a mapping matter: they are searched for, in the
    kernel's order (fs/proc/task_mmu.c, show_smap), because looking at every
    line costs five times as much, and the target waits meanwhile.
    """
    mappings = []
    sets: dict[str, frozenset[str]] = {}
    at, length = 0, len(text)
    while at < length:
        header, at = _after(text, "", at)
        rss, at = _after(text, "\nRss:", at)
        locked, at = _after(text, "\nLocked:", at)
        codes, at = _after(text, "\nVmFlags:", at)
        flags = sets.get(codes)
        if flags is None:
            flags = sets[codes] = frozenset(codes.split())
        mappings.append(Mapping(*_header(header), _kilobytes(rss), _kilobytes(locked), flags))
        at += 1
    return tuple(mappings)
