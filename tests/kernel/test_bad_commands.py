"""Any bytes as a command are a clean refusal, or they run: the kernel and we agree which.

Nothing of these bytes is ever executed: see tests/kernel/execve.py.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rtlaunch.core.target import TEXT
from rtlaunch.engine.classify import classify
from tests.kernel.execve import offer
from tests.kernel.programs import PIE, PROGRAM, codes_for, compile_source, write

REFUSALS = {"command-not-executable", "command-bad-format", "command-bad-interpreter"}
MAY_LACK_IN_KERNEL = {"i386", "x32", "arm"}

EXAMPLES = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
WORDS = b" |\t|\n|\0|\r|/bin/true|/bin/echo|/|/nonexistent|-x|\xff".split(b"|")
LINES = st.lists(st.sampled_from([*WORDS, b"x" * 200, b" " * 240]), max_size=12).map(b"".join)


def assert_foretold(file: Path) -> None:
    """What we say of a file and what execve does with it are the same."""
    target = classify((str(file), "argument"), None)
    verdict = offer([str(file), "argument"], str(file))
    if target.broken:
        assert errno.errorcode[verdict.errno] == errno.errorcode[target.broken.errno]
        (code,) = codes_for(target)
        assert code in REFUSALS
    elif target.images[0].kind == TEXT:
        assert verdict.errno == errno.ENOEXEC
        assert target.argv == ("/bin/sh", str(file), "argument")
    elif verdict.errno:
        assert (target.machine in MAY_LACK_IN_KERNEL, verdict.errno) == (True, errno.ENOEXEC)
        assert codes_for(target)[0] == "target-class"
    elif not verdict.killed:
        assert verdict.program == os.path.realpath(target.images[-1].path)


@EXAMPLES
@given(st.binary(max_size=400))
def test_any_bytes(room: Path, content: bytes) -> None:
    """A file of any bytes at all."""
    assert_foretold(write(room / "bytes", content))


@EXAMPLES
@given(LINES)
def test_any_first_line(room: Path, line: bytes) -> None:
    """A script with any first line, some of them with interpreters that exist."""
    assert_foretold(write(room / "script", b"#!" + line))


@EXAMPLES
@given(LINES)
def test_the_interpreter_gets_the_argument_that_we_read(room: Path, line: bytes) -> None:
    """Where a script runs, the kernel's argv shows what it took from the line."""
    file = write(room / "script", b"#!" + line)
    target, verdict = classify((str(file),), None), offer([str(file)], str(file))
    if target.broken or target.images[0].script is None:
        assert verdict.errno
        return
    found = target.images[0].script
    argument = () if found.argument is None else (os.fsdecode(found.argument),)
    assert verdict.argv == (os.fsdecode(found.interpreter), *argument, str(file))


@pytest.fixture(scope="module")
def program(room: Path) -> Path:
    return compile_source("cc", PIE, PROGRAM, room / "whole")


@EXAMPLES
@given(st.data())
def test_any_damaged_program(room: Path, program: Path, data: st.DataObject) -> None:
    """A real program with bytes of its headers overwritten, or cut off."""
    raw = bytearray(program.read_bytes())
    for _ in range(data.draw(st.integers(1, 3), label="changes")):
        at = data.draw(st.integers(0, 800), label="at")
        raw[at] = data.draw(st.sampled_from((0, 1, 2, 3, 32, 62, 255)), label="byte")
    size = data.draw(st.sampled_from((len(raw), 4096, 1000, 800, 300, 64, 63, 20, 4)), label="size")
    assert_foretold(write(room / "damaged", bytes(raw[:size])))


@EXAMPLES
@given(st.data())
def test_any_damaged_loader(room: Path, program: Path, data: st.DataObject) -> None:
    """A program whose loader has bytes of its header overwritten, or is cut off."""
    loader = room / "loader"
    user = compile_source("cc", f"{PIE} -Wl,--dynamic-linker={loader}", PROGRAM, room / "user")
    raw = bytearray(program.read_bytes())
    at = data.draw(st.integers(0, 70), label="at")
    raw[at] = data.draw(st.sampled_from((0, 1, 2, 3, 32, 62, 255)), label="byte")
    size = data.draw(st.sampled_from((len(raw), 700, 300, 64, 63, 20, 4, 0)), label="size")
    write(loader, bytes(raw[:size]))
    assert_foretold(user)
