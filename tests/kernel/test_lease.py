"""Leases of huge pages: what is promised at go is there, and all of it is given back."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.host import wait_until
from tests.kernel import hugepools
from tests.kernel.hugepools import number, persistent, set_pool
from tests.kernel.processes import DEADLINE, adopting, children, reap

LEDGER = "hugepages"


@pytest.fixture(autouse=True)
def pools():
    with hugepools.own_pools():
        yield


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state"


@pytest.fixture
def environ(state):
    return {**os.environ, "RTLAUNCH_STATE_DIR": str(state)}


@pytest.fixture
def huge(targets):
    return targets / "huge"


def hugepages(rtlaunch, environ, *words):
    """Run ``rtlaunch hugepages WORDS``; return its exit code, stdout, stderr."""
    ran = subprocess.run(
        rtlaunch.words("hugepages", *words),
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.returncode, ran.stdout, ran.stderr


def started(rtlaunch, environ, *words):
    """Start a launch whose target says a line when it has its pages; wait for that."""
    process = rtlaunch.start(*words, env=environ)
    assert process.stdout.readline() == "touched\n"
    return process


def end(process):
    process.terminate()
    process.communicate(timeout=DEADLINE)


def refused(ran, code):
    assert (ran.code, ran.out) == (125, ""), ran.err
    assert f"refused [{code}]" in ran.err
    return ran


# --- taking and giving back --------------------------------------------------------------------


@pytest.mark.parametrize("pool", [0, 3, 20])
@pytest.mark.parametrize("where", ["", "@0"])
def test_the_program_has_its_pages_and_the_pool_is_as_before(rtlaunch, environ, huge, pool, where):
    """All are touched; the report says so; pool and overcommit are the administrator's again."""
    set_pool(pool)
    ran = rtlaunch.run("--hugepages", f"2M:8{where}", "--", huge, 8, env=environ)
    assert (ran.code, ran.out) == (0, "touched\n")
    assert ran.report["hugepages"] == [
        {
            "page_bytes": hugepools.PAGE,
            "node": 0 if where else None,
            "asked": 8,
            "got": 8,
            "released": 8,
        }
    ]
    assert (persistent(), number(hugepools.OVERCOMMIT)) == (pool, 0)


def test_the_pool_grows_by_what_is_missing_only(rtlaunch, environ, huge):
    """Of 8 pages 3 are there already."""
    set_pool(3)
    process = started(rtlaunch, environ, "--hugepages", "2M:8", "--", huge, 8, 2048, 10000)
    assert persistent() == 8
    end(process)
    assert persistent() == 3


def test_pages_that_a_stranger_has_reserved_are_not_ours(rtlaunch, environ, huge):
    """Pool 10, a stranger maps 8 untouched: free 10, and 8 more are needed for a lease of 10."""
    set_pool(10)
    code = (
        "import mmap,sys;m=mmap.mmap(-1,8<<21,0x40022);print('mapped',flush=True);sys.stdin.read()"
    )
    stranger = subprocess.Popen(
        ["/usr/bin/python3", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert stranger.stdout.readline() == "mapped\n"
        assert (number("free_hugepages"), number("resv_hugepages")) == (10, 8)
        ran = rtlaunch.run("--hugepages", "2M:10", "--", huge, 10, env=environ)
        assert (ran.code, ran.out) == (0, "touched\n")
    finally:
        stranger.communicate()
    assert persistent() == 10


def test_two_leases_do_not_share_pages(rtlaunch, environ, huge):
    """The second is given pages of its own, though the first has not touched any yet."""
    first = rtlaunch.start("--hugepages", "2M:6", "--", "sleep", "60", env=environ)
    wait_until(lambda: number("free_hugepages") == 6, "the first lease was not taken")
    second = started(rtlaunch, environ, "--hugepages", "2M:6", "--", huge, 6, 2048, 10000)
    assert (number("nr_hugepages"), number("free_hugepages")) == (12, 6)
    end(second)
    assert number("nr_hugepages") == 6
    end(first)
    assert number("nr_hugepages") == 0


def test_claimed_pages_are_owed_no_more(rtlaunch, environ, huge):
    """Beside a target that has all of its pages, a pool grows by the new lease alone."""
    first = started(rtlaunch, environ, "--hugepages", "2M:6", "--", huge, 6, 2048, 10000)
    second = started(rtlaunch, environ, "--hugepages", "2M:4", "--", huge, 4, 2048, 10000)
    assert number("nr_hugepages") == 10
    end(first)
    end(second)
    assert number("nr_hugepages") == 0


def test_a_failed_launch_gives_back(rtlaunch, environ):
    """A program that exits, one that is killed, one that is refused after the fork."""
    for words in (["false"], ["sh", "-c", "kill -9 $$"], ["env", "-i", "/bin/true"]):
        rtlaunch.run("--hugepages", "2M:4", "--", *words, env=environ)
        assert (number("nr_hugepages"), number(hugepools.OVERCOMMIT)) == (0, 0)


def test_plan_takes_nothing(rtlaunch, environ, state):
    """The step is printed with its numbers; no pool, no state directory is touched."""
    ran = subprocess.run(
        rtlaunch.words("plan", "--hugepages", "2M:512", "--", "true"),
        env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0
    assert "lease 512 huge pages of 2 MiB" in ran.stdout
    assert (number("nr_hugepages"), state.exists()) == (0, False)


# --- the administrator -------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, 2, 5, 8, 30])
@pytest.mark.parametrize("file", ["sysctl", "all", "node"])
def test_what_the_administrator_sets_meanwhile_stays(rtlaunch, environ, huge, value, file):
    """Higher, lower, below what is in use, and just what the pool is at that time (8)."""
    files = {"sysctl": hugepools.SYSCTL, "all": hugepools.POOL / "nr_hugepages"}
    files["node"] = hugepools.NODES[0] / "nr_hugepages"
    set_pool(5)
    process = started(rtlaunch, environ, "--hugepages", "2M:8", "--", huge, 8, 2048, 10000)
    assert persistent() == 8
    set_pool(value, files[file])
    end(process)
    assert (number("nr_hugepages"), number("surplus_hugepages")) == (value, 0)


def test_a_pool_that_is_lowered_between_go_and_mmap_breaks_no_promise(rtlaunch, environ, huge):
    """The kernel makes surplus pages, as nr_overcommit_hugepages is raised for the lease."""
    script = f"read line; exec {huge} 8"
    process = rtlaunch.start(
        "--hugepages", "2M:8", "--", "sh", "-c", script, env=environ, stdin=subprocess.PIPE
    )
    wait_until(lambda: number("nr_hugepages") == 8 and children(process.pid), "no lease")
    wait_until(lambda: hugepools.number(hugepools.OVERCOMMIT) >= 8, "no net")
    set_pool(0)
    out, err = process.communicate("go\n", timeout=DEADLINE)
    assert (process.returncode, out) == (0, "touched\n"), err
    assert (number("nr_hugepages"), number(hugepools.OVERCOMMIT)) == (0, 0)


# --- killed launchers --------------------------------------------------------------------------


def kill(process):
    process.kill()
    process.communicate(timeout=DEADLINE)


def test_gc_gives_back_what_a_killed_launcher_leased(rtlaunch, environ):
    """Its lease is in the ledger until then; the pool is as it was."""
    set_pool(2)
    with adopting():
        process = rtlaunch.start("--hugepages", "2M:9", "--", "sleep", "60", env=environ)
        wait_until(lambda: persistent() == 9 and children(process.pid), "no lease")
        wait_until(lambda: "sleep[" in hugepages(rtlaunch, environ)[1], "no target")
        (target,) = children(process.pid)
        kill(process)
        reap(target)
    assert persistent() == 9
    code, out, _ = hugepages(rtlaunch, environ, "gc")
    assert (code, "gave back 9 huge pages of 2M" in out) == (0, True)
    assert (persistent(), number(hugepools.OVERCOMMIT)) == (2, 0)


def test_the_next_lease_gives_back_what_a_killed_launcher_leased(rtlaunch, environ, huge):
    """Nobody needs to call gc."""
    with adopting():
        process = started(rtlaunch, environ, "--hugepages", "2M:9", "--", huge, 9, 2048, 60000)
        (target,) = children(process.pid)
        kill(process)
        reap(target)
    ran = rtlaunch.run("--hugepages", "2M:1", "--", huge, 1, env=environ)
    assert (ran.code, number("nr_hugepages")) == (0, 0)


def test_pages_in_use_by_a_target_that_outlives_its_launcher_stay(rtlaunch, environ, huge):
    """gc takes none of them; when the target ends they are gone."""
    words = ["--pdeathsig", "none", "--hugepages", "2M:7", "--", huge, 7, 2048, 60000]
    with adopting():
        process = started(rtlaunch, environ, *words)
        (target,) = children(process.pid)
        process.kill()
        process.wait()
        assert hugepages(rtlaunch, environ, "gc")[0] == 0
        assert (number("nr_hugepages"), number("free_hugepages")) == (7, 0)
        os.kill(target, signal.SIGTERM)
        reap(target)
        process.communicate()
    assert number("nr_hugepages") == 0


# --- refusals ----------------------------------------------------------------------------------

BAD = {
    "no page": ("2M:0", "usage", "count of pages"),
    "more than can be written": ("2M:99999999999999", "usage", "count of pages"),
    "more than memory": ("2M:2147483647", "hugepages-unavailable", "all memory there is"),
    "a size that the machine lacks": ("4M:1", "hugepages-size", "it has 2M"),
    "a node that is not there": ("2M:1@77", "hugepages-node", "no NUMA node 77"),
}


@pytest.mark.parametrize("what", list(BAD))
def test_bad_input_is_named_and_the_pool_untouched(rtlaunch, environ, state, what):
    """Refused before anything is written, in the words of the problem."""
    lease, code, words = BAD[what]
    set_pool(3)
    ran = refused(rtlaunch.run("--hugepages", lease, "--", "true", env=environ), code)
    assert words in ran.err
    assert (persistent(), (state / LEDGER).exists()) == (3, False)


def test_what_fragmented_memory_lacks_is_undone_whole(rtlaunch, environ):
    """1G pages: as many as memory could hold at best, and some lease of 2M pages with them."""
    total = int(Path("/proc/meminfo").read_text().split()[1]) >> 20
    lease = ["--hugepages", "2M:4", "--hugepages", f"1G:{total}"]
    ran = rtlaunch.run(*lease, "--allow", "memory-budget,cgroup-budget", "--", "true", env=environ)
    refused(ran, "hugepages-unavailable")
    assert "for good" in ran.err and "hugepagesz=1G" in ran.err
    giga = Path("/sys/kernel/mm/hugepages/hugepages-1048576kB")
    assert (number("nr_hugepages"), number("nr_hugepages", giga)) == (0, 0)


def test_an_unprivileged_lease_takes_what_is_free_and_grows_nothing(as_user, huge):
    """With 2 pages in the pool a lease of 2 is had, one of 3 is denied; the pool stays.

    More than its memlock limit of 8 MiB it could not map: MCL_FUTURE counts huge pages too.
    """
    set_pool(2)
    user = as_user("limited")
    environ = {**os.environ, "RTLAUNCH_STATE_DIR": str(user.folder / "state")}
    ran = user.run("--hugepages", "2M:2", "--", huge, 2, env=environ)
    assert (ran.code, ran.out, ran.report["hugepages"][0]["got"]) == (0, "touched\n", 2), ran.err
    denied = refused(
        user.run("--hugepages", "2M:3", "--", huge, 3, env=environ), "hugepages-denied"
    )
    assert "2 can be had" in denied.err and "hugepages reserve 2M:3" in denied.err
    assert persistent() == 2


# --- the state directory -----------------------------------------------------------------------


def make_link(state):
    (state.parent / "elsewhere").mkdir()
    state.symlink_to(state.parent / "elsewhere")


def make_foreign(state):
    state.mkdir()
    os.chown(state, 65534, 65534)


def make_open(state):
    state.mkdir()
    state.chmod(0o777)


def make_file(state):
    state.write_text("")


def make_linked_ledger(state):
    state.mkdir()
    (state.parent / "victim").write_text("precious")
    (state / LEDGER).symlink_to(state.parent / "victim")


def make_foreign_ledger(state):
    state.mkdir()
    (state / LEDGER).write_text("")
    os.chown(state / LEDGER, 65534, 65534)


def make_linked_lock(state):
    state.mkdir()
    (state / f"{LEDGER}.lock").symlink_to(state.parent / "victim")


MAKERS = [
    make_link, make_foreign, make_open, make_file, make_linked_ledger, make_foreign_ledger,
    make_linked_lock,
]  # fmt: skip


@pytest.mark.parametrize("make", MAKERS)
def test_an_unsafe_state_directory_is_refused(rtlaunch, environ, state, make):
    """Links, others' files, and what others may write to; nothing is followed or written."""
    make(state)
    refused(rtlaunch.run("--hugepages", "2M:2", "--", "true", env=environ), "state-directory")
    assert number("nr_hugepages") == 0
    victim = state.parent / "victim"
    assert not victim.exists() or victim.read_text() == "precious"


def test_without_a_ledger_as_allowed_nothing_is_leased(rtlaunch, environ, state, huge):
    """``got`` is what was free at go."""
    make_open(state)
    set_pool(3)
    allow = ["--allow", "state-directory"]
    ran = rtlaunch.run(*allow, "--hugepages", "2M:5", "--", huge, 3, env=environ)
    assert (ran.code, ran.report["hugepages"][0]["got"]) == (0, 3)
    assert persistent() == 3


def test_a_lease_that_cannot_be_given_back_is_said(rtlaunch, environ, state, huge, tmp_path):
    """The state directory went away meanwhile; the exit code is the target's."""
    report = tmp_path / "report.json"
    words = ["--report", report, "--hugepages", "2M:3", "--", huge, 3, 2048, 500]
    process = started(rtlaunch, environ, *words)
    shutil.rmtree(state)
    state.write_text("")
    _, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, "warning [hugepages-kept]" in err) == (0, True)
    (row,) = json.loads(report.read_text())["hugepages"]
    assert (row["got"], row["released"]) == (3, None)


def test_a_ledger_that_was_cut_short_gives_what_is_left_of_it(rtlaunch, environ, state, huge):
    """The base before the cut is kept, the cut is said, the file is put aside."""
    set_pool(2)
    process = started(rtlaunch, environ, "--hugepages", "2M:6", "--", huge, 6, 2048, 60000)
    text = (state / LEDGER).read_text()
    (state / LEDGER).write_text(text[: text.index("\nlease") + 12])
    ran = rtlaunch.run("--hugepages", "2M:1", "--", huge, 1, env=environ)
    assert ran.code == 0
    assert "ledger-damaged" in ran.err
    assert (state / "hugepages.damaged").exists()
    end(process)
    hugepages(rtlaunch, environ, "gc")
    assert persistent() == 2


def test_a_ledger_of_another_boot_means_nothing(rtlaunch, environ, state, huge):
    """Its leases are gone with their processes, and its pools were others."""
    state.mkdir()
    words = "pool 2097152 0 99 99 99 0\nlease 2097152 - 90 0 0 1 1 1 - - -\nend 3\n"
    (state / LEDGER).write_text("rtlaunch.hugepages/1 another-boot\n" + words)
    ran = rtlaunch.run("--hugepages", "2M:2", "--", huge, 2, env=environ)
    assert (ran.code, number("nr_hugepages")) == (0, 0)
    assert "ledger-damaged" not in ran.err


# --- the command -------------------------------------------------------------------------------


def test_list_shows_pools_and_leases(rtlaunch, environ, huge):
    """By size and node, with owners; as JSON too."""
    set_pool(1)
    process = started(rtlaunch, environ, "--hugepages", "2M:4", "--", huge, 4, 2048, 60000)
    try:
        code, out, _ = hugepages(rtlaunch, environ, "list", "--json")
        told = json.loads(out)
        size = next(one for one in told["sizes"] if one["page_bytes"] == hugepools.PAGE)
        (lease,) = told["leases"]
        assert (code, told["schema"]) == (0, "rtlaunch.hugepages/1")
        assert (size["pages"], size["nodes"][0]["base"]) == (4, 1)
        assert (lease["launcher_pid"], lease["count"]) == (process.pid, 4)
        assert f"huge[{lease['target_pid']}]" in hugepages(rtlaunch, environ)[1]
    finally:
        end(process)


def test_what_is_reserved_stays_until_it_is_released(rtlaunch, environ, huge):
    """Beside the administrator's own; a second call adds nothing; a lease uses it."""
    set_pool(2)
    for _ in range(2):
        assert hugepages(rtlaunch, environ, "reserve", "2M:6")[0] == 0
        assert persistent() == 8
    process = started(rtlaunch, environ, "--hugepages", "2M:8", "--", huge, 8, 2048, 60000)
    assert persistent() == 8
    end(process)
    hugepages(rtlaunch, environ, "gc")
    assert persistent() == 8
    assert hugepages(rtlaunch, environ, "release")[:2] == (0, "released 6 huge pages\n")
    assert persistent() == 2


def test_a_reservation_that_cannot_be_had_is_undone(rtlaunch, environ):
    """Both sizes, though the first could be had."""
    code, _, err = hugepages(rtlaunch, environ, "reserve", "2M:3", "1G:9999")
    assert (code, "refused [hugepages-unavailable]" in err) == (125, True)
    assert number("nr_hugepages") == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["lst"], "did you mean list"),
        (["reserve"], "needs what to reserve"),
        (["reserve", "2M"], "SIZE:COUNT"),
        (["reserve", "4M:1"], "it has 2M"),
        (["reserve", "2M:1@77"], "no NUMA node 77"),
        (["gc", "2M"], "takes no words"),
        (["gc", "--json"], "--json is for hugepages list"),
    ],
)
def test_a_wrong_line_of_the_command_is_refused(rtlaunch, environ, words, told):
    """In its own words, with 125, and the pool untouched."""
    code, out, err = hugepages(rtlaunch, environ, *words)
    assert (code, out, told in err) == (125, "", True), err
    assert number("nr_hugepages") == 0
