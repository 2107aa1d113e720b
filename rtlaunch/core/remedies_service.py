"""The remedies for what a service manager expects of its main process: one row for each code.

Part of :mod:`rtlaunch.core.remedies_anywhere`; :mod:`rtlaunch.core.remedies` says what a row is.
"""

from __future__ import annotations

from rtlaunch.core.remedies_parts import EDIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rtlaunch.core.remedies_parts import Row

SERVICE: dict[str, Row] = {
    "unit-forking": (
        "Type=forking of %(unit)s",
        "systemd-run --pty --same-dir %(run)s   # with the option that keeps it in the foreground",
        EDIT + "Type=notify\nPIDFile=\n(or Type=exec), and in ExecStart= the option that keeps the "
        "program in the foreground",
    ),
    "notify-missing": (
        "--notify, and whoever started this without NOTIFY_SOCKET (not a unit of Type=notify)",
        "systemctl show -p Type,NotifyAccess %(unit)s",
        "Type=notify in the unit; without a service manager, leave --notify out",
    ),
    "notify-failed": (
        "NOTIFY_SOCKET, as whoever started this set it, and what of it can be reached from here",
        "ss -xlpn | grep notify; echo $NOTIFY_SOCKET",
        "bind the socket into the container or chroot; or leave --notify out, and the unit at "
        "Type=exec",
    ),
}
