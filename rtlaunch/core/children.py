"""Children: which of them are meant by ``--children``, and whether they did the program's work.

Pure. Who a child is, is told by the kernel: the path of the executable that it runs
(/proc/PID/exe), which for a script is its interpreter's.
"""

from __future__ import annotations

from rtlaunch.core.findings import Finding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rtlaunch.core.proc import Stat

NONE, ALL = "none", "all"
_DELETED = " (deleted)"  # what the kernel appends to the path of a file that is gone

LEFT_ALONE = "a lock does not pass to a child (fork(2)), and --children none leaves them alone"
OUT_OF_REACH = (
    "a lock does not pass to a child (fork(2)); --children %s locks what it execs through a loader:"
    " a child that only forks, or runs a static program, has no shim in it"
)

# Less than this is no work: a shell's own helpers use as much, s.
LEAST_WORK_S = 0.1


def is_meant(children: str, path: str) -> bool:
    """Tell whether a child that runs ``path`` is to be locked; ``children`` is the option's."""
    if children in (NONE, ALL):
        return children == ALL
    path = path.removesuffix(_DELETED)
    name = path.rpartition("/")[2]
    patterns = children.split(",")
    return any(matches(pattern, path if "/" in pattern else name) for pattern in patterns)


def matches(pattern: str, text: str) -> bool:
    """Match the whole text as fnmatch(3) does without flags: ``*``, ``?``, ``[set]``, ``[!set]``.

    A ``*`` spans slashes too. A bracket that is not closed is itself.
    """
    at = here = 0
    star, resume = -1, 0
    while here < len(text):
        taken, length = _one(pattern, at, text[here])
        if pattern[at : at + 1] == "*":
            star, resume = at, here
            at += 1
        elif taken:
            at, here = at + length, here + 1
        elif star >= 0:
            resume += 1
            at, here = star + 1, resume
        else:
            return False
    return not pattern[at:].strip("*")


def _one(pattern: str, at: int, letter: str) -> tuple[bool, int]:
    """Match one letter by what stands in the pattern; return also how long that is."""
    sign = pattern[at : at + 1]
    if sign == "?":
        return True, 1
    if sign == "[":
        negated = pattern[at + 1 : at + 2] in ("!", "^")
        start = at + 1 + negated
        end = pattern.find("]", start + 1)
        if end > 0:
            return _in_set(pattern[start:end], letter) != negated, end + 1 - at
    return sign == letter, 1


def _in_set(letters: str, letter: str) -> bool:
    """Tell whether a letter is in a set such as ``a-z_``."""
    at = 0
    while at < len(letters):
        if letters[at + 1 : at + 2] == "-" and at + 2 < len(letters):
            if letters[at] <= letter <= letters[at + 2]:
                return True
            at += 3
        else:
            if letters[at] == letter:
                return True
            at += 1
    return False


def did_the_work(last: Stat, ticks: int, meant: str = NONE) -> Finding | None:
    """Find that the children used more CPU time than the program, by its last stat.

    For a program none of whose children was locked, as those ``meant`` were to be. ``ticks`` are
    the clock's, per second. The kernel counts the children that were waited for, and theirs.
    """
    own, theirs = (last.utime + last.stime) / ticks, (last.cutime + last.cstime) / ticks
    if theirs < LEAST_WORK_S or theirs <= own:
        return None
    return Finding(
        "work-in-child",
        f"the children of {last.comm} used {theirs:.2f} s of CPU time, it itself {own:.2f} s: "
        "they did the work, and they were not locked",
        why=LEFT_ALONE if meant == NONE else OUT_OF_REACH % meant,
        values={
            "program": last.comm,
            "own_seconds": own,
            "children_seconds": theirs,
            "children": meant,
        },
    )


def went_on(program: str, pids: Sequence[int]) -> Finding:
    """Find that a program which has ended goes on in forks of itself."""
    listed = ", ".join(map(str, pids))
    return Finding(
        "daemonized",
        f"{program} has ended and goes on in a fork of itself (PID {listed}), which is not locked",
        why="a lock does not pass to a child (fork(2)), and no shim runs in one that does not exec",
        values={"program": program, "pid": pids[0], "pids": list(pids)},
    )
