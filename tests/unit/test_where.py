"""Where we are, from facts captured on real machines of each kind."""

from __future__ import annotations

import pytest

from rtlaunch.core.where import (
    CI,
    DOCKER,
    KUBERNETES,
    LOGIN_SESSION,
    NO_LOGINUID,
    PLAIN,
    PODMAN,
    SLURM,
    SYSTEM_SERVICE,
    USER_SERVICE,
    WhereFacts,
    in_user_namespace,
    systemd_path,
    unit_of,
    where,
)

INITIAL = "         0          0 4294967295\n"
ROOTLESS = "         0       1000          1\n         1     100000      65536\n"
ID = "3f2a" * 16
SHELL = {"HOME": "/home/alice", "SHELL": "/bin/bash", "TERM": "xterm-256color", "USER": "alice"}
V1 = """\
12:memory:{path}
11:cpu,cpuacct:{path}
5:devices:{path}
1:name=systemd:{path}
0::/
"""
DOCKER_MOUNTS = f"""\
742 741 254:1 /var/lib/docker/containers/{ID}/resolv.conf /etc/resolv.conf rw - ext4 /dev/vda1 rw
743 741 254:1 /var/lib/docker/containers/{ID}/hostname /etc/hostname rw - ext4 /dev/vda1 rw
"""
DISK_ONLY = "23 1 254:0 / / rw,relatime - ext4 /dev/root rw\n"
SERVICE = {
    "INVOCATION_ID": "0f0e6e0b5f5d4c5b8e2a4c6f7a8b9c0d",
    "JOURNAL_STREAM": "9:33516",
    "LANG": "C.UTF-8",
    "SYSTEMD_EXEC_PID": "4711",
}


def facts(**known) -> WhereFacts:
    alice = {"environ": SHELL, "uid_map": INITIAL, "uid": 1000, "user": "alice"}
    return WhereFacts(**alice | known)


SLURM_TASK = {**SHELL, "SLURM_JOB_ID": "7", "SLURM_PROCID": "3", "SLURM_STEP_ID": "0"}

CAPTURED = {
    "task of srun, below slurmd.service": (
        facts(
            environ={**SLURM_TASK, "INVOCATION_ID": SERVICE["INVOCATION_ID"]},
            cgroup="0::/system.slice/slurmd.service\n",
        ),
        (SLURM, ""),
    ),
    "task of a job that a CI system submits": (
        facts(environ={**SLURM_TASK, "CI": "true", "GITLAB_CI": "true"}),
        (SLURM, ""),
    ),
    "shell of salloc, in a login session": (
        facts(
            environ={**SHELL, "SLURM_JOB_ID": "7"},
            cgroup="0::/user.slice/user-1000.slice/session-3.scope\n",
            stdin_tty=True,
        ),
        (LOGIN_SESSION, "session-3.scope"),
    ),
    "ssh login, Debian 12": (
        facts(
            environ={**SHELL, "SSH_TTY": "/dev/pts/0", "XDG_SESSION_ID": "3"},
            cgroup="0::/user.slice/user-1000.slice/session-3.scope\n",
            loginuid=1000,
            stdin_tty=True,
        ),
        (LOGIN_SESSION, "session-3.scope"),
    ),
    "ssh login without pam_systemd": (
        facts(cgroup="0::/system.slice/ssh.service\n", loginuid=NO_LOGINUID, stdin_tty=True),
        (LOGIN_SESSION, "ssh.service"),
    ),
    "sudo in a login": (
        facts(
            cgroup="0::/user.slice/user-1000.slice/session-c1.scope\n",
            uid=0,
            user="root",
            loginuid=1000,
            stdin_tty=True,
        ),
        (LOGIN_SESSION, "session-c1.scope"),
    ),
    "terminal of a desktop, a scope of the user manager": (
        facts(
            environ={**SHELL, **SERVICE},
            cgroup="0::/user.slice/user-1000.slice/user@1000.service/app.slice/"
            "app-org.gnome.Terminal.slice/vte-spawn-5b1c.scope\n",
            stdin_tty=True,
        ),
        (USER_SERVICE, "vte-spawn-5b1c.scope"),
    ),
    "systemd --user service": (
        facts(
            environ=SERVICE,
            cgroup="0::/user.slice/user-1000.slice/user@1000.service/app.slice/synth.service\n",
        ),
        (USER_SERVICE, "synth.service"),
    ),
    "system service": (
        facts(environ=SERVICE, cgroup="0::/system.slice/audio.service\n", pid=4711),
        (SYSTEM_SERVICE, "audio.service"),
    ),
    "instance of a template in a slice": (
        facts(environ=SERVICE, cgroup="0::/rt.slice/rt-loop.slice/loop@left.service\n"),
        (SYSTEM_SERVICE, "loop@left.service"),
    ),
    "system service that delegates": (
        facts(environ=SERVICE, cgroup="0::/system.slice/audio.service/payload\n"),
        (SYSTEM_SERVICE, "audio.service"),
    ),
    "system service on a hybrid host": (
        facts(environ=SERVICE, cgroup=V1.format(path="/system.slice/audio.service")),
        (SYSTEM_SERVICE, "audio.service"),
    ),
    "systemd-run --pty": (
        facts(environ=SERVICE, cgroup="0::/system.slice/run-u12.service\n", stdin_tty=True),
        (SYSTEM_SERVICE, "run-u12.service"),
    ),
    "cron": (
        facts(environ={"HOME": "/root"}, cgroup="0::/system.slice/cron.service\n", uid=0),
        (SYSTEM_SERVICE, "cron.service"),
    ),
    "systemd booted from a container image": (
        facts(environ=SERVICE, cgroup="0::/system.slice/audio.service\n", dockerenv=True),
        (SYSTEM_SERVICE, "audio.service"),
    ),
    "nspawn without a cgroup namespace": (
        facts(
            environ=SERVICE,
            cgroup="0::/machine.slice/systemd-nspawn@rtl.service/payload/system.slice/a.service\n",
        ),
        (SYSTEM_SERVICE, "a.service"),
    ),
    "systemd service where cgroups say nothing": (
        facts(environ=SERVICE, cgroup="0::/\n", pid=4711),
        (SYSTEM_SERVICE, ""),
    ),
    "shell below a service, cgroups say nothing": (
        facts(environ=SERVICE, cgroup="0::/\n", pid=4712),
        (PLAIN, ""),
    ),
    "bare init": (facts(environ={}, cgroup="", uid=0, user="root"), (PLAIN, "")),
    "machine whose disk was made of an image": (
        facts(environ={}, cgroup="0::/\n", dockerenv=True, mountinfo=DISK_ONLY),
        (PLAIN, ""),
    ),
    "CI=1 typed by a person": (
        facts(
            environ={**SHELL, "CI": "1"},
            cgroup="0::/user.slice/user-1000.slice/session-3.scope\n",
            stdin_tty=True,
        ),
        (LOGIN_SESSION, "session-3.scope"),
    ),
}


@pytest.mark.parametrize("name", CAPTURED)
def test_kind_and_unit(name):
    """Each captured place is told by its kind and its systemd unit."""
    captured, (kind, unit) = CAPTURED[name]
    found = where(captured)
    assert (found.kind, found.unit) == (kind, unit)


CONTAINERS = {
    "docker, cgroup v1": (
        facts(environ={}, cgroup=V1.format(path=f"/docker/{ID}"), dockerenv=True, hostname="web1"),
        (DOCKER, ID[:12]),
    ),
    "docker, cgroup v2 with its own namespace": (
        facts(
            environ={"HOSTNAME": ID[:12]},
            cgroup="0::/\n",
            dockerenv=True,
            mountinfo=DISK_ONLY + DOCKER_MOUNTS,
            hostname=ID[:12],
        ),
        (DOCKER, ID[:12]),
    ),
    "docker with the systemd driver, host's cgroup namespace": (
        facts(environ={}, cgroup=f"0::/system.slice/docker-{ID}.scope\n", dockerenv=True),
        (DOCKER, ID[:12]),
    ),
    "podman, rootless": (
        facts(
            environ={"container": "podman"},
            cgroup="0::/\n",
            containerenv='engine="podman-4.3.1"\nname="brave_euler"\nrootless=1\n',
            uid_map=ROOTLESS,
            uid=0,
        ),
        (PODMAN, "brave_euler"),
    ),
    "podman as root, .containerenv empty": (
        facts(environ={"container": "podman"}, cgroup="0::/\n", containerenv="", hostname="aa11"),
        (PODMAN, "aa11"),
    ),
    "podman, host's cgroup namespace": (
        facts(environ={}, cgroup=f"0::/machine.slice/libpod-{ID}.scope/container\n"),
        (PODMAN, ID[:12]),
    ),
    "Kubernetes, cgroup v2 with its own namespace": (
        facts(
            environ={"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"},
            cgroup="0::/\n",
            hostname="trader-7d9c-x2x5q",
        ),
        (KUBERNETES, "trader-7d9c-x2x5q"),
    ),
    "Kubernetes on CRI-O, which leaves podman's file": (
        facts(
            environ={"KUBERNETES_SERVICE_HOST": "10.0.0.1"},
            cgroup="0::/\n",
            containerenv="",
            hostname="trader-0",
        ),
        (KUBERNETES, "trader-0"),
    ),
    "Kubernetes, cgroup v1, service links off": (
        facts(
            environ={},
            cgroup=V1.format(path=f"/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope"),
            hostname="trader-1",
        ),
        (KUBERNETES, "trader-1"),
    ),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_kind_and_name_of_a_container(name):
    """Each captured container is told by its kind and the name that its users know it by."""
    captured, (kind, container) = CONTAINERS[name]
    found = where(captured)
    assert (found.kind, found.container) == (kind, container)


JOBS = {
    "GitHub's own runner": (
        facts(
            environ={"CI": "true", "GITHUB_ACTIONS": "true"},
            cgroup="0::/system.slice/hosted-compute-agent.service\n",
        ),
        ("github", SYSTEM_SERVICE),
    ),
    "GitHub, container job": (
        facts(environ={"CI": "true", "GITHUB_ACTIONS": "true"}, dockerenv=True, uid=0),
        ("github", DOCKER),
    ),
    "GitLab, docker executor": (
        facts(environ={"CI": "true", "GITLAB_CI": "true"}, dockerenv=True, uid=0),
        ("gitlab", DOCKER),
    ),
    "GitLab, Kubernetes executor": (
        facts(environ={"GITLAB_CI": "true", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}),
        ("gitlab", KUBERNETES),
    ),
    "Jenkins on a plain machine": (
        facts(environ={"JENKINS_URL": "https://ci.example.org/"}, cgroup="0::/\n"),
        ("jenkins", PLAIN),
    ),
    "any other that sets CI": (facts(environ={"CI": "true"}, cgroup="0::/\n"), ("", PLAIN)),
}


@pytest.mark.parametrize("name", JOBS)
def test_ci_and_what_it_runs_in(name):
    """A CI job is told by its system and by what it runs in."""
    captured, (system, inside) = JOBS[name]
    found = where(captured)
    assert (found.kind, found.ci, found.inside) == (CI, system, inside)


@pytest.mark.parametrize("value", ["", "0", "false", "False", "no"])
def test_ci_switched_off(value):
    """CI=false is no CI."""
    assert where(facts(environ={"CI": value}, cgroup="")).kind == PLAIN


def test_every_answer_has_its_evidence():
    """The answer says which fact decided."""
    everything = [*CAPTURED.values(), *CONTAINERS.values(), *JOBS.values()]
    assert all(where(captured).why for captured, _ in everything)


@pytest.mark.parametrize(
    ("uid_map", "inside"), [(INITIAL, False), ("", False), (ROOTLESS, True), ("0 0 1000\n", True)]
)
def test_user_namespace(uid_map, inside):
    """Only the identity over all ids is the initial user namespace."""
    assert in_user_namespace(uid_map) is inside


def test_who_we_are_is_kept():
    """The answer carries uid and user, which remedies name."""
    found = where(facts(cgroup=""))
    assert (found.uid, found.user, found.userns) == (1000, "alice", False)


def test_an_unknown_container_runtime_is_named():
    """A runtime that only sets $container is not taken for another, and is not forgotten."""
    found = where(facts(environ={"container": "lxc"}, cgroup="0::/\n"))
    assert (found.kind, found.container) == (PLAIN, "lxc")


@pytest.mark.parametrize(
    ("cgroup", "path"),
    [
        ("", "/"),
        ("0::/\n", "/"),
        ("0::/a.service\n", "/a.service"),
        ("9:name=systemd:/\n0::/a.service\n", "/a.service"),
        ("9:name=systemd:/a.service\n0::/\n", "/a.service"),
        ("4:memory:/b.service\n", "/"),
        ("0::/a:b.service\n", "/a:b.service"),
    ],
)
def test_path_in_systemds_hierarchy(cgroup, path):
    """systemd's path is found under v1, v2 and both."""
    assert systemd_path(cgroup) == path


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("/", ("", False)),
        ("/system.slice", ("", False)),
        ("/init.scope", ("init.scope", False)),
        ("/user.slice/user-0.slice/user@0.service/init.scope", ("init.scope", True)),
        ("/user.slice/user-0.slice/user@0.service", ("user@0.service", False)),
    ],
)
def test_unit_of_a_path(path, unit):
    """The unit is the last service or scope on the way, a user manager's if one stands above it."""
    assert unit_of(path) == unit
