"""Root without CAP_SYS_PTRACE, as in a container: who drops to a user still sees its books."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kernel.faulting import make_file
from tests.kernel.processes import running
from tests.launching import NOBODY, Launcher
from tests.skips import skip

if TYPE_CHECKING:
    from collections.abc import Iterator

# Since Linux 6.14 CAP_PERFMON, and so CAP_SYS_ADMIN, opens smaps too (kernel/fork.c, mm_access).
CONFINED = ["setpriv", "--bounding-set=-sys_ptrace,-perfmon,-sys_admin"]


@pytest.fixture
def confined(public_install: Path, tmp_path: Path) -> Launcher:
    """rtlaunch as root that may not trace others' processes."""
    if os.geteuid() != 0:
        skip("not-root")
    launcher = Launcher(public_install / "bin" / "rtlaunch", tmp_path)
    launcher.prefix = CONFINED
    return launcher


@pytest.mark.parametrize("user", [f"{NOBODY}:{NOBODY}", "nobody"])
def test_a_program_of_another_user_is_proven(confined: Launcher, user: str) -> None:
    """--user, with CAP_IPC_LOCK alone: every mapping is read, the image has its name."""
    ran = confined.run("--user", user, "--", "/usr/bin/python3", "-c", "1")
    assert ran.code == 0, ran.err
    assert (ran.report["verdict"], ran.report["lock"]["ok"]) == ("clean", True)
    (image,) = ran.report["target"]["images"]
    assert image["path"] == os.path.realpath("/usr/bin/python3")


def test_an_exec_in_place_is_followed(confined: Launcher) -> None:
    """The next image is proven as the first was."""
    shell = shutil.which("sh") or "/bin/sh"
    ran = confined.run("--user", "nobody", "--", shell, "-c", "exec python3 -c 1")
    assert ran.code == 0, ran.err
    assert [image["locked"] for image in ran.report["target"]["images"]] == [True, True]


def test_a_program_with_more_capabilities_than_we_is_refused(confined: Launcher) -> None:
    """Another user's process that could do more than we may not be read: said, not run unproven."""
    words = ("--user", "nobody", "--ambient-caps", "ipc_lock,chown")
    ran = confined.run(*words, "--", "/usr/bin/python3", "-c", "1")
    assert ran.code == 125
    assert "refused [proof-unreadable]" in ran.err


def test_a_signal_reaches_a_program_of_another_user(confined: Launcher, targets: Path) -> None:
    """Without CAP_KILL too (--cap-drop=ALL and what a change of user takes): SIGTERM arrives."""
    confined.prefix = ["setpriv", "--bounding-set=-kill,-sys_ptrace,-perfmon,-sys_admin"]
    words = ("--user", "nobody", "--", targets / "slow", "0", "7")
    with confined.start(*words) as process:
        assert process.stdout
        assert process.stdout.readline().startswith("ready")
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(5) == 7
        finally:
            process.kill()
        assert process.stderr
        assert process.stderr.read() == ""


@pytest.fixture
def file() -> Iterator[Path]:
    """A file that every user may map."""
    with tempfile.TemporaryDirectory(prefix="rtlaunch-file-") as folder:
        Path(folder).chmod(0o755)
        yield make_file(Path(folder) / "data", 64)


def test_the_watcher_ends_a_program_of_another_user(
    confined: Launcher, targets: Path, file: Path
) -> None:
    """Without CAP_KILL: one fault over --max-major, and SIGTERM arrives."""
    confined.prefix = ["setpriv", "--bounding-set=-kill"]
    options = ["--user", "nobody", "--lock", "current", "--watch", "perf", "--max-major", "3"]
    with running(confined, options, [targets / "faulter", file]) as run:
        assert run.ask("evict") == "left 0"
        run.say("touch 0 10")
        assert run.process.wait(10) == 123
