"""The width of what a cell depends on, held against convolutions whose answer is known."""

import pytest
import torch
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import BackboneWithFPN

from helpers.faster_rcnn import effective_receptive_width
from helpers.inputs.scenes import scenes
from helpers.networks.detector import detector_on, load_detector


def blurs(kernel) -> FasterRCNN:
    """Stages that halve by a kernel of ones; each widens the field by (kernel − 1) × stride."""
    stages = nn.Sequential()
    stages.add_module("stem", nn.Conv2d(3, 3, 2, stride=2, bias=False))
    for number in range(1, 5):
        conv = nn.Conv2d(
            3, 3, kernel, stride=2, padding=kernel // 2 - (kernel % 2 == 0), bias=False
        )
        stages.add_module(f"layer{number}", conv)
    for conv in stages:
        nn.init.ones_(conv.weight)
    layers = {f"layer{k}": str(k - 1) for k in (1, 2, 3, 4)}
    return detector_on(BackboneWithFPN(stages, layers, [3] * 4, 8)).eval()


def test_kernels_of_ones_see_their_width():
    model = blurs(2)  # windows that do not overlap: a cell of stride s sees s pixels
    widths = effective_receptive_width(model, torch.full((3, 128, 128), 0.9), share=1.0)
    assert [widths[f"C{level}"] for level in (2, 3, 4, 5)] == [4, 8, 16, 32]


def test_a_larger_share_is_wider_and_levels_have_order():
    model, image = load_detector(), scenes(1, 2018)[0][0]
    half, most = (
        effective_receptive_width(model, image, 0.5),
        effective_receptive_width(model, image, 0.9),
    )
    assert list(half) == ["C2", "C3", "C4", "C5", "P2", "P3", "P4", "P5"]
    assert all(0 < half[level] <= most[level] <= 128 for level in half)
    assert most["C2"] < most["C3"] < most["C4"]


def test_the_model_is_left_as_it_was():
    model = load_detector()
    effective_receptive_width(model, scenes(1, 2018)[0][0])
    assert all(p.grad is None for p in model.parameters()) and not model.training


@pytest.mark.parametrize("share", [0.0, 1.5, -1.0])
def test_a_share_that_is_none(share):
    with pytest.raises(ValueError, match="share"):
        effective_receptive_width(load_detector(), torch.zeros(3, 128, 128), share)
