"""What rtlaunch was started with, so that the target gets exactly that.

A Python interpreter changes its process before the first line of ours runs:
it adds LC_CTYPE to the environment, ignores SIGPIPE and SIGXFSZ, and lets the
first descriptor it opens become 0 when 0 was closed. Here the original state
is taken down at the start and put back in the child before exec.

It must not change anything that the target could see on purpose: that is the
plan's.
"""

from __future__ import annotations

import _signal
import os
import sys
from fcntl import F_DUPFD_CLOEXEC, F_GETFD, fcntl

from rtlaunch.core.record import Record

# The signals whose disposition Python itself sets at start (Python/pylifecycle.c).
PYTHON_IGNORES = (_signal.SIGPIPE, _signal.SIGXFSZ)

# What a terminal's keys send to a whole process group: what came before the fork the child lacks.
KEYS = frozenset((_signal.SIGINT, _signal.SIGQUIT, _signal.SIGTSTP))

STANDARD_STREAMS = (0, 1, 2)


class Inherited(Record):
    """The state of this process as it was when it was exec()ed.

    ``ignored`` are the signals whose disposition was SIG_IGN, ``mask`` the
    blocked ones, ``closed`` the standard descriptors that were not open.
    """

    environ: dict[str, str]
    ignored: frozenset[int]
    mask: frozenset[int]
    closed: tuple[int, ...]


def take_down() -> Inherited:
    """Read the inherited state and make room: closed standard descriptors get a placeholder.

    OSError (ENOENT) where /proc is not mounted.
    """
    closed = tuple(fd for fd in STANDARD_STREAMS if not is_open(fd))
    for fd in closed:
        hold(fd)
    mask = frozenset(int(number) for number in _signal.pthread_sigmask(_signal.SIG_BLOCK, ()))
    return Inherited(read_environ(), ignored_at_start(), mask - held_by_stub(), closed)


def is_open(fd: int) -> bool:
    """Tell whether ``fd`` is an open descriptor."""
    try:
        fcntl(fd, F_GETFD)
    except OSError:
        return False
    return True


def hold(fd: int) -> None:
    """Occupy ``fd`` until exec, so that no descriptor of ours lands on it."""
    nothing = open_nothing()
    if nothing != fd:
        fcntl(nothing, F_DUPFD_CLOEXEC, fd)
        os.close(nothing)


def open_nothing() -> int:
    """Open what can neither be read nor written, as if it were closed.

    No /dev/null: a chroot may have none, and what is written there would seem to have arrived.
    """
    return os.open("/", os.O_PATH | os.O_CLOEXEC)


def read_environ() -> dict[str, str]:
    """Return the environment as exec gave it, without what Python added since.

    /proc/self/environ is the block on the initial stack, which setenv(3) never
    writes to. Of a name that is there twice the first one counts, as in getenv(3).
    """
    with open("/proc/self/environ", "rb") as file:
        block = os.fsdecode(file.read())
    entries = (entry.partition("=") for entry in reversed(block.split("\0")))
    made = {key: value for key, equals, value in entries if key and equals}
    return dict(reversed(made.items()))


def ignored_at_start() -> frozenset[int]:
    """Return the signals that were ignored when we were exec()ed.

    For those that Python ignores by itself only the entry stub, which runs
    before Python, can know.
    """
    seen = {number for number in range(1, _signal.NSIG) if is_ignored(number)}
    stub_saw, _, _ = told_by_stub()
    for number in PYTHON_IGNORES:
        if not stub_saw >> (number - 1) & 1:
            seen.discard(int(number))
    return frozenset(seen)


def told_by_stub() -> tuple[int, int, int]:
    """Return what ``-X rtlaunch=IGNORED:PID:HELD`` says (native/stub.c): a mask, a child, a mask.

    All are 0 where the interpreter was started without the stub.
    """
    ignored, pid, held = str(sys._xoptions.get("rtlaunch", "0:0:0")).split(":")
    return int(ignored, 16), int(pid), int(held, 16)


def held_by_stub() -> frozenset[int]:
    """Return the signals that the stub blocked, which were not blocked before it."""
    _, _, held = told_by_stub()
    return frozenset(number for number in range(1, _signal.NSIG) if held >> (number - 1) & 1)


def reap_helper() -> None:
    """Wait for the child that the stub started to warm perf up, where no target ran to reap it."""
    _, pid, _ = told_by_stub()
    if pid:
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:  # an inherited SIG_IGN for SIGCHLD reaps without us
            return


def is_ignored(number: int) -> bool:
    """Tell whether the disposition of signal ``number`` is SIG_IGN."""
    try:
        return bool(_signal.getsignal(number) == _signal.SIG_IGN)
    except ValueError:  # 32 and 33 are the C library's own
        return False


def unblock_held() -> None:
    """Let through what the stub blocked: no program is launched, whose signals they are."""
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, held_by_stub())


def block_signals(but: frozenset[int] = frozenset()) -> None:
    """Block every signal, for a signalfd to take; SIGCHLD must not be ignored.

    A blocked signal is queued even where its disposition is to ignore it, so
    none is lost. An inherited SIG_IGN for SIGCHLD would reap the target
    behind our back.
    """
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    numbers = (number for number in range(1, _signal.NSIG) if not is_reserved(number))
    _signal.pthread_sigmask(_signal.SIG_BLOCK, [one for one in numbers if one not in but])


def give_back(inherited: Inherited) -> None:
    """Put signal dispositions, mask and standard descriptors back; called in the child before exec.

    Descriptors held open here carry close-on-exec, so that exec closes them.
    """
    for number in range(1, _signal.NSIG):
        wanted = _signal.SIG_IGN if number in inherited.ignored else _signal.SIG_DFL
        if number in (_signal.SIGKILL, _signal.SIGSTOP) or is_reserved(number):
            continue
        if _signal.getsignal(number) != wanted:
            _signal.signal(number, wanted)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, inherited.mask)


def is_reserved(number: int) -> bool:
    """Tell whether the C library keeps signal ``number`` for itself."""
    return bool(31 < number < _signal.SIGRTMIN)
