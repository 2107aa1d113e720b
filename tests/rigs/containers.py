"""What the rigs of podman and docker share: a place that leaves no trace, and containers in it.

Three ways to use an engine:

    engine.run(BASE, ["rtlaunch", "--", "/bin/true"], "--cap-add=IPC_LOCK")   to its end
    with engine.started(BASE, [...], "--memory=64m") as container: ...        beside the test
    engine("kill", name)                                                      anything else
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests import books
from tests.host import wait_until
from tests.rigs import image
from tests.rigs.manager import remove_cgroups

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SCRIPT = Path(__file__).with_name("open-engine.sh")
PATIENCE_S = 60
TARGETS = "/targets"  # where tests/targets is in a container
BASE = "localhost/rig/base"
LOCKS = "--cap-add=IPC_LOCK"
ENTRY = "localhost/rig/entry"  # the base image with rtlaunch as its entrypoint
ENTRYPOINT = f'FROM {BASE}\nENTRYPOINT ["rtlaunch", "--"]\n'


class Engine:
    """An engine in its own mounts, cgroups and network; images and containers are gone with it.

    ``usual`` are flags that each of its containers is run with.
    """

    name: str
    usual: tuple[str, ...] = ()

    def __init__(self, place: Place, targets: Path) -> None:
        self.place = place
        self.folder = place.folder
        self.targets = targets
        self.count = 0

    def __call__(
        self, *words: str | Path, check: bool = True, **how: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run the engine's command with WORDS to its end; ``how`` is subprocess.run's."""
        usual = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        done = subprocess.run(
            self.words(*words),
            check=False,
            env=self.environment(),
            **{"timeout": PATIENCE_S, "stdin": subprocess.DEVNULL, **usual, **how},
        )
        told = f"{' '.join(map(str, words))}: {done.returncode}\n{done.stdout}{done.stderr}"
        assert not check or done.returncode == 0, told
        return done

    def words(self, *words: str | Path) -> list[str]:
        """Return the command line of the engine's command with WORDS."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Return the environment of that command, of which a container sees nothing."""
        raise NotImplementedError

    def with_ulimits(self, flags: Sequence[str]) -> list[str]:
        """Return flags as they have to be if there are limits among them."""
        return list(flags)

    def removal(self, name: str) -> list[str]:
        """Return the words that remove a container, running or not, or none at all."""
        raise NotImplementedError

    def container(self, name: str) -> Container:
        """Return a container by its name."""
        return Container(self, name)

    def run(
        self, image: str, argv: Sequence[str | Path], *flags: str, runtime: str = "", **how: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a container to its end, and remove it; its code, streams apart, is the result's.

        125 to 127 may be the engine's own: then stderr has its "Error" in front.
        """
        words = ["run", "--rm", *self.flags(*flags), image, *argv]
        return self(*chosen(runtime), *words, check=False, **how)

    def flags(self, *flags: str) -> list[str]:
        """Return the usual flags, and these."""
        return [*self.usual, f"--volume={self.targets}:{TARGETS}:ro", *flags]

    @contextmanager
    def started(
        self, image: str, argv: Sequence[str | Path], *flags: str, runtime: str = ""
    ) -> Iterator[Container]:
        """Start a container, and remove it with all that is in it."""
        self.count += 1
        container = self.container(f"rig-{self.count}")
        named = ["--detach", f"--name={container.name}"]
        words = ["run", *named, *self.flags(*flags), image, *argv]
        try:
            self(*chosen(runtime), *words)
            yield container
        finally:
            self(*self.removal(container.name))

    def import_base(self, installation: Path) -> None:
        """Make the base image, and the one with the entrypoint."""
        changes = [f"--change={change}" for change in image.CHANGES]
        process = subprocess.Popen(
            self.words("import", *changes, "-", BASE), stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL, env=self.environment(),
        )  # fmt: skip
        assert process.stdin
        with process.stdin as stream:
            image.write(stream, installation)
        assert process.wait(PATIENCE_S) == 0, "import failed: see its messages above"
        self("build", "-t", ENTRY, "-", input=ENTRYPOINT, stdin=None)


def chosen(runtime: str) -> list[str]:
    """Return podman's flag for a runtime; without one it is the engine's usual."""
    return [f"--runtime={runtime}"] if runtime else []


class Container:
    """One that was started."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine = engine
        self.name = name

    def inspect(self, form: str) -> str:
        """Return what a Go template says of it, such as ``{{.State.ExitCode}}``."""
        return self.engine("inspect", f"--format={form}", self.name).stdout.strip()

    @property
    def pid(self) -> int:
        """The host's number for its PID 1; 0 once it has ended."""
        return int(self.inspect("{{.State.Pid}}"))

    @property
    def is_running(self) -> bool:
        """Tell whether its PID 1 runs."""
        return self.inspect("{{.State.Running}}") == "true"

    @property
    def code(self) -> int:
        """Its exit code, once it has ended."""
        return int(self.inspect("{{.State.ExitCode}}"))

    def logs(self) -> str:
        """Return what it has said so far, on both streams."""
        done = self.engine("logs", self.name)
        return done.stdout + done.stderr

    def wait_for(self, text: str, seconds: float = 20) -> None:
        """Wait until its log has a text."""
        wait_until(lambda: text in self.logs(), f"{text!r} is not in the log", seconds)

    def kill(self, name: str) -> None:
        """Send its PID 1 a signal, as the engine's kill does."""
        self.engine("kill", f"--signal={name}", self.name)

    def stop(self, patience_s: int = 10) -> float:
        """Stop it, by SIGKILL after its patience; return the seconds that it took."""
        began = time.monotonic()
        self.engine("stop", f"--time={patience_s}", self.name)
        return time.monotonic() - began

    def wait(self) -> int:
        """Wait for its end; return its exit code."""
        return int(self.engine("wait", self.name).stdout)


def target(container: Container) -> int:
    """Return the host's pid of the program below PID 1."""
    (child,) = books.children(container.pid)
    return child


# --- the place ---------------------------------------------------------------------------------


class Place:
    """What open-engine.sh holds open: ``name`` are its cgroups, ``folder`` is for the engine."""

    def __init__(self, name: str, folder: Path, holder: int) -> None:
        self.name = name
        self.folder = folder
        self.holder = holder


@contextmanager
def place(engine: str, *daemon: str | Path, folder: Path) -> Iterator[Place]:
    """Open a place, with a daemon in it if there is one to say so; leave the host as it was."""
    name = f"rtlaunch-{engine}-{os.getpid()}"
    with (folder / "log").open("w") as log:
        holder = subprocess.Popen(
            ["bash", SCRIPT, name, *daemon],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
    try:
        assert holder.stdout
        assert holder.stdout.readline() == "open\n", (folder / "log").read_text()
        yield Place(name, folder, holder.pid)
    finally:
        end_all(name)
        holder.communicate()
        remove_cgroups(name)


@contextmanager
def folder_for(engine: str) -> Iterator[Path]:
    """Make a folder, and remove it; its path is short, since that of a socket in it must be."""
    folder = Path(tempfile.mkdtemp(prefix=f"rtlaunch-{engine}-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


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
    return {pid for path in cgroups_of(name) for pid in processes(path)}


def cgroups_of(name: str, below: str = "*") -> list[Path]:
    """Return the cgroups below ours that match, in each hierarchy."""
    return [path for top in Path("/sys/fs/cgroup").glob(f"*/{name}") for path in top.rglob(below)
            if path.is_dir()]  # fmt: skip


def processes(cgroup: Path) -> list[int]:
    """Return the pids, as the host has them, of who is in a cgroup."""
    return list(map(int, (cgroup / "cgroup.procs").read_text().split()))
