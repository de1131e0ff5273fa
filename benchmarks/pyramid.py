"""What a reader of the PyramidExplorer waits for."""

from itertools import cycle
from time import perf_counter

import torch

from benchmarks.report import emit, settle
from benchmarks.timing import medians
from helpers.course.explorers.feeding import pictures
from helpers.course.explorers.levels import BATCH, BATCHNORM, Levels
from helpers.course.explorers.pyramid import PyramidExplorer
from helpers.networks.detector import load_detector

PICTURE = "scene 1"


def view_over_forward(rounds: int) -> float:
    """Time a new normalization without its frame, over the detector's bare pass in float64."""
    levels, exact = Levels(load_detector()), load_detector().double()
    image, _ = pictures()[PICTURE]
    double = image.double()

    @torch.inference_mode()
    def forward():
        exact([double])

    def only_batchnorm():
        levels._walk.cache_clear()
        levels.view(image, BATCHNORM)

    calls = {"view": lambda: levels.view(image, BATCH), "forward": forward}
    medians(calls, 2, before=only_batchnorm)
    seconds = medians(calls, rounds, before=only_batchnorm)
    return seconds["view"] / seconds["forward"]


def handler_ms(rounds: int) -> float:
    """Time the choice of another level, which needs no pass, until its frame is there."""
    explorer, levels = PyramidExplorer(), cycle(["P3", "P4"])
    state = explorer.state | {"channel": 0}  # the page has the frames of the mean

    def choose():
        explorer.draw(state | {"level": next(levels)})

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
    emit("pyramid_handler_ms", handler_ms(rounds=25), "ms", 100)


if __name__ == "__main__":
    main()
