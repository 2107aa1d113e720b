"""A plan as a script of util-linux's tools, the lock by the guest.

Each step is done to the shell itself, whose PID the program keeps: so the guest knows who is
meant. LD_PRELOAD comes last, or the tools would be locked too. Each option here is util-linux
2.38's; a step that fails ends the script with 125.
"""

from __future__ import annotations

from rtlaunch.core import wanted as wanting
from rtlaunch.core.argv import quoted
from rtlaunch.core.numbers import UNLIMITED
from rtlaunch.core.spelling import write_hugepages
from rtlaunch.core.standalone import STANDALONE_VARIABLE
from rtlaunch.core.units import format_cpus
from rtlaunch.report.engines import remarks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rtlaunch.core.options import Options
    from rtlaunch.core.wanted import Wanted

OR_REFUSE = " || exit 125"
ULIMITS = {"memlock": "-l", "core": "-c"}


def render(wanted: Wanted) -> str:
    """Return the script."""
    return remarks.as_text(
        [
            "#!/bin/sh",
            *remarks.comments(remarks.heading(wanted, "env")),
            *remarks.comments(remarks.alone(wanted)),
            *remarks.comments(wanting.unsaid(wanted.options, remarks.WITHOUT_LAUNCHER)),
            *hugepages(wanted.options),
            "",
            *(step + OR_REFUSE for step in (*limits(wanted.options), *scheduling(wanted.options))),
            "exec " + " ".join((*privileges(wanted), *environment(wanted), quoted(wanted.command))),
        ]
    )


def hugepages(options: Options) -> list[str]:
    """Say what is to be reserved before, where huge pages are asked for."""
    asked = write_hugepages(options.hugepages)
    what = f"not here: --hugepages {asked}: before, as root: rtlaunch hugepages reserve {asked}"
    return remarks.comments([what] if options.hugepages else [])


def limits(options: Options) -> list[str]:
    """Return the limits; ``max`` takes what it gets, what was typed must hold."""
    steps = []
    for name, soft, hard in wanting.limits(options):
        if getattr(options, name, None) == "max":
            flag = ULIMITS[name]
            most = f'ulimit -S {flag} "$(ulimit -H {flag})"'
            steps.append(f"{{ ulimit {flag} unlimited 2>/dev/null || {most}; }}")
        else:
            steps.append(f"prlimit --pid $$ --{name}={value(soft)}:{value(hard)}")
    return steps


def value(number: int) -> str:
    """Write a limit as prlimit(1) has it."""
    return "unlimited" if number == UNLIMITED else str(number)


def scheduling(options: Options) -> list[str]:
    """Return timer slack, nice value, CPUs and, last, the policy."""
    steps = []
    if options.timer_slack is not None:
        steps.append(f"echo {options.timer_slack} >/proc/$$/timerslack_ns")
    if options.nice is not None:
        steps.append(f"renice --priority {options.nice} --pid $$ >/dev/null")
    if options.cpu_list is not None:
        steps.append(f"taskset --cpu-list --pid {format_cpus(options.cpu_list)} $$ >/dev/null")
    if options.sched is not None:
        policy, priority = options.sched.policy, options.sched.priority
        steps.append(f"chrt --{policy} --pid {priority} $$")
    return steps


def privileges(wanted: Wanted) -> list[str]:
    """Return setpriv(1) with who the program is and what it may; nothing where that is as it is."""
    words = []
    if wanted.account:
        who = wanted.account
        words += [f"--reuid={who.uid}", f"--regid={who.gid}"]
        groups = ",".join(map(str, who.groups))
        words.append(f"--groups={groups}" if groups else "--clear-groups")
    caps = wanting.ambient(wanted) if wanted.account or wanted.options.ambient_caps else ()
    if caps:
        told = ",".join(f"+{cap}" for cap in caps)
        words += [f"--inh-caps={told}", f"--ambient-caps={told}"]
    if wanted.options.no_new_privs:
        words.append("--no-new-privs")
    return ["setpriv", *words] if words else []


def environment(wanted: Wanted) -> list[str]:
    """Return env(1) with the program's variables; ``$$`` is the shell's to replace."""
    told = wanting.variables(wanted, "$$")
    if wanted.account:
        who = wanted.account
        told = {"HOME": who.home, "USER": who.name, "LOGNAME": who.name, "SHELL": who.shell, **told}
    words = [
        f'"{name}={text}"' if name == STANDALONE_VARIABLE else quoted([f"{name}={text}"])
        for name, text in told.items()
    ]
    return ["env", *words] if words else []
