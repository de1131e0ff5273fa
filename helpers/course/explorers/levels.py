"""A detector's pyramid under several normalizations of its body, compared with BatchNorm's."""

import copy
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN

from helpers.compare import Row
from helpers.course.explorers.feeding import bound, check_detector
from helpers.faster_rcnn import CLOSE, SURE, Walk, changes, check_input, walk
from helpers.inputs.pixels import PLAIN, PixelFormat, convert
from helpers.inputs.scenes import CLASSES
from helpers.networks.detector import matches
from helpers.norms import replace_norms

LEVELS = ("C2", "C3", "C4", "C5", "P2", "P3", "P4", "P5", "P6")
BODY_KINDS = {  # how the body normalizes → its kind in helpers.norms.KINDS
    "BatchNorm, eval mode": "running statistics",
    "FrozenBatchNorm, eps 1e-5": "frozen, eps 1e-5",
    "FrozenBatchNorm, eps 0": "frozen, eps 0",
    "batch statistics": "batch statistics",
}
BATCHNORM, FROZEN, EPS_0, BATCH = BODY_KINDS
KEPT = 24  # walks; each takes about 3 MB


class SureBox(NamedTuple):
    """A sure box and its proposal, xyxy in pixels of the resized image; levels are the 2 of P2."""

    xyxy: tuple[float, ...]
    label: int
    score: float
    proposal: tuple[float, ...]
    proposed_by: int
    pooled_from: int

    @property
    def name(self) -> str:
        """Class, score, and the level from which it is pooled."""
        return f"{CLASSES[self.label]} {100 * self.score:.0f} %, P{self.pooled_from}"


@dataclass(frozen=True, eq=False)
class View:
    """The steps from an image to its boxes, as normalized now and with BatchNorm in eval mode.

    `image` (3,h,w) in 0–1: resized as the detector has it, not padded. `off`: level → by how much
    its map is off from BatchNorm's. `boxes`: the sure ones; `lost`: those of BatchNorm that are
    not among them.
    """

    kind: str
    image: Tensor
    base: Walk
    now: Walk
    off: dict[str, float]
    boxes: list[SureBox]
    lost: list[SureBox]

    def counts(self, number: int) -> tuple[int, int]:
        """How many proposals stand on a level's anchors, and how many are pooled from it."""
        levels = self.now.proposed_by, self.now.pooled_from
        return tuple(int((level == number).sum()) for level in levels)

    def words(self, level: str, box: SureBox | None = None) -> dict[str, str]:
        """A headline and a sentence on a level, or on where a box comes from."""
        body = f"The body: {self.kind}."
        if box:
            trace = f"Proposed by P{box.proposed_by}, pooled from P{box.pooled_from}."
            return {"headline": f"{box.name}:", "sentence": f"{trace} {body}"}
        if self.kind == BATCHNORM:
            by, of = self.counts(int(level[1]))
            channels, rows, columns = self.now.maps[level].shape[1:]
            words = f"Of {len(self.now.proposals)} proposals, {by} stand on P{level[1]}'s anchors"
            headline = f"{level}: {channels} maps of {rows} × {columns}."
            return {"headline": headline, "sentence": f"{words}, {of} are pooled from it. {body}"}
        changed = changes([self.base], [self.now])
        words = f"{changed.moved} of {changed.proposals} proposals move"
        lost = f"boxes lost: {changed.lost} of {changed.boxes}"
        return {
            "headline": f"{level} is off by {bound(self.off[level])}.",
            "sentence": f"{body} {words}, {lost}.",
        }


class Levels:
    """The scene detector, and what its pyramid makes of a picture.

    `model`: networks.detector.detector() in eval mode, which is left as it is. All is computed in
    float64, so that rounding hides no effect of eps. TypeError and ValueError as in check_detector.
    """

    def __init__(self, model: FasterRCNN):
        check_detector(model)
        exact = copy.deepcopy(model).double()
        self._models = {
            name: replace_norms(exact, kind, share_weights=True).eval()
            for name, kind in BODY_KINDS.items()
        }
        # An image is the same only as itself.
        self._walk = lru_cache(KEPT)(lambda image, kind: walk(self._models[kind], image.double()))

    def view(self, image: Tensor, kind: str) -> View:
        """One forward pass for a kind that is new to an image (3,H,W), RGB in 0–1.

        ValueError for another detector's levels, and for what is not finite.
        """
        check_input(self._models[kind], image)
        base, now = (self._walk(image, one) for one in (BATCHNORM, kind))
        if tuple(now.maps) != LEVELS:
            raise ValueError(f"The detector has the levels {', '.join(now.maps)}, not C2 … P6.")
        transform = self._models[kind].transform
        taken = PixelFormat("RGB", 0, 1, tuple(transform.image_mean), tuple(transform.image_std))
        height, width = now.size
        boxes, wanted = (_sure(walked, image) for walked in (now, base))
        sure = [
            {name: x[walked.result["scores"] >= SURE] for name, x in walked.result.items()}
            for walked in (now, base)
        ]
        same = matches(*sure, CLOSE).values()
        return View(
            kind=kind,
            image=convert(now.image[0, :, :height, :width], taken, PLAIN),
            base=base,
            now=now,
            off={level: Row.of(base.maps[level], now.maps[level]).relative for level in LEVELS},
            boxes=boxes,
            lost=[box for i, box in enumerate(wanted) if i not in same],
        )


def _sure(walked: Walk, image: Tensor) -> list[SureBox]:
    rows, columns = (got / given for got, given in zip(walked.size, image.shape[1:], strict=True))
    kept = walked.result["scores"] >= SURE
    source = walked.source[kept]
    boxes = walked.result["boxes"][kept] * torch.tensor([columns, rows, columns, rows])
    values = boxes, walked.result["labels"][kept], walked.result["scores"][kept]
    values += walked.proposals[source], walked.proposed_by[source], walked.pooled_from[source]
    return [SureBox(*one) for one in zip(*(each.tolist() for each in values), strict=True)]
