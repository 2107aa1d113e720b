"""Programs and files to be looked at, and who looks."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from rtlaunch.core.caps import CapSets, Credentials
from rtlaunch.core.facts import Account
from rtlaunch.core.target import Reach, judge
from rtlaunch.engine.classify import classify
from rtlaunch.engine.look import make_eye
from tests.kernel.execve import in_child
from tests.skips import skip

if TYPE_CHECKING:
    from collections.abc import Callable

    from rtlaunch.core.findings import Finding
    from rtlaunch.core.target import Target

PROGRAM = """
#include <stdio.h>
#include <sys/auxv.h>
int main(void) { printf("secure %lu\\n", getauxval(AT_SECURE)); return 0; }
"""
PIE = "-pie -fPIE"
# gcc-12-multilib does not bring the link /usr/include/asm that gcc-multilib has.
FLAGS_32 = "-m32 -O1 -pthread -I/usr/include/x86_64-linux-gnu"
TEXT = "echo hello\n"
HOST = make_eye().host
REACH = Reach(HOST, frozenset((HOST,)), reads_any=False)


def need_root() -> None:
    if os.geteuid() != 0:
        skip("not-root")


def need(fact: str, function: Callable[[], object]) -> None:
    """Skip by ``fact`` where a child of ours may not do ``function``."""
    need_root()

    def permitted() -> bool:
        try:
            function()
        except PermissionError:
            return False
        return True

    if not in_child(permitted):
        skip(fact)


def compile_source(compiler: str, flags: str, source: str, output: Path) -> Path:
    if compiler == "musl-gcc" and not shutil.which(compiler):
        skip("no-musl")
    if not output.exists():
        command = [compiler, "-x", "c", "-", *flags.split(), "-o", str(output)]
        subprocess.run(command, input=source.encode(), check=True)
    return output


def true_at(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    return Path(shutil.copy("/bin/true", path))


def patched(here: Path, offset: int, value: bytes) -> Path:
    """A program with some bytes of its header overwritten."""
    raw = bytearray(compile_source("cc", PIE, PROGRAM, here / "whole").read_bytes())
    raw[offset : offset + len(value)] = value
    return write(here / "file", bytes(raw))


def script(here: Path, interpreter: Path | str, end: str = "\n") -> Path:
    return write(here / "file", f"#!{interpreter}{end}")


def script_chain(here: Path, length: int) -> Path:
    """``length`` scripts, each the interpreter of the next, the first run by true."""
    interpreter = Path("/bin/true")
    for number in range(length):
        interpreter = write(here / f"script{number}", f"#!{interpreter}\n")
    return interpreter


def write(path: Path, content: bytes | str, mode: int = 0o755) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    return path


def classified(path: Path | str, *arguments: str) -> Target:
    return classify((str(path), *arguments), os.environ.get("PATH"))


def account(uid: int, *groups: int) -> Account:
    return Account("someone", uid, uid, groups, "/", "/bin/sh")


def credentials() -> Credentials:
    """Read who this process is from the kernel."""
    lines = Path("/proc/self/status").read_text().splitlines()
    words = {key: value.split() for key, _, value in (line.partition(":") for line in lines)}
    masks = [int(words[f"Cap{name}"][0], 16) for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")]
    return Credentials(
        uid=int(words["Uid"][0]),
        euid=int(words["Uid"][1]),
        gid=int(words["Gid"][0]),
        egid=int(words["Gid"][1]),
        groups=tuple(int(group) for group in words["Groups"]),
        caps=CapSets(*masks),
        securebits=0,
        no_new_privs=words["NoNewPrivs"] == ["1"],
        initial_userns=True,
    )


def found_in(target: Target) -> tuple[Finding, ...]:
    """What keeps us, with a shim for this machine and no CAP_SYS_PTRACE, from running it."""
    return judge(target, credentials(), REACH)


def codes_for(target: Target) -> list[str]:
    return [finding.code for finding in found_in(target)]
