"""The BatchExplorer: its numbers against torch, its batches, its bad input, what it ships."""

import base64
import json
import re

import numpy as np
import pytest
import torch
from torch import nn

from helpers.batch_statistics import collect, crops
from helpers.course.explorers.batch import BatchExplorer, orders
from helpers.networks import backbones


class Net(nn.Sequential):
    """Two stages; the stem's BatchNorm gets the images themselves."""

    def __init__(self):
        super().__init__()
        self.stem = nn.BatchNorm2d(3)
        self.layer1 = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.BatchNorm2d(3))


@pytest.fixture(scope="module")
def images():
    return crops(64, 32)


@pytest.fixture(scope="module")
def model():
    return backbones.load("resnet50")


@pytest.fixture(scope="module")
def explorer(model, images):
    return BatchExplorer(collect(model, images), images)


def test_the_sentence_is_the_law_of_total_variance(explorer, model, images):
    with torch.inference_mode():
        x = model.conv1(images).double()  # no layer is before it
    channel = explorer.channel if explorer.stage == "stem" else 28
    x = x[:, channel]
    within, between = x.var((1, 2), correction=0).mean().item(), x.mean((1, 2)).var().item()
    for size in (1, 2, 17, 64):
        n = size * x[0].numel()
        parts = [n / (n - 1) * part for part in (within, (1 - 1 / size) * between)]
        state = explorer.state | {"size": size, "stage": "stem", "channel": channel}
        frame = explorer.draw(state)
        said = [int(number) for number in re.findall(r"(\d+)(?= %| of \d+ %)", frame["sentence"])]
        wanted = [100 * part / (within + between) for part in (*parts, between)]
        assert said == pytest.approx(wanted, abs=0.51)
        headline = int(re.search(r"\d+", frame["headline"])[0])
        assert headline == pytest.approx(100 * sum(parts) / (within + between), abs=0.51)


def test_it_ships_the_channels_and_images_that_the_page_computes_with(explorer, images):
    stages, shipped = collect(backbones.load("resnet50"), images), explorer.data["channels"]
    for stage, one in stages.items():
        numbers = [channel["channel"] for channel in shipped[stage]]
        assert len(numbers) == 8 and numbers[0] == one.most_between()
        assert numbers[-1] == one.between_share.argmin()
        channel = shipped[stage][0]
        assert channel["means"] == pytest.approx(one.means[:, numbers[0]], rel=5e-4)  # four digits
        bins = np.frombuffer(base64.b64decode(channel["histograms"]), np.uint8)
        assert bins.reshape(64, -1).any(1).all()
    assert len(explorer.data["thumbnails"]) == 64
    assert len(json.dumps([explorer.data, explorer.spec, explorer.presets])) <= 230_000
    assert all(one["frame"] is None for one in explorer.presets)
    shares = {stage: one.between_share.max() for stage, one in stages.items()}
    assert explorer.stage == max(shares, key=shares.get)


def test_a_batch_grows_by_one_image_and_alone_each_image_counts_once():
    rows = orders(64)
    assert (rows[:, 0] == np.arange(64)).all()
    assert (np.sort(rows, 1) == np.arange(64)).all()
    assert orders(3).shape == (3, 3) and orders(100).shape == (64, 100)


def test_presets_end_with_all_images_and_a_stage_brings_its_channel(images, monkeypatch):
    explorer = BatchExplorer(collect(Net().eval(), images[:10]), images[:10])
    monkeypatch.setattr(nn.Module, "__call__", lambda *_: pytest.fail("a network ran"))
    assert [one["state"]["size"] for one in explorer.presets] == [1, 2, 8, 10]
    explorer.stage = "layer1"
    assert explorer.channel == explorer.data["channels"]["layer1"][0]["channel"]
    for changes in ({}, {"size": 10}, {"channel": 0, "batch": 9}):
        frame = explorer.draw(explorer.state | changes)
        assert "nan" not in frame["sentence"] and frame["one"]["reach"] > 0
        assert explorer.panels(explorer.state | changes, frame)


def test_what_cannot_be_shown_is_said_in_one_sentence(explorer, images):
    still = images.clone()
    still[:, 1] = 0.5
    net = Net().eval()
    nn.init.zeros_(net.layer1[0].weight)
    constant = BatchExplorer(collect(net, still), still)
    assert constant.stage == "stem" and constant.data["channels"]["layer1"] == []
    for shown, changes, words in (
        (explorer, {"stage": "head"}, "No stage 'head' here: choose one of stem, layer1"),
        (explorer, {"size": 65}, "A batch size is a whole number from 1 to 64"),
        (explorer, {"batch": 64}, "There are batches 0 to 63, not 64"),
        (explorer, {"stage": "stem", "channel": 64}, "bn1 has channels 0 to 63, not channel 64"),
        (constant, {"channel": 1}, "Channel 1 of stem has one value in all pixels"),
        (constant, {"stage": "layer1", "channel": 0}, "choose another"),
    ):
        with pytest.raises(ValueError, match=words):
            shown.draw(shown.state | changes)
    with pytest.raises(ValueError, match="are of 64 images, not of 8"):
        BatchExplorer(collect(Net().eval(), images), images[:8])
