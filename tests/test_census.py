"""helpers/audit/census.py: builders without values have the layers that were counted by hand."""

import threading
import warnings
from collections import Counter

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import WeightsEnum, get_model, list_models
from torchvision.models.detection import fasterrcnn_resnet50_fpn
from torchvision.ops import FrozenBatchNorm2d

from helpers.audit.census import build, choices, without_values
from helpers.probe import norm_layers, told_eps
from helpers.text import short


@pytest.fixture(autouse=True)
def no_download(monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("a download")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", refuse)


HEADS = "8 GroupNorm 1e-5"
V1 = ("53 FrozenBatchNorm2d 1e-5", "53 BatchNorm2d 1e-5", "53 FrozenBatchNorm2d 0")
MOBILE = ("46 FrozenBatchNorm2d 1e-5", "46 BatchNorm2d 1e-5", "46 FrozenBatchNorm2d 1e-5")

# default arguments, both weights None, COCO weights: as counted by hand on torchvision 0.28
TABLE = {
    "fasterrcnn_resnet50_fpn": V1,
    "maskrcnn_resnet50_fpn": V1,
    "retinanet_resnet50_fpn": V1,
    "keypointrcnn_resnet50_fpn": V1,
    "fcos_resnet50_fpn": tuple(f"{kind}\n{HEADS}" for kind in (V1[0], V1[1], V1[0])),
    "fasterrcnn_mobilenet_v3_large_fpn": MOBILE,
    "fasterrcnn_mobilenet_v3_large_320_fpn": MOBILE,
    "fasterrcnn_resnet50_fpn_v2": 3 * ("65 BatchNorm2d 1e-5",),
    "maskrcnn_resnet50_fpn_v2": 3 * ("69 BatchNorm2d 1e-5",),
    "retinanet_resnet50_fpn_v2": 3 * (f"53 BatchNorm2d 1e-5\n{HEADS}",),
    "ssd300_vgg16": 3 * ("none",),
    "ssdlite320_mobilenet_v3_large": 3 * ("70 BatchNorm2d 1e-3, momentum 0.03",),
}


def counts(model: nn.Module) -> tuple[str, ...]:
    """Count the normalization layers: "53 FrozenBatchNorm2d 1e-5", and momentum if not 0.1."""

    def kind(layer: nn.Module) -> str:
        eps, momentum = told_eps(layer), getattr(layer, "momentum", None)
        said = type(layer).__name__ + ("" if eps is None else f" {short(eps)}")
        return said + ("" if momentum in (None, 0.1) else f", momentum {short(momentum)}")

    kinds = Counter(map(kind, norm_layers(model).values()))
    return tuple(f"{number} {kind}" for kind, number in kinds.items())


def census(names):
    """Name → what a builder makes with default arguments, without weights, and for COCO's."""
    wirings = ("default", "none", "coco")
    return {n: tuple("\n".join(counts(build(n, w))) or "none" for w in wirings) for n in names}


# One builder for each row of TABLE that differs, and one of two that are alike.
FAMILIES = [
    "fasterrcnn_resnet50_fpn",
    "keypointrcnn_resnet50_fpn",
    "fcos_resnet50_fpn",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "ssd300_vgg16",
    "ssdlite320_mobilenet_v3_large",
]


@pytest.mark.parametrize("names", [FAMILIES, pytest.param([*TABLE], marks=pytest.mark.sweep)])
def test_the_census_of_the_detection_builders(names):
    assert census(names) == {name: TABLE[name] for name in names}
    assert {*TABLE} == {*list_models(module=torchvision.models.detection)}


def test_the_older_keypoint_weights_were_trained_with_eps():
    assert counts(build("keypointrcnn_resnet50_fpn", "COCO_LEGACY")) == (
        "53 FrozenBatchNorm2d 1e-5",
    )
    assert counts(build("keypointrcnn_resnet50_fpn", "COCO_V1")) == ("53 FrozenBatchNorm2d 0",)


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


def test_building_leaves_no_trace_and_takes_place_in_threads():
    """Nothing process-wide is patched: two builds that overlap, and a network loaded meanwhile."""

    def state():
        return torch.get_rng_state().tolist(), nn.Module.load_state_dict, WeightsEnum.get_state_dict

    def work(name):
        built[name] = counts(build(name, "default"))

    before, built = state(), {}
    names = ("fasterrcnn_resnet50_fpn", "fcos_resnet50_fpn")
    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert nn.Module.load_state_dict is before[1]
        assert torch.zeros(1).device.type == "cpu"
        layer = nn.Linear(2, 2)
        layer.load_state_dict({"weight": torch.ones(2, 2), "bias": torch.ones(2)})
        assert layer.weight.eq(1).all()
    assert {name: "\n".join(built[name]) for name in names} == {n: TABLE[n][0] for n in names}
    assert nn.Module.load_state_dict is before[1] and WeightsEnum.get_state_dict is before[2]
    before = state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("inception_v3", "googlenet"):
            build(name, "none")
    assert state() == before


def test_without_values_takes_any_builder():
    def draws():
        return nn.Sequential(nn.BatchNorm2d(len(torch.randperm(3).tolist())), nn.Conv2d(3, 3, 1))

    before = torch.get_rng_state()
    model = without_values(draws)
    assert counts(model) == ("1 BatchNorm2d 1e-5",) and model[1].weight.is_meta
    assert torch.equal(torch.get_rng_state(), before)


def test_which_builders_pretrain_the_backbone_alone():
    for name, weights, alone in (
        ("fasterrcnn_resnet50_fpn", "pretrained", True),
        ("fasterrcnn_resnet50_fpn", "default", True),
        ("fasterrcnn_resnet50_fpn_v2", "default", False),
        ("fcos_resnet50_fpn", "none", False),
        ("fcos_resnet50_fpn", "coco", False),
        ("resnet50", "pretrained", False),
    ):
        assert bool(choices(name)[weights].get("weights_backbone")) == alone


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
