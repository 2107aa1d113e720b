"""What rtlaunch says on stderr, and where the report goes.

stderr may be closed, full, a broken pipe or one that nobody reads: that never
reaches the target, never ends the run and never holds it up. Text, remedies
and JSON are imported when there is something to say, so that a launch that goes
well pays for none of it.
"""

from __future__ import annotations

import os

from rtlaunch.cli import pack
from rtlaunch.core.findings import ERROR, INFO, WARNING, Finding, Refusal
from rtlaunch.core.options import DEFAULT
from rtlaunch.core.preflight import waive
from rtlaunch.engine.listener import Listener

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from rtlaunch.cli.report_file import ReportFile
    from rtlaunch.core.options import Options
    from rtlaunch.core.steps import Step
    from rtlaunch.engine.launch import Story

STDERR = 2
JOURNAL = "journal"
# What anything may end in where descriptors or memory have run out, an import as well.
DENIED = (ImportError, MemoryError, OSError)
PATIENCE_MS = 1000  # how long a message waits for a reader who has stopped reading

# What -q leaves: errors alone. -v adds notes and steps.
LEVELS = {"quiet": (ERROR,), "normal": (ERROR, WARNING), "verbose": (ERROR, WARNING, INFO)}


class Voice(Listener):
    """Speaks for one launch: to stderr as the options say, and into the report at its end."""

    def __init__(self, story: Story, words: list[str]) -> None:
        self.story = story
        self.words = words
        self.patience_ms = PATIENCE_MS
        self.level = "normal"
        self.mute = False
        self.log_format = "text"
        self.report: ReportFile | None = None
        self.options: Options | None = None

    def configure(self, options: Options) -> None:
        """Take how to speak, and where to report, from the options."""
        self.level = "verbose" if options.verbose else "quiet" if options.quiet else "normal"
        self.log_format = options.log_format
        stream = os.environ.get("JOURNAL_STREAM")
        if stream and options.origin["log-format"] == DEFAULT:
            from rtlaunch.linux import journal

            self.log_format = JOURNAL if journal.is_stream(STDERR, stream) else self.log_format
        self.options = options
        if options.report is not None:
            from rtlaunch.cli.report_file import ReportFile

            self.report = ReportFile(options.report)

    # ---- what the engine tells

    def plan(self, actions: Iterable[Step]) -> None:
        """Say each action of the plan, with -v."""
        if self.level == "verbose":
            for action in actions:
                self.step(action.describe())

    def step(self, text: str) -> None:
        """Say a step of the plan, with -v."""
        if self.level == "verbose":
            from rtlaunch.report.text import step

            self.say(step(text), {"event": "step", "text": text})

    def finding(self, finding: Finding) -> None:
        """Say a finding that does not end the launch, if its severity is heard."""
        shown = finding.waived or finding.severity in LEVELS[self.level]
        if not shown or (finding.waived and self.level == "quiet"):
            return
        from rtlaunch.report.text import message

        full = self.with_remedy(finding)
        self.say(message(full, self.level == "verbose"), {"event": "finding", **as_dict(full)})

    def proven(self) -> None:
        """Tell the journal of the proof."""
        if self.log_format == JOURNAL and self.level != "quiet":
            from rtlaunch.report import journal

            self.say(*journal.proof(self.story.outcome))

    def fault(self, text: str) -> None:
        """Say a line about faults after arming; -q silences it."""
        if self.level != "quiet":
            from rtlaunch.report.text import step

            self.say(step(text), {"event": "fault", "text": text})

    def descriptors(self) -> tuple[int, ...]:
        """Return the descriptors of the report and of what is still to be imported, if any."""
        own = (self.report.fd if self.report else -1, pack.file if pack else -1)
        return tuple(fd for fd in own if fd >= 0)

    def takes_drafts(self) -> bool:
        """Tell whether the report is a file: a stream takes one report alone, the last."""
        return self.report is not None and not self.report.stream

    def draft(self, findings: tuple[Finding, ...], said: bool) -> bool:
        """Write the report as it is by now, and say once what is in its way.

        The outcome stays as it was.
        """
        if self.report is None:
            return True
        outcome = self.story.outcome
        kept, outcome.findings = outcome.findings, (*outcome.findings, *findings)
        self.describe()
        outcome.time.ended_at = None
        problem = self.report.write_draft(outcome)
        outcome.findings = kept
        if not said:
            self.complain(problem)
        return not problem

    def leave_report(self) -> None:
        """Write no report: another process does."""
        self.report = None

    def leave_words(self) -> None:
        """Say nothing any more: another process does."""
        self.mute = True

    # ---- the end

    def refused(self, finding: Finding) -> int:
        """Say a refusal in its one shape, or else in a line; return its exit status."""
        try:
            self.refuse(finding)
        except DENIED:
            self.last_words(finding)
        return finding.exit_code

    def refuse(self, finding: Finding) -> None:
        """Say a refusal, here and where the container's engine looks for one."""
        from rtlaunch.report.text import refusal

        full = self.with_remedy(finding)
        text = refusal(full, self.level == "verbose")
        self.say(text, {"event": "refused", **as_dict(full)})
        from rtlaunch.cli import termination

        termination.leave(text)

    def last_words(self, finding: Finding) -> int:
        """Say a refusal where nothing can be had any more, be it a module; return its status."""
        blurt(f"rtlaunch: refused [{finding.code}]: {finding.what}")
        return finding.exit_code

    def end(self) -> None:
        """Say what the run came down to, if that can be had: the status is the program's anyhow."""
        try:
            self.summary()
        except DENIED:
            return

    def summary(self) -> None:
        """Say in one line what the run came down to; and never hide that it was not locked."""
        from rtlaunch.report.text import not_locked, summary
        from rtlaunch.report.verdict import lock_ok, unlocked_code, why_unlocked

        outcome = self.story.outcome
        if lock_ok(outcome) is False and self.level != "quiet":
            code, why = unlocked_code(outcome) or "", why_unlocked(outcome) or ""
            self.say(not_locked(code), {"event": "not-locked", "code": code, "why": why})
        if self.log_format == JOURNAL and self.level != "quiet":
            from rtlaunch.report import journal

            self.say(*journal.end(outcome))
        elif self.level == "verbose" or (self.level == "normal" and os.isatty(STDERR)):
            self.say(summary(outcome), {"event": "summary", "text": summary(outcome)})

    def open_report(self) -> None:
        """Make sure that the report can be written; Refusal ``report-unwritable`` otherwise.

        Where that was allowed, it is said, and there is no report.
        """
        if self.report is None or self.options is None:
            return
        try:
            self.report.prepare(self.story.outcome)
        except Refusal as refusal:
            self.report = None
            finding = waive(refusal.finding, self.options)
            if finding.refuses:
                raise
            self.finding(finding)

    def close_report(self) -> None:
        """Write the report, whole or not at all; an error is said, and costs the target nothing."""
        if self.report is None:
            return
        try:
            self.describe()
            self.complain(self.report.write(self.story.outcome))
        except DENIED as error:
            why = str(error) or "no memory is left"
            if isinstance(error, ImportError):  # it takes an installation without a pack
                why = f"a part of rtlaunch was taken away, or cannot be loaded ({why})"
            blurt(f"rtlaunch: the report is not written: {why}; the exit status is as it was")

    # ---- helpers

    def describe(self) -> None:
        """Fill in what only a report needs of the outcome."""
        from rtlaunch.cli import surroundings

        outcome = self.story.outcome
        surroundings.describe(outcome, self.options)
        outcome.findings = tuple(self.with_remedy(found) for found in outcome.findings)

    def complain(self, problem: str) -> None:
        """Say what kept the report from being written, if anything did."""
        if problem:
            self.finding(Finding("report-unwritable", problem, waived=True))

    def with_remedy(self, finding: Finding) -> Finding:
        """Return ``finding`` with the remedy that fits where we are."""
        from rtlaunch.cli import surroundings

        return surroundings.with_remedy(finding, self.words)

    def say(self, text: str, event: dict[str, object]) -> None:
        """Write one message to stderr, as text or as one line of JSON; or an entry of the journal.

        Where that has no socket here, the text goes to stderr.
        """
        if self.mute or (self.log_format == JOURNAL and self.in_journal(text, event)):
            return
        if self.log_format == "json":
            import json

            text = json.dumps(event, default=str)
        from rtlaunch.cli.outlet import Stalled, write_whole

        try:
            write_whole(STDERR, (text + "\n").encode("utf-8", "surrogateescape"), self.patience_ms)
            self.patience_ms = PATIENCE_MS
        except Stalled:
            self.patience_ms = 0  # what comes next does not wait again
        except OSError:
            return  # EPIPE, ENOSPC, EBADF, EIO, EAGAIN: nobody takes it

    def in_journal(self, text: str, event: dict[str, object]) -> bool:
        """Write one message into the journal; False where that cannot be."""
        from rtlaunch.linux import journal as socket
        from rtlaunch.report import journal

        try:
            entry = journal.datagram(journal.fields(text, event))
            socket.send(entry, self.patience_ms / 1000)
        except OSError:
            return False
        return True


def blurt(text: str) -> None:
    """Write one line to stderr, by nothing but a system call."""
    plain = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    try:
        os.write(STDERR, f"{plain}\n".encode())
    except OSError:
        return


def as_dict(finding: Finding) -> dict[str, object]:
    """Return a finding's fields for a JSON line."""
    return {
        "code": finding.code,
        "severity": finding.severity,
        **{name: getattr(finding, name) for name in type(finding)._fields if name != "code"},
    }
