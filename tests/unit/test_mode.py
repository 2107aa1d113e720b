"""Which process model the manners of an init leave."""

from __future__ import annotations

import pytest

from rtlaunch.core import mode
from rtlaunch.core.facts import Host
from tests.unit.deciding import codes, facts, options

SERVICE = facts(
    host=Host("box", "Linux 6.1", "x86_64", 4096, 10, 1),
    environ={"PATH": "/usr/bin", "SYSTEMD_EXEC_PID": "10"},
)
MANNERS = [
    ({"signal_to": "group"}, "--signal-to group needs signals to reach us first"),
    ({"rewrite": "TERM:INT"}, "--rewrite needs signals to reach us first"),
    ({"map_exit": "1=0"}, "--map-exit needs the exit status to be ours"),
]


@pytest.mark.parametrize(("asked", "why"), MANNERS)
def test_auto_stays_the_parent_for_them(asked, why):
    """Under systemd too, and says why."""
    assert mode.choose(options(), SERVICE).mode == mode.EXEC
    chosen = mode.choose(options(**asked), SERVICE)
    assert chosen.mode == mode.SUPERVISE
    assert why in chosen.why


def test_exec_by_name_in_a_step_that_kills_the_watcher_is_warned_of():
    """Once, where nothing refuses it; not in supervise mode."""
    step = facts(in_step=True)
    (found,) = mode.findings(options(mode="exec"), step)
    assert (found.code, found.refuses) == ("mode-exec-step", False)
    assert codes(mode.findings(options(mode="exec", map_exit="1=0"), step)) == ["mode-exec"]
    assert mode.findings(options(), step) == ()


@pytest.mark.parametrize(("asked", "why"), MANNERS)
def test_exec_by_name_is_refused_with_them(asked, why):
    """The option is named."""
    found = mode.findings(options(mode="exec", **asked), SERVICE)
    assert codes(found) == ["mode-exec"]
    assert why in found[0].what
