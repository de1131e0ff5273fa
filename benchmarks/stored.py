"""What a reader of the explorers of stored numbers waits for: no network runs there."""

from functools import partial
from itertools import cycle
from time import perf_counter

from benchmarks.report import emit, settle
from benchmarks.timing import medians
from helpers.course.explorers import cost, curves, nms, reading
from helpers.course.explorers.cost import CostExplorer
from helpers.course.explorers.curves import CurvesExplorer
from helpers.course.explorers.nms import NmsExplorer
from helpers.course.explorers.reading import ReadingExplorer
from helpers.course.stored.runs import load_runs

EXPLORERS = {
    "reading": ReadingExplorer,
    "curves": CurvesExplorer,
    "cost": CostExplorer,
    "nms": NmsExplorer,
}


def picture_ms(rounds: int) -> float:
    """The preset that takes longest."""
    rows, points = load_runs(), load_runs("curves")
    calls = {
        name: partial(reading.picture, rows, reading.State(read))
        for name, read in reading.NAMES.items()
    }
    calls |= {
        name: partial(curves.picture, points, state) for name, state in curves.PRESETS.items()
    }
    calls |= {name: partial(cost.picture, state) for name, state in cost.presets().items()}
    calls |= {name: partial(nms.picture, state) for name, state in nms.PRESETS.items()}
    return 1000 * max(medians(calls, rounds).values())


def handler_ms(name: str, rounds: int) -> float:
    """Another choice, until its frame stands."""
    explorer = EXPLORERS[name]()
    control = explorer.controls[0]
    numbers = cycle([1 - control.index, control.index])

    def choose():
        before, control.index = explorer.frames[-1], next(numbers)
        assert explorer.frames[-1] != before, "without an event loop, a change draws at once"

    medians({"": choose}, 2)
    return 1000 * medians({"": choose}, rounds)[""]


def build_seconds(name: str) -> float:
    """The explorer, from its rows on disk, all presets drawn."""
    start = perf_counter()
    EXPLORERS[name]()
    return perf_counter() - start


def main() -> None:
    settle()
    emit("stored_picture_ms", picture_ms(rounds=25), "ms", 60)
    for name in EXPLORERS:
        emit(f"{name}_build_s", build_seconds(name), "s", 2)
        emit(f"{name}_handler_ms", handler_ms(name, rounds=25), "ms", 100)


if __name__ == "__main__":
    main()
