"""The report against the kernel, and how it comes to be: whole, once, and for a refusal too."""

from __future__ import annotations

import calendar
import fcntl
import json
import os
import re
import signal
import stat
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests import books, schema
from tests.host import wait_until
from tests.kernel import attack
from tests.kernel.faulting import make_file
from tests.kernel.killing import can_trace
from tests.kernel.programs import need_root
from tests.skips import skip
from tests.standing import standing

NS = 10**9


def assert_valid(report):
    """The report is what the shipped schema describes, and holds nothing that it does not."""
    assert schema.errors(report, closed=True) == []


# ---- what it says ----


def test_every_kind_of_ending_makes_a_valid_report(anybody):
    """Clean, failed, killed, unlocked and refused runs: each report fits the schema."""
    endings = {
        "exit 0": ("clean", 0, None),
        "exit 3": ("clean", 3, None),
        "kill -USR1 $$": ("clean", None, "SIGUSR1"),
        "kill -KILL $$": ("clean", None, "SIGKILL"),
    }
    for line, (verdict, code, number) in endings.items():
        report = anybody.run("--", "sh", "-c", line).report
        assert_valid(report)
        told = report["exit"]
        assert (report["verdict"], told["code"], told["signal"]) == (verdict, code, number)
        assert (told["by"], report["state"], report["complete"]) == ("target", "ended", True)
    for words in (("--lock", "none", "--", "true"), ("--", "/nonexistent")):
        assert_valid(anybody.run(*words).report)


def test_who_and_what_ran(anybody):
    """Command, pid, user, host, kernel and time are those that the system has."""
    began = time.time()
    path = anybody.report_path()
    process = anybody.start("--report", path, "--", "sh", "-c", "echo $$; id -u")
    out, _ = process.communicate(timeout=20)
    report, (pid, uid) = json.loads(path.read_text()), map(int, out.split())
    assert report["target"]["argv"] == ["sh", "-c", "echo $$; id -u"]
    assert (report["target"]["pid"], report["target"]["uid"]) == (pid, uid)
    name = os.uname()
    host = report["host"]
    assert (host["name"], host["arch"]) == (name.nodename, name.machine)
    assert host["page_bytes"] == books.PAGE
    assert name.release in host["kernel"]
    assert host["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert began - 1 < instant(report["time"]["started_at"]) <= instant(report["time"]["ended_at"])
    assert instant(report["time"]["ended_at"]) < time.time() + 1


def instant(text):
    whole, _, fraction = text.removesuffix("Z").partition(".")
    parsed = time.strptime(whole + " UTC", "%Y-%m-%dT%H:%M:%S %Z")
    return calendar.timegm(parsed) + float(f"0.{fraction}")


def test_the_steps_are_in_their_order(anybody):
    """Fork, entry, lock, proof, arming, go and end follow one another."""
    times = anybody.run("--", "sh", "-c", "exit").report["time"]
    steps = ("forked", "entered", "locked", "proven", "armed", "go", "ended")
    at = [times[f"{step}_ns"] for step in steps]
    assert at == sorted(at)
    assert 0 < at[0] < at[-1] < 20 * NS


def test_fault_counts_are_the_kernels(rtlaunch, targets, tmp_path):
    """The counts at arming and after it add up to what wait4 says of the dead target."""
    file = make_file(tmp_path / "file", 64)
    words = ("--lock", "none", "--on-major", "none", "--", targets / "faulter", file)
    with standing(rtlaunch, *words) as held:
        assert held.ask("evict") == "left 0"
        held.ask("touch 0 64")
        major, minor = map(int, held.ask("counts").split())
        report = held.end().report
    watch, rusage = report["watch"], report["rusage"]
    assert watch["after_arm"]["major"] >= 64
    assert watch["before_arm"]["major"] + watch["after_arm"]["major"] == rusage["major_faults"]
    assert (rusage["major_faults"] >= major, rusage["minor_faults"] >= minor) == (True, True)


def test_a_locked_target_has_none(rtlaunch, targets):
    """Locked, the same attack adds nothing: after_arm.major is 0, and the kernel agrees."""
    attack.need_right()
    with standing(rtlaunch, "--", targets / "waiter") as held:
        before = books.major_faults(held.pid)
        assert attack.page_out(held.pid).taken == 0
        held.ask("counts")
        assert books.major_faults(held.pid) == before
        report = held.end().report
    assert (report["watch"]["after_arm"]["major"], report["verdict"]) == (0, "clean")
    assert report["rusage"]["major_faults"] == report["watch"]["before_arm"]["major"] == before


def test_options_are_told_with_their_origin(rtlaunch):
    """Each option, as the command line writes it, and where it was from."""
    env = {**os.environ, "RTLAUNCH_NICE": "3"}
    options = rtlaunch.run("--prefault-stack", "64K", "--", "true", env=env).report["options"]
    assert options["prefault-stack"] == {"value": "64K", "from": "cli"}
    assert options["nice"] == {"value": "3", "from": "environment"}
    assert options["watch"] == {"value": "auto", "from": "default"}


# ---- refusals ----

REFUSALS = {
    "an impossible limit": (("--limit", "nofile=1:999999999999", "--"), "limit-raise", 125),
    "an unknown user": (("--user", "no-such-user", "--"), "user-unknown", 125),
    "a missing command": (("--", "/nonexistent"), "command-not-found", 127),
    "a directory": (("--", "/usr"), "command-not-executable", 126),
}


@pytest.mark.parametrize(("words", "code", "status"), REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_is_reported(rtlaunch, words, code, status):
    """It says refused, by whom, with what status, and holds the finding with its remedy."""
    if "nofile" in words[1] and books.holds("self", 24):
        skip("no-sys-resource")
    ran = rtlaunch.run(*words, "true")
    report = ran.report
    assert_valid(report)
    assert (report["state"], report["verdict"], report["complete"]) == ("refused", "refused", True)
    assert (report["exit"]["by"], report["exit"]["rtlaunch_code"]) == ("rtlaunch", status)
    assert (ran.code, report["target"]["pid"]) == (status, None)
    (finding,) = (one for one in report["findings"] if one["code"] == code)
    assert finding["severity"] == "error"
    assert finding["what"] in ran.err
    assert all(finding["remedy"].values())


def test_a_refusal_after_the_fork_is_reported(as_user):
    """The lock that failed is in it: errno, flags, what was locked."""
    ran = as_user("limited").run("--", "/usr/bin/python3", "-c", "")
    assert_valid(ran.report)
    lock = ran.report["lock"]
    assert (ran.report["verdict"], lock["ok"], lock["errno"]) == ("refused", False, "ENOMEM")
    assert lock["flags"] == ["current", "future"]


# ---- refusals before there are options ----

EARLY = {
    "a value that is none": (["--nice", "99", "--", "true"], "usage"),
    "an unknown option": (["--no-such-option", "--", "true"], "usage"),
    "an unknown option's value": (["--no-such-option", "5", "--", "true"], "usage"),
    "no dashes": (["true"], "usage"),
    "no command": ([], "usage"),
    "no such profile": (["--profile", "/no/such.toml", "--", "true"], "profile-missing"),
}


@pytest.mark.parametrize("after", [True, False], ids=["after", "before"])
@pytest.mark.parametrize(("words", "code"), EARLY.values(), ids=EARLY)
def test_a_line_that_makes_no_sense_is_reported(rtlaunch, words, code, after):
    """Whether --report stands before or behind what is wrong: refused, with that one finding."""
    path = rtlaunch.report_path()
    ours = ["--report", path]
    dashes = words.index("--") if "--" in words else 0
    at = dashes if after else 0
    process = rtlaunch.start(*words[:at], *ours, *words[at:])
    out, err = process.communicate(timeout=20)
    report = json.loads(path.read_text())
    assert_valid(report)
    assert (process.returncode, out, err.count("rtlaunch: ")) == (125, "", 1)
    assert (report["state"], report["verdict"], report["complete"]) == ("refused", "refused", True)
    assert (report["exit"]["by"], report["exit"]["rtlaunch_code"]) == ("rtlaunch", 125)
    (finding,) = report["findings"]
    assert (finding["code"], finding["what"] in err) == (code, True)
    assert all(finding["remedy"].values())
    assert report["options"] == {}
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


SOURCES = {
    "the line": (["--report=PATH"], "", "other.json"),
    "the environment": ([], "PATH", "other.json"),
    "the profile": ([], "", "PATH"),
    "the last on the line": (["--report", "other.json", "--report", "PATH"], "", "other.json"),
    "a descriptor": (["--report", "fd:FD"], "", "other.json"),
}


@pytest.mark.parametrize(("words", "twin", "profiled"), SOURCES.values(), ids=SOURCES)
def test_the_report_of_a_senseless_line_goes_where_it_would_have(rtlaunch, words, twin, profiled):
    """The command line wins over the environment, that over a profile that can be read."""
    path, profile = rtlaunch.report_path(), rtlaunch.folder / "robot.toml"
    profile.write_text(f'format = 1\nreport = "{profiled}"\n'.replace("PATH", str(path)))
    profile.chmod(0o644)
    env = {**os.environ, "RTLAUNCH_REPORT": twin.replace("PATH", str(path))}
    with path.open("w") as file:
        fd = file.fileno()
        filled = [word.replace("PATH", str(path)).replace("FD", str(fd)) for word in words]
        more = ["--profile", profile, "--nice", "99", "--", "true"]
        process = rtlaunch.start(*filled, *more, env=env, pass_fds=[fd])
        process.communicate(timeout=20)
    assert json.loads(path.read_text())["findings"][0]["code"] == "usage"
    assert not (rtlaunch.folder / "other.json").exists()


NOT_OURS = {
    "the program's, no dashes": ["--quiet", "true", "--report", "PATH"],
    "the program's": ["--nice", "99", "--", "true", "--report", "PATH"],
    "another option's value": ["--nice", "--report", "PATH", "--", "true"],
    "a value that is none": ["--report", "fd:x", "--report={nope}", "--", "true"],
    "no value": ["--report"],
    "a plan's": ["plan", "--report", "PATH", "--nice", "99", "--", "true"],
}


@pytest.mark.parametrize("words", NOT_OURS.values(), ids=NOT_OURS)
def test_what_only_looks_like_the_report_is_not_written_to(rtlaunch, words):
    """An option of the program, a value, a line that runs nothing: no file is made."""
    path = rtlaunch.folder / "mine"
    process = rtlaunch.start(*(word.replace("PATH", str(path)) for word in words))
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err.count("rtlaunch: refused [")) == (125, 1)
    assert list(rtlaunch.folder.iterdir()) == []


def test_a_report_of_a_senseless_line_that_cannot_be_written_is_said(rtlaunch):
    """Both are: the refusal, and that there is no report of it."""
    process = rtlaunch.start("--report", "/nonexistent/r.json", "--nice", "99", "--", "true")
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err.count("rtlaunch: refused [")) == (125, 1)
    assert "allowed [report-unwritable]: --report /nonexistent/r.json: No such file" in err
    assert "refused [usage]: --nice" in err


# ---- the file ----


@pytest.mark.parametrize("umask", [0o777, 0o077, 0o022, 0])
def test_the_mode_is_0640(rtlaunch, umask):
    """Whatever the umask."""
    path = rtlaunch.report_path()
    process = rtlaunch.start("--report", path, "--", "true", preexec_fn=lambda: os.umask(umask))
    process.communicate(timeout=20)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_no_part_of_it_is_ever_seen(rtlaunch, targets):
    """While the target runs the old report stands whole, and nothing lies beside it."""
    path = rtlaunch.folder / "report-1.json"
    path.write_text("the old one")
    old = path.stat().st_ino
    with standing(rtlaunch, "--", targets / "waiter") as held:
        assert path.read_text() == "the old one"
        assert [each.name for each in rtlaunch.folder.iterdir()] == [path.name]
        held.end()
    assert_valid(json.loads(path.read_text()))
    assert path.stat().st_ino != old
    assert [each.name for each in rtlaunch.folder.iterdir()] == [path.name]


def test_a_killed_rtlaunch_leaves_no_file(rtlaunch, targets):
    """SIGKILL in the middle: no report, and no half of one under another name."""
    with standing(rtlaunch, "--pdeathsig", "KILL", "--", targets / "waiter") as held:
        held.process.send_signal(signal.SIGKILL)
        held.process.communicate(timeout=10)
        wait_until(lambda: not Path(f"/proc/{held.pid}").exists(), "the target lives on")
    assert list(rtlaunch.folder.iterdir()) == []


def write_again(launcher, path):
    """Replace the report at ``path``; return the exit code."""
    process = launcher.start("--report", path, "--", "true")
    process.communicate(timeout=20)
    return process.returncode


def test_what_a_kill_leaves_of_a_replacement_is_removed_by_the_next(rtlaunch):
    """SIGKILL at the rename itself: the old report stands, beside it the new; one run later not."""
    if not can_trace():
        skip("no-strace")
    path = rtlaunch.report_path()
    path.write_text("the old one")
    rtlaunch.prefix = ["strace", "-qq", "-o", "/dev/null", "-e", "inject=/^rename:signal=KILL"]
    assert write_again(rtlaunch, path) == -signal.SIGKILL
    (left,) = (each for each in rtlaunch.folder.iterdir() if each != path)
    assert (path.read_text(), left.suffix) == ("the old one", ".tmp")
    rtlaunch.prefix = []
    assert write_again(rtlaunch, path) == 0
    assert_valid(json.loads(path.read_text()))
    assert list(rtlaunch.folder.iterdir()) == [path]


def test_what_others_have_beside_it_stays(rtlaunch):
    """A file that is being written, another report's, a link, one of another shape."""
    path = rtlaunch.report_path()
    for name in ("", ".1.tmp", ".x.tmp", ".12.json", "2.13.tmp"):
        path.with_name(path.name + name).write_text("the old one")
    path.with_name(path.name + ".14.tmp").symlink_to("/etc/passwd")
    before = set(rtlaunch.folder.iterdir())
    with path.with_name(path.name + ".1.tmp").open() as written:
        fcntl.flock(written, fcntl.LOCK_EX)
        assert write_again(rtlaunch, path) == 0
    assert set(rtlaunch.folder.iterdir()) == before
    assert_valid(json.loads(path.read_text()))


def test_a_leftover_of_the_same_pid_is_not_taken_for_the_report(rtlaunch):
    """In a container every rtlaunch may be pid 1: what an earlier one left is not published."""
    path = rtlaunch.report_path()
    path.write_text("the old one")
    rtlaunch.prefix = ["sh", "-c", f'echo left >{path}.$$.tmp; exec "$@"', "sh"]
    assert write_again(rtlaunch, path) == 0
    assert_valid(json.loads(path.read_text()))
    assert list(rtlaunch.folder.iterdir()) == [path]


def test_placeholders(rtlaunch):
    """{host} {rank} {pid} {unit} {time} are filled in."""
    pattern = rtlaunch.folder / "{host}.{rank}.{pid}.{unit}.{time}.json"
    process = rtlaunch.start(
        "--report", pattern, "--", "sh", "-c", "echo $$", env={**os.environ, "SLURM_PROCID": "7"}
    )
    out, _ = process.communicate(timeout=20)
    (path,) = rtlaunch.folder.iterdir()
    host, rank, pid, unit, at, _ = re.fullmatch(
        r"(.+)\.(\d+)\.(\d+)\.(.+)\.(\d+)\.(json)", path.name
    ).groups()
    assert (host, rank, pid) == (os.uname().nodename, "7", out.strip())
    assert (unit != "", abs(int(at) - time.time()) < 60) == (True, True)


def test_a_descriptor(rtlaunch):
    """fd:N: the report goes there, and the target does not have that descriptor."""
    read, write = os.pipe()
    line = f"test -e /proc/self/fd/{write} && echo leaked"
    process = rtlaunch.start("--report", f"fd:{write}", "--", "sh", "-c", line, pass_fds=[write])
    os.close(write)
    with open(read) as pipe:
        report = json.loads(pipe.read())
    assert process.communicate(timeout=20)[0] == ""
    assert_valid(report)


def test_standard_error_stays_the_targets(rtlaunch):
    """fd:2: the report follows what the target wrote there."""
    process = rtlaunch.start("--report", "fd:2", "--", "sh", "-c", "echo mine >&2")
    _, err = process.communicate(timeout=20)
    mine, _, rest = err.partition("\n")
    assert mine == "mine"
    assert_valid(json.loads(rest))


def test_a_symbolic_link_is_followed(rtlaunch):
    """The link stays one, and what it points to is replaced."""
    link, target = rtlaunch.folder / "link", rtlaunch.folder / "report"
    link.symlink_to(target)
    rtlaunch.start("--report", link, "--", "true").communicate(timeout=20)
    assert link.is_symlink()
    assert_valid(json.loads(target.read_text()))


def test_a_device_is_written_to_not_replaced(rtlaunch):
    """--report /dev/null by root must leave /dev/null as it is; shown on another such device."""
    need_root()
    path = rtlaunch.folder / "null"
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    process = rtlaunch.start("--report", path, "--", "true")
    process.communicate(timeout=20)
    assert (process.returncode, stat.S_ISCHR(path.stat().st_mode)) == (0, True)


def test_a_named_pipe_is_written_to(rtlaunch):
    """A reader gets the report, and the pipe is one still; without a reader it is a refusal."""
    path = rtlaunch.folder / "pipe"
    os.mkfifo(path)
    process = rtlaunch.start("--report", path, "--", "true")
    process.communicate(timeout=20)
    assert process.returncode == 125
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    process = rtlaunch.start("--report", path, "--", "true")
    process.communicate(timeout=20)
    with open(reader) as pipe:
        assert_valid(json.loads(pipe.read()))
    assert path.is_fifo()


def test_dev_stdout_is_standard_output(rtlaunch, tmp_path):
    """Also where that is a file: it follows what the target wrote, and the link in /dev stays."""
    out = tmp_path / "out"
    with out.open("w") as file:
        process = rtlaunch.start("--report", "/dev/stdout", "--", "echo", "first", stdout=file)
        process.communicate(timeout=20)
    first, _, rest = out.read_text().partition("\n")
    assert first == "first"
    assert_valid(json.loads(rest))
    assert os.path.islink("/dev/stdout")


# ---- where it cannot be written ----

UNWRITABLE = {
    "no directory": ("/nonexistent/report.json", "No such file or directory"),
    "a directory": ("/usr", "Is a directory"),
    "a file as directory": ("/etc/passwd/report.json", "Not a directory"),
    "a file system without files": ("/proc/report.json", ""),
    "a closed descriptor": ("fd:99", "Bad file descriptor"),
    "a descriptor for reading": ("fd:0", "not open for writing"),
}


@pytest.mark.parametrize(("to", "reason"), UNWRITABLE.values(), ids=UNWRITABLE)
def test_an_unwritable_place_is_refused(rtlaunch, tmp_path, to, reason):
    """125 before anything starts, one message, with the reason."""
    marker = tmp_path / "marker"
    process = rtlaunch.start("--report", to, "--", "touch", marker, stdin=subprocess.PIPE)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, marker.exists()) == (125, "", False)
    assert err.startswith("rtlaunch: refused [report-unwritable]: --report ")
    assert reason in err.splitlines()[0]
    assert err.count("[report-unwritable]") == 1
    assert f"try now: rtlaunch --report fd:2 -- touch {marker}\n" in err


def test_a_place_of_others_is_refused(as_user, tmp_path):
    """A directory that the user may not write to."""
    marker = tmp_path / "marker"
    process = as_user("limited").start("--report", "/usr/report.json", "--", "touch", marker)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, marker.exists()) == (125, False)
    assert "refused [report-unwritable]: --report /usr/report.json: Permission denied" in err


def test_it_may_be_allowed(rtlaunch):
    """--allow report-unwritable: the program runs without."""
    words = ("--report", "/nonexistent/report.json", "--allow", "report-unwritable")
    process = rtlaunch.start(*words, "--", "sh", "-c", "echo ran; exit 3")
    assert (process.communicate(timeout=20)[0], process.returncode) == ("ran\n", 3)


def test_a_disk_that_is_full_costs_the_target_nothing(rtlaunch, tmp_path):
    """The report is lost, which is said; the target's output and exit code are whole."""
    need_root()
    disk = tmp_path / "disk"
    disk.mkdir()
    fill = f"mount -t tmpfs -o size=64k none {disk} && cat /dev/zero >{disk}/full 2>/dev/null"
    line = f'{fill}; "$@"; code=$?; ls {disk}; exit $code'
    ours = rtlaunch.words("--report", disk / "report.json", "--", "sh", "-c", "echo ran; exit 3")
    command = ["unshare", "--mount", "sh", "-c", line, "sh", *ours]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    if "mount: " in done.stderr:
        skip("no-mount")
    assert (done.returncode, done.stdout) == (3, "ran\nfull\n")
    assert "No space left on device" in done.stderr


@pytest.mark.parametrize("where", ["full", "closed pipe", "closed"])
def test_our_messages_never_cost_the_target_anything(rtlaunch, where):
    """stderr that is full, hung up or closed: the target runs, with all its output and its code."""
    words = ("-v", "--lock", "none", "--", "sh", "-c", "echo ran; exit 3")
    read, write = os.pipe()
    os.close(read)
    with open("/dev/full", "w") as full, open(write, "w") as pipe:
        streams = {"full": full, "closed pipe": pipe, "closed": subprocess.PIPE}
        before = (lambda: os.close(2)) if where == "closed" else None
        process = rtlaunch.start(*words, stderr=streams[where], preexec_fn=before)
        out, _ = process.communicate(timeout=20)
    assert (process.returncode, out) == (3, "ran\n")


@pytest.fixture
def open_folder():
    """A folder of root's that every user can reach, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="rtlaunch-open-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize("mode", [0o1777, 0o777])
def test_a_link_that_the_program_put_there_is_not_followed(as_user, open_folder, mode):
    """Another user's link in place of the report leads root nowhere, not at the end either."""
    need_root()
    shared, victim = open_folder / "shared", open_folder / "victim"
    shared.mkdir()
    shared.chmod(mode)
    victim.write_text("root's own")
    report = shared / "report.json"
    words = ("--user", "nobody", "--report", report, "--", "ln", "-s", victim, report)
    run = as_user("root").start("--lock=current", *words)
    _, err = run.communicate(timeout=20)
    assert run.returncode == 0
    assert victim.read_text() == "root's own"
    assert "[report-unwritable]" in err and "symbolic link" in err
    assert list(shared.iterdir()) == [report]


def test_a_link_of_ours_is_followed(rtlaunch, tmp_path):
    """It may point anywhere, also at what is not there yet, and stays a link."""
    (tmp_path / "there").mkdir()
    link, chain = tmp_path / "link.json", tmp_path / "chain.json"
    link.symlink_to("there/report.json")
    chain.symlink_to(link)
    for _ in range(2):
        run = rtlaunch.start("--report", chain, "--", "true")
        run.communicate(timeout=20)
        assert json.loads((tmp_path / "there/report.json").read_text())["complete"]
    assert link.is_symlink() and chain.is_symlink()
