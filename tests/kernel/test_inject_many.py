"""Injections in a row: none comes out short, no signal is lost, nobody is left stopped.

The injection alone, as rtlaunch makes it, without the launcher around it: each target prints its
own VmLck and the signals pending for it. INJECTIONS=10000 is the long form; LAUNCHES=1000 that of
whole launches whose both sides are disturbed.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from rtlaunch.core import protocol
from rtlaunch.core.protocol import Message
from rtlaunch.engine import channel
from rtlaunch.engine.inject import Injection
from rtlaunch.linux import ptrace
from tests import books
from tests.kernel.processes import sigqueue
from tests.kernel.programs import compile_source

if TYPE_CHECKING:
    from pathlib import Path

IN_A_ROW = int(os.environ.get("INJECTIONS", "1000"))
STACK_BYTES = 64 << 10
CURRENT_FUTURE = 3

# Says VmLck in kB, and the sets of pending signals and blocked ones, as /proc has them.
SAYS = """
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(void)
{
    static char text[4096];
    unsigned long locked, pending, shared, blocked;
    int fd = open("/proc/self/status", O_RDONLY);
    if (read(fd, text, sizeof text - 1) <= 0) return 1;
    sscanf(strstr(text, "VmLck:") + 6, "%lu", &locked);
    sscanf(strstr(text, "SigPnd:") + 7, "%lx", &pending);
    sscanf(strstr(text, "ShdPnd:") + 7, "%lx", &shared);
    sscanf(strstr(text, "SigBlk:") + 7, "%lx", &blocked);
    printf("%lu %lx %lx\\n", locked, pending | shared, blocked);
    return 0;
}
"""
BLOCKED = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGCONT, signal.SIGRTMIN + 3)
SENT = (*BLOCKED, signal.SIGSTOP, 0)


def bits(signals) -> int:
    return sum(1 << number - 1 for number in set(signals))


def start(program: Path, teller: int) -> tuple[int, Injection]:
    """Fork a child that waits to be traced, then exec()s the program; trace it."""
    reader, writer = os.pipe()
    before = signal.pthread_sigmask(signal.SIG_SETMASK, BLOCKED)
    pid = os.fork()
    if pid == 0:
        os.dup2(teller, 1)
        os.read(reader, 1)
        os.execv(program, [str(program)])
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    ours, theirs = channel.open_witness()
    theirs.close()
    injection = Injection(pid, ours, (0, 0))
    os.write(writer, b"x")
    os.close(reader)
    os.close(writer)
    return pid, injection


def one(program: Path, chance: random.Random) -> tuple[str, int, int]:
    """Inject once, with signals at random; return what it said, what was sent, its exit code."""
    told, teller = os.pipe()
    pid, injection = start(program, teller)
    os.close(teller)
    sent: list[int] = []

    def send() -> None:
        number = chance.choice(SENT)
        if number == signal.SIGSTOP:
            os.kill(pid, signal.SIGSTOP)
            number = int(signal.SIGCONT)  # else it stands for ever, as it should
            os.kill(pid, number)
        elif number:
            sigqueue(pid, number, 1)
        if number:
            sent.append(number)

    send()
    while not injection.on_stop(ptrace.wait_stop(pid)):
        send()
    send()
    order = Message(protocol.LOCK, CURRENT_FUTURE, stack_bytes=STACK_BYTES, stack_low=1)
    assert injection.lock(order).error == 0
    send()
    injection.say(Message(protocol.GO))
    with os.fdopen(told) as out:
        said = out.read()
    injection.sock.close()
    _, status = os.waitpid(pid, 0)
    return said, bits(sent), os.waitstatus_to_exitcode(status)


@pytest.mark.timeout(60 + IN_A_ROW // 20)
def test_in_a_row(room):
    """Locked memory is the same each time, and exactly what was sent is pending in main()."""
    program = compile_source("cc", "-static -O1", SAYS, room / "says")
    chance = random.Random(IN_A_ROW)
    locked = set()
    for _ in range(IN_A_ROW):
        said, sent, code = one(program, chance)
        kilobytes, pending, blocked = said.split()
        locked.add(int(kilobytes))
        assert (int(pending, 16), int(blocked, 16), code) == (sent, bits(BLOCKED), 0)
    # the kernel places the stack at random within a page, so one page more or less is arguments'
    assert min(locked) > 0
    assert max(locked) - min(locked) <= 8


# ---- whole launches ----

LAUNCHES = int(os.environ.get("LAUNCHES", "40"))
TO_RTLAUNCH = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGWINCH)
TO_TARGET = (*TO_RTLAUNCH, signal.SIGKILL, signal.SIGCONT)
LONGEST_S = 0.05  # about the length of a launch


@pytest.mark.timeout(60 + LAUNCHES)
def test_random_signals_to_both_sides(rtlaunch, room):
    """At random instants, to rtlaunch and to its target, SIGSTOP and SIGCONT as well.

    Each launch ends by itself, with a code that one of those signals explains, and leaves nobody.
    """
    program = compile_source("cc", "-static -O1", SAYS, room / "says")
    chance = random.Random(LAUNCHES)
    for _ in range(LAUNCHES):
        process = rtlaunch.start("--", program, start_new_session=True)
        sent = disturb(process, chance)
        out, err = process.communicate(timeout=20)
        fatal = {128 + one for one in sent} | {-one for one in sent}
        allowed = {0, 125 if signal.SIGKILL in sent else 0} | fatal
        assert process.returncode in allowed, (process.returncode, sent, err)
        assert not out or int(out.split()[0]) > 0


def disturb(process, chance: random.Random) -> set[int]:
    """Send signals for a while, each some random time after the last; return them."""
    sent: set[int] = set()
    for _ in range(3):
        with suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0, LONGEST_S))
        targets = books.children(process.pid) if process.poll() is None else []
        to_target = bool(targets) and chance.random() < 0.6
        number = int(chance.choice(TO_TARGET if to_target else TO_RTLAUNCH))
        stops = (signal.SIGSTOP, signal.SIGCONT) if chance.random() < 0.3 else ()
        if process.poll() is None and send_all(
            process.pid, targets[-1] if to_target else process.pid, (*stops, number)
        ):
            sent.add(number)
    return sent


def send_all(launcher: int, pid: int, numbers) -> bool:
    """Send signals to rtlaunch or to a child of it, by pidfd; False where it was gone."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if pid not in (launcher, *books.children(launcher)):
            return False
        for number in numbers:
            signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True
