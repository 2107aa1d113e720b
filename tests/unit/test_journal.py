"""Entries of the journal: what is in their fields, and in which bytes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rtlaunch.core.outcome import Faults, Image, Outcome
from rtlaunch.report import journal

CATALOG = Path(__file__).parents[2] / "systemd" / "rtlaunch.catalog"


def outcome(major: int = 0) -> Outcome:
    """A run that is over, locked."""
    made = Outcome()
    made.state = "ended"
    made.target.argv, made.target.pid = ("/usr/bin/app",), 77
    made.target.images = (Image(path="/usr/bin/app", locked=True),)
    made.lock.locked_bytes, made.lock.resident_bytes, made.lock.lock_ns = 4 << 20, 5 << 20, 7
    made.lock.via, made.mode.chosen = "preload", "exec"
    made.watch.after_arm = Faults(major=major, minor=None)
    made.exit.code = 0
    return made


def test_the_proof_has_the_lock():
    """Bytes as numbers, the process, the way in, the documented id."""
    made = journal.fields(*journal.proof(outcome()))
    assert made["MESSAGE_ID"] == "5ff0400bebde4231a4dc6d20972e0f2c"
    assert made["MESSAGE"].startswith("locked 4.0 MiB (5.0 resident) of app[77]")
    assert (made["RTLAUNCH_LOCKED"], made["RTLAUNCH_LOCKED_BYTES"]) == ("1", str(4 << 20))
    assert (made["RTLAUNCH_TARGET_PID"], made["RTLAUNCH_VIA"]) == ("77", "preload")
    assert (made["RTLAUNCH_MODE"], made["PRIORITY"]) == ("exec", "6")


@pytest.mark.parametrize(("major", "priority", "word"), [(0, "6", "clean"), (3, "4", "faulted")])
def test_the_end_has_the_faults_and_the_verdict(major, priority, word):
    """A run that faulted is a warning."""
    made = journal.fields(*journal.end(outcome(major)))
    assert (made["RTLAUNCH_MAJOR"], made["RTLAUNCH_VERDICT"]) == (str(major), word)
    assert made["PRIORITY"] == priority
    assert "RTLAUNCH_MINOR" not in made  # not counted
    assert made["RTLAUNCH_EXIT_CODE"] == "0"
    assert "RTLAUNCH_EXIT_SIGNAL" not in made


def test_a_program_that_runs_unlocked_is_no_proof():
    """The message says so, and the field is 0."""
    run = outcome()
    run.target.images = (Image(path="/usr/bin/app", locked=False, why="as allowed"),)
    made = journal.fields(*journal.proof(run))
    assert (made["MESSAGE"], made["RTLAUNCH_LOCKED"]) == ("runs app[77] unlocked", "0")


@pytest.mark.parametrize(
    ("event", "priority"),
    [
        ({"event": "refused", "severity": "error"}, "3"),
        ({"event": "finding", "severity": "warning"}, "4"),
        ({"event": "finding", "severity": "error", "waived": True}, "6"),
        ({"event": "finding", "severity": "info"}, "6"),
        ({"event": "fault"}, "4"),
        ({"event": "not-locked"}, "4"),
        ({"event": "step"}, "7"),
        ({"event": "end", "verdict": "failed"}, "3"),
        ({"event": "end", "verdict": None}, "6"),
    ],
)
def test_how_urgent_an_event_is(event, priority):
    """As syslog(3) counts."""
    assert journal.priority(event) == priority


def test_a_findings_parts_are_fields():
    """Its values as JSON, so that they can be read back; the prefix of stderr is left out."""
    event = {"event": "finding", "severity": "info", "code": "swap-on", "values": {"a": [1, "b"]}}
    made = journal.fields("rtlaunch: note [swap-on]: x", event)
    assert made["MESSAGE"] == "note [swap-on]: x"
    assert (made["RTLAUNCH_CODE"], made["RTLAUNCH_VALUES"]) == ("swap-on", '{"a": [1, "b"]}')


def test_one_line_is_a_pair_and_more_are_counted():
    """The native protocol: the length of what has line ends stands before it."""
    assert journal.datagram({"A": "b", "C": "d=e"}) == b"A=b\nC=d=e\n"
    assert journal.datagram({"A": "b\nc"}) == b"A\n\3\0\0\0\0\0\0\0b\nc\n"


@pytest.mark.parametrize("kind", sorted(journal.MESSAGE_IDS))
def test_names_are_fields_to_the_journal(kind):
    """Upper case, digits and underscores, at most 64 characters."""
    event = {"event": kind, "severity": "info", "verdict": None, "some_name": 1}
    assert all(re.fullmatch("[A-Z][A-Z0-9_]{0,63}", name) for name in journal.fields("x", event))


def test_the_catalog_explains_each_id_and_no_other():
    """systemd/rtlaunch.catalog."""
    explained = re.findall("^-- ([0-9a-f]{32})$", CATALOG.read_text(), re.MULTILINE)
    assert sorted(explained) == sorted(journal.MESSAGE_IDS.values())
