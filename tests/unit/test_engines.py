"""A plan in other engines' words: each option's directive, and quoting that keeps each word."""

from __future__ import annotations

import json
import shlex
import subprocess

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rtlaunch.core import argv
from rtlaunch.core.findings import Finding
from rtlaunch.core.record import replace
from rtlaunch.core.settings import resolve
from rtlaunch.core.wanted import Wanted
from rtlaunch.report.engines import ENGINES
from tests.unit.deciding import NOBODY

GUEST = "/opt/guest.so"

# what a command line can hold that is UTF-8, and what the engines replace in it
TEXTS = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=12)
TRAPS = [
    "", " ", "it's", 'say "x"', "$HOME", "${HOME}", "$$", "$(id)", "`id`", "%n", "%%", "\\", "a\\",
    ";", "|", "#", "*", "~", "-", "--", "a\nb", "\t", "\x07", "\x7f", "\x85", "\u2028", "\ufeff",
    "é", "😀", "{a: b}", "- x", "!tag", "@", "\\x41", "\\n",
]  # fmt: skip
WORDS = st.lists(st.one_of(TEXTS, st.sampled_from(TRAPS)), max_size=6)


def wanted(*words: str, command: tuple[str, ...] = ("/usr/bin/app",), **changed: object) -> Wanted:
    """Return what a command line wants, of root, of a program that a preload reaches."""
    line = argv.split([*words, "--", *command])
    options = resolve(line.raw, {}, None).options
    base = Wanted(command, "/work", 0, "root", None, options, GUEST)
    return replace(base, **changed)


def rendered(engine: str, *words: str, **changed: object) -> list[str]:
    return ENGINES[engine].render(wanted(*words, **changed)).split("\n")[:-1]  # type: ignore[arg-type]


def test_each_engine_is_one_that_can_be_asked_for() -> None:
    """What --as completes is what is rendered."""
    assert tuple(ENGINES) == argv.ENGINES


# ---- systemd ----

UNIT = [
    ((), "LimitMEMLOCK=infinity"),
    ((), "LimitCORE=infinity"),
    ((), 'Environment="LD_PRELOAD=/opt/guest.so"'),
    ((), 'Environment="_RTL_STANDALONE=3:524288:0"'),
    ((), "WorkingDirectory=/work"),
    (("--lock", "current,future,onfault"), 'Environment="_RTL_STANDALONE=7:524288:0"'),
    (("--prefault-stack", "1M"), 'Environment="_RTL_STANDALONE=3:1048576:0"'),
    (("--best-effort",), 'Environment="_RTL_STANDALONE=11:524288:0"'),
    (("--children", "all"), 'Environment="_RTL_STANDALONE=19:524288:0"'),
    (("--memlock", "64M"), "LimitMEMLOCK=67108864"),
    (("--limit", "nofile=1024:4096"), "LimitNOFILE=1024:4096"),
    (("--limit", "rtprio=unlimited"), "LimitRTPRIO=infinity"),
    (("--ambient-caps", "ipc_lock,sys_nice"), "AmbientCapabilities=CAP_IPC_LOCK CAP_SYS_NICE"),
    (("--user", "nobody:audio"), "User=nobody"),
    (("--user", "nobody:audio"), "Group=audio"),
    (("--no-new-privs",), "NoNewPrivileges=yes"),
    (("--sched", "fifo:50"), "CPUSchedulingPolicy=fifo"),
    (("--sched", "fifo:50"), "CPUSchedulingPriority=50"),
    (("--cpu-list", "0,2-3"), "CPUAffinity=0,2-3"),
    (("--nice", "-5"), "Nice=-5"),
    (("--timer-slack", "50us"), "TimerSlackNSec=50000ns"),
    (("--hugepages", "2M:4"), "Wants=rtlaunch-hugepages.service"),
    (("--watch", "perf"), "# not here: --watch perf: no launcher is there to watch"),
    (("--mode", "exec"), "# not here: --mode exec: the program is started as itself"),
    (
        ("--rewrite", "TERM:none"),
        "# not here: --rewrite TERM:none: no launcher is there to pass signals on",
    ),
    (
        ("--map-exit", "143=0"),
        "# not here: --map-exit 143=0: the exit status is the program's own "
        "(systemd: SuccessExitStatus=)",
    ),
]


@pytest.mark.parametrize(("words", "line"), UNIT)
def test_a_unit_has_the_directive(words: tuple[str, ...], line: str) -> None:
    """Each option's own directive, or a comment that says why there is none."""
    assert line in rendered("systemd", *words)


def test_a_user_who_must_lock_is_given_the_capability() -> None:
    """As a launch does it; not root, not where nothing is locked, not where none is wanted."""
    line = "AmbientCapabilities=CAP_IPC_LOCK"
    assert line in rendered("systemd", "--user", "nobody", account=NOBODY)
    assert line in rendered("systemd", uid=1000)
    assert line not in rendered("systemd")
    assert line not in rendered("systemd", "--lock", "none", account=NOBODY)
    assert line not in rendered("systemd", "--ambient-caps", "none", account=NOBODY)
    assert line not in rendered("systemd", "--memlock", "64M", account=NOBODY)


def test_a_plan_of_a_user_is_a_unit_of_that_user() -> None:
    """A system service would be root otherwise."""
    assert "User=1000" in rendered("systemd", uid=1000)
    assert not [line for line in rendered("systemd") if line.startswith("User=")]


def test_what_was_allowed_to_run_unlocked_has_no_guest() -> None:
    """And the unit says so, and by which finding."""
    found = Finding("target-static", "app is static", waived=True)
    lines = rendered("systemd", guest="", findings=(found,))
    assert "# allowed [target-static]: app is static" in lines
    assert "# nothing locks this program: that was allowed" in lines
    assert not [line for line in lines if line.startswith("Environment=")]


def test_the_users_own_preload_and_tunables_are_kept() -> None:
    """Ours comes first."""
    lines = rendered("systemd", preload="/a.so:/b.so", tunables="x=1")
    assert 'Environment="LD_PRELOAD=/opt/guest.so:/a.so:/b.so"' in lines
    assert 'Environment="GLIBC_TUNABLES=x=1"' in lines


@given(WORDS)
@example(TRAPS)
def test_a_comment_is_never_more_than_a_comment(words: list[str]) -> None:
    """Whatever a command holds: no line of it escapes, and none ends in a backslash."""
    for engine in ("systemd", "limits.d"):
        for line in rendered(engine, command=("/usr/bin/app", *words)):
            assert line[:1] != "#" or (line.isprintable() and line[-1] != "\\")
            assert line[:1] in ("", "#", "[") or line.partition(" ")[0].partition("=")[0].isalpha()


def test_a_directory_that_no_unit_can_name_is_refused() -> None:
    """A line break in it would be a directive of its own."""
    with pytest.raises(ValueError, match="cannot stand in a unit file"):
        rendered("systemd", directory="/a\nUser=root")


# ---- env: what a shell makes of it ----


@given(WORDS)
@example(TRAPS)
@settings(max_examples=40)
def test_a_shell_gives_the_words_back(words: list[str]) -> None:
    """Run as printed, the program gets each word as it was."""
    command = ("/usr/bin/printf", "%s\\0", "first", *words)
    script = "\n".join(
        rendered("env", "--memlock", "inherit", "--core", "inherit", command=command, guest="")
    )
    done = subprocess.run(["sh", "-c", script], capture_output=True, check=True)
    assert done.stdout.decode().split("\0")[:-1] == ["first", *words]


def test_the_script_does_to_itself_what_was_asked() -> None:
    """One tool for each option; the guest last, with the shell's own pid."""
    words = ("--limit", "nofile=100:200", "--sched", "rr:7", "--cpu-list", "0", "--nice", "3",
             "--timer-slack", "50us", "--no-new-privs")  # fmt: skip
    lines = rendered("env", *words)
    assert lines[0] == "#!/bin/sh"
    assert "prlimit --pid $$ --nofile=100:200 || exit 125" in lines
    assert "chrt --rr --pid 7 $$ || exit 125" in lines
    assert "taskset --cpu-list --pid 0 $$ >/dev/null || exit 125" in lines
    assert "renice --priority 3 --pid $$ >/dev/null || exit 125" in lines
    assert "echo 50000 >/proc/$$/timerslack_ns || exit 125" in lines
    assert lines[-1] == (
        "exec setpriv --no-new-privs env LD_PRELOAD=/opt/guest.so "
        '"_RTL_STANDALONE=3:524288:$$" /usr/bin/app'
    )


def test_the_script_becomes_the_user_with_the_account_and_the_capability() -> None:
    """Ids, groups, the capability as ambient, the variables of login(1)."""
    last = rendered("env", "--user", "nobody", account=NOBODY)[-1]
    assert last.startswith(
        "exec setpriv --reuid=65534 --regid=65534 --groups=65534 --inh-caps=+ipc_lock "
        "--ambient-caps=+ipc_lock env HOME=/nonexistent USER=nobody "
    )


# ---- containers ----


def docker_words(*words: str, **changed: object) -> list[str]:
    lines = [line for line in rendered("docker", *words, **changed) if not line.startswith("#")]
    return shlex.split("\n".join(lines))


def test_docker_is_asked_for_the_capability() -> None:
    """No limit counts with it; all else is rtlaunch's own to do."""
    words = docker_words(
        "--user", "nobody", "--sched", "fifo:50", "--cpu-list", "1", account=NOBODY
    )
    assert words[:3] == ["docker", "run", "--rm"]
    assert {"--cap-add=IPC_LOCK", "--cap-add=SYS_NICE", "--cpuset-cpus=1"} <= set(words)
    assert words[-5:] == ["--user=nobody", "--sched=fifo:50", "--cpu-list=1", "--", "/usr/bin/app"]
    assert "--entrypoint=rtlaunch" in words
    assert not [word for word in words if word.startswith("--ulimit")]


def test_docker_is_asked_for_a_limit_that_was_typed() -> None:
    """Then no capability is needed."""
    words = docker_words("--memlock", "64M")
    assert "--ulimit=memlock=67108864:67108864" in words
    assert not [word for word in words if word.startswith("--cap-add")]


@given(WORDS)
@example(TRAPS)
def test_docker_compose_and_kubernetes_give_the_words_back(words: list[str]) -> None:
    """A shell's words; YAML's, with what the engine replaces written twice."""
    command = ("/usr/bin/app", *words)
    lines = ENGINES["docker"].render(wanted(command=command))
    line = lines[lines.index("docker run") :]
    assert tuple(shlex.split(line)[-len(command) :]) == command
    for engine, key, once, twice in (
        ("compose", "    entrypoint: ", "$", "$$"),
        ("kubernetes", "      command: ", "$(", "$$("),
    ):
        text = ENGINES[engine].render(wanted(command=command))
        (row,) = (row for row in text.split("\n") if row.startswith(key))
        assert not set(row) & set("\x7f\x85\ufeff")
        read = [each.replace(twice, once) for each in json.loads(row.removeprefix(key))]
        assert tuple(read) == ("rtlaunch", "--", *command)


def test_a_pod_has_the_capability_and_the_huge_pages() -> None:
    """IPC_LOCK for root, hugepages-2Mi in total bytes, memory beside it."""
    lines = rendered("kubernetes", "--hugepages", "2M:4", "--sched", "fifo:5", "--memlock", "64M")
    assert '        capabilities: {add: ["IPC_LOCK", "SYS_NICE"]}' in lines
    assert '          hugepages-2Mi: "8Mi"' in lines
    assert "# not here: --memlock: the capability stands for it" in lines
    (command,) = (line for line in lines if "command:" in line)
    assert json.loads(command.split(": ", 1)[1]) == ["rtlaunch", "--sched=fifo:5", "--",
                                                     "/usr/bin/app"]  # fmt: skip


# ---- limits.d ----


def test_limits_are_those_of_the_user_in_the_items_units() -> None:
    """KiB for memory, the nice value itself, what scheduling needs."""
    words = ("--memlock", "65537", "--core", "inherit", "--limit", "nofile=100:200",
             "--limit", "rttime=5", "--sched", "fifo:50", "--nice", "-7")  # fmt: skip
    lines = rendered("limits.d", *words, owner="ann")
    assert [line for line in lines if not line.startswith("#")] == [
        "ann - memlock 65",
        "ann soft nofile 100",
        "ann hard nofile 200",
        "ann - rtprio 50",
        "ann - nice -7",
    ]
    assert "# not here: --limit rttime: pam_limits has no item for it" in lines


def test_a_user_without_a_name_is_meant_by_number() -> None:
    """limits.conf(5): a uid range whose minimum is left out is that uid."""
    assert ":1000 - memlock unlimited" in rendered("limits.d", owner="1000")


@pytest.mark.parametrize(("children", "told"), [("none", False), ("all", False), ("w*", True)])
def test_children_by_name_are_not_the_guests(children: str, told: bool) -> None:
    """What the guest cannot tell apart it leaves alone, and that is said."""
    lines = rendered("systemd", "--children", children)
    assert any("the guest knows no names" in line for line in lines) is told
