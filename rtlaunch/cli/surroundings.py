"""Where rtlaunch runs, read when there is something to say about it: remedies and the report."""

from __future__ import annotations

import os
import time

from rtlaunch import __version__
from rtlaunch.core import spelling
from rtlaunch.core.argv import quoted
from rtlaunch.core.options import SETTINGS
from rtlaunch.core.protocol import PROTOCOL
from rtlaunch.core.record import replace
from rtlaunch.core.remedy import Context
from rtlaunch.core.remedy import with_remedy as fill_in
from rtlaunch.core.where import SYSTEM_SERVICE, Where, WhereFacts, where

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rtlaunch.core.findings import Finding
    from rtlaunch.core.options import Options
    from rtlaunch.core.outcome import Outcome

STDIN = 0


def read_whole(path: str) -> str | None:
    """Return the text of a file, None where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return None


def here() -> Where:
    """Read the signs of where we are, and return what they say."""
    login = (read_whole("/proc/self/loginuid") or "").strip()
    return where(
        WhereFacts(
            environ=dict(os.environ),
            cgroup=read_whole("/proc/self/cgroup") or "",
            mountinfo=read_whole("/proc/self/mountinfo") or "",
            uid_map=read_whole("/proc/self/uid_map") or "",
            dockerenv=os.path.exists("/.dockerenv"),
            containerenv=read_whole("/run/.containerenv"),
            pid=os.getpid(),
            uid=os.getuid(),
            gid=os.getgid(),
            user=user_name(),
            loginuid=int(login) if login.isdigit() else None,
            stdin_tty=os.isatty(STDIN),
            hostname=os.uname().nodename,
        )
    )


def user_name() -> str:
    """Return our name in passwd(5), empty where it has none."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return ""


def with_remedy(finding: Finding, words: list[str]) -> Finding:
    """Return ``finding`` with what to do about it here; ``words`` is the line that was typed."""
    dashes = words.index("--") if "--" in words else len(words)
    context = Context(
        options=tuple(words[:dashes]), command=quoted(words[dashes + 1 :]) or "COMMAND"
    )
    place = here()
    if finding.code.startswith("memlock-") and place.kind == SYSTEM_SERVICE:
        place = with_unit_memlock(place)
    return fill_in(finding, place, context)


def with_unit_memlock(place: Where) -> Where:
    """Return the place with what its unit's files say of LimitMEMLOCK=."""
    from rtlaunch.core import unitfile as files
    from rtlaunch.core.caps import CAP_SYS_RESOURCE, has
    from rtlaunch.core.proc import parse_status
    from rtlaunch.linux import unitfile

    texts = unitfile.texts(place.unit, files.SYSTEM_FOLDERS)
    manager = read_whole("/proc/1/status")
    raises = manager is not None and has(parse_status(manager).cap_eff, CAP_SYS_RESOURCE)
    asked = files.value(texts, "LimitMEMLOCK")
    return replace(place, unit_memlock=asked, manager_raises=raises)


def describe_images(outcome: Outcome) -> None:
    """Write down what kind of file each image was, as far as it is there still."""
    from rtlaunch.engine.look import look, make_eye

    eye = make_eye()
    for image in outcome.target.images:
        seen = look(image.path, eye) if image.path else None
        image.elf = getattr(seen, "elf", None)


def describe(outcome: Outcome, options: Options | None) -> None:
    """Write into the outcome who we are, what was asked if that was read, and where we ran."""
    if options is not None:
        outcome.options = {
            row.name: (spelling.write(row, getattr(options, row.field)), options.origin[row.name])
            for row in SETTINGS
        }
    outcome.time.ended_at = outcome.time.ended_at or time.time_ns()
    describe_images(outcome)
    place = here()
    outcome.rtlaunch.version, outcome.rtlaunch.protocol = __version__, PROTOCOL
    outcome.host.where = place.kind
    outcome.host.container = place.container or None
    outcome.host.unit = place.unit or None
    boot = read_whole("/proc/sys/kernel/random/boot_id")
    outcome.host.boot_id = boot.strip() if boot else None
