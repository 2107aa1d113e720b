"""Options and facts of a launch that nothing stands against; tests change one thing each."""

from __future__ import annotations

from collections.abc import Iterable

from rtlaunch.core import settings
from rtlaunch.core.caps import CapSets, Credentials
from rtlaunch.core.elf import Elf
from rtlaunch.core.facts import Account, Facts, Host, Shim
from rtlaunch.core.findings import Finding
from rtlaunch.core.limits import Limit
from rtlaunch.core.options import Options
from rtlaunch.core.target import ELF, Image, Reach, Target
from rtlaunch.core.units import RLIMITS

MIB = 1 << 20
ALL = (1 << 41) - 1
NOBODY = Account("nobody", 65534, 65534, (65534,), "/nonexistent", "/usr/sbin/nologin")

ROOT = Credentials(0, 0, 0, 0, (0,), CapSets(0, ALL, ALL, ALL, 0), 0, False, True)
USER = Credentials(1000, 1000, 1000, 1000, (), CapSets(0, 0, 0, ALL, 0), 0, False, True)


def options(**texts: str) -> Options:
    """Return the options of a command line: ``cpu_list="0"`` is ``--cpu-list 0``."""
    raw = {name.replace("_", "-"): (text,) for name, text in texts.items()}
    return settings.resolve(raw, {}, None).options


def facts(**changed: object) -> Facts:
    """Return facts as root has them on a plain machine, with some of them changed."""
    elf = Elf(
        cls=64, machine="x86_64", order="little", type="DYN", interp=b"/lib64/ld.so",
        linkage="dynamic", load_bytes=4 * MIB, stack_exec=False,
    )  # fmt: skip
    program = Image("/usr/bin/app", ELF, 0o755, 0, 0, elf=elf)
    known: dict[str, object] = {
        "host": Host("box", "Linux 6.1", "x86_64", 4096, 10, 1),
        "who": ROOT,
        "limits": {name: Limit(8 * MIB, 8 * MIB) for name in RLIMITS} | {"rtprio": Limit(0, 0)},
        "cpus": frozenset((0, 1)),
        "possible_cpus": frozenset((0, 1)),
        "policy": 0,
        "nice": 0,
        "target": Target("app", "/usr/bin/app", ("app",), (program,)),
        "reach": Reach("x86_64", frozenset(("x86_64",)), True),
        "shim": Shim("x86_64", "/opt/shim.so", "/opt/shim.so"),
        "account": None,
        "environ": {"PATH": "/usr/bin"},
    }
    return Facts(**{**known, **changed})  # type: ignore[arg-type]


def codes(findings: Iterable[Finding]) -> list[str]:
    """Return the codes of findings, in order."""
    return [finding.code for finding in findings]
