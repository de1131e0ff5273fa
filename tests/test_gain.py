"""The gain explorer: numbers against numpy, frames against picture(), controls in step."""

import asyncio
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
from helpers.course.explorers.gain import (
    PRESETS,
    GainExplorer,
    GainState,
    channels,
    picture,
    read_eps,
)
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
def resnet():
    return channels(backbones.load("resnet50", "stand-in"))


@pytest.fixture(scope="module")
def lite0():
    return channels(backbones.load("lite0"))


@pytest.fixture
def explorer(monkeypatch, resnet, lite0):
    monkeypatch.setattr(gain, "load", lambda name: name)
    monkeypatch.setattr(gain, "channels", {"resnet50": resnet, "lite0": lite0}.__getitem__)
    return GainExplorer()


def sentence_in(frame):
    return html.unescape(re.search(r'gain-sentence" role="status">(.*?)</div>', frame)[1])


def png_in(frame):
    return base64.b64decode(re.search(r"base64,([^\"]+)", frame)[1])


# The computing


def test_channels_are_those_of_the_model_in_float64(resnet):
    model = backbones.load("resnet50", "stand-in")
    layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert list(resnet.layers) == list(layers) and len(resnet.variance) == 26560
    assert resnet.variance.dtype == resnet.weight.dtype == np.float64
    assert set(resnet.eps.values()) == {1e-5}
    part = resnet.layers["layer3.1.bn2"]
    assert (resnet.variance[part] == layers["layer3.1.bn2"].running_var.numpy()).all()
    assert (resnet.weight[part] == layers["layer3.1.bn2"].weight.detach().numpy()).all()
    assert resnet.network == "ResNet-50, stand-in weights"


def test_frozen_layers_count_and_bring_their_own_eps(resnet):
    frozen = channels(freeze(backbones.load("resnet50", "stand-in"), eps=1e-3))
    assert (frozen.variance == resnet.variance).all() and (frozen.weight == resnet.weight).all()
    assert frozen.layers == resnet.layers and set(frozen.eps.values()) == {1e-3}


def test_what_has_no_statistics_is_left_out():
    model = nn.Sequential(
        nn.GroupNorm(1, 4),
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.LazyBatchNorm2d(),
        nn.BatchNorm2d(4, affine=False),
        FrozenBatchNorm2d(3),
    )
    found = channels(model)
    assert found.layers == {"3": slice(0, 4), "4": slice(4, 7)}
    assert (found.weight == 1).all() and found.network == "Sequential"
    assert list(channels(nn.BatchNorm2d(2)).layers) == ["the model"]


def test_shares_are_those_of_the_difference_that_the_layer_makes():
    bn = layer_of([1e-4, 0.02, 1.0], [0.5, 2.0, -1.0], eps=1e-3).double().eval()
    other = layer_of([1e-4, 0.02, 1.0], [0.5, 2.0, -1.0], eps=1e-5).double().eval()
    x = torch.rand(4000, 3, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = (x - x.mean(0)) / x.std(0, correction=0) * bn.running_var.view(1, 3, 1, 1).sqrt()
    with torch.no_grad():
        power = (bn(x) - other(x)).square().mean((0, 2, 3))
    shares = channels(bn).shares("the model", 1e-5)
    assert shares == pytest.approx((power / power.sum()).numpy(), rel=1e-9)


def test_shares_of_a_real_layer_against_the_formula(resnet):
    v, w = (values[resnet.layers["bn1"]] for values in (resnet.variance, resnet.weight))
    change = np.abs(w) * np.abs((v + 1e-3) ** -0.5 - (v + 1e-5) ** -0.5) * v**0.5
    wanted = change**2 / (change**2).sum()
    assert resnet.shares("bn1", 1e-3) == pytest.approx(wanted, rel=1e-9)


def test_a_channel_that_stands_still_has_no_share_even_at_infinite_gain():
    found = channels(layer_of([0.0, 1e-3, 1e-3]))
    for eps in (0.0, 1e-3):
        assert found.shares("the model", eps) == pytest.approx([0, 0.5, 0.5])


def test_no_difference_has_no_shares(resnet):
    assert resnet.shares("bn1", 1e-5) is None
    assert channels(layer_of([0.1, 0.2], [0.0, 0.0])).shares("the model", 0.0) is None
    assert channels(layer_of([0.0])).shares("the model", 0.0) is None


def test_the_layer_shown_first_is_the_one_that_its_missing_eps_moves_most(resnet, lite0):
    for found in (resnet, lite0):
        effects = {}
        for name, part in found.layers.items():
            v, w, own = found.variance[part], found.weight[part], found.eps[name]
            v, w = v[v > 0], w[v > 0]
            change = w**2 * (1 - (v / (v + own)) ** 0.5) ** 2
            effects[name] = change.sum() / (w**2 * v / (v + own)).sum()
        assert found.most_affected() == max(effects, key=effects.get)
    assert resnet.most_affected() == "bn1"  # what notebook 01 measures, stage by stage


def test_a_network_without_eps_still_has_a_layer_to_show_first(resnet):
    model = backbones.load("resnet50", "stand-in")
    assert channels(freeze(model, eps=0.0)).most_affected() == "bn1"


@pytest.mark.parametrize(
    ("model", "error", "sentence"),
    [
        (nn.Linear(2, 2), ValueError, "Linear has no normalization layer with running statistics"),
        (nn.Sequential(nn.GroupNorm(1, 2)), ValueError, "has no normalization layer"),
        (layer_of([-1.0]), ValueError, "negative or not finite"),
        (layer_of([float("nan")]), ValueError, "negative or not finite"),
        (3, TypeError, "must be a torch.nn.Module, not int"),
    ],
)
def test_a_model_with_nothing_to_show_is_refused_in_one_sentence(model, error, sentence):
    for show in (channels, GainExplorer):
        with pytest.raises(error, match=sentence):
            show(model)


def test_an_unknown_network_is_refused_in_one_sentence():
    with pytest.raises(ValueError, match="No network 'vgg' here: choose one of resnet50, lite0"):
        GainExplorer("vgg")


# The picture and its sentence


def test_the_sentence_carries_the_numbers(resnet):
    v = resnet.variance[resnet.layers["bn1"]]
    shares = np.sort(resnet.shares("bn1", 1e-3))
    sentence = picture(GainState(resnet, "bn1", 1e-3))[1]
    below = resnet.shares("bn1", 1e-3)[v < 1e-3]
    assert "bn1 of ResNet-50, stand-in weights, with eps 1e-3 instead of its own, 1e-5" in sentence
    assert f"64 channels, variance {v.min() * 1e4:.2f}e-4 … {v.max():.4f}" in sentence
    assert f"the 5 largest dots carry {100 * shares[-5:].sum():.0f} % of the layer's" in sentence
    assert f"the {len(below)} of variance below 1e-3 carry {100 * below.sum():.0f} %" in sentence
    assert "variance 0" not in sentence
    assert "no variance is below 1e-5" in picture(GainState(resnet, "bn1", 0.0))[1]


def test_its_own_eps_makes_no_difference_and_no_sizes(resnet):
    png, sentence = picture(GainState(resnet, "bn1", 1e-5))
    assert "with its own eps, 1e-5" in sentence and sentence.endswith("; no difference.")
    image = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    ring = (np.abs(image - [0x7A, 0x34, 0]).sum(2) < 40)[:, : PIXELS // 2]
    other = Image.open(io.BytesIO(picture(GainState(resnet, "bn1", 0.0))[0])).convert("RGB")
    large = (np.abs(np.asarray(other).astype(int) - [0x7A, 0x34, 0]).sum(2) < 40)[:, : PIXELS // 2]
    leftmost = [columns.nonzero()[0].min() for columns in (ring.any(0), large.any(0))]
    assert leftmost[0] - leftmost[1] == pytest.approx(12 - 2.5, abs=1)  # LARGE − SMALL


@pytest.mark.parametrize(
    ("eps", "is_"), [(0.0, "infinite"), (1e-5, "316"), (1e-3, "31.6"), (1e-8, "10,000")]
)
def test_channels_of_variance_0_are_counted_and_their_gain_is_said(lite0, eps, is_):
    layer = lite0.most_affected()
    here = (lite0.variance[lite0.layers[layer]] == 0).sum()
    words = f"130 of the network's channels, {here} of them here, have variance 0: their gain is "
    assert picture(GainState(lite0, layer, eps))[1].endswith(f"{words}{is_}.")


def test_every_eps_is_drawn_on_the_same_axes(resnet, lite0):
    axes = gain._axes(resnet.variance)
    assert (axes.xlim, axes.ylim, axes.zero) == (
        pytest.approx((1e-6, 10)),
        pytest.approx((0.1, 1000)),
        False,
    )
    axes = gain._axes(lite0.variance)
    assert axes.zero and axes.xlim == pytest.approx((1e-6, 1000))
    axes = gain._axes(np.array([0.0, 1e-40]))  # ImageNet's first layer holds such
    assert axes.xlim == pytest.approx((1e-12, 1))


def test_a_tiny_or_a_dead_network_is_drawn(resnet):
    for variances in ([0.0], [1e-30, 5.0], [1e9]):
        found = channels(layer_of(variances))
        for eps in (*PRESETS, 1.0, 1e-300):
            assert (
                Image.open(io.BytesIO(picture(GainState(found, "the model", eps))[0])).width == 800
            )


@pytest.mark.parametrize("eps", [-1e-5, float("nan"), float("inf"), 2.0])
def test_a_bad_eps_is_refused_in_one_sentence(resnet, eps):
    with pytest.raises(ValueError, match="eps must be a number from 0 to 1, such as 1e-5, not "):
        picture(GainState(resnet, "bn1", eps))


def test_an_unknown_layer_is_refused_in_one_sentence(resnet):
    with pytest.raises(ValueError, match="No layer 'bn7' in ResNet-50"):
        picture(GainState(resnet, "bn7", 0.0))


@pytest.mark.parametrize(("text", "eps"), [("1e-5", 1e-5), (" 0.001 ", 1e-3), ("0", 0), ("1", 1)])
def test_an_eps_is_read_as_typed(text, eps):
    assert read_eps(text) == eps


@pytest.mark.parametrize("text", ["", "abc", "-1e-5", "nan", "inf", "1e-", "0,001"])
def test_what_is_no_eps_is_refused_in_one_sentence(text):
    with pytest.raises(ValueError, match="eps must be a number from 0 to 1"):
        read_eps(text)


# The widget


def test_the_presets_frames_are_the_pictures_of_the_presets(explorer, resnet):
    assert explorer.preset.options == ("0", "1e-5", "1e-3", "custom")
    for eps, frame in zip(PRESETS, explorer.frames, strict=False):
        png, sentence = picture(GainState(resnet, "bn1", eps))
        assert png_in(frame) == png and sentence_in(frame) == sentence
    assert "this frame shows it live" in explorer.frames[-1]
    assert len(set(explorer.frames)) == 4


def test_the_presets_switch_in_the_page_by_a_link(explorer, monkeypatch):
    links = []
    monkeypatch.setattr(gain.W, "jslink", lambda *ends: links.append(ends))
    explorer = GainExplorer()
    [((preset, index), (stack, selected))] = links
    assert (preset, index, selected) == (explorer.preset, "index", "selected_index")
    assert [child.value for child in stack.children] == explorer.frames
    assert stack.selected_index == preset.index == 0


def test_picking_a_preset_sets_the_eps_box_and_does_not_switch_to_custom(explorer):
    before = explorer.frames
    for index, text in enumerate(("0", "1e-5", "1e-3")):
        explorer.preset.index = index
        assert explorer.eps.value == text and explorer.preset.index == index
        assert explorer.state.eps == PRESETS[index]
    assert explorer.frames == before


def test_an_eps_of_ones_own_switches_to_custom_and_is_shown_there(explorer, resnet):
    presets = explorer.frames[:3]
    explorer.eps.value = "2e-4"
    assert explorer.preset.value == "custom"
    png, sentence = picture(GainState(resnet, "bn1", 2e-4))
    assert png_in(explorer.frames[-1]) == png and sentence_in(explorer.frames[-1]) == sentence
    assert explorer.frames[:3] == presets


def test_another_layer_switches_to_custom_and_the_presets_follow(explorer, resnet):
    explorer.preset.index = 2
    explorer.layer.value = "layer2.0.bn1"
    assert explorer.preset.value == "custom" and explorer.eps.value == "1e-3"
    assert explorer.frames[-1] == explorer.frames[2]
    for eps, frame in zip(PRESETS, explorer.frames, strict=False):
        assert sentence_in(frame) == picture(GainState(resnet, "layer2.0.bn1", eps))[1]


def test_of_a_burst_of_layers_the_presets_are_drawn_for_the_last_only(
    explorer, resnet, monkeypatch
):
    drawn = []
    monkeypatch.setattr(gain, "picture", lambda state: drawn.append(state) or picture(state))

    async def burst():
        for layer in ("layer1.0.bn1", "layer1.0.bn2", "layer1.0.bn3"):
            explorer.layer.value = layer
        await asyncio.sleep(4 * live.PATIENCE)

    asyncio.run(burst())
    assert [state.layer[-3:] for state in drawn] == ["bn1", "bn2", "bn3", "bn3", "bn3", "bn3"]
    assert sentence_in(explorer.frames[1]) == picture(GainState(resnet, "layer1.0.bn3", 1e-5))[1]


def test_another_network_brings_its_layers_and_starts_at_its_most_affected(explorer, lite0):
    explorer.network.value = "Lite0"
    assert explorer.layer.options == tuple(lite0.layers)
    assert explorer.layer.value == lite0.most_affected() and explorer.preset.value == "custom"
    assert "EfficientNet-Lite0, trained weights" in sentence_in(explorer.frames[0])
    explorer.network.value = "ResNet-50"
    assert explorer.layer.value == "bn1"


def test_choosing_custom_shows_what_the_controls_say(explorer):
    explorer.preset.index = 1
    explorer.preset.index = 3
    assert explorer.frames[3] == explorer.frames[1] and explorer.preset.index == 3


@pytest.mark.parametrize("text", ["-1", "nan", "", "ten"])
def test_a_bad_eps_is_said_and_the_last_picture_stays(explorer, text):
    explorer.eps.value = "2e-4"
    before = explorer.frames
    explorer.eps.value = text
    assert "Not shown:" in explorer.message and html.escape(repr(text)) in explorer.message
    assert explorer.frames == before and explorer.preset.value == "custom"
    explorer.eps.value = "3e-4"
    assert "Not shown" not in explorer.message and explorer.frames != before


def test_a_bad_eps_does_not_outlive_a_preset_or_a_layer(explorer):
    explorer.eps.value = "ten"
    explorer.preset.index = 1
    assert explorer.eps.value == "1e-5" and "Not shown" not in explorer.message
    explorer.eps.value = "ten"
    explorer.layer.value = "layer1.0.bn1"
    assert explorer.eps.value == "0" and "Not shown" not in explorer.message
    assert "layer1.0.bn1" in sentence_in(explorer.frames[-1])


def test_a_network_that_cannot_be_loaded_is_said_and_the_old_one_stays(explorer, monkeypatch):
    def missing(name):
        raise RuntimeError("Lite0's weights are <missing>.")

    monkeypatch.setattr(gain, "load", missing)
    before = explorer.frames
    explorer.network.value = "Lite0"
    assert "Lite0&#x27;s weights are &lt;missing&gt;." in explorer.message
    assert explorer.network.value == "ResNet-50" and explorer.frames == before


def test_a_model_of_ones_own_is_shown_first_and_the_networks_stay_at_hand(resnet):
    explorer = GainExplorer(freeze(backbones.load("resnet50", "stand-in"), eps=1e-3))
    assert explorer.network.options == (gain.GIVEN, "ResNet-50", "Lite0")
    assert explorer.network.value == gain.GIVEN and explorer.layer.value == "bn1"
    assert "no difference" in sentence_in(explorer.frames[2])


def test_every_control_has_a_label(explorer):
    controls = (explorer.preset, explorer.network, explorer.layer, explorer.eps)
    assert [control.description for control in controls] == [
        "eps",
        "network",
        "layer",
        "custom eps",
    ]


def test_the_output_carries_a_sentence_and_a_picture_for_where_widgets_cannot_run(
    explorer, monkeypatch
):
    shown = []
    monkeypatch.setattr(live, "display", lambda data, **options: shown.append((data, options)))
    explorer._ipython_display_()
    data, options = shown[0]
    assert data["text/plain"] == sentence_in(explorer.frames[0])
    assert "Model" not in data["text/plain"] and "IPY" not in data["text/plain"]
    image = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert (image.mode, image.width) == ("P", PIXELS)
    assert "application/vnd.jupyter.widget-view+json" in data and options["raw"]


def test_the_text_stays_that_of_the_first_preset_whatever_is_shown(explorer):
    before = explorer.text, explorer.png
    explorer.eps.value = "7e-4"
    explorer.network.value = "Lite0"
    assert (explorer.text, explorer.png) == before


def test_the_same_state_gives_the_same_bytes(resnet, lite0):
    for found in (resnet, lite0):
        states = [GainState(found, found.most_affected(), eps) for eps in PRESETS]
        assert [picture(s) for s in states] == [picture(s) for s in states]
