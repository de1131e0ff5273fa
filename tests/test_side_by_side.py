"""What the explorer says and shows, against differences taken apart from it."""

from dataclasses import replace

import pytest
import torch

from helpers.compare import Row, compare
from helpers.course.explorers.side_by_side import (
    PRESETS,
    CannotShow,
    NormState,
    Side,
    causes,
    sentence,
    view,
)
from helpers.inputs import photos
from helpers.networks import backbones
from helpers.norms import freeze, replace_norms
from helpers.stages import STAGES, stages

RUNNING, FROZEN = ("running statistics",) * 5, ("frozen",) * 5
RESNET = Side("ResNet-50", RUNNING)
IMAGE = photos.load("cat")


def state(a=RUNNING, b=RUNNING, network="ResNet-50", **where):
    return NormState(Side(network, tuple(a)), Side(network, tuple(b)), **where)


def with_kind(stage, kind, kinds=RUNNING):
    return tuple(kind if s == stage else k for s, k in zip(STAGES, kinds, strict=True))


def test_the_rows_are_those_of_compare():
    model = backbones.load(weights="stand-in")
    rows = compare(model, freeze(model, eps=0.0), IMAGE)
    seen = view(PRESETS["December 2020"], IMAGE).rows
    for stage, row in rows.items():
        assert seen[stage].relative == pytest.approx(row.relative, rel=0.01)


def test_the_maps_are_the_stages_own():
    model = backbones.load(weights="stand-in")
    other = replace_norms(model, "identity", stages="layer2")
    with torch.inference_mode():
        a, b = IMAGE, IMAGE
        for stage in ("stem", "layer1", "layer2"):
            a, b = (stages(m)[stage](x) for m, x in ((model, a), (other, b)))
    chosen = state(b=with_kind("layer2", "identity"), stage="layer2", channel=7)
    seen = view(chosen, IMAGE)
    assert torch.allclose(seen.a, a[0, 7]) and torch.allclose(seen.b, b[0, 7])
    mean = view(replace(chosen, channel=None), IMAGE)
    assert torch.allclose(mean.b, b[0].mean(0), atol=1e-6)
    assert mean.largest == (a - b)[0].abs().amax((1, 2)).argmax() and mean.channels == 512


def test_lite0_gets_its_own_normalization():
    lite0 = backbones.load("lite0")
    rows = compare(lite0, freeze(lite0, eps=1e-5), lite0.normalize(IMAGE))
    seen = view(PRESETS["Lite0 with the frozen default"], IMAGE).rows
    assert seen["layer4"].relative == pytest.approx(rows["layer4"].relative, rel=0.01)


@pytest.mark.parametrize(
    ("preset", "words"),
    [
        ("December 2020", "Main cause: eps. A and B part from the stem on"),
        ("Today", "Rounding at most"),
        ("The accepted answer's test", "hold the same layers, so nothing can differ"),
        ("Forgot eval()", "Main cause: batch statistics. A and B part from the stem on"),
        ("Lite0 with the frozen default", "Main cause: eps. A and B part from the stem on"),
    ],
)
def test_the_presets_say_their_cause(preset, words):
    assert words in view(PRESETS[preset], IMAGE).sentence


def test_the_first_stage_that_parts_is_named():
    for stage in STAGES:
        seen = view(state(b=with_kind(stage, "frozen, eps 0")), IMAGE)
        first = "the stem" if stage == "stem" else stage
        assert f"Main cause: eps. A and B part from {first} on" in seen.sentence


def test_the_larger_of_two_causes_is_the_main_one():
    kinds = with_kind("layer3", "identity", with_kind("stem", "frozen, eps 0"))
    seen = view(state(b=kinds), IMAGE)
    assert "Main cause: missing normalization (also: eps)." in seen.sentence
    assert "from the stem on" in seen.sentence


@pytest.mark.parametrize(
    ("a", "b", "eps", "cause"),
    [
        ("frozen", "running statistics", 1e-5, None),
        ("folded", "frozen", 1e-5, None),
        ("frozen, eps 1e-5", "running statistics", 1e-5, None),
        ("frozen, eps 1e-5", "running statistics", 1e-3, "eps"),
        ("frozen, eps 0", "frozen, eps 1e-5", 1e-3, "eps"),
        ("frozen, eps 0", "frozen, eps 0", 1e-3, None),
        ("batch statistics", "batch statistics", 1e-5, None),
        ("batch statistics", "frozen", 1e-5, "batch statistics"),
        ("identity", "identity", 1e-5, None),
        ("identity", "batch statistics", 1e-5, "missing normalization"),
    ],
)
def test_causes(a, b, eps, cause):
    found = causes(state((a,) * 5, (b,) * 5), eps)
    assert set(found.values()) == ({cause} if cause else set())


def test_a_sentence_gives_rounding_no_digits():
    rows = {s: Row((1,), 3e-7, 1e-7, 3.21e-6, 1e-5) for s in STAGES}
    words = sentence(state(b=FROZEN), rows, 1e-5)
    assert words == "Rounding at most: no stage parts by more than 1e-5 of max|A|."


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (
            NormState(RESNET, Side("Lite0", RUNNING)),
            "ResNet-50 and Lite0 have feature maps of diff",
        ),
        (state(channel=64, stage="stem"), "stem has channels 0 to 63, not 64"),
        (state(channel=-1, stage="stem"), "stem has channels 0 to 63, not -1"),
        (
            state(b=with_kind("layer3", "frozen, eps 0"), network="Lite0"),
            "B is NaN from layer3 on: without eps, the .* channels there with running variance 0",
        ),
        (
            state(a=("frozen, eps 0",) * 5, network="Lite0"),
            "A is NaN from stem on: without eps, the 8 channels",
        ),
    ],
)
def test_what_cannot_be_shown_is_one_sentence(chosen, message):
    with pytest.raises(CannotShow, match=message) as caught:
        view(chosen, IMAGE)
    assert "\n" not in str(caught.value)


def test_a_photo_that_overflows_is_one_sentence():
    with pytest.raises(CannotShow, match="A is not finite from stem on"):
        view(state(b=FROZEN, photo="huge"), IMAGE * float("inf"))
