"""A tensor in a format that the network does not expect: what it is fed, and what comes of it."""

from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, lru_cache
from math import log10
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN

from helpers.compare import ROUNDING, Row
from helpers.inputs import photos
from helpers.inputs.pixels import PLAIN, convert
from helpers.inputs.scenes import CLASSES, SIZE, scenes
from helpers.networks.detector import matches
from helpers.stages import STAGES, body, stages
from helpers.text import short

SCENES, SEED = 8, 1  # of the seed that is held out in training
SCORE = IOU = 0.5  # from which on a box is shown, and takes an object
ENTERING, LEAVING = "into conv1", "out of conv1"
KEPT = 16  # pictures of which the right maps are kept, about 1 MB each


class Box(NamedTuple):
    """xyxy in pixels; an index of CLASSES; the score, 1 for the truth; whether it takes an object.

    Of an object `matched` says whether it is found.
    """

    xyxy: tuple[float, float, float, float]
    label: int
    score: float
    matched: bool


class Found(NamedTuple):
    """The detections, the best first; the objects, None for a photo."""

    boxes: list[Box]
    truth: list[Box] | None

    def words(self) -> str:
        """How many objects are found, and how many boxes are false."""
        found = sum(box.matched for box in self.boxes)
        if self.truth is None:
            return f"{len(self.boxes)} box{'es' * (len(self.boxes) != 1)} (a photo has no truth)"
        return f"{found} of {len(self.truth)} objects found, {len(self.boxes) - found} false"


class Span(NamedTuple):
    """The smallest and the largest value of a tensor."""

    low: float
    high: float

    @classmethod
    def of(cls, x: Tensor) -> "Span":
        """Measure a tensor."""
        return cls(*(end.item() for end in x.aminmax()))

    def __str__(self) -> str:
        return f"{rounded(self.low, 3)} … {rounded(self.high, 3)}"


@dataclass(frozen=True, eq=False)
class View:
    """What becomes of a picture, now and with a loader that emits what the network expects.

    `image`, `fed` (3,H,W): the picture, and what the network takes it for, both in 0–1 if all is
    right. `emitted`: the values that the loader emits. `spans`: ENTERING and LEAVING → the values
    now, and the right ones. `rows`: how far each stage's map is off, relative to the right one.
    """

    image: Tensor
    fed: Tensor
    emitted: Span
    spans: dict[str, tuple[Span, Span]]
    rows: dict[str, Row]
    found: Found
    right: Found

    @property
    def largest(self) -> str:
        """The stage at which the maps are off most."""
        return max(self.rows, key=lambda stage: self.rows[stage].relative)


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
                spans[point] = Span.of(now), Span.of(right[point])

        found = _found(_run(self._model, fed, measure), target)
        return View(image, fed, Span.of(emitted), spans, rows, found, _found(detected, target))

    def _fed_rightly(self, image: Tensor, brightness: float):
        image, maps = (image * brightness).clamp(max=1), {}
        return image, maps, _run(self._model, image, lambda at, now: maps.update({at: now.clone()}))


@cache
def pictures() -> Mapping[str, tuple[Tensor, dict[str, Tensor] | None]]:
    """Name → image (3, 128, 128) in 0–1 and its target: held-out scenes, and photos without one."""
    held_out = {f"scene {i}": scene for i, scene in enumerate(scenes(SCENES, SEED))}
    return held_out | {name: (photos.load(name, SIZE)[0], None) for name in photos.NAMES}


def check(**given: tuple[object, Collection]) -> None:
    """ValueError, in one sentence, for a value that is not among the choices: (value, choices)."""
    for name, (value, choices) in given.items():
        if value not in choices:
            listed = ", ".join(map(str, choices))
            raise ValueError(f"No {name} {value!r} here: choose one of {listed}.")


def rounded(number: float, digits: int = 2) -> str:
    """A number with few significant digits; rounding beyond them depends on the processor."""
    size = float(f"{abs(number):.{digits}g}")
    words = f"{size:,.0f}" if size >= 100 else short(size, digits)
    return f"−{words}" if number < 0 else words


def bound(relative: float) -> str:
    """A relative difference in words; rounding has a bound, no digits."""
    return "≤ 1e-5" if relative <= ROUNDING else rounded(relative)


def share(relative: float, low: float = 1e-6, high: float = 1e3) -> float:
    """How long the bar of a relative difference is, on a log scale; rounding has none."""
    length = log10(min(max(relative, low), high) / low) / log10(high / low)
    return round(length, 3) if relative >= ROUNDING else 0.0


@torch.inference_mode()
def _run(
    model: FasterRCNN, image: Tensor, visit: Callable[[str, Tensor], None]
) -> dict[str, Tensor]:
    """The detections, after a visit of ENTERING, LEAVING and each stage's map, (1,C,H,W).

    What is visited lasts only for the visit: layers that work in place overwrite it.
    """

    def first(module, inputs, output):
        visit(ENTERING, inputs[0])
        visit(LEAVING, output)

    with ExitStack() as stack:
        stack.callback(body(model).conv1.register_forward_hook(first).remove)
        for stage, part in stages(model).items():

            def last(module, inputs, output, stage=stage):
                visit(stage, output)

            stack.callback(list(part.children())[-1].register_forward_hook(last).remove)
        [result] = model([image])
    return result


def _found(result: dict[str, Tensor], target: Mapping[str, Tensor] | None) -> Found:
    """The sure detections and the objects; who takes whom is that of `evaluate`."""
    order = result["scores"].argsort(descending=True, stable=True)
    order = order[result["scores"][order] >= SCORE]
    kept = {name: values[order] for name, values in result.items()}
    taken = {} if target is None else matches(kept, target, IOU)
    values = [kept[name].tolist() for name in ("boxes", "labels", "scores")]
    boxes = [
        Box(tuple(xyxy), *rest, i in taken)
        for i, (xyxy, *rest) in enumerate(zip(*values, strict=True))
    ]
    if target is None:
        return Found(boxes, None)
    objects = zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True)
    found = set(taken.values())
    return Found(
        boxes, [Box(tuple(xyxy), label, 1.0, i in found) for i, (xyxy, label) in enumerate(objects)]
    )
