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
    """A change without its picture, over the bare forward pass that it has to make: the worst.

    That forward takes 15 ms, of which the histograms of 180,000 values are a tenth.
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
    """The preset and picture that takes longest."""
    feeding = Feeding(load_detector())
    states = [
        ScalingState(name, emitted) for name in (PICTURE, "cat") for emitted in PRESETS.values()
    ]
    calls = {state: partial(picture, feeding.view(state)) for state in states}
    return 1000 * max(medians(calls, rounds).values())


def handler_ms(rounds: int) -> float:
    """A format chosen, until its frame stands: a forward pass and a picture."""
    explorer, formats = ScalingExplorer(), cycle(["BGR", "halved"])

    def choose():
        before, explorer.emitted.value = explorer.frames[-1], next(formats)
        assert explorer.frames[-1] != before, "without an event loop, a change draws at once"

    medians({"": choose}, 2)
    return 1000 * medians({"": choose}, rounds)[""]


def build_seconds() -> float:
    """The explorer, with the detector's weights at hand."""
    model = load_detector()
    pictures()  # drawn once in a notebook
    start = perf_counter()
    ScalingExplorer(model)
    return perf_counter() - start


def main() -> None:
    settle()
    emit("scaling_build_s", build_seconds(), "s", 2)
    emit("scaling_view_over_forward", view_over_forward(rounds=25), "×", 1.4)
    emit("scaling_picture_ms", picture_ms(rounds=25), "ms", 40)
    emit("scaling_handler_ms", handler_ms(rounds=25), "ms", 150)


if __name__ == "__main__":
    main()
