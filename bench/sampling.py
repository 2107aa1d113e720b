"""Take turns: each round measures every subject once, and so the machine's noise falls on all.

It must not know what is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median

Samples = dict[str, list[int]]


def in_turn(subjects: Mapping[str, Callable[[], int]], rounds: int) -> Samples:
    """Measure each subject ``rounds`` times, ns; the order is turned by one in each round."""
    names = list(subjects)
    samples: Samples = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            samples[name].append(subjects[name]())
        names = [*names[1:], names[0]]
    return samples


def ratio(samples: Samples, ours: str, theirs: str) -> float:
    """Return the median, over the rounds, of ours / theirs."""
    pairs = zip(samples[ours], samples[theirs], strict=True)
    return median(one / other for one, other in pairs)


def percentile(values: list[int], percent: float) -> int:
    """Return the value that ``percent`` of all do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -int(-len(ordered) * percent // 100) - 1)]


def show_raw(title: str, samples: Samples, per: int = 1) -> None:
    """Print every number, µs; ``per`` operations were in each sample."""
    print(f"\n{title}: microseconds, {len(next(iter(samples.values())))} rounds")
    width = max(map(len, samples))
    for name, values in samples.items():
        numbers = " ".join(f"{value / per / 1000:.6g}" for value in values)
        print(f"  {name:<{width}}  median {median(values) / per / 1000:.6g} of: {numbers}")
