"""What an image's books say of the shape that was asked for: thread stacks, huge pages, heap.

Imported only for ``--thread-stack``, ``--thp`` and ``--heap``. The judgement is
:mod:`rtlaunch.core`'s; here what was found goes into the outcome. It must not read any book itself.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rtlaunch.core.findings import Finding
    from rtlaunch.core.proof import Books
    from rtlaunch.engine.handshake import Handshake, Speaker


def find(handshake: Handshake, speaker: Speaker, name: str, books: Books) -> tuple[Finding, ...]:
    """Write down what the books show of an image of the target; return what is not as asked."""
    return (
        *find_stacks(handshake, speaker, name, books),
        *find_huge_pages(handshake, name, books),
        *find_heap(handshake, name),
    )


def find_stacks(handshake: Handshake, speaker: Speaker, name: str, books: Books) -> list[Finding]:
    """Find stacks of threads, or a main stack, of another size."""
    if speaker.stack_at_exec is None:
        return []
    from rtlaunch.engine import threadstack

    return threadstack.findings(speaker, handshake.options, handshake.facts, name, books)


def find_huge_pages(handshake: Handshake, name: str, books: Books) -> list[Finding]:
    """Find another policy for transparent huge pages."""
    asked, shape = handshake.options.thp, handshake.facts.shape
    if asked == "inherit" or not shape:
        return []
    from rtlaunch.core import thp

    after = thp.policy_found(asked, shape.thp_system, books.status.thp_enabled)
    handshake.outcome.thp.after = after
    return [thp.not_in_force(name, asked, after)] if after and after != asked else []


def find_heap(handshake: Handshake, name: str) -> tuple[Finding, ...]:
    """Find what the heap lacks."""
    options, heap = handshake.options, handshake.outcome.heap
    if options.heap is None or heap.variables is None:
        return ()
    from rtlaunch.core import heapproof

    seen = heapproof.look(handshake.smaps, options.heap)
    heap.allocator = seen.allocator or "glibc"
    heap.found_bytes, heap.locked_bytes = seen.size, seen.locked
    heap.resident_bytes, heap.page_bytes = seen.resident, seen.page
    return heapproof.judge(name, options, seen, handshake.facts.host.page_bytes)
