"""The way into the target: a preload, or ptrace where no preload reaches.

Pure: it chooses by the findings that a preload would meet (:mod:`rtlaunch.core.preflight`).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from rtlaunch.core.facts import Facts
    from rtlaunch.core.options import Options

# Findings that say that no preload reaches the program; waived, it runs without one.
UNREACHED = frozenset(
    (
        "target-static", "target-setuid", "target-file-caps", "target-class", "target-machine",
        "shim-missing", "shim-path",
    )
)  # fmt: skip

# Of these, what a process that is stopped at its exec can be locked in spite of. The secure ones
# keep their privileges under a tracer that holds CAP_SYS_PTRACE (cap_bprm_creds_from_file).
BY_PTRACE = frozenset(("target-static", "target-class", "shim-missing", "shim-path"))
BY_PRIVILEGED_PTRACE = frozenset(("target-setuid", "target-file-caps"))

# Machines whose registers are known to rtlaunch.core.tracee.
INJECTABLE = ("x86_64", "i386", "aarch64")

PRELOAD, PTRACE = "preload", "ptrace"
WHY_PTRACE = {
    "target-static": "the program is static: no loader runs before it",
    "target-setuid": "the program is set-uid or set-gid: its loader drops LD_PRELOAD",
    "target-file-caps": "the program has file capabilities: its loader drops LD_PRELOAD",
    "target-class": "there is no shim for a program of this word size",
    "shim-missing": "there is no shim for this machine",
    "shim-path": "LD_PRELOAD cannot carry the shim's path, or the loader cannot map the shim",
}


def via(options: Options, facts: Facts, codes: Iterable[str]) -> tuple[str, str]:
    """Return the way into the target, preload or ptrace, and the rule that chose it.

    ``codes`` are those of the findings that a preload would meet.
    """
    if options.via != "auto":
        return options.via, "asked for"
    reached = reached_by(PTRACE, facts)
    for code in codes:
        if code in reached:
            return PTRACE, WHY_PTRACE[code]
    return PRELOAD, "the program is dynamic, and its loader honours LD_PRELOAD"


def reached_by(way: str, facts: Facts) -> frozenset[str]:
    """Return the codes of what stands against a preload and not against ``way``."""
    if way != PTRACE or facts.target.machine not in INJECTABLE:
        return frozenset()
    return BY_PTRACE | (BY_PRIVILEGED_PTRACE if facts.reach.reads_any else frozenset())


def preloaded(options: Options, facts: Facts, way: str) -> str:
    """Return what LD_PRELOAD shall name, "" for nothing.

    A static program that is locked by ptrace passes it on to what it execs; the loader of any
    other would complain of it, or takes it away.
    """
    shim, program = facts.shim, facts.target.program
    if shim is None or options.via == PTRACE or shim.noexec or shim.hidden:
        return ""
    if way != PTRACE:
        return shim.preload
    silent = program is not None and program.elf is not None and not program.elf.dynamic
    fits = shim.both or facts.target.machine == shim.machine
    return shim.preload if silent and fits else ""
