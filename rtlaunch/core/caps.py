"""Which capabilities a program will hold after exec, worked out before it.

Pure arithmetic on the five sets, as capabilities(7) and the kernel's
security/commoncap.c (cap_bprm_creds_from_file) define it. Reading the sets is
:mod:`rtlaunch.linux.proc`'s, changing them :mod:`rtlaunch.linux.prctl`'s.
"""

from __future__ import annotations

from rtlaunch.core.numbers import CAPABILITY_NUMBERS
from rtlaunch.core.record import Record, replace

CAP_SETGID = 6
CAP_SETUID = 7
CAP_IPC_LOCK = 14
CAP_SYS_PTRACE = 19
CAP_SYS_NICE = 23
CAP_SYS_RESOURCE = 24

# securebits(7), include/uapi/linux/securebits.h
SECBIT_NOROOT = 1 << 0
SECBIT_NO_SETUID_FIXUP = 1 << 2
SECBIT_NO_CAP_AMBIENT_RAISE = 1 << 6


class CapSets(Record):
    """The five capability sets of a thread, each a bit mask."""

    inheritable: int
    permitted: int
    effective: int
    bounding: int
    ambient: int

    def as_dict(self) -> dict[str, int]:
        """Return the masks by the names that capabilities(7) has for the sets."""
        return {field: getattr(self, field) for field in type(self)._fields}


class Credentials(Record):
    """Who a process is: real and effective ids, supplementary groups, capabilities."""

    uid: int
    euid: int
    gid: int
    egid: int
    groups: tuple[int, ...]
    caps: CapSets
    securebits: int
    no_new_privs: bool
    initial_userns: bool


def in_user_namespace(uid_map: str) -> bool:
    """Tell whether a uid_map is another than the initial user namespace's (user_namespaces(7))."""
    return bool(uid_map.split()) and uid_map.split() != ["0", "0", str(0xFFFFFFFF)]


def has(mask: int, cap: int) -> bool:
    """Tell whether capability number ``cap`` is in ``mask``."""
    return bool(mask >> cap & 1)


def mask_of(names: tuple[str, ...]) -> int:
    """Return the bit mask of capabilities by name."""
    mask = 0
    for name in names:
        mask |= 1 << CAPABILITY_NUMBERS[name]
    return mask


def after_setuid(who: Credentials, uid: int, gid: int, groups: tuple[int, ...]) -> Credentials:
    """Return the credentials after setresuid(2) to ``uid``; ambient caps not yet raised.

    Leaving root clears permitted, effective and ambient (commoncap.c
    cap_emulate_setxuid), unless securebits say no fixup.
    """
    caps = who.caps
    leaves_root = (who.uid == 0 or who.euid == 0) and uid != 0
    if leaves_root and not who.securebits & SECBIT_NO_SETUID_FIXUP:
        caps = CapSets(caps.inheritable, 0, 0, caps.bounding, 0)
    return Credentials(
        uid, uid, gid, gid, groups, caps, who.securebits, who.no_new_privs, who.initial_userns
    )


def with_ambient(who: Credentials, mask: int) -> Credentials:
    """Return the credentials once ``mask`` was made permitted, inheritable and ambient."""
    caps = who.caps
    raised = CapSets(
        caps.inheritable | mask,
        caps.permitted | mask,
        caps.effective | mask,
        caps.bounding,
        caps.ambient | mask,
    )
    return replace(who, caps=raised)


def after_exec(who: Credentials, has_file_caps: bool = False) -> CapSets:
    """Return the sets after exec of a file that is not set-uid and gives no capabilities itself.

    A file that has capabilities, if only an empty set, clears the ambient ones.
    P'(permitted) = (P(inheritable) & F(inheritable)) | (F(permitted) & P(bounding)) | P'(ambient),
    with F all ones for root unless SECBIT_NOROOT.
    """
    caps = replace(who.caps, ambient=0) if has_file_caps else who.caps
    rooted = not who.securebits & SECBIT_NOROOT
    if rooted and 0 in (who.uid, who.euid):
        permitted = caps.inheritable | caps.bounding
        effective = permitted if who.euid == 0 else caps.ambient
    else:
        permitted = effective = caps.ambient
    return CapSets(caps.inheritable, permitted, effective, caps.bounding, caps.ambient)
