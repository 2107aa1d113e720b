"""What a launch comes down to: one word, for people and for a CI's ``jq``.

Pure, and the only place that decides it: the summary line and the report must
never disagree.
"""

from __future__ import annotations

from rtlaunch.core.findings import EXIT_LIMIT_EXCEEDED, first_refusal
from rtlaunch.core.outcome import ENDED, REFUSED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rtlaunch.core.outcome import Outcome

CLEAN, FAULTED, UNLOCKED, FAILED = "clean", "faulted", "unlocked", "failed"
VERDICTS = (CLEAN, FAULTED, UNLOCKED, REFUSED, FAILED)

# Refusals that are no decision of ours: something broke on the way to main().
FAILURES = frozenset({"launch-failed", "died-before-go"})

# Findings with which a program runs unlocked, once somebody allowed them.
UNLOCKING = frozenset(
    {
        "target-static", "target-setuid", "target-file-caps", "target-unreadable", "target-class",
        "target-machine", "shim-missing", "shim-path", "memlock-limit", "lock-denied",
        "lock-failed", "shim-silent", "unlocked-mappings", "proof-unreadable", "exec-unannounced",
    }
)  # fmt: skip
SPEAKING = frozenset({"exec-unannounced"})  # a warning: it needs nobody's leave


def lock_ok(outcome: Outcome) -> bool | None:
    """Tell whether every image of the target was proven locked; None before there was one."""
    images = outcome.target.images
    return all(image.locked is True for image in images) if images else None


def why_unlocked(outcome: Outcome) -> str | None:
    """Return why the first image that is not locked is not; None if all are."""
    return next(
        (image.why or "not proven" for image in outcome.target.images if not image.locked), None
    )


def unlocked_code(outcome: Outcome) -> str:
    """Return the finding's code that lets the program run unlocked, "lock" for ``--lock none``."""
    codes = [found.code for found in outcome.findings if found.waived or found.code in SPEAKING]
    return next((code for code in codes if code in UNLOCKING), "lock")


def verdict(outcome: Outcome) -> str | None:
    """Return the verdict; None while the target runs, and where faults were not counted."""
    if outcome.state == REFUSED:
        refusal = first_refusal(outcome.findings)
        return FAILED if refusal and refusal.code in FAILURES else REFUSED
    if outcome.state != ENDED:
        return None
    if not lock_ok(outcome):
        return UNLOCKED
    major = outcome.watch.after_arm.major if outcome.watch.after_arm else None
    if major or outcome.exit.rtlaunch_code == EXIT_LIMIT_EXCEEDED:
        return FAULTED
    return None if major is None else CLEAN
