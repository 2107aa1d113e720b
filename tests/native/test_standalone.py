"""The guest that locks without a launcher: whom, what it proves, and how it refuses."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from rtlaunch.core import standalone
from rtlaunch.core.standalone import STANDALONE_LENIENT as LENIENT
from rtlaunch.core.standalone import STANDALONE_VARIABLE, standalone_variable
from tests.native.conftest import ROOT
from tests.native.test_conversation import BOTH, FUTURE, OWN_EXIT, STACK, WITHOUT_CAPABILITY
from tests.native.test_shape import PF_W, PF_X, STRICT, dynamic_symbols, dynamic_tags, segments
from tests.skips import skip

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

EVERY = standalone.STANDALONE_EVERY
OTHER_PID = "4194305"  # above the kernel's largest, PID_MAX_LIMIT
HEADER = ROOT / "rtlaunch" / "native" / "standalone.h"


@pytest.fixture(scope="module")
def any_guest(build: ModuleType, machine: str, cc: list[str], workspace: Path) -> Path:
    """The guest for each machine."""
    source, flags = build.GUESTS["standalone"]
    made: Path = build.compile_native(cc, source, flags, workspace / f"standalone-{machine}.so")
    return made


@pytest.fixture(scope="module")
def guest(build: ModuleType, workspace: Path) -> Path:
    """The guest for this machine."""
    source, flags = build.GUESTS["standalone"]
    made: Path = build.compile_native(["cc"], source, flags, workspace / "standalone.so")
    return made


class Ran:
    """How a program with the guest in it ended, and what it said."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.status, self.err = done.returncode, done.stderr
        self.said = dict(line.split(" ", 1) for line in done.stdout.splitlines())

    def number(self, name: str) -> int:
        return int(self.said[name])


def run(
    guest: Path, *command: str | Path, setting: str | None, before: str = "", runner: str = ""
) -> Ran:
    """Run ``command``; ``$$`` in ``setting`` is its own pid, as in what ``--as env`` prints."""
    told = "" if setting is None else f'"{STANDALONE_VARIABLE}={setting}"'
    words = " ".join(f"'{word}'" for word in command)
    script = f"{before} exec {runner} env 'LD_PRELOAD={guest}' {told} {words}"
    clean = {name: value for name, value in os.environ.items() if name != "SYSTEMD_EXEC_PID"}
    done = subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, env=clean, timeout=20, check=False
    )
    return Ran(done)


def to(flags: int, stack: int = STACK, pid: str = "$$") -> str:
    return standalone_variable(flags, stack, pid)


# ---- whom ----


def test_the_process_that_is_named_is_locked_before_main(guest: Path, books: Path) -> None:
    """main() sees itself locked as a whole, its stack touched, and not a word was said."""
    ran = run(guest, books, setting=to(BOTH))
    assert (ran.status, ran.err) == (OWN_EXIT, "")
    assert ran.number("locked_kb") > 0.9 * ran.number("size_kb") > 1000
    assert ran.number("stack_resident_kb") * 1024 >= STACK


def test_another_process_is_not(guest: Path, books: Path) -> None:
    """Another pid than the one meant, as a child has: it runs as it is."""
    ran = run(guest, books, setting=to(BOTH, pid=OTHER_PID))
    assert (ran.status, ran.number("locked_kb"), ran.err) == (OWN_EXIT, 0, "")
    assert ran.number("stack_resident_kb") * 1024 < STACK


def test_without_a_setting_nothing_is_done(guest: Path, books: Path) -> None:
    """The guest without its variable is nobody's business."""
    ran = run(guest, books, setting=None)
    assert (ran.status, ran.number("locked_kb"), ran.err) == (OWN_EXIT, 0, "")


@pytest.mark.parametrize(("named", "locked"), [("$$", True), (OTHER_PID, False), ("", True)])
def test_the_service_manager_names_the_process(
    guest: Path, books: Path, named: str, locked: bool
) -> None:
    """With PID 0 it is SYSTEMD_EXEC_PID's; where that is missing, everyone is meant."""
    before = f"export SYSTEMD_EXEC_PID={named};" if named else ""
    ran = run(guest, books, setting=to(BOTH, pid="0"), before=before)
    assert (ran.number("locked_kb") > 0) is locked


def test_every_image_of_the_process_is_locked(guest: Path, books: Path) -> None:
    """An exec in place keeps the pid: the third image is locked as the first."""
    ran = run(guest, books, "2", setting=to(BOTH))
    assert ran.number("locked_kb") > 1000


def test_children_are_locked_where_that_was_asked(guest: Path, books: Path) -> None:
    """With the flag the pid does not matter."""
    ran = run(guest, books, setting=to(BOTH | EVERY, pid=OTHER_PID))
    assert ran.number("locked_kb") > 1000


def test_it_works_under_musl(guest: Path, musl_books: Path) -> None:
    """The same file, in a program whose loader calls constructors without arguments."""
    ran = run(guest, musl_books, setting=to(BOTH))
    assert (ran.status, ran.err) == (OWN_EXIT, "")
    assert ran.number("locked_kb") > 0
    assert ran.number("stack_resident_kb") * 1024 >= STACK


# ---- what ----


def test_no_flags_lock_nothing(guest: Path, books: Path) -> None:
    """--lock none still has the stack touched."""
    ran = run(guest, books, setting=to(0))
    assert (ran.status, ran.number("locked_kb"), ran.err) == (OWN_EXIT, 0, "")
    assert ran.number("stack_resident_kb") * 1024 >= STACK


def test_future_alone_is_no_failed_proof(guest: Path, books: Path) -> None:
    """Nothing is locked yet at that time, and that is as it should be."""
    ran = run(guest, books, setting=to(FUTURE))
    assert (ran.status, ran.err) == (OWN_EXIT, "")
    assert 0 < ran.number("locked_kb") < ran.number("size_kb") // 2


@pytest.mark.parametrize("padding", [0, 3000, 60_000])
@pytest.mark.parametrize("limit_kib", [160, 256, 512])
def test_a_stack_limit_is_never_run_into(
    guest: Path, books: Path, limit_kib: int, padding: int
) -> None:
    """Where the limit leaves less than was asked for, that much is touched: no SIGSEGV."""
    before = f"ulimit -S -s {limit_kib}; export PADDING={'x' * padding};"
    ran = run(guest, books, setting=to(BOTH, 4 * STACK), before=before)
    assert (ran.status, ran.err) == (OWN_EXIT, "")
    assert ran.number("stack_resident_kb") <= limit_kib
    assert ran.number("stack_resident_kb") >= limit_kib - 192 or limit_kib < 256


def test_it_leaves_nothing_open(guest: Path, books: Path) -> None:
    """The descriptors in main() are those of a run without it."""
    plain = run(guest, books, setting=None)
    assert run(guest, books, setting=to(BOTH)).said["descriptors"] == plain.said["descriptors"]


# ---- how it refuses ----

SMALL = "ulimit -l 64;"


def test_a_lock_that_fails_ends_with_125_and_one_line(guest: Path, books: Path) -> None:
    """main() never runs; the line has code, errno and limit."""
    ran = run(guest, books, setting=to(BOTH), before=SMALL, runner=WITHOUT_CAPABILITY)
    assert (ran.status, ran.said) == (125, {})
    assert ran.err == (
        "rtlaunch: refused [memlock-limit]: mlockall: errno 12; RLIMIT_MEMLOCK, which counts "
        "without CAP_IPC_LOCK, is 65536\n"
    )


def test_a_limit_of_0_is_told_by_its_own_errno(guest: Path, books: Path) -> None:
    """EPERM, and still the limit is the reason."""
    ran = run(guest, books, setting=to(BOTH), before="ulimit -l 0;", runner=WITHOUT_CAPABILITY)
    assert ran.status == 125
    assert "[memlock-limit]: mlockall: errno 1;" in ran.err


def test_lenient_says_so_and_runs_on(guest: Path, books: Path) -> None:
    """--best-effort: unlocked, but not in silence."""
    ran = run(guest, books, setting=to(BOTH | LENIENT), before=SMALL, runner=WITHOUT_CAPABILITY)
    assert (ran.status, ran.number("locked_kb")) == (OWN_EXIT, 0)
    assert ran.err.startswith("rtlaunch: not locked [memlock-limit]: ")
    assert ran.err.count("\n") == 1


def test_a_kernel_that_only_says_yes_is_not_believed(
    guest: Path, workspace: Path, books: Path
) -> None:
    """A filter that answers mlockall with 0: VmLck gives it away."""
    liar = workspace / "liar"
    if not liar.exists():
        source = workspace / "liar.c"
        source.write_text(LIAR, encoding="utf-8")
        subprocess.run(["cc", "-o", str(liar), str(source)], check=True)
    ran = run(guest, books, setting=to(BOTH), runner=str(liar))
    assert (ran.status, ran.said) == (125, {})
    assert "refused [unlocked-mappings]: mlockall said yes, and VmLck" in ran.err


# Answers mlockall with 0 and locks nothing, from the next exec on.
LIAR = r"""
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(int argc, char **argv)
{
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_mlockall, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof rules / sizeof *rules, rules};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        return 2;
    execvp(argv[1], argv + 1);
    return 3;
}
"""


def test_without_proc_nothing_is_proven(guest: Path, books: Path) -> None:
    """No /proc, no proof, no start."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        skip("not-root")
    without_proc = "unshare --mount sh -c 'umount -l /proc; exec \"$@\"' x"
    done = run(guest, books, setting=to(BOTH), runner=without_proc)
    assert (done.status, done.said) == (125, {})
    assert done.err == "rtlaunch: refused [proof-unreadable]: /proc/self/status: errno 2\n"


@pytest.mark.parametrize(
    "setting", ["", "3", "3:5", "3:5:", "3:-5:1", "3:5:1:", "0x3:5:1", "3:5:1 "]
)
def test_a_setting_that_cannot_be_read_starts_nothing(
    guest: Path, books: Path, setting: str
) -> None:
    """Somebody wanted a lock: the program does not run without one."""
    ran = run(guest, books, setting=setting)
    assert (ran.status, ran.said) == (125, {})
    assert ran.err.startswith("rtlaunch: refused [environment-value]: _RTL_STANDALONE is no ")


# ---- the binary, and its setting's two sides ----


def test_guest_needs_nothing_and_exports_nothing(any_guest: Path) -> None:
    """No library, no name but a weak __environ."""
    assert not {"DT_NEEDED", "DT_SONAME", "DT_RPATH", "DT_RUNPATH"} & set(dynamic_tags(any_guest))
    assert dynamic_symbols(any_guest) == [("__environ", "STB_WEAK", "SHN_UNDEF")]


def test_guest_has_two_segments_and_one_constructor(any_guest: Path) -> None:
    """Nothing writable and executable, no RELRO, nothing at exit."""
    found, tags = segments(any_guest), dynamic_tags(any_guest)
    loaded = [flags for kind, flags in found if kind == "PT_LOAD"]
    assert len(loaded) == 2
    assert not [flags for flags in loaded if flags & PF_W and flags & PF_X]
    assert "PT_GNU_RELRO" not in [kind for kind, _ in found]
    assert [flags & PF_X for kind, flags in found if kind == "PT_GNU_STACK"] == [0]
    assert tags["DT_INIT_ARRAYSZ"] in ([4], [8])
    assert not {"DT_INIT", "DT_FINI", "DT_FINI_ARRAY", "DT_PREINIT_ARRAY", "DT_TEXTREL"} & set(tags)


def test_guest_compiles_without_a_warning(
    build: ModuleType, cc: list[str], any_guest: Path, tmp_path: Path
) -> None:
    """It is clean under every warning that we know of."""
    source, flags = build.GUESTS["standalone"]
    assert build.compile_native(cc, source, [*flags, *STRICT], tmp_path / "guest").exists()


def test_both_sides_have_the_same_constants() -> None:
    """Each constant of the header has a twin of the same value in Python, and no more are there."""
    defined = re.findall(r"^#define RTL_(\w+) (\S+)", HEADER.read_text(), re.MULTILINE)
    header = {name: text.strip('"') if '"' in text else int(text, 16) for name, text in defined}
    own = {name: value for name, value in vars(standalone).items() if name.startswith("STANDALONE")}
    assert header == own
