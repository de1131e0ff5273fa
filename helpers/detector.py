"""The small Faster R-CNN trained on the synthetic scenes, and its scores.

Torchvision's own FasterRCNN; only the sizes differ: a ResNet of four basic blocks, each stage half
as wide as in resnet18, a 64-channel FPN, a box head of 128 units. About 1.8 million parameters.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.resnet import BasicBlock
from torchvision.ops import MultiScaleRoIAlign, box_iou

from helpers import DATA
from helpers.download import is_whole
from helpers.scenes import CLASSES, SIZE, Scene

CHECKPOINT = DATA / "checkpoints" / "detector.pt"
SHA256 = "59d5639fe31d6eb8c1977d13a750dc297c4e18d56904f7e7f0ab33ca1194b5cc"

WIDTHS = {"layer1": 32, "layer2": 64, "layer3": 128, "layer4": 256}
FPN_WIDTH = 64
HEAD_WIDTH = 128
ANCHORS = (8, 16, 32, 64, 128)  # pixels, one size for each of P2 … P6
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, torchvision's default
CANONICAL_SCALE = 64  # torchvision's 224 would pool every box of a 128 px scene from P2


def body(norm_layer: Callable[[int], nn.Module] = nn.BatchNorm2d) -> nn.Sequential:
    """(N,3,H,W) → (N,256,H/32,W/32), untrained; conv1 … layer4 named as in torchvision's ResNet."""
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
            shortcut = nn.Sequential(
                nn.Conv2d(channels, width, 1, stride, bias=False), norm_layer(width)
            )
        block = BasicBlock(channels, width, stride, shortcut, norm_layer=norm_layer)
        stages[stage] = nn.Sequential(block)
        channels = width
    return nn.Sequential(stages)


def detector(norm_layer: Callable[[int], nn.Module] = nn.BatchNorm2d) -> FasterRCNN:
    """The detector, untrained, in train mode; takes a list of images (3,H,W) in 0–1.

    `norm_layer`: channels → layer, for every normalization layer; they are all in the body.
    Proposals in training and in testing: 100. TypeError if `norm_layer` makes no layer.
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
    return FasterRCNN(
        backbone,
        min_size=SIZE,
        max_size=SIZE,
        image_mean=list(MEAN),
        image_std=list(STD),
        rpn_anchor_generator=AnchorGenerator(
            tuple((size,) for size in ANCHORS), ((0.5, 1.0, 2.0),) * len(ANCHORS)
        ),
        rpn_pre_nms_top_n_train=200,
        rpn_pre_nms_top_n_test=200,
        rpn_post_nms_top_n_train=100,
        rpn_post_nms_top_n_test=100,
        rpn_batch_size_per_image=64,
        box_batch_size_per_image=64,
        box_roi_pool=MultiScaleRoIAlign(
            list("0123"), output_size=7, sampling_ratio=2, canonical_scale=CANONICAL_SCALE
        ),
        box_head=TwoMLPHead(FPN_WIDTH * 7 * 7, HEAD_WIDTH),
        box_predictor=FastRCNNPredictor(HEAD_WIDTH, len(CLASSES)),
    )


def load_detector() -> FasterRCNN:
    """The trained detector in eval mode; takes a list of images (3,H,W), RGB in 0–1.

    data/checkpoints/ says how it was trained and what it scores. It normalizes by ImageNet's mean
    and std, and resizes the long side to 128 pixels. RuntimeError for a missing or altered file.
    """
    if not is_whole(CHECKPOINT, SHA256):
        raise RuntimeError(
            f"The detector's weights ({CHECKPOINT.name}) are missing or altered: "
            "restore them with `git checkout -- data/checkpoints`."
        )
    return unpacked(torch.load(CHECKPOINT, map_location="cpu", weights_only=True))


def load_body() -> nn.Sequential:
    """The trained detector's body alone, in eval mode; it takes what its `normalize` gives.

    (N,3,H,W) → (N,256,H/32,W/32). RuntimeError for a missing or altered file.
    """
    trained = load_detector().backbone.body
    network = nn.Sequential(OrderedDict(trained.named_children()))
    network.normalize = normalize
    return network.eval()


def normalize(image: Tensor) -> Tensor:
    """Image in 0–1 to what the detector's body takes: less ImageNet's mean, by its std."""
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (MEAN, STD))
    return (image - mean) / std


def packed(model: FasterRCNN) -> dict[str, Tensor]:
    """The state_dict as stored: weights in float16; vectors (all of normalization) as they are."""
    state = model.state_dict()
    return {name: t.half() if t.dim() > 1 else t.clone() for name, t in state.items()}


def unpacked(state: dict[str, Tensor]) -> FasterRCNN:
    """The detector in eval mode, in float32, from what `packed` gave."""
    with torch.random.fork_rng(devices=[]):
        model = detector()
    model.load_state_dict(state)
    return model.eval()


@dataclass(frozen=True)
class Scores:
    """Of `objects` shapes, `recall` (0–1) were found; `false_positives` is their mean per image."""

    recall: float
    false_positives: float
    objects: int


@torch.no_grad()
def evaluate(
    model: nn.Module,
    scenes: list[Scene],
    score: float = 0.5,
    iou: float = 0.5,
    batch_size: int = 16,
) -> Scores:
    """What `model`, in eval mode, finds with at least this `score`.

    The best score first, a detection takes the free object of its class that it overlaps most, by
    at least `iou`; one that finds none is a false positive. `batch_size` images are detected at a
    time, which matters only to layers that normalize by the batch.

    ValueError for a model in train mode and for scenes without any object. Matched as in
    pycocotools 2.0 (COCOeval.evaluateImg; there, recall counts every score).
    """
    if model.training:
        raise ValueError("The model is in train mode: call .eval() first.")
    objects = sum(len(target["labels"]) for _, target in scenes)
    if not objects:
        raise ValueError("No objects to find: give at least one scene that has some.")
    found = wrong = 0
    for start in range(0, len(scenes), batch_size):
        images, targets = zip(*scenes[start : start + batch_size], strict=True)
        for result, target in zip(model(list(images)), targets, strict=True):
            kept = {name: values[result["scores"] >= score] for name, values in result.items()}
            matched = _matches(kept, target, iou)
            found += matched
            wrong += len(kept["scores"]) - matched
    return Scores(found / objects, wrong / len(scenes), objects)


def _matches(result: dict[str, Tensor], target: dict[str, Tensor], iou: float) -> int:
    """How many detections take an object."""
    if not len(target["labels"]):
        return 0
    overlaps = box_iou(result["boxes"], target["boxes"])
    overlaps[result["labels"][:, None] != target["labels"]] = -1
    matched = 0
    for detection in result["scores"].argsort(descending=True, stable=True):
        overlap, nearest = overlaps[detection].max(0)
        if overlap >= iou:
            overlaps[:, nearest] = -1
            matched += 1
    return matched
