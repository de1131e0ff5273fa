"""Proofs of the answers about wrong inputs."""

import pytest
import torch
import torch.nn.functional as F

from helpers.batch_statistics import variance_ratios
from helpers.inputs.pixels import MEAN, PLAIN, STD, convert, diagnose
from helpers.inputs.scenes import scenes
from helpers.networks import backbones


def test_a_halved_input_fits_again_in_the_last_stage():
    network = backbones.load("detector").double()
    images = torch.stack([image for image, _ in scenes(8, seed=2018)]).double()
    right, halved = (variance_ratios(network, network.normalize(x)) for x in (images, images / 2))
    assert halved["stem"].ratio == pytest.approx(0.28, abs=0.01)
    assert halved["layer4"].ratio == pytest.approx(1.02, abs=0.01)
    off = (halved["layer4"].output - right["layer4"].output).abs().max()
    assert off > 0.2 * right["layer4"].output.abs().max()


def test_bgr_cannot_be_told_for_sure():
    blue = torch.zeros(3, 8, 8)
    blue[2], blue[:, 0, 0] = 0.9, 1.0
    assert torch.equal(convert(blue, PLAIN, "BGR"), blue.flip(0))
    for image in (blue, blue.flip(0)):
        assert {"0-1", "BGR"} <= set(diagnose(image).allowed)


def test_turning_a_convolution_is_turning_the_image():
    generator = torch.Generator().manual_seed(0)
    weight, image = (torch.rand(n, 3, 8, 8, generator=generator) for n in (4, 1))
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (MEAN, STD))
    wanted = F.conv2d((image - mean) / std, weight)
    once, other = image.flip(1), (mean.flip(0), std.flip(0))  # in the other order
    turned = F.conv2d((once - other[0]) / other[1], weight.flip(1))
    torch.testing.assert_close(turned, wanted)
    for wrong in (
        F.conv2d((once - mean) / std, weight.flip(1)),
        F.conv2d((once - other[0]) / other[1], weight),
        F.conv2d((once - mean) / std, weight.flip(0)),
    ):
        assert not torch.allclose(wrong, wanted)
