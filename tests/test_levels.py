"""A level under several normalizations: against the model itself, counted passes, bad input."""

import re

import pytest
import torch
from torch import nn

from helpers.compare import ROUNDING
from helpers.course.explorers import levels as module
from helpers.course.explorers.levels import BATCH, BATCHNORM, EPS_0, LEVELS, Levels, PyramidState
from helpers.faster_rcnn import walk
from helpers.networks.detector import detector, load_detector
from helpers.norms import replace_norms

SCENE = "scene 1"


@pytest.fixture(scope="module")
def model():
    return load_detector()


@pytest.fixture(scope="module")
def levels(model):
    return Levels(model)


def test_a_view_is_what_the_models_give(levels):
    exact, image, off = load_detector().double(), levels.pictures[SCENE][0], {}
    base = walk(exact, image.double())
    for kind, known_as in module.BODY_KINDS.items():
        now = walk(replace_norms(exact, known_as).eval(), image.double())
        for level in LEVELS:
            view, number = levels.view(PyramidState(SCENE, level, kind=kind)), int(level[1])
            assert torch.equal(view.map, now.maps[level][0].mean(0))
            difference = now.maps[level] - base.maps[level]
            assert torch.allclose(view.difference, difference[0].mean(0), atol=1e-12)
            off[level, kind] = (difference.abs().max() / base.maps[level].abs().max()).item()
            assert view.off == pytest.approx(off[level, kind])
            assert view.shape == tuple(now.maps[level].shape[1:])
            assert view.stride == 2**number == 128 // view.shape[2]
            assert view.proposed == (now.proposed_by == number).sum()
            assert view.pooled == (now.pooled_from == number).sum()
            assert view.of == len(now.proposals)
            assert view.anchor_count == len(now.anchors[f"P{number}"]) and len(view.anchors) == 3
            assert view.anchor_size == pytest.approx(2 ** (number + 1), rel=0.1)
            chosen = now.proposed_by == 6 if number == 6 else now.pooled_from == number
            assert torch.equal(view.proposals, now.proposals[chosen])
            assert (view.image - image).abs().max() < 1e-6
    assert off["P3", BATCHNORM] == 0 and off["P3", module.FROZEN] <= ROUNDING
    assert ROUNDING < off["P3", EPS_0] < 1e-3 and off["P3", BATCH] > 0.1
    channel = levels.view(PyramidState(SCENE, "P4", 3))
    assert torch.equal(channel.map, base.maps["P4"][0, 3])


def test_boxes_and_their_levels_are_those_of_the_detector(levels):
    view = levels.view(PyramidState(SCENE, "C2"))
    with torch.no_grad():
        [result] = load_detector().double()([levels.pictures[SCENE][0].double()])
    sure = result["scores"] >= 0.5
    assert [box.label for box in view.boxes] == result["labels"][sure].tolist()
    boxes = torch.tensor([box.xyxy for box in view.boxes], dtype=torch.float64)
    assert torch.allclose(boxes, result["boxes"][sure])
    for box, side in zip(view.boxes, (boxes[:, 2:] - boxes[:, :2]).prod(1).sqrt(), strict=True):
        assert abs(box.pooled_from - (4 + (side / 64).log2())) < 1.6
    assert len(view.truth) == 3 and levels.view(PyramidState("cat", "C2")).truth is None


def test_a_new_kind_costs_one_pass_and_the_detector_stays_as_it_was(model, monkeypatch):
    monkeypatch.setattr(module, "KEPT", 3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    levels, ran = Levels(model), []
    for kind, changed in levels._models.items():
        changed.backbone.body.register_forward_hook(lambda *_, kind=kind: ran.append(kind))
    for state, kinds in (
        (PyramidState(SCENE, "C2"), [BATCHNORM]),
        (PyramidState(SCENE, "P6", 5), []),  # another level or channel costs none
        (PyramidState(SCENE, "P2", kind=BATCH), [BATCH]),
        (PyramidState("cat", "P2", kind=BATCH), [BATCHNORM, BATCH]),
    ):
        ran.clear()
        levels.view(state)
        assert ran == kinds
    assert len(levels._walks) == 3  # what is kept is bounded
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert model.roi_heads.box_roi_pool.scales is None


def test_a_readers_own_image_comes_first(model):
    levels = Levels(model, torch.rand(1, 3, 64, 200))
    view = levels.view(PyramidState(next(iter(levels.pictures)), "P6", kind=BATCH))
    assert view.sentence().startswith("yours, batch statistics")
    assert view.image.shape[1:] == walk(model, levels.pictures["yours"][0]).size


def test_bad_input_is_one_sentence(levels, model):
    for state, words in (
        (PyramidState("dog", "C2"), "No picture 'dog' here: choose one of scene 0"),
        (PyramidState(SCENE, "P7"), "No level 'P7' here: choose one of C2"),
        (PyramidState(SCENE, "P2", 0, "GroupNorm"), "No kind of normalization 'GroupNorm' here"),
    ):
        with pytest.raises(ValueError, match=re.escape(words)):
            levels.view(state)
    other = load_detector()
    other.roi_heads.box_predictor.cls_score = nn.Linear(128, 91)
    for given, image, error, words in (
        (model, torch.zeros(2, 3, 8, 8), ValueError, "(2, 3, 8, 8)"),
        (detector(), None, ValueError, "train mode"),
        (other, None, ValueError, "91 classes"),
    ):
        with pytest.raises(error, match=re.escape(words)):
            Levels(given, image)


def test_nothing_found_and_nan_scores_are_said():
    model = load_detector()
    bias = model.roi_heads.box_predictor.cls_score.bias.requires_grad_(False)
    bias[0] = 100.0
    view = Levels(model).view(PyramidState(SCENE, "P3", kind=EPS_0))
    words = "Boxes: none. Lost of BatchNorm's 0 boxes (IoU below 0.9): 0."
    assert view.boxes == [] and words in view.sentence()
    bias.fill_(torch.nan)
    with pytest.raises(ValueError, match="comes out of the box head"):
        Levels(model).view(PyramidState(SCENE, "C2"))
