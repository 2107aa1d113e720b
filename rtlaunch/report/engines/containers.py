"""A plan for container engines: what they grant, and rtlaunch itself as the entrypoint.

In a container rtlaunch is there, so that all of the plan is its own to do, proof and watch
included; the engine is asked for capabilities, limits and CPUs alone. YAML is written as JSON's
scalars, which YAML 1.2 takes as they are.
"""

from __future__ import annotations

import json

from rtlaunch.core import wanted as wanting
from rtlaunch.core.argv import PROGRAM, quoted
from rtlaunch.core.record import Record
from rtlaunch.core.spelling import write_hugepages
from rtlaunch.core.units import format_cpus
from rtlaunch.report.engines import remarks
from rtlaunch.report.engines.limits import needed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from rtlaunch.core.options import Options
    from rtlaunch.core.wanted import Wanted

IMAGE = "${IMAGE:?an image with rtlaunch and the program in it}"
NAME_CHARS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
LONGEST_NAME = 63  # of a DNS label
KIB = 1024
UNITS = ((KIB**3, "Gi"), (KIB**2, "Mi"), (KIB, "Ki"))

FOR_ALL = (
    "the image holds rtlaunch and the program; whether it starts is judged in the container.",
    "perf is forbidden there: faults are counted, and not placed",
)
NON_ROOT = (
    "the container starts as root and rtlaunch changes the user: docker and Kubernetes give a user",
    "who is not root no effective capability, and so no lock",
)
NO_ULIMITS = (
    "a pod has no ulimits: CAP_IPC_LOCK, which no limit binds, is the only way to lock more than",
    "the node's default; the container needs a memory limit that holds all that is locked",
)


class Grant(Record):
    """What an engine has to grant: capabilities, and limits as name, soft, hard."""

    caps: tuple[str, ...]
    limits: tuple[tuple[str, int, int], ...]


def changes_user(wanted: Wanted) -> bool:
    """Tell whether the program is another user's than rtlaunch, which is root in a container."""
    return wanted.options.user is not None and not wanting.is_root(wanted)


def granted(wanted: Wanted) -> Grant:
    """Return what rtlaunch needs of the engine to do the plan: what was typed, and to lock."""
    options = wanted.options
    caps = list(options.ambient_caps or ())
    if not wanting.by_limit(options):
        caps.append("ipc_lock")
    if needed(options):  # not its limits: an engine in a container of its own may raise none
        caps.append("sys_nice")
    typed = [limit for limit in wanting.limits(options) if getattr(options, limit[0], "") != "max"]
    return Grant(tuple(dict.fromkeys(caps)), tuple(typed))


def entrypoint(wanted: Wanted, without: tuple[str, ...] = ()) -> list[str]:
    """Return rtlaunch's own command line."""
    options = wanting.run_line(wanted.options, (*wanting.NOT_WITHIN, *without))
    return [PROGRAM, *options, "--", *wanted.command]


def name_of(wanted: Wanted) -> str:
    """Return a name for the container: a DNS label."""
    base = wanted.command[0].rpartition("/")[2].lower()
    made = "".join(each if each in NAME_CHARS else "-" for each in base).strip("-")
    return made[:LONGEST_NAME].strip("-") or "app"


def notes(wanted: Wanted, engine: str, more: Iterable[str] = ()) -> list[str]:
    """Return the comments in front."""
    lines = [*remarks.heading(wanted, engine), *FOR_ALL]
    lines += NON_ROOT if changes_user(wanted) else ()
    return remarks.comments((*lines, *more))


def on_the_host(options: Options) -> list[str]:
    """Say what the host has to reserve."""
    asked = write_hugepages(options.hugepages)
    return [f"--hugepages {asked}: on the host: rtlaunch hugepages reserve {asked}"] * bool(
        options.hugepages
    )


# --- docker, podman --------------------------------------------------------------------------


def docker(wanted: Wanted) -> str:
    """Return the shell line; podman takes the same."""
    program, *arguments = entrypoint(wanted)
    asked = granted(wanted)
    flags = [f"--cap-add={cap.upper()}" for cap in asked.caps]
    flags += [f"--ulimit={name}={soft}:{hard}" for name, soft, hard in asked.limits]
    if wanted.options.cpu_list is not None:
        flags.append(f"--cpuset-cpus={format_cpus(wanted.options.cpu_list)}")
    started = f'--entrypoint={program} "{IMAGE}"'
    lines = ["docker run --rm", *(quoted([flag]) for flag in flags), started, quoted(arguments)]
    more = ["podman takes the same line", *on_the_host(wanted.options)]
    return remarks.as_text([*notes(wanted, "docker", more), " \\\n    ".join(lines)])


# --- YAML ------------------------------------------------------------------------------------


def scalar(text: str) -> str:
    """Write a string as a double-quoted scalar; what YAML does not print is escaped."""
    return "".join(
        f"\\u{ord(each):04x}" if "\x7f" <= each <= "\x9f" or each in "\ufeff\ufffe\uffff" else each
        for each in json.dumps(text, ensure_ascii=False)
    )


def sequence(texts: Iterable[str]) -> str:
    """Write a list on one line."""
    return "[" + ", ".join(map(scalar, texts)) + "]"


def compose(wanted: Wanted) -> str:
    """Return the Compose file; it replaces variables, so that a dollar is written twice."""
    asked, options = granted(wanted), wanted.options
    words = (each.replace("$", "$$") for each in entrypoint(wanted))
    lines = [
        "services:",
        f"  {scalar(name_of(wanted))}:",
        f"    image: {scalar(IMAGE)}",
        f"    entrypoint: {sequence(words)}",
    ]
    if asked.caps:
        lines.append(f"    cap_add: {sequence(cap.upper() for cap in asked.caps)}")
    if asked.limits:
        lines.append("    ulimits:")
        lines += [f"      {name}: {{soft: {soft}, hard: {hard}}}"
                  for name, soft, hard in asked.limits]  # fmt: skip
    if options.cpu_list is not None:
        lines.append(f"    cpuset: {scalar(format_cpus(options.cpu_list))}")
    return remarks.as_text([*notes(wanted, "compose", on_the_host(options)), *lines])


def kubernetes(wanted: Wanted) -> str:
    """Return the pod. Kubernetes replaces $(NAME), so that $( is written $$(."""
    name = scalar(name_of(wanted))
    words = (each.replace("$(", "$$(") for each in entrypoint(wanted, ("memlock", "limit")))
    lines = [
        "apiVersion: v1",
        "kind: Pod",
        "metadata:",
        f"  name: {name}",
        "spec:",
        "  containers:",
        f"    - name: {name}",
        '      image: "IMAGE"',
        f"      command: {sequence(words)}",
        *_security(wanted),
        *_resources(wanted.options),
    ]
    return remarks.as_text([*notes(wanted, "kubernetes", _pod_notes(wanted)), *lines])


def _pod_notes(wanted: Wanted) -> list[str]:
    options = wanted.options
    lines = list(NO_ULIMITS if options.lock else ())
    if wanting.by_limit(options) and options.lock:
        lines.append("not here: --memlock: the capability stands for it")
    lines += [f"not here: --limit {ask.name}: the node's container runtime sets it"
              for ask in options.limit]  # fmt: skip
    if options.cpu_list is not None:
        cpus = format_cpus(options.cpu_list)
        lines.append(f"--cpu-list {cpus}: CPUs of one's own take the static CPU manager, whole")
        lines.append("CPUs and equal requests; which ones they are is the node's to say")
    return lines


def _security(wanted: Wanted) -> list[str]:
    options = wanted.options
    caps = [*(["ipc_lock"] if options.lock else []), *granted(wanted).caps]
    if not caps:
        return []
    names = sequence(dict.fromkeys(cap.upper() for cap in caps))
    return [
        "      securityContext:",
        "        runAsUser: 0",
        f"        capabilities: {{add: {names}}}",
    ]


def _resources(options: Options) -> list[str]:
    if not options.hugepages:
        return []
    total: dict[int, int] = {}
    for asked in options.hugepages:
        total[asked.page_bytes] = total.get(asked.page_bytes, 0) + asked.page_bytes * asked.count
    return [
        "      resources:",
        "        limits:",
        "          # whatever the program needs; huge pages are not given without it",
        '          memory: "1Gi"',
        *(f"          hugepages-{quantity(size)}: {scalar(quantity(whole))}"
          for size, whole in total.items()),
    ]  # fmt: skip


def quantity(count: int) -> str:
    """Write bytes as Kubernetes does, in the largest unit that leaves no rest."""
    for unit, suffix in UNITS:
        if count % unit == 0:
            return f"{count // unit}{suffix}"
    return str(count)
