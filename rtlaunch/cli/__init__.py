"""TALK: the command line; turns errors into exit codes, in one place; imports all."""

from __future__ import annotations

import marshal
import os
import sys
from _frozen_importlib_external import MAGIC_NUMBER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType


# What a pack begins with: Python's magic number, a digest of the rest, the size of the index.
MARK_BYTES = len(MAGIC_NUMBER) + 16 + 4


class Pack:
    """The first place where a module is looked for: one file of all that a launch imports.

    In place of fifty files that are found, opened, read and checked one by one. The build makes it
    for its own version of Python; without it, or with another, all is found where it always is
    (docs/decisions/0013). A group is read when its first module is wanted, and all of it is run
    then, each module after what it imports: Python's import system takes as long for a module as
    the module itself.

    The file stays open: a program may run for months, and what is wanted at its end must be of the
    version that began, whatever lies in the package's folder by then.
    """

    def __init__(self, file: int, mark: bytes, root: str) -> None:
        self.file = file
        self._mark = mark
        self._root = root
        self._groups: dict[str, int]
        self._places: list[tuple[int, int]]
        size = int.from_bytes(mark[-4:], "little")
        self._groups, self._places = marshal.loads(os.pread(file, size, MARK_BYTES))

    @classmethod
    def beside(cls, package: str) -> Pack | None:
        """Open the pack of the package in folder ``package``; None where none is fit for use."""
        try:
            file = open_high(f"{package}/launch.{sys.implementation.cache_tag}.pack")
        except OSError:
            return None
        mark = os.pread(file, MARK_BYTES, 0)
        if mark[: len(MAGIC_NUMBER)] != MAGIC_NUMBER:
            os.close(file)
            return None
        return cls(file, mark, package.rpartition("/")[0])

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Run the group of module ``name``, if it is in the pack."""
        group = self._groups.get(name)
        if group is None:
            return None
        if not self._run(group):
            self._groups.clear()
            return None
        module = sys.modules[name]
        spec = type(__spec__)(name, self, origin=module.__file__)  # type: ignore[arg-type]
        spec.submodule_search_locations = module.__dict__.get("__path__")
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module, which was run when it was looked for."""
        return sys.modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: its code was run."""

    def _run(self, group: int) -> bool:
        """Run the modules of a group; False where somebody wrote over the pack."""
        start, size = self._places[group]
        if os.pread(self.file, MARK_BYTES, 0) != self._mark:
            return False
        packed = marshal.loads(os.pread(self.file, size, start))
        for name, where, code in packed:
            make_module(name, f"{self._root}/{where}", code)
        return True


def open_high(path: str) -> int:
    """Open a file for reading, close-on-exec, and not in the place of a closed standard stream."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    if file > 2:
        return file
    from fcntl import F_DUPFD_CLOEXEC, fcntl

    try:
        return fcntl(file, F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(file)


def make_module(name: str, file: str, code: CodeType) -> None:
    """Make the module ``name`` as Python's import system would, by running ``code``."""
    folder, _, base = file.rpartition("/")
    parent, _, leaf = name.rpartition(".")
    module = type(sys)(name)
    module.__file__ = file
    module.__package__ = parent
    if base == "__init__.py":
        module.__package__, module.__path__ = name, [folder]
    sys.modules[name] = module
    try:
        exec(code, module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    setattr(sys.modules[parent], leaf, module)


class Site:
    """The last place where a module is looked for: wherever Python would have, had site run.

    The entry stub starts without site. python-prctl, say, may be among the
    system's own packages.
    """

    @classmethod
    def find_spec(cls, *module: object) -> ModuleSpec | None:
        """Run site, .pth files included, once, and look again."""
        import site

        sys.meta_path.remove(cls)
        site.main()
        found = (finder.find_spec(*module) for finder in sys.meta_path)  # type: ignore[arg-type]
        return next((spec for spec in found if spec), None)


pack = None
if sys.flags.no_site:  # before anything that may be elsewhere is imported
    sys.meta_path.append(Site)
    pack = Pack.beside(__path__[0].rpartition("/")[0])
    if pack:
        sys.meta_path.insert(0, pack)
