"""A plan as a systemd unit: limits, capabilities and scheduling by systemd, the lock by the guest.

The rules of quoting are systemd.service(5)'s and systemd.syntax(7)'s.
"""

from __future__ import annotations

from rtlaunch.core import wanted as wanting
from rtlaunch.core.numbers import UNLIMITED
from rtlaunch.core.spelling import write_hugepages
from rtlaunch.core.units import format_cpus
from rtlaunch.report.engines import remarks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rtlaunch.core.options import Options
    from rtlaunch.core.wanted import Wanted

FIRST_PRINTABLE, DELETE = 0x20, 0x7F


def word(text: str, dollars: bool = False) -> str:
    """Quote one word; ``dollars`` where systemd replaces variables: on a command line."""
    made = []
    for character in text:
        if character in '"\\':
            made.append("\\" + character)
        elif character == "%" or (character == "$" and dollars):
            made.append(character * 2)
        elif ord(character) < FIRST_PRINTABLE or ord(character) == DELETE:
            made.append(f"\\x{ord(character):02x}")
        else:
            made.append(character)
    return '"' + "".join(made) + '"'


def plain(text: str) -> str:
    """Write the rest of a line that takes no quotes; ValueError where it cannot be written."""
    if any(ord(character) < FIRST_PRINTABLE for character in text) or text.endswith("\\"):
        raise ValueError(f"{text!r} cannot stand in a unit file")
    return text.replace("%", "%%")


def render(wanted: Wanted) -> str:
    """Return the unit file."""
    name = wanted.command[0].rpartition("/")[2]
    return remarks.as_text(
        [
            *remarks.comments(remarks.heading(wanted, "systemd")),
            *remarks.comments(remarks.alone(wanted)),
            *remarks.comments(wanting.unsaid(wanted.options, remarks.WITHOUT_LAUNCHER)),
            "",
            "[Unit]",
            f"Description={plain(name)}, locked in memory",
            *hugepages(wanted.options),
            "",
            "[Service]",
            "# Type=notify where it says READY=1; never forking: its main PID is another one.",
            "Type=exec",
            "ExecStart=" + command_line(wanted.command),
            f"WorkingDirectory={plain(wanted.directory)}",
            *environment(wanted),
            "# 125: the lock failed. Starting it again would change nothing.",
            "RestartPreventExitStatus=125",
            *identity(wanted),
            *limits(wanted),
            *scheduling(wanted.options),
            "",
            "[Install]",
            "WantedBy=multi-user.target",
        ]
    )


def command_line(words: tuple[str, ...]) -> str:
    """Return the command; variables are replaced in the arguments, and not in the path."""
    path, *arguments = words
    return " ".join((word(path), *(word(each, True) for each in arguments)))


def environment(wanted: Wanted) -> list[str]:
    """Return the program's variables."""
    told = [f"Environment={word(f'{key}={text}')}"
            for key, text in wanting.variables(wanted).items()]  # fmt: skip
    what = "# mlockall's flags : bytes of stack to touch : PID, 0 being the one that systemd starts"
    return [what, *told] if wanted.guest else told


def hugepages(options: Options) -> list[str]:
    """Return what orders the unit behind the one that reserves huge pages."""
    if not options.hugepages:
        return []
    asked = write_hugepages(options.hugepages)
    return [
        f"# --hugepages {asked}: no lease; reserved at boot by that unit, once it is enabled and",
        f"# /etc/default/rtlaunch-hugepages says HUGEPAGES={asked}",
        "Wants=rtlaunch-hugepages.service",
        "After=rtlaunch-hugepages.service",
    ]


def identity(wanted: Wanted) -> list[str]:
    """Return who the program is, and what it may."""
    lines = []
    asked = wanted.options.user
    if asked:
        lines.append(f"User={plain(asked.user)}")
        lines += [f"Group={plain(asked.group)}"] if asked.group else []
    elif wanted.uid:
        lines.append(f"User={wanted.uid}")
    caps = wanting.ambient(wanted)
    if caps:
        lines += [
            "# PrivateUsers=yes would make it worthless: mlock asks the initial user namespace.",
            "AmbientCapabilities=" + " ".join(f"CAP_{cap.upper()}" for cap in caps),
        ]
    if wanted.options.no_new_privs:
        lines.append("NoNewPrivileges=yes")
    return lines


def limits(wanted: Wanted) -> list[str]:
    """Return the limits. A manager without CAP_SYS_RESOURCE clamps them without a word."""
    asked = wanting.limits(wanted.options)
    note = ["# Read them back by prlimit --pid MAINPID: a manager in a container may clamp them."]
    return (note if asked else []) + [
        f"Limit{name.upper()}={value(soft)}" + ("" if soft == hard else f":{value(hard)}")
        for name, soft, hard in asked
    ]


def value(number: int) -> str:
    """Write a limit; a nice limit, too, is the kernel's own number (systemd.exec(5))."""
    return "infinity" if number == UNLIMITED else str(number)


def scheduling(options: Options) -> list[str]:
    """Return policy, CPUs, nice value and timer slack."""
    lines = []
    if options.sched:
        lines.append(f"CPUSchedulingPolicy={options.sched.policy}")
        if options.sched.priority:
            lines.append(f"CPUSchedulingPriority={options.sched.priority}")
    if options.cpu_list is not None:
        lines.append(f"CPUAffinity={format_cpus(options.cpu_list)}")
    if options.nice is not None:
        lines.append(f"Nice={options.nice}")
    if options.timer_slack is not None:
        lines.append(f"TimerSlackNSec={options.timer_slack}ns")
    return lines
