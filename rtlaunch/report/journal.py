"""What the journal is told: an entry for each event, with fields to search by.

Pure: an event as the command line has it for its JSON lines goes in, a datagram of the journal's
native protocol comes out. The message ids are contract, as are the codes of findings;
systemd/rtlaunch.catalog explains them to ``journalctl -x``. It must not choose what is said.
"""

from __future__ import annotations

from rtlaunch.core.outcome import RUNNING
from rtlaunch.core.printable import one_line
from rtlaunch.report import text
from rtlaunch.report.verdict import CLEAN, FAILED, lock_ok, verdict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from rtlaunch.core.outcome import Outcome

MESSAGE_IDS = {
    "proof": "5ff0400bebde4231a4dc6d20972e0f2c",
    "end": "b18c72c4d5744e7d801fc28bdf380095",
    "refused": "cb57f8b7da8d4c6996c065b4af94b078",
    "finding": "b4c45e017d034e2d993bc20f2d17dbaa",
    "fault": "7bb342f5ae5248338b90f54057684ebf",
    "not-locked": "2b2786d563fd4541ae4e94375a372ace",
}

ERROR, WARNING, INFO, DEBUG = "3", "4", "6", "7"  # syslog(3)
PRIORITIES = {"refused": ERROR, "fault": WARNING, "not-locked": WARNING, "step": DEBUG}
SEVERITIES = {"error": ERROR, "warning": WARNING, "info": INFO}

Event = dict[str, object]


def proof(outcome: Outcome) -> tuple[str, Event]:
    """Return the message and the event for a target that has just been told to go."""
    lock = outcome.lock
    return text.begun(outcome), {
        "event": "proof",
        "locked": bool(lock_ok(outcome)),
        "locked_bytes": lock.locked_bytes,
        "resident_bytes": lock.resident_bytes,
        "stack_bytes": lock.stack_bytes,
        "lock_ns": lock.lock_ns,
        "via": lock.via,
        "mode": outcome.mode.chosen,
        "target_pid": outcome.target.pid,
        "watch": outcome.watch.source,
    }


def end(outcome: Outcome) -> tuple[str, Event]:
    """Return the message and the event for a run that is over."""
    after, last = outcome.watch.after_arm, outcome.exit
    return text.summary(outcome), {
        "event": "end",
        "verdict": verdict(outcome),
        "locked": bool(lock_ok(outcome)),
        "locked_bytes": outcome.lock.locked_bytes,
        "resident_bytes": outcome.lock.resident_bytes,
        "major": after.major if after else None,
        "minor": after.minor if after else None,
        "unseen": outcome.watch.unseen,
        "target_pid": outcome.target.pid,
        "exit_code": last.code,
        "exit_signal": last.signal,
    }


def priority(event: Mapping[str, object]) -> str:
    """Return how urgent an event is, as syslog(3) counts."""
    kind, severity = str(event["event"]), event.get("severity")
    if kind == "finding" and isinstance(severity, str) and not event.get("waived"):
        return SEVERITIES[severity]
    if kind == "end" and event["verdict"] not in (None, CLEAN, RUNNING):
        return ERROR if event["verdict"] == FAILED else WARNING
    return PRIORITIES.get(kind, INFO)


def fields(message: str, event: Mapping[str, object]) -> dict[str, str]:
    """Return an entry: what the journal knows by name, and the event's own, RTLAUNCH_ before them.

    What is not known is left out; booleans are 1 and 0.
    """
    made = {
        "MESSAGE": message.removeprefix(text.PREFIX),
        "PRIORITY": priority(event),
        "SYSLOG_IDENTIFIER": "rtlaunch",
    }
    if event["event"] in MESSAGE_IDS:
        made["MESSAGE_ID"] = MESSAGE_IDS[str(event["event"])]
    for name, value in event.items():
        if value is None or value == "" or name == "text":
            continue
        made[f"RTLAUNCH_{name.upper()}"] = shown(value)
    return made


def shown(value: object) -> str:
    """Return a value as a field's text: a number, a word, or JSON for what has parts."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, (int, str)):
        return str(value)
    import json

    return one_line(json.dumps(value, default=str))


def datagram(entry: Mapping[str, str]) -> bytes:
    """Return an entry as one datagram (systemd.io/JOURNAL_NATIVE_PROTOCOL).

    A value of several lines has its length before it, 64 bits, little-endian.
    """
    parts = []
    for name, value in entry.items():
        data = value.encode("utf-8", "surrogateescape")
        if b"\n" in data:
            parts.append(name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n")
        else:
            parts.append(name.encode() + b"=" + data + b"\n")
    return b"".join(parts)
