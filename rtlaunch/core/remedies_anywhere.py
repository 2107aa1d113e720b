"""The remedies that are the same wherever we run: one row for each finding code.

The other half of :mod:`rtlaunch.core.remedies`, which says what a row is. The
rows of ``ON_HOST`` change a setting of the whole machine.
"""

from __future__ import annotations

from rtlaunch.core.remedies_budget import BUDGET_ANYWHERE, BUDGET_ON_HOST
from rtlaunch.core.remedies_heap import HEAP
from rtlaunch.core.remedies_hugepages import HUGEPAGES, HUGEPAGES_ON_HOST
from rtlaunch.core.remedies_service import SERVICE
from rtlaunch.core.remedies_shape import SHAPE, SHAPE_ON_HOST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rtlaunch.core.remedies_parts import Row

SYSCTL_D = "echo %s | %%(sudo)stee -a /etc/sysctl.d/50-rtlaunch.conf"
PROFILE_PLACES = "$XDG_CONFIG_HOME/rtlaunch/, /etc/rtlaunch/profiles/, the shipped ones"

ASKED: dict[str, Row] = {
    "usage": (
        "the command line",
        "rtlaunch --help",
        "rtlaunch [OPTIONS] -- COMMAND [ARG...]: options before --, the program after it",
    ),
    "environment-value": (
        "the environment variable %(variable)s",
        "env -u %(variable)s %(run)s",
        "correct or remove %(variable)s where it is set (unit, shell profile, container spec)",
    ),
    "environment-unknown": (
        "the environment variable %(variable)s",
        "env -u %(variable)s %(run)s",
        "correct or remove %(variable)s where it is set; options' twins are RTLAUNCH_OPTION",
    ),
    "profile-missing": (
        "--profile or RTLAUNCH_PROFILE",
        "ls ~/.config/rtlaunch /etc/rtlaunch/profiles",
        "put NAME.toml into one of: " + PROFILE_PLACES + "; or give a path with a slash",
    ),
    "profile-unreadable": (
        "the permissions of %(path)s",
        "ls -l %(path)s",
        "let uid %(uid)s read it, and enter every directory above it",
    ),
    "profile-invalid": (
        "the profile %(path)s",
        "rtlaunch plan --profile %(path)s -- true",
        "flat TOML: format = 1, each key a long option without dashes, one [limit] table",
    ),
    "profile-writable": (
        "the permissions of %(path)s: others can write what root would execute",
        "%(sudo)schmod go-w %(path)s && %(sudo)schown root %(path)s",
        "keep profiles that root uses in /etc/rtlaunch/profiles/, owned by root, mode 0644",
    ),
    "mode-exec": (
        "--mode exec, or RTLAUNCH_MODE",
        "%(mode_supervise)s",
        "--mode auto, which takes exec only where it can be had",
    ),
    "mode-exec-step": (
        "--mode exec, or RTLAUNCH_MODE, in a step of Slurm",
        "%(mode_supervise)s",
        "--mode auto, which supervises there; exec where nobody waits for the end in the report",
    ),
    "command-not-found": (
        "PATH, as execvp(3) searches it",
        "command -v %(path)s; echo $PATH",
        "give the path with a slash, or add its directory to PATH where rtlaunch is started "
        "(systemd units and cron have a short one)",
    ),
    "command-not-executable": (
        "the mode of the file, or a noexec mount beneath it",
        "ls -l %(path)s; findmnt -T %(path)s",
        "chmod +x on the file, or a file system without noexec",
    ),
    "command-bad-format": (
        "the file itself: no format that this kernel executes",
        "file %(path)s",
        "a build for this machine; for a script, a first line such as #!/bin/sh",
    ),
    "command-bad-interpreter": (
        "the first line of the script, or the loader named in the program",
        "head -c 80 %(path)s; readelf -l %(path)s | grep interpreter",
        "install that interpreter or loader, or name one that is there",
    ),
}

TARGETS: dict[str, Row] = {
    "target-static": (
        "how the program is linked, without a loader that reads LD_PRELOAD; and --via preload",
        "%(via_auto)s   # locks it by ptrace",
        "leave out --via preload; or link it dynamically (Go: CGO_ENABLED=1)",
    ),
    "target-setuid": (
        "the set-uid or set-gid bit of %(path)s: the loader drops LD_PRELOAD",
        "sudo %(run)s   # as its owner already, the bit changes nothing",
        "a copy without the bit, started by rtlaunch --user with --ambient-caps",
    ),
    "target-file-caps": (
        "the file capabilities of %(path)s (getcap): the loader drops LD_PRELOAD",
        "sudo %(run_user)s   # locks it by ptrace; it keeps its capabilities",
        "%(sudo)ssetcap -r %(path)s; then the same by ambient capabilities: sudo %(run_ambient)s",
    ),
    "target-unreadable": (
        "the mode of %(path)s: who cannot read a program cannot see its memory either",
        "%(allow)s   # runs it without proof",
        "chmod +r on the file, or run rtlaunch as root",
    ),
    "ptrace-denied": (
        "whoever may forbid ptrace: another tracer, a seccomp filter, yama, a security module",
        "grep -s . /proc/sys/kernel/yama/ptrace_scope; grep -E 'Seccomp|TracerPid' "
        "/proc/self/status",
        "without the other tracer, or with ptrace allowed (--cap-add SYS_PTRACE, "
        "SystemCallFilter=@debug); or a dynamic build, which needs none",
    ),
    "inject-failed": (
        "the program's architecture, its vdso (vdso=0), or a security module",
        "strace -e ptrace %(run)s   # shows the request that was refused",
        "link it dynamically, so that a preload reaches it",
    ),
    "target-class": (
        "the program is of another word size than the shim",
        "%(allow)s   # runs it unlocked",
        "a build of the program for this machine's own word size",
    ),
    "target-machine": (
        "the program is for another machine and would run under an emulator",
        "%(allow)s   # runs it unlocked",
        "a build of the program for this machine",
    ),
    "shim-missing": (
        "this installation of rtlaunch",
        "rtlaunch --version -v   # lists the shims that it has",
        "reinstall it on this machine: pip install --force-reinstall rtlaunch (needs cc)",
    ),
    "shim-path": (
        "where rtlaunch is installed: %(path)s",
        "%(allow)s   # runs it unlocked",
        "install it under a path without colon, on a file system mounted without noexec, where "
        "the program's user may read it: python3 -m venv /opt/rtlaunch",
    ),
}

RUNNING: dict[str, Row] = {
    "process-missing": (
        "the end of process %(pid)s, or another pid namespace than ours",
        "ps -e -o pid,stat,comm | less",
        "give the pid as this pid namespace has it: systemctl show -p MainPID --value UNIT",
    ),
    "process-unsuitable": (
        "what process %(pid)s is",
        "ps -o pid,ppid,stat,comm -p %(pid)s",
        "give the pid of an ordinary process: pidof NAME",
    ),
    "attach-denied": (
        "ptrace(2)'s rules: user, capabilities, yama, one tracer only",
        "grep TracerPid /proc/%(pid)s/status; sysctl kernel.yama.ptrace_scope; "
        "%(sudo)srtlaunch lock %(pid)s",
        "root, or CAP_SYS_PTRACE; or start it locked: rtlaunch -- COMMAND",
    ),
    "attach-failed": (
        "the state that process %(pid)s is in",
        "rtlaunch status %(pid)s; cat /proc/%(pid)s/stack /proc/%(pid)s/syscall",
        "start it locked: rtlaunch -- COMMAND",
    ),
}

LAUNCH: dict[str, Row] = {
    "stack-limit": (
        "RLIMIT_STACK (ulimit -s, or --limit stack) against --prefault-stack",
        "%(small_prefault)s",
        "ulimit -s 8192 (or LimitSTACK=8M) where rtlaunch is started, or a smaller "
        "--prefault-stack",
    ),
    "user-unknown": (
        "--user: not in passwd or group of this host or container",
        "getent passwd; getent group",
        "create it (useradd --system NAME), or give a numeric uid:gid",
    ),
    "lock-failed": (
        "the kernel: memory is short here or in the memory cgroup, or a security module refuses",
        "grep -E 'MemAvailable|Mlocked' /proc/meminfo; dmesg | tail",
        "a higher memory limit (MemoryMax=, --memory), or --lock current,future,onfault, which "
        "takes pages only as they are touched",
    ),
    "shim-silent": (
        "something between rtlaunch and main(): a loader that ignores LD_PRELOAD, a wrapper "
        "that clears the environment, a security module",
        "LD_DEBUG=libs %(command)s 2>&1 | grep -i preload",
        "start the program itself rather than its wrapper; see the page for each cause",
    ),
    "unlocked-mappings": (
        "the program or its libraries: mappings that mlockall does not reach",
        "%(allow)s   # accepts those mappings",
        "have the program touch or mlock those mappings itself; the report lists them",
    ),
    "proof-unreadable": (
        "/proc/PID of the program: undumpable, hidepid, or a security module",
        "sudo %(run)s",
        "chmod +r on the program; mount /proc without hidepid; or CAP_SYS_PTRACE",
    ),
    "died-before-go": (
        "the program, its loader or an out-of-memory kill, before main()",
        "%(command)s   # does it start without rtlaunch?",
        "repair what ends it; locked memory counts against its cgroup's limit at once",
    ),
    "exec-unannounced": (
        "an exec on the way that lost LD_PRELOAD: env -i, sudo, a static or set-uid program",
        "rtlaunch -- the last program of the chain, without the wrapper",
        "put rtlaunch last: WRAPPER rtlaunch -- COMMAND",
    ),
    "exec-unfollowed": (
        "a program that only execs another one, and who or what forbids ptrace here",
        "rtlaunch -- the last program of the chain, without the others",
        "put rtlaunch last: WRAPPER rtlaunch -- COMMAND; or %(allow)s",
    ),
    "child-unlocked": (
        "--children all, and a child that could not lock",
        "rtlaunch explain memlock-limit   # its usual cause",
        "raise RLIMIT_MEMLOCK or give CAP_IPC_LOCK; or --children none, if children may fault",
    ),
    "work-in-child": (
        "the program: it forks what does its work (a script without exec, a supervisor)",
        "%(all_children)s",
        "exec in the script's last line; or --children GLOB with the name of what does the work; of"
        " a server that forks without exec: rtlaunch lock PID, for each child",
    ),
    "daemonized": (
        "the program: it becomes a daemon (daemon(7)), and what it forked has none of its locks",
        "rtlaunch lock %(pid)s",
        "have it stay in the foreground: --foreground, -F, -D, -n, --daemonize no, or what it calls"
        " that",
    ),
    "proc-missing": (
        "the mount namespace: no procfs at /proc, or that of another pid namespace",
        "%(sudo)smount -t proc proc /proc",
        "mount /proc in the chroot or container (unshare --mount-proc); the proof is read there",
    ),
    "launch-failed": (
        "the kernel, in the step that is named above",
        "strace -f %(run)s",
        "free what it lacks (descriptors, processes, memory); the page lists the steps",
    ),
    "report-unwritable": (
        "--report or RTLAUNCH_REPORT: the directory, its permissions, or a full disk",
        "%(no_report)s",
        "a directory that uid %(uid)s can write, or --report fd:N",
    ),
    "watch-lost": (
        "an exec of something unreadable, set-uid or with file capabilities; or a dead ring",
        "ps -o pid,maj_flt,min_flt,comm -p PID   # what the kernel itself counted",
        "make the program readable (chmod +r), or accept the kernel's count without places",
    ),
}

ON_HOST: dict[str, Row] = {
    **BUDGET_ON_HOST,
    **HUGEPAGES_ON_HOST,
    **SHAPE_ON_HOST,
    "swap-on": (
        "/proc/swaps",
        "%(sudo)sswapoff -a   # all swapped pages must fit into memory",
        "take the swap lines out of /etc/fstab, or systemctl mask swap.target",
    ),
    "thp-always": (
        "/sys/kernel/mm/transparent_hugepage/enabled",
        "echo madvise | %(sudo)stee /sys/kernel/mm/transparent_hugepage/enabled",
        "transparent_hugepage=madvise on the kernel's command line",
    ),
    "compaction-unevictable": (
        "vm.compact_unevictable_allowed",
        "%(sudo)ssysctl -w vm.compact_unevictable_allowed=0",
        SYSCTL_D % "vm.compact_unevictable_allowed=0",
    ),
    "numa-balancing": (
        "kernel.numa_balancing",
        "%(sudo)ssysctl -w kernel.numa_balancing=0",
        SYSCTL_D % "kernel.numa_balancing=0",
    ),
    "ksm-on": (
        "/sys/kernel/mm/ksm/run",
        "echo 2 | %(sudo)stee /sys/kernel/mm/ksm/run   # stop, and unmerge what was merged",
        "switch off what starts it (ksmtuned, ksm.service)",
    ),
    "rt-throttling": (
        "kernel.sched_rt_runtime_us (from Linux 6.12 on, the fair server of each CPU)",
        "%(sudo)ssysctl -w kernel.sched_rt_runtime_us=-1   # a runaway task then keeps its CPU",
        SYSCTL_D % "kernel.sched_rt_runtime_us=-1",
    ),
}

ANYWHERE: dict[str, Row] = {
    **ASKED, **TARGETS, **RUNNING, **LAUNCH, **ON_HOST, **BUDGET_ANYWHERE, **SHAPE, **HEAP,
    **HUGEPAGES, **SERVICE,
}  # fmt: skip
