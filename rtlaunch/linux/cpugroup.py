"""The cpu cgroup of this process, where the kernel rations real-time by groups.

Only kernels with CONFIG_RT_GROUP_SCHED and the v1 controller have the file (Debian's have not).
"""

from __future__ import annotations

from rtlaunch.core.cgroup import hierarchies
from rtlaunch.linux.memory import read_number, read_text


def without_realtime() -> str:
    """Return our cgroup's directory if its cpu.rt_runtime_us is 0, else an empty string.

    EPERM is then sched_setscheduler(2)'s answer even to CAP_SYS_NICE.
    """
    cgroup = read_text("/proc/self/cgroup") or ""
    places = hierarchies(cgroup, read_text("/proc/self/mountinfo") or "", "cpu")
    folders = [place.folders[0] for place in places]
    starved = (one for one in folders if read_number(f"{one}/cpu.rt_runtime_us") == 0)
    return next(starved, "")
