"""TALK: the command line; turns errors into exit codes, in one place; imports all."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec


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
