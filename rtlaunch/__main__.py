"""Hand over to the command line.

The entry stub runs this file by its path, without site: the directory that holds the package is
put on the path here. Only when a module is not to be had there (python-prctl from the system's
own packages, say) is site asked for the rest, .pth files included. A script run by path is
compiled at each start, so nothing else may be here.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec


class Site:
    """The last place where a module is looked for: wherever Python would have, had site run."""

    @classmethod
    def find_spec(cls, *module: object) -> "ModuleSpec | None":
        """Run site, once, and look again."""
        sys.meta_path.remove(cls)
        import site

        site.main()
        found = (finder.find_spec(*module) for finder in sys.meta_path)  # type: ignore[arg-type]
        return next((spec for spec in found if spec), None)


if not __package__:
    sys.path.append(__file__.rsplit("/", 2)[0])
    sys.meta_path.append(Site)

from rtlaunch.cli.launch import main

raise SystemExit(main(sys.argv[1:]))
