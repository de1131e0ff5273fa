"""The small Faster R-CNN trained on the synthetic scenes, and its scores.

It is torchvision's own FasterRCNN, and only the sizes differ: a ResNet of four basic blocks, each
stage half as wide as in resnet18, a 64-channel FPN, a box head of 128 units. It has about 1.9
million parameters.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.resnet import BasicBlock
from torchvision.ops import MultiScaleRoIAlign, box_iou

from helpers import DATA
from helpers.inputs.pixels import MEAN, STD
from helpers.inputs.scenes import CLASSES, SIZE, Scene
from helpers.networks.download import load_whole

WIDTHS = {"layer1": 32, "layer2": 64, "layer3": 128, "layer4": 256}
FPN_WIDTH = 64
HEAD_WIDTH = 128
ANCHORS = (8, 16, 32, 64, 128)  # pixels, one size for each of P2 … P6
CANONICAL_SCALE = 64  # torchvision's 224 would pool every box of a 128 px scene from P2


def group_norm(channels: int) -> nn.GroupNorm:
    """Make a layer for `detector` that normalizes each image by itself, in 8 groups of channels."""
    return nn.GroupNorm(8, channels)


CHECKPOINTS = DATA / "checkpoints"
SHA256 = "59d5639fe31d6eb8c1977d13a750dc297c4e18d56904f7e7f0ab33ca1194b5cc"
GROUP_SHA256 = "168e0620b9dbdcf311c87ac5267b7282970d499c4fc0eee88422487a8c8175b7"
TRAINED = {  # name → the normalization layers of its body, its weights, their sha256
    "batch": (nn.BatchNorm2d, CHECKPOINTS / "detector.pt", SHA256),
    "group": (group_norm, CHECKPOINTS / "group_norm" / "detector.pt", GROUP_SHA256),
}


def body(norm_layer: Callable[[int], nn.Module] = nn.BatchNorm2d) -> nn.Sequential:
    """Build the untrained body, (N,3,H,W) → (N,256,H/32,W/32); names are torchvision's ResNet's."""
    stages = OrderedDict(
        conv1=nn.Conv2d(3, WIDTHS["layer1"], 7, stride=2, padding=3, bias=False),
        bn1=norm_layer(WIDTHS["layer1"]),
        relu=nn.ReLU(inplace=True),
        maxpool=nn.MaxPool2d(3, stride=2, padding=1),
    )
    channels = WIDTHS["layer1"]
    for stage, width in WIDTHS.items():
        stride = 1 if stage == "layer1" else 2
        shortcut = None
        if stride > 1:
            conv = nn.Conv2d(channels, width, 1, stride, bias=False)
            shortcut = nn.Sequential(conv, norm_layer(width))
        block = BasicBlock(channels, width, stride, shortcut, norm_layer=norm_layer)
        stages[stage] = nn.Sequential(block)
        channels = width
    return nn.Sequential(stages)


def detector(norm_layer: Callable[[int], nn.Module] = nn.BatchNorm2d) -> FasterRCNN:
    """Build the untrained detector, in train mode; it takes a list of images (3,H,W) in 0–1.

    `norm_layer`, channels → layer, makes every normalization layer; all are in the body. Raises
    TypeError if it makes no layer.
    """
    if not callable(norm_layer) or not isinstance(norm_layer(WIDTHS["layer1"]), nn.Module):
        raise TypeError(
            f"norm_layer is {norm_layer!r}: give a class of layers, or a function channels → layer "
            "(for a kind of helpers.norms: replace_norms(detector(), kind))."
        )
    backbone = BackboneWithFPN(
        body(norm_layer),
        return_layers={stage: str(level) for level, stage in enumerate(WIDTHS)},
        in_channels_list=list(WIDTHS.values()),
        out_channels=FPN_WIDTH,
    )
    return detector_on(backbone, image_mean=list(MEAN), image_std=list(STD))


def detector_on(backbone: BackboneWithFPN, **options) -> FasterRCNN:
    """Build the detector's RPN and heads, untrained, on another backbone with an FPN.

    The FPN has five levels, or `options` bring anchors and RoI pooling for as many as it has.
    `options` are FasterRCNN's arguments, and replace the detector's own.
    """
    anchors = AnchorGenerator(tuple((size,) for size in ANCHORS), ((0.5, 1.0, 2.0),) * len(ANCHORS))
    pool = MultiScaleRoIAlign(list("0123"), 7, 2, canonical_scale=CANONICAL_SCALE)
    own = {"min_size": SIZE, "max_size": SIZE, "rpn_anchor_generator": anchors}
    own |= {f"rpn_pre_nms_top_n_{mode}": 200 for mode in ("train", "test")}
    own |= {f"rpn_post_nms_top_n_{mode}": 100 for mode in ("train", "test")}
    own |= {f"{head}_batch_size_per_image": 64 for head in ("rpn", "box")}
    own |= {"box_roi_pool": pool, "box_head": TwoMLPHead(backbone.out_channels * 49, HEAD_WIDTH)}
    own["box_predictor"] = FastRCNNPredictor(HEAD_WIDTH, len(CLASSES))
    return FasterRCNN(backbone, **own | options)


def load_detector(norm: str = "batch") -> FasterRCNN:
    """Load the trained detector in eval mode; it takes a list of images (3,H,W), RGB in 0–1.

    `norm` is "batch", or "group" for the one trained with `group_norm`; a README.md beside the
    weights says how. It normalizes by ImageNet's mean and std, and resizes the long side to 128 px.
    Raises ValueError for another `norm`, RuntimeError for a missing or altered file.
    """
    if norm not in TRAINED:
        raise ValueError(f"No detector {norm!r} here: choose one of {', '.join(TRAINED)}.")
    norm_layer, file, sha256 = TRAINED[norm]
    state = load_whole(file, sha256, "restore them with `git checkout -- data/checkpoints`.")
    return unpacked(state, norm_layer)


def load_body() -> nn.Sequential:
    """Load the trained detector's body alone, in eval mode: (N,3,H,W) → (N,256,H/32,W/32).

    It takes what its `normalize` gives. Raises RuntimeError for a missing or altered file.
    """
    trained = load_detector().backbone.body
    network = nn.Sequential(OrderedDict(trained.named_children()))
    network.normalize = normalize
    return network.eval()


def normalize(image: Tensor) -> Tensor:
    """Turn an image in 0–1 into what the body takes: (image − mean) / std, those of ImageNet."""
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (MEAN, STD))
    return (image - mean) / std


def unpacked(
    state: dict[str, Tensor], norm_layer: Callable[[int], nn.Module] = nn.BatchNorm2d
) -> FasterRCNN:
    """Build the detector in eval mode, in float32, from what data.checkpoints.make stored."""
    with torch.random.fork_rng(devices=[]):
        model = detector(norm_layer)
    model.load_state_dict(state)
    return model.eval()


class Scores(NamedTuple):
    """How well a detector did: recall in 0–1 of `objects` shapes, false positives per image."""

    recall: float
    false_positives: float
    objects: int


@torch.no_grad()
def detect(model: nn.Module, scenes: list[Scene], batch_size: int = 16) -> list[dict[str, Tensor]]:
    """Run `model`, in eval mode, on each scene's image; a result has boxes, labels and scores.

    `batch_size` images pass at a time, which matters only to layers that normalize by the batch.
    Raises ValueError for a model in train mode.
    """
    if model.training:
        raise ValueError("The model is in train mode: call .eval() first.")
    batches = (scenes[i : i + batch_size] for i in range(0, len(scenes), batch_size))
    return [result for batch in batches for result in model([image for image, _ in batch])]


def evaluate(
    model: nn.Module,
    scenes: list[Scene],
    score: float = 0.5,
    iou: float = 0.5,
    batch_size: int = 16,
) -> Scores:
    """Score what `model`, in eval mode, finds: `detect`, then `rate`. Raises what they raise."""
    return rate(detect(model, scenes, batch_size), scenes, score, iou)


def rate(
    results: list[dict[str, Tensor]], scenes: list[Scene], score: float = 0.5, iou: float = 0.5
) -> Scores:
    """Score the results of `detect` for these scenes, counting detections of at least `score`.

    A detection that `matches` no object is a false positive. ValueError for scenes without objects.
    """
    objects = sum(len(target["labels"]) for _, target in scenes)
    if not objects:
        raise ValueError("No objects to find: give at least one scene that has some.")
    matched = false_positives = 0
    for result, (_, target) in zip(results, scenes, strict=True):
        kept = {name: values[result["scores"] >= score] for name, values in result.items()}
        taken = len(matches(kept, target, iou))
        matched += taken
        false_positives += len(kept["scores"]) - taken
    return Scores(matched / objects, false_positives / len(scenes), objects)


def matches(
    result: dict[str, Tensor], target: dict[str, Tensor], iou: float = 0.5
) -> dict[int, int]:
    """Match one image's detections with its objects: index → index of the object.

    In the order of their scores, each detection takes the free object of its class that it overlaps
    most, by at least `iou`. This is the matching of pycocotools 2.0 (COCOeval.evaluateImg), whose
    recall counts every score.
    """
    taken: dict[int, int] = {}
    if not len(target["labels"]):
        return taken
    overlaps = box_iou(result["boxes"], target["boxes"])
    overlaps[result["labels"][:, None] != target["labels"]] = -1
    for detection in result["scores"].argsort(descending=True, stable=True).tolist():
        overlap, nearest = overlaps[detection].max(0)
        if overlap >= iou:
            overlaps[:, nearest] = -1
            taken[detection] = nearest.item()
    return taken
