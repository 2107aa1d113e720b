"""What a unit's files say: which they are, and what one directive of [Service] comes to.

Pure: names and texts go in, a value comes out (systemd.unit(5), systemd.syntax(7)). Why files: the
manager would have to be asked over D-Bus, which a service may not reach. It must not read.
"""

from __future__ import annotations

from rtlaunch.core.numbers import UNLIMITED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SERVICE = "[Service]"

# systemd.unit(5), "UNIT FILE LOAD PATH": the first that has the unit's own file wins.
SYSTEM_FOLDERS = (
    "/etc/systemd/system.control", "/run/systemd/system.control", "/run/systemd/transient",
    "/run/systemd/generator.early", "/etc/systemd/system", "/etc/systemd/system.attached",
    "/run/systemd/system", "/run/systemd/system.attached", "/run/systemd/generator",
    "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system",
    "/run/systemd/generator.late",
)  # fmt: skip
BELOW_RUNTIME = ("user.control", "transient", "generator.early", "user", "generator")
USER_FOLDERS = (
    "/etc/systemd/user", "/run/systemd/user", "/usr/local/lib/systemd/user",
    "/usr/lib/systemd/user",
)  # fmt: skip

FACTORS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def folders(of_user: bool, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return where units are looked for, the system's or those of a user's manager."""
    if not of_user:
        return SYSTEM_FOLDERS
    home, runtime = environ.get("HOME", ""), environ.get("XDG_RUNTIME_DIR", "")
    config = environ.get("XDG_CONFIG_HOME") or (f"{home}/.config" if home else "")
    own = [f"{config}/systemd/user"] if config else []
    run = [f"{runtime}/systemd/{name}" for name in BELOW_RUNTIME] if runtime else []
    return (*own, *run, *USER_FOLDERS)


def fragments(unit: str) -> tuple[str, ...]:
    """Return the names that a unit's own file may have: its own, and its template's."""
    name, dot, kind = unit.rpartition(".")
    template, at, _ = name.partition("@")
    return (unit, f"{template}@{dot}{kind}") if at else (unit,)


def drop_in_folders(unit: str) -> tuple[str, ...]:
    """Return the names of folders of drop-ins, the most exact first."""
    name, dot, kind = unit.rpartition(".")
    own = [f"{fragment}.d" for fragment in fragments(unit)]
    words = name.partition("@")[0].split("-")
    prefixes = ["-".join(words[:count]) for count in range(len(words) - 1, 0, -1)]
    return (*own, *(f"{prefix}-{dot}{kind}.d" for prefix in prefixes), f"{kind}.d")


def value(texts: Iterable[str], key: str) -> str:
    """Return what a directive of [Service] is, from a unit's texts in order; empty if unset."""
    found = ""
    for text in texts:
        section = ""
        for line in map(str.strip, text.replace("\\\n", " ").splitlines()):
            name, equals, right = line.partition("=")
            if line.startswith("["):
                section = line
            elif section == SERVICE and equals and name.rstrip() == key:
                found = right.strip()
    return found


def hard_limit(text: str) -> int | None:
    """Return the hard limit of a Limit...= in bytes, -1 for infinity; None for what is none."""
    hard = text.rpartition(":")[2].strip()
    if hard == "infinity":
        return UNLIMITED
    factor = FACTORS.get(hard[-1:], 0)
    number = hard[:-1] if factor else hard
    return int(number) * (factor or 1) if number.isdecimal() else None


def is_more(asked: int | None, given: object) -> bool:
    """Tell whether a limit that was asked for is above the one that was given."""
    if asked is None or not isinstance(given, int) or given == UNLIMITED:
        return False
    return asked == UNLIMITED or asked > given
