"""A /proc that shows processes alone, and to each user its own: ProcSubset=pid, ProtectProc=."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.kernel.detached import written
from tests.kernel.programs import need_root
from tests.launching import NOBODY
from tests.skips import skip

# What a hardened unit has (systemd.exec(5)): no /proc/meminfo, no /proc/sys, no process of others.
LESS = "mount -t proc -o subset=pid,hidepid=invisible proc /proc"
AS_SERVICE = [
    "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs",
    "--inh-caps=+ipc_lock", "--ambient-caps=+ipc_lock", "--bounding-set=-all,+ipc_lock",
]  # fmt: skip


@pytest.mark.parametrize("mode", ["supervise", "exec"])
def test_a_hardened_service_is_locked_and_watched(public_install, here, mode):
    """The proof needs the program's own books alone; what cannot be read is said to be unknown."""
    need_root()
    if subprocess.run(["unshare", "--mount", "sh", "-c", LESS], check=False).returncode:
        skip("no-mount")
    here.chmod(0o777)
    report = here / "report.json"
    options = ["--mode", mode, "--report", report]
    rtlaunch = [public_install / "bin" / "rtlaunch", *options, "--", "sh", "-c", "exit 5"]
    script = f'{LESS} && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", *AS_SERVICE, *rtlaunch]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert (ran.returncode, ran.stdout) == (5, ""), ran.stderr
    found = written(report)
    assert found["verdict"] == "clean"
    assert "None" not in json.dumps(found["watch"]["why"])
