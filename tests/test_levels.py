"""A level under several normalizations: against the model itself, counted passes, bad input."""

import re

import pytest
import torch
from torch import nn

from helpers.compare import ROUNDING
from helpers.course.explorers.levels import (
    BATCH,
    BATCHNORM,
    BODY_KINDS,
    EPS_0,
    FROZEN,
    LEVELS,
    MEAN,
    YOURS,
    Levels,
    PyramidState,
)
from helpers.faster_rcnn import walk
from helpers.inputs import photos
from helpers.networks.detector import detector, load_detector
from helpers.norms import replace_norms

SCENE = "scene 1"


@pytest.fixture(scope="module")
def levels():
    return Levels(load_detector())


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", BODY_KINDS)
def test_a_view_is_what_the_models_give(levels, level, kind):
    exact = load_detector().double()
    image = levels.pictures[SCENE][0].double()
    base, now = walk(exact, image), walk(replace_norms(exact, BODY_KINDS[kind]).eval(), image)
    view = levels.view(PyramidState(SCENE, level, MEAN, kind))
    assert torch.equal(view.map, now.maps[level][0].mean(0))
    wanted = (now.maps[level] - base.maps[level])[0].mean(0)
    assert torch.allclose(view.difference, wanted, atol=1e-12)
    off = (now.maps[level] - base.maps[level]).abs().max() / base.maps[level].abs().max()
    assert view.off == pytest.approx(off.item())
    assert view.shape == tuple(now.maps[level].shape[1:])
    number = int(level[1])
    assert view.stride == 2**number == 128 // view.shape[2]
    assert view.proposed == (now.proposed_by == number).sum()
    assert view.pooled == (now.pooled_from == number).sum()
    assert view.of == len(now.proposals)
    assert view.anchor_count == len(now.anchors[f"P{number}"]) and len(view.anchors) == 3
    assert view.anchor_size == pytest.approx(2 ** (number + 1), rel=0.1)
    centers = (view.anchors[:, :2] + view.anchors[:, 2:]) / 2
    assert ((centers - 64).abs() <= 64).all() and (centers == centers[0]).all()
    chosen = now.proposed_by == 6 if number == 6 else now.pooled_from == number
    assert torch.equal(view.proposals, now.proposals[chosen])


def test_a_channel_is_that_channel(levels):
    mean, first = (levels.view(PyramidState(SCENE, "P4", channel)) for channel in (MEAN, 3))
    walked = walk(load_detector().double(), levels.pictures[SCENE][0].double())
    assert torch.equal(first.map, walked.maps["P4"][0, 3])
    assert not torch.equal(mean.map, first.map)


def test_differences_have_their_sizes(levels):
    off = {kind: levels.view(PyramidState(SCENE, "P3", MEAN, kind)).off for kind in BODY_KINDS}
    assert off[BATCHNORM] == 0 and off[FROZEN] <= ROUNDING
    assert ROUNDING < off[EPS_0] < 1e-3 and off[BATCH] > 0.1


def test_boxes_and_their_levels_are_those_of_the_detector(levels):
    view = levels.view(PyramidState(SCENE, "C2"))
    with torch.no_grad():
        [result] = load_detector().double()([levels.pictures[SCENE][0].double()])
    sure = result["scores"] >= 0.5
    assert [box.label for box in view.boxes] == result["labels"][sure].tolist()
    boxes = torch.tensor([box.xyxy for box in view.boxes], dtype=torch.float64)
    assert torch.allclose(boxes, result["boxes"][sure])
    for box in view.boxes:
        side = ((box.xyxy[2] - box.xyxy[0]) * (box.xyxy[3] - box.xyxy[1])) ** 0.5
        assert abs(box.pooled_from - (4 + torch.tensor(side / 64).log2().item())) < 1.6
    assert len(view.truth) == 3
    assert levels.view(PyramidState("cat", "C2")).truth is None


def test_a_new_kind_costs_one_pass_and_a_level_none():
    levels = Levels(load_detector())
    ran = []
    for kind, model in levels._models.items():
        model.backbone.body.register_forward_hook(lambda *_, kind=kind: ran.append(kind))
    levels.view(PyramidState(SCENE, "C2"))
    assert ran == [BATCHNORM]
    for level in LEVELS:
        for channel in (MEAN, 5):
            levels.view(PyramidState(SCENE, level, channel))
    assert ran == [BATCHNORM]
    levels.view(PyramidState(SCENE, "P2", MEAN, BATCH))
    levels.view(PyramidState(SCENE, "P6", 1, BATCH))
    assert ran == [BATCHNORM, BATCH]
    levels.view(PyramidState("cat", "P2", MEAN, BATCH))
    assert ran[2:] == [BATCHNORM, BATCH]


def test_what_is_kept_is_bounded(monkeypatch):
    monkeypatch.setattr("helpers.course.explorers.levels.KEPT", 3)
    levels = Levels(load_detector())
    for name in list(levels.pictures)[:5]:
        levels.view(PyramidState(name, "C2", MEAN, EPS_0))
    assert len(levels._walks) == 3


def test_the_detector_stays_as_it_was():
    model = load_detector()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    Levels(model).view(PyramidState(SCENE, "P2", MEAN, BATCH))
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert model.roi_heads.box_roi_pool.scales is None


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (64, 200), (128, 20), (2000, 3000)], ids=str)
def test_any_size_of_a_readers_own_image(shape):
    image = nn.functional.interpolate(photos.load("coffee"), shape, mode="bilinear")
    levels = Levels(load_detector(), image)
    assert list(levels.pictures)[0] == YOURS
    for level in LEVELS:
        view = levels.view(PyramidState(YOURS, level, MEAN, BATCH))
        assert view.image.shape[1:] == tuple(walk(load_detector(), image[0]).size)
        assert view.sentence().startswith("yours, batch statistics")


def test_the_image_is_the_picture(levels):
    assert (
        levels.view(PyramidState("cat", "P2")).image - levels.pictures["cat"][0]
    ).abs().max() < 1e-6


def test_what_is_no_choice_is_one_sentence(levels):
    for state, words in (
        (PyramidState("dog", "C2"), "No picture 'dog' here: choose one of scene 0"),
        (PyramidState(SCENE, "P7"), "No level 'P7' here: choose one of C2"),
        (PyramidState(SCENE, "P2", 99), "No channel 99 here: choose one of mean, 0"),
        (PyramidState(SCENE, "P2", 0, "GroupNorm"), "No kind of normalization 'GroupNorm' here"),
    ):
        with pytest.raises(ValueError, match=re.escape(words)):
            levels.view(state)


def test_bad_input_is_one_sentence():
    model = load_detector()
    for image, error, words in (
        (torch.zeros(1, 8, 8), ValueError, "(1, 8, 8)"),
        (torch.zeros(2, 3, 8, 8), ValueError, "(2, 3, 8, 8)"),
        (torch.zeros(3, 0, 8), ValueError, "at least one pixel"),
        ([], TypeError, "list"),
        (torch.zeros(3, 8, 8).byte(), TypeError, "uint8"),
        (torch.full((3, 8, 8), torch.nan), ValueError, "NaN or infinity"),
    ):
        with pytest.raises(error, match=re.escape(words)):
            Levels(model, image)
    with pytest.raises(ValueError, match="train mode"):
        Levels(detector())
    with pytest.raises(TypeError, match="not Conv2d"):
        Levels(nn.Conv2d(3, 3, 1))
    other = load_detector()
    other.roi_heads.box_predictor = nn.Module()
    other.roi_heads.box_predictor.cls_score = nn.Linear(128, 91)
    with pytest.raises(ValueError, match="91 classes"):
        Levels(other)


def test_nan_scores_are_said():
    model = load_detector()
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.bias.fill_(torch.nan)
    with pytest.raises(ValueError, match="comes out of the box head"):
        Levels(model).view(PyramidState(SCENE, "C2"))


def test_nothing_found_is_said():
    model = load_detector()
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.bias[0] = 100.0
    view = Levels(model).view(PyramidState(SCENE, "P3", MEAN, EPS_0))
    assert (
        view.boxes == []
        and "Boxes: none. Lost of BatchNorm's 0 boxes (IoU below 0.9): 0." in view.sentence()
    )
