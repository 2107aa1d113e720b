"""What wakes the watcher of a target that takes no faults: a signal, where it can be one.

Who polls an inherited event is woken, for nothing, at each exit of a thread of
the target (kernel/events/core.c, perf_event_exit_event); where the two share
their CPUs that is a tenth of what pthread_create costs it. The signal that
fcntl(2) asks for with O_ASYNC comes for samples and half full rings alone. It
is taken from a signalfd, by the thread that hung the bell, which blocks it.

But it wakes all who poll a signalfd, so our main thread too, and a fault is
told some 10 us later than by poll(2). So the first fault takes the bell down.

It must not read the rings, and no signal that was sent by somebody stays with it.
"""

from __future__ import annotations

import _signal
import os
import sys
from _thread import get_native_id

from rtlaunch.linux import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rtlaunch.engine.feed import Feed

# It is pending once however often it is sent, and takes up no room in a queue.
_SIGNAL = _signal.SIGIO
_SIGINFO_BYTES = 128  # siginfo_t's and struct signalfd_siginfo's
# Before Linux 6.10 a ring that is half full of anything but samples sends no signal
# (kernel/events/ring_buffer.c, perf_output_wakeup).
SINCE = (6, 10)


def rings_for_all() -> bool:
    """Tell whether this kernel rings for all that poll(2) would wake for, but an event's end."""
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int("".join(filter(str.isdigit, minor[:3])) or 0)) >= SINCE


def _siginfo(told: bytes) -> bytes:
    """Return the siginfo_t of what a signalfd told: number, errno; code; pid, uid; value.

    A thread may not pass a kill for a kill (kernel/signal.c, do_rt_tgsigqueueinfo), but for this.
    """
    queued = told[8:12] == libc.SI_QUEUE.to_bytes(4, sys.byteorder, signed=True)
    code = libc.SI_QUEUE if queued else libc.SI_SIGIO
    parts = (told[:8], code.to_bytes(4, sys.byteorder, signed=True), bytes(4), told[12:20])
    return b"".join((*parts, told[48:56])).ljust(_SIGINFO_BYTES, b"\0")


class Bell:
    """The bell of one watcher; all methods are for its thread."""

    def __init__(self) -> None:
        """Get a signalfd; without one, or where a filter may kill us for it, rings are polled."""
        self.fd = -1
        if rings_for_all() and not libc.has_seccomp_filter():
            try:
                self.fd = libc.signalfd4(-1, 1 << _SIGNAL - 1)
            except OSError:  # no descriptor left
                return

    def hang(self, feed: Feed) -> list[int]:
        """Have the events of ``feed`` ring; return what to poll. Look into the rings once after it.

        Their end rings no bell. The sentinel's does for all: without it they are polled.
        """
        if self.fd < 0 or feed.sentinel() < 0:
            return feed.fds()
        try:
            for fd in feed.samplers():
                libc.notify(fd, get_native_id(), _SIGNAL)
        except OSError:
            self.close()
            return feed.fds()
        return [self.fd, feed.sentinel()]

    def take_down(self, feed: Feed) -> None:
        """Have nothing ring any more; from now on rings are polled."""
        for fd in feed.samplers():
            libc.notify(fd, get_native_id(), 0)
        self.close()

    def quiet(self) -> None:
        """Take the signal, so that the next one rings anew; pass on what was not the kernel's.

        A signal to the process may be read here as well as by the thread that it is for.
        """
        try:
            told = os.read(self.fd, _SIGINFO_BYTES)
        except BlockingIOError:  # the other thread was first
            return
        if int.from_bytes(told[8:12], sys.byteorder, signed=True) <= libc.SI_USER:
            pid = os.getpid()  # the main thread's id, too
            libc.rt_tgsigqueueinfo(pid, pid, _SIGNAL, _siginfo(told))

    def close(self) -> None:
        """Close the signalfd; a second call does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
