"""What the detector is fed when formats are mixed up: tensors, ranges, maps, boxes, words."""

import pytest
import torch
from torch import nn
from torchvision.models.detection import fasterrcnn_resnet50_fpn

from helpers.compare import ROUNDING, Row
from helpers.course.explorers.feeding import (
    ENTERING,
    LEAVING,
    Feeding,
    bound,
    pictures,
    rounded,
    share,
    span,
)
from helpers.course.explorers.scaling import PRESETS
from helpers.inputs.pixels import PLAIN, convert, loader_mistakes
from helpers.inputs.scenes import CLASSES, scenes
from helpers.networks.detector import detector, evaluate, load_detector, normalize
from helpers.stages import STAGES, stages

FIRST = "scene 1"


@pytest.fixture(scope="module")
def model():
    return load_detector()


@pytest.fixture(scope="module")
def feeding(model):
    return Feeding(model)


def seen(feeding, picture, emits="0-1", expects="0-1", brightness=1.0):
    return feeding.view(*pictures()[picture], brightness, emits, expects)


def test_the_presets_feed_what_the_accidents_make_of_held_out_scenes(feeding):
    image, target = pictures()[FIRST]
    assert torch.equal(image, scenes(2, 1)[1][0])
    for name, changes in PRESETS.items():
        emits = changes.get("emits", "0-255")
        wanted = image if name == "right" else loader_mistakes[name](image)
        view = seen(feeding, FIRST, emits)
        assert torch.equal(view.fed, wanted) and view.fed.dtype == torch.float32, name
        assert view.emitted == span(convert(image, PLAIN, emits))
        right = seen(feeding, FIRST, emits, emits)
        assert all(off <= ROUNDING for off in right.off.values())
    for brightness in (0.5, 2.0):  # of the picture: with the right format, nothing is off
        view = seen(feeding, FIRST, brightness=brightness)
        assert torch.equal(view.fed, (image * brightness).clamp(max=1))
        assert not any(view.off.values()) and view.found == view.right


def test_ranges_and_rows_are_those_of_the_stages_one_after_the_other(feeding, model):
    for picture, *formats in (("scene 3", "0-255", "0-1"), ("coffee", "BGR", "keras-tf")):
        view = seen(feeding, picture, *formats)
        entering = [normalize(x)[None] for x in (view.fed, pictures()[picture][0])]
        with torch.no_grad():
            leaving = [model.backbone.body.conv1(x) for x in entering]
        for point, pair in ((ENTERING, entering), (LEAVING, leaving)):
            for said, x in zip(view.spans[point], pair, strict=True):
                words = said.split(" … ")
                ends = [float(f"{end.item():.3g}") for end in (x.min(), x.max())]
                assert [float(w.replace("−", "-").replace(",", "")) for w in words] == ends
        wanted, (now, right) = {}, entering
        with torch.no_grad():
            for stage, part in stages(model).items():
                now, right = part(now), part(right)
                wanted[stage] = Row.of(right, now).relative
        assert list(view.off) == list(STAGES)
        for stage, relative in wanted.items():
            assert view.off[stage] == pytest.approx(relative, rel=1e-4)


def test_the_boxes_are_the_detectors_and_matched_as_by_evaluate(feeding, model):
    for picture in ("scene 0", "scene 1", "cat"):  # one object missed, one box false
        image, target = pictures()[picture]
        found = seen(feeding, picture, "halved").found
        with torch.no_grad():
            [result] = model([image * 0.5])
        kept = [result[name][result["scores"] >= 0.5] for name in ("boxes", "labels", "scores")]
        drawn = [box for box in found.boxes if box["kind"] != "truth"]
        for box, xyxy, label, score in zip(drawn, *(x.tolist() for x in kept), strict=True):
            assert box["box"] == pytest.approx(xyxy, abs=0.06)
            assert box["text"].endswith(f": {CLASSES[label]} {100 * score:.0f} %")
        kinds = [box["kind"] for box in found.boxes]
        if target is None:
            assert "(a photo has no truth)" in found.words
            assert set(kinds) <= {"other"}
        else:
            scores = evaluate(model, [(image * 0.5, target)])
            objects = len(target["labels"])
            hits, false = round(scores.recall * objects), round(scores.false_positives)
            assert found.words == f"{hits} of {objects} objects found, {false} false"
            assert [kinds.count(k) for k in ("right", "wrong", "truth")] == [
                hits,
                false,
                objects - hits,
            ]


def test_numbers_have_two_digits_and_rounding_has_none():
    numbers = (0.0, -2.1179, 1112.9, -65025.0, 99.7, -0.00456, 0.999)
    words = ["0", "−2.1", "1,100", "−65,000", "100", "−4.6e-3", "1"]
    assert [rounded(number) for number in numbers] == words
    assert [bound(x) for x in (0.0, 3e-7, 1e-5, 0.0123)] == [*["≤ 1e-5"] * 3, "0.012"]
    shares = [share(x) for x in (0.0, 9e-6, 1e-5, 1e3, 1e9)]
    assert (
        shares == [0, 0, 0.111, 1, 1] and span(torch.tensor([-2.1179, 1112.9])) == "−2.12 … 1,110"
    )


def test_a_view_costs_one_forward_pass_and_leaves_the_model_as_it_was(model, monkeypatch):
    feeding, before = Feeding(model), {n: t.clone() for n, t in model.state_dict().items()}
    seen(feeding, "rocket")
    ran, forward = [], model.forward
    monkeypatch.setattr(model, "forward", lambda x: ran.append(x) or forward(x))
    view = seen(feeding, "rocket", "0-255")
    assert len(ran) == 1 and torch.equal(ran[0][0], view.fed)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not any(m.training for m in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_what_cannot_be_shown_is_refused_in_one_sentence(feeding):
    coco = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None).eval()
    for given, error, sentence in (
        (nn.Linear(2, 2), TypeError, "Give a FasterRCNN with an FPN, not Linear"),
        (detector(), ValueError, r"in train mode: call \.eval\(\) first"),
        (coco, ValueError, "has 91 classes: the scenes have 4"),
    ):
        with pytest.raises(error, match=sentence):
            Feeding(given)
    broken = detector().eval()
    nn.init.constant_(broken.backbone.body.layer3[0].conv1.weight, float("inf"))
    for given, formats, sentence in (
        (feeding, ("caffe", "0-1"), "No format 'caffe'"),
        (feeding, ("0-1", "caffe"), "No format 'caffe'"),
        (Feeding(broken), ("BGR", "0-1"), "emits as BGR and the network expects as 0-1 gives maps"),
    ):
        with pytest.raises(ValueError, match=sentence):
            seen(given, "cat", *formats)
    assert not any(m._forward_hooks for m in broken.modules())
