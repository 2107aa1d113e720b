"""Which capabilities the image after exec will hold."""

from __future__ import annotations

import pytest

from rtlaunch.core.caps import (
    CAP_IPC_LOCK,
    SECBIT_NO_SETUID_FIXUP,
    SECBIT_NOROOT,
    CapSets,
    Credentials,
    after_exec,
    after_setuid,
    has,
    in_user_namespace,
    mask_of,
    with_ambient,
)
from rtlaunch.core.record import replace

ALL = (1 << 41) - 1
LOCK = 1 << CAP_IPC_LOCK
ROOT = Credentials(0, 0, 0, 0, (0,), CapSets(0, ALL, ALL, ALL, 0), 0, False, True)
USER = Credentials(1000, 1000, 1000, 1000, (), CapSets(0, 0, 0, ALL, 0), 0, False, True)


def test_root_keeps_what_the_bounding_set_leaves():
    """P'(permitted) = P(inheritable) | P(bounding) for root."""
    root = replace(ROOT, caps=CapSets(0, ALL, ALL, ALL & ~LOCK, 0))
    assert after_exec(ROOT).effective == ALL
    assert not has(after_exec(root).effective, CAP_IPC_LOCK)


def test_root_without_privileges_keeps_ambient_only():
    """SECBIT_NOROOT makes uid 0 a user like others."""
    assert after_exec(replace(ROOT, securebits=SECBIT_NOROOT)).effective == 0


def test_leaving_root_gives_up_everything():
    """A plain setresuid(2) from root clears permitted, effective and ambient."""
    ambient = replace(ROOT, caps=replace(ROOT.caps, ambient=LOCK))
    dropped = after_setuid(ambient, 1000, 1000, ())
    assert (dropped.caps.permitted, dropped.caps.effective, dropped.caps.ambient) == (0, 0, 0)
    assert (dropped.uid, dropped.euid) == (1000, 1000)


def test_securebits_can_stop_that():
    """SECBIT_NO_SETUID_FIXUP leaves the sets as they are."""
    kept = after_setuid(replace(ROOT, securebits=SECBIT_NO_SETUID_FIXUP), 1000, 1000, ())
    assert kept.caps == ROOT.caps


def test_an_ambient_capability_survives_exec():
    """Raised ambient after the change of user, it is effective in the new image."""
    who = with_ambient(after_setuid(ROOT, 1000, 1000, ()), mask_of(("ipc_lock",)))
    assert has(after_exec(who).effective, CAP_IPC_LOCK)


def test_a_file_with_capabilities_clears_the_ambient_ones():
    """Even an empty set in the file does."""
    who = with_ambient(USER, LOCK)
    assert after_exec(who, has_file_caps=True).effective == 0


def test_a_user_has_nothing():
    """Without ambient capabilities exec gives a user none."""
    assert after_exec(USER).effective == 0


@pytest.mark.parametrize(
    ("uid_map", "inside"),
    [
        ("         0          0 4294967295\n", False),
        ("         0       1000          1\n", True),
        ("         0     100000      65536\n", True),
    ],
)
def test_a_user_namespace_is_seen_by_its_map(uid_map, inside):
    """The initial namespace maps all of the ids to themselves."""
    assert in_user_namespace(uid_map) is inside
