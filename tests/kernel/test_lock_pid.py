"""rtlaunch lock PID: a process that runs already is locked, and notices nothing else."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests import books, schema
from tests.host import compile_c, wait_until
from tests.kernel import execve, processes, seccomp
from tests.kernel.runners import Runner, call, refused_as, started
from tests.launching import NOBODY
from tests.skips import skip

SECONDS = 2.0  # how long the calls of sleepers.c wait
INTO = 0.7  # how far into the call it is locked
LATE_MS = 250  # a loaded machine's lateness
PF_KTHREAD = 0x200000  # include/linux/sched.h
PTRACE_SEIZE, PTRACE_DETACH, PTRACE_INTERRUPT = 0x4206, 17, 0x4207
MLOCKALL = {"x86_64": 151}.get(os.uname().machine, 230)

# How each call of sleepers.c ends when nothing disturbs it: result and errno.
TIMED = {
    "nanosleep": "0 0",
    "nanosleep-until": "0 0",
    "futex": "-1 ETIMEDOUT",
    "condition": "110 0",
    "poll": "0 0",
    "ppoll": "0 0",
    "select": "0 0",
    "epoll": "0 0",
    "epoll-pwait2": "0 0",
    "sigtimedwait": "-1 EAGAIN",
    "semaphore": "-1 EAGAIN",
    "spin": "0 0",
}


def state(pid: int) -> str:
    return processes.state(pid)


def is_free(pid: int) -> bool:
    """Nobody traces it, and it is not stopped."""
    return books.status(pid)["TracerPid"] == "0" and state(pid) not in "tT"


def wait_into_the_call(runner: Runner) -> None:
    """Wait until INTO seconds of its time have passed."""
    then = time.monotonic() + INTO
    wait_until(lambda: time.monotonic() >= then, "time stands still")


def assert_locked(pid: int) -> None:
    assert books.not_held(pid) == []
    assert is_free(pid)


# --- the lock --------------------------------------------------------------------------------


def test_it_is_locked_and_said_to_be(rtlaunch, targets):
    """Every lockable mapping is locked and resident, and one line says how long it stood still."""
    with started(targets / "sleepers", "nanosleep") as runner:
        ran = call(rtlaunch, "lock", runner.pid)
        assert (ran.code, ran.err) == (0, "")
        assert_locked(runner.pid)
        assert f"of sleepers[{runner.pid}] (1 thread); stopped one thread for " in ran.out
        assert ran.out.startswith("locked ")
        assert ran.out.endswith(" ms\n")


def test_memory_that_it_maps_later_is_locked(rtlaunch, targets):
    """MCL_FUTURE holds for a process that ran already."""
    with started(targets / "churn", "2") as runner:
        assert call(rtlaunch, "lock", runner.pid).code == 0
        wait_until(lambda: not books.not_locked(runner.pid), "a mapping is not locked", 5)


def test_its_stack_is_grown_and_locked(rtlaunch, targets):
    """The prefaulted stack reaches as far below the stack pointer as asked for."""
    with started(targets / "sleepers", "nanosleep") as runner:
        wait_until(lambda: state(runner.pid) == "S", "it does not sleep")
        assert call(rtlaunch, "lock", runner.pid, "--prefault-stack", "2M").code == 0
        stack = books.stack(runner.pid)
        assert stack.end - stack.start >= 2 << 20
        assert stack.resident == stack.end - stack.start


@pytest.mark.parametrize("stack", ["none", "1M"])
def test_on_fault_locks_and_does_not_populate(rtlaunch, targets, stack):
    """MCL_ONFAULT leaves unread what was not touched; the stack is touched where it is asked."""
    with started(targets / "sleepers", "nanosleep") as runner:
        flags = ("--lock", "current,future,onfault", "--prefault-stack", stack)
        assert call(rtlaunch, "lock", runner.pid, *flags).code == 0
        assert books.not_locked(runner.pid) == []
        assert books.not_held(runner.pid) != []
        found = books.stack(runner.pid)
        assert (found.resident >= 1 << 20) == (stack == "1M")


def test_unlock_takes_all_of_it_back(rtlaunch, targets):
    """After unlock nothing is locked, and nothing that is mapped later will be."""
    with started(targets / "churn", "2") as runner:
        assert call(rtlaunch, "lock", runner.pid).code == 0
        assert books.locked_bytes(runner.pid)
        ran = call(rtlaunch, "unlock", runner.pid)
        assert (ran.code, ran.err) == (0, "")
        assert ran.out.startswith(f"unlocked churn[{runner.pid}] (3 threads); stopped one thread")
        assert books.locked_bytes(runner.pid) == 0


def test_the_report_of_a_lock_fits_the_schema(rtlaunch, targets):
    """--json is the report of a launch, with what is known of a process that runs already."""
    with started(targets / "sleepers", "nanosleep", "poll") as runner:
        report = json.loads(call(rtlaunch, "lock", runner.pid, "--json").out)
        assert schema.errors(report, closed=True) == []
        assert report["state"] == "running"
        assert report["lock"]["ok"] is True
        assert report["lock"]["via"] == "ptrace"
        assert 0 < report["lock"]["lock_ns"] < report["lock"]["stopped_ns"]
        assert report["lock"]["locked_bytes"] == books.locked_bytes(runner.pid)


@pytest.mark.parametrize("flag", ["-static", "-m32"])
def test_static_and_32_bit_programs_are_locked(rtlaunch, tmp_path, flag):
    """The way into the kernel is that of the program's own mode."""
    source = tmp_path / "small.c"
    source.write_text(BARE_32 if flag == "-m32" else SMALL)
    bare = ["-m32", "-nostdlib", "-static", "-fno-pie", "-no-pie"] if flag == "-m32" else [flag]
    try:
        program = compile_c(source, tmp_path / "small", *bare)
        subprocess.run([program], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)
    except (subprocess.CalledProcessError, OSError):
        skip("no-32-bit")
    with started(program) as runner:
        wait_until(lambda: state(runner.pid) == "S", "it does not sleep")
        assert call(rtlaunch, "lock", runner.pid).code == 0
        assert_locked(runner.pid)
        runner.say("")
        assert runner.wait() == 1


SMALL = r"""
#include <unistd.h>
int main(void)
{
    char byte;
    write(1, "ready\n", 6);
    return read(0, &byte, 1);
}
"""
BARE_32 = r"""
static int call(int number, int a, const void *b, int c)
{
    int result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory");
    return result;
}
void _start(void)
{
    char byte;
    call(4, 1, "ready\n", 6);
    call(1, call(3, 0, &byte, 1), 0, 0);
}
"""


# --- what blocks goes on ---------------------------------------------------------------------


@pytest.mark.parametrize("name", TIMED)
def test_a_call_with_a_time_ends_as_if_nothing_had_been(rtlaunch, targets, name):
    """Its result is its own, never EINTR, and its time is neither cut short nor begun anew."""
    with started(targets / "sleepers", name) as runner:
        wait_into_the_call(runner)
        ran = call(rtlaunch, "lock", runner.pid)
        assert ran.code == 0, ran.err
        assert_locked(runner.pid)
        said, result, errno, ms = runner.lines.line().split()
        assert (said, f"{result} {errno}") == (name, TIMED[name])
        assert SECONDS * 1000 - 1 <= float(ms) < SECONDS * 1000 + LATE_MS


def test_a_time_of_a_socket_begins_anew_and_never_fails(rtlaunch, targets):
    """SO_RCVTIMEO is out of reach: recv waits its whole time again, and fails with EAGAIN alone."""
    with started(targets / "sleepers", "receive") as runner:
        wait_into_the_call(runner)
        assert call(rtlaunch, "lock", runner.pid).code == 0
        _, result, errno, ms = runner.lines.line().split()
        assert (result, errno) == ("-1", "EAGAIN")
        assert float(ms) >= SECONDS * 1000 - 1


@pytest.mark.parametrize("name", ["read", "accept", "epoll-forever"])
def test_a_call_without_a_time_waits_on(rtlaunch, targets, name):
    """A thread that waited for data gets it, after it was stopped."""
    with started(targets / "sleepers", name) as runner:
        wait_until(lambda: state(runner.pid) == "S", "it does not sleep")
        assert call(rtlaunch, "lock", runner.pid).code == 0
        assert runner.lines.rest == ""
        runner.say("go")
        assert runner.lines.line().split()[:3] == [name, "1", "0"]


def test_all_calls_at_once_are_left_alone_but_one(rtlaunch, targets):
    """With a thread in each of them, all end as if nothing had been."""
    with started(targets / "sleepers", *TIMED) as runner:
        wait_into_the_call(runner)
        assert call(rtlaunch, "lock", runner.pid).code == 0
        for _ in TIMED:
            said, result, errno, ms = runner.lines.line().split()
            assert f"{result} {errno}" == TIMED[said]
            assert SECONDS * 1000 - 1 <= float(ms) < SECONDS * 1000 + LATE_MS


def test_no_signal_is_lost(rtlaunch, targets):
    """As many signals are caught as were sent, one at a time, while it is locked and unlocked."""
    with started(targets / "sleepers", "read") as runner:
        sent = 0
        for turn in range(12):
            verb = ("lock", "unlock")[turn % 2]
            with rtlaunch.start(verb, str(runner.pid)) as process:
                while process.poll() is None:
                    os.kill(runner.pid, signal.SIGUSR1)
                    sent += 1
                    assert runner.lines.line() == "caught"
                assert process.wait() == 0, process.communicate()
        assert sent > 12
        runner.say("go")
        assert runner.lines.line().split()[:3] == ["read", "1", "0"]


def test_a_stopped_process_is_locked_and_stays_stopped(rtlaunch, targets):
    """Its group stop is as it was; SIGCONT wakes it."""
    with started(targets / "sleepers", "read") as runner:
        os.kill(runner.pid, signal.SIGSTOP)
        wait_until(lambda: state(runner.pid) == "T", "it does not stop")
        assert call(rtlaunch, "lock", runner.pid).code == 0
        assert books.not_held(runner.pid) == []
        wait_until(lambda: state(runner.pid) == "T", "it goes on")
        os.kill(runner.pid, signal.SIGCONT)
        runner.say("go")
        assert runner.lines.line().split()[:3] == ["read", "1", "0"]


# --- many threads, and violence --------------------------------------------------------------


def test_sixty_four_threads_that_map_and_fork_lose_nothing(rtlaunch, targets):
    """Locked and unlocked over and over while they work, their memory and children are right."""
    with started(targets / "churn", "64") as runner:
        for _ in range(4):
            ran = call(rtlaunch, "lock", runner.pid)
            assert (ran.code, ran.err) == (0, "")
            assert "(65 threads)" in ran.out
            assert books.not_locked(runner.pid) == []
            assert call(rtlaunch, "unlock", runner.pid).code == 0
        assert call(rtlaunch, "lock", runner.pid).code == 0
        assert books.not_locked(runner.pid) == []
        runner.say("end")
        said, rounds, forks = runner.lines.line().split()
        assert said == "done"
        assert int(rounds) > 0
        assert int(forks) > 0
        assert runner.wait() == 0


def test_killing_rtlaunch_at_any_moment_harms_nobody(rtlaunch, targets):
    """Whenever rtlaunch is killed, the process is let go, runs on and keeps its registers."""
    chance = random.Random(4)
    with started(targets / "churn", "8") as runner:
        for turn in range(20):
            process = rtlaunch.start(("lock", "unlock")[turn % 2], str(runner.pid))
            try:
                process.wait(chance.uniform(0.05, 0.35))
            except subprocess.TimeoutExpired:
                process.kill()
            process.communicate()
            wait_until(lambda: is_free(runner.pid), "it is left stopped or traced")
        assert call(rtlaunch, "lock", runner.pid).code == 0
        runner.say("end")
        assert runner.lines.line().startswith("done")


def test_a_killed_target_is_named_and_nobody_hangs(rtlaunch, targets):
    """A process that is killed while it is locked is refused as ended, whatever the moment."""
    chance = random.Random(5)
    for _ in range(6):
        with started(targets / "churn", "8") as runner:
            process = rtlaunch.start("lock", str(runner.pid))
            then = time.monotonic() + chance.uniform(0.1, 0.3)
            wait_until(lambda then=then: time.monotonic() >= then, "time stands still")
            os.kill(runner.pid, signal.SIGKILL)
            _, err = process.communicate(timeout=processes.DEADLINE)
            assert process.returncode == 0 or "[process-missing]" in err, err


# --- limits ----------------------------------------------------------------------------------


def limited(*limits: str) -> list[str]:
    """Return the words that make a program one of a user with such a memlock limit."""
    return [
        "prlimit", *limits, "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
    ]  # fmt: skip


def test_a_soft_limit_is_raised_first(rtlaunch, targets):
    """A process whose soft limit is too small is locked: the hard one was meant for it."""
    words = limited("--memlock=65536:8388608", "--stack=262144:262144")
    with started(*words, targets / "sleepers", "nanosleep") as runner:
        assert call(rtlaunch, "lock", runner.pid).code == 0
        assert_locked(runner.pid)
        assert books.limits(runner.pid)["memlock"][0] >= 8 << 20


def test_too_small_a_limit_is_refused_and_left_as_it_was(as_user, targets):
    """Without the capability the limit decides; what was raised of it is put back."""
    user = as_user("limited")
    with started(*limited("--memlock=32768:65536"), targets / "sleepers", "nanosleep") as runner:
        ran = call(user, "lock", runner.pid)
        assert refused_as(ran) == "memlock-limit"
        assert f"prlimit --pid {runner.pid} --memlock=unlimited" in ran.err
        assert books.limits(runner.pid)["memlock"] == (32768, 65536)
        assert books.locked_bytes(runner.pid) == 0
        assert is_free(runner.pid)


def test_a_user_locks_their_own_process(as_user, targets):
    """No privilege is needed within the limit."""
    words = limited("--memlock=8388608:8388608", "--stack=262144:262144")
    with started(*words, targets / "sleepers", "nanosleep") as runner:
        ran = call(as_user("limited"), "lock", runner.pid)
        assert ran.code == 0, ran.err
        assert_locked(runner.pid)


# --- refusals --------------------------------------------------------------------------------


def test_no_process_is_refused(rtlaunch):
    """A number that nobody has is named."""
    child = subprocess.Popen(["true"])
    child.wait()
    ran = call(rtlaunch, "lock", child.pid)
    assert refused_as(ran) == "process-missing"
    assert str(child.pid) in ran.err


def test_a_zombie_is_refused(rtlaunch):
    """One that has ended is said to have ended, and who has to collect it."""
    with subprocess.Popen(["true"]) as child:
        wait_until(lambda: state(child.pid) == "Z", "it does not end")
        ran = call(rtlaunch, "lock", child.pid)
        assert refused_as(ran) == "process-missing"
        assert f"process {os.getpid()} to collect it" in ran.err


def test_a_thread_is_refused_with_its_process(rtlaunch, targets):
    """The number of a thread is no process's; which one it is of is said."""
    with started(targets / "churn", "2") as runner:
        ran = call(rtlaunch, "lock", books.threads(runner.pid)[1])
        assert refused_as(ran) == "process-unsuitable"
        assert f"a thread of process {runner.pid}" in ran.err


def test_a_thread_of_the_kernel_is_refused(rtlaunch):
    """The kernel's own threads have no memory to lock."""
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    flags = {pid: int((processes.stat(pid) or ["0"] * 7)[6]) for pid in pids}
    kernel = [pid for pid in pids if flags[pid] & PF_KTHREAD]
    if not kernel:
        skip("no-kernel-threads")
    assert refused_as(call(rtlaunch, "lock", kernel[0])) == "process-unsuitable"


def test_rtlaunch_does_not_lock_itself(rtlaunch):
    """Its own number is refused: it cannot stop itself."""
    process = subprocess.run(
        ["sh", "-c", f'exec "{rtlaunch.program}" lock $$'],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 125
    assert "[process-unsuitable]" in process.stderr


@pytest.mark.parametrize("words", [["-1"], ["0"], ["x"], ["99999999999"], ["1", "--lock", "none"],
                                   ["1", "--lock", "onfault"], []])  # fmt: skip
def test_a_line_that_makes_no_sense_is_a_usage_error(rtlaunch, words):
    """What is no process id, and what would lock nothing, is refused before anything is done."""
    assert refused_as(call(rtlaunch, "lock", *words)) == "usage"


def test_another_tracer_is_named(rtlaunch, targets):
    """A process under a debugger has its one tracer."""
    with started(targets / "sleepers", "read") as runner:
        execve.call("ptrace", PTRACE_SEIZE, runner.pid, None, None)
        ran = call(rtlaunch, "lock", runner.pid)
        assert refused_as(ran) == "attach-denied"
        assert f"pid {os.getpid()} traces it already" in ran.err
        execve.call("ptrace", PTRACE_INTERRUPT, runner.pid, None, None)
        os.waitpid(runner.pid, 0x40000000)
        execve.call("ptrace", PTRACE_DETACH, runner.pid, None, None)


def test_another_users_process_is_refused(as_user, targets):
    """Without CAP_SYS_PTRACE only one's own can be locked."""
    with started(targets / "sleepers", "read") as runner:
        ran = call(as_user("limited"), "lock", runner.pid)
        assert refused_as(ran) == "attach-denied"
        assert f"it belongs to user {os.geteuid()}" in ran.err
        assert books.locked_bytes(runner.pid) == 0


def test_a_process_that_does_not_stop_is_refused_and_goes_on(rtlaunch, targets):
    """One that waits for its vforked child cannot be woken; it is not kept stopped afterwards."""
    with started(targets / "sleepers", "vfork") as runner:
        wait_until(lambda: state(runner.pid) == "D", "it does not vfork")
        assert refused_as(call(rtlaunch, "lock", runner.pid)) == "attach-failed"
        assert runner.lines.line().split()[:3] == ["vfork", "1", "0"]


# --- seccomp ---------------------------------------------------------------------------------


def under_a_deadly_filter() -> None:
    """Become a process that mlockall kills."""
    seccomp.answer(MLOCKALL, seccomp.DEATH)


def test_a_filter_that_kills_is_suspended(rtlaunch, targets):
    """With CAP_SYS_ADMIN the lock goes past the filter, which is in force again afterwards."""
    words = (targets / "sleepers", "read")
    with started(*words, preexec_fn=under_a_deadly_filter) as runner:
        assert call(rtlaunch, "lock", runner.pid).code == 0
        assert_locked(runner.pid)
        assert books.status(runner.pid)["Seccomp"] == "2"


def test_a_filter_that_cannot_be_suspended_is_refused(as_user, targets):
    """Without that right nothing is risked: the process lives, unlocked."""

    def become() -> None:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        under_a_deadly_filter()

    with started(targets / "sleepers", "read", preexec_fn=become) as runner:
        ran = call(as_user("limited"), "lock", runner.pid)
        assert refused_as(ran) == "attach-failed"
        assert "CAP_SYS_ADMIN" in ran.err
        assert is_free(runner.pid)
