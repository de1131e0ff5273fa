"""Plausible wrong attempts at the exercises on Faster R-CNN, each with words of the answer."""

from functools import partial

from torch import nn
from torchvision.models.detection.backbone_utils import BackboneWithFPN

from helpers.course.checkers.faster_rcnn import SHAPES
from helpers.norms import freeze, replace_norms

CHANNELS = [24, 40, 112, 320]
LAYERS = {f"layer{k}": str(k - 1) for k in (1, 2, 3, 4)}


def backbone(network, kind=freeze, layers=LAYERS, channels=CHANNELS):
    return BackboneWithFPN(kind(network), layers, channels, 256)


def in_place(network):
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps = 1e-5
            layer.weight.data.mul_(2)
    return backbone(network)


def side(proposals):
    return (proposals[:, 2:] - proposals[:, :2]).prod(1).sqrt()


def by_all(proposals, proposed_by):
    median = side(proposals).median()
    return "doubled" if median > 24 else "halved" if median < 11 else "right"


def by_p3(proposals, proposed_by):
    return by_all(proposals[proposed_by == 3], None)


def area_for_side(proposals, proposed_by):
    median = (proposals[:, 2:] - proposals[:, :2]).prod(1)[proposed_by == 3].median()
    return "doubled" if median > 24 else "halved" if median < 11 else "right"


WRONG = {
    "06-shapes": [
        (lambda rows, columns: SHAPES | {"resized": (800, 1066)}, "turned round"),
        (lambda rows, columns: SHAPES | {"resized": (1067, 800)}, "rounded up"),
        (lambda rows, columns: SHAPES | {"resized": (1333, 999)}, "a limit"),
        (lambda rows, columns: SHAPES | {"resized": (800, 600)}, "the image as it was"),
        (lambda rows, columns: SHAPES | {"padded": (1066, 800)}, "not padded"),
        (lambda rows, columns: SHAPES | {"padded": (1056, 800)}, "is cut"),
        (lambda rows, columns: SHAPES | {"P2": (267, 200)}, "before padding"),
        (lambda rows, columns: SHAPES | {"P3": (137, 100)}, "go back one step"),
        (lambda rows, columns: SHAPES | {"P6": (17, 12)}, "rounded down"),
        (lambda rows, columns: SHAPES | {"anchors": 72_471}, "counts cells"),
        (lambda rows, columns: SHAPES | {"anchors": 216_750}, "stops at P5"),
        (lambda rows, columns: SHAPES | {"anchors": ...}, "still missing"),
        (lambda rows, columns: {"P2": (272, 200)}, "a dict with the keys"),
        (lambda rows, columns: (272, 200), "a dict with the keys"),
    ],
    "06-backbone": [
        (partial(backbone, kind=lambda network: freeze(network, 1e-5)), "eps-differs"),
        (
            partial(backbone, kind=lambda network: replace_norms(network, "frozen, eps 0")),
            "the audit finds eps-",
        ),
        (partial(backbone, kind=lambda network: network), "would move in training"),
        (partial(backbone, layers={f"layer{k}": str(k + 1) for k in (1, 2, 3, 4)}), "leaves out"),
        (partial(backbone, layers={f"layer{k}": f"layer{k}" for k in (1, 2, 3, 4)}), "leaves out"),
        (
            partial(
                backbone,
                layers=dict(zip(["stem", "layer1", "layer2", "layer3"], "0123", strict=True)),
                channels=[16, 24, 40, 112],
            ),
            "the stem is no level",
        ),
        (partial(backbone, channels=[40, 112, 320, 1280]), "your code raises"),
        (in_place, "changes `network` itself"),
        (freeze, "return a BackboneWithFPN"),
    ],
    "06-anchors": [
        (by_all, 'you call "doubled" what is "reversed"'),
        (by_p3, 'you call "doubled" what is "reversed"'),
        (area_for_side, 'you call "doubled" what is "right"'),
        (lambda p, by: "right", 'you call "right" what is "doubled"'),
        (lambda p, by: "too large", "one of the names"),
    ],
}
