"""helpers/audit/census.py: the census of the detection builders, and builders without values."""

import re
import warnings

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import WeightsEnum, get_model, list_models
from torchvision.models.detection import fasterrcnn_resnet50_fpn
from torchvision.ops import FrozenBatchNorm2d

from helpers.audit.census import (
    WIRINGS,
    Census,
    Count,
    build,
    census,
    counts,
    detection_builders,
    pretrains_the_backbone,
    without_values,
)


@pytest.fixture(autouse=True)
def no_download(monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("a download")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", refuse)


def frozen(layers, eps):
    return (Count(layers, "FrozenBatchNorm2d", eps, None),)


def batch_norm(layers, eps=1e-5, momentum=0.1):
    return (Count(layers, "BatchNorm2d", eps, momentum),)


HEADS = (Count(8, "GroupNorm", 1e-5, None),)
V1 = (frozen(53, 1e-5), batch_norm(53), frozen(53, 0.0))
WEIGHTS = ("default", "none", "coco")
MOBILE = (frozen(46, 1e-5), batch_norm(46), frozen(46, 1e-5))

# default arguments, both weights None, COCO weights: as counted by hand on torchvision 0.28
TABLE = {
    "fasterrcnn_resnet50_fpn": V1,
    "maskrcnn_resnet50_fpn": V1,
    "retinanet_resnet50_fpn": V1,
    "keypointrcnn_resnet50_fpn": V1,
    "fcos_resnet50_fpn": (
        frozen(53, 1e-5) + HEADS,
        batch_norm(53) + HEADS,
        frozen(53, 1e-5) + HEADS,
    ),
    "fasterrcnn_mobilenet_v3_large_fpn": MOBILE,
    "fasterrcnn_mobilenet_v3_large_320_fpn": MOBILE,
    "fasterrcnn_resnet50_fpn_v2": 3 * (batch_norm(65),),
    "maskrcnn_resnet50_fpn_v2": 3 * (batch_norm(69),),
    "retinanet_resnet50_fpn_v2": 3 * (batch_norm(53) + HEADS,),
    "ssd300_vgg16": 3 * ((),),
    "ssdlite320_mobilenet_v3_large": 3 * (batch_norm(70, 1e-3, 0.03),),
}


def test_the_census_of_the_detection_builders():
    family = census(FAMILIES)
    for builder in FAMILIES:
        row = tuple(family[builder, weights] for weights in WEIGHTS)
        assert row == TABLE[builder], builder


@pytest.mark.sweep
def test_the_census_has_every_detection_builder_and_no_other():
    whole = census()
    assert {builder for builder, _ in whole} == set(TABLE) == set(detection_builders())
    for builder, row in TABLE.items():
        assert tuple(whole[builder, weights] for weights in WEIGHTS) == row


# One builder for each row of TABLE that differs.
FAMILIES = [
    "fasterrcnn_resnet50_fpn",
    "fcos_resnet50_fpn",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "ssd300_vgg16",
    "ssdlite320_mobilenet_v3_large",
]


def test_the_older_keypoint_weights_were_trained_with_eps():
    assert counts(build("keypointrcnn_resnet50_fpn", "COCO_LEGACY")) == frozen(53, 1e-5)
    assert counts(build("keypointrcnn_resnet50_fpn", "COCO_V1")) == frozen(53, 0.0)


def test_the_census_reads_as_a_table_with_equal_rows_as_one():
    rows = {(builder, w): TABLE[builder][i] for builder in TABLE for i, w in enumerate(WEIGHTS)}
    text, html = repr(Census(rows)), Census(rows)._repr_html_()
    lines = [re.split(" {2,}", line) for line in text.splitlines()]
    assert lines[0] == ["builder", "default arguments", "no weights", "COCO weights"]
    (row,) = (number for number, line in enumerate(lines) if line[0] == "fasterrcnn_resnet50_fpn")
    assert lines[row][1:] == [
        "53 FrozenBatchNorm2d 1e-5",
        "53 BatchNorm2d 1e-5",
        "53 FrozenBatchNorm2d 0",
    ]
    assert [line[0] for line in lines[row + 1 : row + 4]] == list(TABLE)[1:4]
    assert "70 BatchNorm2d 1e-3, momentum 0.03" in text
    assert all(builder in text for builder in TABLE) and len(lines) <= 20
    assert html.count("<tr>") == 1 + len({*map(repr, TABLE.values())})
    assert "<br>8 GroupNorm 1e-5" in html


def test_a_builder_without_coco_weights_has_no_entry_for_them():
    two = census(["resnet18", "ssd300_vgg16"], ["coco", "none"])
    assert list(two) == [("resnet18", "none"), ("ssd300_vgg16", "coco"), ("ssd300_vgg16", "none")]
    assert two.table()[1] == ("resnet18", "20 BatchNorm2d 1e-5", "–")
    assert repr(Census()) == "builder"
    with pytest.raises(ValueError, match="torchvision has no model 'resnet5'"):
        census(["resnet5"], ["coco"])


# The models


FEW = ["googlenet", "regnet_y_400mf", "swin_t", "fcn_resnet50", "quantized_resnet18", "r3d_18"]


@pytest.mark.parametrize("names", [FEW, pytest.param(list_models(), marks=pytest.mark.sweep)])
def test_every_model_is_built_without_values(names):
    for name in names:
        for weights in ("pretrained", "none"):
            model = build(name, weights)
            assert all(t.is_meta for t in (*model.parameters(), *model.buffers())), name


def test_without_weights_it_is_what_the_builder_makes():
    real = get_model("retinanet_resnet50_fpn_v2", weights=None, weights_backbone=None)
    for weights in ("none", "default"):
        assert_same_wiring(real, build("retinanet_resnet50_fpn_v2", weights))


def test_with_weights_it_is_what_the_builder_makes(monkeypatch):
    """The real builder with a "download" of the right keys, on the CPU."""
    donor = get_model("resnet50", weights=None).state_dict()
    detector = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None).state_dict()
    detector = {k: t for k, t in detector.items() if not k.endswith("num_batches_tracked")}

    def download(url, **options):
        return dict(detector if "fasterrcnn" in url else donor)

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", download)
    real = fasterrcnn_resnet50_fpn()
    for weights in ("pretrained", "default"):
        assert_same_wiring(real, build("fasterrcnn_resnet50_fpn", weights))
    real = fasterrcnn_resnet50_fpn(weights="COCO_V1")
    assert_same_wiring(real, build("fasterrcnn_resnet50_fpn", "coco"))
    assert {m.eps for m in real.modules() if isinstance(m, FrozenBatchNorm2d)} == {0.0}
    real = get_model("fasterrcnn_resnet50_fpn_v2", weights_backbone="DEFAULT")
    assert_same_wiring(real, build("fasterrcnn_resnet50_fpn_v2", "pretrained"))


def assert_same_wiring(real, model):
    def wiring(model):
        tensors = [*model.named_parameters(), *model.named_buffers()]
        return (
            [(n, type(m), m.training, getattr(m, "eps", None)) for n, m in model.named_modules()],
            [(name, t.shape, t.dtype, t.requires_grad) for name, t in tensors],
        )

    assert wiring(real) == wiring(model)


def test_building_leaves_no_trace(monkeypatch):
    def fail(*args, **options):
        raise RuntimeError("no")

    def state():
        return torch.get_rng_state().tolist(), nn.Module.load_state_dict, WeightsEnum.get_state_dict

    before = state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("inception_v3", "googlenet"):
            build(name, "none")
    assert state() == before
    monkeypatch.setattr("helpers.audit.census.get_model_builder", lambda name: fail)
    with pytest.raises(RuntimeError, match="no"):
        build("resnet18", "default")
    assert state() == before and torch.zeros(1).device.type == "cpu"


def test_without_values_takes_any_builder():
    def draws():
        return nn.Sequential(nn.BatchNorm2d(len(torch.randperm(3).tolist())), nn.Conv2d(3, 3, 1))

    before = torch.get_rng_state()
    model = without_values(draws)
    assert counts(model) == batch_norm(1) and model[1].weight.is_meta
    assert torch.equal(torch.get_rng_state(), before)


def test_which_builders_pretrain_the_backbone_alone():
    assert pretrains_the_backbone("fasterrcnn_resnet50_fpn")
    assert pretrains_the_backbone("fasterrcnn_resnet50_fpn", "default")
    assert not pretrains_the_backbone("fasterrcnn_resnet50_fpn_v2", "default")
    assert not any(pretrains_the_backbone("fcos_resnet50_fpn", w) for w in ("none", "coco"))
    assert not any(pretrains_the_backbone("resnet50", weights) for weights in WIRINGS)


def test_what_does_not_exist_is_refused_in_one_sentence():
    for name, weights, sentence in [
        ("resnet5", "none", "torchvision has no model 'resnet5': did you mean resnet50 or "),
        ("Resnet50", "coco", "no model 'Resnet50': did you mean resnet50 or "),
        ("Xyz", "default", "torchvision has no model 'Xyz': see torchvision's list_models()"),
        ("resnet50", "coco", "resnet50 has no weights 'coco': choose one of pretrained, default, "),
        ("ssd300_vgg16", "V1", "no weights 'V1': .*none, COCO_V1, DEFAULT"),
        ("quantized_resnet18", "IMAGENET1K_FBGEMM_V1", "no weights .*none, DEFAULT"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            build(name, weights)
