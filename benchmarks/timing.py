"""Timing calls in turns, so that a noisy machine disturbs all of them alike."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from statistics import median, quantiles
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


@dataclass(frozen=True)
class Times:
    """The seconds per call of one callable, in every round of `interleaved`."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median of the rounds, in seconds."""
        return median(self.seconds)

    def over(self, other: "Times") -> "Ratio":
        """Divide by the seconds of `other`, round by round."""
        return Ratio(tuple(a / b for a, b in zip(self.seconds, other.seconds, strict=True)))


@dataclass(frozen=True)
class Ratio:
    """The ratio of two times in every round."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return median(self.rounds)

    @property
    def spread(self) -> float:
        """The distance between the quartiles of the rounds."""
        low, _, high = quantiles(self.rounds, n=4, method="inclusive")
        return high - low


def interleaved(
    calls: Mapping[str, Callable[[], object]],
    rounds: int = 9,
    at_least: float = 0.02,
    clock: Callable[[Callable[[], object], int], float] | None = None,
) -> dict[str, Times]:
    """Time several calls in turn, so that what disturbs the machine disturbs all of them.

    Each of the `rounds` runs every call for `at_least` seconds, every second round in reverse
    order. torch.utils.benchmark measures on one thread and waits for a GPU. Each call runs twice
    before. `clock(call, times)` replaces it in tests, and returns the seconds per call.
    Raises ValueError for fewer than 3 rounds, which have no quartiles.
    """
    if rounds < 3:
        raise ValueError(f"rounds is {rounds}: give 3 or more, for a median with its quartiles.")
    clock = clock or _seconds
    times = {}
    for name, call in calls.items():
        clock(call, 1)
        times[name] = max(1, round(at_least / max(clock(call, 1), 1e-9)))
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        for name in list(calls)[:: -1 if number % 2 else 1]:
            seconds[name].append(clock(calls[name], times[name]))
    return {name: Times(tuple(taken)) for name, taken in seconds.items()}


def _seconds(call: Callable[[], object], times: int) -> float:
    from torch.utils.benchmark import Timer  # it looks for CUDA's compiler, and warns without

    return Timer("call()", globals={"call": call}).timeit(times).mean
