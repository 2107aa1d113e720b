"""What a launch is decided on: everything survey read, as values.

It holds records only. Whoever needs a new fact adds a field here and reads it
in :mod:`rtlaunch.engine.survey`; whoever decides takes it from here.
"""

from __future__ import annotations

from rtlaunch.core.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from rtlaunch.core.budget import Memory
    from rtlaunch.core.caps import Credentials
    from rtlaunch.core.heap import HeapFacts
    from rtlaunch.core.hugepages import HugeFacts
    from rtlaunch.core.limits import Limit
    from rtlaunch.core.target import Reach, Target


class Account(Record):
    """The user of ``--user``, from passwd(5) and group(5)."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    shell: str


class Host(Record):
    """The machine: uname(2), page size in bytes, and whose process we are."""

    name: str
    kernel: str
    arch: str
    page_bytes: int
    pid: int
    parent_pid: int


class Shim(Record):
    """The preload object for the target's machine.

    ``path`` is where it lies; ``preload`` is a name for it that LD_PRELOAD can
    carry (no space, no colon), empty when there is none. ``hidden`` is why the
    user of ``--user`` cannot read it there, "" where that user can; ``both`` says
    that a loader of the other word size finds its own shim by that name.
    """

    machine: str
    path: str
    preload: str
    noexec: bool = False
    hidden: str = ""
    both: bool = False


class Shape(Record):
    """What bounds threads' stacks and transparent huge pages; read only where they are asked for.

    ``thread_stack_least`` is sysconf's, in bytes; ``thp_system`` the policy for
    all: ``always``, ``madvise`` or ``never``; ``thp_disabled`` our own
    PR_GET_THP_DISABLE; ``thp_except_advised`` whether the kernel has that flag.
    """

    thread_stack_least: int = 0
    thp_system: str = ""
    thp_disabled: int = 0
    thp_except_advised: bool = False


class Facts(Record):
    """All facts of a launch, read once before anything is changed.

    ``cpus`` is the affinity mask, ``possible_cpus`` the CPUs that our cpuset
    lets us ask for; ``account`` is None without ``--user``; ``shim`` is None
    when the package holds none for this machine; ``memory`` is None where nobody asked.
    ``no_realtime`` is the directory of our cpu cgroup where that may hold no real-time task, and
    empty where it may or nobody asked. ``parent_is_manager`` and what follows it are read only
    where somebody asks for exec mode, or a service manager's variables are there: ``unit`` is the
    service whose main process we are, ``unit_type`` its Type=, both empty where there is none;
    ``in_step`` whether Slurm holds us in a cgroup that it kills when its last task has ended.
    ``notify_error`` is why nobody could be told of readiness, where that was asked for.
    ``has_terminal`` is read only for ``--signal-to group``. ``policy`` is the kernel's number, with
    the flag SCHED_RESET_ON_FORK where that is set.
    """

    host: Host
    who: Credentials
    limits: Mapping[str, Limit]
    cpus: frozenset[int]
    possible_cpus: frozenset[int]
    policy: int
    nice: int
    target: Target
    reach: Reach
    shim: Shim | None
    account: Account | None
    environ: Mapping[str, str]
    shape: Shape | None = None
    hugepages: HugeFacts | None = None
    memory: Memory | None = None
    heap: HeapFacts | None = None
    no_realtime: str = ""
    parent_is_manager: bool = False
    at_terminal: bool = False
    is_subreaper: bool = False
    in_step: bool = False
    unit: str = ""
    unit_type: str = ""
    notify_error: str = ""
    has_terminal: bool = False
    rt_priority: int = 0
