"""A level under several normalizations: against the model itself, counted passes, bad input."""

import pytest
import torch
from torch import nn
from torchvision.ops import box_iou

from helpers.compare import ROUNDING
from helpers.course.explorers import levels as module
from helpers.course.explorers.feeding import pictures
from helpers.course.explorers.levels import BATCH, BATCHNORM, EPS_0, LEVELS, Levels
from helpers.faster_rcnn import changes, walk
from helpers.networks.detector import detector, load_detector
from helpers.norms import replace_norms

SCENE, _ = pictures()["scene 1"]


@pytest.fixture(scope="module")
def model():
    return load_detector()


@pytest.fixture(scope="module")
def levels(model):
    return Levels(model)


def test_a_view_is_what_the_models_give(levels):
    exact, off = load_detector().double(), {}
    base = walk(exact, SCENE.double())
    for kind, known_as in module.BODY_KINDS.items():
        view = levels.view(SCENE, kind)
        now = walk(replace_norms(exact, known_as).eval(), SCENE.double())
        for level in LEVELS:
            assert torch.equal(view.now.maps[level], now.maps[level])
            assert torch.equal(view.base.maps[level], base.maps[level])
            difference = now.maps[level] - base.maps[level]
            off[level, kind] = (difference.abs().max() / base.maps[level].abs().max()).item()
            assert view.off[level] == pytest.approx(off[level, kind])
            number = int(level[1])
            by, of = (now.proposed_by == number).sum(), (now.pooled_from == number).sum()
            assert view.counts(number) == (by, of)
        assert (view.image - SCENE).abs().max() < 1e-6
        changed = changes([base], [now])
        assert len(view.lost) == changed.lost
        if kind != BATCHNORM:
            words = view.words("P3")["sentence"]
            assert f"{changed.moved} of {changed.proposals} proposals move" in words
            assert f"boxes lost: {changed.lost} of {changed.boxes}" in words
    assert off["P3", BATCHNORM] == 0 and off["P3", module.FROZEN] <= ROUNDING
    assert ROUNDING < off["P3", EPS_0] < 1e-3 and off["P3", BATCH] > 0.1


def test_boxes_and_their_proposals_are_those_of_the_detector(levels):
    view = levels.view(SCENE, BATCHNORM)
    with torch.no_grad():
        [result] = load_detector().double()([SCENE.double()])
    sure = result["scores"] >= 0.5
    assert [box.label for box in view.boxes] == result["labels"][sure].tolist()
    boxes = torch.tensor([box.xyxy for box in view.boxes], dtype=torch.float64)
    assert torch.allclose(boxes, result["boxes"][sure])
    for box, side in zip(view.boxes, (boxes[:, 2:] - boxes[:, :2]).prod(1).sqrt(), strict=True):
        assert abs(box.pooled_from - (4 + (side / 64).log2())) < 1.6
        box_and_proposal = (torch.tensor([each]) for each in (box.xyxy, box.proposal))
        assert box_iou(*box_and_proposal) > 0.3
        assert f"P{box.pooled_from}" in view.words("P3", box)["headline"]
        assert f"Proposed by P{box.proposed_by}" in view.words("P3", box)["sentence"]


def test_a_new_kind_costs_one_pass_and_the_detector_stays_as_it_was(model, monkeypatch):
    monkeypatch.setattr(module, "KEPT", 3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    levels, ran = Levels(model), []
    for kind, changed in levels._models.items():
        changed.backbone.body.register_forward_hook(lambda *_, kind=kind: ran.append(kind))
    cat = pictures()["cat"][0]
    for image, kind, kinds in (
        (SCENE, BATCHNORM, [BATCHNORM]),
        (SCENE, BATCHNORM, []),
        (SCENE, BATCH, [BATCH]),
        (cat, BATCH, [BATCHNORM, BATCH]),
        (cat.clone(), BATCHNORM, [BATCHNORM]),  # another picture, whatever it holds
    ):
        ran.clear()
        levels.view(image, kind)
        assert ran == kinds
    assert levels._walk.cache_info().currsize == 3  # what is kept is bounded
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert model.roi_heads.box_roi_pool.scales is None


def test_bad_input_is_one_sentence(levels, model):
    other = load_detector()
    other.roi_heads.box_predictor.cls_score = nn.Linear(128, 91)
    for given, words in ((detector(), "train mode"), (other, "91 classes")):
        with pytest.raises(ValueError, match=words):
            Levels(given)
    for image, error in ((torch.zeros(2, 3, 8, 8), ValueError), (SCENE.int(), TypeError)):
        with pytest.raises(error, match="The image"):
            levels.view(image, BATCH)


def test_nothing_found_is_said():
    model = load_detector()
    bias = model.roi_heads.box_predictor.cls_score.bias.requires_grad_(False)
    bias[0] = 100.0
    view = Levels(model).view(SCENE, EPS_0)
    assert view.boxes == view.lost == [] and "boxes lost: 0 of 0" in view.words("P3")["sentence"]
