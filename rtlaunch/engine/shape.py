"""Reading what bounds ``--thread-stack`` and ``--thp`` on this machine.

Imported only for these two. Whether the kernel knows a flag is asked of the kernel, by setting
it on ourselves and taking it back: a version number would be wrong where it was backported.
"""

from __future__ import annotations

import os

from rtlaunch.core import thp
from rtlaunch.core.facts import Shape
from rtlaunch.linux import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rtlaunch.core.options import Options

THP = "/sys/kernel/mm/transparent_hugepage"


def read(options: Options) -> Shape:
    """Return the facts; those of an option that was not given stay at their defaults."""
    least = thread_stack_least() if options.thread_stack is not None else 0
    if options.thp == thp.INHERIT:
        return Shape(thread_stack_least=least)
    from rtlaunch.linux import libc

    disabled = libc.get_thp_disable()
    return Shape(
        thread_stack_least=least,
        thp_system=thp_system(),
        thp_disabled=disabled,
        thp_except_advised=options.thp == thp.MADVISE and knows_except_advised(disabled),
    )


def thread_stack_least() -> int:
    """Return sysconf(_SC_THREAD_STACK_MIN) in bytes, which grows with the CPU's registers."""
    try:
        return max(0, os.sysconf("SC_THREAD_STACK_MIN"))
    except (OSError, ValueError):
        return 0  # a libc that does not know the name


def thp_system() -> str:
    """Return the policy for transparent huge pages of the whole system."""
    try:
        names = os.listdir(THP)
    except OSError:
        return thp.NEVER  # a kernel without them
    sizes = (f"{THP}/{name}/enabled" for name in names if name.startswith("hugepages-"))
    return thp.system_policy(
        files.read_setting(f"{THP}/enabled"), [files.read_setting(path) for path in sizes]
    )


def knows_except_advised(before: int) -> bool:
    """Tell whether the kernel has PR_THP_DISABLE_EXCEPT_ADVISED; our own flag is put back."""
    from rtlaunch.linux import libc

    try:
        libc.set_thp_disable(1, thp.EXCEPT_ADVISED)
    except OSError:
        return False
    libc.set_thp_disable(before & 1, before & ~1)
    return True
