"""TALK: the command line; turns errors into exit codes, in one place; imports all."""

from __future__ import annotations

import marshal
import sys
from _frozen_importlib_external import MAGIC_NUMBER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType


class Pack:
    """The first place where a module is looked for: one file of all that a launch imports.

    Read once, in place of fifty files that are found, opened, read and checked one by one. The
    build makes it for its own version of Python; without it, or with another, all is found where
    it always is (docs/decisions/0013).
    """

    def __init__(self, modules: dict[str, tuple[str, int]], groups: list[bytes], root: str) -> None:
        self._modules = modules
        self._groups = groups
        self._codes: dict[str, CodeType] = {}
        self._root = root

    @classmethod
    def beside(cls, package: str) -> Pack | None:
        """Read the pack of the package in folder ``package``; None where none is fit for use."""
        try:
            with open(f"{package}/launch.{sys.implementation.cache_tag}.pack", "rb") as file:
                magic, packed = file.read(len(MAGIC_NUMBER)), file.read()
        except OSError:
            return None
        if magic != MAGIC_NUMBER:
            return None
        modules, groups = marshal.loads(packed)
        return cls(modules, groups, package.rpartition("/")[0])

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Find module ``name`` in the pack."""
        if name not in self._modules:
            return None
        origin = f"{self._root}/{self._modules[name][0]}"
        folder, _, file = origin.rpartition("/")
        spec = type(__spec__)(name, self, origin=origin)  # type: ignore[arg-type]
        if file == "__init__.py":
            spec.submodule_search_locations = [folder]
        return spec

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave it to Python to make the module."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code, and keep it no longer."""
        name = module.__name__
        file, group = self._modules.pop(name)
        if name not in self._codes:
            self._codes |= marshal.loads(self._groups[group])
            self._groups[group] = b""
        module.__file__ = f"{self._root}/{file}"
        exec(self._codes.pop(name), module.__dict__)


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


if sys.flags.no_site:  # before anything that may be elsewhere is imported
    sys.meta_path.append(Site)
    pack = Pack.beside(__path__[0].rpartition("/")[0])
    if pack:
        sys.meta_path.insert(0, pack)
