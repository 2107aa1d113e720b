"""Injections in a row: none comes out short, no signal is lost, nobody is left stopped.

The injection alone, as rtlaunch makes it, without the launcher around it: each target prints its
own VmLck and the signals pending for it. INJECTIONS=10000 is the long form.
"""

from __future__ import annotations

import os
import random
import signal
from typing import TYPE_CHECKING

import pytest

from rtlaunch.core import protocol
from rtlaunch.core.protocol import Message
from rtlaunch.engine.inject import Injection
from rtlaunch.linux import ptrace
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
    injection = Injection(pid)
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
