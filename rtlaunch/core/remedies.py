"""The remedies themselves: for each finding code, and for each place where it has another one.

A table and nothing else; :mod:`rtlaunch.core.remedy` picks and fills a row. A
row is (set by, try now, for good), each a template for ``%`` with the names
that remedy.py provides. ``*`` is anywhere. Places are the kinds of
:mod:`rtlaunch.core.where` and their finer forms: ``-user`` is a container
whose user is not root, ``-userns`` one in a user namespace, ``ci-X`` the CI
system X, ``ci-X-Y`` its job inside Y.
"""

from __future__ import annotations

from rtlaunch.core.remedies_budget import BUDGET_BY_PLACE
from rtlaunch.core.remedies_memlock import HEADROOM, MEMLOCK
from rtlaunch.core.remedies_parts import (
    DROP_IN_CONTAINER,
    EDIT,
    EDIT_MANAGER,
    LIMITS_D,
    LOGIN_AGAIN,
    NO_CAPS_DOCKER,
    NO_CAPS_POD,
    POD_CAPABILITY,
    POD_PATCH,
    SYSTEMD_RUN,
    Rows,
)

SYSCALL_FILTER: Rows = {
    "system-service": (
        "SystemCallFilter= of %(unit)s, most likely: it must let @memlock through",
        SYSTEMD_RUN + " -p LimitMEMLOCK=%(size)s %(run)s   # without the unit's filter",
        EDIT + "SystemCallFilter=@memlock",
    ),
    "docker": (
        "the container's seccomp profile, most likely",
        "docker run --security-opt seccomp=unconfined %(image_run)s",
        "a profile with mlock, mlock2, mlockall and munlockall allowed: "
        "--security-opt seccomp=FILE",
    ),
    "podman": (
        "the container's seccomp profile, most likely",
        "podman run --security-opt seccomp=unconfined %(image_run)s",
        "a profile with mlock, mlock2, mlockall and munlockall allowed: "
        "--security-opt seccomp=FILE",
    ),
    "kubernetes": (
        "the pod's seccompProfile, most likely",
        "for a test, seccompProfile: {type: Unconfined} in the securityContext",
        "seccompProfile: {type: Localhost, localhostProfile: FILE} with mlockall allowed",
    ),
    "*": (
        "a seccomp filter or security module of whatever started this process",
        "grep -i seccomp /proc/self/status   # 2: a filter is in force",
        "let mlock, mlock2, mlockall and munlockall through that filter",
    ),
}

LIMIT: Rows = {
    "login-session": (
        "the hard limit of this login: pam_limits applies /etc/security/limits.d",
        "%(sudo)sprlimit --pid $$ --%(limit)s=%(raw)s && %(run)s",
        "echo '%(limits_user)s - %(limit)s %(limits_d)s' " + LIMITS_D + LOGIN_AGAIN,
    ),
    "system-service": (
        "%(directive)s= of %(unit)s, and what systemd itself may give",
        SYSTEMD_RUN + " -p %(directive)s=%(raw_unit)s %(run)s",
        EDIT + "%(directive)s=%(raw_unit)s",
    ),
    "user-service": (
        "user@%(uid)s.service: a user manager gives its services no more than it has",
        SYSTEMD_RUN + " -p %(directive)s=%(raw_unit)s %(run)s",
        EDIT_MANAGER + "%(directive)s=%(raw_unit)s\nthen log out and in again",
    ),
    "docker": (
        "the container's ulimit",
        "docker run --ulimit %(limit)s=%(raw_ulimit)s:%(raw_ulimit)s %(image_run)s",
        "compose file: ulimits: {%(limit)s: {soft: %(raw_ulimit)s, hard: %(raw_ulimit)s}}",
    ),
    "podman": (
        "the container's ulimit, at most that of who runs podman",
        "podman run --ulimit %(limit)s=%(raw_ulimit)s:%(raw_ulimit)s %(image_run)s",
        "Quadlet file: [Container] Ulimit=%(limit)s=%(raw_ulimit)s:%(raw_ulimit)s",
    ),
    "kubernetes": (
        "the node's container runtime: a pod has no ulimits",
        "ask for no more than the hard limit, or run without this option",
        "on the node: rlimits in containerd's base_runtime_spec, or default_ulimits in crio.conf",
    ),
    "slurm": (
        "Slurm: limits of the shell that submitted it (PropagateResourceLimits), at most slurmd's",
        "srun --propagate=NONE %(run)s   # slurmd's own limits",
        "on each node a drop-in for slurmd (systemctl edit slurmd):\n[Service]\n"
        "%(directive)s=%(raw_unit)s\nthen restart slurmd; in slurm.conf, what the submitting shell "
        "is not to decide is named in PropagateResourceLimitsExcept=",
    ),
    "*": (
        "the hard limit inherited from whatever started this process",
        "%(sudo)sprlimit --pid $$ --%(limit)s=%(raw)s && %(run)s",
        "raise it where root starts this: ulimit, or %(directive)s=%(raw_unit)s in a systemd unit",
    ),
}

CAPABILITY: Rows = {
    "system-service": (
        "AmbientCapabilities= and CapabilityBoundingSet= of %(unit)s",
        SYSTEMD_RUN + " -p AmbientCapabilities=%(capability)s %(run)s",
        EDIT + "AmbientCapabilities=%(capability)s\n"
        "(and a CapabilityBoundingSet=, if there is one, must not leave it out)",
    ),
    "docker": (
        "docker run: what --cap-add does not add is not there",
        "docker run --cap-add %(cap)s %(image_run)s",
        "compose file: cap_add: [%(cap)s]",
    ),
    "docker-user": (
        NO_CAPS_DOCKER + ", whatever --cap-add says",
        "docker run --user 0 --cap-add %(cap)s %(image_run_user)s",
        DROP_IN_CONTAINER,
    ),
    "podman": (
        "podman run: what --cap-add does not add is not there",
        "podman run --cap-add %(cap)s %(image_run)s",
        "Quadlet file: [Container] AddCapability=%(capability)s",
    ),
    "kubernetes": (
        "the container's securityContext",
        POD_PATCH,
        POD_CAPABILITY,
    ),
    "kubernetes-user": (
        NO_CAPS_POD,
        "for a test, runAsUser: 0 and capabilities: {add: [%(cap)s]} in the securityContext",
        "runAsUser: 0 with that capability, and let rtlaunch become the user: %(run_user)s",
    ),
    "root": (
        "whatever made this root: a container, a unit or a user namespace left %(capability)s out",
        "grep Cap /proc/self/status   # capsh --decode=HEX names the bits of CapBnd",
        "give %(capability)s where that root was made, or leave it out of --ambient-caps",
    ),
    "*": (
        "who we are: uid %(uid)s does not hold %(capability)s",
        "sudo %(run_user)s",
        "a systemd unit with User=%(user)s and AmbientCapabilities=%(capability)s",
    ),
}

SCHEDULING: Rows = {
    "login-session": (
        "RLIMIT_RTPRIO and RLIMIT_NICE of this login: pam_limits applies /etc/security/limits.d",
        "%(sudo)sprlimit --pid $$ --rtprio=99 --nice=40 && %(run)s",
        "printf '%(limits_user)s - rtprio 99\\n%(limits_user)s - nice -20\\n' "
        + LIMITS_D
        + LOGIN_AGAIN,
    ),
    "system-service": (
        "LimitRTPRIO= and LimitNICE= of %(unit)s",
        SYSTEMD_RUN + " -p LimitRTPRIO=99 -p LimitNICE=-20 %(run)s",
        EDIT + "LimitRTPRIO=99\nLimitNICE=-20",
    ),
    "user-service": (
        "user@%(uid)s.service: a user manager gives its services no more than it has",
        SYSTEMD_RUN + " -p LimitRTPRIO=99 -p LimitNICE=-20 %(run)s",
        EDIT_MANAGER + "LimitRTPRIO=99\nLimitNICE=-20\nthen log out and in again",
    ),
    "docker": (
        "docker run: no CAP_SYS_NICE unless it is added",
        "docker run --cap-add SYS_NICE %(image_run)s",
        "compose file: cap_add: [SYS_NICE]",
    ),
    "docker-user": (
        "the container's rtprio and nice ulimits; " + NO_CAPS_DOCKER,
        "docker run --user 0 --cap-add SYS_NICE %(image_run_user)s",
        "compose file: user: root, cap_add: [SYS_NICE], "
        "environment: {RTLAUNCH_USER: '%(as_user)s'}\n"
        "(or, where the daemon may raise limits, --ulimit rtprio=99 --ulimit nice=40; "
        "compose: ulimits: {rtprio: 99, nice: 40})",
    ),
    "podman": (
        "podman run: no CAP_SYS_NICE unless it is added",
        "podman run --cap-add SYS_NICE %(image_run)s",
        "Quadlet file: [Container] AddCapability=CAP_SYS_NICE",
    ),
    "kubernetes": (
        "the container's securityContext: no CAP_SYS_NICE unless it is added",
        "for a test, runAsUser: 0 and capabilities: {add: [SYS_NICE]} in the securityContext",
        "in the container's spec:\nsecurityContext:\n  capabilities:\n    add: [SYS_NICE]",
    ),
    "*": (
        "RLIMIT_RTPRIO and RLIMIT_NICE, inherited from whatever started this process",
        "%(sudo)sprlimit --pid $$ --rtprio=99 --nice=40 && %(run)s",
        "LimitRTPRIO=99 and LimitNICE=-20 in a systemd unit, or CAP_SYS_NICE",
    ),
}

# A group of version 1 whose share of real-time is 0 (CONFIG_RT_GROUP_SCHED): no capability helps.
RATIONED: Rows = {
    "docker": (
        "docker run without --cpu-rt-runtime: a new cpu cgroup begins with no real-time",
        "docker run --cpu-rt-runtime 95000 --cap-add SYS_NICE %(image_run)s   "
        "# if the daemon has that to give",
        "dockerd --cpu-rt-runtime=950000, or cpu-rt-runtime in /etc/docker/daemon.json; "
        "compose file: cpu_rt_runtime: 95000",
    ),
    "docker-user": (
        "docker run without --cpu-rt-runtime: a new cpu cgroup begins with no real-time; "
        + NO_CAPS_DOCKER,
        "docker run --cpu-rt-runtime 95000 --user 0 --cap-add SYS_NICE %(image_run_user)s   "
        "# if the daemon has that to give",
        "dockerd --cpu-rt-runtime=950000, or cpu-rt-runtime in /etc/docker/daemon.json; "
        "compose file: cpu_rt_runtime: 95000",
    ),
    "podman": (
        "podman run without --cpu-rt-runtime: a new cpu cgroup begins with no real-time",
        "podman run --cpu-rt-runtime 95000 --cap-add SYS_NICE %(image_run)s   "
        "# if the groups above have that to give",
        "Quadlet file: [Container] PodmanArgs=--cpu-rt-runtime=95000, AddCapability=CAP_SYS_NICE; "
        "cpu.rt_runtime_us of the groups above",
    ),
    "*": (
        "the cpu cgroup %(cgroup)s, of version 1: new groups begin with 0",
        "echo 100000 >%(rationed)s   # us of each second",
        "start outside of that group, or boot with rt_group_sched=0 if the kernel has it",
    ),
}

CPUS: Rows = {
    "system-service": (
        "AllowedCPUs= of %(unit)s or of a slice above it",
        "ask for CPUs that are in Cpus_allowed_list of /proc/self/status",
        EDIT + "AllowedCPUs=%(cpus)s",
    ),
    "docker": (
        "docker run --cpuset-cpus",
        "docker run --cpuset-cpus %(cpus)s %(image_run)s",
        'compose file: cpuset: "%(cpus)s"',
    ),
    "podman": (
        "podman run --cpuset-cpus",
        "podman run --cpuset-cpus %(cpus)s %(image_run)s",
        "Quadlet file: [Container] PodmanArgs=--cpuset-cpus=%(cpus)s",
    ),
    "kubernetes": (
        "the kubelet's CPU manager",
        "leave out --cpu-list: the kubelet chooses the CPUs",
        "cpuManagerPolicy: static on the node, whole CPUs with requests equal to limits in the pod",
    ),
    "*": (
        "the cpuset of this process, or CPUs that are offline or not there",
        "grep Cpus_allowed_list /proc/self/status; cat /sys/devices/system/cpu/online",
        "widen the cpuset (AllowedCPUs= of the slice), or ask for CPUs that are in it",
    ),
}

MEMORY_CGROUP: Rows = {
    "system-service": (
        "MemoryMax= of %(unit)s or of a slice above it",
        "%(sudo)ssystemctl set-property --runtime %(unit)s MemoryMax=infinity",
        EDIT + "MemoryMax= as large as what is locked, and then some",
    ),
    "docker": (
        "docker run --memory",
        "docker run --memory SIZE %(image_run)s",
        "compose file: mem_limit, as large as what is locked, and then some",
    ),
    "podman": (
        "podman run --memory",
        "podman run --memory SIZE %(image_run)s",
        "a SIZE as large as what is locked, and then some",
    ),
    "kubernetes": (
        "resources.limits.memory of the container",
        "kubectl set resources deployment NAME --limits=memory=SIZE",
        "resources.limits.memory (and requests, equal) above what is locked",
    ),
    "*": (
        "the memory cgroup %(cgroup)s",
        "cat /proc/self/cgroup   # then memory.max (v2) or memory.limit_in_bytes (v1) in there",
        "raise that limit above what is locked: locked pages cannot be reclaimed",
    ),
}

PERF: Rows = {
    "docker": (
        "the container's seccomp profile and kernel.perf_event_paranoid",
        "docker run --cap-add PERFMON %(image_run)s   # docker 20.10 may not know it: SYS_ADMIN",
        "compose file: cap_add: [PERFMON]; without it the count is right and only the places lack",
    ),
    "podman": (
        "the container's seccomp profile and kernel.perf_event_paranoid",
        "podman run --cap-add PERFMON %(image_run)s",
        "Quadlet file: [Container] AddCapability=CAP_PERFMON",
    ),
    "kubernetes": (
        "the pod's seccomp profile and kernel.perf_event_paranoid of the node",
        "nothing need be done: the kernel's count is right, only the places lack",
        "capabilities: {add: [PERFMON]} and a seccompProfile that allows perf_event_open",
    ),
    "*": (
        "kernel.perf_event_paranoid, a seccomp filter, or the memory that perf rings may take",
        "%(sudo)ssysctl -w kernel.perf_event_paranoid=2",
        "echo kernel.perf_event_paranoid=2 | %(sudo)stee /etc/sysctl.d/50-rtlaunch.conf",
    ),
}

UNIT_TYPE: Rows = {
    "system-service": (
        "--mode supervise in %(unit)s, which has Type=notify, WatchdogSec= or a socket unit",
        "%(mode_exec)s",
        "no --mode in ExecStart= (auto is exec there), or --mode exec",
    ),
    "*": (
        "the service manager that started us, by NOTIFY_SOCKET, LISTEN_PID or WATCHDOG_PID",
        "%(mode_exec)s",
        "--mode exec; or, for variables that were merely inherited, "
        "env -u NOTIFY_SOCKET -u LISTEN_PID -u WATCHDOG_PID in front",
    ),
}

BECOMING: Rows = {
    "docker": (
        "docker run --cap-drop: --user takes the capabilities SETUID and SETGID",
        "docker run --cap-add SETUID --cap-add SETGID %(image_run)s",
        "compose file: cap_add: [SETUID, SETGID]",
    ),
    "docker-user": (
        "docker run --user: only root may become another user",
        "docker run --user 0 %(image_run)s",
        "compose file: user: root",
    ),
    "podman": (
        "podman run --cap-drop: --user takes the capabilities SETUID and SETGID",
        "podman run --cap-add SETUID --cap-add SETGID %(image_run)s",
        "Quadlet file: [Container] AddCapability=CAP_SETUID CAP_SETGID",
    ),
    "podman-user": (
        "podman run --user: only root may become another user",
        "podman run --user 0 %(image_run)s",
        "Quadlet file: [Container] User=0",
    ),
    "kubernetes": (
        "the container's securityContext: --user takes the capabilities SETUID and SETGID",
        "for a test, capabilities: {add: [SETUID, SETGID]} in the securityContext",
        "in the container's spec:\nsecurityContext:\n  capabilities:\n    add: [SETUID, SETGID]",
    ),
    "kubernetes-user": (
        "runAsUser or the image's USER: only root may become another user",
        "for a test, runAsUser: 0 in the securityContext",
        "in the container's spec:\nsecurityContext:\n  runAsUser: 0",
    ),
    "root": (
        "whatever made this root: it left out CAP_SETUID or CAP_SETGID",
        "grep CapEff /proc/self/status   # capsh --decode=HEX names its bits",
        "give both where that root was made, or leave out --user",
    ),
    "*": (
        "who we are: uid %(uid)s may not become another user",
        "sudo %(run)s",
        "start rtlaunch as root, or leave out --user (a systemd unit can say User=)",
    ),
}

BY_PLACE: dict[str, Rows] = {
    "user-denied": BECOMING,
    "memlock-limit": MEMLOCK,
    "memlock-headroom": HEADROOM,
    "lock-denied": SYSCALL_FILTER,
    "limit-raise": LIMIT,
    "capability-missing": CAPABILITY,
    "sched-denied": SCHEDULING,
    "cpu-unavailable": CPUS,
    "memory-cgroup": MEMORY_CGROUP,
    "watch-degraded": PERF,
    "notify-supervise": UNIT_TYPE,
    **BUDGET_BY_PLACE,
}
