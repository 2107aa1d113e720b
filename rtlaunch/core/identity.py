"""Who the target will be: the capabilities it gets, and its credentials just before exec.

Pure: options and facts in. What the kernel makes of them at exec is :mod:`rtlaunch.core.caps`'s.
"""

from __future__ import annotations

from rtlaunch.core import caps
from rtlaunch.core.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rtlaunch.core.facts import Facts
    from rtlaunch.core.options import Options


def may_raise_hard(facts: Facts) -> bool:
    """Tell whether we may raise a hard limit: CAP_SYS_RESOURCE, in the initial user namespace."""
    who = facts.who
    return who.initial_userns and caps.has(who.caps.effective, caps.CAP_SYS_RESOURCE)


def ambient_caps(options: Options, facts: Facts) -> tuple[str, ...]:
    """Return the capabilities to raise: those asked for, or the automatic default.

    The default is CAP_IPC_LOCK, only when ``--user`` leaves root, the memlock
    limit could not be raised to unlimited, and we hold the capability.
    """
    if options.ambient_caps is not None:
        return options.ambient_caps
    leaves_root = facts.account is not None and facts.who.euid == 0 and facts.account.uid != 0
    if not leaves_root or not options.lock or may_raise_hard(facts):
        return ()
    if facts.limits["memlock"].hard == -1:
        return ()
    holds = caps.has(facts.who.caps.permitted, caps.CAP_IPC_LOCK)
    return ("ipc_lock",) if holds else ()


def target_credentials(options: Options, facts: Facts) -> caps.Credentials:
    """Predict who the target is just before exec."""
    who = facts.who
    if facts.account is not None:
        account = facts.account
        who = caps.after_setuid(who, account.uid, account.gid, account.groups)
    who = caps.with_ambient(who, caps.mask_of(ambient_caps(options, facts)))
    return replace(who, no_new_privs=who.no_new_privs or options.no_new_privs)
