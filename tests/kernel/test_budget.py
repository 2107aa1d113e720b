"""The budget: what the kernel would kill or refuse later is refused before, and nothing else.

The memory cgroups are real ones of v1. Machines with v2, little memory or strict overcommit are
made of files that are mounted over the kernel's, for rtlaunch alone.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from tests import books
from tests.host import wait_until
from tests.skips import skip
from tests.standing import standing

MIB = 1 << 20
MEMORY = Path("/sys/fs/cgroup/memory")
LIMIT = 64 * MIB
# Touched before main(), by whatever program; the limit that is left to it is the cgroup's alone.
STACK = ("--limit", "stack=unlimited", "--prefault-stack")

FIT = """\
format = 1
[fit]
locked_bytes = {locked}
resident_bytes = {resident}
threads = 1
"""


@pytest.fixture
def group():
    """A memory cgroup of 64 MiB, with another one in it that has no limit of its own."""
    outer = MEMORY / f"rtlaunch-test-{os.getpid()}"
    inner = outer / "inner"
    try:
        outer.mkdir()
    except OSError:
        skip("no-memory-cgroup")
    try:
        inner.mkdir()
        (outer / "memory.limit_in_bytes").write_text(str(LIMIT))
        yield inner
    finally:
        remove(inner)
        remove(outer)


def remove(group: Path) -> None:
    """Remove a cgroup; what ran in it needs a moment to be gone."""

    def gone() -> bool:
        try:
            group.rmdir()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    wait_until(gone, f"{group} cannot be removed")


@pytest.fixture
def inside(rtlaunch, group):
    """Run rtlaunch in the inner group."""
    rtlaunch.prefix = ["sh", "-c", f'echo $$ >{group}/cgroup.procs; exec "$@"', "sh"]
    return rtlaunch


def finding(report, code):
    found = [one for one in report["findings"] if one["code"] == code]
    assert len(found) <= 1
    return found[0] if found else None


def written(path: Path, **numbers: int) -> Path:
    path.write_text(FIT.format(**numbers))
    return path


# --- memory cgroups --------------------------------------------------------------------------


def test_more_than_the_group_above_has_is_refused_before_it_starts(inside, group):
    """The limit is the ancestor's, the numbers are in the message, and nothing ran."""
    ran = inside.run(*STACK, "96M", "--", "echo", "started")
    assert (ran.code, ran.out) == (125, "")
    told = finding(ran.report, "cgroup-budget")
    assert (told["values"]["cgroup"], told["values"]["limit_bytes"]) == (str(group.parent), LIMIT)
    assert told["values"]["needed_bytes"] == 96 * MIB
    assert "needs at least 96 MiB of memory" in ran.err
    assert f"the memory cgroup {group.parent} has" in ran.err
    assert int((group.parent / "memory.failcnt").read_text()) == 0


def test_started_all_the_same_it_is_killed(inside):
    """What was refused would have been: 137, or the word that it died before main()."""
    ran = inside.run("--allow", "cgroup-budget", *STACK, "96M", "--", "echo", "started")
    assert ran.out == ""
    assert ran.code == 128 + signal.SIGKILL or finding(ran.report, "died-before-go")


def test_what_fits_starts_locked(inside):
    """32 of 64 MiB are no reason to refuse."""
    ran = inside.run(*STACK, "32M", "--", "echo", "started")
    assert (ran.code, ran.out) == (0, "started\n")
    assert ran.report["lock"]["ok"]
    assert ran.report["lock"]["locked_bytes"] > 32 * MIB


def test_page_cache_is_not_held_against_it(inside, group, tmp_path):
    """A group that is full of cache has room: the kernel drops it."""
    (tmp_path / "file").write_bytes(bytes(128 * MIB))
    subprocess.run(
        ["sh", "-c", f"echo $$ >{group}/cgroup.procs; cat {tmp_path}/file >/dev/null;"
         f" dd if={tmp_path}/file of={tmp_path}/copy bs=1M status=none"],
        check=True,
    )  # fmt: skip
    used = int((group.parent / "memory.usage_in_bytes").read_text())
    assert used > LIMIT - 4 * MIB  # it is full
    ran = inside.run(*STACK, "32M", "--", "echo", "started")
    assert (ran.code, ran.out) == (0, "started\n")


def test_what_others_have_locked_there_is(inside, group, targets):
    """A neighbour that is locked leaves less."""
    with standing(inside, *STACK, "32M", "--", targets / "waiter") as held:
        assert books.locked_bytes(held.pid) > 32 * MIB
        ran = inside.run(*STACK, "32M", "--", "echo", "started")
    assert (ran.code, ran.out) == (125, "")
    assert finding(ran.report, "cgroup-budget")["values"]["room_bytes"] < 32 * MIB


def test_a_measured_need_beyond_the_group_is_refused(inside, tmp_path):
    """The profile knows what the lower bound cannot."""
    profile = written(tmp_path / "fit.toml", locked=10 * MIB, resident=100 * MIB)
    ran = inside.run("--profile", profile, "--", "echo", "started")
    assert (ran.code, ran.out) == (125, "")
    assert "echo needs 100 MiB of memory (measured by fit)" in ran.err


def test_plan_shows_the_group(inside, group):
    """plan has the line without being asked."""
    process = inside.start("plan", "--", "true")
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert f"({group.parent}, limit 64 MiB)" in out


def test_check_shows_the_same_group(inside, group):
    """check and plan read with the same eyes."""
    process = inside.start("check", "--json", "--", "true")
    out, _ = process.communicate(timeout=60)
    (line,) = [one for one in json.loads(out)["checks"] if one["subject"] == "memory cgroup"]
    assert str(group.parent) in line["text"]
    assert line["text"].startswith("64 MiB, ")


def test_the_report_has_the_room(inside, group):
    """What was predicted, of how much."""
    report = inside.run("--", "true").report
    budget = report["budget"]
    assert budget["from"] == "lower-bound"
    assert budget["room"]["cgroup"] == str(group.parent)
    assert 0 < budget["room"]["cgroup_bytes"] <= LIMIT
    assert 0 < budget["locked_bytes"] <= report["lock"]["locked_bytes"]
    assert 0 < budget["resident_bytes"] <= report["lock"]["resident_bytes"]


# --- RLIMIT_MEMLOCK --------------------------------------------------------------------------


def limited(as_user, memlock):
    launcher = as_user("limited")
    launcher.prefix = ["prlimit", f"--memlock={memlock}:{memlock}", *launcher.prefix[2:]]
    return launcher


@pytest.fixture
def measured(as_user, targets, here):
    """A profile of the waiter, which has 2 MiB mapped: what it locks, to the byte."""
    with standing(limited(as_user, 8 * MIB), "--", targets / "waiter") as held:
        held.ask(f"mmap {2 * MIB}")
        locked = books.locked_bytes(held.pid)
    return written(here / "fit.toml", locked=locked, resident=locked), locked


def test_a_quarter_less_than_measured_is_refused(as_user, targets, measured):
    """Without the capability, and before the start: need, limit, and where the need comes from."""
    profile, locked = measured
    launcher = limited(as_user, locked * 3 // 4)
    ran = launcher.run("--profile", profile, "--", targets / "waiter")
    assert (ran.code, ran.out) == (125, "")
    told = finding(ran.report, "memlock-budget")
    assert (told["values"]["needed_bytes"], told["values"]["from"]) == (locked, "fit")
    assert "locked (measured by fit); RLIMIT_MEMLOCK is" in ran.err
    assert "for good:" in ran.err


def test_without_the_profile_it_starts_and_breaks_later(as_user, targets, measured):
    """What was refused is true: the program's own mmap fails."""
    _, locked = measured
    with standing(limited(as_user, locked * 3 // 4), "--", targets / "waiter") as held:
        assert held.ask(f"mmap {2 * MIB}").startswith("errno")


def test_the_measured_limit_is_enough(as_user, targets, measured):
    """With what was measured it starts, and does what it did."""
    profile, locked = measured
    launcher = limited(as_user, locked + locked // 5)
    with standing(launcher, "--profile", profile, "--", targets / "waiter") as held:
        assert not held.ask(f"mmap {2 * MIB}").startswith("errno")
        ran = held.end()
    assert ran.report["budget"] | {"room": None} == {
        "locked_bytes": locked, "resident_bytes": locked, "from": "fit", "room": None
    }  # fmt: skip


@pytest.mark.parametrize("user", ["root", "ambient"])
def test_the_capability_makes_the_limit_irrelevant(as_user, here, user):
    """With CAP_IPC_LOCK nothing is counted against the limit."""
    profile = written(here / "fit.toml", locked=64 * MIB, resident=64 * MIB)
    ran = as_user(user).run("--profile", profile, "--", "echo", "started")
    assert (ran.code, ran.out) == (0, "started\n")
    assert ran.report["budget"]["room"]["memlock_bytes"] == "unlimited"


# --- machines made of files ------------------------------------------------------------------

MEMINFO = "MemTotal: 65536 kB\nMemAvailable: 32768 kB\nCommitLimit: 40960 kB\nCommitted_AS: 8192 kB"


class Machine:
    """Files to mount over the kernel's, in a mount namespace that rtlaunch is started in."""

    def __init__(self, launcher, folder: Path) -> None:
        self.launcher = launcher
        self.folder = folder
        self.count = 0
        self.mounts = ["mount --make-rprivate /"]
        tried = subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True)
        if tried.returncode:
            skip("no-mount")

    def put(self, path: str, text: str) -> None:
        """Let ``path`` hold ``text``; a $$ in it is the pid of rtlaunch."""
        self.count += 1
        fake = self.folder / f"fake-{self.count}"
        fake.write_text(text)
        self.mounts.append(f"mount --bind {shlex.quote(str(fake))} {path}")

    def tree(self, path: str, files: dict[str, str]) -> None:
        """Let ``path`` be a folder that holds ``files`` alone."""
        self.count += 1
        fake = self.folder / f"tree-{self.count}"
        for name, text in files.items():
            (fake / name).parent.mkdir(parents=True, exist_ok=True)
            (fake / name).write_text(text)
        fake.mkdir(exist_ok=True)
        self.mounts.append(f"mount --bind {shlex.quote(str(fake))} {path}")

    def run(self, *words: str | Path):
        script = " && ".join([*self.mounts, 'exec "$@"'])
        self.launcher.prefix = ["unshare", "--mount", "sh", "-c", script, "sh"]
        return self.launcher.run(*words)


@pytest.fixture
def machine(rtlaunch, tmp_path):
    """A machine to be made of files."""
    return Machine(rtlaunch, tmp_path)


def test_more_than_the_machine_has_is_refused(machine):
    """MemAvailable is what there is."""
    machine.put("/proc/meminfo", MEMINFO)
    ran = machine.run(*STACK, "48M", "--", "echo", "started")
    assert (ran.code, ran.out) == (125, "")
    assert "needs at least 48 MiB of memory (stack 48 MiB); 32 MiB is available" in ran.err


def test_strict_overcommit_is_asked(machine):
    """CommitLimit counts with vm.overcommit_memory=2, and only then."""
    machine.put("/proc/meminfo", MEMINFO.replace("32768", "99999"))
    assert machine.run(*STACK, "48M", "--", "true").code == 0
    machine.put("/proc/sys/vm/overcommit_memory", "2\n")
    ran = machine.run(*STACK, "48M", "--", "echo", "started")
    assert (ran.code, ran.out) == (125, "")
    assert "vm.overcommit_memory is 2 and leaves 32 MiB" in ran.err


def v2(machine, cgroup: str, files: dict[str, str], mount: str = "/sys/fs/cgroup") -> None:
    """Make it a machine with a v2 memory controller, and rtlaunch be in ``cgroup`` there."""
    machine.put("/proc/$$/cgroup", f"0::{cgroup}\n")
    line = f"28 23 0:25 / {mount} rw,nosuid - cgroup2 cgroup2 rw\n"
    machine.tree(mount, files)
    machine.put("/proc/$$/mountinfo", line)


STAT = f"anon 0\ninactive_file {50 * MIB}\nactive_file {2 * MIB}\nunevictable 99999\n"
SLICE = {
    "user.slice/app.scope/memory.max": "max\n",
    "user.slice/memory.max": f"{LIMIT}\n",
    "user.slice/memory.current": f"{60 * MIB}\n",
    "user.slice/memory.stat": STAT,
}


def test_v2_is_read_at_every_level(machine):
    """memory.max of the slice, less what its memory.stat says is there to stay."""
    v2(machine, "/user.slice/app.scope", SLICE)
    ran = machine.run(*STACK, "60M", "--", "echo", "started")
    assert (ran.code, ran.out) == (125, "")
    assert "the memory cgroup /sys/fs/cgroup/user.slice has 56 MiB left of 64 MiB" in ran.err
    assert machine.run(*STACK, "50M", "--", "true").code == 0


def test_v2_is_found_where_it_is_mounted(machine):
    """mountinfo tells, where it is not at the usual place."""
    v2(machine, "/user.slice/app.scope", SLICE, "/mnt")
    ran = machine.run(*STACK, "60M", "--", "echo", "started")
    assert (ran.code, ran.out) == (125, "")
    assert "the memory cgroup /mnt/user.slice has 56 MiB left" in ran.err


@pytest.mark.parametrize("text", ["", "odd", "\0\n\n:::\n", "-1\n", "MemAvailable: many kB\n"])
def test_odd_files_are_no_reason_to_refuse(machine, text):
    """What cannot be understood is not known, and the program starts."""
    for path in ("/proc/meminfo", "/proc/sys/vm/overcommit_memory"):
        machine.put(path, text)
    v2(machine, "/a", {"a/memory.max": text, "a/memory.stat": text})
    ran = machine.run(*STACK, "4M", "--", "echo", "started")
    assert (ran.code, ran.out) == (0, "started\n")


def test_no_cgroups_are_no_reason_to_refuse(machine):
    """A machine without cgroups has no limit."""
    machine.put("/proc/$$/cgroup", "")
    machine.tree("/sys/fs/cgroup", {})
    ran = machine.run("--", "echo", "started")
    assert (ran.code, ran.out) == (0, "started\n")
    assert ran.report["budget"]["room"]["cgroup_bytes"] == "unlimited"
