"""What `make real-weights` writes, on substitutes for the weights that a server here hands out."""

import json
import math
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from torchvision import models
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_fpn

from data.results.real_weights import make
from helpers.audit.census import build
from helpers.course.stored import real_weights as stored
from helpers.inputs import photos
from helpers.networks.download import DownloadError, sha256_of
from helpers.norms import freeze, norm_layers

FROZEN, BN = "FrozenBatchNorm2d, eps ", "BatchNorm2d, eps "
KINDS = {
    "resnet50": (BN + "1e-05", FROZEN + "0.0"),
    "coco": (FROZEN + "0.0", FROZEN + "1e-05"),
    "mobilenet_v3": (BN + "0.001", FROZEN + "1e-05"),
}


class Handler(SimpleHTTPRequestHandler):
    """Counts the requests for files of the server's folder."""

    def __init__(self, *args):
        super().__init__(*args, directory=args[2].folder)

    def do_GET(self):
        self.server.asked.append(self.path)
        super().do_GET()

    def log_message(self, *_):
        pass


def substitute(name):
    """A state_dict with the names of the published one."""
    if name == "mobilenet_v3":
        return models.mobilenet_v3_large().state_dict()
    state = models.resnet50().state_dict()
    state = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    if name == "resnet50":
        return state
    body = {f"backbone.body.{k}": v for k, v in state.items() if not k.startswith("fc.")}
    return body | {"rpn.head.conv.weight": torch.ones(1), "backbone.fpn.x": torch.ones(1)}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.folder, server.asked, server.networks = folder, [], {}
        for name, network in make.NETWORKS.items():
            torch.save(substitute(name), path := folder / "new.pth")
            path = path.rename(folder / f"{name}-{sha256_of(path)[:8]}.pth")
            url = f"http://127.0.0.1:{server.server_port}/{path.name}"
            feed = partial(make.cropped, side=64)
            server.networks[name] = network._replace(url=url, feed=feed)
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(stored, "FOLDER", tmp_path)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def test_all_is_measured_once_and_read(server, tmp_path):
    make.main(tmp_path, server.networks, ("cat",))
    assert names(tmp_path) == sorted(f"{n}.{end}" for n in make.NETWORKS for end in ("json", "npz"))
    asked = len(server.asked)
    before = {n: (tmp_path / n).stat().st_mtime_ns for n in names(tmp_path)}
    make.main(tmp_path, server.networks, ("cat",))
    assert len(server.asked) == asked == 3
    assert before == {n: (tmp_path / n).stat().st_mtime_ns for n in names(tmp_path)}
    for name, (trained, detector) in KINDS.items():
        found, path = (
            stored.real_weights(name),
            server.folder / make.cached(server.networks[name].url)[0].name,
        )
        assert found.about["sha256"] == sha256_of(path)
        assert (found.about["trained"], found.about["detector"]) == ([trained], [detector])
        for row in found.effects:
            assert row["photo"] == "cat" and len(row["shape"]) == 4
            effect, *rounding = (row[of] for of in stored.OFF)
            assert 0 <= max(rounding) < effect < 0.1, (name, row)
        assert list(found.largest().values())[-1][0] == found.effects[-1]["effect"]
        state = torch.load(path, weights_only=True)
        of_body = "backbone.body." if name == "coco" else "features." * (name == "mobilenet_v3")
        held = np.load(tmp_path / f"{name}.npz")
        for what in ("running_var", "weight"):
            values = [state[f"{of_body}{layer}.{what}"].numpy() for layer in held["layers"]]
            assert np.array_equal(held[what], np.concatenate(values))
            assert held["sizes"].tolist() == [*map(len, values)]
    assert len(held["layers"]) == 46 and tuple(KINDS) == stored.NETWORKS
    assert [row["point"] for row in found.effects] == ["0", "2", "4", "7", "13", "16"]
    strides = [64 // row["shape"][-1] for row in found.effects]
    assert strides == [2, 4, 8, 16, 32, 32]


def test_an_interruption_leaves_whole_files_and_the_next_call_goes_on(
    server, tmp_path, monkeypatch
):
    few = {name: server.networks[name] for name in ("mobilenet_v3", "resnet50")}
    measured = []

    def effects(network, pair, names):
        measured.append(network.url)
        if network.pair is make.classifier and len(measured) == 2:
            raise KeyboardInterrupt
        return []

    monkeypatch.setattr(make, "effects", effects)
    with pytest.raises(KeyboardInterrupt):
        make.main(tmp_path, few, ("cat",))
    assert names(tmp_path) == ["mobilenet_v3.json", "mobilenet_v3.npz", "resnet50.npz"]
    assert stored.real_weights("resnet50") is None and stored.real_weights("mobilenet_v3")
    make.main(tmp_path, few, ("cat",))
    assert measured == [few["mobilenet_v3"].url, *[few["resnet50"].url] * 2]
    (tmp_path / "mobilenet_v3.npz").write_bytes(b"cut off")
    with pytest.raises(RuntimeError, match="missing or altered: delete .*`make real-weights`"):
        stored.real_weights("mobilenet_v3")
    make.main(tmp_path, few, ("cat",))
    assert len(measured) == 4 and stored.real_weights("mobilenet_v3")
    (tmp_path / "resnet50.json").write_text('{"about": {}')
    assert not make.is_done("resnet50", few["resnet50"], tmp_path)


def test_another_file_than_the_published_one_is_not_measured(server, tmp_path):
    network = server.networks["mobilenet_v3"]
    path = server.folder / "mobilenet_v3-00000000.pth"
    shutil.copyfile(server.folder / network.url.rpartition("/")[2], path)
    url = f"{network.url.rpartition('/')[0]}/{path.name}"
    with pytest.raises(DownloadError, match="sent another file"):
        make.main(tmp_path, {"mobilenet_v3": network._replace(url=url)}, ("cat",))
    assert names(tmp_path) == []


def test_the_addresses_are_torchvisions_and_carry_a_hash():
    begins = {name: make.cached(network.url)[1] for name, network in make.NETWORKS.items()}
    assert begins == {"resnet50": "0676ba61", "coco": "258fb6c6", "mobilenet_v3": "8738ca79"}


def test_nothing_finite_is_null_and_read_as_nan(tmp_path):
    model = models.resnet18().eval()
    with torch.no_grad():
        model.conv1.weight[3], model.bn1.running_var[3] = 0, 0
    network = make.Network("", make.classifier, partial(make.cropped, side=64))
    rows = make.effects(network, (model, freeze(model, 0.0)), ("cat", "rocket"))
    assert len(rows) == 10 and all(row["effect"] is None for row in rows)
    assert all(row["rounding"] < 1e-4 and row["rounding_detector"] is None for row in rows)
    effects = json.loads(json.dumps(rows))
    effect, rounding = stored.RealWeights({}, effects).largest()["layer4"]
    assert math.isnan(effect) and math.isnan(rounding)


def test_the_networks_are_fed_as_torchvision_feeds_them():
    detector = build(make.MOBILENET)
    real = fasterrcnn_mobilenet_v3_large_fpn(weights=None, weights_backbone=None)
    for photo in ("cat", "astronaut"):
        given = real.transform(list(photos.load(photo, None)))[0].tensors
        assert torch.equal(make.NETWORKS["mobilenet_v3"].feed(photo), given)
        assert 800 <= min(given.shape[2:]) < 832
    assert make.NETWORKS["coco"].feed("cat").shape == (1, 3, 800, 1216)
    assert make.NETWORKS["resnet50"].feed("cat").shape == (1, 3, 224, 224)
    assert len(norm_layers(detector.backbone.body)) == 46


def test_what_was_not_measured_is_none():
    assert stored.real_weights("coco") is None
    with pytest.raises(ValueError, match="choose one of resnet50, coco, mobilenet_v3"):
        stored.real_weights("lite0")
