"""Timing calls in turns, so that a noisy machine disturbs all of them alike."""

from collections.abc import Callable, Hashable, Mapping
from statistics import median
from time import perf_counter


def medians(
    calls: Mapping[Hashable, Callable[[], object]],
    rounds: int,
    before: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = perf_counter,
) -> dict[Hashable, float]:
    """Time each call and return name → median seconds.

    Each round makes every call once, every other round backwards. `before` runs ahead of each call,
    and is not timed.
    """
    times = {name: [] for name in calls}
    for number in range(rounds):
        for name in list(calls)[:: -1 if number % 2 else 1]:
            before()
            start = clock()
            calls[name]()
            times[name].append(clock() - start)
    return {name: median(taken) for name, taken in times.items()}
