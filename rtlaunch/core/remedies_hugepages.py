"""The remedies for leases of huge pages. Part of :mod:`rtlaunch.core.remedies`.

``%(pool)s`` is how large the pool would have to be, ``%(page_size)s`` the size as the kernel's
command line spells it; both are the finding's.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rtlaunch.core.remedies_parts import Row

# Memory is whole at boot, and in pieces later.
AT_BOOT = (
    "at boot, while memory is whole:\n"
    "hugepagesz=%(page_size)s hugepages=%(pool)s on the kernel's command line\n"
    "or rtlaunch hugepages reserve %(page_size)s:%(asked)s (rtlaunch-hugepages.service)\n"
    "or vm.nr_hugepages=%(pool)s in /etc/sysctl.d/, for the default size"
)

HUGEPAGES_ON_HOST: dict[str, Row] = {
    "hugepages-unavailable": (
        "memory: too little of it is free in whole huge pages (/proc/buddyinfo)",
        "rtlaunch hugepages gc; echo 3 | %(sudo)stee /proc/sys/vm/drop_caches; "
        "echo 1 | %(sudo)stee /proc/sys/vm/compact_memory",
        AT_BOOT,
    ),
    "hugepages-denied": (
        "the pool of this size (/sys/kernel/mm/hugepages), which root alone may grow",
        "%(sudo)srtlaunch hugepages reserve %(page_size)s:%(asked)s",
        AT_BOOT,
    ),
}

HUGEPAGES: dict[str, Row] = {
    "hugepages-size": (
        "the processor and the kernel: the sizes in /sys/kernel/mm/hugepages",
        "rtlaunch hugepages list",
        "a lease in one of these sizes; 1G needs a processor with pdpe1gb (x86_64)",
    ),
    "hugepages-node": (
        "the machine: the nodes in /sys/devices/system/node",
        "rtlaunch hugepages list",
        "a lease on a node that is there, or without @NODE on any",
    ),
    "hugepages-cgroup": (
        "a hugetlb cgroup: %(file)s",
        "echo %(enough_bytes)s | %(sudo)stee %(file)s",
        "raise it where it is set: the container's or the pod's hugepages limit "
        "(resources.limits.hugepages-%(page_size)si), or whoever made that cgroup",
    ),
    "hugepages-kept": (
        "the state directory %(path)s, or the pool",
        "%(sudo)srtlaunch hugepages gc",
        "rtlaunch hugepages gc gives back what killed launchers left; so does the next lease",
    ),
    "state-directory": (
        "RTLAUNCH_STATE_DIR, /run/rtlaunch for root, else $XDG_RUNTIME_DIR/rtlaunch",
        "ls -ld %(path)s",
        "a directory that belongs to uid %(uid)s and that no one else may write to: "
        "RTLAUNCH_STATE_DIR=DIRECTORY, or RuntimeDirectory= in a unit",
    ),
    "ledger-damaged": (
        "a full file system, or someone who wrote to %(kept)s",
        "rtlaunch hugepages list; cat %(kept)s",
        "keep the state directory on a tmpfs that does not fill up; set the pool to what it "
        "shall be (sysctl vm.nr_hugepages=N): that becomes its base",
    ),
}
