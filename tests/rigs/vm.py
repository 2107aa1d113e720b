"""A virtual machine for what this kernel lets nobody do: this very system under another one.

Its root is a copy of what Debian's packages put here, systemd and Python and what they need, and
its kernel is Debian's own for clouds (Linux 6.1 on Debian 12, 6.12 on 13), which has disk and file
system built in: no initramfs. It is emulated (TCG), so that it runs wherever tests run, some ten
times slower.

Nothing is shared with it while it runs: root and payload go in as disks, what the payload prints
comes out by a serial port.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.rigs.debs import Unavailable, output, unpacked

PYTHON = os.path.realpath("/usr/bin/python3")
PACKAGES = (
    "bash", "coreutils", "dash", os.path.basename(PYTHON), "systemd", "systemd-sysv", "util-linux",
)  # fmt: skip
LEFT_OUT = ("/usr/share/doc/", "/usr/share/man/", "/usr/share/locale/", "/usr/share/info/")
# As Debian 12 and 13 call it; not those of backports, which have +bpo.
KERNEL = r"^linux-image-(6\.1\.0-[0-9]+|6\.12\.[0-9]+\+deb13)-cloud-amd64$"
FOLDERS = ("proc", "sys", "dev", "run", "tmp", "var/tmp", "var/log", "etc/systemd/system", "root")
LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}
DISK_MIB = 400  # the copy has 90, and what the payload writes comes to little

# Nothing that this rig has no use for, and that takes seconds here.
MASKED = (
    "systemd-udevd.service", "systemd-udev-trigger.service", "systemd-hwdb-update.service",
    "systemd-timesyncd.service", "systemd-logind.service", "console-getty.service",
    "getty.target", "systemd-sysctl.service", "systemd-sysusers.service", "ldconfig.service",
    "systemd-tmpfiles-setup-dev.service", "systemd-update-utmp.service", "dev-hugepages.mount",
    "systemd-random-seed.service", "systemd-pstore.service", "modprobe@.service",
    "systemd-modules-load.service", "systemd-journal-flush.service", "timers.target",
    "systemd-network-generator.service", "systemd-user-sessions.service", "emergency.service",
)  # fmt: skip

# After the payload the machine is turned off, whatever became of it.
UNIT = f"""\
[Unit]
DefaultDependencies=no
After=sysinit.target
SuccessAction=poweroff-immediate
FailureAction=poweroff-immediate
[Service]
Type=oneshot
ExecStart={PYTHON} /rig/payload.py
StandardOutput=file:/dev/ttyS1
StandardError=file:/dev/ttyS1
TimeoutStartSec=240
"""


def fetch_kernel(folder: Path) -> Path:
    """Return Debian's kernel for clouds, fetched into ``folder`` once; it is not installed."""
    found = sorted(folder.glob("vmlinuz-*"))
    if found:
        return found[-1]
    folder.mkdir(parents=True, exist_ok=True)
    names = output("apt-cache", "search", "--names-only", KERNEL)
    if not names:
        raise Unavailable("apt knows no kernel of that name")
    newest = max((line.split()[0] for line in names.splitlines()), key=by_number)
    package = unpacked([newest], folder / newest)
    (kernel,) = (package / "boot").glob("vmlinuz-*")
    shutil.move(kernel, folder / kernel.name)
    shutil.rmtree(package)
    return folder / kernel.name


def by_number(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", name)]


# --- its root ----------------------------------------------------------------------------------


def packages() -> set[str]:
    """Return PACKAGES and all that they need, as they are installed here."""
    form = "${Package}\t${Pre-Depends}, ${Depends}\t${Provides}\n"
    needs: dict[str, list[str]] = {}
    provided: dict[str, str] = {}
    for line in output("dpkg-query", "-W", "-f", form).splitlines():
        name, depends, provides = line.split("\t")
        needs[name] = re.findall(r"(?:^|, *)([a-z0-9][a-z0-9+.-]*)", depends)
        provided.update(dict.fromkeys(re.findall(r"[a-z0-9][a-z0-9+.-]*", provides), name))
    todo, found = list(PACKAGES), set()
    while todo:
        name = todo.pop()
        name = name if name in needs else provided.get(name, "")
        if name in needs and name not in found:
            found.add(name)
            todo += needs[name]
    return found


def make_root(root: Path) -> None:
    """Copy what those packages put here, and make the folders and links that a boot needs."""
    for name in FOLDERS:
        (root / name).mkdir(parents=True, exist_ok=True)
    for link, where in LINKS.items():
        (root / where).mkdir(parents=True, exist_ok=True)
        (root / link).symlink_to(where)
    listed = output("dpkg", "-L", *sorted(packages())).splitlines()
    wanted = {real(path) for path in listed if not path.startswith(LEFT_OUT)}
    files = sorted(path[1:] for path in wanted if path and not os.path.isdir(path))
    pack = ["tar", "-c", "--no-recursion", "-C", "/", "--null", "-T", "-"]
    names = "\0".join([*files, "etc/ld.so.cache"]).encode()
    packed = subprocess.run(pack, input=names, stdout=subprocess.PIPE, check=True)
    subprocess.run(["tar", "-C", str(root), "-x"], input=packed.stdout, check=True)
    configure(root / "etc")


def real(path: str) -> str:
    """Return a path by the folder that it is really in: /bin is a link to usr/bin."""
    folder, name = os.path.split(path)
    path = os.path.join(os.path.realpath(folder), name)
    return path if os.path.lexists(path) else ""


def configure(etc: Path) -> None:
    """Write what no package has: users, an empty machine-id, what is not to be started."""
    (etc / "passwd").write_text("root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")
    (etc / "group").write_text("root:x:0:\nnogroup:x:65534:\n")
    (etc / "machine-id").write_text("")
    (etc / "fstab").write_text("")
    (etc / "hostname").write_text("rig\n")
    for name in MASKED:
        (etc / "systemd/system" / name).unlink(missing_ok=True)
        (etc / "systemd/system" / name).symlink_to("/dev/null")
    (etc / "systemd/system/rig.service").write_text(UNIT)
    (etc / "systemd/system/default.target").unlink(missing_ok=True)
    (etc / "systemd/system/default.target").write_text("[Unit]\nWants=rig.service\n")


def make_disk(root: Path, disk: Path) -> None:
    """Make an ext4 file system of a folder, without a mount."""
    output("mke2fs", "-q", "-t", "ext4", "-E", "root_owner=0:0", "-d", root, disk, f"{DISK_MIB}M")


# --- its run -----------------------------------------------------------------------------------


def run(kernel: Path, disk: Path, folder: Path, seconds: float) -> dict[str, Any]:
    """Boot, let the payload do its work, and return what it said of each thing, by its name."""
    console, said = folder / "console", folder / "said"
    command = [
        "qemu-system-x86_64", "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2",
        "-m", "1G", "-nodefaults", "-no-reboot", "-display", "none", "-net", "none",
        "-kernel", str(kernel), "-append",
        "root=/dev/nvme0n1 rw console=ttyS0 panic=-1 quiet mitigations=off audit=0",
        "-drive", f"file={disk},format=raw,if=none,id=r,snapshot=on",
        "-device", "nvme,drive=r,serial=r",
        "-serial", f"file:{console}", "-serial", f"file:{said}",
    ]  # fmt: skip
    ended = subprocess.run(command, timeout=seconds, stdin=subprocess.DEVNULL, check=False)
    lines = said.read_text(errors="replace").splitlines() if said.exists() else []
    results = {}
    for line in lines:
        if line.startswith("{"):
            told = json.loads(line)
            results[told.pop("name")] = told
    seen = (console.read_text(errors="replace")[-4000:], *lines[-40:])
    assert ended.returncode == 0 and "end" in results, "\n".join(seen)
    return results
