"""Inject into a program many times, as the installed rtlaunch does it, and not, in turn.

Run by rtlaunch's own interpreter: ``inject_rounds.py SITE_PACKAGES ROUNDS PROGRAM``. Each line of
output is one round: until main() with an injection, and by fork and exec alone, ns. PROGRAM is
start.c, linked statically.
"""

from __future__ import annotations

import _socket
import gc
import os
import sys
import time

STACK_BYTES = 512 << 10  # as the launcher's default
CURRENT_FUTURE, SIGTERM = 3, 15


def until_main(program: str, injected: bool) -> int:
    """Return how long it is from the fork to main(), ns."""
    (gate, opener), (told, teller) = os.pipe(), os.pipe()
    began = time.monotonic_ns()
    pid = os.fork()
    if pid == 0:
        os.dup2(teller, 1)
        os.read(gate, 1)
        os.execv(program, [program])
    injection = Injection(pid, *witness(gate)) if injected else None
    os.write(opener, b"x")
    if injection:
        inject(injection)
    os.close(teller)
    with os.fdopen(told) as out:
        arrived = int(out.read())
    os.waitpid(pid, 0)
    os.close(gate)
    os.close(opener)
    return arrived - began


def witness(fd: int) -> tuple[_socket.socket, tuple[int, int]]:
    """Return what an injection takes: a socket of ours, and a descriptor of the target's."""
    found = os.fstat(fd)
    return _socket.socket(_socket.AF_UNIX), (found.st_dev, found.st_ino)


def inject(injection: Injection) -> None:
    """Do all that a launch asks of an injection."""
    while not injection.on_stop(ptrace.wait_stop(injection.pid)):
        pass
    flags = CURRENT_FUTURE | protocol.DEATHSIG
    order = protocol.Message(
        protocol.LOCK, flags, SIGTERM, stack_bytes=STACK_BYTES, stack_low=STACK_BYTES
    )
    if injection.lock(order).error:
        raise SystemExit("mlockall failed")
    injection.say(protocol.Message(protocol.GO))
    injection.sock.close()


if __name__ == "__main__":
    packages, rounds, path = sys.argv[1:]
    sys.path.insert(0, packages)
    from rtlaunch.core import protocol
    from rtlaunch.engine.inject import Injection
    from rtlaunch.linux import ptrace

    gc.disable()  # as in a launch
    for _ in range(int(rounds)):
        print(until_main(path, True), until_main(path, False))
