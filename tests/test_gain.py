"""The gain explorer: numbers against numpy, marks against the numbers, controls in step."""

import base64
import html
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from helpers.course.explorers import gain, live
from helpers.course.explorers.gain import PRESETS, GainExplorer, GainState, layers_of, read_eps
from helpers.figures import PIXELS
from helpers.networks import backbones
from helpers.norms import freeze


def layer_of(variances, weights=None, eps=1e-5):
    bn = nn.BatchNorm2d(len(variances), eps=eps)
    bn.running_var.copy_(torch.tensor(variances))
    if weights is not None:
        bn.weight.data.copy_(torch.tensor(weights))
    return bn


@pytest.fixture(scope="module")
def networks():
    return {"resnet50": backbones.load("resnet50", "stand-in"), "lite0": backbones.load("lite0")}


@pytest.fixture
def drawn(monkeypatch):
    """The figures that pictures are made of, in place of their PNGs."""
    figures = []
    monkeypatch.setattr(gain, "png", lambda fig, _: figures.append(fig) or b"%d" % len(figures))
    return figures


@pytest.fixture
def explorer(monkeypatch, networks, drawn):
    monkeypatch.setattr(gain, "load", networks.__getitem__)
    return GainExplorer()


def said(frame):
    return html.unescape(re.search(r'gain-sentence" role="status">(.*?)</div>', frame)[1])


def sentence(model, layer, eps):
    return gain.picture(GainState(*gain._named(model), layer, eps))[1]


def test_layers_are_those_of_the_model_that_have_statistics(networks):
    model = networks["resnet50"]
    for eps, layers in ((1e-5, layers_of(model)), (1e-3, layers_of(freeze(model, eps=1e-3)))):
        assert sum(len(layer.variance) for layer in layers.values()) == 26560
        (v, w, own), module = layers["layer3.1.bn2"], model.layer3[1].bn2
        assert own == eps and v.dtype == w.dtype == np.float64
        assert (v == module.running_var.numpy()).all()
        assert (w == module.weight.detach().numpy()).all()
    bare = nn.BatchNorm2d(4, track_running_stats=False), nn.LazyBatchNorm2d(), nn.GroupNorm(1, 4)
    layers = layers_of(nn.Sequential(*bare, nn.BatchNorm2d(4, affine=False), FrozenBatchNorm2d(3)))
    assert [*layers] == ["3", "4"] and (layers["3"].weight == 1).all()


def test_shares_are_those_of_the_difference_that_the_layer_makes():
    v, w = [1e-4, 0.02, 1.0], [0.5, 2.0, -1.0]
    bn, other = (layer_of(v, w, eps).double().eval() for eps in (1e-3, 1e-5))
    x = torch.rand(4000, 3, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = (x - x.mean(0)) / x.std(0, correction=0) * bn.running_var.view(1, 3, 1, 1).sqrt()
    with torch.no_grad():
        power = (bn(x) - other(x)).square().mean((0, 2, 3))
    shares = layers_of(bn)["the model"].shares(1e-5)
    assert shares == pytest.approx((power / power.sum()).numpy(), rel=1e-9)
    still = layers_of(layer_of([0.0, 1e-3, 1e-3]))["the model"]
    assert still.shares(0.0) == pytest.approx([0, 0.5, 0.5])  # even at infinite gain
    for nothing in (bn, layer_of([0.1], [0.0]), layer_of([0.0])):
        assert layers_of(nothing)["the model"].shares(1e-3 if nothing is bn else 0.0) is None


def test_the_layer_shown_first_is_the_one_that_its_missing_eps_moves_most(networks):
    effects = {}
    for name, (v, w, own) in layers_of(networks["lite0"]).items():
        v, w = v[v > 0], w[v > 0]
        change = w**2 * (1 - (v / (v + own)) ** 0.5) ** 2
        effects[name] = change.sum() / (w**2 * v / (v + own)).sum()
    assert gain._most_affected(layers_of(networks["lite0"])) == max(effects, key=effects.get)
    for eps in (1e-5, 0.0):
        layers = layers_of(freeze(networks["resnet50"], eps=eps))
        assert gain._most_affected(layers) == "bn1"  # what notebook 01 measures, stage by stage


def test_what_has_nothing_to_show_is_refused_in_one_sentence():
    for model, error, words in (
        (nn.GroupNorm(1, 2), ValueError, "has no normalization layer with running statistics"),
        *((layer_of([v]), ValueError, "negative or not finite") for v in (-1.0, float("nan"))),
        (3, TypeError, "must be a torch.nn.Module, not int"),
        ("vgg", ValueError, "No network 'vgg' here: choose one of resnet50, lite0"),
    ):
        with pytest.raises(error, match=words):
            GainExplorer(model)


def test_the_sentence_carries_the_numbers(networks, drawn):
    model = networks["resnet50"]
    v = layers_of(model)["bn1"].variance
    shares, words = layers_of(model)["bn1"].shares(1e-3), sentence(model, "bn1", 1e-3)
    assert "bn1 of ResNet-50, stand-in weights, with eps 1e-3 instead of its own, 1e-5" in words
    assert f"64 channels, variance {v.min() * 1e4:.2f}e-4 … {v.max():.4f}" in words
    largest, below = 100 * np.sort(shares)[-5:].sum(), 100 * shares[v < 1e-3].sum()
    assert f"the 5 largest dots carry {largest:.0f} % of the layer's difference, the " in words
    assert f"{(v < 1e-3).sum()} of variance below 1e-3 carry {below:.0f} %." in words
    assert "no variance is below 1e-5" in sentence(model, "bn1", 0.0)
    assert sentence(model, "bn1", 1e-5).endswith("; no difference.")
    zeros = sum((layer.variance == 0).sum() for layer in layers_of(networks["lite0"]).values())
    for eps, is_ in ((0.0, "infinite"), (1e-5, "316"), (1e-3, "31.6"), (1e-8, "10,000")):
        words = sentence(networks["lite0"], "layer4.3.layers.1.1", eps)
        assert f"{zeros} of the network's channels, 9 of them here, have variance 0" in words
        assert words.endswith(f"their gain is {is_}.")


def test_every_channel_stands_at_its_variance_and_gain_with_its_share_as_area(networks, drawn):
    layer, limits = layers_of(networks["resnet50"])["bn1"], set()
    for eps in (*PRESETS, 0.02):
        sentence(networks["resnet50"], "bn1", eps)
        axes, shares = drawn[-1].axes[0], layer.shares(eps)
        (x, y), rings = axes.lines[0].get_data(), axes.collections[0]
        assert len(x) == 26560 and np.allclose(y, 1 / np.sqrt(x + eps))
        expected = np.stack([layer.variance, (layer.variance + eps) ** -0.5], axis=1)
        assert np.allclose(rings.get_offsets(), expected)
        areas = 25 if shares is None else np.maximum(25, 450 * shares / shares.max())
        assert np.allclose(rings.get_sizes(), areas)
        limits.add((axes.get_xlim(), axes.get_ylim()))
    assert len(limits) == 1  # so that only the dots move


def test_extremes_stay_inside_the_axes(drawn):
    for variances in ([0.0], [0.0, 1e-45, 3e-7, 20.0], [1e-30, 5.0], [1e9]):
        for eps in (*PRESETS, 1.0, 1e-300):
            sentence(layer_of(variances), "the model", eps)
            axes = drawn[-1].axes[0]
            inside, beyond = (marks.get_offsets() for marks in axes.collections[:2])
            x, y = np.concatenate([inside, beyond]).T
            (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
            assert len(x) == len(variances)
            assert ((left <= x) & (x <= right) & (low <= y) & (y <= high)).all()
            assert len(beyond) >= (eps == 0) * variances.count(0.0)


def test_an_eps_is_a_number_from_0_to_1():
    for text, eps in (("1e-5", 1e-5), (" 0.001 ", 1e-3), ("0", 0), ("1", 1)):
        assert read_eps(text) == eps
    for text in ("", "abc", "-1e-5", "nan", "inf", "2", "0,001"):
        with pytest.raises(ValueError, match="eps must be a number from 0 to 1, such as 1e-5, not"):
            read_eps(text)


def test_presets_set_the_eps_and_an_eps_of_ones_own_is_custom(explorer, networks):
    before = explorer.frames
    for index, eps in enumerate(PRESETS):
        explorer.preset.index = index
        assert explorer.state.eps == eps and explorer.frames == before
        assert said(before[index]) == sentence(networks["resnet50"], "bn1", eps)
    explorer.eps.value = "2e-4"
    assert explorer.preset.value == "custom" and explorer.frames[:3] == before[:3]
    assert said(explorer.frames[3]) == sentence(networks["resnet50"], "bn1", 2e-4)


def test_the_presets_follow_the_layer_and_the_network(explorer, networks):
    for control, value in ((explorer.layer, "layer2.0.bn1"), (explorer.network, "Lite0")):
        control.value = value
        assert explorer.preset.value == "custom"
        model = networks["lite0" if value == "Lite0" else "resnet50"]
        layer = "layer4.3.layers.1.1" if value == "Lite0" else value
        for eps, frame in zip(PRESETS, explorer.frames, strict=False):
            assert said(frame) == sentence(model, layer, eps)
    assert explorer.layer.options == tuple(layers_of(networks["lite0"]))


def test_bad_input_is_said_and_the_last_picture_stays(explorer, monkeypatch):
    explorer.eps.value = "2e-4"
    before = explorer.frames
    explorer.eps.value = "ten"
    assert "Not shown:" in explorer.message and "&#x27;ten&#x27;" in explorer.message
    assert explorer.frames == before
    explorer.layer.value = "layer1.0.bn1"  # is shown all the same
    assert explorer.eps.value == "0" and "Not shown" not in explorer.message

    def missing(name):
        raise RuntimeError("Lite0's weights are <missing>.")

    before = explorer.frames
    monkeypatch.setattr(gain, "load", missing)
    explorer.network.value = "Lite0"
    assert "weights are &lt;missing&gt;." in explorer.message
    assert explorer.network.value == "ResNet-50" and explorer.frames == before


def test_the_output_carries_a_sentence_and_a_picture_where_widgets_cannot_run(monkeypatch):
    shown = []
    monkeypatch.setattr(live, "display", lambda data, **options: shown.append(data))
    explorer = GainExplorer(layer_of([0.0, 0.1], eps=1e-3))
    assert explorer.network.options == (gain.GIVEN, "ResNet-50", "Lite0")
    assert "no difference" in said(explorer.frames[2])
    explorer._ipython_display_()
    assert shown[0]["text/plain"] == explorer.text == said(explorer.frames[0])
    image = Image.open(io.BytesIO(base64.b64decode(shown[0]["image/png"])))
    assert (image.mode, image.size) == ("P", (PIXELS, gain.HEIGHT))
