"""What a reader of the ScalingExplorer waits for."""

from functools import partial
from itertools import cycle
from time import perf_counter

import torch

from benchmarks.report import emit, settle
from benchmarks.timing import medians
from helpers.course.explorers.feeding import Feeding, pictures
from helpers.course.explorers.scaling import PRESETS, ScalingExplorer
from helpers.networks.detector import load_detector

PICTURE = "scene 0"


def view_over_forward(rounds: int) -> float:
    """Time a change without its frame, over its bare forward pass, at the slowest preset.

    The pass takes 15 ms.
    """
    model = load_detector()
    feeding = Feeding(model)
    formats = [changes.get("emits", "0-255") for changes in PRESETS.values()]
    return max(_over_forward(model, feeding, emits, rounds) for emits in formats)


def _over_forward(model, feeding: Feeding, emits: str, rounds: int) -> float:
    view = partial(feeding.view, *pictures()[PICTURE], 1.0, emits, "0-1")
    fed = view().fed

    @torch.inference_mode()
    def forward():
        model([fed])

    seconds = medians({"view": view, "forward": forward}, rounds)
    return seconds["view"] / seconds["forward"]


def handler_ms(rounds: int) -> float:
    """Time the choice of a format, a forward pass and a frame, until the frame is there."""
    explorer, formats = ScalingExplorer(), cycle(["BGR", "halved"])
    state = explorer.state | {"picture": PICTURE}

    def choose():
        explorer.draw(state | {"emits": next(formats)})

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
    emit("scaling_handler_ms", handler_ms(rounds=25), "ms", 150)


if __name__ == "__main__":
    main()
