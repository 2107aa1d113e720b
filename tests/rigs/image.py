"""A base image of this machine's own files: no registry, no package is fetched, in about a second.

Python and its library, what both are linked with, a shell and a handful of commands, tini, and the
installed rtlaunch. Everything else is left out, a compiler above all.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import IO

# fmt: off
COMMANDS = ("sh", "cat", "env", "id", "ln", "ls", "mkdir", "rm", "setpriv", "sleep", "true",
            "umount", "tini")
# fmt: on
SEARCHED = ("/usr/bin", "/bin")

# Of Python's library, what no launch and no test program imports: two thirds of it.
LEFT_OUT = (
    "site-packages", "dist-packages", "test", "idlelib", "tkinter", "turtledemo", "lib2to3",
    "ensurepip", "pydoc_data", "distutils",
)  # fmt: skip
MERGED = ("bin", "sbin", "lib", "lib64")  # links into /usr, as distributions have them
FOLDERS = ("etc", "proc", "sys", "dev", "run", "root", "home", "var/tmp", "opt")
PASSWD = """\
root:x:0:0::/root:/bin/sh
app:x:1000:1000::/home:/bin/sh
nobody:x:65534:65534::/:/bin/sh
"""
GROUP = "root:x:0:\napp:x:1000:\nnogroup:x:65534:\n"

INSTALLED = "/opt/rtlaunch"
CHANGES = (
    f"ENV PATH={INSTALLED}/bin:/usr/local/bin:/usr/bin:/bin",
    "WORKDIR /",
)


class Layer:
    """A tar stream that is the root file system."""

    def __init__(self, out: IO[bytes]) -> None:
        self.tar = tarfile.open(fileobj=out, mode="w|", dereference=True)  # noqa: SIM115  (closed below)
        self.there: set[str] = set()

    def add(self, path: str | Path, to: str | None = None) -> None:
        """Add a file, what a link leads to, or a whole folder; at its own place, or ``to``."""
        name = (to or place_of(str(path))).strip("/")
        if name not in self.there:
            self.there.add(name)
            self.tar.add(path, name, filter=lambda entry: wanted(entry, name))

    def folder(self, name: str, mode: int = 0o755) -> None:
        """Add an empty folder."""
        entry = tarfile.TarInfo(name)
        entry.type, entry.mode = tarfile.DIRTYPE, mode
        self.tar.addfile(entry)

    def link(self, name: str, target: str) -> None:
        """Add a symbolic link."""
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = tarfile.SYMTYPE, target
        self.tar.addfile(entry)

    def text(self, name: str, text: str) -> None:
        """Add a file with this text."""
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(text.encode()), 0o644
        self.tar.addfile(entry, io.BytesIO(text.encode()))


def place_of(path: str) -> str:
    """Return where a file is, with its folder's links resolved, and its own name kept."""
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def wanted(entry: tarfile.TarInfo, top: str) -> tarfile.TarInfo | None:
    """Leave out what nothing needs of a folder's own entries; everything belongs to root."""
    below = entry.name.removeprefix(top).strip("/")
    if below in LEFT_OUT or below.startswith("config-"):
        return None
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def find_command(name: str) -> str | None:
    """Return the path of one of the system's own commands."""
    found = (f"{folder}/{name}" for folder in SEARCHED)
    return next((path for path in found if os.access(path, os.X_OK)), None)


def linked_with(programs: Iterable[str | Path]) -> set[str]:
    """Return every library that these are linked with, and the loader; ldd(1) tells."""
    words = ["ldd", *map(str, programs)]
    out = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                         check=False).stdout  # fmt: skip
    return set(re.findall(r"(/\S+) \(0x", out))


def write(out: IO[bytes], installation: Path) -> None:
    """Write the image's root file system."""
    layer = Layer(out)
    for name in MERGED:
        layer.folder(f"usr/{name}")
        layer.link(name, f"usr/{name}")
    for name in FOLDERS:
        layer.folder(name)
    layer.folder("tmp", 0o1777)
    layer.text("etc/passwd", PASSWD)
    layer.text("etc/group", GROUP)

    interpreter = os.path.realpath(sys.executable)
    library = sysconfig.get_path("stdlib")
    commands = [path for path in map(find_command, COMMANDS) if path]
    extensions = [*Path(library).rglob("*.so"), *installation.rglob("*.so")]
    for path in [interpreter, library, *commands]:
        layer.add(path)
    for path in linked_with([interpreter, *commands, *extensions]):
        layer.add(path)
    if interpreter != "/usr/bin/python3":
        layer.link("usr/bin/python3", interpreter)
    inside = INSTALLED.strip("/")
    layer.add(installation / "lib", f"{inside}/lib")
    layer.add(installation / "bin" / "rtlaunch", f"{inside}/bin/rtlaunch")
    layer.link(f"{inside}/bin/python3", interpreter)
    layer.tar.close()
