"""Exercises on Faster R-CNN and its backbone."""

from functools import cache

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN

from helpers.audit import audit
from helpers.course.checkers.task import RETURNS_NOTHING, Task, Verdict, is_empty, name_checker
from helpers.faster_rcnn import walk
from helpers.inputs.scenes import scenes
from helpers.networks.detector import ANCHORS, load_detector
from helpers.networks.lite0 import load_lite0
from helpers.norms import is_frozen, norm_layers

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
_TURNED = {name: (shape[1], shape[0]) for name, shape in SHAPES.items() if name != "anchors"}
_UNPADDED = {"P2": (267, 200), "P3": (134, 100), "P4": (67, 50), "P5": (34, 25), "P6": (17, 13)}


def _check_shapes(attempt) -> Verdict:
    answers = attempt(800, 600)
    if is_empty(answers):
        return RETURNS_NOTHING
    if not isinstance(answers, dict) or set(answers) != set(SHAPES):
        return Verdict(False, f"return a dict with the keys {', '.join(SHAPES)}.")
    given = {k: tuple(v) if isinstance(v, (list, torch.Size)) else v for k, v in answers.items()}
    if given == SHAPES:
        return Verdict(
            True, "every shape is right: 1.33 times as large, padded by 22 rows, halved five times."
        )
    name = next(name for name, shape in SHAPES.items() if given[name] != shape)
    answer = given[name]
    if is_empty(answer):
        return Verdict(False, f"{name} is still missing.")
    if answer == _TURNED.get(name):
        mistake = "is turned round: rows come first, and an image of 800×600 has 800 of them"
    elif name == "resized" and answer in ((1067, 800), (1066.67, 800)):
        mistake = "is rounded up: torchvision cuts off what is not a whole pixel"
    elif name == "resized" and answer == (1333, 999):
        mistake = "has the long side at max_size: that is a limit, and the short side comes first"
    elif name == "resized" and answer == (800, 600):
        mistake = "is the image as it was: the short side is brought to 800"
    elif name == "padded" and answer == (1066, 800):
        mistake = "is not padded: both sides must be multiples of 32"
    elif name == "padded" and answer == (1056, 800):
        mistake = "is cut: the next multiple of 32 is above 1066, not below"
    elif name == "P6" and answer == (17, 12):
        mistake = "is rounded down: taking every second of 25 columns, from the first on, leaves 13"
    elif name == "anchors" and answer * 3 == SHAPES["anchors"]:
        mistake = "counts cells: each has three anchors"
    elif name == "anchors" and answer == 3 * sum(h * w for h, w in list(SHAPES.values())[2:6]):
        mistake = "stops at P5: the RPN also looks at P6"
    elif answer == _UNPADDED.get(name):
        mistake = "belongs to the image before padding"
    else:
        mistake = "is something else: go back one step, and halve from there"
    return Verdict(False, f"{name} {mistake}.")


def _check_backbone(attempt) -> Verdict:
    network = load_lite0()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    classes = [type(module) for module in network.modules()]
    backbone = attempt(network)
    if is_empty(backbone):
        return RETURNS_NOTHING
    if not isinstance(backbone, BackboneWithFPN):
        return Verdict(False, f"return a BackboneWithFPN, not {type(backbone).__name__}.")
    if classes != [type(module) for module in network.modules()] or not all(
        torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items()
    ):
        return Verdict(False, "your function changes `network` itself: `freeze` gives a copy.")
    with torch.no_grad():
        maps = backbone.eval()(torch.zeros(1, 3, 128, 128))
    names, strides = list(maps), [128 // x.shape[-1] for x in maps.values()]
    mistake = None
    if names != [*"0123", "pool"]:
        mistake = (
            f"the levels are called {', '.join(names)}: the pooler asks for 0, 1, 2 and 3, and "
            "leaves out any other without a word"
        )
    elif strides != [4, 8, 16, 32, 64]:
        mistake = (
            f"the levels have strides {', '.join(map(str, strides))}: P2 … P6 have 4, 8, 16, 32 and"
            " 64; the stem is no level"
        )
    elif not all(is_frozen(layer) for layer in norm_layers(backbone.body).values()):
        mistake = "its statistics would move in training: freeze its normalization layers"
    elif findings := audit(backbone, recipe=network).findings:
        mistake = (
            f"the audit finds {findings[0].code}: Lite0 was trained with eps 1e-3, and "
            "FrozenBatchNorm2d has 1e-5 unless it is told otherwise"
        )
    if mistake:
        return Verdict(False, f"{mistake}.")
    return Verdict(
        True, f"five levels, {backbone.out_channels} channels, and the audit finds none."
    )


_SETTINGS = {
    "right": ANCHORS,
    "doubled": tuple(2 * size for size in ANCHORS),
    "halved": tuple(size // 2 for size in ANCHORS),
    "reversed": ANCHORS[::-1],
}
_SYMPTOMS = {
    "right": "on P3, whose anchors measure 16 px, the median proposal does, too",
    "doubled": "its proposals are about twice as large as the anchors that the level should have",
    "halved": "its proposals are about half as large as the anchors that the level should have",
    "reversed": "its proposals are the smaller the coarser the level",
}


@cache
def _proposals() -> tuple[tuple[str, Tensor, Tensor], ...]:
    """(setting, proposals, proposed_by), for two scenes each."""
    model, found = load_detector(), []
    for name, sizes in _SETTINGS.items():
        model.rpn.anchor_generator = AnchorGenerator(
            tuple((size,) for size in sizes), ((0.5, 1.0, 2.0),) * len(sizes)
        )
        walks = [walk(model, image) for image, _ in scenes(2, seed=7)]
        found += [(name, walked.proposals, walked.proposed_by) for walked in walks]
    return tuple(found)


def _cases():
    for name, proposals, proposed_by in _proposals():
        yield name, (proposals.clone(), proposed_by.clone())


TASKS: dict[str, Task] = {
    "06-shapes": Task(
        "Predict every shape",
        difficulty=2,
        minutes=2,
        checker=_check_shapes,
        hints=(
            "The short side goes to 800, unless the long side would then exceed 1333. Cut off to "
            "whole pixels, pad each side up to a multiple of 32, and halve from stride 4 on.",
            "The common errors are the padding (1066 is no multiple of 32), and P6: a max pooling "
            "of size 1 and stride 2 takes every second cell, the first one included.",
        ),
        solution="""\
def shapes(rows, columns):
    return {
        "resized": (1066, 800), "padded": (1088, 800),
        "P2": (272, 200), "P3": (136, 100), "P4": (68, 50), "P5": (34, 25), "P6": (17, 13),
        "anchors": 3 * (272 * 200 + 136 * 100 + 68 * 50 + 34 * 25 + 17 * 13),
    }
""",
    ),
    "06-backbone": Task(
        "A backbone that passes the audit",
        difficulty=2,
        minutes=2,
        checker=_check_backbone,
        hints=(
            "`BackboneWithFPN` takes the network, the names of its stages with the keys for their "
            "maps, their channels (24, 40, 112, 320 from layer1 on), and the channels of the FPN.",
            "The common error is the eps: `FrozenBatchNorm2d(channels)` has 1e-5, whatever the "
            "network had. `helpers.norms.freeze` keeps each layer's own.",
        ),
        solution="""\
from torchvision.models.detection.backbone_utils import BackboneWithFPN

from helpers.norms import freeze


def backbone_on(network):
    layers = {"layer1": "0", "layer2": "1", "layer3": "2", "layer4": "3"}
    return BackboneWithFPN(freeze(network), layers, [24, 40, 112, 320], 256)
""",
    ),
    "06-anchors": Task(
        "Find the wrong anchors",
        difficulty=2,
        minutes=2,
        checker=name_checker(
            _cases, _SYMPTOMS, "the proposals give their anchors away, level by level."
        ),
        hints=(
            "Proposals of a level are about as large as its anchors. Take the median side of those "
            "of P3, and of those of P5.",
            "The common error is the median of all proposals: where the levels are reversed, many "
            "of P3 are large, and it looks doubled. Compare two levels first.",
        ),
        solution="""\
def which(proposals, proposed_by):
    sides = (proposals[:, 2:] - proposals[:, :2]).prod(1).sqrt()
    fine, coarse = (sides[proposed_by == level].median() for level in (3, 5))
    if fine > coarse:
        return "reversed"
    return "doubled" if fine > 24 else "halved" if fine < 11 else "right"
""",
    ),
}
