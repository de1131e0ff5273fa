"""The walk through a detector against the detector itself, bit for bit, and what is read off it."""

import re
from dataclasses import replace

import pytest
import torch
from torch import nn
from torchvision.models import resnet18
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import MultiScaleRoIAlign, box_area

from benchmarks.detector import resnet50_detector
from helpers.faster_rcnn import changes, effective_receptive_width, origins, walk
from helpers.inputs import photos
from helpers.inputs.scenes import scenes
from helpers.networks.detector import detector_on, load_detector, matches

SIZES = ((128, 128), (1, 1), (37, 511), (100, 75))
SWEPT = ((2, 3), (333, 127), (64, 200), (128, 20), (600, 800), (2000, 3000))


@pytest.fixture(scope="module")
def small():
    return settled(load_detector())


@pytest.fixture(scope="module")
def large():
    model = resnet50_detector(min_size=96, max_size=160, box_score_thresh=0.012)
    return settled(model)


def settled(model):
    """Its pooler has inferred its strides, from an image that is not thin."""
    with torch.no_grad():
        model([torch.zeros(3, 64, 64)])
    return model


def of_size(shape):
    return nn.functional.interpolate(photos.load("coffee"), shape, mode="bilinear")[0]


def assert_the_walk_is_the_model(model, image):
    with torch.no_grad():
        [expected] = model([image])
    walked = walk(model, image)
    for name in ("boxes", "labels", "scores"):
        assert torch.equal(walked.result[name], expected[name]), (name, image.shape)
    return walked


def test_the_walk_is_the_model_bit_for_bit(small, large):
    for shape in SIZES:
        assert_the_walk_is_the_model(small, of_size(shape))
    # Both find boxes, or nothing would be compared with nothing.
    for model, image in ((small, scenes(1, 1)[0][0]), (large, of_size((128, 160)))):
        assert len(assert_the_walk_is_the_model(model, image).result["boxes"])


@pytest.mark.sweep
def test_the_walk_is_the_model_at_every_size(small, large):
    for shape in SIZES + SWEPT:
        assert_the_walk_is_the_model(small, of_size(shape))
        assert_the_walk_is_the_model(large, of_size(shape))


@pytest.mark.parametrize("size", ["small", "large"])
def test_the_walk_holds_what_the_modules_give(size, request):
    model, image = request.getfixturevalue(size), scenes(1, 1)[0][0]
    walked = walk(model, image)
    images, _ = model.transform([image])
    with torch.no_grad():
        body = model.backbone.body(images.tensors)
        features = model.backbone(images.tensors)
        [proposals], _ = model.rpn(images, features)
        pooled = model.roi_heads.box_roi_pool(features, [proposals], images.image_sizes)
    assert list(walked.maps) == ["C2", "C3", "C4", "C5", "P2", "P3", "P4", "P5", "P6"]
    for held, given in zip(walked.maps.values(), [*body.values(), *features.values()], strict=True):
        assert torch.equal(held, given)
    assert torch.equal(walked.proposals, proposals)
    assert pooled.shape[0] == len(walked.pooled_from) == len(walked.proposed_by)
    for level, anchors in walked.anchors.items():
        assert len(anchors) == len(walked.objectness[level]) == 3 * walked.maps[level][0, 0].numel()
    assert torch.allclose(walked.sides**2, box_area(walked.proposals))


def test_levels_are_those_of_the_formula_as_far_as_the_pooler_has_them(small):
    coarse, image = load_detector(), scenes(1, 1)[0][0]
    coarse.roi_heads.box_roi_pool = MultiScaleRoIAlign(list("12"), 7, 2, canonical_scale=64)
    for model, low, high in ((small, 2, 5), (coarse, 3, 4)):
        walked = walk(model, image)
        level = (4 + torch.log2(walked.sides / 64) + 1e-6).floor().clamp(low, high)
        assert len(walked.pooled_from.unique()) > 1
        assert torch.equal(walked.pooled_from, level.long())


def test_a_thin_first_image_misleads_torchvision_for_good():
    """pytorch/vision issue 3747, open: the strides are inferred once, before padding counts."""
    thin, scene = of_size((64, 200)), scenes(2, 1)[1][0]
    model = load_detector()
    with torch.no_grad():
        model([thin])
        [misled] = model([scene])
        [right] = settled(load_detector())([scene])
    assert model.roi_heads.box_roi_pool.scales == [0.5, 0.25, 0.125, 0.0625]
    assert not torch.equal(misled["boxes"], right["boxes"])
    assert torch.equal(walk(model, scene).result["boxes"], right["boxes"])


def test_nothing_found_is_an_empty_result(small):
    walked = walk(small, torch.zeros(3, 40, 50))
    assert walked.result["boxes"].shape == (len(walked.source), 4)
    none = load_detector()
    none.roi_heads.score_thresh = none.rpn.score_thresh = 1.0
    walked = walk(none, scenes(1, 1)[0][0])
    assert len(walked.proposals) == len(walked.source) == 0
    assert walked.result["boxes"].shape == (0, 4)


def test_bad_input_is_one_sentence(small):
    image = torch.zeros(3, 32, 32)
    for wrong, error, words in (
        (image[:1], ValueError, "(1, 32, 32)"),
        (image[None], ValueError, "(1, 3, 32, 32)"),
        (image[:, :0], ValueError, "(3, 0, 32)"),
        (image.byte(), TypeError, "torch.uint8"),
        ([image], TypeError, "list"),
        (image + torch.nan, ValueError, "NaN or infinity"),
    ):
        with pytest.raises(error, match=re.escape(words)):
            walk(small, wrong)
    with pytest.raises(ValueError, match="train mode"):
        walk(load_detector().train(), image)
    with pytest.raises(TypeError, match="not ResNet"):
        walk(resnet18(), image)
    model = load_detector()
    model.backbone = nn.Sequential(nn.Conv2d(3, 64, 3))
    with pytest.raises(TypeError, match="with an FPN"):
        walk(model, image)


def test_nan_scores_say_where_they_arose():
    model = load_detector()
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.bias.fill_(torch.nan)
    with pytest.raises(ValueError, match="the box head"):
        walk(model, scenes(1, 1)[0][0])
    with torch.no_grad():
        model.rpn.head.cls_logits.bias.fill_(torch.nan)
    with pytest.raises(ValueError, match="the region proposal network"):
        walk(model, scenes(1, 1)[0][0])


def test_the_model_is_left_as_it_was():
    model = load_detector()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    walk(model, scenes(1, 1)[0][0])
    assert model.roi_heads.box_roi_pool.scales is None
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_what_moves_is_lost_and_new(small):
    walked = walk(small, scenes(2, 1)[1][0])
    before = walked.result["scores"][walked.result["scores"] >= 0.5]
    moved = replace(
        walked,
        proposals=walked.proposals + torch.tensor([2.0, 0, 2, 0]),
        result=walked.result | {"boxes": walked.result["boxes"] + 64},
    )
    assert changes([walked], [walked])[1:] == (0, len(before), 0, 0)
    counts = changes([walked], [moved])
    assert counts.boxes == counts.lost == counts.new > 0
    assert 0 < counts.moved <= counts.proposals
    nudged = replace(walked, proposals=walked.proposals + 0.5)
    assert changes([walked], [nudged]).moved == 0
    other = replace(walked, result=walked.result | {"labels": walked.result["labels"] % 3 + 1})
    assert changes([walked], [other]).lost == counts.boxes
    empty = {name: values[:0] for name, values in walked.result.items()}
    gone = replace(walked, proposals=walked.proposals[:0], result=empty, source=walked.source[:0])
    counts = changes([walked], [gone])
    assert (counts.moved, counts.lost, counts.new) == (counts.proposals, counts.boxes, 0)
    with pytest.raises(ValueError, match="shorter"):
        changes([walked], [])


def test_objects_are_found_the_way_that_their_boxes_came(small):
    image, target = scenes(18, 2018)[17]
    walked = walk(small, image)
    traced = origins(walked, target)
    assert len(traced) == len(target["labels"])
    sure = walked.result["scores"] >= 0.5
    taken = matches({k: v[sure] for k, v in walked.result.items()}, target)
    assert sum(origin.pooled_from is not None for origin in traced) == len(taken) > 0
    for detection, number in taken.items():
        proposal = walked.source[sure][detection]
        assert traced[number].pooled_from == walked.pooled_from[proposal]
        assert traced[number].proposed_by == walked.proposed_by[proposal]
        left, top, right, bottom = target["boxes"][number].tolist()
        assert traced[number].side == pytest.approx(((right - left) * (bottom - top)) ** 0.5)
    elsewhere = target | {"boxes": torch.tensor([[0.0, 0, 3, 3]]).repeat(len(traced), 1)}
    assert all(o.proposed_by is o.pooled_from is None for o in origins(walked, elsewhere))


def blurs(kernel: int) -> FasterRCNN:
    """A detector whose stages halve by a kernel of ones."""
    stages = nn.Sequential()
    stages.add_module("stem", nn.Conv2d(3, 3, 2, stride=2, bias=False))
    for number in range(1, 5):
        conv = nn.Conv2d(
            3, 3, kernel, stride=2, padding=kernel // 2 - (kernel % 2 == 0), bias=False
        )
        stages.add_module(f"layer{number}", conv)
    for conv in stages:
        nn.init.ones_(conv.weight)
    layers = {f"layer{k}": str(k - 1) for k in (1, 2, 3, 4)}
    return detector_on(BackboneWithFPN(stages, layers, [3] * 4, 8)).eval()


def test_kernels_of_ones_see_their_width():
    model, image = blurs(2), torch.full((3, 128, 128), 0.9)
    widths = effective_receptive_width(model, image, share=1.0)
    # Windows that do not overlap: a cell of stride s sees s pixels.
    assert [widths[f"C{level}"] for level in (2, 3, 4, 5)] == [4, 8, 16, 32]
    assert walk(model, image).result["boxes"].shape[1] == 4  # the head takes this pyramid's width


def test_a_larger_share_is_wider_and_levels_have_order():
    model, image = load_detector(), scenes(1, 2018)[0][0]
    half, most = (
        effective_receptive_width(model, image, 0.5),
        effective_receptive_width(model, image, 0.9),
    )
    assert list(half) == ["C2", "C3", "C4", "C5", "P2", "P3", "P4", "P5"]
    assert all(0 < half[level] <= most[level] <= 128 for level in half)
    assert most["C2"] < most["C3"] < most["C4"]

    assert all(p.grad is None for p in model.parameters()) and not model.training
