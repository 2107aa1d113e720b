"""A hugetlb cgroup that would end the program by SIGBUS: found before the launch, and named."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from tests.host import wait_until
from tests.kernel import hugepools
from tests.kernel.hugepools import number
from tests.skips import skip

LIMIT_PAGES = 4
TOPS = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))


def top() -> Path:
    """Return where version 2 is mounted with a hugetlb controller; skip without."""
    for place in TOPS:
        file = place / "cgroup.controllers"
        if file.exists() and "hugetlb" in file.read_text().split():
            return place
    skip("no-hugetlb-cgroup")
    raise AssertionError


@pytest.fixture
def limited():
    """A cgroup below one that has a limit; the limit is not its own."""
    with hugepools.own_pools():
        place = top()
        control = place / "cgroup.subtree_control"
        was_on = "hugetlb" in control.read_text().split()
        control.write_text("+hugetlb")
        outer = place / f"rtlaunch-test-{os.getpid()}"
        inner = outer / "inner"
        inner.mkdir(parents=True)
        try:
            (outer / "hugetlb.2MB.max").write_text(str(LIMIT_PAGES * hugepools.PAGE))
            yield inner
        finally:
            for folder in (inner, outer):
                wait_until(lambda folder=folder: removed(folder), f"{folder} is in use")
            if not was_on:
                control.write_text("-hugetlb")


def removed(folder):
    with suppress(OSError):
        folder.rmdir()
    return not folder.exists()


def run_in(cgroup, tmp_path, *words):
    """Run a command in a cgroup; return its exit code as a shell has it, stdout, stderr."""
    script = f'echo $$ > {cgroup}/cgroup.procs; "$@"'
    environ = {**os.environ, "RTLAUNCH_STATE_DIR": str(tmp_path / "state")}
    ran = subprocess.run(
        ["sh", "-c", script, "sh", *map(str, words)],
        env=environ, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return ran.returncode, ran.stdout, ran.stderr


def test_a_limit_above_us_refuses_where_it_would_have_been_sigbus(
    rtlaunch, targets, limited, tmp_path
):
    """The control: allowed by name, the mmap passes and the touch ends the program (135)."""
    words = ["--hugepages", f"2M:{LIMIT_PAGES + 1}"]
    target = ["--", targets / "huge", LIMIT_PAGES + 1]
    code, out, err = run_in(limited, tmp_path, rtlaunch.program, *words, *target)
    assert (code, out) == (125, "")
    assert "refused [hugepages-cgroup]" in err
    assert str(limited.parent / "hugetlb.2MB.max") in err
    unlocked = ["--lock", "none", "--core", "inherit"]
    allowed = [*words, *unlocked, "--allow", "hugepages-cgroup"]
    code, out, err = run_in(limited, tmp_path, rtlaunch.program, *allowed, *target)
    assert (code, out) == (135, ""), err
    assert number("nr_hugepages") == 0


def test_what_fits_below_the_limit_runs(rtlaunch, targets, limited, tmp_path):
    """Just as many pages as the cgroup allows."""
    words = ["--hugepages", f"2M:{LIMIT_PAGES}", "--", targets / "huge", LIMIT_PAGES]
    code, out, err = run_in(limited, tmp_path, rtlaunch.program, *words)
    assert (code, out) == (0, "touched\n"), err


def test_a_limit_on_reservations_refuses_too(rtlaunch, targets, limited, tmp_path):
    """There the mmap itself would fail."""
    (limited.parent / "hugetlb.2MB.rsvd.max").write_text(str(hugepools.PAGE))
    words = ["--hugepages", "2M:2", "--", targets / "huge", 2]
    code, _, err = run_in(limited, tmp_path, rtlaunch.program, *words)
    assert (code, "hugetlb.2MB.rsvd.max allows 2 MiB" in err) == (125, True), err
