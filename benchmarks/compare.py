"""What helpers.compare costs beyond the two forward passes that it has to make."""

from functools import partial

import torch

from benchmarks.report import emit, settle
from benchmarks.timing import medians
from helpers.compare import compare
from helpers.inputs import photos
from helpers.networks import backbones
from helpers.norms import freeze

LIMITS = {"stage": 1.4, "norm": 2.5}


def over_two_forwards(rounds: int) -> dict[str, float]:
    """Time `compare` at each point, over both networks' bare forward passes at 224 px."""
    image, model = photos.load("cat"), backbones.load("resnet50")
    frozen = freeze(model)

    @torch.inference_mode()
    def forwards():
        model(image), frozen(image)

    calls = {at: partial(compare, model, frozen, image, at) for at in LIMITS}
    medians(calls | {"forwards": forwards}, 2)  # the first calls also set things up
    seconds = medians(calls | {"forwards": forwards}, rounds)
    return {at: seconds[at] / seconds["forwards"] for at in LIMITS}


def main() -> None:
    """Measure and print all."""
    settle()
    for at, ratio in over_two_forwards(rounds=25).items():
        emit(f"compare_over_two_forwards_{at}", ratio, "×", LIMITS[at])


if __name__ == "__main__":
    main()
