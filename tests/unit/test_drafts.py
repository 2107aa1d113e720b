"""Drafts: when one is begun, and what is done where no process can be had for it."""

from __future__ import annotations

import errno
import os
import time

import pytest

from rtlaunch.core.findings import Finding
from rtlaunch.engine.drafts import Drafts
from rtlaunch.engine.listener import Listener


class Ear(Listener):
    """Notes in which process a draft was asked for; none can be written."""

    def __init__(self, takes: bool = True) -> None:
        self.takes = takes
        self.pids: list[int] = []
        self.said: list[bool] = []

    def takes_drafts(self) -> bool:
        return self.takes

    def draft(self, findings: tuple[Finding, ...], said: bool) -> bool:
        self.pids.append(os.getpid())
        self.said.append(said)
        return False


def refused() -> int:
    raise BlockingIOError(errno.EAGAIN, "no process is left")


def test_where_no_process_can_be_had_it_is_written_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocking beats having none."""
    monkeypatch.setattr(os, "fork", refused)
    ear = Ear()
    Drafts(ear).begin(())
    assert ear.pids == [os.getpid()]


def test_what_is_in_the_way_is_to_be_said_the_first_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """By whoever writes: the side process remembers it for the next."""
    ear = Ear()
    drafts = Drafts(ear)
    monkeypatch.setattr(os, "fork", refused)
    drafts.begin(())
    drafts.begin(())
    assert ear.said == [False, True]


def test_no_process_is_made_for_a_draft_that_nobody_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """No report, or a stream: neither a fork nor a draft."""
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("it forked"))
    ear = Ear(takes=False)
    Drafts(ear).begin(())
    assert ear.pids == []


def test_a_draft_is_due_at_once_and_then_a_second_after_the_last() -> None:
    """Nothing is due until one is wanted; one that is under way is waited for without a timer."""
    drafts = Drafts(Ear())
    assert drafts.patience_ms() is None
    drafts.want()
    assert drafts.patience_ms() == 0
    drafts.begun_ns = time.monotonic_ns()
    drafts.want()
    patience = drafts.patience_ms()
    assert patience is not None
    assert 900 < patience <= 1000
    drafts.pid = 1
    assert drafts.patience_ms() is None
