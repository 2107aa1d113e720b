"""Locked from outside, by ptrace at the exec: as good as by the shim, and nothing is left of it."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests import books
from tests.host import wait_until
from tests.kernel import attack
from tests.kernel.injecting import KINDS, build
from tests.kernel.processes import adopting, reap, running
from tests.kernel.programs import compile_source
from tests.skips import skip
from tests.standing import standing

MIB = 1 << 20
PREFAULTED = 512 << 10


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture
def program(kind, room) -> list[str | Path]:
    """Options, and the program that stands where the test wants it."""
    return [*KINDS[kind][2], "--", build(kind, "waiter", room)]


# ---- the lock ----


def test_everything_is_locked_and_resident_before_main(anybody, program):
    """Before main(), every lockable mapping is locked and in memory, for every user."""
    with standing(anybody, *program, before_main=True) as held:
        assert books.not_held(held.pid) == []
        stack = books.stack(held.pid)
        assert stack.resident == stack.end - stack.start >= PREFAULTED


def test_everything_stays_locked_in_main(rtlaunch, program):
    """In main(), after the C library has set itself up: what it mapped since is locked too."""
    with standing(rtlaunch, *program) as held:
        assert books.not_held(held.pid) == []
        address = held.number(f"mmap {MIB}")
        mapping = books.mapping_at(held.pid, address)
        assert mapping.locked
        assert held.number(f"write {address:#x} {MIB}") == 0


def test_a_prefaulted_stack_takes_no_fault(rtlaunch, program):
    """Writing to nearly all of what was prefaulted takes not one minor fault; more of it does."""
    with standing(rtlaunch, *program) as held:
        assert held.number(f"stack {PREFAULTED - 16384}") == 0
    with standing(rtlaunch, "--prefault-stack", "0", *program) as held:
        assert held.number(f"stack {PREFAULTED - 16384}") > 50


def test_a_small_stack_limit_is_respected(rtlaunch, program):
    """Prefaulted as far as the limit leaves room, and no further."""
    with standing(rtlaunch, "--limit", "stack=1M", "--prefault-stack", "512K", *program) as held:
        assert books.not_held(held.pid) == []
        assert books.stack(held.pid).resident >= PREFAULTED


def test_the_kernel_no_longer_traces_it(rtlaunch, program):
    """Nobody is its tracer any more, and its parent is rtlaunch."""
    with standing(rtlaunch, *program) as held:
        assert books.status(held.pid)["TracerPid"] == "0"
        assert books.status(held.pid)["PPid"] == str(held.process.pid)


def test_the_report_says_how(rtlaunch, kind, program):
    """via, why, the image, what was locked: as for a shim."""
    with standing(rtlaunch, *program) as held:
        ran = held.end()
    lock, (image,) = ran.report["lock"], ran.report["target"]["images"]
    assert (ran.code, ran.report["verdict"]) == (0, "clean")
    assert (lock["ok"], lock["via"]) == (True, "ptrace")
    assert lock["why"] == (
        "asked for" if KINDS[kind][2] else "the program is static: no loader runs before it"
    )
    assert (image["path"], image["locked"]) == (str(program[-1]), True)
    assert lock["locked_bytes"] > 0
    assert lock["stack_bytes"] >= PREFAULTED
    times = ran.report["time"]
    assert times["entered_ns"] < times["locked_ns"] < times["proven_ns"] < times["go_ns"]


def test_the_plan_says_it(rtlaunch, program):
    """plan shows the step, and starts nothing."""
    process = rtlaunch.start("plan", *program)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "stop it at its exec by ptrace, and lock it from outside" in out


@pytest.mark.parametrize(
    ("lock", "locked"), [("none", False), ("current,future,onfault", True)], ids=["none", "onfault"]
)
def test_other_flags_are_kept(rtlaunch, program, lock, locked):
    """--lock none locks nothing, though it touches the stack; onfault locks all."""
    with standing(rtlaunch, "--lock", lock, *program) as held:
        assert (books.locked_bytes(held.pid) > 0) == locked
        assert (books.not_locked(held.pid) == []) == locked
        assert books.stack(held.pid).resident >= PREFAULTED
        assert held.end().report["lock"]["ok"] == locked


@pytest.mark.parametrize("code", [0, 7, 125])
def test_its_exit_code_is_its_own(rtlaunch, program, code):
    """From 0 to one that rtlaunch uses itself."""
    with standing(rtlaunch, *program, str(code)) as held:
        assert held.end().code == code


def test_a_program_larger_than_the_limit_is_refused(as_user, room):
    """A user at 8 MiB: a static program with 16 MiB of data never gets to main()."""
    big = 'char data[16 << 20]; int main(void) { data[1] = 1; return __builtin_printf("main"); }'
    program = compile_source("cc", "-static -O0", big, room / "big")
    ran = as_user("limited").run("--", program)
    assert (ran.code, ran.out) == (125, "")
    assert ran.err.startswith("rtlaunch: refused [memlock-limit]: ")


# ---- under attack ----


def test_no_page_of_it_can_be_pushed_out(rtlaunch, kind, room, here):
    """The kernel refuses to page out any of it, and it takes no major fault after arming."""
    attack.need_right()
    program = attack.own_copy(build(kind, "waiter", room), here)
    with standing(rtlaunch, *KINDS[kind][2], "--", program) as held:
        answers = attack.page_out(held.pid)
        assert (answers.taken, answers.refused > 4) == (0, True)
        assert held.ask("counts").split()[0] == str(books.major_faults(held.pid))
        ran = held.end()
    assert (ran.report["watch"]["after_arm"]["major"], ran.report["verdict"]) == (0, "clean")


def test_without_the_lock_the_same_attack_costs_it_faults(rtlaunch, kind, room, here):
    """The control: --lock none, the same program, the same attack, again until it took effect."""
    attack.need_right()
    program = attack.own_copy(build(kind, "waiter", room), here)
    with standing(rtlaunch, "--lock", "none", *KINDS[kind][2], "--", program) as held:
        before = books.major_faults(held.pid)
        assert attack.page_out(held.pid).taken > 4
        wait_until(lambda: attack.page_out(held.pid) and faults_since(held, before), "no fault")
        assert held.end().report["watch"]["after_arm"]["major"] > 0


def faults_since(held, before) -> bool:
    """Have it run, and tell whether it took major faults since."""
    held.ask("counts")
    return books.major_faults(held.pid) > before


# ---- nothing is left ----

# Says the registers that it was started with, before any instruction changes them.
REGISTERS = """
#define NAMES(X) X(rbx) X(rcx) X(rdx) X(rsi) X(rdi) X(rbp) X(r8) X(r9) X(r10) X(r11) X(r12) \\
    X(r13) X(r14) X(r15) X(rax)
#define PUSH(r) "push %" #r "\\n"
__asm__(".globl _start\\n_start: pushf\\n"
    PUSH(rbx) PUSH(rcx) PUSH(rdx) PUSH(rsi) PUSH(rdi) PUSH(rbp) PUSH(r8) PUSH(r9) PUSH(r10)
    PUSH(r11) PUSH(r12) PUSH(r13) PUSH(r14) PUSH(r15) PUSH(rax)
    "mov $1, %eax\\n mov $1, %edi\\n mov %rsp, %rsi\\n mov $128, %edx\\n syscall\\n"
    "mov $60, %eax\\n xor %edi, %edi\\n syscall\\n");
"""


def test_it_begins_with_the_registers_of_an_exec(rtlaunch, room):
    """What it finds in its registers is what it finds without rtlaunch, flags included."""
    if os.uname().machine != "x86_64":
        skip("not-x86")
    program = compile_source("cc", "-static -nostdlib", REGISTERS, room / "registers")
    alone = subprocess.run([program], capture_output=True, check=True).stdout
    ours = subprocess.run(rtlaunch.words("--", program), capture_output=True, check=True).stdout
    assert (len(ours), ours) == (128, alone)


def test_a_signal_reaches_it_as_ever(rtlaunch, kind, room):
    """It dies of what it does not handle, and rtlaunch exits with 128 + N."""
    with standing(rtlaunch, *KINDS[kind][2], "--", build(kind, "waiter", room)) as held:
        held.process.send_signal(signal.SIGUSR1)
        held.process.wait(10)
        ran = held.end()
    assert (ran.code, ran.report["exit"]["signal"]) == (128 + signal.SIGUSR1, "SIGUSR1")


def test_the_death_of_rtlaunch_reaches_it(rtlaunch, kind, room):
    """--pdeathsig is in force from go on: it gets that signal, and lives."""
    command = [build(kind, "signals", room)]
    with adopting(), running(rtlaunch, [*KINDS[kind][2], "--pdeathsig", "USR2"], command) as run:
        run.process.kill()
        assert run.process.wait(10) == -signal.SIGKILL
        assert run.lines.line() == f"{int(signal.SIGUSR2)} 0 0"
        run.end()
        assert reap(run.target) == 0


def test_with_pdeathsig_none_it_lives_on(rtlaunch, kind, room):
    """Neither that signal nor PTRACE_O_EXITKILL is left behind."""
    command = [build(kind, "signals", room)]
    with adopting(), running(rtlaunch, [*KINDS[kind][2], "--pdeathsig", "none"], command) as run:
        run.process.kill()
        run.process.wait(10)
        run.end()
        assert run.lines.all() == ""
        assert reap(run.target) == 0


# ---- another image in its place ----


def test_what_a_static_program_execs_is_locked_if_a_preload_reaches_it(rtlaunch, room):
    """Under auto the shim waits in its environment for the next dynamic image."""
    source = "#include <unistd.h>\nint main(int n, char **v) { return execv(v[1], v + 1); }"
    program = compile_source("cc", "-static", source, room / "exec")
    ran = rtlaunch.run("--", program, "/bin/sh", "-c", "grep VmLck /proc/$$/status")
    assert int(ran.out.split()[1]) > 0
    assert [image["locked"] for image in ran.report["target"]["images"]] == [True, True]
    assert ran.report["verdict"] == "clean"


@pytest.mark.parametrize("watch", ["proc", "none"])
def test_without_perf_what_it_execs_is_noticed_too(rtlaunch, room, watch):
    """An exec closes a socket that it was given, and so tells of itself (decision 12)."""
    source = "#include <unistd.h>\nint main(int n, char **v) { return execv(v[1], v + 1); }"
    program = compile_source("cc", "-static", source, room / "exec")
    words = ("--watch", watch, "--", program, build("static", "waiter", room))
    with standing(rtlaunch, *words) as held:
        # an image that ends at once is told from one that never came by nothing
        wait_until(lambda: len(sockets(held.process.pid)) == 1, "the exec was not heard of")
        report = held.end().report
    assert [image["locked"] for image in report["target"]["images"]] == [True, False]
    assert [finding["code"] for finding in report["findings"]] == ["exec-unannounced"]


def sockets(pid: int) -> list[str]:
    """Return the sockets that a process has open."""
    found = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(os.readlink(fd))
        except FileNotFoundError:
            continue  # closed meanwhile
    return [each for each in found if each.startswith("socket:")]


@pytest.mark.parametrize(("watch", "more"), [("perf", 0), ("proc", 1)])
def test_the_descriptor_is_there_only_where_it_is_needed(rtlaunch, room, watch, more):
    """Closed again where perf tells of an exec; else high, and close-on-exec."""
    words = ("--via", "ptrace", "--watch", watch, "--", build("static", "waiter", room))
    with standing(rtlaunch, *words) as held:
        high = [fd for fd in map(int, os.listdir(f"/proc/{held.pid}/fd")) if fd > 2]
        assert len(high) == more
        for fd in high:
            flags = Path(f"/proc/{held.pid}/fdinfo/{fd}").read_text().split()[3]
            assert fd > 512
            assert int(flags, 8) & os.O_CLOEXEC


def test_with_ptrace_alone_what_it_execs_is_noticed(rtlaunch):
    """--via ptrace preloads nothing: unfollowed, perf tells of the exec, and the report does."""
    words = ("--via", "ptrace", "--allow", "exec-unfollowed", "--", "sh", "-c", "exec sleep 0.2")
    ran = rtlaunch.run(*words)
    assert [image["locked"] for image in ran.report["target"]["images"]] == [True, False]
    assert [finding["code"] for finding in ran.report["findings"]] == ["exec-unannounced"]
    assert "--via ptrace has no shim" in ran.report["lock"]["why"]
