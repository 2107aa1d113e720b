"""Hand over to the command line.

The entry stub runs this file by its path, without site: the directory that holds the package is
put on the path here. A script run by path is compiled at each start: nothing else may be here.
"""

import gc
import sys

gc.disable()  # it would run eight times over modules that stay; enabled once the target runs
if not __package__:
    sys.path.append(__file__.rsplit("/", 2)[0])

from rtlaunch.cli.launch import main

raise SystemExit(main(sys.argv[1:]))
