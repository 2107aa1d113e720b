"""One reading of a process that already runs, into the outcome that the report shows.

Nothing is stopped and nothing changed. smaps is read once for each reading: a target that maps
memory meanwhile waits for it, so that nobody may do this on a timer.
"""

from __future__ import annotations

import os
import time

from rtlaunch.core import outcome as report
from rtlaunch.core import proof, running
from rtlaunch.core.caps import CapSets, in_user_namespace
from rtlaunch.core.findings import Finding, Refusal
from rtlaunch.core.numbers import SCHED_POLICIES
from rtlaunch.core.proc import Stat, parse_limits, parse_smaps, parse_stat, parse_status
from rtlaunch.engine import attach
from rtlaunch.linux import proc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rtlaunch.core.outcome import Outcome, UnlockedMapping
    from rtlaunch.core.proof import Books

POLICIES = {number: name for name, number in SCHED_POLICIES.items()} | {6: "deadline"}
RESET_ON_FORK = 0x40000000
SETTLING = 6  # readings at most, until what is being mapped at the moment is there
SETTLING_S = 0.005


def suitable(pid: int, to_touch: bool = False) -> Stat:
    """Return the stat of a process that can be locked; Refusal where there is none.

    ``to_touch``: it will also be stopped, which not every process may be.
    """
    try:
        status = parse_status(proc.read_text(pid, "status"))
        stat = parse_stat(proc.read_text(pid, "stat"))
        caller = running.Caller(os.getpid(), os.stat("/proc/self/ns/pid").st_ino)
    except proc.ProcMissing as error:
        raise Refusal(Finding("proc-missing", str(error.strerror))) from error
    except (FileNotFoundError, ProcessLookupError) as error:
        raise Refusal(attach.gone(pid, "there is no such process")) from error
    found = running.unsuitable(status, stat)
    if found is None and to_touch:
        found = running.untouchable(status, caller)
    if found:
        raise Refusal(found)
    return stat


def read_books(pid: int, mapped: bool = True) -> Books:
    """Return status, limits and, if ``mapped``, smaps; Refusal where they are closed to us."""
    try:
        return proof.Books(
            parse_status(proc.read_text(pid, "status")),
            parse_limits(proc.read_text(pid, "limits")),
            parse_smaps(proc.read_text(pid, "smaps")) if mapped else (),
            not in_user_namespace(proc.read_text(pid, "uid_map")),
            os.sysconf("SC_PAGE_SIZE"),
        )
    except PermissionError as error:
        raise Refusal(_closed(pid, error)) from error
    except (FileNotFoundError, ProcessLookupError) as error:
        raise Refusal(attach.gone(pid, "it ended")) from error


def read(pid: int, outcome: Outcome) -> Books:
    """Write all that the kernel's books say of ``pid`` into the outcome; return the books."""
    outcome.time.started_at, outcome.time.monotonic_ns = time.time_ns(), time.monotonic_ns()
    books = read_books(pid)
    missing = running.unlocked_mappings(books, lambda each: proc.mapped_file_bytes(pid, each))
    write_down(pid, outcome, books, missing)
    return books


def read_settled(pid: int, outcome: Outcome) -> Books:
    """Read as :func:`read` does, again while all that lacks is locked: its pages may be coming.

    Only a process that maps memory at that very moment is read again.
    """
    books = read(pid, outcome)
    missing = tuple(outcome.lock.unlocked_mappings)
    for _ in range(SETTLING - 1):
        if not missing or any(each.why == proof.NOT_LOCKED for each in missing):
            break
        time.sleep(SETTLING_S)
        books = read(pid, outcome)
        missing = running.still_missing(missing, tuple(outcome.lock.unlocked_mappings))
    write_down(pid, outcome, books, missing)
    return books


def write_down(
    pid: int, outcome: Outcome, books: Books, missing: tuple[UnlockedMapping, ...]
) -> None:
    """Put the books into the outcome, under the report's own names."""
    status = books.status
    outcome.state = report.RUNNING
    target = outcome.target
    target.pid, target.uid, target.gid = pid, status.uids[1], status.gids[1]
    target.argv = _argv(pid)
    why = f"{len(missing)} mappings are not locked and resident" if missing else None
    target.images = (report.Image(path=_executable(pid), locked=not missing, why=why),)
    for name, pair in books.limits.items():
        outcome.limits.setdefault(name, report.Limit()).after = pair
    outcome.caps.target = CapSets(
        status.cap_inh, status.cap_prm, status.cap_eff, status.cap_bnd, status.cap_amb
    ).as_dict()
    outcome.caps.no_new_privs = bool(status.no_new_privs)
    lock = outcome.lock
    lock.locked_bytes, lock.resident_bytes = status.vm_lck, status.vm_rss
    lock.headroom_bytes = proof.headroom(books)
    lock.unlocked_mappings = missing
    outcome.threads = read_threads(pid)
    first = next((each for each in outcome.threads if each.tid == pid), None)
    if first:
        outcome.sched.policy, outcome.sched.priority = first.policy, first.priority
        outcome.sched.nice, outcome.sched.cpu_list = first.nice, first.cpu_list


def read_threads(pid: int) -> tuple[report.Thread, ...]:
    """Return faults, policy and CPUs of each thread; one that ends meanwhile is left out."""
    found = []
    for tid in sorted(proc.thread_ids(pid)):
        try:
            found.append(_thread(pid, tid))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return tuple(found)


def _thread(pid: int, tid: int) -> report.Thread:
    stat = parse_stat(proc.read_text(pid, f"task/{tid}/stat"))
    policy = stat.policy & ~RESET_ON_FORK
    return report.Thread(
        tid=tid,
        name=stat.comm,
        state=stat.state,
        policy=POLICIES.get(policy, str(policy)),
        priority=stat.rt_priority,
        nice=os.getpriority(os.PRIO_PROCESS, tid),
        cpu_list=parse_status(proc.read_text(pid, f"task/{tid}/status")).cpus,
        cpu=stat.processor,
        major_faults=stat.majflt,
        minor_faults=stat.minflt,
    )


def _argv(pid: int) -> tuple[str, ...]:
    return tuple(proc.read_text(pid, "cmdline").split("\0")[:-1])


def _executable(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return None


def _closed(pid: int, error: OSError) -> Finding:
    return Finding(
        "proof-unreadable",
        f"the books of process {pid} cannot be read: {error.strerror} ({error.filename})",
        why="without /proc/PID/smaps nobody can say what is locked",
        values={"pid": pid},
    )
