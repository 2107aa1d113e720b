"""Who leads on to another program, and what a traced exec takes away."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rtlaunch.core import chains
from rtlaunch.core.proc import parse_status
from rtlaunch.core.symbols import imports, read_dynamic
from rtlaunch.core.target import FileCaps, leads_on
from tests.unit.deciding import options

STATUS = "Name:\tx\nState:\tt\nPid:\t7\nPPid:\t1\nUid:\t{0}\t{0}\t{0}\t{0}\nGid:\t9\t9\t9\t9\n"
CAPS = "CapInh:\t0\nCapPrm:\t0\nCapEff:\t0\nCapBnd:\tff\nCapAmb:\t0\nNoNewPrivs:\t{1}\n"


def status(uid: int = 1000, no_new_privs: int = 0):
    return parse_status((STATUS + CAPS).format(uid, no_new_privs))


@pytest.mark.parametrize("name", ["nice", "nohup", "env", "setpriv", "chrt", "taskset", "stdbuf"])
def test_a_program_that_only_execs_is_known_by_its_imports(name: str) -> None:
    """As this system has them, whatever they are called."""
    image = Path(shutil.which(name) or "").read_bytes()
    assert chains.only_execs(imports(image, read_dynamic(image)))


@pytest.mark.parametrize("name", ["dash", "cat", "timeout", "python3"])
def test_a_program_that_has_others_beside_it_is_not(name: str) -> None:
    """Whoever forks, or never execs."""
    image = Path(shutil.which(name) or "").read_bytes()
    assert not chains.only_execs(imports(image, read_dynamic(image)))


def test_no_sense_is_no_imports() -> None:
    """A file that is no ELF program, or a damaged one."""
    for image in (b"", b"#!/bin/sh\nexec x\n", b"\x7fELF\x02\x01" + b"\xff" * 200):
        assert imports(image, read_dynamic(image)) == frozenset()


def test_names_of_shells_lead_on() -> None:
    """By the file name alone."""
    assert [leads_on(path) for path in ("/bin/dash", "/x/busybox", "/usr/bin/python3", "")] == [
        True, True, False, False,
    ]  # fmt: skip


NET_RAW = FileCaps(1 << 3, 0, True)
ROBBED = [
    (0o104755, (0, 0), None, status(), "target-setuid"),
    (0o102755, (0, 50), None, status(), "target-setuid"),
    (0o100755, (0, 0), NET_RAW, status(), "target-file-caps"),
    (0o104755, (1000, 0), None, status(), None),
    (0o102745, (0, 50), None, status(), None),
    (0o104755, (0, 0), NET_RAW, status(no_new_privs=1), None),
    (0o100755, (0, 0), FileCaps(1 << 20, 0, False), status(), None),
    (0o100755, (0, 0), None, status(), None),
]


@pytest.mark.parametrize(("mode", "owner", "caps", "who", "code"), ROBBED)
def test_what_a_traced_exec_took_away_is_found(mode, owner, caps, who, code) -> None:
    """A set-id bit that would have changed an id, a capability that would have been gained."""
    found = chains.robbed("/opt/x", mode, owner, caps, who)
    assert (found.code if found else None) == code


FOLLOWED = [
    ({}, True, True),
    ({}, False, True),
    ({"lock": "none"}, True, False),
    ({"allow": "exec-unfollowed"}, True, False),
    ({"allow": "target-setuid"}, True, True),
    ({"allow": "target-setuid"}, False, False),
    ({"best_effort": "true"}, True, True),
    ({"best_effort": "true"}, False, False),
]


@pytest.mark.parametrize(("texts", "privileged", "followed"), FOLLOWED)
def test_chains_are_followed_unless_that_could_harm(texts, privileged, followed) -> None:
    """Not where nothing is locked, it was allowed, or privileges may be lost that nobody minds."""
    assert chains.are_followed(options(**texts), privileged) is followed


@pytest.mark.parametrize("variable", ["", "4", "x:y:z:1", "1:2:3"])
def test_a_variable_of_no_sense_names_no_channel(variable: str) -> None:
    """Whatever somebody wrote into it."""
    assert chains.parse_channel(variable)[0] == -1


def test_secure_executions_are_told_by_the_auxiliary_vector() -> None:
    """AT_SECURE is 23; of a 32-bit image the words have four bytes."""
    for size in (8, 4):
        for secure in (1, 0):
            words = [6, 4096, 23, secure, 25, 0xFFFFD000, 0, 0]
            vector = b"".join(word.to_bytes(size, "little") for word in words)
            assert chains.is_secure(vector, size) == bool(secure)
            assert not chains.is_secure(vector[: 2 * size], size)
