"""Time and memory of a callable."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from statistics import median, quantiles

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


def kept_for_backward(function: Callable, *args) -> tuple[object, int]:
    """Return the result of `function(*args)`, and the bytes that autograd keeps for backward.

    Each storage counts once and whole, also those of parameters and inputs; 0 if none is recorded.
    """
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # the tensor and its graph would keep each other alive

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        return function(*args), sum(storages.values())


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
    """The ratio of two times in every round; `str` gives it with its spread, if it is resolved."""

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

    @property
    def is_resolved(self) -> bool:
        """Whether the effect, the distance of the median from 1, exceeds the spread."""
        return abs(self.median - 1) > self.spread

    def __str__(self) -> str:
        if not self.is_resolved:
            return f"no difference beyond the spread of ±{self.spread:.2g}"
        return f"{self.median:.2f} ± {self.spread:.2g}"


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
    return _timer()("call()", globals={"call": call}).timeit(times).mean


@cache
def _timer() -> type:
    # Late and quietly: it imports what looks for CUDA's compiler, and warns where there is no GPU.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    from torch.utils.benchmark import Timer

    return Timer
