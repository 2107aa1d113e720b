"""The remedies for a launch that does not fit: into a memory cgroup, the machine, or its books.

Part of :mod:`rtlaunch.core.remedies`, which says what a row is. ``%(enough)s``
is the finding's: what is needed and a quarter, in whole MiB. A lock that does
not fit is cured where the memlock limit is. ``SMALLER_HEAP`` is one thing more
to try, where a heap was asked for.
"""

from __future__ import annotations

from rtlaunch.core.remedies_memlock import MEMLOCK
from rtlaunch.core.remedies_parts import EDIT, SYSTEMD_RUN, Row, Rows

SMALLER_HEAP = "\nor a smaller heap: %(small_heap)s"

# Where the lock would take what the program has mapped and does not mean to touch.
UNTOUCHED: Row = (
    "the program, or a library of it, which maps more than it touches: sanitizers do",
    "%(onfault)s",
    "onfault: a page is locked when it is first touched; or a build without the sanitizer",
)

# Where AddressSanitizer ended it before the shim could speak.
SANITIZED: Row = (
    "AddressSanitizer, which ends a program that anything is preloaded into before itself",
    "ASAN_OPTIONS=verify_asan_link_order=0 %(onfault)s",
    "a build without -fsanitize=address where page faults matter: it is not made for that",
)

CGROUP_BUDGET: Rows = {
    "system-service": (
        "MemoryMax= of %(unit)s or of a slice above it: %(cgroup)s",
        SYSTEMD_RUN + " -p MemoryMax=%(enough)s %(run)s",
        EDIT + "MemoryMax=%(enough)s\n(or more, if other programs share it), then restart it",
    ),
    "user-service": (
        "MemoryMax= of the unit or of a slice above it: %(cgroup)s",
        "systemd-run --user --pty --same-dir -p MemoryMax=%(enough)s %(run)s",
        "a drop-in (systemctl --user edit UNIT):\n[Service]\nMemoryMax=%(enough)s",
    ),
    "docker": (
        "docker run --memory: %(cgroup)s",
        "docker run --memory %(enough)s %(image_run)s",
        "compose file: mem_limit: %(enough)s\n"
        "(one that is there: docker update --memory %(enough)s --memory-swap %(enough)s "
        "%(container)s && docker start %(container)s)",
    ),
    "podman": (
        "podman run --memory: %(cgroup)s",
        "podman run --memory %(enough)s %(image_run)s",
        "Quadlet file: [Container] PodmanArgs=--memory=%(enough)s",
    ),
    "kubernetes": (
        "resources.limits.memory of the container or its pod: %(cgroup)s",
        "kubectl set resources deployment NAME --limits=memory=%(enough)si",
        "in the container's spec:\nresources:\n  requests: {memory: %(enough)si}\n"
        "  limits: {memory: %(enough)si}",
    ),
    "*": (
        "the memory cgroup %(cgroup)s",
        "cat %(cgroup)s/memory.max %(cgroup)s/memory.limit_in_bytes   # v2, v1",
        "raise that limit to %(enough)s or more (Slurm: --mem; systemd: MemoryMax=; "
        "by hand: write it to that file)",
    ),
}

BUDGET_BY_PLACE: dict[str, Rows] = {
    "memlock-budget": MEMLOCK,
    "cgroup-budget": CGROUP_BUDGET,
}

BUDGET_ON_HOST: dict[str, Row] = {
    "memory-budget": (
        "the machine: its memory, less what other programs have locked or use",
        "ps -eo rss,pid,comm --sort=-rss | head   # who has it",
        "a smaller --heap, or more memory; what can be locked once is not there twice",
    ),
    "overcommit-limit": (
        "vm.overcommit_memory, vm.overcommit_ratio and vm.overcommit_kbytes",
        "%(sudo)ssysctl -w vm.overcommit_ratio=90   # of RAM; swap is added",
        "echo vm.overcommit_ratio=90 | %(sudo)stee -a /etc/sysctl.d/50-rtlaunch.conf\n"
        "(or vm.overcommit_memory=0: what is locked is populated at once anyway)",
    ),
}

BUDGET_ANYWHERE: dict[str, Row] = {
    "budget-margin": (
        "the limit named above, and what fit measured (table [fit] of the profile)",
        "raise that limit to %(enough)s or more",
        "measure again with the real work: rtlaunch fit; then set what it recommends",
    ),
}
