"""The messages: one shape for a refusal, one line for a run, nothing forged from outside."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtlaunch.core.findings import CODES, WARNING, Finding
from rtlaunch.core.outcome import Image
from rtlaunch.core.printable import one_line
from rtlaunch.core.settings import resolve
from rtlaunch.report import text
from tests.unit import outcomes

FULL = Finding(
    "memlock-limit",
    "python3 needs at least 11 MiB locked; RLIMIT_MEMLOCK is 8 MiB (hard), no CAP_IPC_LOCK",
    why="without CAP_IPC_LOCK the kernel locks no more",
    set_by="LimitMEMLOCK= of app.service",
    try_now="systemd-run app",
    for_good="a drop-in:\n[Service]\nLimitMEMLOCK=64M",
)


# --- findings --------------------------------------------------------------------------------


def test_a_refusal_has_one_shape():
    """A refusal says what, who set it, what to do now and for good, and where to read on."""
    assert text.refusal(FULL).split("\n") == [
        "rtlaunch: refused [memlock-limit]: python3 needs at least 11 MiB locked; "
        "RLIMIT_MEMLOCK is 8 MiB (hard), no CAP_IPC_LOCK",
        "  set by: LimitMEMLOCK= of app.service",
        "  try now: systemd-run app",
        "  for good: a drop-in:",
        "      [Service]",
        "      LimitMEMLOCK=64M",
        "  more: rtlaunch explain memlock-limit",
    ]


def test_verbose_adds_the_reason():
    """With -v a refusal also says why the numbers matter."""
    assert "  why: without CAP_IPC_LOCK" in text.refusal(FULL, verbose=True)


@pytest.mark.parametrize("code", CODES)
def test_each_severity_is_named(code):
    """An error is refused, a warning is a warning, the rest are notes; each names its code."""
    severity = CODES[code][0]
    word = {"error": "refused", "warning": "warning", "info": "note"}[severity]
    first = text.message(Finding(code, "what")).split("\n")[0]
    assert first == f"rtlaunch: {word} [{code}]: what"


def test_an_allowed_error_is_one_line_and_not_called_refused():
    """What was allowed by name is still said, in one line."""
    waived = Finding("memlock-limit", "8 MiB", try_now="x", waived=True)
    assert text.message(waived) == "rtlaunch: allowed [memlock-limit]: 8 MiB"


def test_a_warning_keeps_every_line_of_its_cure():
    """A warning shows the whole of what to try now, and not what to change for good."""
    found = Finding("memlock-headroom", "x", try_now="raise it\nor less stack", for_good="drop-in")
    assert found.severity == WARNING
    shown = text.message(found)
    assert "  try now: raise it\n      or less stack\n" in shown
    assert "drop-in" not in shown


def test_not_locked_names_the_code():
    """The line that -q alone silences."""
    assert text.not_locked("target-static") == "rtlaunch: not locked: target-static"


@given(st.text())
def test_no_text_from_outside_makes_a_line(name):
    """Whatever a file is called, it stays on its line and moves no cursor."""
    shown = text.message(Finding("command-not-found", name))
    assert all(line.isprintable() for line in shown.split("\n"))
    assert shown.split("\n")[0] == f"rtlaunch: refused [command-not-found]: {one_line(name)}"


def test_what_prints_is_not_escaped():
    """Names in other scripts stay readable."""
    assert one_line("/opt/Größe/データ") == "/opt/Größe/データ"
    assert one_line("a\x1b[2Jb\n") == "a\\x1b[2Jb\\n"


# --- the summary -----------------------------------------------------------------------------


def test_the_summary_of_a_clean_run():
    """A run comes down to what was locked, of whom, how fast, and the faults since."""
    assert text.summary(outcomes.clean()) == (
        "rtlaunch: locked 11.2 MiB (12.0 resident) of python3.11[1234] in 3 ms; "
        "0 major faults after arming"
    )


def test_the_summary_says_what_heap_was_found():
    """As much as was asked for, or how much of it; and on what pages."""
    outcome = outcomes.clean()
    outcome.heap.asked_bytes, outcome.heap.found_bytes = 64 << 20, 65 << 20
    outcome.heap.page_bytes = 2 << 20
    assert "; heap 64 MiB on 2 MiB pages; " in text.summary(outcome)
    outcome.heap.found_bytes = 40 << 20
    assert "; heap 40 MiB of 64 MiB asked on 2 MiB pages; " in text.summary(outcome)


def test_the_summary_counts_faults():
    """Faults are the kernel's count, in figures that can be read."""
    assert "; 1,000 major faults after arming" in text.summary(outcomes.faulted())


def test_the_summary_never_claims_a_lock():
    """One image that is not locked is enough."""
    assert text.summary(outcomes.unlocked()).startswith("rtlaunch: ran app[1234] unlocked; ")


def test_the_summary_does_not_call_unmeasured_zero():
    """Without a count there is no 0 in the line."""
    outcome = outcomes.clean()
    outcome.watch.after_arm = None
    assert "major faults not counted" in text.summary(outcome)


@pytest.mark.parametrize(
    ("code", "signal", "core", "words"),
    [
        (3, None, None, "; exit 3"),
        (None, 15, False, "; ended by SIGTERM"),
        (None, 11, True, "; ended by SIGSEGV, core dumped"),
    ],
)
def test_the_summary_says_how_it_ended(code, signal, core, words):
    """An end that is no success is part of the line."""
    outcome = outcomes.clean()
    outcome.exit.code, outcome.exit.signal, outcome.exit.core_dumped = code, signal, core
    assert text.summary(outcome).endswith(words)


def test_the_summary_of_nothing():
    """A run of which nothing is known gives a line, and no traceback."""
    line = text.summary(outcomes.EVERY["nothing"]())
    assert line == "rtlaunch: ran the program unlocked; major faults not counted"


@pytest.mark.parametrize(
    ("locked", "resident", "shown"),
    [
        (0, 0, "0.0 MiB (0.0 resident)"),
        (592 << 20, 69 << 20, "592.0 MiB (69.0 resident)"),
        (3 << 30, 1 << 30, "3.0 GiB (1.0 resident)"),
        (1 << 20, None, "1.0 MiB"),
    ],
)
def test_sizes_share_a_unit(locked, resident, shown):
    """Both sizes are in the unit of what is locked."""
    assert text.locked_size(locked, resident) == shown


@pytest.mark.parametrize(
    ("time_ns", "shown"), [(3_100_000, "3 ms"), (420_000, "0.4 ms"), (9_000, "0.1 ms")]
)
def test_a_short_time_is_not_none(time_ns, shown):
    """A lock of less than a millisecond did not take 0 ms."""
    assert text.milliseconds(time_ns) == shown


def test_a_program_is_called_by_its_last_image():
    """After sh -c 'exec app' it is app that runs."""
    outcome = outcomes.clean()
    outcome.target.images = (Image(path="/bin/sh"), Image(path="/opt/app"), Image(path=None))
    assert text.program(outcome) == "app[1234]"


# --- the plan --------------------------------------------------------------------------------


def options(**raw):
    typed = {name.replace("_", "-"): (value,) for name, value in raw.items()}
    return resolve(typed, {"RTLAUNCH_CORE": "0"}, None).options


def test_the_plan_shows_origins_steps_findings_and_the_answer():
    """plan says which values are not defaults and whose, what would be done, and the answer."""
    chosen = options(prefault_stack="1M")
    shown = text.plan("./app -x", "supervise (asked for)", chosen, ["one", "two"], [FULL])
    assert shown.split("\n") == [
        "plan for: ./app -x",
        "mode: supervise (asked for)",
        "",
        "options (the others are at their defaults):",
        "  prefault-stack  1M  from the command line",
        "  core            0   from the environment",
        "",
        "steps:",
        "  1. one",
        "  2. two",
        "",
        "findings:",
        *("  " + line for line in text.refusal(FULL).removeprefix("rtlaunch: ").split("\n")),
        "",
        "would be refused: memlock-limit (exit 125)",
    ]


def test_what_the_lock_costs_stands_below_the_steps():
    """One line for each sentence; no title where there is none."""
    chosen = resolve({}, {}, None).options
    shown = text.plan("x", "supervise", chosen, ["one"], [], costs=["much", "more"])
    assert "  1. one\n\nthe lock costs:\n  much\n  more\n\n" in shown
    assert "costs" not in text.plan("x", "supervise", chosen, ["one"], [])


def test_a_plan_without_findings_would_start():
    """Nothing found is said, too."""
    shown = text.plan("x", "supervise", resolve({}, {}, None).options, ["one"], [])
    assert "options: all at their defaults" in shown
    assert "findings: none" in shown
    assert shown.endswith("\nwould start")


def test_the_answer_passes_over_what_was_allowed():
    """A waived error and a warning do not refuse."""
    found = [Finding("target-static", "x", waived=True), Finding("thp-always", "x")]
    assert text.answer(found) == "would start"
    assert text.answer([*found, Finding("command-not-found", "x")]).endswith("(exit 127)")
