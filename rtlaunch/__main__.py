"""Hand over to the command line.

The entry stub runs this file by its path, without site: the directory that holds the package is
put on the path here. A script run by path is compiled at each start: nothing else may be here.
"""

import _signal
import gc
import sys

# Until signals are forwarded SIGINT ends us, as SIGTERM does: KeyboardInterrupt can get lost.
if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
if str(sys._xoptions.get("rtlaunch")).endswith(":2"):  # the stub blocked it, and no other
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, [_signal.SIGINT])

gc.disable()  # it would run eight times over modules that stay; enabled once the target runs
if not __package__:
    sys.path.append(__file__.rsplit("/", 2)[0])

try:
    from rtlaunch.cli.launch import main
except (ImportError, MemoryError, OSError) as error:
    from rtlaunch.cli.unusable import say

    raise SystemExit(say(error)) from None
raise SystemExit(main(sys.argv[1:]))
