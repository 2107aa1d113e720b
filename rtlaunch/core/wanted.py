"""What a launch wants of whoever starts the program in rtlaunch's place, in nobody's words yet.

``rtlaunch plan --as ENGINE`` renders it: :mod:`rtlaunch.report.engines` has a module for each
engine. Pure; it must not know any engine's words, nor what this host permits: an engine is asked
for what was asked of us.
"""

from __future__ import annotations

from rtlaunch.core import spelling, standalone
from rtlaunch.core.numbers import UNLIMITED
from rtlaunch.core.options import DEFAULT, SETTINGS, SWITCH
from rtlaunch.core.proof import MCL
from rtlaunch.core.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from rtlaunch.core.facts import Account
    from rtlaunch.core.findings import Finding
    from rtlaunch.core.options import Options

# How a container engine may be told of the program: all but what it, or the host, has to do.
NOT_WITHIN = ("profile", "hugepages")


class Wanted(Record):
    """One launch, as an engine is to do it.

    ``command`` begins with the program's absolute path; ``uid`` is who we are, ``owner`` the name
    of who the program shall be; ``guest`` is the guest that locks without a launcher, "" where it
    was allowed that none does; ``tunables`` is GLIBC_TUNABLES, "" for none of ours, ``preload``
    the user's own LD_PRELOAD. ``findings`` are those that the engine cannot mend.
    """

    command: tuple[str, ...]
    directory: str
    uid: int
    owner: str
    account: Account | None
    options: Options
    guest: str = ""
    tunables: str = ""
    preload: str = ""
    findings: tuple[Finding, ...] = ()


def limits(options: Options) -> tuple[tuple[str, int, int], ...]:
    """Return each limit that is asked for, soft and hard; ``max`` is unlimited."""
    asked = []
    for name in ("memlock", "core"):
        value = getattr(options, name)
        if value != "inherit":
            number = UNLIMITED if value == "max" else value
            asked.append((name, number, number))
    named = ((ask.name, ask.soft, ask.soft if ask.hard is None else ask.hard)
             for ask in options.limit)  # fmt: skip
    return (*asked, *named)


def is_root(wanted: Wanted) -> bool:
    """Tell whether the program is to be root."""
    return (wanted.account.uid if wanted.account else wanted.uid) == 0


def by_limit(options: Options) -> bool:
    """Tell whether the lock is to be permitted by a limit that was typed, not by a capability."""
    return not options.lock or isinstance(options.memlock, int)


def ambient(wanted: Wanted) -> tuple[str, ...]:
    """Return the capabilities for the program: those asked for, or what a user needs to lock."""
    asked = wanted.options.ambient_caps
    if asked is not None:
        return asked
    return () if is_root(wanted) or by_limit(wanted.options) else ("ipc_lock",)


def variables(wanted: Wanted, pid: str = standalone.BY_MANAGER) -> dict[str, str]:
    """Return the program's variables that have it lock by itself; ``pid`` is the one meant."""
    told = {"GLIBC_TUNABLES": wanted.tunables} if wanted.tunables else {}
    if not wanted.guest:
        return told
    theirs = f":{wanted.preload}" if wanted.preload else ""
    options = wanted.options
    flags = sum(MCL[flag] for flag in options.lock)
    flags |= standalone.STANDALONE_LENIENT if options.best_effort else 0
    flags |= standalone.STANDALONE_EVERY if options.children == "all" else 0
    setting = standalone.standalone_variable(flags, options.prefault_stack, pid)
    preload = wanted.guest + theirs
    return {**told, "LD_PRELOAD": preload, standalone.STANDALONE_VARIABLE: setting}


def given(options: Options) -> dict[str, list[str]]:
    """Return what was asked for, from wherever, as texts by option."""
    texts = {}
    for row in SETTINGS:
        if options.origin.get(row.name, DEFAULT) == DEFAULT:
            continue
        text = spelling.write(row, getattr(options, row.field))
        texts[row.name] = text.split(" ") if row.repeatable else [text]
    return texts


def run_line(options: Options, without: tuple[str, ...] = NOT_WITHIN) -> list[str]:
    """Return the options of the run that does the same, as words."""
    switches = {row.name for row in SETTINGS if row.kind == SWITCH}
    words: list[str] = []
    for name, texts in given(options).items():
        if name in without:
            continue
        if name in switches:
            words.append(f"--{name}" if texts == ["true"] else f"--no-{name}")
        else:
            words += [f"--{name}={text}" for text in texts]
    return words


def unsaid(options: Options, reasons: Mapping[str, str]) -> list[str]:
    """Return a line for each option that was given and that an engine has no word for."""
    return [
        f"not here: --{name} {' '.join(texts)}: {reasons[name]}"
        for name, texts in given(options).items()
        if name in reasons
    ]
