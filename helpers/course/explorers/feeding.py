"""A tensor taken for another format: what the scene detector is fed, and what comes of it."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN

from helpers.compare import ROUNDING, Row
from helpers.inputs import photos
from helpers.inputs.pixels import KNOWN, PLAIN, convert
from helpers.inputs.scenes import CLASSES, SIZE, scenes
from helpers.networks.detector import matches
from helpers.stages import STAGES, body, stages
from helpers.text import short

SCENES, SEED = 8, 1  # of the seed that is held out in training
SCORE = IOU = 0.5  # from which on a box is shown, and takes an object
BINS = 80
ENTERING, LEAVING = "into conv1", "out of conv1"
OUTSIDE = 1e-4  # beyond 0–1 by more than rounding

PRESETS = {  # name in pixels.loader_mistakes → what the loader emits
    "right": "0-1",
    "0-255": "0-255",
    "halved": "halved",
    "normalized twice": "torchvision",
    "BGR": "BGR",
    "-1 to 1": "keras-tf",
}


class ScalingState(NamedTuple):
    """The loader emits a picture in one format, the network is told another: names of KNOWN."""

    picture: str
    emitted: str = "0-1"
    expected: str = "0-1"


class Box(NamedTuple):
    """xyxy in pixels; an index of CLASSES; the score, 1 for the truth; whether it is matched.

    `matched` says of a detection that it takes an object, of an object that it is found.
    """

    xyxy: tuple[float, float, float, float]
    label: int
    score: float
    matched: bool


class Histogram(NamedTuple):
    """Shares of the bins over `limits`, both (BINS,), and the smallest and the largest value."""

    limits: tuple[float, float]
    fed: Tensor
    right: Tensor
    span: tuple[float, float]
    right_span: tuple[float, float]


@dataclass(frozen=True, eq=False)
class View:
    """What becomes of a state.

    `fed` (3,H,W): the image that the detector is given; `outside`: the share of its values outside
    0–1. `entering`: what its first convolution takes; `leaving`: what that gives. `rows`: how far
    the maps of each stage are off, relative to the right ones. `boxes`: the detections; `truth`:
    the objects, None for a photo.
    """

    state: ScalingState
    fed: Tensor
    outside: float
    entering: Histogram
    leaving: Histogram
    rows: dict[str, Row]
    boxes: list[Box]
    truth: list[Box] | None

    @property
    def found(self) -> int:
        """How many detections take an object."""
        return sum(box.matched for box in self.boxes)

    @property
    def false(self) -> int:
        """How many detections take none."""
        return len(self.boxes) - self.found

    @property
    def largest(self) -> str:
        """The stage at which the maps are off most."""
        return max(self.rows, key=lambda stage: self.rows[stage].relative)

    def sentence(self) -> str:
        """The key numbers in words; what is no larger than rounding has a bound, no digits."""
        state, span, right = self.state, self.entering.span, self.entering.right_span
        off = self.rows[self.largest].relative
        words = f"{state.picture}, emitted as {state.emitted}, taken for {state.expected}: "
        words += f"the network gets {between(span)} after normalizing, "
        same = between(span) == between(right)
        words += "the right range; " if same else f"not {between(right)}; "
        words += f"{percent(self.outside)} of the image lies outside 0–1. "
        if self.truth is None:
            boxes = f"{len(self.boxes)} box{'es' * (len(self.boxes) != 1)}"
            words += f"It reports {boxes} (a photo has no truth). "
        else:
            words += f"It finds {self.found} of {len(self.truth)} objects, {self.false} false. "
        if off <= ROUNDING:
            return words + "No stage is off by more than rounding (≤ 1e-5)."
        last = list(self.rows)[-1]
        words += f"The maps are off most at {self.largest}: by {two_digits(off)} × the largest "
        words += "right value"
        if last != self.largest:
            words += f", at {last} by {two_digits(self.rows[last].relative)} ×"
        return words + "."


class Feeding:
    """The scene detector, and what it does with the pictures when they are fed as they should be.

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
        self._right: dict[str, dict[str, Tensor]] = {}

    def warm(self) -> None:
        """Run every picture as it should be fed, so that a view costs one forward pass."""
        for picture in pictures():
            self._right_maps(picture)

    def view(self, state: ScalingState) -> View:
        """One forward pass, and a second one if this picture has not been run rightly yet.

        ValueError for an unknown picture or format, and for maps that are not finite.
        """
        image, target = _picture(state.picture)
        fed = convert(convert(image, PLAIN, state.emitted), state.expected, PLAIN)
        right, seen = self._right_maps(state.picture), {}

        def measure(point, now):
            if not now.sum().isfinite():
                raise ValueError(
                    f"{state.picture}, emitted as {state.emitted} and taken for {state.expected}, "
                    "gives maps that are not finite: choose another format, or another detector."
                )
            seen[point] = (Row.of if point in STAGES else _histogram)(right[point], now)

        result = _run(self._model, fed, measure)
        boxes, truth = _matched(result, target)
        return View(
            state=state,
            fed=fed,
            outside=((fed < -OUTSIDE) | (fed > 1 + OUTSIDE)).double().mean().item(),
            entering=seen[ENTERING],
            leaving=seen[LEAVING],
            rows={stage: seen[stage] for stage in STAGES},
            boxes=boxes,
            truth=truth,
        )

    def _right_maps(self, picture: str) -> dict[str, Tensor]:
        if picture not in self._right:
            maps = {}
            image, _ = _picture(picture)
            _run(self._model, image, lambda point, now: maps.update({point: now.clone()}))
            self._right[picture] = maps
        return self._right[picture]


@cache
def pictures() -> Mapping[str, tuple[Tensor, dict[str, Tensor] | None]]:
    """Name → image (3, 128, 128) in 0–1 and its target: held-out scenes, and photos without one."""
    held_out = {f"scene {i}": scene for i, scene in enumerate(scenes(SCENES, SEED))}
    return held_out | {name: (photos.load(name, SIZE)[0], None) for name in photos.NAMES}


def formats() -> list[str]:
    """The formats to choose from: 0-1, those of frameworks, and those of mistakes."""
    return list(KNOWN)


def two_digits(number: float) -> str:
    """A number with two significant digits; rounding beyond them depends on the processor."""
    size = float(f"{abs(number):.2g}")
    words = f"{size:,.0f}" if size >= 100 else short(size, 2)
    return f"−{words}" if number < 0 else words


def between(span: tuple[float, float]) -> str:
    """Both ends of a range in words."""
    return " … ".join(map(two_digits, span))


def percent(share: float) -> str:
    """Whole percents; what is little, or all but little, is not rounded away."""
    if 0 < share < 0.005:
        return "< 1 %"
    return "> 99 %" if 0.995 < share < 1 else f"{100 * share:.0f} %"


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


def _picture(name: str) -> tuple[Tensor, dict[str, Tensor] | None]:
    if name not in pictures():
        raise ValueError(f"No picture {name!r} here: choose one of {', '.join(pictures())}.")
    return pictures()[name]


def _histogram(right: Tensor, fed: Tensor) -> Histogram:
    span, right_span = (tuple(value.item() for value in x.aminmax()) for x in (fed, right))
    low, high = min(span[0], right_span[0]), max(span[1], right_span[1])
    shares = (torch.histc(x.flatten(), BINS, low, high) / x.numel() for x in (fed, right))
    return Histogram((low, high), *shares, span, right_span)


def _matched(
    result: dict[str, Tensor], target: dict[str, Tensor] | None
) -> tuple[list[Box], list[Box] | None]:
    """Detections, the best score first, and objects; who takes whom is that of `evaluate`."""
    kept = {name: values[result["scores"] >= SCORE] for name, values in result.items()}
    order = kept["scores"].argsort(descending=True, stable=True)
    kept = {name: values[order] for name, values in kept.items()}
    taken = {} if target is None else matches(kept, target, IOU)
    values = (kept["boxes"].tolist(), kept["labels"].tolist(), kept["scores"].tolist())
    boxes = [
        Box(tuple(box), label, score, number in taken)
        for number, (box, label, score) in enumerate(zip(*values, strict=True))
    ]
    if target is None:
        return boxes, None
    matched_objects = set(taken.values())
    objects = zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True)
    return boxes, [
        Box(tuple(box), label, 1.0, i in matched_objects) for i, (box, label) in enumerate(objects)
    ]
