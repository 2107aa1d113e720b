"""Transparent huge pages: what the system gives, what ``--thp`` asks, what locking leaves of it.

Pure, and imported only for ``--thp``. The texts are those of /sys/kernel/mm/transparent_hugepage
(Documentation/admin-guide/mm/transhuge.rst); the flag of a process is PR_SET_THP_DISABLE
(prctl(2)), which children and exec inherit.
"""

from __future__ import annotations

from rtlaunch.core.findings import Finding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rtlaunch.core.facts import Facts
    from rtlaunch.core.options import Options

ALWAYS, MADVISE, NEVER, INHERIT = "always", "madvise", "never", "inherit"

# include/uapi/linux/prctl.h: the flag beside PR_SET_THP_DISABLE, from Linux 6.18 on.
EXCEPT_ADVISED = 2

KNOB = "/sys/kernel/mm/transparent_hugepage/enabled"


def chosen(text: str) -> str:
    """Return the word in brackets of one of the files named ``enabled``; "" for no such file."""
    return text.partition("[")[2].partition("]")[0]


def system_policy(enabled: str, sizes: Iterable[str]) -> str:
    """Return the policy for a process without a flag: the loosest over all sizes of pages.

    ``enabled`` is the global file, ``sizes`` those of hugepages-*kB, none before Linux 6.8. A
    kernel without transparent huge pages gives none.
    """
    general = chosen(enabled) or NEVER
    each = {general if chosen(text) == INHERIT else chosen(text) for text in sizes} or {general}
    return next((policy for policy in (ALWAYS, MADVISE) if policy in each), NEVER)


def flag(asked: str, facts: Facts) -> tuple[int, int] | None:
    """Return PR_SET_THP_DISABLE's arguments for what was asked; None where they do not do it."""
    if asked == NEVER:
        return 1, 0
    if facts.shape is None or facts.shape.thp_system == NEVER:
        return None
    if facts.shape.thp_except_advised:
        return 1, EXCEPT_ADVISED
    return (0, 0) if facts.shape.thp_system == MADVISE else None


def policy_for(disabled: int, system: str) -> str:
    """Return the policy for a process with that PR_GET_THP_DISABLE under that of the system."""
    if disabled & EXCEPT_ADVISED:
        return MADVISE if system == ALWAYS else system
    return NEVER if disabled else system


def policy_found(asked: str, system: str, enabled: int | None) -> str | None:
    """Return the target's policy by THP_enabled of its status; None before Linux 5.0.

    That number is 0 where all is disabled, and 1 where only what was not advised is.
    """
    if enabled is None:
        return None
    if enabled == 0:
        return NEVER
    return MADVISE if asked == MADVISE else system


def findings(options: Options, facts: Facts) -> Iterator[Finding]:
    """Find a policy that cannot be had, and one that locking makes useless."""
    if flag(options.thp, facts) is None:
        yield _unavailable(facts)
    elif options.thp == MADVISE and "future" in options.lock and "onfault" not in options.lock:
        yield _trap(",".join(options.lock))


def _unavailable(facts: Facts) -> Finding:
    system = facts.shape.thp_system if facts.shape else NEVER
    if system == NEVER:
        what = "--thp madvise: this system gives huge pages to no program, advised or not"
        why = f"{KNOB} (or each size's own) says never"
    else:
        what = "--thp madvise: this system gives huge pages to all, and its kernel "
        what += f"({facts.host.kernel}) cannot restrict one program to those it advises"
        why = f"{KNOB} says always; PR_THP_DISABLE_EXCEPT_ADVISED came with Linux 6.18"
    return Finding("thp-unavailable", what, why, {"system": system, "asked": MADVISE})


def _trap(flags: str) -> Finding:
    """Return the finding on MCL_FUTURE; its numbers are tests/kernel/test_thp.py's."""
    return Finding(
        "thp-populated",
        f"--thp madvise with --lock {flags}: of 64 MiB that the program maps and then advises, "
        "0 come in huge pages; with onfault 64 MiB",
        why="MCL_FUTURE populates a mapping with small pages when it is made, before the program "
        "can call madvise(MADV_HUGEPAGE)",
        values={"flags": flags},
    )


def not_in_force(name: str, asked: str, found: str) -> Finding:
    """Say that the kernel's books show another policy than was asked for."""
    return Finding(
        "thp-unavailable",
        f"--thp {asked} is not in force for {name}: by THP_enabled of its status it is {found}",
        why="something between us and main() set it otherwise (PR_SET_THP_DISABLE)",
        values={"asked": asked, "system": found},
    )
