"""What `make real-weights` writes, on substitutes for the published weights."""

import json
import math
import shutil
from functools import partial

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
def published(tmp_path_factory):
    """The folder of the substitutes, and the networks that have their addresses there."""
    folder, networks = tmp_path_factory.mktemp("published"), {}
    for name, network in make.NETWORKS.items():
        torch.save(substitute(name), path := folder / "new.pth")
        path = path.rename(folder / f"{name}-{sha256_of(path)[:8]}.pth")
        feed = partial(make.cropped, side=64)
        networks[name] = network._replace(url=f"https://host/{path.name}", feed=feed)
    return folder, networks


@pytest.fixture
def asked(published, monkeypatch):
    """The addresses fetched; the files are served without a network."""
    asked = []

    def serve(self, url, output, pooch):
        asked.append(url)
        shutil.copyfile(published[0] / url.rpartition("/")[2], output)

    monkeypatch.setattr("pooch.HTTPDownloader.__call__", serve)
    return asked


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(stored, "FOLDER", tmp_path)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def test_all_is_measured_once_and_read(published, asked, tmp_path):
    folder, networks = published
    make.main(tmp_path, networks, ("cat",))
    assert names(tmp_path) == sorted(f"{n}.{end}" for n in make.NETWORKS for end in ("json", "npz"))
    before = {n: (tmp_path / n).stat().st_mtime_ns for n in names(tmp_path)}
    make.main(tmp_path, networks, ("cat",))
    assert len(asked) == 3
    assert before == {n: (tmp_path / n).stat().st_mtime_ns for n in names(tmp_path)}
    for name, (trained, detector) in KINDS.items():
        found, path = stored.real_weights(name), folder / networks[name].url.rpartition("/")[2]
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
    published, asked, tmp_path, monkeypatch
):
    few = {name: published[1][name] for name in ("mobilenet_v3", "resnet50")}
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


def test_another_file_than_the_published_one_is_not_measured(published, asked, tmp_path):
    folder, networks = published
    shutil.copyfile(next(folder.glob("mobilenet*")), folder / "other-00000000.pth")
    network = networks["mobilenet_v3"]._replace(url="https://host/other-00000000.pth")
    with pytest.raises(DownloadError, match="sent another file"):
        make.main(tmp_path, {"mobilenet_v3": network}, ("cat",))
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
