"""A tensor in a format that the network does not expect: what it is fed, and what comes of it."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN

from helpers.compare import ROUNDING, Row
from helpers.course.explorers.explorer import log_share
from helpers.inputs import photos
from helpers.inputs.pixels import PLAIN, convert
from helpers.inputs.scenes import CLASSES, SIZE, scenes
from helpers.networks.detector import matches
from helpers.stages import STAGES, body, stages
from helpers.text import short

SCENES, SEED = 8, 1  # of the seed that is held out in training
SCORE = IOU = 0.5  # from which on a box is shown, and takes an object
ENTERING, LEAVING = "into conv1", "out of conv1"
MOST_BOXES = 12  # drawn
KEPT = 16  # pictures of which the right maps are kept, about 1 MB each


class Found(NamedTuple):
    """What is detected: how many objects are found, how many boxes are false; None for a photo.

    `boxes`: the best boxes and the objects that none finds, as an explorer's image panel has them.
    """

    boxes: list[dict[str, Any]]
    count: int
    objects: int | None
    found: int

    def words(self) -> str:
        """Both counts in words."""
        if self.objects is None:
            return f"{self.count} box{'es' * (self.count != 1)} (a photo has no truth)"
        return f"{self.found} of {self.objects} objects found, {self.count - self.found} false"


@dataclass(frozen=True, eq=False)
class View:
    """What becomes of a picture, now and with a loader that emits what the network expects.

    `image`, `fed` (3,H,W): the picture, and what the network takes it for, both in 0–1 if all is
    right. `emitted`: the values that the loader emits. `spans`: ENTERING and LEAVING → the values
    now, and the right ones. `rows`: how far each stage's map is off, relative to the right one.
    """

    image: Tensor
    fed: Tensor
    emitted: str
    spans: dict[str, tuple[str, str]]
    rows: dict[str, Row]
    found: Found
    right: Found


class Feeding:
    """The scene detector, and what it does with pictures that are fed rightly and wrongly.

    `model`: a FasterRCNN like networks.detector.detector(), in eval mode; it is left as it is.
    TypeError for another kind of model; ValueError in train mode and for other classes.
    """

    def __init__(self, model: FasterRCNN):
        if not isinstance(model, FasterRCNN):
            raise TypeError(f"Give the scene detector, a FasterRCNN, not {type(model).__name__}.")
        if model.training:
            raise ValueError("The detector is in train mode: call .eval() first.")
        classes = model.roi_heads.box_predictor.cls_score.out_features
        if classes != len(CLASSES):
            raise ValueError(f"The detector has {classes} classes: the scenes have {len(CLASSES)}.")
        self._model = model
        self._right = lru_cache(KEPT)(self._fed_rightly)  # a tensor is the same only as itself

    def view(
        self,
        image: Tensor,
        target: Mapping[str, Tensor] | None,
        brightness: float,
        emits: str,
        expects: str,
    ) -> View:
        """One forward pass for an image (3,H,W), and a second one before it has been fed rightly.

        The image times `brightness`, cut off at 1, is emitted in one format of KNOWN, and the
        network expects another. ValueError for an unknown format, and for maps that are not finite.
        """
        image, right, detected = self._right(image, brightness)
        emitted = convert(image, PLAIN, emits)
        fed = convert(emitted, expects, PLAIN)
        rows, spans = {}, {}

        def measure(point, now):
            if not now.sum().isfinite():
                raise ValueError(
                    f"What the loader emits as {emits} and the network expects as {expects} gives "
                    "maps that are not finite: choose another format, or another detector."
                )
            if point in STAGES:
                rows[point] = Row.of(right[point], now)
            else:
                spans[point] = span(now), span(right[point])

        found = _found(_run(self._model, fed, measure), target)
        return View(image, fed, span(emitted), spans, rows, found, _found(detected, target))

    def _fed_rightly(self, image: Tensor, brightness: float):
        image, maps = (image * brightness).clamp(max=1), {}
        return image, maps, _run(self._model, image, lambda at, now: maps.update({at: now.clone()}))


@cache
def pictures() -> Mapping[str, tuple[Tensor, dict[str, Tensor] | None]]:
    """Name → image (3, 128, 128) in 0–1 and its target: held-out scenes, and photos without one."""
    held_out = {f"scene {i}": scene for i, scene in enumerate(scenes(SCENES, SEED))}
    return held_out | {name: (photos.load(name, SIZE)[0], None) for name in photos.NAMES}


def span(x: Tensor) -> str:
    """The smallest and the largest value of a tensor."""
    return " … ".join(rounded(end.item(), 3) for end in x.aminmax())


def rounded(number: float, digits: int = 2) -> str:
    """A number with few significant digits; rounding beyond them depends on the processor."""
    size = float(f"{abs(number):.{digits}g}")
    words = f"{size:,.0f}" if size >= 100 else short(size, digits)
    return f"−{words}" if number < 0 else words


def bound(relative: float) -> str:
    """A relative difference in words; rounding has a bound, no digits."""
    return "≤ 1e-5" if relative <= ROUNDING else rounded(relative)


def share(relative: float) -> float:
    """How long the bar of a relative difference is, on a log scale; rounding has none."""
    return round(log_share(relative, 1e-6, 1e3), 3) if relative >= ROUNDING else 0.0


@torch.inference_mode()
def _run(
    model: FasterRCNN, image: Tensor, visit: Callable[[str, Tensor], None]
) -> dict[str, Tensor]:
    """The detections, after a visit of ENTERING, LEAVING and each stage's map, (1,C,H,W).

    What is visited lasts only for the visit: layers that work in place overwrite it.
    """

    with ExitStack() as stack:

        def after(module: nn.Module, hook: Callable) -> None:
            stack.callback(module.register_forward_hook(hook).remove)

        first = body(model).conv1
        after(first, lambda _, given, out: visit(ENTERING, given[0]) or visit(LEAVING, out))
        for stage, part in stages(model).items():
            last = list(part.children())[-1]
            after(last, lambda _, given, out, stage=stage: visit(stage, out))
        [result] = model([image])
    return result


def _found(result: dict[str, Tensor], target: Mapping[str, Tensor] | None) -> Found:
    """The sure detections, the best first; who takes which object is that of `evaluate`."""
    order = result["scores"].argsort(descending=True, stable=True)
    order = order[result["scores"][order] >= SCORE]
    kept = {name: values[order] for name, values in result.items()}
    taken = {} if target is None else matches(kept, target, IOU)
    boxes = []

    def add(kind: str, word: str, xyxy: list[float], label: int, score: str = "") -> None:
        text = f"{word}: {CLASSES[label]}{score}"
        boxes.append({"box": [round(v, 1) for v in xyxy], "kind": kind, "text": text})

    values = (kept[name][:MOST_BOXES].tolist() for name in ("boxes", "labels", "scores"))
    for i, (xyxy, label, score) in enumerate(zip(*values, strict=True)):
        kind = ("other", "box") if target is None else ("wrong", "false")
        add(*("right", "found") if i in taken else kind, xyxy, label, f" {100 * score:.0f} %")
    if target is None:
        return Found(boxes, len(order), None, 0)
    for i, (xyxy, label) in enumerate(
        zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True)
    ):
        if i not in taken.values():
            add("truth", "missed", xyxy, label)
    return Found(boxes, len(order), len(target["labels"]), len(taken))
