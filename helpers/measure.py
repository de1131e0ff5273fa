"""Time and memory of a callable."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from statistics import median, quantiles

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


def kept_for_backward(function: Callable, *args) -> tuple[object, int]:
    """What `function(*args)` returns, and the bytes that autograd keeps for its backward pass.

    Each storage counts once and whole, parameters and inputs included; 0 where nothing is recorded.
    The same on every processor, unlike the memory in use.
    """
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # the tensor itself would hold its graph, and the graph it

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        return function(*args), sum(storages.values())


@dataclass(frozen=True)
class Times:
    """Seconds per call, a value for each round; those of other calls ran beside them."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.seconds)

    def over(self, other: "Times") -> "Ratio":
        """How many times as long as `other`, round by round."""
        return Ratio(tuple(a / b for a, b in zip(self.seconds, other.seconds, strict=True)))


@dataclass(frozen=True)
class Ratio:
    """A ratio of two times, measured in every round.

    `spread`: the distance between the quartiles of the rounds. `is_resolved`: whether the effect,
    the distance of the median from 1, exceeds the spread. Where it does not, there is nothing to
    report, and `str` says so.
    """

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.rounds)

    @property
    def spread(self) -> float:
        low, _, high = quantiles(self.rounds, n=4, method="inclusive")
        return high - low

    @property
    def is_resolved(self) -> bool:
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
    """Name → times. Each round runs every call for `at_least` seconds, every other one backwards.

    So that whatever disturbs the machine disturbs all of them. Timed by torch.utils.benchmark, on
    one thread, with a GPU waited for; each call runs before that until it is warm. `clock(call,
    times)` gives the seconds per call, for tests. ValueError for less than 3 rounds, which have no
    quartiles.
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
