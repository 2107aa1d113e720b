"""Users and groups by name: passwd(5) and group(5) through NSS.

It looks up and never changes who we are; that is :mod:`rtlaunch.engine.apply`'s.
"""

from __future__ import annotations

import os

from rtlaunch.core.facts import Account


def look_up(user: str, group: str | None) -> Account:
    """Return the account named by ``--user USER[:GROUP]``, names or numbers.

    A number without an entry is accepted when a group is given with it, as
    containers run such users. KeyError, naming what is unknown, otherwise.
    """
    import pwd

    if user.isdecimal():
        try:
            entry = pwd.getpwuid(int(user))
        except KeyError:
            if group is None:
                raise KeyError(f"no user has the number {user}, and no group was given") from None
            gid = group_id(group)
            return Account(user, int(user), gid, (gid,), "/", "/bin/sh")
    else:
        try:
            entry = pwd.getpwnam(user)
        except KeyError:
            raise KeyError(f"no user is called {user!r}") from None
    gid = entry.pw_gid if group is None else group_id(group)
    groups = tuple(sorted(os.getgrouplist(entry.pw_name, gid)))
    shell = entry.pw_shell or "/bin/sh"
    return Account(entry.pw_name, entry.pw_uid, gid, groups, entry.pw_dir, shell)


def group_id(group: str) -> int:
    """Return the number of a group, by name or number; KeyError, naming it, if unknown."""
    import grp

    if group.isdecimal():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise KeyError(f"no group is called {group!r}") from None
