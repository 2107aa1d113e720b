"""Start a Linux program so that it takes no page fault once it runs, and prove it.

This is imported by every launch: it must not import anything.
"""

__version__ = "0.1.0"
