"""torchvision's Faster R-CNN, run step by step from an image to its boxes."""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from math import log2
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision import ops
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.rpn import concat_box_prediction_layers

from helpers.inputs.pixels import check_image
from helpers.networks.detector import matches

SURE, CLOSE = 0.5, 0.9  # the score of a box that counts; the IoU from which on it is the same


@dataclass(frozen=True, eq=False)
class Walk:
    """All steps of a detector from one image to its boxes; levels are numbers, 2 for P2.

    `image` (1,3,H,W): normalized, resized and padded; `size`: its height and width before padding.
    `body`: C2 … C5 → feature map (1,C,h,w); `pyramid`: P2 … P6 → feature map (1,C,h,w).
    `anchors`, `objectness`: P2 … P6 → (n,4) and logits (n). `proposals` (p,4): clipped to the
    image, the best first; `proposed_by` (p): the level of the anchor of each; `pooled_from` (p):
    the level from which each is pooled. `result`: boxes (d,4) in pixels of the given image, labels
    (d) and scores (d), the best first; `source` (d): the index of the proposal of each. All other
    boxes are xyxy in pixels of the resized image.
    """

    image: Tensor
    size: tuple[int, int]
    body: dict[str, Tensor]
    pyramid: dict[str, Tensor]
    anchors: dict[str, Tensor]
    objectness: dict[str, Tensor]
    proposals: Tensor
    proposed_by: Tensor
    pooled_from: Tensor
    result: dict[str, Tensor]
    source: Tensor

    @property
    def sides(self) -> Tensor:
        """The square root of the area of each proposal (p), in px of the resized image."""
        return ops.box_area(self.proposals).sqrt()

    @property
    def maps(self) -> dict[str, Tensor]:
        """The feature maps of body and pyramid, C2 … C5 and P2 … P6."""
        return self.body | self.pyramid


@torch.inference_mode()
def walk(model: FasterRCNN, image: Tensor) -> Walk:
    """Run a detector on one image step by step, with the result of `model([image])` bit for bit.

    `model`: in eval mode, with an FPN in which each level has half the size of the one before.
    `image`: floating point (3,H,W), RGB in 0–1. The steps are those of torchvision 0.29
    (GeneralizedRCNN.forward, RegionProposalNetwork.filter_proposals, MultiScaleRoIAlign and
    RoIHeads.postprocess_detections), but for one: MultiScaleRoIAlign keeps the strides of its first
    image, even if that is so thin that they are wrong; here they are those of the feature maps.

    Raises TypeError for another kind of model or image, and ValueError in train mode, for another
    shape, and for NaN or infinity on the way, naming the step.
    """
    check_input(model, image)
    images, _ = model.transform([image])
    [size] = images.image_sizes
    body = model.backbone.body(images.tensors)
    features = model.backbone.fpn(body)
    rows = images.tensors.shape[-2]
    levels = {name: round(log2(rows / x.shape[-2])) for name, x in features.items()}
    names = [f"P{level}" for level in levels.values()]
    _finite("the pyramid", *features.values())

    objectness, deltas = model.rpn.head(list(features.values()))
    anchors = model.rpn.anchor_generator(images, list(features.values()))
    counts = [x.numel() for x in objectness]
    logits, deltas = concat_box_prediction_layers(objectness, deltas)
    logits = logits.flatten()
    _finite("the region proposal network", logits, deltas)
    boxes = model.rpn.box_coder.decode(deltas, anchors)[:, 0]
    proposals, by = _best_proposals(model.rpn, boxes, logits, counts, size)
    proposed_by = torch.tensor(list(levels.values()), device=by.device)[by]

    pooler = copy(model.roi_heads.box_roi_pool)
    pooler.scales = None  # so that it infers them from these feature maps
    pooled = pooler(features, [proposals], [tuple(images.tensors.shape[-2:])])
    mapper = pooler.map_levels  # floor(4 + log2(sqrt(area) / 224)), clipped: arXiv 1612.03144
    pooled_from = mapper.k_min + mapper([proposals])
    class_logits, box_deltas = model.roi_heads.box_predictor(model.roi_heads.box_head(pooled))
    _finite("the box head", class_logits, box_deltas)
    result, source = _detections(model.roi_heads, class_logits, box_deltas, proposals, size)
    [result] = model.transform.postprocess([result], [size], [tuple(image.shape[-2:])])
    return Walk(
        image=images.tensors,
        size=tuple(size),
        body={f"C{levels[name]}": x for name, x in body.items()},
        pyramid=dict(zip(names, features.values(), strict=True)),
        anchors=dict(zip(names, anchors[0].split(counts), strict=True)),
        objectness=dict(zip(names, logits.split(counts), strict=True)),
        proposals=proposals,
        proposed_by=proposed_by,
        pooled_from=pooled_from,
        result=result,
        source=source,
    )


class Changes(NamedTuple):
    """Counts that compare the proposals and boxes of detector B with those of detector A.

    Only boxes with a score of at least SURE count; two boxes are the same if they have the same
    class and an IoU of at least CLOSE. `proposals`, `boxes`: those of A. `moved`: proposals of A
    without one of B within a pixel. `lost`: boxes that B lacks; `new`: those that A lacks.
    """

    proposals: int
    moved: int
    boxes: int
    lost: int
    new: int


def changes(a: Sequence[Walk], b: Sequence[Walk]) -> Changes:
    """Count what changes from detector A to B, given their walks of the same images in order."""
    counts = [_changes(x, y) for x, y in zip(a, b, strict=True)]
    return Changes(*map(sum, zip(*counts, strict=True)))


def _changes(a: Walk, b: Walk) -> Changes:
    near = (a.proposals[:, None] - b.proposals).abs().amax(2) <= 1
    before, after = _sure(a), _sure(b)
    same = len(matches(after, before, CLOSE))
    boxes = len(before["scores"])
    moved = (~near.any(1)).sum().item()
    return Changes(len(near), moved, boxes, boxes - same, len(after["scores"]) - same)


def _sure(walked: Walk) -> dict[str, Tensor]:
    """Keep what is sure of the result, and the index of the proposal of each box."""
    sure = walked.result["scores"] >= SURE
    found = walked.result | {"source": walked.source}
    return {name: values[sure] for name, values in found.items()}


class Origin(NamedTuple):
    """The levels by which an object was found: 2 for P2, and None if it was not found.

    `side`: the square root of the object's area, in px.
    """

    side: float
    proposed_by: int | None = None
    pooled_from: int | None = None


def origins(walked: Walk, target: Mapping[str, Tensor]) -> list[Origin]:
    """Find the levels by which each object of `target`, boxes (n,4) and labels (n), was found.

    A box finds an object if it has its class, a score of at least SURE and an IoU of at least 0.5,
    each object once (helpers.networks.detector.matches).
    """
    sure = _sure(walked)
    by = {number: sure["source"][found] for found, number in matches(sure, target).items()}
    sides = ops.box_area(target["boxes"]).sqrt().tolist()
    levels = (walked.proposed_by, walked.pooled_from)
    return [
        Origin(side, *(level[by[i]].item() for level in levels)) if i in by else Origin(side)
        for i, side in enumerate(sides)
    ]


def _best_proposals(rpn, boxes, logits, counts, size) -> tuple[Tensor, Tensor]:
    """Select the proposals, and the index of the level of each."""
    levels = torch.arange(len(logits), device=logits.device).split(counts)
    most = rpn.pre_nms_top_n()
    best = [level[logits[level].topk(min(most, len(level))).indices] for level in levels]
    by = torch.cat([torch.full_like(x, number) for number, x in enumerate(best)])
    best = torch.cat(best)
    boxes, scores = ops.clip_boxes_to_image(boxes[best], size), logits[best].sigmoid()
    keep = ops.remove_small_boxes(boxes, rpn.min_size)
    keep = keep[scores[keep] >= rpn.score_thresh]
    kept = ops.batched_nms(boxes[keep], scores[keep], by[keep], rpn.nms_thresh)
    keep = keep[kept[: rpn.post_nms_top_n()]]
    return boxes[keep], by[keep]


def _detections(heads, class_logits, deltas, proposals, size) -> tuple[dict[str, Tensor], Tensor]:
    """Select the boxes, labels and scores, and the index of the proposal of each."""
    classes = class_logits.shape[1]
    boxes = ops.clip_boxes_to_image(heads.box_coder.decode(deltas, [proposals]), size)
    boxes = boxes[:, 1:].reshape(-1, 4)  # class 0 is the background
    scores = class_logits.softmax(-1)[:, 1:].reshape(-1)
    labels = torch.arange(1, classes, device=scores.device).repeat(len(proposals))
    source = torch.arange(len(proposals), device=scores.device).repeat_interleave(classes - 1)
    keep = torch.where(scores > heads.score_thresh)[0]
    keep = keep[ops.remove_small_boxes(boxes[keep], min_size=1e-2)]
    kept = ops.batched_nms(boxes[keep], scores[keep], labels[keep], heads.nms_thresh)
    keep = keep[kept[: heads.detections_per_img]]
    return {"boxes": boxes[keep], "labels": labels[keep], "scores": scores[keep]}, source[keep]


def check_input(model: FasterRCNN, image: Tensor) -> None:
    """Raise TypeError or ValueError for a model or an image that `walk` cannot take."""
    if not isinstance(model, FasterRCNN) or not isinstance(model.backbone, BackboneWithFPN):
        raise TypeError(f"Give a FasterRCNN with an FPN, not {type(model).__name__}.")
    if model.training:
        raise ValueError("The model is in train mode: call .eval() first.")
    check_image(image, (3,))


def _finite(where: str, *tensors: Tensor) -> None:
    if not all(x.isfinite().all() for x in tensors):
        raise ValueError(
            f"NaN or infinity comes out of {where}: check that the image is finite, and that no "
            "normalization layer divides by zero (eps 0, variance 0)."
        )


def effective_receptive_width(
    model: FasterRCNN, image: Tensor, share: float = 0.9
) -> dict[str, float]:
    """Measure how wide an area of the image the middle cell of each of C2 … C5, P2 … P5 depends on.

    The width, in px of the resized image, is that of the band of columns around the cell that holds
    `share` of the squared gradient of the cell's squared norm. `model`: a detector with an FPN, in
    eval mode; `image` (3,H,W) in 0–1, best square. After arXiv 1701.04128, which measures squares.
    Raises what `walk` raises for a wrong model or image.
    """
    check_input(model, image)
    x = model.transform([image])[0].tensors.detach().requires_grad_()
    body = model.backbone.body(x)
    pyramid = model.backbone.fpn(body)
    maps = {f"C{int(name) + 2}": body[name] for name in body}
    maps |= {f"P{int(name) + 2}": pyramid[name] for name in body}
    widths = {}
    for level, features in maps.items():
        row, column = (size // 2 for size in features.shape[-2:])
        cell = features[0, :, row, column].square().sum()
        [gradient] = torch.autograd.grad(cell, x, retain_graph=True)
        columns = gradient.double().square().sum((0, 1, 2))
        center = (column + 0.5) * x.shape[-1] / features.shape[-1]
        away, order = (torch.arange(len(columns)) + 0.5 - center).abs().sort()
        held = columns[order].cumsum(0) / columns.sum()
        widths[level] = 2 * away[held >= share - 1e-12][0].item() + 1
    return widths
