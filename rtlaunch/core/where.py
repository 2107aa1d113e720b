"""Where this process runs, as far as it decides who sets its limits and capabilities.

Why: the same refusal has another cure in a login session, in a systemd unit
and in a container; advice for the wrong place costs a night. Pure: the facts
come in as texts, and the answer says which of them decided.

It must not choose the cure (:mod:`rtlaunch.core.remedy` does), nor read
anything; no regular expression, since the launch path imports it.
"""

from __future__ import annotations

from rtlaunch.core.caps import in_user_namespace
from rtlaunch.core.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LOGIN_SESSION = "login-session"
SYSTEM_SERVICE = "system-service"
USER_SERVICE = "user-service"
DOCKER = "docker"
PODMAN = "podman"
KUBERNETES = "kubernetes"
SLURM = "slurm"
CI = "ci"
PLAIN = "plain"
KINDS = (
    LOGIN_SESSION, SYSTEM_SERVICE, USER_SERVICE, DOCKER, PODMAN, KUBERNETES, SLURM, CI, PLAIN,
)  # fmt: skip
CONTAINERS = (DOCKER, PODMAN, KUBERNETES)

NO_LOGINUID = 0xFFFFFFFF  # what /proc/self/loginuid holds where nobody logged in

# A variable that only this CI system sets, and the system's name.
CI_SYSTEMS = {
    "GITHUB_ACTIONS": "github",
    "GITLAB_CI": "gitlab",
    "JENKINS_URL": "jenkins",
    "BUILDKITE": "buildkite",
    "CIRCLECI": "circleci",
    "TF_BUILD": "azure",
    "TEAMCITY_VERSION": "teamcity",
    "DRONE": "drone",
    "TRAVIS": "travis",
}

# Part of a cgroup path, and what made it. The first that matches decides: a
# pod's path also names the runtime beneath it.
CGROUP_MARKS = (
    ("kubepods", KUBERNETES),
    ("libpod", PODMAN),
    ("/docker/", DOCKER),
    ("/docker-", DOCKER),
)

# The value of $container that a runtime sets for its PID 1, and its name here.
CONTAINER_VARIABLE = {"podman": PODMAN, "docker": DOCKER}

# What docker binds into every container (moby, container_operations_unix.go).
DOCKER_MOUNTS = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf")

SHORT_ID = 12  # how docker and podman print a container's id


class WhereFacts(Record):
    """What was read: texts of files (None: no such file), environment, identity.

    ``cgroup`` is /proc/self/cgroup, ``uid_map`` /proc/self/uid_map,
    ``containerenv`` /run/.containerenv, ``mountinfo`` /proc/self/mountinfo;
    ``dockerenv`` tells whether /.dockerenv exists; ``loginuid`` is the number in
    /proc/self/loginuid.
    """

    environ: Mapping[str, str]
    cgroup: str = ""
    uid_map: str = ""
    dockerenv: bool = False
    containerenv: str | None = None
    pid: int = 0
    uid: int = 0
    gid: int = 0
    user: str = ""
    loginuid: int | None = None
    stdin_tty: bool = False
    hostname: str = ""
    mountinfo: str | None = None


class Where(Record):
    """The place, and ``why`` we think so.

    ``unit`` is the systemd unit, ``container`` the container's or pod's name,
    ``ci`` the CI system; ``inside`` is what a CI job runs in. ``userns`` tells
    that we are not in the initial user namespace, where CAP_IPC_LOCK counts.
    ``unit_memlock`` is LimitMEMLOCK= in the files of a system's unit, read where it matters, and
    ``manager_raises`` whether its manager may raise hard limits.
    """

    kind: str
    why: str
    unit: str = ""
    container: str = ""
    ci: str = ""
    inside: str = ""
    userns: bool = False
    uid: int = 0
    gid: int = 0
    user: str = ""
    unit_memlock: str = ""
    manager_raises: bool = False


class Sign(Record):
    """What one rule saw: a kind, the evidence in words, and a name if it has one."""

    kind: str
    why: str
    unit: str = ""
    container: str = ""


def where(facts: WhereFacts) -> Where:
    """Return where a process with these facts runs; the first rule that answers decides.

    A CI system comes before what its job runs in, but for Slurm: srun takes the
    variables of the shell that calls it along, and sets the limits itself.
    """
    sign = _first_sign(facts)
    system, evidence = ("", "") if sign.kind == SLURM else ci_system(facts)
    kind, why = (CI, evidence) if evidence else (sign.kind, sign.why)
    return Where(
        kind,
        why,
        unit=sign.unit,
        container=sign.container or facts.environ.get("container", ""),
        ci=system,
        inside=sign.kind if evidence else "",
        userns=in_user_namespace(facts.uid_map),
        uid=facts.uid,
        gid=facts.gid,
        user=facts.user,
    )


def _first_sign(facts: WhereFacts) -> Sign:
    for rule in RULES:
        sign = rule(facts)
        if sign is not None:
            return sign
    return Sign(PLAIN, "no session, unit, container or CI system to be seen")


def ci_system(facts: WhereFacts) -> tuple[str, str]:
    """Return the CI system's name and the evidence; two empty strings for none.

    A bare CI=1 at a terminal is a person who tries something out.
    """
    for variable, system in CI_SYSTEMS.items():
        if facts.environ.get(variable):
            return system, f"{variable} is set"
    value = facts.environ.get("CI", "")
    if value.lower() in ("", "0", "false", "no") or facts.stdin_tty:
        return "", ""
    return "", f"CI={value} is set, and stdin is no terminal"


def systemd_path(cgroup: str) -> str:
    """Return the path in systemd's hierarchy from a /proc/self/cgroup text, ``/`` if none.

    On a hybrid host both systemd's own v1 line and the v2 line may name it;
    a line that says no more than ``/`` yields to one that does.
    """
    paths = [
        line.split(":", 2)[2]
        for line in cgroup.splitlines()
        if line.startswith("0::") or ":name=systemd:" in line
    ]
    return max(paths, key=len, default="/")


def unit_of(path: str) -> tuple[str, bool]:
    """Return the systemd unit that a cgroup path lies in, and whether a user manager runs it."""
    parts = path.split("/")
    units = [part for part in parts if part.endswith((".service", ".scope"))]
    if not units:
        return "", False
    managers = [unit for unit in units[:-1] if unit.startswith("user@")]
    return units[-1], bool(managers)


def _container_by_cgroup(facts: WhereFacts) -> Sign | None:
    for line in facts.cgroup.splitlines():
        path = line.split(":", 2)[-1]
        for mark, kind in CGROUP_MARKS:
            if mark in path:
                name = _container_name(facts, kind, path)
                return Sign(kind, f"the cgroup {path}", container=name)
    return None


def _container_name(facts: WhereFacts, kind: str, path: str = "") -> str:
    """Return the best name to be had: podman's own, a pod's host name, an id."""
    named = _containerenv_field(facts.containerenv or "", "name")
    if named:
        return named
    if kind == KUBERNETES and facts.hostname:
        return facts.hostname
    return _id_in(path) or facts.hostname


def _containerenv_field(text: str, field: str) -> str:
    """Return one field of /run/.containerenv (``name="x"``), empty if it is not there."""
    for line in text.splitlines():
        key, _, value = line.partition("=")
        if key.strip() == field:
            return value.strip().strip('"')
    return ""


def _id_in(path: str) -> str:
    """Return the short container id in a cgroup path: the last run of 64 hexadecimal digits."""
    for part in reversed(path.replace(".scope", "").replace("-", "/").split("/")):
        if len(part) == 64 and all(digit in "0123456789abcdef" for digit in part):
            return part[:SHORT_ID]
    return ""


def _slurm_task(facts: WhereFacts) -> Sign | None:
    """Find a task of a Slurm job; the shell that salloc starts is none, it has its login's limits.

    Its cgroup may name slurmd's unit, whose limits Slurm replaces by those it brought along.
    """
    job, task = (facts.environ.get(name, "") for name in ("SLURM_JOB_ID", "SLURM_PROCID"))
    return Sign(SLURM, f"SLURM_JOB_ID is {job}, SLURM_PROCID {task}") if job and task else None


def _service(facts: WhereFacts) -> Sign | None:
    """Find the systemd unit; a scope of the user manager has its limits from user@.service too."""
    unit, of_user = unit_of(systemd_path(facts.cgroup))
    if of_user:
        return Sign(USER_SERVICE, f"the cgroup names {unit} of a user manager", unit=unit)
    started_by_systemd = bool(facts.environ.get("INVOCATION_ID"))
    if unit.endswith(".service") and (started_by_systemd or not facts.stdin_tty):
        return Sign(SYSTEM_SERVICE, f"the cgroup names {unit}", unit=unit)
    if not unit and facts.environ.get("SYSTEMD_EXEC_PID") == str(facts.pid):
        return Sign(SYSTEM_SERVICE, "SYSTEMD_EXEC_PID is this process")
    return None


def _pod_by_environment(facts: WhereFacts) -> Sign | None:
    if not facts.environ.get("KUBERNETES_SERVICE_HOST"):
        return None
    name = _container_name(facts, KUBERNETES)
    return Sign(KUBERNETES, "KUBERNETES_SERVICE_HOST is set", container=name)


def _container_by_file(facts: WhereFacts) -> Sign | None:
    if facts.containerenv is not None:
        return Sign(PODMAN, "/run/.containerenv exists", container=_container_name(facts, PODMAN))
    kind = CONTAINER_VARIABLE.get(facts.environ.get("container", ""))
    if kind:
        evidence = f"container={facts.environ['container']} is set"
        return Sign(kind, evidence, container=_container_name(facts, kind))
    if facts.dockerenv and _has_docker_mounts(facts.mountinfo):
        return Sign(DOCKER, "/.dockerenv exists", container=_container_name(facts, DOCKER))
    return None


def _has_docker_mounts(mountinfo: str | None) -> bool:
    """Tell a container from a machine whose disk was made of an image: docker mounts its own files.

    Where the mounts are not known the file alone must do.
    """
    return mountinfo is None or any(f" {path} " in mountinfo for path in DOCKER_MOUNTS)


def _login_session(facts: WhereFacts) -> Sign | None:
    unit, _ = unit_of(systemd_path(facts.cgroup))
    if unit.startswith("session-") and unit.endswith(".scope"):
        return Sign(LOGIN_SESSION, f"the cgroup names {unit}", unit=unit)
    if facts.loginuid not in (None, NO_LOGINUID):
        return Sign(LOGIN_SESSION, f"loginuid is {facts.loginuid}", unit=unit)
    if facts.stdin_tty:
        return Sign(LOGIN_SESSION, "stdin is a terminal", unit=unit)
    return None


# Strong evidence first. A unit beats the files that a container image leaves
# behind: a systemd booted from such an image runs real units.
RULES: tuple[Callable[[WhereFacts], Sign | None], ...] = (
    _container_by_cgroup,
    _slurm_task,
    _service,
    _pod_by_environment,
    _container_by_file,
    _login_session,
)
