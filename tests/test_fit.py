"""The ratio of variances, against sums made by hand."""

import pytest
import torch
from torch import nn

from helpers.batch_statistics import variance_ratios
from helpers.inputs import photos
from helpers.networks import backbones
from helpers.norms import freeze
from helpers.stages import STAGES, stages


def test_the_first_stage_by_hand():
    network = backbones.load("detector").double()
    x = network.normalize(photos.load_all(64)).double()
    found = variance_ratios(network, x)
    assert list(found) == list(STAGES)
    variance = network.conv1(x).var((0, 2, 3))
    ratio = (variance / (network.bn1.running_var + network.bn1.eps)).median()
    assert found["stem"].ratio == pytest.approx(ratio.item())


def test_statistics_of_the_very_batch_fit():
    network = backbones.load("detector").double()
    x = network.normalize(photos.load_all(64)).double()
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    for layer in norms:
        layer.momentum = 1.0
    network.train()(x)
    # In train mode the layers before normalized by the batch, too.
    assert all(f.ratio == pytest.approx(1, rel=0.01) for f in variance_ratios(network, x).values())


def test_outputs_are_those_of_the_stages_and_nothing_stays():
    network = backbones.load("lite0")
    x = network.normalize(photos.load("cat", 64))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found = variance_ratios(network, x)
    for stage, part in stages(network).items():
        x = part(x)
        assert torch.equal(found[stage].output, x)
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())
    assert not any(m._forward_pre_hooks for m in network.modules())


def test_a_frozen_network_has_nothing_to_look_at():
    with pytest.raises(ValueError, match="stem has no BatchNorm2d"):
        variance_ratios(freeze(backbones.load("detector")), torch.rand(1, 3, 64, 64))
