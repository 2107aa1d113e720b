"""32-bit programs on a 64-bit kernel: by a shim of their own, or from outside."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from tests import books
from tests.kernel.injecting import SOURCES
from tests.kernel.processes import running
from tests.kernel.programs import FLAGS_32, compile_source
from tests.skips import skip
from tests.standing import standing

KINDS = {"dynamic": "", "static": "-static", "static-pie": "-static-pie"}
WAYS = {"dynamic": ("preload", "ptrace"), "static": ("ptrace",), "static-pie": ("ptrace",)}
CASES = [(kind, way) for kind, ways in WAYS.items() for way in ways]

# Without a C library: says its registers, as _start found them, and /proc/self/status.
BARE = """
static long call(long n, long a, long b, long c)
{
    long r;
    __asm__ volatile("int $0x80" : "=a"(r) : "a"(n), "b"(a), "c"(b), "d"(c) : "memory");
    return r;
}
static char text[4096];
__attribute__((used)) void begin(void *registers)
{
    long fd = call(5, (long)"/proc/self/status", 0, 0);
    long bytes = call(3, fd, (long)text, sizeof text);
    call(4, 1, (long)registers, 32);
    call(4, 1, (long)text, bytes);
    call(1, 7, 0, 0);
}
__asm__(".globl _start\\n_start: pushf\\n push %eax\\n push %ebx\\n push %ecx\\n push %edx\\n"
        "push %esi\\n push %edi\\n push %ebp\\n push %esp\\n call begin\\n");
"""


@pytest.fixture(scope="module", autouse=True)
def _kernel():
    if os.uname().machine != "x86_64":
        skip("not-x86")


def built(kind, name, room):
    try:
        source = (SOURCES / f"{name}.c").read_text()
        return compile_source("cc", f"{FLAGS_32} {KINDS[kind]}", source, room / f"{name}-{kind}")
    except subprocess.CalledProcessError:
        skip("no-32-bit")


@pytest.mark.parametrize(("kind", "way"), CASES)
def test_a_32_bit_program_is_locked_before_main(anybody, kind, way, room):
    """For every user, by either way: locked and in memory, before main() and in it."""
    asked = [] if way == WAYS[kind][0] else ["--via", way]
    program = built(kind, "waiter", room)
    with standing(anybody, *asked, "--", program, before_main=True) as held:
        assert books.not_held(held.pid) == []
        stack = books.stack(held.pid)
        assert stack.resident == stack.end - stack.start >= 512 << 10
        held.tell("")
        held.wait_ready()
        assert books.not_held(held.pid) == []
        assert held.number("stack 400000") == 0
        ran = held.end()
    assert (ran.code, "LD_PRELOAD" in ran.err) == (0, False)
    assert (ran.report["verdict"], ran.report["lock"]["via"]) == ("clean", way)


@pytest.mark.parametrize("kind", KINDS)
def test_its_death_signal_is_set(rtlaunch, kind, room):
    """prctl has another number there, and is made in its name all the same."""
    with running(rtlaunch, ["--pdeathsig", "USR2"], [built(kind, "signals", room)]) as run:
        run.process.kill()
        assert run.lines.line().split()[0] == str(int(signal.SIGUSR2))


STEP = """
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(int count, char **words)
{
    char line[256];
    FILE *file = fopen("/proc/self/status", "r");
    while (fgets(line, sizeof line, file))
        if (!strncmp(line, "VmLck:", 6))
            printf("%d-bit %s\\n", (int)sizeof(long) * 8,
                   strstr(line, " 0 kB") ? "bare" : "locked");
    fclose(file);
    fflush(stdout);
    return count > 1 && execv(words[1], words + 1);
}
"""
BUILDS = {
    "64": ("cc", "-O1"),
    "32": ("cc", FLAGS_32),
    "static32": ("cc", f"{FLAGS_32} -static"),
    "musl": ("musl-gcc", "-O1"),
}
CHAINS = ["64 32 64", "32 64 32", "static32 32", "static32 64", "64 musl 32", "32 musl 64"]


def step(name, room):
    try:
        return compile_source(*BUILDS[name], STEP, room / f"step-{name}")
    except subprocess.CalledProcessError:
        skip("no-32-bit")


@pytest.mark.parametrize("chain", CHAINS)
def test_a_chain_of_both_word_sizes_is_locked_link_by_link(rtlaunch, chain, room):
    """Each image finds a shim of its own class, and no loader complains of the other's."""
    names = chain.split()
    ran = rtlaunch.run("--", *(step(name, room) for name in names))
    sizes = ["64" if name == "musl" else name[-2:] for name in names]
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.split("\n")[:-1] == [f"{size}-bit locked" for size in sizes]
    assert [image["locked"] for image in ran.report["target"]["images"]] == [True] * len(names)


@pytest.mark.parametrize(("children", "state"), [("none", "bare"), ("all", "locked")])
def test_children_of_both_word_sizes_are_told_apart(rtlaunch, children, state, room):
    """Those of a 64-bit shell are locked when asked for, and are left alone in silence when not."""
    script = "; ".join(str(step(name, room)) for name in ("32", "64"))
    ran = rtlaunch.run("--children", children, "--", "sh", "-c", f"{script}; true")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == f"32-bit {state}\n64-bit {state}\n"


def test_a_bare_one_begins_with_the_registers_of_an_exec(rtlaunch, room):
    """What it finds in its registers is what it finds without rtlaunch; its own code is kept."""
    flags = "-m32 -static -nostdlib -ffreestanding -fno-pie -no-pie -fno-stack-protector -O1"
    program = compile_source("cc", flags, BARE, room / "bare")
    alone = subprocess.run(["setarch", "-R", program], capture_output=True, check=False)
    words = ["setarch", "-R", *rtlaunch.words("--via", "ptrace", "--", program)]
    ours = subprocess.run(words, capture_output=True, check=False)
    assert (alone.returncode, ours.returncode) == (7, 7)
    assert registers(ours.stdout) == registers(alone.stdout)
    assert locked(alone.stdout) == 0 < locked(ours.stdout)


def registers(out):
    """Return what was pushed, but the first, which is the stack pointer."""
    return out[4:32]


def locked(out):
    return int(books.status_of(out[32:].decode(errors="replace"))["VmLck"].split()[0])
