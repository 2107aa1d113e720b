"""To whom the engine says what happens, and the watcher whom it tells of faults.

The engine must not print: what is shown, and whether, is the command line's
choice. Methods may be called from the supervisor thread.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from rtlaunch.core.findings import Finding
    from rtlaunch.core.steps import Step

# How long an image exec()ed in place may take to announce itself, ns; its loader may read from a
# slow disk before the shim's constructor runs.
EXEC_PATIENCE_NS = 5_000_000_000


class Listener:
    """Hears what happens and does nothing; a command overrides what it wants to tell."""

    def plan(self, actions: Iterable[Step]) -> None:
        """Hear what will be done, before anything is."""

    def step(self, text: str) -> None:
        """Hear that an action of the plan was done, in the words of its description."""

    def finding(self, finding: Finding) -> None:
        """Hear of something found that does not end the launch."""

    def proven(self) -> None:
        """Hear that the target was told to go; what was found of it is in the outcome."""

    def fault(self, text: str) -> None:
        """Hear of page faults after arming, one line."""

    def descriptors(self) -> tuple[int, ...]:
        """Say which descriptors it needs, beside stderr."""
        return ()

    def takes_drafts(self) -> bool:
        """Tell whether a draft would be written."""
        return False

    def draft(self, findings: tuple[Finding, ...], said: bool) -> bool:
        """Hear what is known of a target that runs on; False where it could not be written.

        ``said`` is whether that was so before, and the user heard of it.
        """
        return True

    def leave_report(self) -> None:
        """Hear that another process has the report to write."""

    def leave_words(self) -> None:
        """Hear that another process says what happened."""


class Observer:
    """Hears of faults from the watcher's thread; overridden by who wants to act on them."""

    def fault(self, line: str, hidden: int) -> None:
        """Hear of a fault, in a line; ``hidden`` ones before it were too many to tell."""

    def signal(self, number: int) -> None:
        """Hear that the target shall get a signal for a fault."""

    def exceeded(self, kind: str, count: int) -> None:
        """Hear, once per kind (major, minor), that more faults fell than are allowed."""

    def unannounced(self, exec_ns: int) -> None:
        """Hear that the target exec()ed at ``exec_ns`` and no shim announced that image."""

    def sleeps(self) -> None:
        """Hear that the watcher has told what there was, and is about to sleep."""
