"""What the questions on Faster R-CNN claim, where no notebook cell shows it."""

from math import log

import pytest
import torch
from torch import nn
from torchvision.models.detection.backbone_utils import BackboneWithFPN, resnet_fpn_backbone
from torchvision.ops import box_iou
from torchvision.ops.poolers import LevelMapper

from helpers.faster_rcnn import walk
from helpers.inputs.scenes import scenes
from helpers.networks.detector import load_detector


def test_level_of_a_proposal():
    box = torch.tensor([[30.0, 20, 130, 120]])
    assert 2 + LevelMapper(2, 5)([box]).item() == 2


@pytest.fixture(scope="module")
def linear():
    """ResNet-50 with an FPN, made linear: a gradient then shows all that a cell can depend on."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = resnet_fpn_backbone(
            backbone_name="resnet50", weights=None, norm_layer=nn.Identity
        )
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.Identity())
            if isinstance(child, nn.MaxPool2d):
                setattr(module, name, nn.AvgPool2d(3, 2, 1))
    return network.double()


def test_receptive_fields(linear):
    """The widest of neighboring cells; by gradients."""
    x = torch.zeros(1, 3, 32, 640, dtype=torch.double, requires_grad=True)
    body = linear.body(x)
    pyramid = linear.fpn(body)
    maps = {"C2": body["0"], "C5": body["3"], "P2": pyramid["0"]}
    for level, wanted in {"C2": 35, "C5": 427, "P2": 459}.items():
        features, middle = maps[level], maps[level].shape[-1] // 2
        widest = 0
        for column in (middle - 1, middle):
            [gradient] = torch.autograd.grad(features[0, :, 0, column].sum(), x, retain_graph=True)
            seen = gradient.abs().sum((0, 1, 2)).nonzero()
            widest = max(widest, (seen.max() - seen.min() + 1).item())
        assert widest == wanted, level


def test_p6_proposes_and_is_not_pooled_from():
    model = load_detector()
    walks = [walk(model, image) for image, _ in scenes(10, 2018)]
    assert any((walked.proposed_by == 6).any() for walked in walks)
    assert all(walked.pooled_from.max() <= 5 for walked in walks)
    assert torch.equal(walks[0].pyramid["P6"], walks[0].pyramid["P5"][..., ::2, ::2])


def test_bilinear_enlarging_leaves_p5_as_it_is(monkeypatch):
    backbone, x = load_detector().backbone.requires_grad_(False), scenes(1, 1)[0][0][None]
    wanted = backbone(x)
    enlarge = nn.functional.interpolate
    monkeypatch.setattr(
        nn.functional, "interpolate", lambda x, size, mode: enlarge(x, size, mode="bilinear")
    )
    same = [torch.equal(wanted[key], features) for key, features in backbone(x).items()]
    assert same == [False, False, False, True, True]


def test_decode_counts_in_the_anchors_size():
    coder, anchor = load_detector().rpn.box_coder, torch.tensor([[84.0, 84, 116, 116]])
    for shift, wanted in (
        ([0.5, 0, 0, 0], [100.0, 84, 132, 116]),
        ([0, 0, 0, log(2)], [84.0, 68, 116, 132]),
    ):
        [[box]] = coder.decode(torch.tensor([shift]), [anchor])
        torch.testing.assert_close(box, torch.tensor(wanted))


def test_nms_of_the_rpn_is_per_level():
    model = load_detector()
    for image, _ in scenes(10, 2018):
        walked = walk(model, image)
        same = walked.proposed_by[:, None] == walked.proposed_by
        overlaps = box_iou(walked.proposals, walked.proposals).fill_diagonal_(0)
        assert overlaps[same].max() <= 0.7
        if overlaps[~same].max() > 0.8:
            return
    raise AssertionError("no two proposals of different levels have an IoU of 0.8")


def test_what_raises_an_error_in_a_swap():
    """The channels of another stage."""
    body = load_detector().backbone.body
    layers = {f"layer{k}": str(k - 1) for k in (1, 2, 3, 4)}
    shifted = BackboneWithFPN(body, layers, [64, 128, 256, 512], 64)
    with pytest.raises(RuntimeError, match="channels"):
        shifted(torch.zeros(1, 3, 64, 64))
