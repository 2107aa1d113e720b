"""Images that run without a proof, as somebody allowed: noted, and watched all the same.

Those that no shim ran in, and those whose books are closed to us. Imported only once there is one.
It must not decide that an image may run: :meth:`Handshake.weigh` does.
"""

from __future__ import annotations

import time

from rtlaunch.core import unproven as words
from rtlaunch.core.outcome import Image
from rtlaunch.core.preflight import waive
from rtlaunch.engine import silence
from rtlaunch.engine.handshake import Refused, executable, read_back

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rtlaunch.core.findings import Finding
    from rtlaunch.engine.handshake import Handshake, Speaker
    from rtlaunch.engine.supervise import Supervisor


def refuse_unreadable(handshake: Handshake, speaker: Speaker, name: str, error: OSError) -> None:
    """Refuse an image whose books may not be read; where that was allowed, watch it."""
    pid = speaker.pid
    finding = words.unreadable(name, pid, error)
    handshake.note_image(Image(path=executable(pid), at_ns=speaker.entered_ns, why=finding.what))
    handshake.weigh((finding,))
    watch(handshake, pid)


def look_at_silent(supervisor: Supervisor) -> None:
    """Look whether a silent target ever mapped the shim; refuse it, or let it run, if not."""
    pid = supervisor.pid
    if silence.runs_without_shim(pid, supervisor.shim_path):
        finding = silence.ignored_preload(supervisor.outcome.target.argv[0], pid)
        refusing = weigh_silence(supervisor, finding)
        if refusing:
            supervisor.refuse(refusing)


def weigh_silence(supervisor: Supervisor, finding: Finding) -> Finding | None:
    """Return what refuses a target that never announced itself; None, if that was allowed."""
    handshake = supervisor.handshake
    try:
        handshake.weigh((finding,))
    except Refused as refused:
        return refused.finding
    if supervisor.ended:
        handshake.note_image(Image(locked=False, why=finding.what))
    else:
        went_unlocked(handshake, supervisor.pid, finding.what)
    return None


def went_unlocked(handshake: Handshake, pid: int, why: str) -> None:
    """Note that the program runs without the shim, and why; do what else waited for its lock."""
    if handshake.promise is not None and not handshake.went:
        broken = handshake.promise(pid)
        handshake.accepted += (broken,) if broken else ()  # it runs already
    handshake.went += 1
    if handshake.readiness is not None:
        say_ready(handshake)
    if handshake.options.thread_stack is not None:
        from rtlaunch.engine import threadstack

        threadstack.give_back(pid, handshake.options, handshake.facts)
    at_ns = time.monotonic_ns()
    handshake.note_image(Image(path=executable(pid), at_ns=at_ns, locked=False, why=why))
    watch(handshake, pid)


def say_ready(handshake: Handshake) -> None:
    """Say READY=1 ourselves; note it where that cannot be said."""
    readiness, handshake.readiness = handshake.readiness, None
    if readiness is None:
        return
    told = readiness.announce_ourselves()
    if told.error:
        handshake.accept(waive(readiness.not_said(told.error), handshake.options))
    readiness.close()


def watch(handshake: Handshake, pid: int) -> None:
    """Arm the watch on a target of which, perhaps, no mapping can be seen."""
    for mapped in (True, False):
        try:
            books = handshake.read_books(pid, mapped)
        except PermissionError:
            continue
        except OSError:
            return  # it ended
        read_back(handshake.outcome, books)
        handshake.arm(pid, books)
        return
