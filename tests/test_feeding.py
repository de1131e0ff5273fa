"""What the detector is fed when formats are mixed up: tensors, histograms, maps, boxes, words."""

import numpy as np
import pytest
import torch
from frames import recorded
from torch import nn
from torchvision.models.detection import fasterrcnn_resnet50_fpn
from torchvision.ops import box_iou

from helpers.compare import ROUNDING, Row
from helpers.course.explorers import feeding as module
from helpers.course.explorers.feeding import PRESETS, Feeding, ScalingState, pictures
from helpers.inputs.pixels import PLAIN, convert, loader_mistakes
from helpers.inputs.scenes import scenes
from helpers.networks.detector import detector, evaluate, load_detector, normalize
from helpers.stages import STAGES, stages

FIRST = "scene 1"


@pytest.fixture(scope="module")
def model():
    return load_detector()


@pytest.fixture(scope="module")
def feeding(model):
    return Feeding(model)


def test_the_presets_feed_what_the_accidents_make_of_held_out_scenes(feeding):
    image, target = pictures()[FIRST]
    assert torch.equal(image, scenes(2, 1)[1][0])
    for name, emitted in PRESETS.items():
        wanted = image if name == "right" else loader_mistakes[name](image)
        view = feeding.view(ScalingState(FIRST, emitted))
        assert torch.equal(view.fed, wanted) and view.fed.dtype == torch.float32, name
        right = feeding.view(ScalingState(FIRST, emitted, emitted))
        assert all(row.relative <= ROUNDING for row in right.rows.values())
        outside = ((wanted < -1e-4) | (wanted > 1.0001)).float().mean().item()
        assert view.outside == pytest.approx(outside, abs=1e-6)


def test_histograms_and_rows_are_those_of_the_stages_one_after_the_other(feeding, model):
    for state in (ScalingState("scene 3", "0-255"), ScalingState("coffee", "BGR", "keras-tf")):
        view = feeding.view(state)
        entering = [normalize(x)[None] for x in (view.fed, pictures()[state.picture][0])]
        with torch.no_grad():
            leaving = [model.backbone.body.conv1(x) for x in entering]
        for seen, pair in ((view.entering, entering), (view.leaving, leaving)):
            spans = [(x.min().item(), x.max().item()) for x in pair]
            assert seen.span == pytest.approx(spans[0], rel=1e-5)
            assert seen.right_span == pytest.approx(spans[1], rel=1e-5)
            lows, highs = zip(seen.span, seen.right_span, strict=True)
            assert seen.limits == (min(lows), max(highs))
            for shares, values in zip((seen.fed, seen.right), pair, strict=True):
                counts, _ = np.histogram(values.double().numpy(), len(shares), seen.limits)
                assert np.abs(shares.numpy() - counts / values.numel()).max() < 2e-3
        wanted, (now, right) = {}, entering
        with torch.no_grad():
            for stage, part in stages(model).items():
                now, right = part(now), part(right)
                wanted[stage] = Row.of(right, now).relative
        assert list(view.rows) == list(STAGES) and view.largest == max(wanted, key=wanted.get)
        for stage, relative in wanted.items():
            assert view.rows[stage].relative == pytest.approx(relative, rel=1e-4)


def test_the_boxes_are_the_detectors_and_matched_as_by_evaluate(feeding, model):
    for picture in ("scene 0", "scene 1", "cat"):  # one object missed, one box false
        image, target = pictures()[picture]
        view = feeding.view(ScalingState(picture, "halved"))
        with torch.no_grad():
            [result] = model([image * 0.5])
        kept = [result[name][result["scores"] >= 0.5] for name in ("boxes", "labels", "scores")]
        for box, xyxy, label, score in zip(view.boxes, *(x.tolist() for x in kept), strict=True):
            assert box.xyxy == pytest.approx(xyxy, abs=1e-3) and box.label == label
            assert box.score == pytest.approx(score, abs=1e-5)
        if target is None:
            assert view.truth is None
        else:
            scores = evaluate(model, [(image * 0.5, target)])
            assert view.found == round(scores.recall * len(view.truth))
            assert view.false == round(scores.false_positives)
            assert sum(box.matched for box in view.truth) == view.found


def test_the_sentence_carries_the_numbers(feeding):
    view = feeding.view(ScalingState("scene 0", "0-255"))
    sentence = view.sentence()
    assert sentence.startswith("scene 0, emitted as 0-255, taken for 0-1: the network gets −2.1 … ")
    for span in (view.entering.span, view.entering.right_span):
        assert module.between(span) in sentence
    assert f"{module.percent(view.outside)} of the image lies outside 0–1" in sentence
    assert f"finds {view.found} of {len(view.truth)} objects, {view.false} false" in sentence
    off = module.two_digits(view.rows[view.largest].relative)
    assert f"off most at {view.largest}: by {off} × the largest right value" in sentence
    photo = feeding.view(ScalingState("cat", "0-255")).sentence()
    assert "(a photo has no truth)" in photo and "objects" not in photo
    numbers = (0.0, -2.1179, 1112.9, -65025.0, 99.7, -0.00456, 0.999)
    words = ["0", "−2.1", "1,100", "−65,000", "100", "−4.6e-3", "1"]
    assert [module.two_digits(number) for number in numbers] == words
    words = ["0 %", "< 1 %", "1 %", "> 99 %", "100 %"]
    assert [module.percent(x) for x in (0, 0.001, 0.006, 0.996, 1)] == words


@pytest.mark.filterwarnings("ignore:TF32")
def test_the_presets_words_do_not_depend_on_rounding(feeding, model):
    """Other convolutions, which round otherwise; and no score or overlap is near its limit."""
    image, target = pictures()[FIRST]
    for emitted in PRESETS.values():
        state = ScalingState(FIRST, emitted)
        with torch.backends.mkldnn.flags(enabled=False):
            assert Feeding(model).view(state).sentence() == feeding.view(state).sentence()
        with torch.no_grad():
            [result] = model([convert(image, PLAIN, emitted)])
        overlaps = box_iou(result["boxes"][result["scores"] > 0.5], target["boxes"])
        for limited in (result["scores"], overlaps):
            assert not ((limited - 0.5).abs() <= 1e-3).any()


def test_a_view_costs_one_forward_pass_and_leaves_the_model_as_it_was(model, monkeypatch):
    feeding, before = Feeding(model), {n: t.clone() for n, t in model.state_dict().items()}
    feeding.view(ScalingState("rocket"))
    ran = recorded(monkeypatch, model, "forward")
    view = feeding.view(ScalingState("rocket", "0-255"))
    assert len(ran) == 1 and torch.equal(ran[0][0][0], view.fed)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not any(m.training for m in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_what_cannot_be_shown_is_refused_in_one_sentence(feeding):
    coco = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None).eval()
    for given, error, sentence in (
        (nn.Linear(2, 2), TypeError, "Give the scene detector, a FasterRCNN, not Linear"),
        (detector(), ValueError, r"in train mode: call \.eval\(\) first"),
        (coco, ValueError, "has 91 classes: the scenes have 4"),
    ):
        with pytest.raises(error, match=sentence):
            Feeding(given)
    broken = detector().eval()
    nn.init.constant_(broken.backbone.body.layer3[0].conv1.weight, float("inf"))
    for given, state, sentence in (
        (feeding, ScalingState("dog"), "No picture 'dog' here: choose one of scene 0"),
        (feeding, ScalingState("cat", "caffe"), "No format 'caffe'"),
        (feeding, ScalingState("cat", "0-1", "caffe"), "No format 'caffe'"),
        (Feeding(broken), ScalingState("cat", "BGR"), "emitted as BGR and taken for 0-1, gives ma"),
    ):
        with pytest.raises(ValueError, match=sentence):
            given.view(state)
    assert not any(m._forward_hooks for m in broken.modules())
