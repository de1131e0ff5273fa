"""What a reader of the ScalingExplorer waits for."""

from functools import partial
from itertools import cycle
from time import perf_counter

import torch

from benchmarks.report import emit, settle
from benchmarks.timing import medians
from helpers.course.explorers.feeding import PRESETS, Feeding, ScalingState, pictures
from helpers.course.explorers.scaling import ScalingExplorer, picture
from helpers.networks.detector import load_detector

PICTURE = "scene 0"


def view_over_forward(rounds: int) -> float:
    """Time a change without its picture, over its bare forward pass, at the slowest preset.

    The pass takes 15 ms, and the histograms of 180,000 values a tenth of that.
    """
    model = load_detector()
    feeding = Feeding(model)
    return max(_over_forward(model, feeding, emitted, rounds) for emitted in PRESETS.values())


def _over_forward(model, feeding: Feeding, emitted: str, rounds: int) -> float:
    state = ScalingState(PICTURE, emitted)
    fed = feeding.view(state).fed

    @torch.inference_mode()
    def forward():
        model([fed])

    seconds = medians({"view": partial(feeding.view, state), "forward": forward}, rounds)
    return seconds["view"] / seconds["forward"]


def picture_ms(rounds: int) -> float:
    """Time the picture of the preset where it takes longest."""
    feeding = Feeding(load_detector())
    states = [
        ScalingState(name, emitted) for name in (PICTURE, "cat") for emitted in PRESETS.values()
    ]
    calls = {state: partial(picture, feeding.view(state)) for state in states}
    return 1000 * max(medians(calls, rounds).values())


def handler_ms(rounds: int) -> float:
    """Time the choice of a format, a forward pass and a picture, until its frame is there."""
    explorer, formats = ScalingExplorer(), cycle(["BGR", "halved"])

    def choose():
        before, explorer.emitted.value = explorer.frames[-1], next(formats)
        assert explorer.frames[-1] != before, "without an event loop, a change draws at once"

    medians({"": choose}, 2)
    return 1000 * medians({"": choose}, rounds)[""]


def build_seconds() -> float:
    """Time building the explorer, with the detector loaded."""
    model = load_detector()
    pictures()  # drawn once in a notebook
    start = perf_counter()
    ScalingExplorer(model)
    return perf_counter() - start


def main() -> None:
    """Measure and print all."""
    settle()
    emit("scaling_build_s", build_seconds(), "s", 2)
    emit("scaling_view_over_forward", view_over_forward(rounds=25), "×", 1.4)
    emit("scaling_picture_ms", picture_ms(rounds=25), "ms", 40)
    emit("scaling_handler_ms", handler_ms(rounds=25), "ms", 150)


if __name__ == "__main__":
    main()
