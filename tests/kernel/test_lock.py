"""The lock, by the kernel's own books of a target that stands: all locked, all resident."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import books
from tests.host import wait_until
from tests.skips import skip
from tests.standing import PYTHON, SH, finish, standing, target_of

MIB = 1 << 20
UNTOUCHED = 200  # pages of a stack that were never touched fault one by one


# ---- before main() ----


def test_everything_is_locked_and_resident_before_main(anybody, targets):
    """When go was sent, every lockable mapping is locked and in memory, the stack included."""
    with standing(anybody, "--", targets / "waiter", before_main=True) as held:
        assert books.not_held(held.pid) == []
        assert books.stack(held.pid).locked


def test_the_report_has_the_kernels_figure_of_locked_memory(anybody, targets):
    """lock.locked_bytes is VmLck to the byte, and resident memory is at least that much."""
    with standing(anybody, "--", targets / "waiter", before_main=True) as held:
        locked = books.locked_bytes(held.pid)
        held.tell("")
        report = held.end().report
    assert report["lock"]["ok"] is True
    assert report["lock"]["locked_bytes"] == locked > 0
    assert report["lock"]["resident_bytes"] > 0


def test_the_stack_is_in_memory_as_deep_as_asked(anybody, targets):
    """The main stack holds 2 MiB below main(), and the report says how much was touched."""
    words = ("--prefault-stack", "2M", "--", targets / "waiter")
    with standing(anybody, *words, before_main=True) as held:
        stack = books.stack(held.pid)
        held.tell("")
        report = held.end().report
    assert stack.resident >= 2 * MIB
    assert stack.resident == stack.end - stack.start
    assert 2 * MIB <= report["lock"]["stack_bytes"] <= stack.resident


def test_no_program_that_could_not_be_locked_starts(as_user, tmp_path):
    """A program that is larger than the limit is refused, and main() does not run."""
    marker = Path("/tmp") / f"{tmp_path.name}-marker"
    words = ("/usr/bin/python3", "-c", f"open({str(marker)!r}, 'w')")
    ran = as_user("limited").run("--", *words)
    assert (ran.code, ran.report["lock"]["ok"]) == (125, False)
    assert ran.err.startswith("rtlaunch: refused [memlock-limit]: ")
    assert not marker.exists()


def test_the_proof_is_read_before_go(rtlaunch, tmp_path):
    """Of rtlaunch's own calls: lock is sent, then smaps is read, and then only go is sent."""
    if not shutil.which("strace"):
        skip("no-strace")
    log = tmp_path / "log"
    calls = ("strace", "-qq", "-o", log, "-e", "trace=openat,sendto", "-e", "signal=none")
    subprocess.run([*calls, *rtlaunch.words("--", "true")], check=True, timeout=20)
    order = re.findall(r"^(sendto)\(|/proc/\d+/(smaps)", log.read_text(), re.M)
    assert [sent or read for sent, read in order] == ["sendto", "smaps", "sendto"]


# ---- in main() ----


def test_everything_stays_locked_in_main(anybody, targets):
    """In main(), after the C library has set itself up, nothing is unlocked either."""
    with standing(anybody, "--", targets / "waiter") as held:
        assert books.not_held(held.pid) == []


def test_a_prefaulted_stack_takes_no_fault(anybody, targets):
    """Writing to nearly all of what was prefaulted takes not one minor fault."""
    with standing(anybody, "--prefault-stack", "2M", "--", targets / "waiter") as held:
        assert held.number(f"stack {2 * MIB - 16384}") == 0


def test_a_stack_that_is_not_prefaulted_faults(anybody, targets):
    """With --prefault-stack 0 the same use of the stack faults for nearly every page."""
    with standing(anybody, "--prefault-stack", "0", "--", targets / "waiter") as held:
        assert held.number(f"stack {2 * MIB - 16384}") > UNTOUCHED


def test_memory_mapped_later_is_locked(anybody, targets):
    """MCL_FUTURE: what the program maps in main() is locked, resident, and faults no more."""
    with standing(anybody, "--", targets / "waiter") as held:
        address = held.number(f"mmap {MIB}")
        mapping = books.mapping_at(held.pid, address)
        assert mapping.locked
        assert mapping.resident == mapping.end - mapping.start
        assert held.number(f"write {address:#x} {MIB}") == 0


@pytest.mark.parametrize("size", [64 << 10, MIB], ids=["brk", "mmap"])
def test_memory_allocated_later_is_locked(anybody, targets, size):
    """malloc's memory, from the heap or a mapping of its own, is locked and faults no more."""
    with standing(anybody, "--", targets / "waiter") as held:
        address = held.number(f"malloc {size}")
        assert books.mapping_at(held.pid, address).locked
        assert held.number(f"write {address:#x} {size}") == 0


def test_a_thread_started_later_is_locked(as_user, targets):
    """The stack of a thread is locked too: nothing of the process is not."""
    with standing(as_user("ambient"), "--", targets / "waiter") as held:
        before = books.locked_bytes(held.pid)
        assert held.ask("thread") == "ran"
        assert books.not_held(held.pid) == []
        assert books.locked_bytes(held.pid) > before + MIB


# ---- other flags ----


def test_lock_none_locks_nothing(anybody, targets):
    """--lock none: VmLck is 0, the program runs, and the report does not claim a lock."""
    with standing(anybody, "--lock", "none", "--", targets / "waiter") as held:
        assert books.locked_bytes(held.pid) == 0
        ran = held.end()
    assert (ran.code, ran.report["lock"]["ok"]) == (0, False)
    assert ran.report["lock"]["flags"] == []
    assert ran.report["verdict"] == "unlocked"


def test_lock_current_leaves_later_memory_alone(anybody, targets):
    """--lock current: all that is there is locked, what comes later is not."""
    with standing(anybody, "--lock", "current", "--", targets / "waiter", before_main=True) as held:
        assert books.not_held(held.pid) == []
        held.tell("")
        held.wait_ready()
        address = held.number(f"mmap {MIB}")
        assert not books.mapping_at(held.pid, address).locked
        assert held.number(f"write {address:#x} {MIB}") > UNTOUCHED


def test_lock_future_locks_only_later_memory(anybody, targets):
    """--lock future: nothing that is there is locked, what comes later is."""
    with standing(anybody, "--lock", "future", "--", targets / "waiter", before_main=True) as held:
        assert not books.stack(held.pid).locked
        held.tell("")
        held.wait_ready()
        address = held.number(f"mmap {MIB}")
        assert books.mapping_at(held.pid, address).locked


def test_onfault_locks_pages_as_they_come(anybody, targets):
    """--lock current,future,onfault: all is locked, and nothing is in memory before its time."""
    words = ("--lock", "current,future,onfault", "--", targets / "waiter")
    with standing(anybody, *words) as held:
        assert books.not_locked(held.pid) == []
        address = held.number(f"mmap {MIB}")
        mapping = books.mapping_at(held.pid, address)
        assert mapping.locked
        assert mapping.resident < MIB
        assert held.number(f"write {address:#x} {MIB}") > UNTOUCHED
        ran = held.end()
    assert ran.report["lock"]["ok"] is True


# ---- real programs ----


@pytest.mark.parametrize("user", ["root", "ambient"])
@pytest.mark.parametrize("command", [PYTHON, SH], ids=["python3", "sh"])
def test_a_real_program_is_locked(as_user, user, command):
    """An interpreter that has long been running is locked and resident, every mapping."""
    with standing(as_user(user), "--", *command) as held:
        assert books.not_held(held.pid) == []
        assert held.end().report["verdict"] == "clean"


def test_a_shell_is_locked_under_eight_mebibytes(as_user):
    """A program that fits the limit needs no capability."""
    with standing(as_user("limited"), "--", *SH) as held:
        assert int(books.status(held.pid)["CapEff"], 16) == 0
        assert books.not_held(held.pid) == []


def test_cyclictest_is_locked_with_its_threads(rtlaunch):
    """cyclictest without its own --mlockall: main and measuring threads are locked, no fault."""
    program = shutil.which("cyclictest")
    if not program:
        skip("no-cyclictest")
    report = rtlaunch.report_path()
    words = (program, "--threads=2", "--policy=other", "--interval=10000", "--quiet")
    process = rtlaunch.start("--report", report, "--", *words)
    try:
        pid = target_of(process.pid, program)
        wait_until(lambda: len(books.threads(pid)) == 3, "cyclictest has not started its threads")
        assert books.not_held(pid) == []
        major = books.major_faults(pid)
        process.terminate()
        process.communicate(timeout=10)
    finally:
        finish(process)
    watch = json.loads(report.read_text())["watch"]
    assert (watch["before_arm"]["major"], watch["after_arm"]["major"]) == (major, 0)


def test_a_pipeline_is_a_pipeline(rtlaunch):
    """Locked at both ends, a pipeline carries all bytes and ends with the last one's status."""
    line = f"{rtlaunch.program} -- head -c 1000000 /dev/zero | {rtlaunch.program} -- wc -c"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "1000000", "")
