"""The budgets of rtlaunch, measured on the machine at hand: ``python -m bench``.

Every number is a ratio of two things measured in turn in the same minute, so
that it means the same on a fast machine and a slow one. Nothing here imports
rtlaunch: it is run, and looked at from outside.
"""
