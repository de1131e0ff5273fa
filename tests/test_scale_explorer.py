"""The ScaleExplorer: its numbers against the layers' own scales, its bad input, what it ships."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from helpers.course.explorers.scale import ALL, EPS, ScaleExplorer, layers_of
from helpers.networks import backbones


def layer_of(variances, eps=1e-5):
    bn = nn.BatchNorm2d(len(variances), eps=eps)
    bn.running_var.copy_(torch.tensor(variances))
    return bn


@pytest.fixture(scope="module")
def lite0():
    return ScaleExplorer()


def beyond(network, eps, percent):
    """How many channels' scales are off by more once every BatchNorm2d runs with another eps."""
    layers = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    v = torch.cat([layer.running_var for layer in layers]).double()
    ratio = (v + eps).rsqrt() / (v + layers[0].eps).rsqrt()
    return int(((ratio - 1).abs() > percent / 100).sum())


def test_the_sentence_counts_the_channels_of_a_network_frozen_with_this_eps(lite0):
    network = backbones.load("lite0")
    for eps in (1e-5, 1e-4, 0.1):
        way = "much" if eps < 1e-3 else "little"
        frame = lite0.draw(lite0.state | {"eps": eps})
        assert frame["headline"] == f"{beyond(network, eps, 10):,} channels"
        assert f"of 21,008 are scaled over 10 % too {way}: eps " in frame["sentence"]
    assert "too much, 130 infinitely: eps 0, " in lite0.draw(lite0.state | {"eps": 0.0})["sentence"]
    assert lite0.draw(lite0.state | {"eps": 1e-3})["headline"] == "0 channels"
    assert all(len(line.split(": ", 2)[2].split()) <= 20 for line in lite0.text.splitlines())


def test_it_begins_with_a_difference_in_the_layer_most_affected(lite0):
    assert (lite0.eps, lite0.layer) == (1e-5, "layer4.3.layers.1.1")
    resnet = ScaleExplorer("resnet50")
    assert (resnet.eps, resnet.layer) == (0.0, "bn1")
    assert [one["state"]["eps"] for one in resnet.presets] == [0.0, 1e-3, 1e-5]
    assert {1e-5, 1e-3, 0.0, 0.1} <= set(EPS)


def test_errors_are_those_of_two_layers_that_differ_in_eps(lite0):
    v = [1e-6, 1e-3, 0.02, 5.0]
    a, b = (layer_of(v, eps).double().eval() for eps in (1e-3, 1e-5))
    x = torch.ones(1, 4, 1, 1, dtype=torch.float64)
    with torch.no_grad():
        wanted = 100 * (b(x) / a(x) - 1)
    errors = layers_of(a)["the model"].errors(1e-5)
    assert errors == pytest.approx(wanted.flatten().numpy(), rel=1e-6)
    assert np.isinf(layers_of(layer_of([0.0, 1.0]))["the model"].errors(0.0)).tolist() == [
        True,
        False,
    ]


def test_what_travels_is_small_and_near_enough(lite0):
    network = backbones.load("lite0")
    assert len(json.dumps([lite0.data, lite0.spec, lite0.presets])) <= 70_000
    assert all(one["frame"] is None for one in lite0.presets)
    for name, layer in layers_of(network).items():
        variance = lite0._layers[name].variance
        assert ((variance == 0) == (layer.variance == 0)).all()
        assert variance == pytest.approx(layer.variance, rel=3e-4)


def test_layers_are_those_that_have_statistics_each_with_its_own_eps():
    bare = nn.BatchNorm2d(4, track_running_stats=False), nn.GroupNorm(1, 4)
    model = nn.Sequential(*bare, layer_of([0.5, 0.1], 1e-3), FrozenBatchNorm2d(3))
    explorer = ScaleExplorer(model)
    assert [*explorer._layers] == ["2", "3"]
    assert "0 channels of 5 are scaled over 10 %" in explorer.text
    assert "trained with 1e-5 to 1e-3" in explorer.text
    for variances in ([0.0], [0.0, 1e-45, 20.0], [1e9], [0.25]):
        assert "nan" not in ScaleExplorer(layer_of(variances)).text


def test_what_has_nothing_to_show_is_refused_in_one_sentence(lite0):
    for model, words in (
        (nn.GroupNorm(1, 2), "has no normalization layer with running statistics"),
        *((layer_of([v]), "negative or not finite") for v in (-1.0, float("nan"))),
        (3, "must be a torch.nn.Module, not int"),
        ("vgg", "No network 'vgg' here: choose one of resnet50, lite0"),
    ):
        with pytest.raises(ValueError, match=words):
            ScaleExplorer(model)
    for changes, words in (
        ({"eps": -1e-5}, "eps must be a number from 0 to 1"),
        ({"eps": float("nan")}, "eps must be a number from 0 to 1"),
        ({"layer": "bn1"}, "No layer 'bn1' in EfficientNet-Lite0"),
    ):
        with pytest.raises(ValueError, match=words):
            lite0.draw(lite0.state | changes)
    assert lite0.draw(lite0.state | {"layer": ALL})["panels"]
