"""What a reader of the PyramidExplorer waits for."""

from functools import partial
from itertools import cycle
from time import perf_counter

import torch

from benchmarks.report import emit, settle
from benchmarks.timing import medians
from helpers.course.explorers.levels import BATCH, MEAN, Levels, PyramidState
from helpers.course.explorers.pyramid import PRESETS, PyramidExplorer, picture
from helpers.networks.detector import load_detector

PICTURE = "scene 1"


def view_over_forward(rounds: int) -> float:
    """Time a new normalization without its picture, over the detector's bare pass in float64."""
    levels, exact = Levels(load_detector()), load_detector().double()
    image = levels.pictures[PICTURE][0].double()
    state = PyramidState(PICTURE, "P3", MEAN, BATCH)
    levels.view(PyramidState(PICTURE, "P3"))

    @torch.inference_mode()
    def forward():
        exact([image])

    def view():
        levels._walks.pop((PICTURE, BATCH), None)
        levels.view(state)

    calls = {"view": view, "forward": forward}
    medians(calls, 2)
    seconds = medians(calls, rounds)
    return seconds["view"] / seconds["forward"]


def picture_ms(rounds: int) -> float:
    """Time the picture of the preset where it takes longest."""
    levels = Levels(load_detector())
    calls = {name: partial(_drawn, levels, state) for name, state in PRESETS.items()}
    medians(calls, 2)
    return 1000 * max(medians(calls, rounds).values())


def _drawn(levels: Levels, state: PyramidState) -> bytes:
    return picture(levels.view(state))


def handler_ms(rounds: int) -> float:
    """Time the choice of another level, which needs no pass, until its frame is there."""
    explorer, levels = PyramidExplorer(), cycle(["P3", "P4"])

    def choose():
        before, explorer.level.value = explorer.frames[-1], next(levels)
        assert explorer.frames[-1] != before, "without an event loop, a change draws at once"

    medians({"": choose}, 2)
    return 1000 * medians({"": choose}, rounds)[""]


def build_seconds() -> float:
    """Time building the explorer, with the detector loaded."""
    model = load_detector()
    start = perf_counter()
    PyramidExplorer(model)
    return perf_counter() - start


def main() -> None:
    """Measure and print all."""
    settle()
    emit("pyramid_build_s", build_seconds(), "s", 2)
    emit("pyramid_view_over_forward", view_over_forward(rounds=25), "×", 1.4)
    emit("pyramid_picture_ms", picture_ms(rounds=25), "ms", 60)
    emit("pyramid_handler_ms", handler_ms(rounds=25), "ms", 100)


if __name__ == "__main__":
    main()
