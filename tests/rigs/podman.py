"""A real podman, with crun and runc, in a place of its own that leaves no trace on the host.

    podman.run(BASE, ["rtlaunch", "--", "/bin/true"], "--cap-add=IPC_LOCK")   to its end
    with podman.started(BASE, [...], "--memory=64m") as container: ...         beside the test
    podman("play", "kube", path)                                               anything else

Containers share the host's pids: what /proc says of ``container.pid`` is the kernel's own view.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.host import wait_until
from tests.rigs import image
from tests.rigs.manager import remove_cgroups

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SCRIPT = Path(__file__).with_name("open-podman.sh")
BASE = "localhost/rig/base"
RUNTIMES = ("crun", "runc")
PATIENCE_S = 60
TARGETS = "/targets"  # where tests/targets is in a container

# Podman would raise both limits to what it finds fit, which needs CAP_SYS_RESOURCE. A --ulimit on
# the command line takes the place of all of them: repeat these two.
ULIMITS = ("nofile=20000:20000", "nproc=32768:32768")
SETTINGS = f"""\
[containers]
default_ulimits = {json.dumps(ULIMITS)}
log_driver = "k8s-file"
netns = "none"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
"""


class Podman:
    """podman in its own mounts, cgroups and network; images and containers are gone with it."""

    def __init__(self, holder: int, folder: Path, targets: Path) -> None:
        self.holder = holder
        self.folder = folder
        self.targets = targets
        self.count = 0

    def __call__(
        self, *words: str | Path, check: bool = True, **how: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run ``podman WORDS`` to its end; ``how`` is subprocess.run's."""
        usual = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        done = subprocess.run(
            self.words(*words),
            check=False,
            env=self.environment(),
            **{"timeout": PATIENCE_S, "stdin": subprocess.DEVNULL, **usual, **how},
        )
        told = f"podman {' '.join(map(str, words))}: {done.returncode}\n{done.stdout}{done.stderr}"
        assert not check or done.returncode == 0, told
        return done

    def words(self, *words: str | Path) -> list[str]:
        """Return the command line of ``podman WORDS`` in there."""
        inside = ["nsenter", "-t", str(self.holder), "-m", "-C", "-n", "-i", "--"]
        return [*inside, "podman", *map(str, words)]

    def environment(self) -> dict[str, str]:
        """Return the environment of podman itself, of which a container sees nothing."""
        path = os.environ.get("PATH", "/usr/bin:/bin")
        folder = str(self.folder)
        settings = str(self.folder / "containers.conf")
        return {"PATH": path, "HOME": folder, "TMPDIR": "/run", "CONTAINERS_CONF": settings}

    def run(
        self, image: str, argv: Sequence[str | Path], *flags: str, runtime: str = "crun", **how: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a container to its end, and remove it; its code, streams apart, is the result's.

        125 to 127 may be podman's own: then stderr begins with "Error:".
        """
        mount = f"--volume={self.targets}:{TARGETS}:ro"
        words = [f"--runtime={runtime}", "run", "--rm", mount, *flags, image, *argv]
        return self(*words, check=False, **how)

    @contextmanager
    def started(
        self, image: str, argv: Sequence[str | Path], *flags: str, runtime: str = "crun"
    ) -> Iterator[Container]:
        """Start a container, and remove it with all that is in it."""
        self.count += 1
        container = Container(self, f"rig-{self.count}")
        mount = f"--volume={self.targets}:{TARGETS}:ro"
        words = ["run", "--detach", f"--name={container.name}", mount, *flags, image, *argv]
        try:
            self(f"--runtime={runtime}", *words)
            yield container
        finally:
            self("rm", "--force", "--time=0", "--ignore", container.name)


class Container:
    """One that was started."""

    def __init__(self, podman: Podman, name: str) -> None:
        self.podman = podman
        self.name = name

    def inspect(self, form: str) -> str:
        """Return what a Go template says of it, such as ``{{.State.ExitCode}}``."""
        return self.podman("inspect", f"--format={form}", self.name).stdout.strip()

    @property
    def pid(self) -> int:
        """The host's number for its PID 1; 0 once it has ended."""
        return int(self.inspect("{{.State.Pid}}"))

    @property
    def code(self) -> int:
        """Its exit code, once it has ended."""
        return int(self.inspect("{{.State.ExitCode}}"))

    def logs(self) -> str:
        """Return what it has said so far, on both streams."""
        done = self.podman("logs", self.name)
        return done.stdout + done.stderr

    def wait_for(self, text: str, seconds: float = 20) -> None:
        """Wait until its log has a text."""
        wait_until(lambda: text in self.logs(), f"{text!r} is not in the log", seconds)

    def kill(self, name: str) -> None:
        """Send its PID 1 a signal, as ``podman kill`` does."""
        self.podman("kill", f"--signal={name}", self.name)

    def stop(self, patience_s: int = 10) -> float:
        """Stop it, by SIGKILL after its patience; return the seconds that it took."""
        began = time.monotonic()
        self.podman("stop", f"--time={patience_s}", self.name)
        return time.monotonic() - began

    def wait(self) -> int:
        """Wait for its end; return its exit code."""
        return int(self.podman("wait", self.name).stdout)


@contextmanager
def opened(installation: Path, targets: Path) -> Iterator[Podman]:
    """Open the place, with the base image in it; leave the host as it was."""
    folder = Path(tempfile.mkdtemp(prefix="rtlaunch-podman-"))
    name = f"rtlaunch-podman-{os.getpid()}"
    (folder / "containers.conf").write_text(SETTINGS)
    holder = subprocess.Popen(
        ["bash", SCRIPT, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout
        assert holder.stdout.readline() == "open\n", "no place for podman: see its messages above"
        podman = Podman(holder.pid, folder, targets)
        import_base(podman, installation)
        yield podman
    finally:
        end_all(name)
        holder.communicate()
        remove_cgroups(name)
        shutil.rmtree(folder)


def import_base(podman: Podman, installation: Path) -> None:
    """Make the base image."""
    words = ["import", "--quiet", *(f"--change={change}" for change in image.CHANGES), "-", BASE]
    process = subprocess.Popen(
        podman.words(*words), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        env=podman.environment(),
    )  # fmt: skip
    assert process.stdin
    with process.stdin as stream:
        image.write(stream, installation)
    assert process.wait(PATIENCE_S) == 0, "podman import failed: see its messages above"


def end_all(name: str) -> None:
    """Kill what still runs below our cgroup: containers and their monitors, nothing else."""

    def gone() -> bool:
        left = left_in(name)
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        return not left

    wait_until(gone, f"processes are left in {name}")


def left_in(name: str) -> set[int]:
    """Return who is in a cgroup of ours, and below; ``name`` itself is the holder's alone."""
    found: set[int] = set()
    for top in Path("/sys/fs/cgroup").glob(f"*/{name}"):
        for path in top.rglob("*/cgroup.procs"):
            found |= set(map(int, path.read_text().split()))
    return found
