"""``rtlaunch fit``: run the program for real, unlocked, and say what it needs to run locked.

It is a launch like any other, but for ``--lock none`` and for who stays beside the program
(:mod:`rtlaunch.engine.gauge`). The program's own output is left alone: what was measured goes to
stderr, where other measuring tools say it too, and with ``--json`` to stdout, after it has ended.
"""

from __future__ import annotations

import json
import os
import time

from rtlaunch.cli.launch import order, perform
from rtlaunch.cli.outlet import write_whole
from rtlaunch.cli.plan import as_typed
from rtlaunch.cli.report_file import ReportFile, followed
from rtlaunch.core import argv, fit, fitting, limits, preflight
from rtlaunch.core.findings import EXIT_REFUSED, Finding, Refusal
from rtlaunch.core.identity import may_raise_hard
from rtlaunch.core.options import DEFAULT, Arm, Options, ReportTo
from rtlaunch.core.record import Record, replace
from rtlaunch.core.settings import read_environment
from rtlaunch.core.threadstack import WRAPPERS
from rtlaunch.core.units import parse_time
from rtlaunch.core.way import BY_PTRACE
from rtlaunch.engine.gauge import Gauge
from rtlaunch.engine.survey import survey
from rtlaunch.report import fit as report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rtlaunch.cli.voice import Voice
    from rtlaunch.core.facts import Facts
    from rtlaunch.core.outcome import Outcome
    from rtlaunch.core.settings import Raw
    from rtlaunch.engine.inherit import Inherited
    from rtlaunch.engine.launch import Story
    from rtlaunch.engine.listener import Listener

STDOUT, STDERR = 1, 2
PATIENCE_MS = 5000  # how long a reader of ours may stand still
OWN = {row.name for row in argv.OWN_OPTIONS[argv.FIT]}

# What keeps a setting from a program, by the finding that says so.
NO_ARENAS = ("heap-allocator", "heap-tunables")
NO_THREAD_STACK = ("thread-stack-unsupported", "thread-stack-size", "thread-stack-arguments")

# What they exec() in the end would begin with the limit that the shim has restored by then.
SHELLS = frozenset(("ash", "bash", "busybox", "dash", "ksh", "sh", "zsh"))


class Order(Record):
    """What was asked: the options with what may be chosen of them, the command, what to write.

    ``typed`` are the options' texts as the command line or the environment has them.
    """

    options: Options
    choice: fitting.Choice
    command: tuple[str, ...]
    typed: Raw
    profile: ReportFile | None
    as_json: bool


def run(line: argv.Line, inherited: Inherited, voice: Voice, story: Story) -> int:
    """Measure the command of ``line``; the status is the program's own, or that of a Refusal."""
    raw = {name: texts for name, texts in line.raw.items() if name not in OWN}
    run_ns = time_asked(line.raw)
    options, command, findings = order(raw, line.command, inherited.environ)
    choice = choose(options, command, inherited.environ)
    typed = {**read_environment(inherited.environ)[0], **raw}
    profile = open_profile(line.raw)
    asked = Order(options, choice, tuple(command), typed, profile, argv.JSON.name in line.raw)
    gauges: list[Gauge] = []

    def make(options: Options, facts: Facts, outcome: Outcome, listener: Listener) -> Gauge:
        gauges.append(Gauge(options, facts, outcome, listener, run_ns))
        return gauges[0]

    story.sentry = make
    perform(as_measured(options, choice), command, findings, inherited, voice, story)
    code = story.outcome.exit.rtlaunch_code
    status = EXIT_REFUSED if code is None else code
    tell(asked, gauges[0], story.outcome, status)
    return status


# --- before --------------------------------------------------------------------------------------


def time_asked(raw: Raw) -> int:
    """Return ``--for`` in ns, 0 where it was not given; Refusal for what is no time."""
    texts = raw.get(argv.FOR.name)
    if not texts:
        return 0
    try:
        asked = parse_time(texts[-1])
    except ValueError as error:
        raise Refusal(Finding("usage", f"{argv.FOR.long}: {error}")) from None
    if not asked:
        raise Refusal(
            Finding("usage", f"{argv.FOR.long} {texts[-1]}: nothing is measured in no time")
        )
    return asked


def choose(options: Options, command: Sequence[str], environ: Mapping[str, str]) -> fitting.Choice:
    """Return what may be recommended: what was not given, and this program can be given."""
    given = {name for name, origin in options.origin.items() if origin != DEFAULT}
    stack = fitting.MEASURED_STACK
    trial = options
    if "arenas" not in given:
        trial = replace(trial, arenas=1)
    if "thread-stack" not in given:
        trial = replace(trial, thread_stack=stack)
    facts = survey(trial, command, environ)
    codes = {finding.code for finding in preflight.findings(trial, facts)}
    usual = preflight.thread_stack(options, facts)
    program = facts.target.program
    kept = program is not None and program.path.rpartition("/")[2] not in SHELLS
    set_stack = kept and stack < usual and not codes.intersection(NO_THREAD_STACK)
    set_arenas = not {"arenas", "heap"} & given and not codes.intersection(NO_ARENAS)
    return fitting.Choice(
        prefault="prefault-stack" not in given,
        usual_stack=usual,
        thread_stack=stack if set_stack and "thread-stack" not in given else None,
        arenas=1 if set_arenas else None,
    )


def as_measured(options: Options, choice: fitting.Choice) -> Options:
    """Return the options of the measuring run: nothing locked, touched or watched.

    It has one arena where that will be recommended, and smaller stacks where these will be, so that
    what is measured is what will be. What a lock would go in by is left alone: who measures traces
    the program, and a process has one tracer.
    """
    unreached = tuple(sorted(BY_PTRACE - set(options.allow)))
    return replace(
        options, via="preload", allow=(*options.allow, *unreached),
        lock=(), prefault_stack=0, children="none", watch="none", arm=Arm("locked"),
        max_major=None, max_minor=None, fitted=None, arenas=choice.arenas or options.arenas,
        thread_stack=choice.thread_stack or options.thread_stack,
    )  # fmt: skip


def open_profile(raw: Raw) -> ReportFile | None:
    """Make sure that ``--write`` can be; Refusal says why not, before anything runs."""
    texts = raw.get(argv.WRITE.name)
    if not texts:
        return None
    file = ReportFile(ReportTo(texts[-1]))
    try:
        file.prepare_path(texts[-1])
    except OSError as error:
        raise Refusal(
            Finding("usage", f"{argv.WRITE.long} {texts[-1]}: {error.strerror}")
        ) from None
    return file


# --- after ---------------------------------------------------------------------------------------


def tell(asked: Order, gauge: Gauge, outcome: Outcome, status: int) -> None:
    """Say what was measured, and write the profile."""
    looked = [course for course in gauge.courses if course.entry]
    if not looked:
        say("rtlaunch: it ended before it could be looked at: nothing was measured")
        return
    course = max(looked, key=lambda one: max(peak.locked for peak in one.peaks.values()))
    found = judge(asked, gauge, course, outcome, status)
    if asked.profile:
        write_profile(asked.profile, found, fitting.chosen(asked.options, found.advice))
    if asked.as_json:
        say(json.dumps(report.as_dict(found)), STDOUT)
    else:
        say("\n".join(report.lines(found)))


def judge(
    asked: Order, gauge: Gauge, course: fit.Course, outcome: Outcome, status: int
) -> fitting.Found:
    """Return what one image's course comes to."""
    allocator, runtime = fit.identify(sorted(gauge.paths))
    runtime = runtime or (fit.GO if gauge.is_go else "")
    choice = asked.choice
    if not keeps_small_stack(outcome):
        choice = replace(choice, thread_stack=None)
    advice = fitting.advise(course, asked.options, choice, runtime)
    times = outcome.time
    return fitting.Found(
        command=asked.command,
        line=line_for(asked, advice, gauge.facts),
        path=asked.profile.to.path if asked.profile else "",
        course=course,
        advice=advice,
        allocator=allocator,
        runtime=runtime,
        default_stack=gauge.default_stack,
        run_ns=(times.ended_ns or 0) - (times.go_ns or times.forked_ns or 0),
        traced=gauge.traced,
        stopped=gauge.finished,
        ended=status,
    )


def keeps_small_stack(outcome: Outcome) -> bool:
    """Tell whether ``--thread-stack`` reaches the last image: the first one, or past wrappers."""
    earlier = outcome.target.images[:-1]
    return all((image.path or "").rpartition("/")[2] in WRAPPERS for image in earlier)


def line_for(asked: Order, advice: fitting.Advice, facts: Facts) -> tuple[str, ...]:
    """Return the line to run it with: the profile's, or all that was given and is recommended.

    A size of ``--memlock`` is a demand: where it cannot be had nothing starts. It is left out where
    CAP_IPC_LOCK makes it needless and the limit cannot be raised to it.
    """
    if asked.profile:
        path = asked.profile.to.path
        reach = path if "/" in path else f"./{path}"
        return (argv.PROGRAM, "--profile", reach, "--", *asked.command)
    may_raise = may_raise_hard(facts)
    change = limits.ask_for("memlock", advice.memlock, facts.limits["memlock"], may_raise)
    impossible = change is not None and limits.impossible(change, may_raise) is not None
    needless = impossible and preflight.will_hold_ipc_lock(asked.options, facts)
    ours = fitting.recommended(advice, with_memlock=not needless)
    kept = {name: texts for name, texts in asked.typed.items() if name not in (*ours, "memlock")}
    added = [word for name, text in ours.items() for word in (f"--{name}", text)]
    return (argv.PROGRAM, *as_typed(kept), *added, "--", *asked.command)


def write_profile(file: ReportFile, found: fitting.Found, options: Options) -> None:
    """Write the profile, whole or not at all; what went wrong is said."""
    day = time.strftime("%Y-%m-%d", time.gmtime())
    host = os.uname()
    heading = f"Measured by rtlaunch fit on {host.nodename}, {host.sysname} {host.release}, {day}."
    try:
        text = fitting.profile_text(found, options, heading).encode()
        if file.stream:
            write_whole(file.fd, text, PATIENCE_MS)
        else:
            file.write_path(text, followed(found.path))
    except ValueError as error:
        say(f"rtlaunch: {argv.WRITE.long} {found.path}: TOML has no words for the command: {error}")
    except OSError as error:
        say(f"rtlaunch: {argv.WRITE.long} {found.path}: {error.strerror}")


def say(text: str, fd: int = STDERR) -> None:
    """Write lines; that nobody is there to read them is no error of the program's."""
    try:
        write_whole(fd, (text + "\n").encode("utf-8", "surrogateescape"), PATIENCE_MS)
    except OSError:
        return
