"""What the NormExplorer says and ships, against differences taken apart from it."""

import base64
import json
from itertools import product

import numpy as np
import pytest
import torch

from helpers.compare import compare
from helpers.course.explorers import norm
from helpers.course.explorers.explorer import YOURS
from helpers.course.explorers.norm import BATCH, FROZEN, IDENTITY, RUNNING, NormExplorer
from helpers.inputs import photos
from helpers.networks import backbones
from helpers.norms import freeze, replace_norms
from helpers.stages import STAGES, stages

IMAGE = photos.load("cat")
KINDS = RUNNING, FROZEN, BATCH


@pytest.fixture(scope="module")
def explorer():
    return NormExplorer()


def drawn(explorer, **changes):
    return explorer.draw(explorer.presets[0]["state"] | changes)


def values(one):
    eight = np.frombuffer(base64.b64decode(one["values"]), np.uint8).reshape(one["shape"])
    return one["low"] + (one["high"] - one["low"]) * eight / 254


def test_the_presets_are_those_of_compare(explorer):
    for preset, name, eps in (
        ("another eps", "lite0", 1e-5),
        ("ResNet-50, December 2020", "resnet50", 0.0),
    ):
        model = backbones.load(name)
        rows = compare(
            model, freeze(model, eps=eps), getattr(model, "normalize", lambda x: x)(IMAGE)
        )
        state = next(one["state"] for one in explorer.presets if one["name"] == preset)
        for row, one in zip(rows.values(), explorer.draw(state)["stages"], strict=True):
            assert one["relative"] == pytest.approx(row.relative, rel=0.01)


def test_all_243_mixtures_are_shipped_and_are_what_the_network_gives(explorer):
    data, network = explorer.data, explorer._network("Lite0")
    x, mixtures = network.normalize(IMAGE), list(product(range(3), repeat=5))
    for digits in mixtures[::23]:
        kinds = tuple(KINDS[digit] for digit in digits)
        maps = network.maps("other", x, kinds, data["eps"])
        frame = drawn(explorer, kinds_b=list(kinds))
        for i, stage in enumerate(STAGES):
            number = int("".join(map(str, digits[: i + 1])), 3)
            a, size = data["a"][i], np.prod(data["a"][i]["shape"])
            eight = base64.b64decode(data["d"][i])[number * size : (number + 1) * size]
            reach = data["reach"][i][number]
            d = reach * (np.frombuffer(eight, np.uint8) / 127.0 - 1)
            b = values(a).ravel() - d
            step = (a["high"] - a["low"] + 2 * reach) / 254
            assert np.abs(b - maps[stage][0].mean(0).numpy().ravel()).max() <= step
            assert data["relative"][i][number] == pytest.approx(
                frame["stages"][i]["relative"], 1e-2
            )
        cause = data["causes"][data["cause"][mixtures.index(digits)]]
        assert cause in frame["sentence"]


def test_the_open_channel_is_the_networks_own(explorer):
    model = backbones.load("lite0")
    other = replace_norms(model, "identity", stages="layer2")
    with torch.inference_mode():
        a, b = model.normalize(IMAGE), model.normalize(IMAGE)
        for stage in ("stem", "layer1", "layer2"):
            a, b = (stages(m)[stage](x) for m, x in ((model, a), (other, b)))
    kinds = [RUNNING, RUNNING, IDENTITY, RUNNING, RUNNING]
    frame = drawn(explorer, kinds_b=kinds, stage="layer2", channel=7)
    for one, wanted in (("a", a[0, 7]), ("d", (a - b)[0, 7])):
        step = (frame["opened"][one]["high"] - frame["opened"][one]["low"]) / 254
        assert np.abs(values(frame["opened"][one]) - wanted.numpy()).max() <= step
    most = (a - b)[0].abs().amax((1, 2)).topk(12).indices.tolist()
    assert [number for number, _ in frame["channels"][2]] == most


def test_the_sentence_names_the_main_cause_and_the_first_stage_that_parts(explorer):
    def one(stage, kind, rest=RUNNING):
        return [kind if s == stage else rest for s in STAGES]

    for changes, words in (
        ({}, "Main cause: eps. A and B part from stem on"),
        ({"eps": 1e-3}, "Rounding at most: no stage parts by more than 1e-5 of max|A|."),
        ({"kind_a": FROZEN}, "hold the same layers, so nothing can differ"),
        ({"kinds_b": [BATCH] * 5}, "Main cause: batch statistics. A and B part from stem on"),
        ({"kinds_b": one("layer3", FROZEN)}, "eps. A and B part from layer3 on"),
        ({"kinds_b": one("layer3", IDENTITY, FROZEN)}, "missing normalization (also: eps)"),
    ):
        frame = drawn(explorer, **changes)
        assert words in frame["sentence"] and len(frame["sentence"].split()) <= 20
    assert [norm.times(x) for x in (1e-5, 2.4e-3)] == ["rounding", "≥ 240 × rounding"]
    assert norm.share(1e-8) == 0 and norm.share(1e9) == 1


def test_what_cannot_be_shown_is_one_sentence(explorer):
    kinds = [RUNNING, RUNNING, RUNNING, FROZEN, RUNNING]
    for changes, message in (
        ({"network": "VGG"}, "No network 'VGG' here: choose one of Lite0"),
        ({"photo": "dog"}, "No photo 'dog' here"),
        ({"kinds_b": ["folded"] * 5}, "No kind 'folded' here"),
        ({"kinds_b": [RUNNING]}, "one kind for each of stem"),
        ({"eps": -1.0}, "eps must be a number from 0 to 1, not -1.0"),
        ({"stage": "stem", "channel": 99}, "stem has channels 0 to 15, not 99"),
        ({"kinds_b": kinds, "eps": 0.0}, "B is NaN from layer3 on: without eps, the"),
        ({"photo": YOURS}, "There is no picture of yours yet"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            drawn(explorer, **changes)
        assert "\n" not in str(caught.value)


def test_all_stages_lead_and_follow_and_a_mixture_is_not_propagated():
    explorer = NormExplorer({"Lite0": backbones.load("lite0")})
    explorer.kind_b = BATCH
    assert explorer.kinds_b == [BATCH] * 5
    explorer.kinds_b = [RUNNING, *[BATCH] * 4]
    assert explorer.kind_b == BATCH
    explorer.kinds_b = [RUNNING] * 5
    assert (
        explorer.kind_b == RUNNING
        and "nothing can differ" in explorer.draw(explorer.state)["sentence"]
    )
    with pytest.raises(ValueError, match="No network 'VGG' here: choose one of Lite0"):
        NormExplorer({"VGG": None})


def test_what_is_saved_is_small(explorer):
    assert len(json.dumps([explorer.spec, explorer.presets, explorer.data])) <= 250_000
