"""The remedies for a memlock limit that is too small: one row for each place.

Part of :mod:`rtlaunch.core.remedies`, which says what a row is and what the
places are called; here since the memlock limit has more of them than all else.
"""

from __future__ import annotations

from rtlaunch.core.remedies_parts import (
    EDIT,
    EDIT_MANAGER,
    LIMITS_D,
    LOGIN_AGAIN,
    NO_CAPS_DOCKER,
    NO_CAPS_POD,
    POD_CAPABILITY,
    POD_PATCH,
    SYSTEMD_RUN,
    Row,
    Rows,
)

MEMLOCK: Rows = {
    "login-session": (
        "the login: pam_limits applies /etc/security/limits.d (without an entry, 8 MiB)",
        "%(sudo)sprlimit --pid $$ --memlock=%(bytes)s && %(run)s",
        "echo '%(limits_user)s - memlock %(kib)s' " + LIMITS_D + LOGIN_AGAIN,
    ),
    "system-service": (
        "LimitMEMLOCK= of %(unit)s (without it, systemd's default of 8 MiB)",
        SYSTEMD_RUN + " -p LimitMEMLOCK=%(size)s %(run)s",
        EDIT + "LimitMEMLOCK=%(size)s\n"
        "(or AmbientCapabilities=CAP_IPC_LOCK, which no limit binds), then restart it",
    ),
    "user-service": (
        "user@%(uid)s.service: a user manager gives its services no more than it has",
        SYSTEMD_RUN + " -p LimitMEMLOCK=%(size)s %(run)s",
        EDIT_MANAGER + "LimitMEMLOCK=%(size)s\n"
        "then end the session (loginctl terminate-user %(user)s) and log in again; "
        "a unit with its own LimitMEMLOCK= needs the new value too",
    ),
    "docker": (
        "docker run: no CAP_IPC_LOCK unless it is added, and the daemon's memlock ulimit",
        "docker run --cap-add IPC_LOCK %(image_run)s",
        "compose file: cap_add: [IPC_LOCK]\n"
        "(or --ulimit memlock=%(bytes)s:%(bytes)s; compose: ulimits: {memlock: %(bytes)s})",
    ),
    "docker-user": (
        "the daemon's memlock ulimit; " + NO_CAPS_DOCKER + ", --cap-add alone does nothing",
        "docker run --user 0 --cap-add IPC_LOCK %(image_run_user)s",
        "compose file: user: root, cap_add: [IPC_LOCK], "
        "environment: {RTLAUNCH_USER: '%(as_user)s'}\n"
        "(or, where the daemon may raise limits, --ulimit memlock=%(bytes)s:%(bytes)s; "
        "compose: ulimits: {memlock: %(bytes)s})",
    ),
    "docker-userns": (
        "the daemon's memlock ulimit; in a user namespace CAP_IPC_LOCK does not count",
        "docker run --ulimit memlock=%(bytes)s:%(bytes)s %(image_run)s",
        "compose file: ulimits: {memlock: {soft: %(bytes)s, hard: %(bytes)s}}",
    ),
    "podman": (
        "podman run: no CAP_IPC_LOCK unless it is added, and podman's memlock ulimit",
        "podman run --cap-add IPC_LOCK %(image_run)s",
        "Quadlet file: [Container] AddCapability=CAP_IPC_LOCK\n"
        "(or --ulimit memlock=%(bytes)s:%(bytes)s)",
    ),
    "podman-userns": (
        "the memlock limit of the user who runs podman: in a user namespace CAP_IPC_LOCK does "
        "not count, and --ulimit gives no more than that user has",
        "on the host: sudo prlimit --pid $$ --memlock=%(bytes)s && "
        "podman run --ulimit memlock=%(bytes)s:%(bytes)s %(image_run)s",
        "on the host: echo 'USER - memlock %(kib)s' "
        "| sudo tee -a /etc/security/limits.d/50-rtlaunch.conf" + LOGIN_AGAIN
        + " and run podman with --ulimit memlock=%(bytes)s:%(bytes)s",
    ),
    "kubernetes": (
        "the node's container runtime: a pod has no ulimits; CAP_IPC_LOCK takes their place",
        POD_PATCH,
        POD_CAPABILITY,
    ),
    "kubernetes-user": (
        "the node's container runtime: a pod has no ulimits, and " + NO_CAPS_POD,
        "for a test, runAsUser: 0 and capabilities: {add: [IPC_LOCK]} in the securityContext",
        "in the container's spec:\nsecurityContext:\n  runAsUser: 0\n  capabilities:\n"
        "    add: [IPC_LOCK]\nand let rtlaunch become the user: %(run_user)s",
    ),
    "slurm": (
        "Slurm: the hard limit of a task is slurmd's own, the soft one is the `ulimit -l` of the "
        "shell that submitted it, on whatever host (PropagateResourceLimits)",
        "on the node, as root: prlimit --pid $(pidof slurmd) --memlock=%(bytes)s; "
        "then srun --propagate=NONE %(run)s",
        "in slurm.conf: PropagateResourceLimitsExcept=MEMLOCK\n"
        "and on each node a drop-in for slurmd (systemctl edit slurmd):\n"
        "[Service]\nLimitMEMLOCK=infinity\nthen restart slurmd and slurmctld",
    ),
    "ci": (
        "the CI runner: the limits of its service, or of the container that it runs the job in",
        "%(allow)s   # if this job tests something else",
        "in the runner's configuration: CAP_IPC_LOCK for its job containers, or "
        "LimitMEMLOCK=%(size)s for its service",
    ),
    "ci-github": (
        "the runner's service; GitHub's own runners have sudo without a password",
        "sudo prlimit --pid $$ --memlock=%(bytes)s && %(run)s   # in one run: step",
        "keep that line in the step; on your own runner, LimitMEMLOCK=%(size)s in its unit",
    ),
    "ci-github-docker": (
        "the job's container: options",
        "sudo does not help in here; for now: %(allow)s",
        "in the job: container: {image: IMAGE, options: --cap-add IPC_LOCK "
        "--ulimit memlock=%(bytes)s:%(bytes)s}",
    ),
    "ci-github-kubernetes": (
        "the job's pod: a pod has no ulimits; CAP_IPC_LOCK takes their place",
        "%(allow)s   # if this job tests something else",
        "in the runner scale set's pod template:\nsecurityContext:\n  capabilities:\n"
        "    add: [IPC_LOCK]",
    ),
    "ci-gitlab": (
        "the runner's config.toml, or the limits of gitlab-runner.service",
        "%(allow)s   # if this job tests something else",
        'config.toml: [runners.docker] cap_add = ["IPC_LOCK"], and '
        '[runners.docker.ulimit] "memlock" = "%(bytes)s:%(bytes)s"',
    ),
    "ci-gitlab-kubernetes": (
        "the runner's config.toml: a pod has no ulimits; CAP_IPC_LOCK takes their place",
        "%(allow)s   # if this job tests something else",
        "config.toml: [runners.kubernetes.build_container_security_context.capabilities] "
        'add = ["IPC_LOCK"]',
    ),
    "plain": (
        "whatever started this process: limits are inherited (cron, an init script, a bare PID 1)",
        "%(sudo)sprlimit --pid $$ --memlock=%(bytes)s && %(run)s",
        "where it is started: ulimit -l %(kib)s as root, or a systemd unit with "
        "LimitMEMLOCK=%(size)s",
    ),
}  # fmt: skip

THREAD_STACKS = "\nor smaller default thread stacks: %(small_stacks)s"

HEADROOM: Rows = {
    place: (set_by, try_now + THREAD_STACKS, for_good)
    for place, (set_by, try_now, for_good) in MEMLOCK.items()
}

# Where the unit asks for more than it was given: systemd tries, takes what it gets, and is silent
# (setrlimit_closest, src/basic/rlimit-util.c). What PID 1 may raise decides which one it is.
CLAMPED: Row = (
    "systemd: %(unit)s has LimitMEMLOCK=%(unit_memlock)s, and was given %(given)s without a word, "
    "since PID 1 has no CAP_SYS_RESOURCE here, as in most containers",
    SYSTEMD_RUN + " -p AmbientCapabilities=CAP_IPC_LOCK %(run)s",
    EDIT + "AmbientCapabilities=CAP_IPC_LOCK\n"
    "(no limit binds who has it), then restart it; or give whatever systemd runs in a memlock "
    "limit of %(bytes)s or CAP_SYS_RESOURCE",
)
STALE: Row = (
    "%(unit)s has LimitMEMLOCK=%(unit_memlock)s by now, and was started with %(given)s",
    "%(sudo)ssystemctl daemon-reload && %(sudo)ssystemctl restart %(unit)s",
    "the same: a unit's limits are those that it was started with",
)

# Where --memlock itself asked for less than the hard limit permits, the place does not matter.
OWN_LIMIT: Row = (
    "--memlock or RTLAUNCH_MEMLOCK: less than the hard limit permits",
    "%(memlock_max)s",
    "leave out --memlock: max is its default",
)
