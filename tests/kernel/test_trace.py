"""A guest leaves no trace: the target sees what it would see without us, but for three things.

tests/targets/trace.c says what it was started with. It is started twice in the same way, once
by rtlaunch and once without; the two texts are equal but for our LD_PRELOAD, our channel's
variable and its one high descriptor. Limits are inherited on demand here: to raise memlock and
core is what the options' defaults promise.
"""

from __future__ import annotations

import ctypes
import fcntl
import itertools
import os
import re
import resource
import signal
import subprocess
from pathlib import Path

import pytest

from tests.host import compile_c
from tests.launching import USERS

PR_SET_TIMERSLACK, PR_SET_NO_NEW_PRIVS, PR_SET_THP_DISABLE = 29, 38, 41
IOPRIO_SET = {"x86_64": 251}.get(os.uname().machine, 30)
HIGH = 512
SOURCE = Path(__file__).parent.parent / "targets" / "trace.c"
PLAIN = {"PATH": "/usr/bin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
libc = ctypes.CDLL(None, use_errno=True)


def prctl(option, value):
    assert libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) == 0


class Traces:
    """Starts the tracer with and without rtlaunch, in the same way; tells what differs."""

    def __init__(self, launcher, program):
        self.launcher = launcher
        self.program = program

    def one(self, how, words, env, before, options=None):
        """Return the lines of one run; ``options`` None is without rtlaunch."""
        path = self.launcher.folder / "trace"
        path.unlink(missing_ok=True)
        command = [*words, str(self.program), str(path)]
        if options is not None:
            command = [*words, str(self.launcher.program), *options, "--", *command[len(words) :]]
        command = [*USERS[self.launcher.user], *command]
        done = subprocess.run(
            command,
            env=env,
            preexec_fn=before,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=20,
            **how,
        )
        assert path.exists(), done
        return path.read_bytes().decode("utf-8", "surrogateescape").splitlines()

    def assert_equal(self, *, words=(), env=PLAIN, before=None, options=(), **how):
        """Both runs print the same, but for what is ours."""
        options = ("--memlock", "inherit", "--core", "inherit", *options)
        without = self.one(how, words, env, before)
        ours = self.one(how, words, env, before, options)
        assert without_ours(ours) == without


def without_ours(lines):
    """Return the lines but ours, each of which must be there once."""
    kept = [line for line in lines if not is_channel(line)]
    assert len(lines) - len(kept) == 1, "not one high descriptor"
    lines, kept = kept, [line for line in kept if not line.startswith("environ _RTL_CHANNEL=")]
    assert len(lines) - len(kept) == 1, "not one variable"
    shim = r"environ LD_PRELOAD=[^:]*/rtlaunch-shim[-\w]*\.so"
    rest = [re.sub(shim + r":(?=.)", "environ LD_PRELOAD=", line) for line in kept]
    rest = [line for line in rest if not re.fullmatch(shim, line)]
    assert rest != kept, "no LD_PRELOAD"
    return rest


def is_channel(line):
    match = re.fullmatch(r"fd (\d+) flags 0 status 0x2", line)
    return bool(match) and int(match[1]) >= HIGH


@pytest.fixture
def traces(as_user, targets):
    return Traces(as_user("root"), targets / "trace")


def test_every_user_sees_the_same(anybody, targets):
    """Ids, capabilities, limits, environment, descriptors, signals and the rest, for each user."""
    Traces(anybody, targets / "trace").assert_equal()


def test_the_tracer_sees_a_difference(traces):
    """It is no comparison of nothing: each of a few changes shows."""
    plain = traces.one({}, (), PLAIN, None)
    for before in (lambda: os.umask(0o77), lambda: os.nice(1), lambda: os.dup2(1, 200)):
        assert traces.one({"close_fds": False}, (), PLAIN, before) != plain


# ---- signals ----

IGNORED = {
    "PIPE": {signal.SIGPIPE},
    "XFSZ": {signal.SIGXFSZ},
    "INT": {signal.SIGINT},
    "CHLD": {signal.SIGCHLD},
    "a shell's background": {signal.SIGINT, signal.SIGQUIT},
    "stops": {signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU},
    "real-time": {signal.SIGRTMIN, signal.SIGRTMIN + 7, signal.SIGRTMAX},
    "all": set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP},
}


@pytest.mark.parametrize("ignored", IGNORED.values(), ids=IGNORED)
def test_ignored_signals(traces, ignored):
    """What was ignored is, and nothing else: neither by Python nor by us."""
    traces.assert_equal(before=lambda: [signal.signal(one, signal.SIG_IGN) for one in ignored])


BLOCKED = {
    "INT": {signal.SIGINT},
    "CHLD": {signal.SIGCHLD},
    "TERM, HUP": {signal.SIGTERM, signal.SIGHUP},
    "all": signal.valid_signals(),
}


@pytest.mark.parametrize("blocked", BLOCKED.values(), ids=BLOCKED)
def test_blocked_signals(traces, blocked):
    """The signal mask is the inherited one."""
    traces.assert_equal(before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, blocked))


def test_nohup(traces):
    """Behind nohup(1) the target ignores SIGHUP, as it would."""
    traces.assert_equal(words=("nohup",))


# ---- descriptors ----

CLOSED = [closed for count in (1, 2, 3) for closed in itertools.combinations((0, 1, 2), count)]


@pytest.mark.parametrize("closed", CLOSED, ids=str)
def test_closed_standard_descriptors(traces, closed):
    """What was closed of 0, 1 and 2 is closed in the target: nothing of ours lands there."""
    traces.assert_equal(before=lambda: [os.close(fd) for fd in closed])


def test_more_descriptors(traces):
    """Inherited descriptors keep number and flags, gaps between them included."""
    traces.assert_equal(before=open_more, close_fds=False)


def open_more():
    for fd in (3, 7, 63, 255, 600):
        os.dup2(1, fd)


def test_a_descriptor_in_our_channels_place(traces):
    """The highest numbers taken by others: the channel goes elsewhere, theirs are untouched."""
    traces.assert_equal(before=take_the_top, close_fds=False)


def take_the_top():
    for fd in range(1000, 1024):
        os.dup2(1, fd)


def test_descriptor_flags(traces):
    """O_NONBLOCK and O_APPEND of a stream are the parent's affair, before and after."""
    traces.assert_equal(before=make_nonblocking)


def make_nonblocking():
    fcntl.fcntl(1, fcntl.F_SETFL, fcntl.fcntl(1, fcntl.F_GETFL) | os.O_NONBLOCK)


# ---- environment ----

ENVIRONMENTS = {
    "empty": {},
    "C locale": {"PATH": "/bin", "LC_ALL": "C"},
    "no locale": {"PATH": "/bin"},
    "POSIX ctype": {"PATH": "/bin", "LC_CTYPE": "POSIX"},
    "python's": {
        "PYTHONHOME": "/nowhere",
        "PYTHONPATH": "/nowhere/either",
        "PYTHONUTF8": "0",
        "PYTHONMALLOC": "debug",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONUNBUFFERED": "1",
        "PYTHONINSPECT": "1",
    },
    "the loader's": {"LD_LIBRARY_PATH": "/nowhere", "LD_BIND_NOW": "1"},
    "empty values": {"A": "", "B": "=", "C": " "},
    "long": {"LONG": "x" * 100_000},
    "lines": {"LINES": "a\nb\\nc\td"},
    "bytes": {b"BYTES": bytes(range(1, 256)).replace(b"\n", b"")},
    "names": {"a b": "1", "ä": "2", "$X": "3", "_": "4", "__": "5"},
    "twins of others": {"RTLAUNCH_PORT": "tcp://10.0.0.1:80", "RTLAUNCHER": "x", "_RTL": "x"},
}


@pytest.mark.parametrize("env", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_environment(traces, env):
    """Every variable is there, in its order and byte for byte, and none was added."""
    traces.assert_equal(env=env)


def test_the_users_own_preload_is_kept(traces):
    """LD_PRELOAD of the user's stands behind ours, unchanged."""
    traces.assert_equal(env={**PLAIN, "LD_PRELOAD": "libm.so.6:libdl.so.2"})


def test_our_own_variables_are_taken_out(traces):
    """RTLAUNCH_ twins configure us, and are gone from the target's environment."""
    lines = traces.one({}, (), {**PLAIN, "RTLAUNCH_NICE": "3", "RTLAUNCH_QUIET": "1"}, None, ())
    assert "nice 3" in lines
    assert not [line for line in lines if line.startswith("environ RTLAUNCH_")]


# ---- the rest of a process ----


def become_reniced():
    os.nice(5)
    libc.syscall(IOPRIO_SET, 1, 0, 2 << 13 | 6)


def gone_folder():
    folder = f"/tmp/rtlaunch-gone-{os.getpid()}"
    os.mkdir(folder)
    os.chdir(folder)
    os.rmdir(folder)


OTHERS = {
    "umask": lambda: os.umask(0o27),
    "umask of nothing": lambda: os.umask(0o777),
    "directory": lambda: os.chdir("/usr/lib"),
    "directory that is gone": gone_folder,
    "nice and I/O priority": become_reniced,
    "timer slack": lambda: prctl(PR_SET_TIMERSLACK, 123_456),
    "no_new_privs": lambda: prctl(PR_SET_NO_NEW_PRIVS, 1),
    "no transparent huge pages": lambda: prctl(PR_SET_THP_DISABLE, 1),
    "scheduling policy": lambda: os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0)),
    "one CPU": lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
    "limits": lambda: [
        resource.setrlimit(one, (value, value))
        for one, value in (
            (resource.RLIMIT_NOFILE, 700),
            (resource.RLIMIT_STACK, 3 << 20),
            (resource.RLIMIT_CPU, 1000),
        )
    ],
}


@pytest.mark.parametrize("before", OTHERS.values(), ids=OTHERS)
def test_whatever_else_is_inherited(traces, before):
    """umask, directory, priorities, timer slack, flags, affinity and limits are the parent's."""
    traces.assert_equal(before=before)


@pytest.mark.parametrize("switch", ["--addr-no-randomize", "--addr-compat-layout"])
def test_personality(traces, switch):
    """setarch(8)'s flags reach the target."""
    traces.assert_equal(words=("setarch", switch))


@pytest.mark.parametrize(
    "options",
    ["--lock none", "--children all", "--pdeathsig none", "--quiet"],
)
def test_options_change_only_what_they_say(traces, options):
    """Ways of locking and watching are no affair of what the target sees."""
    traces.assert_equal(options=options.split())


def test_without_perf_one_descriptor_more_is_kept(traces):
    """It is high, and closed by exec: its end of file is how an exec is noticed (decision 12)."""
    inherit = ("--memlock", "inherit", "--core", "inherit", "--watch", "proc")
    without = traces.one({}, (), PLAIN, None)
    ours = without_ours(traces.one({}, (), PLAIN, None, inherit))
    more = [line for line in ours if line not in without]
    assert len(more) == 1
    word, number, flags, value, *_ = more[0].split()
    assert (word, flags, value) == ("fd", "flags", "0x1")
    assert int(number) > HIGH


def test_of_a_variable_that_is_there_twice_the_first_counts(rtlaunch, tmp_path):
    """As getenv(3) has it; the copy that nobody would have read is not passed on."""
    twice = tmp_path / "twice.c"
    twice.write_text(
        "#include <unistd.h>\n"
        "int main(int n, char **v) {\n"
        '    char *e[] = {"A=first", "PATH=/usr/bin:/bin", "A=second", 0};\n'
        "    return execve(v[1], v + 1, e);\n"
        "}\n"
    )
    compile_c(twice, tmp_path / "twice")
    command = [tmp_path / "twice", rtlaunch.program, "--", "/bin/sh", "-c", "echo $A"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    assert done.stdout == "first\n"


# ---- locked from outside ----


def assert_no_trace(traces, program, before=None):
    """Both runs print the same, to the last line: --via ptrace leaves nothing at all."""
    options = ("--memlock", "inherit", "--core", "inherit", "--via", "ptrace")
    traces.program = program
    without = traces.one({}, (), PLAIN, before)
    assert traces.one({}, (), PLAIN, before, options) == without


@pytest.mark.parametrize("flags", ["", "-static"], ids=["dynamic", "static"])
@pytest.mark.parametrize("ignored", IGNORED.values(), ids=IGNORED)
def test_an_injection_leaves_no_trace(traces, room, flags, ignored):
    """No variable, no descriptor, no signal disposition: not even of SIGTRAP, by which it stops."""
    program = room / f"trace{flags}"
    if not program.exists():
        compile_c(SOURCE, program, *flags.split())
    before = lambda: [signal.signal(one, signal.SIG_IGN) for one in ignored]  # noqa: E731
    assert_no_trace(traces, program, before)


@pytest.mark.parametrize("blocked", BLOCKED.values(), ids=BLOCKED)
def test_an_injection_leaves_the_signal_mask(traces, targets, blocked):
    """It blocks all signals meanwhile, and puts back the inherited mask."""
    before = lambda: signal.pthread_sigmask(signal.SIG_BLOCK, blocked)  # noqa: E731
    assert_no_trace(traces, targets / "trace", before)
