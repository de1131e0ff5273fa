"""Proofs of what the lesson on wrong inputs says and asks."""

import pytest
import torch
import torch.nn.functional as F

from helpers.inputs.pixels import MEAN, PLAIN, STD, convert
from helpers.inputs.scenes import scenes
from helpers.networks import backbones
from helpers.norms import norm_layers
from helpers.stages import stages


def outputs_and_ratios(network, x):
    """Stage → its output, and the median variance of its layers' input over running_var + eps."""
    found = {}
    for stage, part in stages(network).items():
        ratios = []

        def note(layer, args, ratios=ratios):
            ratios.append(args[0].var((0, 2, 3)) / (layer.running_var + layer.eps))

        hooks = [layer.register_forward_pre_hook(note) for layer in norm_layers(part).values()]
        with torch.no_grad():
            x = part(x)
        for hook in hooks:
            hook.remove()
        found[stage] = x.clone(), torch.cat(ratios).median()
    return found


def test_a_halved_input_fits_again_in_the_last_stage():
    network = backbones.load("detector").double()
    images = torch.stack([image for image, _ in scenes(8, seed=2018)]).double()
    right, halved = (
        outputs_and_ratios(network, network.normalize(x)) for x in (images, images / 2)
    )
    assert halved["stem"][1].item() == pytest.approx(0.28, abs=0.01)
    assert halved["layer4"][1].item() == pytest.approx(1.02, abs=0.01)
    off = (halved["layer4"][0] - right["layer4"][0]).abs().max()
    assert off > 0.2 * right["layer4"][0].abs().max()


def test_bgr_cannot_be_told_for_sure():
    blue = torch.zeros(3, 8, 8)
    blue[2], blue[:, 0, 0] = 0.9, 1.0
    swapped = convert(blue, PLAIN, "BGR")
    assert torch.equal(swapped, blue.flip(0))
    for image in (blue, swapped):  # the values of both are those of a picture in 0–1
        assert image.aminmax() == (0, 1)


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
