"""What the detector is fed when formats are mixed up: tensors, histograms, maps, boxes, words."""

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.detection import fasterrcnn_resnet50_fpn
from torchvision.ops import box_iou

from helpers.compare import ROUNDING, Row
from helpers.course.explorers.feeding import (
    BINS,
    PRESETS,
    Feeding,
    ScalingState,
    _matched,
    between,
    formats,
    percent,
    pictures,
    two_digits,
)
from helpers.course.explorers.scaling import FIRST
from helpers.inputs import photos
from helpers.inputs.pixels import FORMATS, KNOWN, MISTAKEN_FORMATS, PLAIN, convert, loader_mistakes
from helpers.inputs.scenes import scenes
from helpers.networks import detector as detector_module
from helpers.networks.detector import MEAN, STD, detector, evaluate, load_detector, normalize
from helpers.stages import STAGES, stages


def untrained():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return detector().eval()


@pytest.fixture(scope="module")
def model():
    return untrained()


@pytest.fixture(scope="module")
def feeding(model):
    return Feeding(model)


@pytest.fixture(scope="module")
def trained():
    return Feeding(load_detector())


def passes(model, monkeypatch):
    """The images of every forward pass from here on."""
    ran = []
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda images: ran.extend(images) or forward(images))
    return ran


# ---------------------------------------------------------------- what is fed


def test_the_pictures_are_held_out_scenes_and_the_photos():
    found = pictures()
    assert list(found) == [*(f"scene {i}" for i in range(8)), *photos.NAMES]
    for i, (image, target) in enumerate(scenes(8, 1)):
        assert torch.equal(found[f"scene {i}"][0], image)
        assert torch.equal(found[f"scene {i}"][1]["boxes"], target["boxes"])
    for name in photos.NAMES:
        assert torch.equal(found[name][0], photos.load(name, 128)[0]) and found[name][1] is None


def test_every_known_format_can_be_chosen():
    assert formats() == ["0-1", *FORMATS, *MISTAKEN_FORMATS] == list(KNOWN)


@pytest.mark.parametrize("name", PRESETS)
def test_the_presets_feed_what_the_accidents_make(feeding, name):
    for picture in ("scene 0", "cat"):
        image = pictures()[picture][0]
        wanted = image if name == "right" else loader_mistakes[name](image)
        fed = feeding.view(ScalingState(picture, PRESETS[name])).fed
        assert torch.equal(fed, wanted) and fed.dtype == torch.float32


@pytest.mark.parametrize("name", KNOWN)
def test_who_expects_what_is_emitted_gets_the_image(feeding, name):
    view = feeding.view(ScalingState("scene 1", name, name))
    torch.testing.assert_close(view.fed, pictures()["scene 1"][0], rtol=0, atol=2e-6)
    assert view.outside == 0 and all(row.relative <= ROUNDING for row in view.rows.values())
    assert "the right range; 0 % of the image lies outside 0–1" in view.sentence()
    assert "No stage is off by more than rounding (≤ 1e-5)." in view.sentence()


def test_two_formats_are_mixed_up_by_hand(feeding):
    """BGR levels less their mean, taken for normalized RGB."""
    view = feeding.view(ScalingState("scene 2", "detectron2", "torchvision"))
    image = pictures()["scene 2"][0]
    emitted = 255 * image.flip(0) - torch.tensor([103.53, 116.28, 123.675]).reshape(3, 1, 1)
    mean, std = (torch.tensor(x).reshape(3, 1, 1) for x in (MEAN, STD))
    wanted = emitted * std + mean
    torch.testing.assert_close(view.fed, wanted, rtol=1e-5, atol=1e-4)
    outside = ((wanted < 0) | (wanted > 1)).float().mean().item()
    assert view.outside == pytest.approx(outside, abs=1e-3)


# ---------------------------------------------------------------- what comes of it


@pytest.mark.parametrize(
    "state", [ScalingState("scene 3", "0-255"), ScalingState("coffee", "BGR", "keras-tf")]
)
def test_the_histograms_are_those_around_the_first_convolution(feeding, model, state):
    view, image = feeding.view(state), pictures()[state.picture][0]
    entering = normalize(view.fed), normalize(image)
    with torch.no_grad():
        leaving = [model.backbone.body.conv1(x[None])[0] for x in entering]
    for found, (fed, right) in ((view.entering, entering), (view.leaving, leaving)):
        assert found.span == pytest.approx((fed.min().item(), fed.max().item()), rel=1e-5)
        assert found.right_span == pytest.approx((right.min().item(), right.max().item()), rel=1e-5)
        assert found.limits == (
            min(found.span[0], found.right_span[0]),
            max(found.span[1], found.right_span[1]),
        )
        for shares, values in ((found.fed, fed), (found.right, right)):
            counts, _ = np.histogram(values.numpy().astype(np.float64), BINS, found.limits)
            assert shares.sum() == pytest.approx(1, abs=1e-3) and shares.shape == (BINS,)
            assert np.abs(shares.numpy() - counts / values.numel()).max() < 2e-3


@pytest.mark.parametrize(
    "state", [ScalingState("scene 0", "halved"), ScalingState("cat", "keras-caffe")]
)
def test_the_rows_are_those_of_the_stages_one_after_the_other(feeding, model, state):
    view = feeding.view(state)
    assert list(view.rows) == list(STAGES)
    now, right = normalize(view.fed)[None], normalize(pictures()[state.picture][0])[None]
    wanted = {}
    with torch.no_grad():
        for stage, part in stages(model).items():
            now, right = part(now), part(right)
            wanted[stage] = Row.of(right, now).relative
    for stage, relative in wanted.items():
        assert view.rows[stage].relative == pytest.approx(relative, rel=1e-4)
    assert view.largest == max(wanted, key=wanted.get)


def test_the_boxes_are_the_detectors_from_a_score_of_one_half(trained):
    for picture, (image, target) in pictures().items():
        view = trained.view(ScalingState(picture, "halved"))
        with torch.no_grad():
            [result] = trained._model([image * 0.5])
        kept = result["scores"] >= 0.5
        assert len(view.boxes) == kept.sum()
        for box, xyxy, label, score in zip(
            view.boxes,
            result["boxes"][kept].tolist(),
            result["labels"][kept].tolist(),
            result["scores"][kept].tolist(),
            strict=True,
        ):
            assert box.xyxy == pytest.approx(xyxy, abs=1e-3) and box.label == label
            assert box.score == pytest.approx(score, abs=1e-5)
        assert (view.truth is None) == (target is None)


def test_matched_boxes_are_those_of_evaluate(trained):
    for picture, (image, target) in pictures().items():
        if target is None:
            continue
        view = trained.view(ScalingState(picture))
        scores = evaluate(trained._model, [(image, target)])
        assert view.found == round(scores.recall * len(view.truth))
        assert view.false == round(scores.false_positives)
        assert sum(box.matched for box in view.truth) == view.found


def test_who_takes_whom_is_that_of_the_scores():
    generator = torch.Generator().manual_seed(5)

    def rand(*shape):
        return torch.rand(shape, generator=generator)

    for _ in range(50):
        corners = 60 * rand(4, 2)
        objects = torch.cat([corners, corners + 20 + 40 * rand(4, 2)], 1)
        target = {"boxes": objects, "labels": (1 + 3 * rand(4)).long()}
        which = (4 * rand(12)).long()
        result = {
            "boxes": objects[which] + 12 * rand(12, 4) - 6,
            "labels": torch.where(rand(12) < 0.8, target["labels"][which], 1),
            "scores": rand(12),
        }
        boxes, truth = _matched(result, target)
        kept = {name: values[result["scores"] >= 0.5] for name, values in result.items()}
        assert sum(box.matched for box in boxes) == len(detector_module.matches(kept, target, 0.5))
        assert sum(box.matched for box in truth) == sum(box.matched for box in boxes)
        assert [box.score for box in boxes] == sorted(kept["scores"].tolist(), reverse=True)


def test_a_box_that_an_object_has_been_taken_by_is_false():
    box, other = [10.0, 10.0, 30.0, 30.0], [50.0, 50.0, 90.0, 90.0]
    target = {"boxes": torch.tensor([box, other]), "labels": torch.tensor([1, 2])}
    result = {
        "boxes": torch.tensor([box, box, other]),
        "labels": torch.tensor([1, 1, 3]),
        "scores": torch.tensor([0.6, 0.9, 0.8]),
    }
    boxes, truth = _matched(result, target)
    assert [(b.score, b.matched) for b in boxes] == [
        (pytest.approx(0.9), True),
        (pytest.approx(0.8), False),
        (pytest.approx(0.6), False),
    ]
    assert [b.matched for b in truth] == [True, False]
    boxes, truth = _matched(result, None)
    assert truth is None and not any(b.matched for b in boxes)


# ---------------------------------------------------------------- in words


def test_the_sentence_carries_the_numbers(feeding):
    view = feeding.view(ScalingState("scene 0", "0-255"))
    sentence = view.sentence()
    assert sentence.startswith("scene 0, emitted as 0-255, taken for 0-1: the network gets −2.1 … ")
    assert between(view.entering.span) in sentence and between(view.entering.right_span) in sentence
    assert f"{percent(view.outside)} of the image lies outside 0–1" in sentence
    assert f"finds {view.found} of {len(view.truth)} objects, {view.false} false" in sentence
    off = two_digits(view.rows[view.largest].relative)
    assert f"off most at {view.largest}: by {off} × the largest right value" in sentence
    photo = feeding.view(ScalingState("cat", "0-255")).sentence()
    assert "(a photo has no truth)" in photo and "objects" not in photo


def test_two_digits_are_two_digits():
    for number, words in {
        0.0: "0",
        1.0: "1",
        -2.1179: "−2.1",
        1112.9: "1,100",
        -65025.0: "−65,000",
        99.7: "100",
        0.734: "0.73",
        0.00456: "4.6e-3",
        -0.00456: "−4.6e-3",
        0.999: "1",
    }.items():
        assert two_digits(number) == words
    assert [percent(x) for x in (0, 0.001, 0.006, 0.5, 0.996, 1)] == [
        "0 %",
        "< 1 %",
        "1 %",
        "50 %",
        "> 99 %",
        "100 %",
    ]


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.filterwarnings("ignore:TF32")
def test_the_presets_words_do_not_depend_on_rounding(trained, name):
    """Other convolutions, which round otherwise; and no score or overlap is near its limit."""
    state = ScalingState(FIRST, PRESETS[name])
    sentence = trained.view(state).sentence()
    with torch.backends.mkldnn.flags(enabled=False):
        assert Feeding(trained._model).view(state).sentence() == sentence
    image, target = pictures()[FIRST]
    with torch.no_grad():
        [result] = trained._model([convert(image, PLAIN, PRESETS[name])])
    assert all(abs(score - 0.5) > 1e-3 for score in result["scores"].tolist())
    overlaps = box_iou(result["boxes"][result["scores"] > 0.5], target["boxes"])
    assert all(abs(overlap - 0.5) > 1e-3 for overlap in overlaps.flatten().tolist())


def test_levels_blind_the_detector_and_milder_accidents_cost_less(trained):
    names = [name for name, (_, target) in pictures().items() if target]
    objects = sum(len(trained.view(ScalingState(name)).truth) for name in names)
    found = {
        preset: sum(trained.view(ScalingState(name, emitted)).found for name in names) / objects
        for preset, emitted in PRESETS.items()
    }
    assert found.pop("0-255") < 0.2 and found.pop("right") > 0.8
    assert min(found.values()) > 0.5
    first = trained.view(ScalingState(FIRST))
    assert first.found == len(first.truth) and first.false == 0  # what the others are held against


# ---------------------------------------------------------------- the model


def test_a_view_costs_one_forward_pass(model, monkeypatch):
    feeding = Feeding(model)
    ran = passes(model, monkeypatch)
    feeding.warm()
    assert len(ran) == len(pictures())
    for picture in ("scene 0", "scene 5", "rocket"):
        ran.clear()
        view = feeding.view(ScalingState(picture, "BGR"))
        assert len(ran) == 1 and torch.equal(ran[0], view.fed)


def test_without_warming_a_picture_costs_a_second_pass_once(model, monkeypatch):
    feeding = Feeding(model)
    ran = passes(model, monkeypatch)
    feeding.view(ScalingState("scene 0", "BGR"))
    feeding.view(ScalingState("scene 0", "halved"))
    assert len(ran) == 3


def test_the_model_is_left_as_it_was():
    model = untrained()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    Feeding(model).view(ScalingState("scene 0", "0-255"))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not any(m.training for m in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_same_state_gives_the_same_numbers(feeding):
    one, two = (feeding.view(ScalingState("scene 6", "keras-tf", "gluoncv")) for _ in range(2))
    assert one.rows == two.rows and one.boxes == two.boxes and one.sentence() == two.sentence()


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda: nn.Linear(2, 2), TypeError, "Give the scene detector, a FasterRCNN, not Linear"),
        (lambda: "detector", TypeError, "a FasterRCNN, not str"),
        (detector, ValueError, r"in train mode: call \.eval\(\) first"),
        (
            lambda: fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None).eval(),
            ValueError,
            "has 91 classes: the scenes have 4",
        ),
    ],
)
def test_another_model_is_refused_in_one_sentence(make, error, sentence):
    with pytest.raises(error, match=sentence):
        Feeding(make())


def test_what_there_is_not_is_refused_in_one_sentence(feeding):
    with pytest.raises(ValueError, match="No picture 'dog' here: choose one of scene 0"):
        feeding.view(ScalingState("dog"))
    for state in (ScalingState("cat", "caffe"), ScalingState("cat", "0-1", "caffe")):
        with pytest.raises(ValueError, match="No format 'caffe'"):
            feeding.view(state)


@pytest.mark.parametrize("layer", ["conv1", "layer3.0.conv1"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_maps_that_are_not_finite_are_refused_in_one_sentence(layer, value):
    broken = untrained()
    with torch.no_grad():
        broken.backbone.body.get_submodule(layer).weight[0, 0, 0, 0] = value
    words = "emitted as BGR and taken for 0-1, gives maps that are not finite: choose another"
    with pytest.raises(ValueError, match=words):
        Feeding(broken).view(ScalingState("scene 0", "BGR"))
    assert not any(m._forward_hooks for m in broken.modules())
