"""Reading all the facts that a launch is decided on, once, before anything changes."""

from __future__ import annotations

import os
import sys
import time

from rtlaunch.core import preflight
from rtlaunch.core import proc as books_of
from rtlaunch.core.caps import CAP_SYS_PTRACE, CapSets, Credentials, has, in_user_namespace
from rtlaunch.core.elf import host_machine
from rtlaunch.core.facts import Account, Facts, Host, Shape
from rtlaunch.core.findings import Finding, Refusal
from rtlaunch.core.limits import Limit
from rtlaunch.core.mode import EXEC
from rtlaunch.core.numbers import REALTIME_POLICIES
from rtlaunch.core.record import replace
from rtlaunch.core.target import Reach
from rtlaunch.engine import classify, shims
from rtlaunch.linux import memory, proc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from rtlaunch.core.heap import HeapFacts
    from rtlaunch.core.hugepages import HugeFacts
    from rtlaunch.core.options import Options
    from rtlaunch.core.target import Target

CGROUP_FLUSH_S = 2.5  # mm/memcontrol.c: FLUSH_TIME is 2 s; and the time that it takes
CGROUP_POLL_S = 0.1
MOST_CPUS = 8192  # of which a kernel can be built for (NR_CPUS); it cuts off what it has not

# What systemd sets in the environment of what it starts (systemd.exec(5)).
MANAGERS_VARIABLES = ("SYSTEMD_EXEC_PID", "INVOCATION_ID")


def survey(options: Options, command: Sequence[str], environ: Mapping[str, str]) -> Facts:
    """Return the facts; Refusal where a question of the user's has no answer (an unknown user)."""
    host = read_host()
    changes_who = options.user is not None or bool(options.ambient_caps)
    who = read_credentials(read_securebits() if changes_who else 0)
    account = look_up_account(options)
    machine = host_machine(host.arch, 64 if sys.maxsize >> 32 else 32)
    target = classify.classify(tuple(command), environ.get("PATH"), account)
    shim, machines = shims.choose(machine, target, environ)
    if shim and account:
        shim = shims.for_account(shim, account)
    reach = Reach(machine, machines, reads_any(who))
    return Facts(
        host=host,
        who=who,
        limits=read_limits(),
        cpus=frozenset(os.sched_getaffinity(0)),
        possible_cpus=possible_cpus() if options.cpu_list is not None else frozenset(),
        policy=os.sched_getscheduler(0),
        rt_priority=os.sched_getparam(0).sched_priority,
        nice=os.getpriority(os.PRIO_PROCESS, 0),
        target=target,
        reach=reach,
        shim=shim,
        account=account,
        environ=environ,
        shape=read_shape(options),
        hugepages=read_hugepages(options, environ),
        memory=memory.read_memory(),
        heap=read_heap(options, target, environ),
        no_realtime=read_no_realtime(options),
        notify_error=read_notify_error(environ) if options.notify else "",
        **read_surroundings(options, host, environ),
        has_terminal=options.signal_to == "group" and proc.has_controlling_terminal(),
    )


def read_surroundings(options: Options, host: Host, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return who started us and whether orphans come to us, where exec mode may be chosen."""
    if options.mode != EXEC and not any(environ.get(name) for name in MANAGERS_VARIABLES):
        return {}
    from rtlaunch.linux import prctl

    try:
        parent = proc.read_text(host.parent_pid, "comm").rstrip("\n") if host.parent_pid else ""
    except OSError:
        parent = ""
    unit, unit_type = "", ""
    if parent == "systemd":
        unit, unit_type = read_unit(environ)
    return {
        "unit": unit,
        "unit_type": unit_type,
        "parent_is_manager": parent == "systemd",
        "at_terminal": os.isatty(0),
        "is_subreaper": prctl.is_subreaper(),
        "in_step": bool(environ.get("SLURM_STEP_ID")) and is_in_step(),
    }


def is_in_step() -> bool:
    """Tell whether our cgroup is one that Slurm made for a step."""
    from rtlaunch.core import forwarding

    lines = forwarding.step_cgroups(memory.read_text("/proc/self/cgroup") or "")
    return any("/step_" in line for line in lines)


def read_no_realtime(options: Options) -> str:
    """Return our cpu cgroup if a real-time policy is asked for and it may hold no such task."""
    if options.sched is None or options.sched.policy not in REALTIME_POLICIES:
        return ""
    from rtlaunch.linux import cpugroup

    return cpugroup.without_realtime()


def read_unit(environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the service that we are in, and its Type=, as its files have it."""
    from rtlaunch.core import unitfile as files
    from rtlaunch.core.where import systemd_path, unit_of
    from rtlaunch.linux import unitfile

    unit, of_user = unit_of(systemd_path(memory.read_text("/proc/self/cgroup") or ""))
    if not unit.endswith(".service"):
        return "", ""
    return unit, files.value(unitfile.texts(unit, files.folders(of_user, environ)), "Type")


def read_notify_error(environ: Mapping[str, str]) -> str:
    """Return why nobody could be told that the program is ready; empty where somebody can."""
    from rtlaunch.engine import readiness

    return readiness.error_of(environ)


def read_hugepages(options: Options, environ: Mapping[str, str]) -> HugeFacts | None:
    """Return what leases are decided on; None where none was asked for."""
    if not options.hugepages:
        return None
    from rtlaunch.engine import lease

    return lease.look(options.hugepages, environ)


def read_heap(options: Options, target: Target, environ: Mapping[str, str]) -> HeapFacts | None:
    """Return what a heap is decided on; None where no option asks for one."""
    if options.heap is None and options.arenas is None and options.heap_pages == "inherit":
        return None
    from rtlaunch.engine import heap

    return heap.read(options, target, environ)


def read_shape(options: Options) -> Shape | None:
    """Return what bounds ``--thread-stack`` and ``--thp``; None where neither was given."""
    if options.thread_stack is None and options.thp == "inherit":
        return None
    from rtlaunch.engine import shape

    return shape.read(options)


def judge(options: Options, facts: Facts) -> tuple[Facts, tuple[Finding, ...]]:
    """Return the facts and all that preflight finds.

    Where it depends on the cache of a memory cgroup, which the kernel adds up every
    two seconds, facts are read again until they fit or that time is over.
    """
    found = preflight.findings(options, facts)
    until = time.monotonic() + CGROUP_FLUSH_S
    while preflight.may_be_stale(found) and time.monotonic() < until:
        time.sleep(CGROUP_POLL_S)
        facts = replace(facts, memory=memory.read_memory())
        found = preflight.findings(options, facts)
    return facts, found


def read_host() -> Host:
    """Return what uname(2) and sysconf(3) say."""
    name = os.uname()
    return Host(
        name.nodename,
        f"{name.sysname} {name.release}",
        name.machine,
        os.sysconf("SC_PAGE_SIZE"),
        os.getpid(),
        os.getppid(),
    )


def read_securebits() -> int:
    """Return our secure bits (PR_GET_SECUREBITS), by python-prctl."""
    from rtlaunch.linux import prctl

    return prctl.get_securebits()


def read_limits() -> dict[str, Limit]:
    """Return all limits of this process by name; Refusal without /proc."""
    try:
        found = books_of.parse_limits(proc.read_text(os.getpid(), "limits"))
    except OSError as error:
        raise Refusal(proc_missing(error)) from error
    return {name: Limit(soft, hard) for name, (soft, hard) in found.items()}


def read_credentials(securebits: int) -> Credentials:
    """Return who we are, all five capability sets included; Refusal without a /proc of ours.

    ``securebits`` costs an import to read and decides only where ids or
    capabilities change; it is 0 elsewhere.
    """
    try:
        see_own_books()
        status = books_of.parse_status(proc.read_text(os.getpid(), "status"))
        uid_map = proc.read_text(os.getpid(), "uid_map")
    except OSError as error:
        raise Refusal(proc_missing(error)) from error
    return Credentials(
        uid=status.uids[0],
        euid=status.uids[1],
        gid=status.gids[0],
        egid=status.gids[1],
        groups=status.groups,
        caps=CapSets(
            status.cap_inh, status.cap_prm, status.cap_eff, status.cap_bnd, status.cap_amb
        ),
        securebits=securebits,
        no_new_privs=bool(status.no_new_privs),
        initial_userns=not in_user_namespace(uid_map),
    )


def see_own_books() -> None:
    """Make sure that /proc numbers processes as we do; Refusal where it is another namespace's.

    After unshare --pid without --mount-proc, /proc/PID is somebody else, and the proof would be
    of that process.
    """
    shown, pid = os.readlink("/proc/self"), os.getpid()
    if shown != str(pid):
        raise Refusal(
            Finding(
                "proc-missing",
                f"/proc is of another pid namespace: it calls us {shown}, and we are {pid}",
                why="the kernel's books would be read of other processes",
                values={"pid": pid, "shown": shown},
            )
        )


def proc_missing(error: OSError) -> Finding:
    """Return the finding for a machine without /proc."""
    return Finding(
        "proc-missing",
        f"/proc cannot be read: {error.strerror}",
        why="without the kernel's books nothing can be proven",
        values={"errno": error.errno},
    )


def look_up_account(options: Options) -> Account | None:
    """Return the account of ``--user``; Refusal where it does not exist."""
    if options.user is None:
        return None
    from rtlaunch.linux import accounts

    try:
        return accounts.look_up(options.user.user, options.user.group or None)
    except KeyError as error:
        raise Refusal(
            Finding("user-unknown", f"--user: {error.args[0]}", values={"user": options.user.user})
        ) from error


def possible_cpus() -> frozenset[int]:
    """Return the CPUs that our cpuset lets us ask for.

    The kernel cuts every request down to the cpuset, so asking for all of them
    and reading back is the answer; our own mask is put back at once. How many are
    online says nothing: with every other one offline (nosmt) the last has twice that number.
    """
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, range(MOST_CPUS))
        return frozenset(os.sched_getaffinity(0))
    finally:
        os.sched_setaffinity(0, before)


def reads_any(who: Credentials) -> bool:
    """Tell whether we may read the books of a process that is not dumpable."""
    return has(who.caps.effective, CAP_SYS_PTRACE)
