"""One level of a detector's pyramid, under several normalizations of its body."""

import copy
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN

from helpers.compare import ROUNDING, Row
from helpers.course.explorers.feeding import pictures, two_digits
from helpers.faster_rcnn import SURE, Changes, Walk, changes, check_input, walk
from helpers.inputs.scenes import CLASSES
from helpers.norms import replace_norms

LEVELS = ("C2", "C3", "C4", "C5", "P2", "P3", "P4", "P5", "P6")
BODY_KINDS = {  # how the body normalizes → its kind in helpers.norms.KINDS
    "BatchNorm, eval mode": "running statistics",
    "FrozenBatchNorm, eps 1e-5": "frozen, eps 1e-5",
    "FrozenBatchNorm, eps 0": "frozen, eps 0",
    "batch statistics": "batch statistics",
}
BATCHNORM, FROZEN, EPS_0, BATCH = BODY_KINDS
MEAN = "mean"
CHANNELS = (MEAN, *range(16))
YOURS = "yours"
KEPT = 24  # walks; each takes about 3 MB


class PyramidState(NamedTuple):
    """A picture by its name, one of LEVELS, one of CHANNELS, and one of BODY_KINDS."""

    picture: str
    level: str
    channel: str | int = MEAN
    kind: str = BATCHNORM


class SureBox(NamedTuple):
    """A sure box: xyxy in pixels of the resized image, its label and score, where it comes from.

    Levels are the 2 of P2.
    """

    xyxy: tuple[float, ...]
    label: int
    score: float
    proposed_by: int
    pooled_from: int


@dataclass(frozen=True, eq=False)
class View:
    """What becomes of a state.

    `image` (3,h,w) in 0–1: resized as the detector has it, not padded. `map`, `difference` (H,W):
    the channel, or the mean of all, and how far it is off from BatchNorm's; `off`: by how much the
    whole level is, relative to its largest value. `shape` (channels, rows, columns) and `stride` of
    the level. `anchors` (n,4): those of one cell in the middle, `anchor_count`: of the level.
    `proposals` (p,4): those pooled from the level, or for P6 proposed by it, the best first;
    `proposed`, `pooled`: how many stand on its anchors, and are pooled from it, of `of`. `boxes`:
    the sure ones; `truth`: the objects' (xyxy, label), None for a photo. `changed`: from
    BatchNorm's proposals and boxes.
    """

    state: PyramidState
    image: Tensor
    map: Tensor
    difference: Tensor
    off: float
    shape: tuple[int, int, int]
    stride: int
    anchors: Tensor
    anchor_size: float
    anchor_count: int
    proposals: Tensor
    proposed: int
    pooled: int
    of: int
    boxes: list[SureBox]
    truth: list[tuple[tuple[float, ...], int]] | None
    changed: Changes

    @property
    def pyramid_level(self) -> str:
        """The level of the pyramid with the same stride: P3 for C3."""
        return f"P{self.state.level[1]}"

    def sentence(self) -> str:
        """The key numbers in words; what is no larger than rounding has a bound, no digits."""
        state, (channels, rows, columns) = self.state, self.shape
        words = f"{state.picture}, {state.kind}. {state.level}: {channels} maps of {rows} × "
        words += f"{columns}, stride {self.stride}"
        if state.kind != BATCHNORM:
            by = "≤ 1e-5 (rounding)" if self.off <= ROUNDING else two_digits(self.off)
            words += f", off from BatchNorm's by {by} of its largest value"
        words += f". {self.pyramid_level}: {self.anchor_count} anchors of "
        words += f"{self.anchor_size:.0f} px, {self.proposed} of {self.of} proposals by it, "
        words += f"{self.pooled} pooled from it. "
        names = ", ".join(f"{CLASSES[box.label]} P{box.pooled_from}" for box in self.boxes)
        words += f"Boxes: {names or 'none'}."
        if state.kind != BATCHNORM:
            words += f" Lost of BatchNorm's {self.changed.boxes} boxes (IoU below 0.9): "
            words += f"{self.changed.lost}."
        return words


class Levels:
    """The scene detector, and what its pyramid makes of the pictures.

    `model`: a FasterRCNN with an FPN of five levels and the scenes' classes, in eval mode; it is
    left as it is. `image`: one more picture, YOURS: (3,H,W) or (1,3,H,W), RGB in 0–1. All is
    computed in float64, so that rounding hides no effect of eps. TypeError and ValueError as in
    helpers.faster_rcnn.walk; ValueError for other classes or levels.
    """

    def __init__(self, model: FasterRCNN, image: Tensor | None = None):
        if isinstance(image, Tensor) and image.ndim == 4 and len(image) == 1:
            image = image[0]
        check_input(model, torch.zeros(3, 1, 1) if image is None else image)
        classes = model.roi_heads.box_predictor.cls_score.out_features
        if classes != len(CLASSES):
            raise ValueError(f"The detector has {classes} classes: the scenes have {len(CLASSES)}.")
        exact = copy.deepcopy(model).double()
        self._models = {
            name: replace_norms(exact, kind, share_weights=True).eval()
            for name, kind in BODY_KINDS.items()
        }
        self._yours = {} if image is None else {YOURS: (image, None)}
        self._walks: OrderedDict[tuple[str, str], Walk] = OrderedDict()
        if image is not None:
            levels = tuple(self._walk(YOURS, BATCHNORM).maps)
            if levels != LEVELS:
                raise ValueError(f"The detector has the levels {', '.join(levels)}, not C2 … P6.")

    @property
    def pictures(self) -> Mapping[str, tuple[Tensor, dict[str, Tensor] | None]]:
        """Name → image and target; the reader's own comes first."""
        return self._yours | pictures()

    def view(self, state: PyramidState) -> View:
        """One forward pass for a kind and picture that is new, none for another level or channel.

        ValueError for an unknown picture, level, channel or kind, and for what is not finite.
        """
        for name, value, known in (
            ("picture", state.picture, self.pictures),
            ("level", state.level, LEVELS),
            ("channel", state.channel, CHANNELS),
            ("kind of normalization", state.kind, BODY_KINDS),
        ):
            if value not in known:
                choices = ", ".join(map(str, known))
                raise ValueError(f"No {name} {value!r} here: choose one of {choices}.")
        base, now = (self._walk(state.picture, kind) for kind in (BATCHNORM, state.kind))
        number, partner = int(state.level[1]), f"P{state.level[1]}"
        features = now.maps[state.level]
        shown, wanted = (_channel(w.maps[state.level], state.channel) for w in (now, base))
        anchors = now.anchors[partner]
        rows, columns = now.maps[partner].shape[-2:]
        per_cell = len(anchors) // (rows * columns)
        middle = (rows // 2 * columns + columns // 2) * per_cell
        cell = anchors[middle : middle + per_cell]
        by, of = now.proposed_by == number, now.pooled_from == number
        _, target = self.pictures[state.picture]
        return View(
            state=state,
            image=_unnormalized(self._models[state.kind], now),
            map=shown,
            difference=shown - wanted,
            off=Row.of(base.maps[state.level], features).relative,
            shape=tuple(features.shape[1:]),
            stride=2**number,
            anchors=cell,
            anchor_size=(cell[:, 2:] - cell[:, :2]).prod(1).sqrt().median().item(),
            anchor_count=len(anchors),
            proposals=now.proposals[by if number == 6 else of],
            proposed=by.sum().item(),
            pooled=of.sum().item(),
            of=len(now.proposals),
            boxes=_sure(now, self.pictures[state.picture][0]),
            truth=_objects(target),
            changed=changes([base], [now]),
        )

    def _walk(self, picture: str, kind: str) -> Walk:
        key = picture, kind
        if key not in self._walks:
            image, _ = self.pictures[picture]
            self._walks[key] = walk(self._models[kind], image.double())
            if len(self._walks) > KEPT:
                self._walks.popitem(last=False)
        self._walks.move_to_end(key)
        return self._walks[key]


def _channel(features: Tensor, channel: str | int) -> Tensor:
    return features[0].mean(0) if channel == MEAN else features[0, channel]


def _unnormalized(model: FasterRCNN, walked: Walk) -> Tensor:
    mean, std = (
        torch.tensor(values).reshape(3, 1, 1)
        for values in (model.transform.image_mean, model.transform.image_std)
    )
    height, width = walked.size
    return walked.image[0, :, :height, :width] * std + mean


def _sure(walked: Walk, image: Tensor) -> list[SureBox]:
    rows, columns = (got / given for got, given in zip(walked.size, image.shape[1:], strict=True))
    kept = walked.result["scores"] >= SURE
    source = walked.source[kept]
    boxes = walked.result["boxes"][kept] * torch.tensor([columns, rows, columns, rows])
    values = (walked.result["labels"][kept], walked.result["scores"][kept])
    values += walked.proposed_by[source], walked.pooled_from[source]
    return [
        SureBox(tuple(box), *rest)
        for box, *rest in zip(boxes.tolist(), *(v.tolist() for v in values), strict=True)
    ]


def _objects(target: Mapping[str, Tensor] | None) -> list[tuple[tuple[float, ...], int]] | None:
    if target is None:
        return None
    boxes, labels = target["boxes"].tolist(), target["labels"].tolist()
    return [(tuple(box), label) for box, label in zip(boxes, labels, strict=True)]
