"""Operations of prctl(2) and the capability sets, by python-prctl.

The only file that imports ``prctl``, inside the functions because it costs
1.4 ms and most launches need none of them; its C module costs 0.3. Ambient capabilities, which
python-prctl lacks, are in :mod:`rtlaunch.linux.libc`.
"""

from __future__ import annotations

import _prctl


def set_pdeathsig(number: int) -> None:
    """Set the signal that we get when the thread that forked us ends; 0 is none (PR_SET_PDEATHSIG).

    The call is python-prctl's C module's own: its Python layer takes as long
    again to import, and every launch makes this call.
    """
    _prctl.prctl(_prctl.PR_SET_PDEATHSIG, number)


def let_trace(pid: int) -> None:
    """Let ``pid``, no ancestor of ours, trace us where yama asks for that (PR_SET_PTRACER).

    It passes through exec. Without yama the kernel knows no such word, and none is needed.
    """
    try:
        _prctl.prctl(_prctl.PR_SET_PTRACER, pid)
    except OSError:
        return


def set_no_new_privs() -> None:
    """Set PR_SET_NO_NEW_PRIVS on this process; OSError where the kernel lacks it."""
    import prctl

    prctl.set_no_new_privs(1)


def set_timer_slack(slack_ns: int) -> None:
    """Set the timer slack in ns of this thread (PR_SET_TIMERSLACK)."""
    import prctl

    prctl.set_timerslack(slack_ns)


def is_subreaper() -> bool:
    """Tell whether the orphans of our descendants come to us (PR_GET_CHILD_SUBREAPER)."""
    import prctl

    return bool(prctl.get_child_subreaper())


def get_pdeathsig() -> int:
    """Return the signal that we get when our parent ends, 0 for none (PR_GET_PDEATHSIG)."""
    import prctl

    return int(prctl.get_pdeathsig())


def set_keep_caps(keep: bool) -> None:
    """Keep permitted capabilities over the next setresuid(2) (PR_SET_KEEPCAPS, cleared by exec)."""
    import prctl

    prctl.set_keepcaps(keep)


def get_securebits() -> int:
    """Return the secure bits of this thread as a mask (PR_GET_SECUREBITS)."""
    import prctl

    return int(prctl.get_securebits())


def add_capabilities(caps: tuple[int, ...]) -> None:
    """Make permitted capabilities inheritable and effective; OSError (EPERM) if not permitted."""
    import prctl

    prctl.set_caps((list(caps), (prctl.CAP_EFFECTIVE, prctl.CAP_INHERITABLE), True))
