"""The kinds of programs that there are to lock, and how one of each is made.

Every one says "ready PID", answers each line on its input with one of its own, and ends when its
input does. Programs are copies of their own: pages that a stranger maps as well cannot be pushed
out, and the attack would be none.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.kernel.test_secure_execution import EFFECTIVE, NET_RAW, set_caps
from tests.skips import skip

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
PROGRAMS = HERE / "programs"
WAITER = HERE.parent / "targets" / "waiter.c"
DAEMON = 1  # a user who is neither root nor the one that rtlaunch is run by
# gcc-12-multilib does not bring the link /usr/include/asm that gcc-multilib has.
FLAGS_32 = ("-m32", "-I/usr/include/x86_64-linux-gnu")


@dataclass(frozen=True)
class Kind:
    """One kind of program: what it is, and how its command line is made in a folder of its own.

    ``breaks`` is how a locked one breaks by its own fault: a name, and what it says on stderr.
    """

    what: str
    make: Callable[[Path], list[str]]
    breaks: tuple[str, str] = ("", "")


# V8 gives pages back by madvise(MADV_DONTNEED), which is EINVAL on locked ones, and aborts
# (base/platform, OS::SetPermissions): version 20 of node does, as soon as it compiles something.
V8 = ("madvise-dontneed", "Check failed: 0 == ret")


def need(fact: str, program: str) -> str:
    """Return the path of a program; skip by ``fact`` where it is not installed."""
    found = shutil.which(program)
    if not found:
        skip(fact)
    return found


def compiled(folder: Path, *flags: str, compiler: str = "cc", name: str = "waiter") -> Path:
    """Compile waiter.c."""
    program = folder / name
    command = [compiler, "-O1", "-pthread", *flags, "-o", program, WAITER]
    subprocess.run(command, check=True)
    return program


def by_cc(*flags: str) -> Callable[[Path], list[str]]:
    """Make a program by the system's compiler."""
    return lambda folder: [str(compiled(folder, *flags))]


def by_musl(*flags: str) -> Callable[[Path], list[str]]:
    """Make a program with musl."""
    return lambda folder: [str(compiled(folder, *flags, compiler=need("no-musl", "musl-gcc")))]


def by_cc_32(*flags: str) -> Callable[[Path], list[str]]:
    """Make a 32-bit program that runs here."""

    def make(folder: Path) -> list[str]:
        try:
            program = compiled(folder, *FLAGS_32, *flags)
            subprocess.run([program], stdin=subprocess.DEVNULL, capture_output=True, check=True)
        except (subprocess.CalledProcessError, OSError):
            skip("no-32-bit")
        return [str(program)]

    return make


def by_go(*, cgo: bool) -> Callable[[Path], list[str]]:
    """Make a Go program, static without cgo and dynamic with it."""

    def make(folder: Path) -> list[str]:
        text = (PROGRAMS / "steps.go").read_text()
        source = folder / "steps.go"
        source.write_text(text.replace("import (", 'import "C"\nimport (', 1) if cgo else text)
        variables = {"GOCACHE": folder / "cache", "GOPATH": folder, "CGO_ENABLED": int(cgo)}
        environment = {**os.environ, **{name: str(value) for name, value in variables.items()}}
        program = folder / "steps"
        command = [need("no-go", "go"), "build", "-o", program, source]
        subprocess.run(command, check=True, env=environment, cwd=folder)
        return [str(program)]

    return make


def own_copy(program: str, folder: Path) -> Path:
    """Copy a program of the system's, by its real file."""
    return Path(shutil.copy(os.path.realpath(program), folder / Path(program).name))


def text_of(name: str, folder: Path, head: str = "") -> Path:
    """Copy one of programs/ to where every user may read it, behind a first line; executable."""
    path = folder / name
    path.write_text(head + (PROGRAMS / name).read_text())
    path.chmod(0o755)
    return path


def python(folder: Path) -> list[str]:
    return [str(own_copy("/usr/bin/python3", folder)), str(text_of("steps.py", folder))]


def python_by_env(folder: Path) -> list[str]:
    """Make a script that env(1) finds its interpreter for; the matrix' PATH begins here."""
    own_copy("/usr/bin/python3", folder).rename(folder / "python-of-matrix")
    return [str(text_of("steps.py", folder, "#!/usr/bin/env python-of-matrix\n"))]


def bash(folder: Path) -> list[str]:
    shell = own_copy("/bin/bash", folder)
    return [str(text_of("steps.sh", folder, f"#!{shell}\n"))]


def node(folder: Path) -> list[str]:
    return [str(own_copy(need("no-node", "node"), folder)), str(text_of("steps.js", folder))]


def java(folder: Path) -> list[str]:
    """Make a class, and run it with a small heap; the virtual machine is the system's own."""
    subprocess.run([need("no-java", "javac"), "-d", folder, PROGRAMS / "Steps.java"], check=True)
    return [need("no-java", "java"), "-Xmx32m", "-XX:+UseSerialGC", "-cp", str(folder), "Steps"]


def set_uid(folder: Path) -> list[str]:
    program = compiled(folder)
    os.chown(program, DAEMON, DAEMON)
    program.chmod(0o4755)
    return [str(program)]


def capable(folder: Path) -> list[str]:
    program = compiled(folder)
    set_caps(program, NET_RAW, 0, EFFECTIVE)
    return [str(program)]


def unreadable(folder: Path) -> list[str]:
    program = compiled(folder)
    program.chmod(0o711)
    return [str(program)]


def aarch64(folder: Path) -> list[str]:
    """Make a static program for aarch64, and run it by a copy of the emulator."""
    compiler = need("no-cross-compiler", "aarch64-linux-gnu-gcc")
    program = compiled(folder, "-static", compiler=compiler)
    return [str(own_copy(need("no-qemu-user", "qemu-aarch64"), folder)), str(program)]


KINDS: dict[str, Kind] = {
    "glibc-pie": Kind("glibc, dynamic, position-independent", by_cc("-fPIE", "-pie")),
    "glibc-no-pie": Kind("glibc, dynamic, at a fixed address", by_cc("-fno-pie", "-no-pie")),
    "glibc-static": Kind("glibc, static", by_cc("-static")),
    "static-pie": Kind("glibc, static, position-independent", by_cc("-static-pie", "-fPIE")),
    "musl-dynamic": Kind("musl, dynamic", by_musl()),
    "musl-static": Kind("musl, static", by_musl("-static")),
    "go": Kind("Go, CGO_ENABLED=0: static", by_go(cgo=False)),
    "go-cgo": Kind("Go, CGO_ENABLED=1: dynamic", by_go(cgo=True)),
    "python": Kind("CPython, with a script as its argument", python),
    "node": Kind("node", node, V8),
    "java": Kind("java, with a heap of 32 MiB", java),
    "bash-script": Kind("a script whose #! line names bash", bash),
    "env-python": Kind("a script whose #! line is env's, for CPython", python_by_env),
    "i386-dynamic": Kind("32-bit glibc, dynamic", by_cc_32()),
    "i386-static": Kind("32-bit glibc, static", by_cc_32("-static")),
    "set-uid": Kind("set-uid, of a user who is neither root nor ours", set_uid),
    "file-caps": Kind("with file capabilities (cap_net_raw+ep)", capable),
    "unreadable": Kind("mode 0711: others may run it and not read it", unreadable),
    "aarch64": Kind("aarch64, static, under qemu-aarch64", aarch64),
}
