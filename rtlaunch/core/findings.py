"""What stands against a launch, as values: a code, the numbers, and what to do.

A finding's code is contract: never renamed, never given another meaning; each
has a page behind ``rtlaunch explain``. This module holds the table of codes and
nothing that decides (preflight, proof and check do) or prints (report does).
"""

from __future__ import annotations

from rtlaunch.core.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ERROR, WARNING, INFO = "error", "warning", "info"

EXIT_LIMIT_EXCEEDED = 123
EXIT_REFUSED = 125
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127

# code: (severity, exit code of a refusal, may be waived by --allow)
CODES: dict[str, tuple[str, int, bool]] = {
    # what was asked
    "usage": (ERROR, EXIT_REFUSED, False),
    "environment-value": (ERROR, EXIT_REFUSED, False),
    "environment-unknown": (WARNING, EXIT_REFUSED, True),
    "profile-missing": (ERROR, EXIT_REFUSED, False),
    "profile-unreadable": (ERROR, EXIT_REFUSED, False),
    "profile-invalid": (ERROR, EXIT_REFUSED, False),
    "profile-writable": (ERROR, EXIT_REFUSED, False),
    # the command
    "command-not-found": (ERROR, EXIT_NOT_FOUND, False),
    "command-not-executable": (ERROR, EXIT_NOT_EXECUTABLE, False),
    "command-bad-format": (ERROR, EXIT_NOT_EXECUTABLE, False),
    "command-bad-interpreter": (ERROR, EXIT_NOT_EXECUTABLE, False),
    # what a preload cannot reach
    "target-static": (ERROR, EXIT_REFUSED, True),
    "target-setuid": (ERROR, EXIT_REFUSED, True),
    "target-file-caps": (ERROR, EXIT_REFUSED, True),
    "target-unreadable": (ERROR, EXIT_REFUSED, True),
    "target-class": (ERROR, EXIT_REFUSED, True),
    "target-machine": (ERROR, EXIT_REFUSED, True),
    "shim-missing": (ERROR, EXIT_REFUSED, True),
    "shim-path": (ERROR, EXIT_REFUSED, True),
    # what ptrace cannot reach
    "ptrace-denied": (ERROR, EXIT_REFUSED, True),
    "inject-failed": (ERROR, EXIT_REFUSED, True),
    "exec-unfollowed": (ERROR, EXIT_REFUSED, True),
    # a process that already runs
    "process-missing": (ERROR, EXIT_REFUSED, False),
    "process-unsuitable": (ERROR, EXIT_REFUSED, False),
    "attach-denied": (ERROR, EXIT_REFUSED, False),
    "attach-failed": (ERROR, EXIT_REFUSED, False),
    # limits, privileges, scheduling
    "memlock-limit": (ERROR, EXIT_REFUSED, True),
    "memlock-headroom": (WARNING, EXIT_REFUSED, True),
    "limit-raise": (ERROR, EXIT_REFUSED, True),
    "stack-limit": (ERROR, EXIT_REFUSED, True),
    "capability-missing": (ERROR, EXIT_REFUSED, True),
    "user-unknown": (ERROR, EXIT_REFUSED, False),
    "user-denied": (ERROR, EXIT_REFUSED, False),
    "sched-denied": (ERROR, EXIT_REFUSED, True),
    "cpu-unavailable": (ERROR, EXIT_REFUSED, True),
    # the lock and its proof
    "lock-denied": (ERROR, EXIT_REFUSED, True),
    "lock-failed": (ERROR, EXIT_REFUSED, True),
    "shim-silent": (ERROR, EXIT_REFUSED, True),
    "unlocked-mappings": (ERROR, EXIT_REFUSED, True),
    "proof-unreadable": (ERROR, EXIT_REFUSED, True),
    "died-before-go": (ERROR, EXIT_REFUSED, False),
    "exec-unannounced": (WARNING, EXIT_REFUSED, True),
    "child-unlocked": (WARNING, EXIT_REFUSED, True),
    "work-in-child": (WARNING, EXIT_REFUSED, True),
    "daemonized": (WARNING, EXIT_REFUSED, True),
    # the surroundings
    "proc-missing": (ERROR, EXIT_REFUSED, False),
    "mode-exec": (ERROR, EXIT_REFUSED, False),
    "mode-exec-step": (WARNING, EXIT_REFUSED, True),
    "notify-supervise": (ERROR, EXIT_REFUSED, True),
    "unit-forking": (ERROR, EXIT_REFUSED, True),
    "notify-missing": (WARNING, EXIT_REFUSED, True),
    "notify-failed": (ERROR, EXIT_REFUSED, True),
    "launch-failed": (ERROR, EXIT_REFUSED, False),
    "report-unwritable": (ERROR, EXIT_REFUSED, True),
    # the watch
    "watch-degraded": (INFO, EXIT_REFUSED, True),
    "watch-lost": (WARNING, EXIT_REFUSED, True),
    # what `check` looks at on the host
    "swap-on": (INFO, EXIT_REFUSED, True),
    "thp-always": (WARNING, EXIT_REFUSED, True),
    "memory-cgroup": (WARNING, EXIT_REFUSED, True),
    "compaction-unevictable": (WARNING, EXIT_REFUSED, True),
    "numa-balancing": (WARNING, EXIT_REFUSED, True),
    "ksm-on": (WARNING, EXIT_REFUSED, True),
    "rt-throttling": (WARNING, EXIT_REFUSED, True),
    # leases of huge pages
    "hugepages-size": (ERROR, EXIT_REFUSED, False),
    "hugepages-node": (ERROR, EXIT_REFUSED, False),
    "hugepages-unavailable": (ERROR, EXIT_REFUSED, True),
    "hugepages-denied": (ERROR, EXIT_REFUSED, True),
    "hugepages-cgroup": (ERROR, EXIT_REFUSED, True),
    "hugepages-kept": (WARNING, EXIT_REFUSED, True),
    "state-directory": (ERROR, EXIT_REFUSED, True),
    "ledger-damaged": (WARNING, EXIT_REFUSED, True),
    # stacks of threads, transparent huge pages, MCL_ONFAULT
    "thread-stack-size": (ERROR, EXIT_REFUSED, False),
    "thread-stack-arguments": (ERROR, EXIT_REFUSED, True),
    "thread-stack-unsupported": (ERROR, EXIT_REFUSED, True),
    "thread-stack-lost": (WARNING, EXIT_REFUSED, True),
    "stack-unrestored": (ERROR, EXIT_REFUSED, True),
    "thp-unavailable": (ERROR, EXIT_REFUSED, True),
    "thp-populated": (WARNING, EXIT_REFUSED, True),
    "lock-onfault": (WARNING, EXIT_REFUSED, True),
    # the budget
    "memlock-budget": (ERROR, EXIT_REFUSED, True),
    "cgroup-budget": (ERROR, EXIT_REFUSED, True),
    "memory-budget": (ERROR, EXIT_REFUSED, True),
    "overcommit-limit": (ERROR, EXIT_REFUSED, True),
    "budget-margin": (WARNING, EXIT_REFUSED, True),
    # the heap
    "heap-allocator": (ERROR, EXIT_REFUSED, True),
    "heap-tunables": (ERROR, EXIT_REFUSED, True),
    "heap-too-large": (ERROR, EXIT_REFUSED, True),
    "heap-pages": (ERROR, EXIT_REFUSED, True),
    "heap-short": (ERROR, EXIT_REFUSED, True),
    "heap-fallback": (WARNING, EXIT_REFUSED, True),
}


class Finding(Record):
    """One thing found: ``what`` with its numbers, ``why`` it matters here, ``values`` as data.

    ``set_by``, ``try_now`` and ``for_good`` are the remedy, filled in by
    :mod:`rtlaunch.core.remedy` once it is known where we run.
    """

    code: str
    what: str
    why: str = ""
    values: Mapping[str, object] = {}
    set_by: str = ""
    try_now: str = ""
    for_good: str = ""
    waived: bool = False

    @property
    def severity(self) -> str:
        """One of ``error``, ``warning``, ``info``."""
        return CODES[self.code][0]

    @property
    def exit_code(self) -> int:
        """The exit status of a launch that this finding refuses."""
        return CODES[self.code][1]

    @property
    def waivable(self) -> bool:
        """Whether ``--allow`` may name it."""
        return CODES[self.code][2]

    @property
    def refuses(self) -> bool:
        """Whether the launch must not go on: an error that nobody allowed."""
        return self.severity == ERROR and not self.waived


class Refusal(Exception):
    """A launch that does not take place; carries the finding, and so the exit code.

    The command line layer alone turns it into a message and an exit status.
    """

    def __init__(self, finding: Finding) -> None:
        super().__init__(f"[{finding.code}] {finding.what}")
        self.finding = finding


def first_refusal(findings: Iterable[Finding]) -> Finding | None:
    """Return the first finding that refuses the launch, or None."""
    return next((finding for finding in findings if finding.refuses), None)
