"""Count what a detector without P2 finds, by the size of the objects: recall.csv.

    python -m data.results.levels.make

The detector is trained as data.checkpoints.make trained the one with P2. Only the finest level
differs: the FPN stands on layer2 to layer4, so its strides are 8 to 64. It has all anchors of the
other detector, and more. It takes about 15 minutes on one core; after an interruption the next call
goes on.
"""

import csv
import os
from collections import Counter
from pathlib import Path

import torch
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import MultiScaleRoIAlign
from tqdm import tqdm

from data.checkpoints import make as training
from helpers.inputs.scenes import scenes
from helpers.networks.detector import (
    CANONICAL_SCALE,
    FPN_WIDTH,
    WIDTHS,
    body,
    detector_on,
    load_detector,
    matches,
)

HERE = Path(__file__).resolve().parent
SCENES, SEED = 600, 20180611  # none of training's, which are above a million and below two
SIZES = ((0, 16), (16, 32), (32, 64), (64, 128))  # side of a square of the same area, px
COLUMNS = ("levels", "from", "below", "objects", "found")


def without_p2() -> FasterRCNN:
    """Build the untrained detector whose finest level is P3."""
    stages = list(WIDTHS)[1:]
    backbone = BackboneWithFPN(
        body(),
        return_layers={stage: str(level) for level, stage in enumerate(stages)},
        in_channels_list=[WIDTHS[stage] for stage in stages],
        out_channels=FPN_WIDTH,
    )
    sizes = ((8, 16), (24, 32), (48, 64), (96, 128))  # as many at each level: one RPN head for all
    return detector_on(
        backbone,
        rpn_anchor_generator=AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes)),
        box_roi_pool=MultiScaleRoIAlign(
            list("012"), output_size=7, sampling_ratio=2, canonical_scale=CANONICAL_SCALE
        ),
    )


@torch.no_grad()
def found_by_size(model: FasterRCNN, count: int = SCENES) -> list[tuple[int, int]]:
    """Count (objects, found ones) for each of SIZES, as helpers.networks.detector.rate does."""
    objects, matched = Counter(), Counter()
    for image, target in tqdm(scenes(count, SEED), unit="scene", disable=None):
        [result] = model([image])
        sure = result["scores"] >= 0.5
        taken = matches({name: values[sure] for name, values in result.items()}, target).values()
        sides = (target["boxes"][:, 2:] - target["boxes"][:, :2]).prod(1).sqrt().tolist()
        for number, side in enumerate(sides):
            size = next(size for size in SIZES if side < size[1])
            objects[size] += 1
            matched[size] += number in taken
    return [(objects[size], matched[size]) for size in SIZES]


def main(steps: int | None = None, count: int = SCENES, out: Path = HERE) -> None:
    torch.set_num_threads(1)
    part = out / "training.part"
    model, _ = training.train(0, part, steps or training.STEPS, build=without_p2)
    rows = []
    for levels, detector in (("P2 to P6", load_detector()), ("P3 to P6", model)):
        for (low, high), counts in zip(SIZES, found_by_size(detector, count), strict=True):
            rows.append(dict(zip(COLUMNS, (levels, low, high, *counts), strict=True)))
    fresh = out / "recall.new.part"
    with fresh.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(fresh, out / "recall.csv")
    part.unlink()


if __name__ == "__main__":
    main()
