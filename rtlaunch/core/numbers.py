"""The kernel's numbers, by the names that people and /proc have for them.

For the architectures of the shim (asm-generic). Tables only: reading and
writing values is :mod:`rtlaunch.core.units`'.
"""

from __future__ import annotations

UNLIMITED = -1  # RLIM_INFINITY as Python's resource module spells it
SIGNAL_EXIT_BASE = 128  # a shell's exit code for a program that signal N ended is 128 + N

# fmt: off
# signal(7), from number 1 on
_SIGNALS = (
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
)
# include/uapi/linux/capability.h, by number
CAPABILITIES = (
    "chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid",
    "setpcap", "linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw",
    "ipc_lock", "ipc_owner", "sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct",
    "sys_admin", "sys_boot", "sys_nice", "sys_resource", "sys_time", "sys_tty_config", "mknod",
    "lease", "audit_write", "audit_control", "setfcap", "mac_override", "mac_admin", "syslog",
    "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf", "checkpoint_restore",
)
# include/uapi/asm-generic/resource.h, by number
RLIMITS = (
    "cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile", "memlock", "as", "locks",
    "sigpending", "msgqueue", "nice", "rtprio", "rttime",
)
RLIMITS_IN_BYTES = frozenset((
    "fsize", "data", "stack", "core", "rss", "memlock", "as", "msgqueue",
))
# fmt: on
SIGNALS = dict(enumerate(_SIGNALS, start=1))
SIGNAL_ALIASES = {"IOT": 6, "CLD": 17, "POLL": 29}
SIGNAL_NUMBERS = {name: number for number, name in SIGNALS.items()} | SIGNAL_ALIASES
SIGRTMIN, SIGRTMAX = 34, 64  # 32 and 33 belong to the C library's threads
UNCATCHABLE = (9, 19)
CAPABILITY_NUMBERS = {name: number for number, name in enumerate(CAPABILITIES)}
RLIMIT_NUMBERS = {name: number for number, name in enumerate(RLIMITS)}

# include/uapi/linux/sched.h
SCHED_POLICIES = {"other": 0, "fifo": 1, "rr": 2, "batch": 3, "idle": 5}
SCHED_RESET_ON_FORK = 0x40000000  # a flag beside the policy
REALTIME_POLICIES = ("fifo", "rr")
RT_PRIORITIES = (1, 99)
