"""A tensor in a format that the network does not expect: what it is fed, and what comes of it."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cache, lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN

from helpers.compare import ROUNDING, Row
from helpers.course.explorers.explorer import log_share
from helpers.faster_rcnn import SURE, check_input
from helpers.inputs import photos
from helpers.inputs.pixels import PLAIN, convert
from helpers.inputs.scenes import CLASSES, SIZE, scenes
from helpers.networks.detector import matches
from helpers.stages import STAGES, body, stages
from helpers.text import short

SCENES, SEED = 8, 1  # of the seed that is held out in training
ENTERING, LEAVING = "into conv1", "out of conv1"
MOST_BOXES = 12  # drawn
KEPT = 16  # pictures of which the right maps are kept, about 1 MB each
Target = Mapping[str, Tensor] | None  # a scene's objects; a photo has no truth


class Found(NamedTuple):
    """What is detected, drawn and in words: how many objects are found, how many boxes are false.

    `boxes`: the best boxes and the objects that none finds, as an explorer's image panel has them.
    """

    boxes: list[dict[str, Any]]
    words: str


class View(NamedTuple):
    """What becomes of a picture, now and with a loader that emits what the network expects.

    `image`, `fed` (3,H,W): the picture, and what the network takes it for, both in 0–1 if all is
    right. `emitted`: the values that the loader emits. `spans`: ENTERING and LEAVING → the values
    now, and the right ones. `off`: by how much each stage's map is off, relative to the right one.
    """

    image: Tensor
    fed: Tensor
    emitted: str
    spans: dict[str, tuple[str, str]]
    off: dict[str, float]
    found: Found
    right: Found


def check_detector(model: FasterRCNN) -> None:
    """TypeError or ValueError for a model that is no scene detector in eval mode."""
    check_input(model, torch.zeros(3, 1, 1))
    classes = model.roi_heads.box_predictor.cls_score.out_features
    if classes != len(CLASSES):
        raise ValueError(f"The detector has {classes} classes: the scenes have {len(CLASSES)}.")


class Feeding:
    """The scene detector, and what it does with pictures that are fed rightly and wrongly.

    `model`: networks.detector.detector() in eval mode, which is left as it is. TypeError and
    ValueError as in check_detector.
    """

    def __init__(self, model: FasterRCNN):
        check_detector(model)
        self._model = model
        self._right = lru_cache(KEPT)(self._fed_rightly)  # a tensor is the same only as itself

    def view(
        self, image: Tensor, target: Target, brightness: float, emits: str, expects: str
    ) -> View:
        """One forward pass for an image (3,H,W), and a second one before it has been fed rightly.

        The image times `brightness`, cut off at 1, is emitted in one format of KNOWN, and the
        network expects another. ValueError for an unknown format, and for maps that are not finite.
        """
        image, right, detected = self._right(image, brightness)
        emitted = convert(image, PLAIN, emits)
        fed = convert(emitted, expects, PLAIN)
        off, spans = {}, {}

        def measure(point, now):
            if not now.sum().isfinite():
                raise ValueError(
                    f"What the loader emits as {emits} and the network expects as {expects} gives "
                    "maps that are not finite: choose another format, or another detector."
                )
            if point in STAGES:
                off[point] = Row.of(right[point], now).relative
            else:
                spans[point] = span(now), span(right[point])

        found = _found(_run(self._model, fed, measure), target)
        return View(image, fed, span(emitted), spans, off, found, _found(detected, target))

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
def _run(model: FasterRCNN, image: Tensor, visit: Callable) -> dict[str, Tensor]:
    """The detections, after a visit(point, x) of ENTERING, LEAVING and each stage's map, (1,C,H,W).

    What is visited lasts only for the visit: layers that work in place overwrite it.
    """
    first = body(model).conv1
    last = {list(part.children())[-1]: stage for stage, part in stages(model).items()}

    def hook(module, given, out):
        if module is first:
            visit(ENTERING, *given)
        visit(last.get(module, LEAVING), out)

    with ExitStack() as stack:
        for module in (first, *last):
            stack.callback(module.register_forward_hook(hook).remove)
        [result] = model([image])
    return result


def _found(result: dict[str, Tensor], target: Target) -> Found:
    """The sure detections, the best first; who takes which object is that of `evaluate`."""
    order = result["scores"].argsort(descending=True, stable=True)
    order = order[result["scores"][order] >= SURE]
    kept = {name: values[order] for name, values in result.items()}
    taken = {} if target is None else matches(kept, target)
    boxes = []

    def add(kind: str, word: str, xyxy: list[float], label: int, score: str = "") -> None:
        text = f"{word}: {CLASSES[label]}{score}"
        boxes.append({"box": [round(v, 1) for v in xyxy], "kind": kind, "text": text})

    values = (kept[name][:MOST_BOXES].tolist() for name in ("boxes", "labels", "scores"))
    for i, (xyxy, label, score) in enumerate(zip(*values, strict=True)):
        kind = ("other", "box") if target is None else ("wrong", "false")
        add(*("right", "found") if i in taken else kind, xyxy, label, f" {100 * score:.0f} %")
    count = len(order)
    if target is None:
        return Found(boxes, f"{count} box{'es' * (count != 1)} (a photo has no truth)")
    objects = list(zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True))
    for i, one in enumerate(objects):
        if i not in taken.values():
            add("truth", "missed", *one)
    words = f"{len(taken)} of {len(objects)} objects found, {count - len(taken)} false"
    return Found(boxes, words)
