"""Who the target is, by its own /proc/self/status: user, groups, capabilities, environment."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
from pathlib import Path

import pytest

from tests import books
from tests.kernel import execve
from tests.kernel.programs import need_root
from tests.skips import skip
from tests.standing import PYTHON

PRINT_STATUS = ("cat", "/proc/self/status")
IPC_LOCK, NET_BIND = 1 << 14, 1 << 10
MIB = 1 << 20
PR_SET_SECUREBITS, NO_CAP_AMBIENT_RAISE = 28, 1 << 6
SETS = {
    "CapInh": "inheritable",
    "CapPrm": "permitted",
    "CapEff": "effective",
    "CapBnd": "bounding",
    "CapAmb": "ambient",
}
HEADER = Path("/usr/include/linux/capability.h")  # the kernel's own list of names
# root whose memlock limit is finite, and who cannot raise it
FINITE = (
    "prlimit", f"--memlock={8 * MIB}:{8 * MIB}",
    "setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource",
)  # fmt: skip


@pytest.fixture
def as_root(as_user):
    """rtlaunch as root, from an installation that every user can read."""
    launcher = as_user("root")
    launcher.prefix = [*FINITE]
    return launcher


def status_in(ran):
    assert ran.code == 0, ran.err
    return books.status_of(ran.out)


def sets_in(ran):
    """Return the five sets as masks."""
    status = status_in(ran)
    return {name: int(status[name], 16) for name in SETS}


def named(mask):
    """Return the names of the capabilities in a mask."""
    defined = re.findall(r"^#define CAP_(\w+)\s+(\d+)$", HEADER.read_text(), re.M)
    return [name.lower() for name, number in defined if mask >> int(number) & 1]


def ids(status):
    """Return real user and group, when all four of each agree."""
    uids, gids = set(status["Uid"].split()), set(status["Gid"].split())
    assert (len(uids), len(gids)) == (1, 1)
    return int(*uids), int(*gids)


# ---- --user ----


def test_the_target_is_the_user(as_root):
    """All four user and group ids are the user's, its groups are the user's, and it is locked."""
    nobody = pwd.getpwnam("nobody")
    ran = as_root.run("--user", "nobody", "--", *PRINT_STATUS)
    status = status_in(ran)
    assert ids(status) == (nobody.pw_uid, nobody.pw_gid)
    groups = os.getgrouplist("nobody", nobody.pw_gid)
    assert sorted(map(int, status["Groups"].split())) == sorted(groups)
    assert (ran.report["target"]["uid"], ran.report["target"]["gid"]) == ids(status)
    assert ran.report["lock"]["ok"] is True


def test_the_user_may_be_a_number(as_root):
    """--user UID is as good as its name."""
    assert ids(status_in(as_root.run("--user", "65534", "--", *PRINT_STATUS)))[0] == 65534


def test_minus_one_is_no_user(as_root):
    """A number that setresuid(2) takes for "as it is" leaves nobody root: it is refused."""
    for who in (f"{2**32 - 1}:1", f"1:{2**32 - 1}", f"{2**64}:1"):
        ran = as_root.run("--user", who, "--", *PRINT_STATUS)
        assert (ran.code, ran.out) == (125, "")
        assert "refused [usage]: --user" in ran.err


def test_the_group_may_be_another(as_root):
    """--user USER:GROUP, by name or number."""
    for group in ("daemon", "1"):
        ran = as_root.run("--user", f"nobody:{group}", "--", *PRINT_STATUS)
        assert ids(status_in(ran)) == (65534, 1)


def test_no_group_of_ours_is_kept(as_root):
    """The groups of who starts rtlaunch do not reach the user."""
    as_root.prefix = [*FINITE, "--groups=1,2,3"]
    status = status_in(as_root.run("--user", "nobody", "--", *PRINT_STATUS))
    assert not {"1", "2", "3"} & set(status["Groups"].split())


def test_the_environment_is_the_users(as_root):
    """HOME, USER, LOGNAME and SHELL are as in passwd; all else is as it was."""
    nobody = pwd.getpwnam("nobody")
    mine = {"HOME": "/root", "USER": "root", "LOGNAME": "root", "KEPT": "x", "PATH": "/bin"}
    ran = as_root.run("--user", "nobody", "--", "env", env=mine)
    seen = dict(line.split("=", 1) for line in ran.out.splitlines())
    users = {"HOME": nobody.pw_dir, "USER": "nobody", "LOGNAME": "nobody", "SHELL": nobody.pw_shell}
    assert users.items() <= seen.items()
    assert (seen["KEPT"], seen["PATH"]) == ("x", "/bin")


def test_without_user_the_environment_is_left_alone(rtlaunch):
    """HOME and its like are set for --user alone."""
    ran = rtlaunch.run("--", "env", env={"HOME": "/nowhere", "PATH": "/bin"})
    seen = dict(line.split("=", 1) for line in ran.out.splitlines())
    assert (seen["HOME"], "USER" in seen) == ("/nowhere", False)


def test_the_user_can_lock_by_default(as_root):
    """Where the limit stays finite, --user leaves CAP_IPC_LOCK, ambient, and nothing else."""
    ran = as_root.run("--user", "nobody", "--", *PRINT_STATUS)
    held = sets_in(ran)
    kept = (held["CapPrm"], held["CapEff"], held["CapAmb"], held["CapInh"])
    assert kept == (IPC_LOCK,) * 4


def test_a_large_program_is_locked_as_the_user(as_root):
    """So python3, larger than the limit, is locked as nobody."""
    ran = as_root.run("--user", "nobody", "--", PYTHON[0], "-c", "print('ran')")
    assert (ran.code, ran.out, ran.report["verdict"]) == (0, "ran\n", "clean")


def test_ambient_none_leaves_nothing(as_root):
    """--ambient-caps none: no capability at all, and then the limit decides."""
    words = ("--user", "nobody", "--ambient-caps", "none", "--")
    held = sets_in(as_root.run(*words, *PRINT_STATUS))
    assert {held[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
    refused = as_root.run(*words, PYTHON[0], "-c", "")
    assert (refused.code, "refused [memlock-limit]" in refused.err) == (125, True)


def test_root_stays_as_it_is(rtlaunch):
    """Without --user the sets are those that the target would have without us."""
    need_root()
    plain = subprocess.run(PRINT_STATUS, capture_output=True, text=True, check=True).stdout
    ours = books.status_of(plain)
    theirs = status_in(rtlaunch.run("--", *PRINT_STATUS))
    assert {name: theirs[name] for name in SETS} == {name: ours[name] for name in SETS}


# ---- --ambient-caps ----


def test_ambient_capabilities_reach_the_user(as_root):
    """Those that were asked for, and only those, in four of the sets."""
    words = ("--user", "nobody", "--ambient-caps", "net_bind_service,CAP_IPC_LOCK")
    held = sets_in(as_root.run(*words, "--", *PRINT_STATUS))
    wanted = {held[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")}
    assert wanted == {NET_BIND | IPC_LOCK}


def test_ambient_capabilities_survive_an_exec(as_root):
    """The image that the program exec()s in place has them still, and is locked by them."""
    words = ("--user", "nobody", "--ambient-caps", "ipc_lock", "--", "sh", "-c")
    ran = as_root.run(*words, "exec cat /proc/self/status")
    assert sets_in(ran)["CapEff"] == IPC_LOCK
    assert [image["locked"] for image in ran.report["target"]["images"]] == [True, True]


def test_ambient_capabilities_of_an_ordinary_user_are_kept(as_user):
    """A user who has ambient CAP_IPC_LOCK may ask for it, and without asking keeps it."""
    for words in ((), ("--ambient-caps", "ipc_lock")):
        held = sets_in(as_user("ambient").run(*words, "--", *PRINT_STATUS))
        assert (held["CapAmb"], held["CapEff"]) == (IPC_LOCK, IPC_LOCK)


def test_a_capability_that_we_lack_is_refused(as_user, tmp_path):
    """A user without it cannot give it: refused with the sets that lack it, nothing started."""
    marker = tmp_path / "marker"
    ran = as_user("limited").run("--ambient-caps", "ipc_lock", "--", "touch", marker)
    assert (ran.code, marker.exists()) == (125, False)
    assert ran.err.startswith(
        "rtlaunch: refused [capability-missing]: cannot give CAP_IPC_LOCK to the program: it is "
        "not in our permitted"
    )


def test_a_capability_outside_the_bounding_set_is_refused(as_user):
    """Root who lost it from the bounding set is told so."""
    launcher = as_user("root")
    lost = "-net_bind_service"
    launcher.prefix = ["setpriv", f"--bounding-set={lost}", f"--inh-caps={lost}"]
    ran = launcher.run("--ambient-caps", "net_bind_service", "--", "true")
    assert ran.code == 125
    assert "bounding set" in ran.err


def test_securebits_that_forbid_ambient_are_refused(as_user):
    """SECBIT_NO_CAP_AMBIENT_RAISE is found before anything starts."""
    words = ("--user", "nobody", "--ambient-caps", "ipc_lock", "--", "true")
    ran = as_user("root").run(*words, preexec_fn=forbid_ambient)
    assert (ran.code, "SECBIT_NO_CAP_AMBIENT_RAISE" in ran.err) == (125, True)


def forbid_ambient():
    execve.call("prctl", PR_SET_SECUREBITS, NO_CAP_AMBIENT_RAISE, 0, 0, 0)


def test_the_report_has_the_targets_own_sets(anybody):
    """caps.target holds, by name, the masks that the target prints of itself."""
    ran = anybody.run("--", *PRINT_STATUS)
    held, told = sets_in(ran), ran.report["caps"]["target"]
    assert {name: named(held[name]) for name in SETS} == {
        name: told[key] for name, key in SETS.items()
    }


# ---- no_new_privs ----


@pytest.mark.parametrize("switch", ["--no-new-privs", "--no-no-new-privs"])
def test_no_new_privs_is_set_on_demand_only(anybody, switch):
    """The flag is in the target's status, and in the report, as it was asked."""
    ran = anybody.run(switch, "--", *PRINT_STATUS)
    wanted = switch == "--no-new-privs"
    assert status_in(ran)["NoNewPrivs"] == str(int(wanted))
    assert ran.report["caps"]["no_new_privs"] is wanted


def test_all_at_once_in_the_kernels_order(as_root):
    """User, ambient capability and no_new_privs together: none undoes another."""
    words = ("--user", "nobody", "--ambient-caps", "ipc_lock", "--no-new-privs")
    ran = as_root.run(*words, "--sched", "fifo:5", "--nice", "-3", "--", *PRINT_STATUS)
    status = status_in(ran)
    assert (ids(status)[0], int(status["CapEff"], 16)) == (65534, IPC_LOCK)
    assert status["NoNewPrivs"] == "1"
    assert ran.report["verdict"] == "clean"


# ---- refusals ----


@pytest.mark.parametrize("who", ["no-such-user", "nobody:no-such-group", "4000000000"])
def test_an_unknown_user_or_group_is_refused(rtlaunch, tmp_path, who):
    """Nothing starts, and the name is told."""
    marker = tmp_path / "marker"
    ran = rtlaunch.run("--user", who, "--", "touch", marker)
    assert (ran.code, marker.exists()) == (125, False)
    assert ran.err.startswith("rtlaunch: refused [user-unknown]: --user: ")
    assert who.rpartition(":")[2] in ran.err


def test_an_ordinary_user_cannot_become_another(as_user, tmp_path):
    """Refused with the capabilities that are missing; nothing starts."""
    marker = tmp_path / "marker"
    ran = as_user("limited").run("--user", "root", "--", "touch", marker)
    assert (ran.code, marker.exists()) == (125, False)
    assert ran.err.startswith("rtlaunch: refused [user-denied]: cannot become root (uid 0) from")
    assert "no CAP_SETUID" in ran.err


def test_an_ordinary_user_may_stay_who_it_is(as_user):
    """--user with one's own name needs no privilege, whether one's own group is listed or not."""
    launcher = as_user("limited")
    for groups in ("--clear-groups", "--groups=65534"):
        launcher.prefix = [*launcher.prefix[:-1], groups]
        ran = launcher.run("--user", "nobody", "--", *PRINT_STATUS)
        assert ids(status_in(ran)) == (65534, 65534)


# ---- user namespaces ----


@pytest.fixture
def in_user_namespace(as_user):
    """rtlaunch as root of a user namespace of its own, under 8 MiB."""
    try_it = ["unshare", "--user", "--map-root-user", "true"]
    if subprocess.run(try_it, capture_output=True, check=False).returncode:
        skip("no-user-namespace")
    launcher = as_user("root")
    launcher.prefix = [*FINITE[:2], *try_it[:-1]]
    return launcher


def test_root_of_a_user_namespace_is_bound_by_the_limit(in_user_namespace):
    """All capabilities are shown there, and none counts: the refusal is about the limit."""
    ran = in_user_namespace.run("--", PYTHON[0], "-c", "print('ran')")
    assert (ran.code, ran.out) == (125, "")
    assert ran.err.startswith("rtlaunch: refused [memlock-limit]: python3 needs at least ")
    assert "RLIMIT_MEMLOCK is 8 MiB" in ran.err
    assert "not the initial user namespace" in ran.err
    assert ran.report["lock"]["ok"] is False


def test_root_of_a_user_namespace_may_stay_who_it_is(in_user_namespace):
    """--user 0:0 there needs no groups set, which that namespace may not let anybody do."""
    in_user_namespace.prefix = ["setpriv", "--clear-groups", *in_user_namespace.prefix]
    ran = in_user_namespace.run("--user", "0:0", "--lock", "current", "--", *PRINT_STATUS)
    assert ids(status_in(ran)) == (0, 0)


def test_a_program_that_fits_is_locked_in_a_user_namespace(in_user_namespace, targets):
    """What fits the limit is locked there as anywhere, and headroom is what is left of it."""
    ran = in_user_namespace.run("--", targets / "waiter", stdin=subprocess.DEVNULL)
    assert (ran.code, ran.report["lock"]["ok"]) == (0, True)
    locked = ran.report["lock"]["locked_bytes"]
    assert ran.report["lock"]["headroom_bytes"] == 8 * MIB - locked


def test_max_takes_what_a_user_namespace_gives(in_user_namespace):
    """CAP_SYS_RESOURCE of a user namespace raises no hard limit: max is no error there."""
    ran = in_user_namespace.run("--", "cat", "/proc/self/limits")
    assert ran.code == 0, ran.err
    assert books.limits_of(ran.out)["memlock"] == (8 * MIB, 8 * MIB)
