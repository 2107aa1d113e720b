"""Talk to programs that work on demand: batch.c, and faults.c when it makes a storm.

It must not judge a number, and ends only what it started.
"""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from bench.sampling import Samples, in_turn
from bench.stage import DEADLINE_SECONDS, Stage, environment
from bench.verdict import BenchError

WARMING_ROUNDS = 4


class Talker:
    """Such a program, running: ``pid`` is its own, ``launcher_pid`` that of what started it."""

    def __init__(self, process: subprocess.Popen[str], described: str) -> None:
        self._process = process
        self._described = described
        self.launcher_pid = process.pid
        self.pid = int(self._answer("ready"))

    def _answer(self, expected: str = "") -> str:
        out = self._process.stdout
        assert out is not None
        ready, _, _ = select.select([out], [], [], DEADLINE_SECONDS)
        words = out.readline().split() if ready else []
        if not words or (expected and words[0] != expected):
            raise BenchError(f"no answer from: {self._described}")
        return words[-1]

    def batch(self, count: int) -> int:
        """Have it do ``count`` operations; return its answer: the time that they took, ns."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        return int(self._answer())


@contextmanager
def talking(stage: Stage, command: Sequence[str]) -> Iterator[Talker]:
    """Run a command that ends in such a program; in the end close its stdin and wait for it."""
    with open(stage.path("stderr"), "a", encoding="utf-8") as stderr:
        process = subprocess.Popen(
            command,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        yield Talker(process, " ".join(command))
        process.communicate(timeout=DEADLINE_SECONDS)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def alternate(
    stage: Stage, commands: Mapping[str, Sequence[str]], count: int, programs: int, rounds: int
) -> Samples:
    """Run the commands side by side, ask each in turn for a batch of ``count``, ``rounds`` times.

    All of that is done with ``programs`` fresh sets of processes, each begun with another one:
    where a process happens to lie in memory changes its times for as long as it lives. The first
    batches of each are slower, and not counted.
    """
    total: Samples = {name: [] for name in commands}
    names = list(commands)
    for _ in range(programs):
        with ExitStack() as stack:
            batches = {
                name: partial(stack.enter_context(talking(stage, commands[name])).batch, count)
                for name in names
            }
            in_turn(batches, WARMING_ROUNDS)
            for name, values in in_turn(batches, rounds).items():
                total[name] += values
        names = [*names[1:], names[0]]
    return total


def interpreter_of(stage: Stage) -> str:
    """Return the interpreter that rtlaunch runs in, as the kernel names it while it runs."""
    with talking(stage, [*stage.under(), stage.path("batch"), "mmap"]) as talker:
        return os.readlink(f"/proc/{talker.launcher_pid}/exe")
