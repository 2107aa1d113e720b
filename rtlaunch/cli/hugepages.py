"""``rtlaunch hugepages``: pools and leases for people and programs; reserve, release, gc."""

from __future__ import annotations

import json
import sys

from rtlaunch.core import kinds, units
from rtlaunch.core.findings import Finding, Refusal
from rtlaunch.core.hugepages import owed
from rtlaunch.engine import pools

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from rtlaunch.core.hugepages import Node, Size
    from rtlaunch.core.ledger import Lease
    from rtlaunch.core.options import HugePages

SCHEMA = "rtlaunch.hugepages/1"
POOL_HEAD = ("size", "node", "pages", "free", "surplus", "set by admin", "reserved by us")
LEASE_HEAD = ("launcher", "target", "uid", "size", "node", "pages", "claimed", "")


def run(action: str, what: Sequence[str], environ: Mapping[str, str], as_json: bool) -> int:
    """Do one action; return 0, or 125 by a Refusal."""
    actions: dict[str, Callable[[], None]] = {
        "list": lambda: show(environ, as_json),
        "reserve": lambda: reserve(environ, what),
        "release": lambda: release(environ, what),
        "gc": lambda: collect(environ),
    }
    if action not in actions:
        near = units.did_you_mean(action, actions)
        raise _usage(f"hugepages {units.shown(action)}: no such action{near}")
    if what and action in ("list", "gc"):
        raise _usage(f"hugepages {action} takes no words: {units.shown(what[0])} is too much")
    if as_json and action != "list":
        raise _usage("--json is for hugepages list")
    actions[action]()
    sys.stdout.flush()
    return 0


def _usage(what: str) -> Refusal:
    return Refusal(
        Finding("usage", what, try_now="rtlaunch hugepages [list|reserve|release|gc] [WHAT...]")
    )


# --- list ------------------------------------------------------------------------------------


def show(environ: Mapping[str, str], as_json: bool) -> None:
    """Print pools by size and node, and leases with their owners."""
    found = pools.listing(environ)
    print(json.dumps(as_document(found), indent=2) if as_json else as_text(found))


def as_text(found: pools.Listing) -> str:
    """Return the tables."""
    rows: list[tuple[str, ...]] = [POOL_HEAD]
    rows += [pool_row(found, size, node) for size in found.sizes for node in size.nodes]
    lines = columns(rows) if found.sizes else ["no huge pages on this machine"]
    lines += [
        f"{units.spell_size(size.page_bytes)}: {size.resv} reserved by mappings, "
        f"{owed(leases_of(found, size))} promised to leases"
        for size in found.sizes
    ]
    if found.leases:
        lines += ["", *columns([LEASE_HEAD, *map(lease_row, found.leases)])]
    else:
        lines.append("no leases")
    if found.unsafe:
        lines.append(f"the state directory {found.folder or '(none)'}: {found.unsafe}")
    return "\n".join(lines)


def leases_of(found: pools.Listing, size: Size) -> tuple[Lease, ...]:
    """Return the leases of one size."""
    return tuple(shown.lease for shown in found.leases if shown.lease.page_bytes == size.page_bytes)


def columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Lay rows out in columns."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def pool_row(found: pools.Listing, size: Size, node: Node) -> tuple[str, ...]:
    """Return the row of one pool; who set what is known while there are leases."""
    mark = pools.sized(found.marks, size, node.node)
    base = mark.base if mark and mark.written == node.persistent else node.persistent
    numbers = (node.nr, node.free, node.surplus, base, mark.reserved if mark else 0)
    where = "-" if node.node is None else str(node.node)
    return (units.spell_size(size.page_bytes), where, *map(str, numbers))


def lease_row(shown: pools.Shown) -> tuple[str, ...]:
    """Return the row of one lease."""
    lease = shown.lease
    return (
        str(lease.launcher.pid),
        f"{shown.name}[{lease.target.pid}]" if lease.target else "-",
        str(lease.uid),
        units.spell_size(lease.page_bytes),
        "any" if lease.node is None else str(lease.node),
        str(lease.count),
        str(lease.claimed),
        "" if shown.lives else "killed: rtlaunch hugepages gc returns it",
    )


def as_document(found: pools.Listing) -> dict[str, Any]:
    """Return the object that ``--json`` prints; it only grows."""
    return {
        "schema": SCHEMA,
        "state_directory": found.folder,
        "unsafe": found.unsafe or None,
        "sizes": [size_document(found, size) for size in found.sizes],
        "leases": [lease_document(shown) for shown in found.leases],
    }


def size_document(found: pools.Listing, size: Size) -> dict[str, Any]:
    """Return one size with its pools."""
    nodes = []
    for node in size.nodes:
        mark = pools.sized(found.marks, size, node.node)
        nodes.append(
            {
                "node": node.node,
                "pages": node.nr,
                "free": node.free,
                "surplus": node.surplus,
                "base": mark.base if mark else node.persistent,
                "reserved_by_rtlaunch": mark.reserved if mark else 0,
            }
        )
    return {
        "page_bytes": size.page_bytes,
        "pages": size.nr,
        "free": size.free,
        "reserved": size.resv,
        "surplus": size.surplus,
        "promised": owed(leases_of(found, size)),
        "nodes": nodes,
    }


def lease_document(shown: pools.Shown) -> dict[str, Any]:
    """Return one lease."""
    lease = shown.lease
    return {
        "launcher_pid": lease.launcher.pid,
        "launcher_lives": shown.lives,
        "target_pid": lease.target.pid if lease.target else None,
        "target_name": shown.name if lease.target else None,
        "uid": lease.uid,
        "page_bytes": lease.page_bytes,
        "node": lease.node,
        "count": lease.count,
        "claimed": lease.claimed,
    }


# --- changing --------------------------------------------------------------------------------


def reserve(environ: Mapping[str, str], what: Sequence[str]) -> None:
    """Reserve pages and say so."""
    asked = read(what)
    if not asked:
        raise _usage("hugepages reserve needs what to reserve: SIZE:COUNT[@NODE]")
    pools.reserve(environ, asked)
    for each in asked:
        where = "" if each.node is None else f" on node {each.node}"
        print(f"reserved {each.count} huge pages of {units.spell_size(each.page_bytes)}{where}")


def read(what: Sequence[str]) -> list[HugePages]:
    """Return what the words ask for; Refusal for one that makes no sense."""
    try:
        return [each for word in what for each in kinds.read_hugepages(word)]
    except ValueError as error:
        raise _usage(f"hugepages reserve: {error}") from None


def release(environ: Mapping[str, str], what: Sequence[str]) -> None:
    """Release what was reserved, of these sizes or all, and say how much it was."""
    try:
        sizes = [kinds.read_page_size(word.partition(":")[0]) for word in what]
    except ValueError as error:
        raise _usage(f"hugepages release: {error}") from None
    print(f"released {pools.release(environ, sizes)} huge pages")


def collect(environ: Mapping[str, str]) -> None:
    """Give back what killed launchers left, and say whose it was."""
    ended = pools.collect(environ)
    for lease in ended:
        size = units.spell_size(lease.page_bytes)
        print(f"gave back {lease.count} huge pages of {size}, leased by {lease.launcher.pid}")
    if not ended:
        print("no leases of killed launchers")
