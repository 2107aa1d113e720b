"""Chains of programs that become one another in place: who is traced to its exec, and what then.

An image that is there to exec another is traced from its proof on, for that exec alone. At the
exec, before the new image's first instruction, it is decided: the shim will speak in it, and it is
let go; or it is locked from outside; or it must not run. docs/decisions/0043 has the reasons.
"""

from __future__ import annotations

import os

from rtlaunch.core import chains
from rtlaunch.core.elf import Elf, host_machine, read_elf
from rtlaunch.core.outcome import Image
from rtlaunch.core.preflight import waive
from rtlaunch.core.proc import parse_status
from rtlaunch.core.protocol import CHANNEL_VARIABLE
from rtlaunch.core.target import leads_on, parse_file_caps
from rtlaunch.engine.handshake import command_name, executable
from rtlaunch.linux import files, proc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rtlaunch.core.facts import Shim
    from rtlaunch.core.findings import Finding
    from rtlaunch.engine.handshake import Conversation
    from rtlaunch.engine.inject import Injection
    from rtlaunch.engine.supervise import Supervisor

HEAD_BYTES = 4096
BOTH = ("x86_64", "i386")  # what a name with $LIB in it reaches (docs/decisions/0045)


# ---- from its proof on


def follow(supervisor: Supervisor, speaker: Conversation | Injection) -> None:
    """Trace a proven image that leads on to another; Refused where it cannot be traced."""
    handshake, pid = supervisor.handshake, speaker.pid
    options, privileged = handshake.options, handshake.facts.reach.reads_any
    if not chains.are_followed(options, privileged) or not leads(pid):
        return
    traced = supervisor.injection
    if traced is not None and not traced.is_over:
        traced.stays = True
        return
    from rtlaunch.engine import untraced

    try:
        supervisor.injection = untraced.begin(pid)
    except ProcessLookupError:
        return  # SIGCHLD tells of it
    except OSError as error:
        name = os.path.basename(handshake.images[-1].path or "the program")
        handshake.weigh((untraced.explain(pid, error, name),))


def leads(pid: int) -> bool:
    """Tell whether the image of ``pid`` is there to become another one, by its name or imports."""
    exe = f"/proc/{pid}/exe"
    try:
        return leads_on(os.readlink(exe)) or only_execs(exe)
    except OSError:
        return False


def only_execs(path: str) -> bool:
    """Tell whether a small program imports exec and nothing that forks."""
    from rtlaunch.core.symbols import imports, read_dynamic

    image = files.read_small(path)
    return chains.only_execs(imports(image, read_dynamic(image)))


# ---- at its exec


def must_inject(supervisor: Supervisor, injection: Injection) -> bool:
    """Decide on an image that stands at its exec: True where it is to be locked from outside.

    Else it was let go, and the shim will speak in it; or it was refused.
    """
    handshake, pid = supervisor.handshake, injection.pid
    found = None if handshake.facts.reach.reads_any else robbed(pid)
    found = found or closed_books(pid)
    injection.stays = False
    if found and not waive(found, handshake.options).waived:
        refuse(supervisor, injection, found)
        return False
    if found:  # it goes as it is; a shim that is in it will announce itself
        injection.let_go()
        return False
    if will_announce(pid, supervisor.shim_path, handshake.facts.shim):
        injection.stays = leads(pid)
        injection.let_go()
        return False
    if is_secure(pid):  # the kernel has cleared it
        injection.deathsig = handshake.options.pdeathsig
    return True


def closed_books(pid: int) -> Finding | None:
    """Find that nothing may be read of ``pid``: nobody could prove it, whoever locks it."""
    try:
        proc.read_bytes(pid, "auxv")
    except PermissionError as error:
        from rtlaunch.core import unproven

        return unproven.unreadable(command_name(pid), pid, error)
    return None


def refuse(supervisor: Supervisor, injection: Injection, found: Finding) -> None:
    """End an image that stands at its exec and must not run."""
    handshake, at_ns = supervisor.handshake, injection.entered_ns
    supervisor.sentry.image_entered(True, at_ns)
    handshake.note_image(Image(path=executable(injection.pid), at_ns=at_ns, why=found.what))
    supervisor.refuse(found)


def robbed(pid: int) -> Finding | None:
    """Find privileges that the new image of ``pid`` did not get because we trace it."""
    exe = f"/proc/{pid}/exe"
    try:
        found, path = os.stat(exe), os.readlink(exe)
        raw = files.get_attribute(exe, files.CAPABILITY)
        file_caps = parse_file_caps(raw) if raw else None
        if files.is_nosuid(exe) or not (file_caps or found.st_mode & chains.SET_IDS):
            return None
        status = parse_status(proc.read_text(pid, "status"))
    except OSError:
        return None  # it ended, or nothing of it may be seen: the proof will say
    return chains.robbed(path, found.st_mode, (found.st_uid, found.st_gid), file_caps, status)


def will_announce(pid: int, preload: str, shim: Shim | None) -> bool:
    """Tell whether the loader of the new image of ``pid`` will map the shim, and it will speak.

    Its program is dynamic and for the shim's machine, the execution not secure; LD_PRELOAD names
    the shim where it can be seen, and the channel is still open.
    """
    if not preload or shim is None:
        return False
    try:
        variables = proc.read_text(pid, "environ").split("\0")
        environ = dict(text.partition("=")[::2] for text in reversed(variables))
        return (
            preload in environ.get("LD_PRELOAD", "").replace(":", " ").split()
            and is_open(pid, environ.get(CHANNEL_VARIABLE, ""))
            and os.path.exists(f"/proc/{pid}/root{preload}")
            and not is_hidden(pid, shim)
            and is_dynamic(pid, (shim.machine, *BOTH) if shim.both else (shim.machine,))
            and not is_secure(pid)
        )
    except OSError:
        return False


def is_hidden(pid: int, shim: Shim) -> bool:
    """Tell whether ``pid`` has become a user who cannot read the shim."""
    status = parse_status(proc.read_text(pid, "status"))
    uid, gid = status.uids[1], status.gids[1]
    if uid == os.geteuid():
        return False
    from rtlaunch.core.facts import Account
    from rtlaunch.engine import hidden

    return bool(hidden.reason(shim, Account("", uid, gid, status.groups, "", "")))


def is_open(pid: int, variable: str) -> bool:
    """Tell whether the descriptor that the variable names is our channel in ``pid`` still."""
    fd, _, ino, _ = chains.parse_channel(variable)
    return fd >= 0 and os.stat(f"/proc/{pid}/fd/{fd}").st_ino == ino


def is_dynamic(pid: int, machines: tuple[str, ...]) -> bool:
    """Tell whether ``pid`` runs a program for one of ``machines`` that a loader starts."""
    elf = running(pid)
    return elf is not None and elf.dynamic and elf.machine in machines


def running(pid: int) -> Elf | None:
    """Return what the ELF header of the program of ``pid`` says; None where it is none of ours."""
    fd = files.open_read(f"/proc/{pid}/exe")
    try:
        head = files.read_at(fd, 0, HEAD_BYTES)
        host = host_machine(os.uname().machine, 64)
        elf = read_elf(head, lambda offset, size: files.read_at(fd, offset, size), host)
    finally:
        os.close(fd)
    return elf if isinstance(elf, Elf) else None


def is_secure(pid: int) -> bool:
    """Tell whether the kernel marked the execution as secure (AT_SECURE); True if unknown."""
    try:
        elf = running(pid)
        return chains.is_secure(proc.read_bytes(pid, "auxv"), 4 if elf and elf.cls == 32 else 8)
    except OSError:
        return True
