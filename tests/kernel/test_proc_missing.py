"""Without the kernel's books nothing can be proven: no /proc, or one of other processes."""

from __future__ import annotations

import subprocess

import pytest

from tests.kernel.programs import need_root
from tests.skips import skip

UNMOUNTED = ("unshare", "--mount", "sh", "-c", 'umount --lazy /proc && exec "$@"', "sh")
EMPTY = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh")
OTHERS = ("unshare", "--pid", "--fork", "--kill-child")


@pytest.fixture
def without(rtlaunch):
    """Run rtlaunch where /proc was taken away."""
    need_root()
    if subprocess.run([*UNMOUNTED, "true"], capture_output=True, check=False).returncode:
        skip("no-mount")

    def run(prefix, *words):
        command = [*prefix, *rtlaunch.words(*words)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)

    return run


@pytest.mark.parametrize("prefix", [UNMOUNTED, EMPTY], ids=["unmounted", "empty"])
def test_no_proc_is_refused(without, tmp_path, prefix):
    """125, one refusal that says what to mount, and nothing started."""
    marker = tmp_path / "marker"
    done = without(prefix, "--", "touch", marker)
    assert (done.returncode, done.stdout, marker.exists()) == (125, "", False)
    assert done.stderr.startswith("rtlaunch: refused [proc-missing]: /proc is not mounted")
    assert "mount -t proc proc /proc" in done.stderr
    assert done.stderr.count("[proc-missing]") == 1


def test_the_proc_of_another_pid_namespace_is_refused(without, tmp_path):
    """unshare --pid without --mount-proc: /proc/PID is somebody else, and would prove nothing."""
    marker = tmp_path / "marker"
    done = without(OTHERS, "--", "touch", marker)
    assert (done.returncode, marker.exists()) == (125, False)
    assert done.stderr.startswith(
        "rtlaunch: refused [proc-missing]: /proc is of another pid namespace: it calls us "
    )


def test_with_its_own_proc_a_pid_namespace_is_fine(without):
    """--mount-proc makes the difference."""
    done = without((*OTHERS, "--mount-proc"), "--", "sh", "-c", "echo ran; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, "ran\n", "")


def test_best_effort_does_not_go_without_books(without, tmp_path):
    """It is no finding that can be allowed."""
    marker = tmp_path / "marker"
    for prefix in (UNMOUNTED, OTHERS):
        done = without(prefix, "--best-effort", "--", "touch", marker)
        assert (done.returncode, marker.exists()) == (125, False)
