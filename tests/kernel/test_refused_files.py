"""What execve would refuse is refused before, by the same errno and the contract's exit code."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kernel import execve
from tests.kernel.execve import in_child, offer
from tests.kernel.programs import (
    PIE,
    PROGRAM,
    TEXT,
    classified,
    codes_for,
    compile_source,
    need,
    patched,
    script,
    script_chain,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Callable

NOT_ELF = b"x" * 100


def truncated(here: Path) -> Path:
    whole = compile_source("cc", PIE, PROGRAM, here / "whole").read_bytes()
    return write(here / "file", whole[:100])


def with_loader(here: Path, loader: Path) -> Path:
    flags = f"{PIE} -Wl,--dynamic-linker={loader}"
    return compile_source("cc", flags, PROGRAM, here / "file")


def object_file(here: Path) -> Path:
    made = compile_source("cc", "-c", PROGRAM, here / "file")
    made.chmod(0o755)
    return made


def endless_link(here: Path) -> Path:
    (here / "file").symlink_to("file")
    return here / "file"


def script_chain_to(here: Path, program: Path) -> Path:
    return write(here / "script", f"#!{program}\n")


def loader_patched(here: Path, offset: int, value: int) -> Path:
    return patched(here, offset, struct.pack("=H", value)).rename(here / "loader")


def no_loader_name(here: Path) -> Path:
    """A program whose loader's path is nothing but NULs."""
    whole = compile_source("cc", PIE, PROGRAM, here / "whole")
    loader = os.fsencode(classified(whole).images[-1].interpreter)
    return write(here / "file", whole.read_bytes().replace(loader, b"\0" * len(loader)))


def interp_field(here: Path, field: int, value: int) -> Path:
    """A program one field of whose PT_INTERP header is overwritten (64-bit layout)."""
    raw = compile_source("cc", PIE, PROGRAM, here / "whole").read_bytes()
    start, size, count = (*struct.unpack_from("=Q", raw, 32), *struct.unpack_from("=HH", raw, 54))
    headers = range(start, start + size * count, size)
    interp = next(at for at in headers if struct.unpack_from("=I", raw, at) == (3,))
    return patched(here, interp + field, struct.pack("=Q", value))


FILES: dict[str, tuple[Callable[[Path], Path], int]] = {
    "missing": (lambda d: d / "none", errno.ENOENT),
    "below-a-file": (lambda d: write(d / "file", "") / "x", errno.ENOTDIR),
    "long-name": (lambda d: d / ("x" * 256), errno.ENAMETOOLONG),
    "endless-link": (endless_link, errno.ELOOP),
    "directory": (lambda d: d, errno.EACCES),
    "device": (lambda d: Path("/dev/null"), errno.EACCES),
    "no-x-bit": (lambda d: write(d / "file", TEXT, 0o644), errno.EACCES),
}
FORMATS: dict[str, tuple[Callable[[Path], Path], int]] = {
    "empty": (lambda d: write(d / "file", ""), errno.ENOEXEC),
    "compressed": (lambda d: write(d / "file", b"\x1f\x8b\x08\0\n"), errno.ENOEXEC),
    "magic-only": (lambda d: write(d / "file", b"\x7fELF"), errno.ENOEXEC),
    "object-file": (object_file, errno.ENOEXEC),
    "truncated": (truncated, errno.ENOEXEC),
    "foreign": (lambda d: patched(d, 18, struct.pack("=H", 50)), errno.ENOEXEC),
    "phentsize": (lambda d: patched(d, 54, struct.pack("=H", 55)), errno.ENOEXEC),
    "phnum-none": (lambda d: patched(d, 56, struct.pack("=H", 0)), errno.ENOEXEC),
    "phnum-many": (lambda d: patched(d, 56, struct.pack("=H", 1171)), errno.ENOEXEC),
    "phoff": (lambda d: patched(d, 32, struct.pack("=Q", 1 << 40)), errno.ENOEXEC),
    "phoff-negative": (lambda d: patched(d, 32, struct.pack("=Q", 1 << 63)), errno.ENOEXEC),
    "interp-offset": (lambda d: interp_field(d, 8, 1 << 40), errno.EIO),
    "interp-negative": (lambda d: interp_field(d, 8, 1 << 63), errno.EINVAL),
    "interp-size": (lambda d: interp_field(d, 32, 1), errno.ENOEXEC),
    "interp-long": (lambda d: interp_field(d, 32, 4097), errno.ENOEXEC),
    "interp-no-end": (lambda d: interp_field(d, 32, 5), errno.ENOEXEC),
    "#!-nothing": (lambda d: script(d, ""), errno.ENOEXEC),
    "#!-blanks": (lambda d: script(d, " " * 300), errno.ENOEXEC),
    "#!-too-long": (lambda d: script(d, "/" + "x" * 300), errno.ENOEXEC),
}
INTERPRETERS: dict[str, tuple[Callable[[Path], Path], int]] = {
    "script-missing": (lambda d: script(d, d / "none"), errno.ENOENT),
    "script-cr-lf": (lambda d: script(d, "/bin/sh", "\r\n"), errno.ENOENT),
    "script-end-of-file": (lambda d: script(d, "", ""), errno.EACCES),
    "script-directory": (lambda d: script(d, d), errno.EACCES),
    "script-no-x-bit": (lambda d: script(d, write(d / "i", TEXT, 0o644)), errno.EACCES),
    "script-text": (lambda d: script(d, write(d / "i", TEXT)), errno.ENOEXEC),
    "script-empty": (lambda d: script(d, write(d / "i", "")), errno.ENOEXEC),
    "script-chain": (lambda d: script_chain(d, 6), errno.ELOOP),
    "script-of-broken": (lambda d: script_chain_to(d, with_loader(d, d / "none")), errno.ENOENT),
    "loader-missing": (lambda d: with_loader(d, d / "none"), errno.ENOENT),
    "loader-directory": (lambda d: with_loader(d, d), errno.EACCES),
    "loader-no-x-bit": (lambda d: with_loader(d, write(d / "l", NOT_ELF, 0o644)), errno.EACCES),
    "loader-no-name": (no_loader_name, errno.EACCES),
    "loader-empty": (lambda d: with_loader(d, write(d / "l", "")), errno.EIO),
    "loader-no-elf": (lambda d: with_loader(d, write(d / "l", NOT_ELF)), errno.ELIBBAD),
    "loader-foreign": (lambda d: with_loader(d, loader_patched(d, 18, 50)), errno.ELIBBAD),
    "loader-phentsize": (lambda d: with_loader(d, loader_patched(d, 54, 0)), errno.ELIBBAD),
    "loader-phnum": (lambda d: with_loader(d, loader_patched(d, 56, 0)), errno.ELIBBAD),
}


def assert_refused_alike(file: Path, error: int) -> None:
    """Our prediction, the kernel's refusal and the case's own name for it agree."""
    broken = classified(file).broken
    assert broken is not None
    assert errno.errorcode[offer([str(file)], str(file)).errno] == errno.errorcode[error]
    assert errno.errorcode[broken.errno] == errno.errorcode[error]


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_execve_cannot_have_is_refused_by_its_errno(case: str, here: Path) -> None:
    """Absent, unreachable or not executable: 127 for what is not there, 126 for what is."""
    make, error = FILES[case]
    file = make(here)
    absent = error in (errno.ENOENT, errno.ENOTDIR)
    assert_refused_alike(file, error)
    assert codes_for(classified(file)) == [
        "command-not-found" if absent else "command-not-executable"
    ]


@pytest.mark.parametrize("case", FORMATS)
def test_a_file_of_no_format_is_refused_by_its_errno(case: str, here: Path) -> None:
    """Each rule of load_elf_binary and load_script that we know is the kernel's."""
    make, error = FORMATS[case]
    file = make(here)
    assert_refused_alike(file, error)
    assert codes_for(classified(file)) == ["command-bad-format"]


@pytest.mark.parametrize("case", INTERPRETERS)
def test_a_bad_interpreter_is_refused_by_its_errno(case: str, here: Path) -> None:
    """What a script or a program names, and is not there or not fit, is told by its name."""
    make, error = INTERPRETERS[case]
    file = make(here)
    assert_refused_alike(file, error)
    assert codes_for(classified(file)) == ["command-bad-interpreter"]


def test_a_noexec_mount_is_named(here: Path) -> None:
    """A file with its x bit on a noexec mount is refused, and the mount is the reason given."""
    need("no-mount", lambda: execve.mount_private(execve.MS_NOEXEC, here))

    def judged() -> tuple[int, str]:
        execve.mount_private(execve.MS_NOEXEC, here)
        file = script(here, "/bin/sh")
        broken = classified(file).broken
        return offer([str(file)], str(file)).errno, broken.rule if broken else ""

    assert in_child(judged) == (errno.EACCES, "noexec")
