"""The supervisor's part where the target is locked from outside: it is traced to its exec.

Imported only then, by the loop that is told of the stops. It decides nothing about an image that is
exec()ed later: :mod:`rtlaunch.engine.chain` does.
"""

from __future__ import annotations

import os

from rtlaunch.core import protocol
from rtlaunch.core import untraced as words
from rtlaunch.engine import channel, untraced
from rtlaunch.engine.handshake import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rtlaunch.core.findings import Finding
    from rtlaunch.engine.inject import Injection
    from rtlaunch.engine.supervise import Supervisor


def begin(supervisor: Supervisor) -> None:
    """Trace the child, which waits for it; what the kernel has against that is a refusal."""
    ours, theirs = channel.open_witness()
    found = os.fstat(theirs.fileno())
    handed, ready = [theirs.fileno()], supervisor.handshake.readiness
    try:
        supervisor.injection = untraced.begin(supervisor.pid, ours, (found.st_dev, found.st_ino))
        if ready is not None:
            supervisor.injection.ready = ready.identity()
            handed += ready.descriptors()
        channel.hand_over(supervisor.channel, protocol.Message(protocol.GO), *handed)
    except (ProcessLookupError, ConnectionError):
        return  # SIGCHLD tells of it
    except OSError as error:
        finding = untraced.explain(supervisor.pid, error)
        supervisor.why_unlocked, supervisor.shim_path = finding.what, ""
        if weigh_or_refuse(supervisor, finding):
            channel.tell(supervisor.channel, protocol.Message(protocol.SKIP))
    finally:
        theirs.close()


def on_exec(supervisor: Supervisor, injection: Injection) -> None:
    """Lock and prove the image that the target was stopped in, before its first instruction."""
    times = supervisor.outcome.time
    times.entered_ns = times.entered_ns or injection.entered_ns
    try:
        if supervisor.handshake.went:
            from rtlaunch.engine import chain

            if not chain.must_inject(supervisor, injection):
                return
        supervisor.sentry.image_entered(True, injection.entered_ns)
        supervisor.current = injection
        record = injection.lock(supervisor.handshake.order(injection))
        supervisor.sentry.prepare()
        supervisor.conclude(injection, record)
        keep(supervisor, injection)
    except ProcessLookupError:
        return  # SIGCHLD tells of it
    except OSError as error:
        not_injected(supervisor, injection, error)


def keep(supervisor: Supervisor, injection: Injection) -> None:
    """Listen for the exec of an image that kept its end, or give up ours."""
    sock = injection.sock
    if sock is None:
        return
    if not injection.kept:
        sock.close()
        return
    fd = sock.fileno()
    supervisor.conversations[fd] = injection
    supervisor.listen(fd, lambda: supervisor.on_conversation(fd))


def not_injected(supervisor: Supervisor, injection: Injection, error: OSError) -> None:
    """Refuse a target that could not be locked, or let it run as it was at its exec."""
    finding = words.failed(supervisor.outcome.target.argv[0], supervisor.pid, error)
    if weigh_or_refuse(supervisor, finding):
        injection.let_go()
        if injection.sock:
            injection.sock.close()
        from rtlaunch.engine import unproven

        unproven.went_unlocked(supervisor.handshake, supervisor.pid, finding.what)
        supervisor.settle_in()


def weigh_or_refuse(supervisor: Supervisor, finding: Finding) -> bool:
    """Tell whether the target may run unlocked, as ``finding`` says; refuse it if not."""
    try:
        supervisor.handshake.weigh((finding,))
    except Refused as refused:
        supervisor.refuse(refused.finding)
        return False
    return True
