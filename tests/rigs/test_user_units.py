"""Units of a user: a manager of its own, without privileges, and what it can give."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.host import wait_until
from tests.rigs.manager import RTLAUNCH
from tests.rigs.services import SERVICE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.rigs.manager import Manager

UID = "65534"
RUNTIME = f"/run/user/{UID}"
MANAGER = f"""\
[Service]
User={UID}
Delegate=pids
Type=notify
ExecStart=/lib/systemd/systemd --user
Environment=XDG_RUNTIME_DIR={RUNTIME} HOME=/opt/home
ExecStartPre=+/usr/bin/install -d -o {UID} -m 700 {RUNTIME} /opt/home
TasksMax=infinity
"""


class UserManager:
    """systemd --user, as user@.service has it."""

    def __init__(self, system: Manager) -> None:
        self.system = system

    def run(self, *words: str, check: bool = True) -> str:
        """Run a command as the user, beside the manager."""
        become = ("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups")
        return self.system.run(*become, "env", f"XDG_RUNTIME_DIR={RUNTIME}", *words, check=check)

    def systemctl(self, *words: str, check: bool = True) -> str:
        return self.run("systemctl", "--user", *words, check=check)

    def unit(self, name: str, *directives: str) -> None:
        self.system.write(f"/etc/systemd/user/{name}", "\n".join(["[Service]", *directives, ""]))
        self.systemctl("daemon-reload")

    def show(self, name: str, key: str) -> str:
        return self.systemctl("show", "--value", "-p", key, name).strip()


@pytest.fixture(scope="module")
def user(manager: Manager) -> Iterator[UserManager]:
    """The manager of nobody."""
    manager.write("/opt/service.py", SERVICE)
    name = f"user@{UID}.service"
    manager.unit(name, MANAGER)
    manager.run("systemctl", "start", name)
    yield UserManager(manager)
    manager.run("systemctl", "stop", name)


def test_a_users_service_is_locked_and_watched(user: UserManager) -> None:
    """Within the 8 MiB that the user has, by a side process of the user's own."""
    user.unit(
        "small.service", "Type=exec", f"RuntimeDirectory=small\nExecStart={RTLAUNCH} "
        "--report %t/small/report.json -- /usr/bin/sleep 60", "RuntimeDirectoryPreserve=yes",
    )  # fmt: skip
    user.systemctl("start", "small")
    wait_until(lambda: comm(user, "small") == "sleep", "it is not the program")
    pid = user.show("small", "MainPID")
    wait_until(lambda: user.system.not_held(pid) == [], "it is not locked")
    user.systemctl("stop", "small")
    path = f"{RUNTIME}/small/report.json"
    report = user.system.report(path)
    assert (report["host"]["where"], report["host"]["unit"]) == ("user-service", "small.service")
    assert (report["mode"]["chosen"], report["lock"]["ok"]) == ("exec", True)


def comm(user: UserManager, unit: str) -> str:
    """Return what the kernel calls a unit's main process."""
    pid = user.show(unit, "MainPID")
    return user.system.read(f"/proc/{pid}/comm").strip() if pid != "0" else ""


def test_readiness_of_a_users_service(user: UserManager) -> None:
    """READY=1 in its name is heard by the user's manager."""
    line = f"ExecStart={RTLAUNCH} --notify -- /usr/bin/sleep 60"
    user.unit("ready.service", "Type=notify", "NotifyAccess=main", "TimeoutStartSec=10", line)
    user.systemctl("start", "ready")
    assert user.show("ready", "ActiveState") == "active"
    assert comm(user, "ready") == "sleep"
    user.systemctl("stop", "ready")


def test_what_a_user_may_not_have_is_said_with_who_could_give_it(user: UserManager) -> None:
    """8 MiB, whatever the unit asks for: user@.service is where more comes from."""
    line = f"ExecStart={RTLAUNCH} --prefault-stack 7M -- /usr/bin/python3 -c pass"
    user.unit("large.service", "Type=exec", "LimitMEMLOCK=infinity", line)
    user.systemctl("start", "large", check=False)
    wait_until(lambda: user.show("large", "ActiveState") == "failed", "it was not refused")
    assert user.show("large", "ExecMainStatus") == "125"
    said = user.system.run("journalctl", "--no-pager", "-o", "cat", "SYSLOG_IDENTIFIER=rtlaunch")
    assert f"user@{UID}.service: a user manager gives its services no more than it has" in said
    user.systemctl("reset-failed", check=False)
