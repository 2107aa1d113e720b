"""In a virtual machine: CAP_SYS_RESOURCE, memory cgroups of version 2, and Linux 6.1 or 6.12.

All is tried in one boot (vm_payload.py), some 70 seconds; each test is one promise of what came
back.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tests import host
from tests.installs import ROOT
from tests.rigs import debs, vm
from tests.skips import skip

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(300)

HERE = ROOT / "tests" / "rigs"
KERNELS = ROOT / "build" / "vm"
BOOT_S = 240
NEED = 32 << 20
CAP_SYS_RESOURCE = 24


@pytest.fixture(scope="module")
def told(movable_install: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict]:
    """What each thing of the payload told, by its name."""
    if os.uname().machine != "x86_64":
        skip("not-x86")
    if not shutil.which("qemu-system-x86_64") or not shutil.which("mke2fs"):
        skip("no-virtual-machine")
    folder = tmp_path_factory.mktemp("vm")
    try:
        kernel = vm.fetch_kernel(KERNELS)
        disk = make_disk(movable_install, folder)
    except debs.Unavailable:
        skip("no-virtual-machine")
    yield vm.run(kernel, disk, folder, BOOT_S)
    shutil.rmtree(folder)


def make_disk(install: Path, folder: Path) -> Path:
    root, disk = folder / "root", folder / "disk"
    vm.make_root(root)
    shutil.copytree(install, root / "opt" / "rtlaunch", symlinks=True)
    (root / "rig").mkdir()
    shutil.copy(HERE / "vm_payload.py", root / "rig" / "payload.py")
    host.compile_c(HERE / "big.c", root / "rig" / "big")
    host.compile_c(HERE / "big.c", root / "rig" / "big-static", "-static")
    vm.make_disk(root, disk)
    shutil.rmtree(root)
    return disk


def locked_bytes(run: dict[str, Any]) -> int:
    """Return VmLck in bytes, as the program found it in itself."""
    lines = dict(line.split(":") for line in run["out"].splitlines())
    return int(lines["VmLck"].split()[0]) << 10


def codes(run: dict[str, Any]) -> list[str]:
    return [finding["code"] for finding in run["report"]["findings"]]


def test_the_machine_has_what_it_is_there_for(told):
    """CAP_SYS_RESOURCE, and a memory controller of version 2."""
    assert told["machine"]["caps"] >> CAP_SYS_RESOURCE & 1
    assert "memory" in told["machine"]["controllers"]


def test_memlock_max_raises_the_hard_limit(told):
    """With CAP_SYS_RESOURCE 8 MiB become unlimited, soft and hard, and the program is locked."""
    run = told["memlock_max"]
    limit = run["report"]["limits"]["memlock"]
    assert (run["code"], run["report"]["verdict"]) == (0, "clean")
    assert limit["before"] == {"soft": 8 << 20, "hard": 8 << 20}
    assert limit["after"] == {"soft": "unlimited", "hard": "unlimited"}
    assert locked_bytes(run) > NEED


def test_a_unit_with_limitmemlock_infinity_needs_no_capability(told):
    """A user without any capability locks more than 8 MiB, by the unit's limit alone."""
    run = told["unit_without_capability"]
    assert (run["Result"], run["ExecMainStatus"], run["err"]) == ("success", "0", "")
    assert run["report"]["limits"]["memlock"]["before"]["hard"] == "unlimited"
    assert "CapEff:\t0000000000000000" in run["out"]
    assert run["report"]["lock"]["ok"] and locked_bytes(run) > NEED


def test_the_same_unit_with_8_mib_is_refused(told):
    """By name, with the drop-in to write."""
    run = told["unit_of_8_mib"]
    assert (run["ExecMainStatus"], codes(run)) == ("125", ["memlock-limit"])
    assert "LimitMEMLOCK=" in run["err"] and run["out"] == ""


def test_a_memory_limit_below_the_need_is_refused_before_the_oom_killer(told):
    """MemoryMax=24M for 32 MiB: 125, where the program alone is killed, and with room it runs."""
    refused, killed, room = (told[f"cgroup_{name}"] for name in ("refusal", "kill", "room"))
    assert killed["Result"] == "oom-kill"
    assert (refused["Result"], refused["ExecMainStatus"]) == ("exit-code", "125")
    assert codes(refused) == ["cgroup-budget"]
    assert room["Result"] == "success" and locked_bytes(room) > NEED


def test_what_fit_recommends_is_enough_without_a_capability(told):
    """More than 8 MiB, a limit as recommended, no CAP_IPC_LOCK: locked, no fault; less: refused."""
    found = told["fit_promise"]
    enough, less = (found["tried"][name] for name in ("recommended", "a quarter less"))
    assert found["recommended"]["memlock_bytes"] > NEED
    assert (enough["code"], enough["report"]["verdict"]) == (0, "clean")
    assert "CapEff:\t0000000000000000" in enough["out"]
    assert enough["report"]["watch"]["after_arm"]["major"] == 0
    assert (less["code"], codes(less), less["out"]) == (125, ["memlock-limit"], "")


WAYS = {
    "preload": "preload", "static": "ptrace", "ptrace": "ptrace", "onfault": "preload",
    "thp": "preload", "heap": "preload", "hugepages": "preload", "exec": "preload",
    "proc": "preload", "chain": "preload", "user": "preload",
}  # fmt: skip


@pytest.mark.parametrize("case", WAYS)
def test_each_way_works_on_this_kernel(told, case):
    """Linux 6.1 lacks what 6.18 has; what is there instead locks as well, and says nothing."""
    run = told["ways"]["cases"][case]
    assert (run["code"], run["err"]) == (0, "")
    assert (run["report"]["lock"]["ok"], run["report"]["lock"]["via"]) == (True, WAYS[case])
    assert locked_bytes(run) > NEED


def test_children_are_locked_on_this_kernel(told):
    """With --children all, by the shim that they inherit."""
    run = told["ways"]["cases"]["children"]
    assert (run["code"], run["err"]) == (0, "") and locked_bytes(run) > NEED


def test_a_running_process_is_locked_and_unlocked(told):
    """lock, status, unlock, status: 0, locked, 0, not locked."""
    runs = [told["running"][name] for name in ("lock", "status", "unlock", "status after")]
    assert [run["code"] for run in runs] == [0, 0, 0, 1]
    assert runs[1]["out"].startswith("locked: big") and runs[3]["out"].startswith("not locked: big")
