"""A service behind rtlaunch in the rig's systemd, and the program that it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.rigs.manager import RTLAUNCH

if TYPE_CHECKING:
    from tests.rigs.manager import Manager

# A service as people write them: says READY, keeps a watchdog, ends on SIGTERM with its own code.
SERVICE = """\
import os, signal, socket, sys, time

def notify(text):
    address = os.environ["NOTIFY_SOCKET"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect("\\0" + address[1:] if address[0] == "@" else address)
        sock.send(text.encode())

signal.signal(signal.SIGTERM, lambda *_: sys.exit(int(os.environ.get("CODE", "0"))))
print("pid", os.getpid(), flush=True)
for name in ("LISTEN_PID", "LISTEN_FDS", "WATCHDOG_PID"):
    print(name, os.environ.get(name), flush=True)
if "NOTIFY_SOCKET" in os.environ:
    notify("READY=1")
hang = os.environ.get("HANG")
while True:
    time.sleep(0.2)
    if "WATCHDOG_PID" in os.environ and not hang:
        notify("WATCHDOG=1")
"""
APP = "/usr/bin/python3 /opt/service.py"


class Service:
    """One unit, ended when the test is."""

    def __init__(self, manager: Manager, name: str) -> None:
        self.manager = manager
        self.name = f"{name}.service"
        self.report = f"/run/{name}/report.json"

    def install(self, *directives: str, options: str = "", command: str = APP) -> None:
        """Write the unit: rtlaunch in front of a command."""
        line = f"ExecStart={RTLAUNCH} --report {self.report} {options} -- {command}"
        folder = f"RuntimeDirectory={self.name.removesuffix('.service')}"
        keep = "RuntimeDirectoryPreserve=yes"
        text = "\n".join(["[Service]", line, folder, keep, *directives, ""])
        self.manager.unit(self.name, text)

    def start(self, check: bool = True) -> str:
        return self.manager.run("systemctl", "start", self.name, check=check)

    def stop(self) -> None:
        self.manager.run("systemctl", "stop", self.name, check=False)
        self.manager.run("systemctl", "reset-failed", self.name, check=False)

    def show(self, key: str) -> str:
        return self.manager.show(self.name, key)

    def status(self, key: str) -> str:
        """Return one line of the main process's /proc/PID/status."""
        text = self.manager.read(f"/proc/{self.show('MainPID')}/status")
        rows = dict(line.partition(":")[::2] for line in text.splitlines())
        return rows[key].strip()

    def target(self) -> str:
        """Return the pid of the program, whoever the main process is."""
        main = self.show("MainPID")
        child = self.manager.read(f"/proc/{main}/task/{main}/children").split()
        return child[0] if child else main

    def found(self) -> dict[str, Any]:
        """Return the report, once it is complete."""
        return self.manager.report(self.report)


def locked_bytes(service: Service) -> int:
    return int(service.status("VmLck").split()[0]) << 10
