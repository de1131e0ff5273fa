"""The batch explorer: numbers against torch, frames against picture(), controls in step."""

import asyncio
import re

import numpy as np
import pytest
import torch
from frames import pixels, recorded, shown
from torch import nn

from helpers.batch_statistics import collect, crops
from helpers.course.explorers import batch as module
from helpers.course.explorers import live
from helpers.course.explorers.batch import PRESETS, BatchExplorer
from helpers.course.explorers.batch_picture import HEIGHT, SIZES, BatchState, picture
from helpers.figures import PIXELS
from helpers.networks import backbones

CUSTOM = len(PRESETS)  # its index


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
def statistics(model, images):
    return collect(model, images)


@pytest.fixture
def explorer(statistics):
    return BatchExplorer(statistics)


def test_the_sentence_carries_the_numbers(statistics, model, images):
    channel, bn = 28, model.bn1
    with torch.inference_mode():
        x = model.conv1(images)[:, channel].double()  # no layer is before it
    pool, mean = x.var().item(), bn.running_mean[channel].item()
    within, between = x.var((1, 2), correction=0).mean().item(), x.mean((1, 2)).var().item()
    running = (bn.running_var[channel].item() + bn.eps) ** 0.5
    for size in SIZES:
        n = size * x[0].numel()
        parts = [n / (n - 1) * part for part in (within, (1 - 1 / size) * between)]
        apart = []
        for chosen in statistics["stem"].batches(size):
            batch = x[chosen]
            trained = (batch - batch.mean()) / (batch.var(correction=0) + bn.eps).sqrt()
            apart.append((trained - (batch - mean) / running).square().mean().sqrt().item())
        _, sentence = picture(BatchState(statistics["stem"], channel, size))
        share, *percents = (int(n) for n in re.findall(r"(\d+) %", sentence))
        assert share == round(100 * between / (within + between))
        wanted = [100 * part / pool for part in (sum(parts), *parts, running**2 - bn.eps)]
        assert percents == pytest.approx(wanted, abs=0.51)
        difference = float(re.search(r"in train mode is (\S+) \|weight\| off", sentence)[1])
        assert difference == pytest.approx(np.median(apart), rel=0.06)
        if size < len(images):
            spread = float(re.search(r"spread by (\S+) running σ", sentence)[1])
            exact = (between * (1 / size - 1 / len(images))) ** 0.5 / running
            assert spread == pytest.approx(exact, rel=0.06) and "median batch" in sentence
        else:
            assert "There is one such batch, and" in sentence and "median" not in sentence


def test_a_picture_is_a_small_palette_png_and_every_batch_another(statistics):
    for stage, one in statistics.items():
        png, _ = picture(BatchState(one, one.least_between(), 8))
        assert pixels(png).shape == (HEIGHT, PIXELS, 3) and len(png) <= 20_000, stage
    pngs = [picture(BatchState(statistics["stem"], 28, 2, number))[0] for number in (0, 1, 2, 64)]
    assert len(set(pngs)) == 3 and pngs[0] == pngs[3]  # after the last comes the first
    for scale in (1e-3, 300.0):  # what is stored lies far outside of the axes
        _, sentence = picture(BatchState(collect(Net(), crops(8, 32) * scale)["stem"], 0, 2))
        assert "nan" not in sentence


def test_the_presets_are_their_pictures_at_the_largest_share_and_set_the_controls(
    explorer, statistics
):
    shares = {stage: one.between_share.max() for stage, one in statistics.items()}
    stage = max(shares, key=shares.get)
    state = BatchState(statistics[stage], statistics[stage].between_share.argmax(), 1, 0)
    assert explorer.stage.value == stage and explorer.state == state
    before = explorer.frames
    for index in (2, 3, 1, 0):
        explorer.preset.index = index
        assert explorer.state == state._replace(size=PRESETS[index])
        assert explorer.preset.index == index and explorer.frames == before
        assert shown(before[index]) == picture(explorer.state)
        assert shown(before[index])[1] == explorer.text.splitlines()[index]


def test_controls_are_shown_as_custom_the_presets_follow_and_no_network_runs(
    explorer, statistics, monkeypatch
):
    monkeypatch.setattr(nn.Module, "__call__", lambda *_: pytest.fail("a network ran"))
    presets, one = explorer.frames[:CUSTOM], statistics["layer2"]
    explorer.size.value = 4
    explorer.another.click()
    assert explorer.state.batch == 1 and shown(explorer.frames[-1]) == picture(explorer.state)
    assert explorer.preset.value == "custom" and explorer.frames[:CUSTOM] == presets
    explorer.preset.index = 1
    explorer.stage.value = "layer2"
    assert explorer.state == BatchState(one, one.between_share.argmax(), 2, 0)
    explorer.least.click()
    assert explorer.state.channel == one.between_share.argmin()
    explorer.channel.value = 10_000
    assert explorer.state.channel == one.channels - 1
    for size, frame in zip((*PRESETS, 2), explorer.frames, strict=True):
        assert shown(frame) == picture(explorer.state._replace(size=size))


def test_of_a_burst_of_channels_the_presets_are_drawn_for_the_last_only(explorer, monkeypatch):
    drawn = recorded(monkeypatch, module, "picture")

    async def burst():
        for channel in (3, 4, 5):
            explorer.channel.value = channel
        explorer.size.value = 16  # does not keep the presets from following
        await asyncio.sleep(4 * live.PATIENCE)

    asyncio.run(burst())
    assert [state.channel for (state,) in drawn] == [3, 4, 5, 5, *[5] * CUSTOM]


def test_what_stands_still_is_said_and_the_last_picture_stays():
    net, images = Net().eval(), crops(64, 16)
    images[:, 1] = 0.5
    nn.init.zeros_(net.layer1[0].weight)
    explorer = BatchExplorer(collect(net, images))
    first, before = explorer.channel.value, explorer.frames
    assert explorer.stage.value == "stem" and first != 1
    explorer.channel.value = 1
    assert "Not shown:" in explorer.message and "Channel 1 of stem has one" in explorer.message
    assert explorer.frames == before
    explorer.preset.index = 1  # the presets' frames are those of the channel before
    assert explorer.channel.value == first and "Not shown" not in explorer.message
    explorer.stage.value = "layer1"
    assert "Every channel of layer1.1 has one value" in explorer.message
    assert explorer.stage.value == "stem" and explorer.frames == before
    explorer.channel.value = 2 - first
    assert "Not shown" not in explorer.message and explorer.frames != before
