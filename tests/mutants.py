"""Break rtlaunch on purpose, one way at a time: each break must turn a test red (make mutants).

A test that passes whatever the code does proves nothing. Each mutant is an exact replacement in a
copy of this tree; the copy is installed by links beside the dependencies that are here already,
and the tests of the promise that it breaks are run. The unmutated copy must be green.

It exits with 1 if a mutant survives, if the unmutated copy is red, or if the code has moved on
from under a replacement.
"""

from __future__ import annotations

import compileall
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = Path("bin", "python3")
NOT_COPIED = (".git", ".venv", "build", "dist", "__pycache__", ".*_cache", ".hypothesis")
FAILED = 1  # pytest's exit status when tests failed; any other is no verdict

LOCK, LIMITS = "tests/kernel/test_lock.py", "tests/kernel/test_limits.py"
BUDGET = "tests/kernel/test_budget.py"
DRAFTS = "tests/kernel/test_drafts.py"
FIT = "tests/kernel/test_fit.py"
FOLLOWED = "tests/kernel/test_followed.py"
THREAD_STACK = "tests/kernel/test_thread_stack.py"
WATCHING = "tests/kernel/test_watching.py::test_with_proc_faults_are_counted_not_placed"
SHIM = "rtlaunch/native/shim.c"
HANDSHAKE = "rtlaunch/engine/handshake.py"
HEAP = "tests/kernel/test_heap.py"
STANDALONE, ALONE = "rtlaunch/native/standalone.c", "tests/native/test_standalone.py"
READINESS = "tests/kernel/test_readiness.py"


@dataclass(frozen=True)
class Mutant:
    """One break: in ``file``, each old text, which stands there once, becomes the new one."""

    what: str
    file: str
    changes: tuple[tuple[str, str], ...]
    tests: tuple[str, ...]


MUTANTS = (
    Mutant(
        "Slurm is taken to signal all of a step that it holds in a cgroup",
        "rtlaunch/core/forwarding.py",
        (("return same_cgroup and bool(", "return bool("),),
        ("tests/unit/test_forwarding.py",),
    ),
    Mutant(
        "a draft of the report leaves out what was found before the start",
        "rtlaunch/engine/launch.py",
        (
            ("    story.outcome.findings += found  #", "    pass  #"),
            ("findings += supervisor.findings()", "findings += (*found, *supervisor.findings())"),
        ),
        (DRAFTS,),
    ),
    Mutant(
        "the shim skips mlockall",
        "rtlaunch/native/lock.h",
        (("(int32_t)-arch_syscall(__NR_mlockall,", "0 * (int32_t)arch_syscall(__NR_getpid,"),),
        (LOCK,),
    ),
    Mutant(
        "the launcher ignores the record",
        "rtlaunch/core/proof.py",
        (
            ("    if record.error:\n", "    if False:\n"),
            ("locked=not record.error and not missing,", "locked=not missing,"),
        ),
        (LIMITS,),
    ),
    Mutant(
        "the flags lack MCL_FUTURE",
        "rtlaunch/core/proof.py",
        (('MCL = {"current": 1, "future": 2,', 'MCL = {"current": 1, "future": 0,'),),
        (LOCK,),
    ),
    Mutant(
        "the stack is not touched",
        SHIM,
        (
            (
                "stack = touch_stack(told->stack_bytes, told->stack_low);\n",
                "stack = {0, sizeof touch_stack};\n",
            ),
        ),
        (LOCK,),
    ),
    Mutant(
        "the stack limit is not restored",
        SHIM,
        (
            (
                "    if (!told->stack_limit || sys_prlimit_stack(told->stack_limit) == 0) {\n",
                "    if (!told->stack_limit || sizeof sys_prlimit_stack) {\n",
            ),
        ),
        (THREAD_STACK,),
    ),
    Mutant(
        "the guest that locks alone believes mlockall",
        STANDALONE,
        (("        else if (!books.locked_kb)\n", "        else if (!order)\n"),),
        (ALONE,),
    ),
    Mutant(
        "the guest that locks alone locks every child",
        STANDALONE,
        (("    return !pid || pid == sys_getpid();\n", "    return !pid || sys_getpid();\n"),),
        (ALONE,),
    ),
    Mutant(
        "the guest that locks alone runs on when it failed",
        STANDALONE,
        (
            (
                "    if (!(order->flags & RTL_STANDALONE_LENIENT))\n",
                "    if (sizeof *order == sizeof refuse)\n",
            ),
        ),
        (ALONE,),
    ),
    Mutant(
        "the heap guest reserves nothing",
        "rtlaunch/native/heap.c",
        (("        reserve(&heap);\n", "        (void)&reserve;\n"),),
        (HEAP,),
    ),
    Mutant(
        "large blocks are mapped beside the heap",
        "rtlaunch/core/heap.py",
        (('        MMAP_MAX: "0",\n', '        MMAP_MAX: "65536",\n'),),
        (HEAP,),
    ),
    Mutant(
        "the heap is not looked at",
        "rtlaunch/engine/shapeproof.py",
        (("        *find_heap(handshake, name),\n", ""),),
        (HEAP,),
    ),
    Mutant(
        "the fault counter is stuck at 0",
        "rtlaunch/engine/sentry.py",
        (
            (
                "major = result.earlier_major + last.majflt - self.armed.majflt\n",
                "major = 0\n",
            ),
        ),
        (WATCHING,),
    ),
    Mutant(
        "a limit is not read back",
        HANDSHAKE,
        (("row.after = books.limits[name]\n", "row.after = row.before\n"),),
        (LIMITS,),
    ),
    Mutant(
        "go is sent before the proof",
        HANDSHAKE,
        (
            (
                '        """Judge a record and say go, or raise :class:`Refused` (the image still '
                'stands)."""\n',
                "        conversation.say(self.word_to_go(conversation))\n",
            ),
            (
                '        """Say go."""\n        conversation.say(self.word_to_go(conversation))\n',
                '        """Say go."""\n',
            ),
        ),
        (LOCK,),
    ),
    Mutant(
        "READY=1 is said before the proof",
        HANDSHAKE,
        (
            (
                "        elif conversation.is_target:\n"
                "            self.conclude_target(conversation, record)\n",
                "        elif conversation.is_target:\n"
                "            self.readiness and self.readiness.announce(conversation)\n"
                "            self.conclude_target(conversation, record)\n",
            ),
        ),
        (READINESS,),
    ),
    Mutant(
        "limits of the cgroups above are not read",
        "rtlaunch/core/cgroup.py",
        (("depths = range(len(parts), -1, -1)\n", "depths = (len(parts),)\n"),),
        (BUDGET,),
    ),
    Mutant(
        "page cache counts as taken",
        "rtlaunch/core/cgroup.py",
        (("max(0, (self.usage or 0) - self.cache)", "max(0, self.usage or 0)"),),
        (BUDGET,),
    ),
    Mutant(
        "what fit measured is not asked",
        "rtlaunch/core/budget.py",
        (("    if fitted is None:\n", "    if True:\n"),),
        (BUDGET,),
    ),
    Mutant(
        "fit does not look at the end",
        "rtlaunch/engine/gauge.py",
        (
            (
                "ptrace.EVENT_EXIT:\n                self.measure(full=True)",
                "ptrace.EVENT_EXIT:\n                pass",
            ),
        ),
        (FIT,),
    ),
    Mutant(
        "fit measures with the stacks that it does not recommend",
        "rtlaunch/cli/fit.py",
        (("choice.thread_stack or options.thread_stack", "options.thread_stack"),),
        (FIT,),
    ),
    Mutant(
        "fit forgets what no access is allowed to",
        "rtlaunch/core/fit.py",
        (
            (
                "for mapping in mappings if proof.lockable(mapping)]",
                "for mapping in mappings if proof.lockable(mapping) and mapping.accessible]",
            ),
        ),
        ("tests/unit/test_fit.py",),
    ),
    Mutant(
        "fit recommends a limit that leaves a half",
        "rtlaunch/core/fitting.py",
        (
            ("MARGIN_SHARE = 8 ", "MARGIN_SHARE = 2 "),
            ("MARGIN_MOST_SHARE = 4 ", "MARGIN_MOST_SHARE = 2 "),
        ),
        ("tests/unit/test_fit.py",),
    ),
    Mutant(
        "what a shell execs is not followed",
        "rtlaunch/engine/inject.py",
        (("FOLLOWING = ptrace.O_TRACEEXEC | ", "FOLLOWING = "),),
        (FOLLOWED,),
    ),
    Mutant(
        "a shim that cannot speak is waited for",
        "rtlaunch/engine/chain.py",
        (
            (
                "            and is_dynamic(pid, (shim.machine, *BOTH) if shim.both else "
                "(shim.machine,))\n",
                "",
            ),
        ),
        (FOLLOWED,),
    ),
    Mutant(
        "privileges that a traced exec took are not missed",
        "rtlaunch/engine/chain.py",
        (("else robbed(pid)", "else None"),),
        (FOLLOWED,),
    ),
    Mutant(
        "a stopped tracee is run on",
        "rtlaunch/engine/inject.py",
        (("            ptrace.listen(self.pid)\n", "            ptrace.go_on(self.pid)\n"),),
        (FOLLOWED,),
    ),
    Mutant(
        "every child is meant",
        "rtlaunch/core/children.py",
        (
            ("        return children == ALL\n", "        return True\n"),
            ("    return any(matches(", "    return True or any(matches("),
        ),
        ("tests/kernel/test_children_named.py",),
    ),
    Mutant(
        "the side process writes drafts itself",
        "rtlaunch/engine/drafts.py",
        (("            self.pid = os.fork()\n", "            raise OSError\n"),),
        (DRAFTS,),
    ),
    Mutant(
        "who writes a draft holds what watches",
        "rtlaunch/engine/drafts.py",
        (("            let_go({0, 1, STDERR, *self.listener.descriptors()})\n", ""),),
        (DRAFTS,),
    ),
    Mutant(
        "two drafts are written at a time",
        "rtlaunch/engine/drafts.py",
        (("not self.due_ns or self.pid", "not self.due_ns"),),
        (DRAFTS,),
    ),
    Mutant(
        "who writes a draft outlives the side process",
        "rtlaunch/engine/drafts.py",
        (("prctl.set_pdeathsig(_signal.SIGKILL)", "prctl.set_pdeathsig(0)"),),
        (DRAFTS,),
    ),
    Mutant(
        "what is missing at the end costs the exit code",
        "rtlaunch/cli/voice.py",
        (
            (
                "except DENIED as error:\n            why =",
                "except EOFError as error:\n            why =",
            ),
        ),
        ("tests/kernel/test_upgrade.py::test_without_a_pack_the_exit_code_is_still_the_targets",),
    ),
    Mutant(
        "the watcher can be held while it is awake",
        "rtlaunch/engine/watch.py",
        (
            ("return self._awake.acquire(blocking=False)", "return True"),
            ('Let the watcher wake up again."""\n        self._awake.release()', 'Do not."""\n'),
        ),
        ("tests/kernel/test_watch.py::test_the_watcher_is_held_only_while_it_sleeps",),
    ),
)


class Copy:
    """A copy of the tree, and an environment in which it is the installed rtlaunch."""

    def __init__(self, folder: Path) -> None:
        self.tree = folder / "tree"
        self.environment = folder / "environment"
        shutil.copytree(ROOT, self.tree, ignore=shutil.ignore_patterns(*NOT_COPIED))
        self.link()
        self.compile(SHIM)
        self.compile("rtlaunch")

    def link(self) -> None:
        """Make a virtual environment of links: interpreter, dependencies, and our package."""
        here = Path(sys.prefix)
        packages = Path(sysconfig.get_path("purelib"))
        linked = self.environment / packages.relative_to(here)
        linked.mkdir(parents=True)
        for path in packages.iterdir():
            if path.name not in ("rtlaunch", "__pycache__"):
                (linked / path.name).symlink_to(path)
        (linked / "rtlaunch").symlink_to(self.tree / "rtlaunch")
        (self.environment / "bin").mkdir()
        (self.environment / PYTHON).symlink_to(os.path.realpath(sys.executable))
        shutil.copy2(here / "bin" / "rtlaunch", self.environment / "bin")
        shutil.copy2(here / "pyvenv.cfg", self.environment)

    def compile(self, changed: str) -> None:
        """Make what the installed form of a changed file is: the guests, or compiled modules."""
        if changed.endswith((".c", ".h")):
            subprocess.run(
                [self.environment / PYTHON, "hatch_build.py"],
                cwd=self.tree,
                check=True,
                stdout=subprocess.DEVNULL,
            )
        elif changed == "rtlaunch":
            compileall.compile_dir(self.tree / changed, quiet=1)
        else:
            compileall.compile_file(self.tree / changed, quiet=1, force=True)

    def test(self, *tests: str) -> tuple[int, str]:
        """Run tests until the first that fails; return pytest's status and output."""
        command = [self.environment / PYTHON, "-m", "pytest", "-x", "-q", "--timeout=30"]
        command += ["-p", "no:cacheprovider", *tests]
        ran = subprocess.run(command, cwd=self.tree, capture_output=True, text=True, check=False)
        return ran.returncode, ran.stdout + ran.stderr

    def mutate(self, mutant: Mutant) -> None:
        """Change the copy; SystemExit where the code is not what the mutant was written for."""
        file = self.tree / mutant.file
        text = file.read_text()
        for old, new in mutant.changes:
            if text.count(old) != 1:
                raise SystemExit(f"{mutant.what}: {mutant.file} has {text.count(old)} of {old!r}")
            text = text.replace(old, new)
        file.write_text(text)
        self.compile(mutant.file)

    def heal(self, mutant: Mutant) -> None:
        """Take the change back."""
        shutil.copy2(ROOT / mutant.file, self.tree / mutant.file)
        self.compile(mutant.file)


def first_failure(output: str) -> str:
    """Return the test that pytest's summary names first."""
    lines = [line for line in output.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    return lines[0].split()[1] if lines else "no test is named"


def is_caught(copy: Copy, mutant: Mutant) -> bool:
    """Tell whether a test turns red when ``mutant`` is applied, and say which."""
    copy.mutate(mutant)
    began = time.monotonic()
    status, output = copy.test(*mutant.tests)
    took = time.monotonic() - began
    copy.heal(mutant)
    if status != FAILED:
        print(f"SURVIVED  {mutant.what} (pytest: {status}, {took:.0f} s)")
        print(output if status else "")
        return False
    print(f"caught    {mutant.what} (by {first_failure(output)}, {took:.0f} s)", flush=True)
    return True


def main() -> int:
    """Run all mutants; return the exit status."""
    with tempfile.TemporaryDirectory(prefix="rtlaunch-mutants-") as folder:
        Path(folder).chmod(0o755)  # other users run it, too
        copy = Copy(Path(folder))
        every = sorted({test for mutant in MUTANTS for test in mutant.tests})
        status, output = copy.test(*every)
        if status:
            print(f"{output}\nthe unmutated code is red: {first_failure(output)}")
            return 1
        print(f"green     the code as it is ({', '.join(every)})", flush=True)
        caught = [is_caught(copy, mutant) for mutant in MUTANTS]
    print(f"{sum(caught)} of {len(caught)} mutants caught")
    return 0 if all(caught) else 1


if __name__ == "__main__":
    sys.exit(main())
