"""To whom the engine says what happens, as it happens.

The engine must not print: what is shown, and whether, is the command line's
choice. Methods may be called from the supervisor thread.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rtlaunch.core.findings import Finding


class Listener:
    """Hears what happens and does nothing; a command overrides what it wants to tell."""

    def step(self, text: str) -> None:
        """Hear that an action of the plan was done, in the words of its description."""

    def finding(self, finding: Finding) -> None:
        """Hear of something found that does not end the launch."""

    def fault(self, text: str) -> None:
        """Hear of page faults after arming, one line."""
