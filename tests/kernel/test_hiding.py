"""Programs that close all descriptors, clear their environment, or cannot be looked at any more.

All of that comes after main() began, so what was locked and proven stays so, and is watched.
"""

from __future__ import annotations

import pytest

from tests import books
from tests.host import compile_c, wait_until
from tests.kernel import attack
from tests.kernel.injecting import SOURCES
from tests.kernel.runners import call, refused_as, started
from tests.launching import AS_NOBODY
from tests.standing import standing

HIDING = [["close"], ["clear"], ["undumpable"], ["close", "clear", "undumpable"]]


@pytest.fixture(params=["dynamic", "static"])
def hider(request, room):
    """By the shim, and by ptrace."""
    program = room / f"hider-{request.param}"
    if not program.exists():
        flags = ("-static",) if request.param == "static" else ()
        compile_c(SOURCES / "hider.c", program, *flags)
    return program


@pytest.mark.parametrize("words", HIDING, ids=" ".join)
def test_what_hides_stays_locked_and_watched(anybody, hider, words):
    """For every user: all of it is locked, no page can be pushed out, its faults are counted."""
    attack.need_right()
    with standing(anybody, "--", hider, *words) as held:
        assert books.not_held(held.pid) == []
        answers = attack.page_out(held.pid)
        assert (answers.taken, answers.refused > 4) == (0, True)
        held.ask("counts")
        ran = held.end()
    assert (ran.code, ran.report["complete"], ran.report["verdict"]) == (0, True, "clean")
    assert (ran.report["lock"]["ok"], ran.report["watch"]["after_arm"]["major"]) == (True, 0)


@pytest.mark.parametrize("words", HIDING, ids=" ".join)
def test_the_faults_of_what_hides_are_counted(anybody, hider, words, here):
    """The control: not locked, the same attack; what it counts itself is what the report says."""
    attack.need_right()
    program = attack.own_copy(hider, here)
    with standing(anybody, "--lock", "none", "--", program, *words) as held:
        before = held.number("counts")
        wait_until(lambda: attack.page_out(held.pid) and held.number("counts") > before, "no fault")
        faults = held.number("counts") - before
        ran = held.end()
    assert ran.report["watch"]["after_arm"]["major"] >= faults > 0


@pytest.mark.parametrize("words", HIDING, ids=" ".join)
def test_what_hides_is_locked_by_root(rtlaunch, hider, words):
    """rtlaunch lock PID needs nothing of what it hid."""
    attack.need_right()
    with started(hider, *words) as runner:
        assert call(rtlaunch, "lock", runner.pid).code == 0
        assert books.not_held(runner.pid) == []
        runner.say("")
        assert runner.lines.line() == "0"


def test_who_may_not_look_may_not_lock(as_user, hider):
    """Its own user is refused by name, as a debugger would be, and it is left alone."""
    with started(*AS_NOBODY, hider, "undumpable") as runner:
        ran = call(as_user("ambient"), "lock", runner.pid)
        assert refused_as(ran) == "attach-denied"
        assert books.locked_bytes(runner.pid) == 0
        assert books.status(runner.pid)["TracerPid"] == "0"
