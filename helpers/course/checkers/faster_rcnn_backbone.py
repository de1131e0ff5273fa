"""Exercises on Faster R-CNN and its backbone."""

import copy
from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN

from helpers.audit import audit
from helpers.course.checkers.checker import (
    RETURNS_NOTHING,
    Checker,
    is_empty,
    same_choice,
    same_values,
)
from helpers.faster_rcnn import walk
from helpers.inputs.scenes import scenes
from helpers.networks.detector import ANCHORS, load_detector
from helpers.networks.lite0 import load_lite0
from helpers.norms import freeze, is_frozen, norm_layers

SHAPES = {
    "resized": (1066, 800),
    "padded": (1088, 800),
    "P2": (272, 200),
    "P3": (136, 100),
    "P4": (68, 50),
    "P5": (34, 25),
    "P6": (17, 13),
    "anchors": 217_413,
}


def but(part: str, value) -> Callable:
    """An attempt at SHAPES that is right but for one part."""
    return lambda rows, columns: SHAPES | {part: value}


SHAPE_MISTAKES = {
    f"{name} is turned round: rows come first, and an image of 800×600 has 800 of them.": but(
        name, SHAPES[name][::-1]
    )
    for name in list(SHAPES)[:-1]
} | {
    "resized is rounded up: torchvision rounds down.": but("resized", (1067, 800)),
    "resized is not rounded: torchvision rounds down.": but("resized", (3200 / 3, 800)),
    "resized has its long side at the limit: the short side is first.": but("resized", (1333, 999)),
    "resized is the image as it was: the short side is brought to 800.": but("resized", (800, 600)),
    "padded is not padded: both sides must be multiples of 32.": but("padded", (1066, 800)),
    "padded is cut: the next multiple of 32 is above 1066, not below.": but("padded", (1056, 800)),
    "P2 belongs to the image before padding.": but("P2", (267, 200)),
    "P3 belongs to the image before padding.": but("P3", (134, 100)),
    "P4 belongs to the image before padding.": but("P4", (67, 50)),
    "P6 is rounded down: every second of 25 columns, from the first on, are 13.": but(
        "P6", (17, 12)
    ),
    "anchors counts cells: each has three anchors.": but("anchors", 72_471),
    "anchors stops at P5: the RPN also looks at P6.": but("anchors", 216_750),
}


@cache
def lite0() -> nn.Module:
    return load_lite0()


def find_backbone_mistake(attempt) -> str | None:
    network, untouched = copy.deepcopy(lite0()), lite0()
    backbone = attempt(network)
    if is_empty(backbone):
        return RETURNS_NOTHING
    if not isinstance(backbone, BackboneWithFPN):
        return f"return a BackboneWithFPN, not {type(backbone).__name__}."
    if [*map(type, network.modules())] != [*map(type, untouched.modules())] or not all(
        map(torch.equal, network.state_dict().values(), untouched.state_dict().values())
    ):
        return "your function changes `network` itself: `freeze` gives a copy."
    with torch.no_grad():
        maps = backbone.eval()(torch.zeros(1, 3, 64, 64))
    if list(maps) != [*"0123", "pool"]:
        return (
            f"the levels are called {', '.join(maps)}: the pooler asks for 0, 1, 2 and 3, and "
            "leaves out any other without a word."
        )
    strides = [64 // x.shape[-1] for x in maps.values()]
    if strides != [4, 8, 16, 32, 64]:
        return (
            f"the levels have strides {', '.join(map(str, strides))}: P2 … P6 have 4, 8, 16, 32 "
            "and 64; the stem is no level."
        )
    if not all(map(is_frozen, norm_layers(backbone.body).values())):
        return "its statistics would move in training: freeze its normalization layers."
    if findings := audit(backbone, recipe=network).findings:
        return (
            f"the audit finds {findings[0].code}: Lite0 was trained with eps 1e-3, and "
            "FrozenBatchNorm2d has 1e-5 unless it is told otherwise."
        )
    return None


def backbone_on(network, kind=freeze, layers=None, channels=(24, 40, 112, 320)):
    """The right attempt, but for what is given."""
    layers = layers or {f"layer{k}": str(k - 1) for k in (1, 2, 3, 4)}
    return BackboneWithFPN(kind(network), layers, list(channels), 256)


SETTINGS = {  # name → anchors, by what they can be told
    "right": (ANCHORS, "on P3, whose anchors measure 16 px, the median proposal does, too"),
    "doubled": (
        [2 * x for x in ANCHORS],
        "its proposals are twice as large as a level's should be",
    ),
    "halved": ([x // 2 for x in ANCHORS], "its proposals are half as large as a level's should be"),
    "reversed": (ANCHORS[::-1], "its proposals are the smaller the coarser the level"),
}


@cache
def proposals() -> list[tuple[str, tuple[Tensor, Tensor, str]]]:
    """Pairs for same_choice, of two scenes for each setting."""
    model, cases = load_detector(), []
    for name, (sizes, symptom) in SETTINGS.items():
        model.rpn.anchor_generator = AnchorGenerator(
            tuple((size,) for size in sizes), ((0.5, 1.0, 2.0),) * len(sizes)
        )
        says = f'you call "{{answer}}" what is "{name}": {symptom}.'
        for walked in (walk(model, image) for image, _ in scenes(2, seed=7)):
            cases.append((says, (walked.proposals, walked.proposed_by, name)))
    return cases


def by_median(boxes: Tensor, root: bool = True, halved: float = 11) -> str:
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    median = (areas.sqrt() if root else areas).median()
    return "doubled" if median > 24 else "halved" if median < halved else "right"


CHECKERS = {
    "09-shapes": same_values(
        [(800, 600)],
        lambda rows, columns: SHAPES,
        praise="every shape is right: 1.33 times as large, padded by 22 rows, halved five times.",
        mistakes=SHAPE_MISTAKES,
        wrong={
            "P3 is something else: go back one step": but("P3", (137, 100)),
            "anchors is still missing": but("anchors", ...),
            "P2 is something else": but("P2", "272x200"),
            "return a dict with the keys P2, P3": lambda rows, columns: {"P2": (272, 200)},
        },
        parts={
            name: f"{name} is something else: go back one step, and halve from there."
            for name in SHAPES
        },
    ),
    "09-backbone": Checker(
        find_backbone_mistake,
        praise="five levels, and the audit finds nothing.",
        wrong={
            "eps-differs": partial(backbone_on, kind=lambda network: freeze(network, 1e-5)),
            "would move in training": partial(backbone_on, kind=lambda network: network),
            "the levels are called layer1, layer2, layer3, layer4, pool": partial(
                backbone_on, layers={f"layer{k}": f"layer{k}" for k in (1, 2, 3, 4)}
            ),
            "the stem is no level": partial(
                backbone_on,
                layers={"stem": "0", "layer1": "1", "layer2": "2", "layer3": "3"},
                channels=(16, 24, 40, 112),
            ),
            "changes `network` itself": partial(
                backbone_on, kind=lambda network: freeze(network.half().float())
            ),
            "return a BackboneWithFPN": freeze,
        },
    ),
    "09-anchors": same_choice(
        proposals,
        praise="the proposals give their anchors away, level by level.",
        wrong={
            'you call "doubled" what is "reversed"': lambda boxes, by: by_median(boxes),
            'what is "reversed": its': lambda boxes, by: by_median(boxes[by == 3]),
            'you call "doubled" what is "right"': lambda boxes, by: by_median(boxes, root=False),
            'you call "right" what is "doubled"': lambda boxes, by: "right",
            'what is "halved"': lambda boxes, by: by_median(boxes[by == 3], halved=5),
            "return one of 'right', 'doubled', 'halved', 'reversed'": lambda boxes, by: "too large",
        },
    ),
}
