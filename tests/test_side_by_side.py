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
    sentence,
    view,
)
from helpers.inputs import photos
from helpers.networks import backbones
from helpers.norms import freeze, replace_norms
from helpers.stages import STAGES, stages

RUNNING, FROZEN = ("running statistics",) * 5, ("frozen",) * 5
IMAGE = photos.load("cat")


def state(a=RUNNING, b=RUNNING, network="ResNet-50", **where):
    return NormState(Side(network, tuple(a)), Side(network, tuple(b)), **where)


def with_kind(stage, kind, kinds=RUNNING):
    return tuple(kind if s == stage else k for s, k in zip(STAGES, kinds, strict=True))


def test_the_rows_are_those_of_compare():
    for preset, name, eps in (
        ("December 2020", "resnet50", 0.0),
        ("Lite0 with the frozen default", "lite0", 1e-5),
    ):
        model = backbones.load(name)
        normalize = getattr(model, "normalize", lambda image: image)
        rows = compare(model, freeze(model, eps=eps), normalize(IMAGE))
        seen = view(PRESETS[preset], IMAGE).rows
        for stage, row in rows.items():
            assert seen[stage].relative == pytest.approx(row.relative, rel=0.01)


def test_the_maps_are_the_stages_own():
    model = backbones.load()
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


def test_the_sentence_names_the_main_cause_and_the_first_stage_that_parts():
    eps = "Main cause: eps. A and B part from the stem on"
    both = with_kind("layer3", "identity", with_kind("stem", "frozen, eps 0"))
    for chosen, words in (
        (PRESETS["December 2020"], eps),
        (PRESETS["Today"], "Rounding at most"),
        (PRESETS["The accepted answer's test"], "hold the same layers, so nothing can differ"),
        (PRESETS["Forgot eval()"], "Main cause: batch statistics. A and B part from the stem on"),
        (PRESETS["Lite0 with the frozen default"], eps),
        (state(b=with_kind("layer3", "frozen, eps 0")), "eps. A and B part from layer3 on"),
        (state(b=both), "missing normalization (also: eps). A and B part from the stem on"),
    ):
        assert words in view(chosen, IMAGE).sentence
    rows = {s: Row((1,), 3e-7, 1e-7, 3.21e-6, 1e-5) for s in STAGES}
    words = "Rounding at most: no stage parts by more than 1e-5 of max|A|."
    assert sentence(state(b=FROZEN), rows, 1e-5) == words


def test_what_cannot_be_shown_is_one_sentence():
    nan = state(b=with_kind("layer3", "frozen, eps 0"), network="Lite0")
    for chosen, image, message in (
        (
            replace(state(), b=Side("Lite0", RUNNING)),
            IMAGE,
            "ResNet-50 and Lite0 have feature maps",
        ),
        (state(channel=64, stage="stem"), IMAGE, "stem has channels 0 to 63, not 64"),
        (state(channel=-1, stage="stem"), IMAGE, "stem has channels 0 to 63, not -1"),
        (nan, IMAGE, "B is NaN from layer3 on: without eps, the .* channels there with running"),
        (state(b=FROZEN, photo="huge"), IMAGE * torch.inf, "A is not finite from stem on"),
    ):
        with pytest.raises(CannotShow, match=message) as caught:
            view(chosen, image)
        assert "\n" not in str(caught.value)
