"""The end of a run: how the target ended, who ended it, and what goes on without it.

Imported once the target runs. It must not signal what goes on, which is nobody's business here.
"""

from __future__ import annotations

import os

from rtlaunch.core.outcome import BY_RTLAUNCH, BY_TARGET, ENDED, REFUSED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rtlaunch.core.outcome import Rusage
    from rtlaunch.engine.supervise import Supervisor


def reap(pid: int, rusage: Rusage) -> None:
    """Take a zombie off the kernel's list, and write down what it took (wait4(2))."""
    _, _, usage = os.wait4(pid, 0)
    rusage.user_ns, rusage.system_ns = int(usage.ru_utime * 1e9), int(usage.ru_stime * 1e9)
    rusage.max_resident_bytes = usage.ru_maxrss * 1024
    rusage.major_faults, rusage.minor_faults = usage.ru_majflt, usage.ru_minflt
    rusage.voluntary_switches = usage.ru_nvcsw
    rusage.involuntary_switches = usage.ru_nivcsw


def settle(supervisor: Supervisor, found: os.waitid_result) -> None:
    """Write down how the target ended, as waitid(2) has it."""
    end = supervisor.outcome.exit
    if found.si_code == os.CLD_EXITED:
        end.code = found.si_status
    else:
        end.signal = found.si_status
        end.core_dumped = found.si_code == os.CLD_DUMPED
    judge(supervisor)


def settle_status(supervisor: Supervisor, status: int | None) -> None:
    """Write down how it ended, from a wait status; None where that could not be learnt."""
    end = supervisor.outcome.exit
    if status is not None and os.WIFEXITED(status):
        end.code = os.WEXITSTATUS(status)
    elif status is not None:
        end.signal, end.core_dumped = os.WTERMSIG(status), os.WCOREDUMP(status)
    judge(supervisor)


def judge(supervisor: Supervisor) -> None:
    """Say who ended it: the target itself, or we before it ran."""
    outcome, went = supervisor.outcome, supervisor.handshake.went
    end = outcome.exit
    if not went and not supervisor.refusal and not supervisor.failure:
        from rtlaunch.engine import silence, unproven

        entered = outcome.time.entered_ns is not None
        program = supervisor.handshake.facts.target.program
        path = program.path if program else None
        finding = silence.died_before_go(outcome.target.argv[0], end, entered, path)
        supervisor.refusal = unproven.weigh_silence(supervisor, finding) if finding else None
    ours = supervisor.refusal is not None or supervisor.failure is not None
    end.by = BY_RTLAUNCH if ours else BY_TARGET
    outcome.state = REFUSED if ours else ENDED
    if end.by == BY_TARGET and supervisor.channel.fileno() in supervisor.handlers:
        look_for_forks(supervisor)


def look_for_forks(supervisor: Supervisor) -> None:
    """Say where the program goes on in forks of itself: its end of the channel is held."""
    from rtlaunch.engine import leftover

    outcome = supervisor.outcome
    program = outcome.target.images[-1].path if outcome.target.images else None
    pids = leftover.forks_of(program, supervisor.channel_end) if program else []
    if pids and outcome.exit.signal is None and supervisor.handshake.options.lock:
        from rtlaunch.core import children

        supervisor.sentry.note(children.went_on(outcome.target.argv[0], pids))
