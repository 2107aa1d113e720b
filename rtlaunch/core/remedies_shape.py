"""The remedies for stacks of threads, transparent huge pages and MCL_ONFAULT: the same anywhere.

Part of :mod:`rtlaunch.core.remedies`, which says what a row is.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rtlaunch.core.remedies_parts import Row

SHAPE: dict[str, Row] = {
    "thread-stack-size": (
        "--thread-stack or RTLAUNCH_THREAD_STACK, against the C library's least and the hard "
        "RLIMIT_STACK",
        "%(other_stacks)s",
        "a size between the two in the profile or unit; 256K is enough for most programs",
    ),
    "thread-stack-arguments": (
        "the arguments and environment of this launch",
        "%(wide_stacks)s",
        "a larger --thread-stack, or fewer variables where rtlaunch is started (env -u NAME)",
    ),
    "thread-stack-unsupported": (
        "the program: what it is linked against, or that no shim gets into it",
        "%(allow)s   # goes without --thread-stack",
        "in its build: -Wl,-z,stack-size=262144 for musl; pthread_attr_setstacksize() for any",
    ),
    "thread-stack-lost": (
        "a program in the chain (a shell, say) that rtlaunch took for the last one",
        "put rtlaunch last: WRAPPER rtlaunch --thread-stack %(thread_size)s -- COMMAND",
        "in the script: exec rtlaunch --thread-stack %(thread_size)s -- COMMAND; or, under the "
        "rtlaunch that starts it, ulimit -S -s %(thread_kib)s before its exec",
    ),
    "stack-unrestored": (
        "a seccomp filter or security module that forbids prlimit(2), or a hard limit below it",
        "%(own_stacks)s",
        "let prlimit64 through that filter",
    ),
    "thp-populated": (
        "--lock with future and without onfault",
        "%(onfault)s",
        'lock = "current,future,onfault" in the profile, and let the program touch what it '
        "maps; or --lock current, if it maps nothing that must not fault",
    ),
    "lock-onfault": (
        "the kernel, or the sandbox that stands for one",
        "%(allow)s   # what is needed fits: it is locked, and all in memory",
        "Linux 4.4 or later; or --lock current,future, which is what was done",
    ),
}

SHAPE_ON_HOST: dict[str, Row] = {
    "thp-unavailable": (
        "/sys/kernel/mm/transparent_hugepage/enabled, or hugepages-*kB/enabled beside it",
        "echo madvise | %(sudo)stee /sys/kernel/mm/transparent_hugepage/enabled",
        "transparent_hugepage=madvise on the kernel's command line",
    ),
}
