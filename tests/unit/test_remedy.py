"""The remedies: for every code at every place, with its numbers, never for the wrong place."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtlaunch.core.findings import CODES, Finding
from rtlaunch.core.remedies import BY_PLACE
from rtlaunch.core.remedies_anywhere import ANYWHERE
from rtlaunch.core.remedy import (
    COMMAND_SHOWN,
    LEAST_MEMLOCK,
    Context,
    enough_memlock,
    instead,
    limits_d,
    places,
    remedy,
    shortened,
    with_remedy,
)
from rtlaunch.core.where import (
    CI,
    CONTAINERS,
    DOCKER,
    KINDS,
    KUBERNETES,
    LOGIN_SESSION,
    PLAIN,
    PODMAN,
    SYSTEM_SERVICE,
    USER_SERVICE,
    Where,
)

MIB = 1 << 20
TYPED = Context(("--prefault-stack", "1M"), "./app -x")
MEMLOCK_VALUES = {"needed_bytes": 11 * MIB, "soft": 8 * MIB, "hard": 8 * MIB}


def at(kind: str, **known) -> Where:
    who = {"uid": 1000, "user": "alice", "unit": "audio.service", "container": "web1"}
    return Where(kind, "as captured", **{**who, **known})


PLACES = [
    *(at(kind) for kind in KINDS if kind != CI),
    *(at(kind, uid=0, user="root", userns=True) for kind in CONTAINERS),
    *(at(kind, uid=0, user="root") for kind in KINDS if kind != CI),
    *(
        at(CI, ci=system, inside=inside)
        for system, inside in itertools.product(
            ("", "github", "gitlab", "jenkins"), (PLAIN, DOCKER, PODMAN, KUBERNETES, SYSTEM_SERVICE)
        )
    ),
]


def cure(place: Where, code: str = "memlock-limit", **values) -> str:
    """Return all three lines of a remedy as one text."""
    finding = Finding(code, "what", values={**MEMLOCK_VALUES, **values})
    return "\n".join(remedy(finding, place, TYPED))


BROKEN_RULES = {
    "a directory": ("command-not-executable", "regular", "EACCES", "chmod"),
    "a closed directory": ("command-not-executable", "lookup", "EACCES", "noexec"),
    "no such path": ("command-not-found", "lookup", "ENOENT", "PATH where"),
    "too many arguments": ("command-not-executable", "", "E2BIG", "chmod"),
    "open for writing": ("command-not-executable", "", "ETXTBSY", "chmod"),
}


@pytest.mark.parametrize(
    ("code", "rule", "errno", "other"), BROKEN_RULES.values(), ids=BROKEN_RULES
)
def test_a_command_is_cured_of_the_rule_that_it_broke(code, rule, errno, other):
    """And not of what its code is usually for."""
    told = cure(at(PLAIN), code, rule=rule, errno=errno, path="/opt/app")
    assert other not in told
    assert "/opt/app" in told or errno == "E2BIG"
    assert other in cure(at(PLAIN), code, rule="", errno="", path="app")


def test_what_maps_too_much_is_cured_where_it_runs():
    """In a container as elsewhere: by an option, and not by the host's administrator."""
    told = cure(at(DOCKER), "memory-budget", untouched=1 << 44)
    assert told.split("\n")[1] == (
        "rtlaunch --prefault-stack 1M --lock current,future,onfault -- ./app -x"
    )


@pytest.mark.parametrize("code", CODES)
def test_every_code_has_a_remedy_at_every_place(code):
    """No code, at no place, leaves out who set it, what to try now or what to do for good."""
    for place in PLACES:
        for line in remedy(Finding(code, "what"), place, TYPED):
            assert line.strip(), place
            assert "%(" not in line, place


def test_the_tables_know_no_other_codes():
    """A remedy for a code that does not exist would never be seen."""
    assert set(BY_PLACE) | set(ANYWHERE) == set(CODES)
    assert not set(BY_PLACE) & set(ANYWHERE)


@pytest.mark.parametrize("code", BY_PLACE)
def test_the_tables_know_no_other_places(code):
    """Each row of a table by place is reached from some place."""
    reached = {name for place in PLACES for name in places(place)}
    assert set(BY_PLACE[code]) <= reached


# --- each place its own ----------------------------------------------------------------------


def test_login_session_is_cured_by_limits_d():
    """A login gets its limit from limits.d: the user's name, KiB, and a new login."""
    text = cure(at(LOGIN_SESSION))
    assert "echo 'alice - memlock 65536' | sudo tee -a /etc/security/limits.d/" in text
    assert "log in again" in text
    assert f"sudo prlimit --pid $$ --memlock={64 * MIB} && rtlaunch --prefault-stack 1M --" in text


def test_login_session_of_a_user_without_name():
    """limits.conf takes a bare number for a name: an unnamed user is written as a range."""
    assert "':1000 - memlock" in cure(at(LOGIN_SESSION, user=""))


def test_system_service_is_cured_by_a_drop_in():
    """A system unit is cured by a drop-in that names it, and limits.d is not even mentioned."""
    text = cure(at(SYSTEM_SERVICE))
    assert "systemctl edit audio.service" in text
    assert "[Service]\nLimitMEMLOCK=64M" in text
    assert "AmbientCapabilities=CAP_IPC_LOCK" in text


@pytest.mark.parametrize("code", CODES)
def test_no_service_or_container_is_sent_to_limits_d(code):
    """limits.d is read by logins alone; only the host of a rootless podman has one too."""
    for place in PLACES:
        if place.kind in (SYSTEM_SERVICE, USER_SERVICE, DOCKER, KUBERNETES):
            assert "limits.d" not in cure(place, code), place


@pytest.mark.parametrize("code", ["memlock-limit", "memlock-headroom"])
def test_a_unit_that_was_given_less_than_it_says_is_told_so(code):
    """systemd without CAP_SYS_RESOURCE gives what it has and is silent; the capability helps."""
    place = at(SYSTEM_SERVICE, unit_memlock="infinity")
    text = cure(place, code, **MEMLOCK_VALUES)
    assert "audio.service has LimitMEMLOCK=infinity, and was given 8 MiB without a word" in text
    assert "AmbientCapabilities=CAP_IPC_LOCK" in text
    assert "LimitMEMLOCK=64M" not in text


def test_a_unit_that_was_changed_since_it_started_is_started_again():
    """Where the manager could have given what its files say."""
    place = at(SYSTEM_SERVICE, unit_memlock="64M", manager_raises=True)
    assert "daemon-reload" in cure(place, **MEMLOCK_VALUES)


def test_a_unit_that_got_what_it_asked_for_asks_for_more():
    """LimitMEMLOCK=8M, and 8 MiB given: the usual advice."""
    place = at(SYSTEM_SERVICE, unit_memlock="8M")
    assert "LimitMEMLOCK=64M" in cure(place, **MEMLOCK_VALUES)


def test_user_service_is_cured_at_its_manager():
    """A user unit gets no more than its manager has: the drop-in is user@.service's."""
    assert "systemctl edit user@.service" in cure(at(USER_SERVICE))


def test_docker_root_is_cured_by_the_capability():
    """Root in a docker container needs --cap-add IPC_LOCK."""
    assert "docker run --cap-add IPC_LOCK --entrypoint rtlaunch IMAGE" in cure(at(DOCKER, uid=0))


def test_docker_user_is_told_that_capabilities_do_nothing():
    """docker gives other users no effective capability: root becomes them; or the ulimit."""
    text = cure(at(DOCKER))
    assert "docker run --user 0 --cap-add IPC_LOCK --entrypoint rtlaunch IMAGE " in text
    assert f"--ulimit memlock={64 * MIB}:{64 * MIB}" in text
    assert "no effective capabilities" in text
    assert "--user alice" in text


def test_who_has_no_name_is_named_with_the_group():
    """--user takes a number that passwd does not know with a group alone."""
    text = cure(at(DOCKER, uid=4321, gid=8, user=""))
    assert "IMAGE --prefault-stack 1M --user 4321:8 -- ./app -x" in text
    assert "RTLAUNCH_USER: '4321:8'" in text


def test_becoming_a_user_is_the_engines_to_permit():
    """Nobody has sudo in a container: the capabilities, or root, by the engine's own flags."""
    assert "--cap-add SETUID --cap-add SETGID" in cure(at(DOCKER, uid=0), "user-denied")
    assert "docker run --user 0 " in cure(at(DOCKER), "user-denied")
    for place in (at(kind, uid=uid) for kind in CONTAINERS for uid in (0, 1000)):
        assert "sudo" not in cure(place, "user-denied")


@pytest.mark.parametrize(("uid", "who"), [(0, ""), (1000, "--user 0 ")])
def test_a_container_without_real_time_is_given_some(uid: int, who: str):
    """Nothing can be written to a container's cgroup: docker run has a flag for it."""
    values = {"cgroup": "/sys/fs/cgroup/cpu", "rationed": "/sys/fs/cgroup/cpu/cpu.rt_runtime_us"}
    text = cure(at(DOCKER, uid=uid), "sched-denied", **values)
    assert f"docker run --cpu-rt-runtime 95000 {who}--cap-add SYS_NICE" in text
    assert "echo 100000 >/sys/fs/cgroup/cpu/cpu.rt_runtime_us" in cure(
        at(PLAIN), "sched-denied", **values
    )


def test_podman_user_is_cured_by_the_capability():
    """podman makes added capabilities ambient: they work for every user."""
    assert "podman run --cap-add IPC_LOCK" in cure(at(PODMAN))


def test_podman_rootless_is_cured_on_the_host():
    """In a user namespace the capability does not count; the limit of podman's caller does."""
    text = cure(at(PODMAN, uid=0, userns=True))
    assert "--cap-add" not in text
    assert "on the host" in text


def test_kubernetes_is_cured_by_the_capability_alone():
    """A pod has no ulimits: IPC_LOCK in the securityContext, and never --ulimit."""
    text = cure(at(KUBERNETES, uid=0))
    assert "add: [IPC_LOCK]" in text
    assert "--ulimit" not in text


def test_kubernetes_user_starts_as_root():
    """A pod's capability does not reach other users: root in the pod, and rtlaunch drops."""
    text = cure(at(KUBERNETES))
    assert "runAsUser: 0" in text
    assert "rtlaunch --prefault-stack 1M --user alice -- ./app -x" in text


@pytest.mark.parametrize(
    ("system", "inside", "words"),
    [
        ("github", SYSTEM_SERVICE, "sudo prlimit --pid $$"),
        ("github", DOCKER, "options: --cap-add IPC_LOCK"),
        ("gitlab", DOCKER, 'cap_add = ["IPC_LOCK"]'),
        ("gitlab", KUBERNETES, "build_container_security_context"),
        ("", PLAIN, "the runner's configuration"),
    ],
)
def test_ci_is_cured_at_its_runner(system, inside, words):
    """A CI job is cured where its runner is configured."""
    assert words in cure(at(CI, ci=system, inside=inside))


@pytest.mark.parametrize("code", ["compaction-unevictable", "swap-on", "thp-always", "ksm-on"])
@pytest.mark.parametrize(("kind", "outside"), [(DOCKER, "host"), (KUBERNETES, "node")])
def test_settings_of_the_machine_are_changed_outside(code, kind, outside):
    """A container's user is sent to the host, or the node, for a setting of the whole machine."""
    _, try_now, for_good = remedy(Finding(code, "what"), at(kind), TYPED)
    assert try_now.startswith(f"on the {outside}: ")
    assert for_good.startswith(f"on the {outside}: ")


# --- the line that was typed ------------------------------------------------------------------


def line_for(code: str, *typed: str, **values) -> str:
    """Return what is to be tried now, for a line that was typed with these options."""
    return remedy(Finding(code, "what", values=values), at(PLAIN, uid=0), Context(typed))[1]


@pytest.mark.parametrize(
    ("typed", "corrected"),
    [
        (["-v", "--report", "/no/r", "--nice", "3"], "-v --report fd:2 --nice 3"),
        (["--report=/no/r", "-v"], "--report fd:2 -v"),
        (["--report", "/no/r", "-q", "--report=/no/s"], "--report fd:2 -q"),
        (["--profile", "--report", "-q"], "--profile --report -q --report fd:2"),
        (["-v"], "-v --report fd:2"),
    ],
)
def test_the_corrected_option_stands_where_the_wrong_one_stood(typed, corrected):
    """Never twice; what only looks like it, the value of another option, is left alone."""
    assert line_for("report-unwritable", *typed) == f"rtlaunch {corrected} -- COMMAND"


@pytest.mark.parametrize(
    ("typed", "corrected"),
    [
        ("--limit stack=64M", "--limit stack=1M"),
        ("--limit=stack=64M --limit nofile=9", "--limit stack=1M --limit nofile=9"),
        ("--limit nofile=9", "--limit nofile=9 --limit stack=1M"),
    ],
)
def test_a_corrected_limit_replaces_that_limit_alone(typed, corrected):
    """--limit is there once for each name."""
    assert " ".join(instead(typed.split(), "--limit", "stack=1M")) == corrected


@pytest.mark.parametrize(
    ("typed", "corrected"),
    [("--thread-stack 8M -v", "--thread-stack 1M -v"), ("-v", "-v --thread-stack 1M")],
)
def test_too_little_headroom_is_met_by_smaller_stacks(typed, corrected):
    """The line has --thread-stack, once."""
    text = line_for("memlock-headroom", *typed.split(), **MEMLOCK_VALUES)
    assert f"rtlaunch {corrected} -- COMMAND" in text


@pytest.mark.parametrize(
    ("headroom", "size"), [(16 * MIB, "1M"), (MIB, "512K"), (MIB - 1, "256K"), (5, "128K")]
)
def test_two_of_the_advised_stacks_fit(headroom, size):
    """A power of two, of which two fit into what is left; between 128K and 1M."""
    text = line_for("memlock-headroom", headroom_bytes=headroom)
    assert f"rtlaunch --thread-stack {size} -- COMMAND" in text


def test_a_list_is_added_to():
    """--allow adds up: what was allowed stays so."""
    text = line_for("target-machine", "--allow", "shim-path")
    assert "rtlaunch --allow shim-path --allow target-machine -- COMMAND" in text


def test_file_capabilities_become_ambient_ones():
    """The line gives what the file gave, and what locking takes, and takes them off the file."""
    finding = Finding("target-file-caps", "what", values={"path": "/x", "permitted": "0x2400"})
    line = "sudo rtlaunch --user alice --ambient-caps ipc_lock,net_bind_service,net_raw -- COMMAND"
    advised = remedy(finding, at(PLAIN), Context())[2]
    assert advised.startswith("sudo setcap -r ")
    assert advised.endswith(line)


def test_a_user_is_named_once():
    """--user alice, advised to who typed --user bob."""
    text = remedy(Finding("capability-missing", "what"), at(PLAIN), Context(("--user", "bob")))[1]
    assert text == "sudo rtlaunch --user alice -- COMMAND"


@pytest.mark.parametrize(
    ("room", "fits"),
    [(0, "none"), (4095, "none"), (4096, "4K"), (100_000, "64K"), (1 << 20, "1M")],
)
def test_a_stack_that_is_advised_fits(room, fits):
    """The largest power of two that the limit leaves room for; below a page nothing is touched."""
    text = line_for("stack-limit", "--prefault-stack", "8M", room_bytes=room)
    assert text == f"rtlaunch --prefault-stack {fits} -- COMMAND"


def test_a_limit_asked_too_low_is_not_asked_again():
    """--memlock 64K under a hard limit that is too low itself: raising that one alone cures not."""
    values = {**MEMLOCK_VALUES, "soft": 64 << 10}
    text = line_for("memlock-limit", "--memlock", "64K", **values)
    assert text == f"prlimit --pid $$ --memlock={64 * MIB} && rtlaunch --memlock max -- COMMAND"


# --- values ----------------------------------------------------------------------------------


def test_a_limit_that_was_asked_too_low_is_not_blamed_on_the_place():
    """With a hard limit that suffices, the cure of --memlock 64K is to leave it out."""
    text = cure(at(LOGIN_SESSION), soft=64 << 10, hard=64 * MIB)
    assert "leave out --memlock" in text
    assert "rtlaunch --prefault-stack 1M --memlock max -- ./app -x" in text


def test_a_limit_that_was_asked_low_under_a_low_hard_limit():
    """Where the hard limit would not suffice either, the place's cure stays."""
    assert "limits.d" in cure(at(LOGIN_SESSION), soft=64 << 10, hard=8 * MIB)


def test_root_needs_no_sudo():
    """Who is root already is not told to use sudo, which a container lacks."""
    assert "sudo" not in cure(at(SYSTEM_SERVICE, uid=0))


@given(st.integers(min_value=0, max_value=1 << 46))
def test_enough_memlock_leaves_room_to_grow(needed):
    """The limit that is advised is a power of two, at least twice what is needed at start."""
    size = enough_memlock(needed)
    assert size >= max(2 * needed, LEAST_MEMLOCK)
    assert size & (size - 1) == 0


@pytest.mark.parametrize(
    ("name", "value", "written"),
    [
        ("memlock", 8 * MIB, "8192"),
        ("stack", 1025, "2"),
        ("nofile", 4096, "4096"),
        ("cpu", 90, "2"),
        ("core", -1, "unlimited"),
    ],
)
def test_limits_d_counts_in_its_own_units(name, value, written):
    """limits.conf(5) counts KiB and minutes where the kernel counts bytes and seconds."""
    assert limits_d(name, value) == written


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (LOGIN_SESSION, "alice - nofile 4096"),
        (SYSTEM_SERVICE, "LimitNOFILE=4096"),
        (DOCKER, "--ulimit nofile=4096:4096"),
        (PLAIN, "--nofile=4096"),
    ],
)
def test_a_demanded_limit_is_spelled_for_its_place(kind, words):
    """limit-raise names the limit and the value as each place spells them."""
    assert words in cure(at(kind), "limit-raise", limit="nofile", soft=4096, hard=1024)


@pytest.mark.parametrize(
    ("kind", "words"),
    [(SYSTEM_SERVICE, "LimitCORE=infinity"), (DOCKER, "core=-1:-1"), (PLAIN, "--core=unlimited")],
)
def test_unlimited_is_spelled_for_its_place(kind, words):
    """No limit is infinity to systemd, -1 to docker and unlimited to prlimit."""
    assert words in cure(at(kind), "limit-raise", limit="core", soft=-1, hard=0)


def test_the_capability_is_spelled_for_its_place():
    """The capability that lacks is the one that is named, with and without CAP_."""
    text = cure(at(SYSTEM_SERVICE), "capability-missing", capability="sys_nice")
    assert "AmbientCapabilities=CAP_SYS_NICE" in text
    text = cure(at(PODMAN), "capability-missing", capability="CAP_SYS_NICE")
    assert "--cap-add SYS_NICE" in text


def test_the_variable_is_named():
    """A wrong twin is named as it is set."""
    place = at(LOGIN_SESSION)
    assert "env -u RTLAUNCH_CPU_LIST " in cure(place, "environment-value", option="cpu-list")
    assert "env -u RTLAUNCH_PORT " in cure(
        place, "environment-unknown", variables=["RTLAUNCH_PORT", "RTLAUNCH_X"]
    )


def test_values_do_not_change_who_we_are():
    """The user that --user names is not the user who is refused."""
    text = cure(at(PLAIN), "user-denied", uid=0, user="root")
    assert "uid 1000" in text


def test_a_path_is_quoted_for_a_shell():
    """A command that is offered for copying survives a space in a path."""
    assert "ls -l '/opt/a b'" in cure(at(PLAIN), "command-not-executable", path="/opt/a b")


def test_a_value_cannot_forge_a_line():
    """A newline in a path is shown, not obeyed."""
    text = cure(at(PLAIN), "command-not-executable", path="/x\nfor good: rm -rf /")
    assert "\nfor good" not in text


def test_what_a_finding_brings_along_is_kept():
    """A finding that knows better keeps its own lines."""
    own = Finding("usage", "what", try_now="rtlaunch -- ./app")
    filled = with_remedy(own, at(PLAIN), TYPED)
    assert filled.try_now == "rtlaunch -- ./app"
    assert filled.set_by
    assert filled.for_good


def test_a_long_command_is_cut_at_a_word():
    """A command of a thousand words does not fill the screen."""
    command = " ".join(f"word{at}" for at in range(1000))
    cut = shortened(command)
    assert len(cut) <= COMMAND_SHOWN + len(" ...")
    assert command.startswith(cut.removesuffix(" ..."))
    assert shortened("./app -x") == "./app -x"


@pytest.mark.parametrize(("needed", "size"), [(2 << 10, "128K"), (130 << 10, "1M"), (0, "128K")])
def test_the_advised_stack_has_room_for_the_arguments(needed, size):
    """They may take a quarter of it; less than 128K is never advised."""
    text = line_for("thread-stack-arguments", needed_bytes=needed)
    assert text == f"rtlaunch --thread-stack {size} -- COMMAND"
