"""What all tests stand on: an installed rtlaunch, the host as it was, no skip without a fact."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

from rtlaunch.core import where
from tests import host, launching, skips

# How long an example takes is the machine's affair; what must be fast is measured by make bench.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def host_as_before():
    """Every test leaves sysctls, huge pages, swap, mounts, cgroups and /run as it found them."""
    before = host.state()
    yield
    assert host.changes(before, host.state()) == []


@pytest.fixture(autouse=True)
def no_process_left():
    """Every test ends what it started."""
    before = host.descendants()
    yield
    host.wait_until(lambda: not host.descendants() - before, "processes are left", 5)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Turn a skip that no listed fact explains into a failure."""
    unexplained = report.skipped and not hasattr(report, "wasxfail")
    if unexplained and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2]
        if not skips.is_listed(reason):
            report.outcome = "failed"
            report.longrepr = f"skipped without a fact of tests/skips.toml: {reason}"


@pytest.fixture(scope="session", autouse=True)
def plain_environment():
    """The tests decide alone what configures rtlaunch and ld.so, and which CI system there is."""
    ours = ("RTLAUNCH_", "LD_", "_RTL_")
    for name in [name for name in os.environ if name.startswith(ours) or name in where.CI_SYSTEMS]:
        del os.environ[name]
    os.environ.pop("CI", None)
    # nohup(1), and a shell's & in a script, would have every target ignore these
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def targets():
    """A folder that everybody may read, with the test programs of tests/targets compiled."""
    folder = host.compile_targets(Path(__file__).parent / "targets")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def public_install():
    """A copy of the installation that every user may run."""
    if os.geteuid() != 0:
        skips.skip("not-root")
    folder = launching.public_copy()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def rtlaunch(tmp_path) -> launching.Launcher:
    """The installed rtlaunch, run as who runs the tests."""
    return launching.Launcher(launching.stub(), tmp_path)


@pytest.fixture(params=list(launching.USERS))
def anybody(request):
    """Run rtlaunch as root, as a user with ambient CAP_IPC_LOCK, as a user with 8 MiB only."""
    public = request.getfixturevalue("public_install")
    folder = Path(tempfile.mkdtemp(prefix="rtlaunch-reports-"))
    folder.chmod(0o755)
    yield launching.Launcher(public / "bin" / "rtlaunch", folder, request.param)
    shutil.rmtree(folder)


@pytest.fixture
def as_user(public_install):
    """Make a launcher for a user of launching.USERS."""
    folders = []

    def make(user: str) -> launching.Launcher:
        folders.append(Path(tempfile.mkdtemp(prefix="rtlaunch-reports-")))
        folders[-1].chmod(0o755)
        return launching.Launcher(public_install / "bin" / "rtlaunch", folders[-1], user)

    yield make
    for folder in folders:
        shutil.rmtree(folder)
