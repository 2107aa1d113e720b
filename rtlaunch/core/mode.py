"""Which process model a launch has, and by which rule.

supervise: the target is our child. exec: it takes our PID, and what watches it is a side process;
a service manager finds its main PID, readiness, sockets and exit status where it left them.
Pure: whoever started us, and whether orphans come to us, is read by survey.
"""

from __future__ import annotations

from rtlaunch.core.findings import Finding
from rtlaunch.core.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rtlaunch.core.facts import Facts
    from rtlaunch.core.options import Options

AUTO, SUPERVISE, EXEC = "auto", "supervise", "exec"


class Choice(Record):
    """The mode, and the rule that chose it in words."""

    mode: str
    why: str


def choose(options: Options, facts: Facts) -> Choice:
    """Return the mode: what was asked for, exec under systemd where it can be, else supervise."""
    if options.mode != AUTO:
        return Choice(options.mode, "asked for")
    manager = started_by_systemd(facts)
    if not manager:
        return Choice(SUPERVISE, "not started as a service's main process")
    against = against_exec(options, facts)
    if against:
        return Choice(SUPERVISE, f"{manager}, but {against}")
    return Choice(EXEC, manager)


def started_by_systemd(facts: Facts) -> str:
    """Return the sign that systemd started this very process; empty where there is none.

    systemd 248 names the PID; an older one is the parent of what has an invocation and no terminal.
    """
    host, environ = facts.host, facts.environ
    named = environ.get("SYSTEMD_EXEC_PID", "")
    if named:
        return f"SYSTEMD_EXEC_PID is our own PID, {named}" if named == str(host.pid) else ""
    if environ.get("INVOCATION_ID") and facts.parent_is_manager and not facts.at_terminal:
        return f"INVOCATION_ID is set, and our parent {host.parent_pid} is the service manager"
    return ""


def against_exec(options: Options, facts: Facts) -> str:
    """Return what rules exec mode out; empty where nothing does."""
    limits = ("max-major", options.max_major), ("max-minor", options.max_minor)
    asked = [f"--{name}" for name, most in limits if most is not None]
    if asked:
        return f"{asked[0]} needs the exit status to be ours"
    if facts.host.pid == 1:
        return "we are PID 1: the side process would become the program's child"
    if facts.is_subreaper:
        return "we are a subreaper: the side process would become the program's child"
    if options.map_exit:
        return "--map-exit needs the exit status to be ours"
    first = "--arm signal" if options.arm.when == "signal" else needs_signals(options)
    if first:
        return f"{first} needs signals to reach us first"
    return ""


def needs_signals(options: Options) -> str:
    """Return the option by which signals are not passed on as they come; empty for none."""
    if options.rewrite:
        return "--rewrite"
    return "--signal-to group" if options.signal_to != "main" else ""


def findings(options: Options, facts: Facts) -> tuple[Finding, ...]:
    """Return what stands against exec mode where it was asked for by name."""
    if options.mode != EXEC:
        return ()
    against = against_exec(options, facts)
    if not against:
        return (watcher_is_killed(),) if facts.in_step else ()
    return (
        Finding(
            "mode-exec",
            f"--mode exec cannot be had: {against}",
            why="in exec mode the program has our PID, and nobody stands between it and its parent",
            values={"pid": facts.host.pid},
        ),
    )


def watcher_is_killed() -> Finding:
    """Return the finding for a step of Slurm, which ends with its last task."""
    return Finding(
        "mode-exec-step",
        "this step of Slurm kills what watches the program as soon as the program has ended: "
        "the report stays as it was after the last fault, if it was written at all",
        why="the side process is no task, and Slurm holds the step in a cgroup (proctrack/cgroup)",
    )
