"""The batch explorer: numbers against torch, frames against picture(), controls in step."""

import asyncio
import base64
import html
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from helpers.batch_statistics import collect, crops
from helpers.course.explorers import batch as module
from helpers.course.explorers import live
from helpers.course.explorers.batch import (
    BAR,
    BOTTOM,
    HEIGHT,
    PRESETS,
    SIZES,
    BatchExplorer,
    BatchState,
    picture,
)
from helpers.figures import BLUE, ORANGE, PIXELS
from helpers.networks import backbones
from helpers.norms import freeze
from helpers.stages import STAGES

ALL = len(PRESETS)  # the index of "custom"


class Net(nn.Sequential):
    """Two stages; the stem's BatchNorm gets the images themselves."""

    def __init__(self):
        super().__init__()
        self.stem = nn.BatchNorm2d(3)
        self.layer1 = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.BatchNorm2d(3))


@pytest.fixture(scope="module")
def model():
    return backbones.load("resnet50", "stand-in")


@pytest.fixture(scope="module")
def found(model):
    return collect(model, crops())


@pytest.fixture(scope="module")
def into_channel_28(model):
    """What the first layer's channel 28 gets from each crop, (64,H,W): no layer is before it."""
    with torch.inference_mode():
        return model.conv1(crops())[:, 28].double()


@pytest.fixture(scope="module")
def lite0():
    return collect(backbones.load("lite0"), crops(64, 32))


@pytest.fixture
def explorer(found):
    return BatchExplorer(found)


def sentence_in(frame):
    return html.unescape(re.search(r'batch-sentence" role="status">(.*?)</div>', frame)[1])


def png_in(frame):
    return base64.b64decode(re.search(r"base64,([^\"]+)", frame)[1])


def shows(frame, state):
    png, sentence = picture(state)
    return png_in(frame) == png and sentence_in(frame) == sentence


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def near(image, color):
    rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return np.abs(image - rgb).sum(2) < 40


# The picture and its sentence


@pytest.mark.parametrize("size", SIZES)
def test_the_sentence_carries_the_numbers(found, model, into_channel_28, size):
    x, bn, channel = into_channel_28, model.bn1, 28
    pool = x.var().item()
    within, between = x.var((1, 2), correction=0).mean().item(), x.mean((1, 2)).var().item()
    n = size * x[0].numel()
    parts = [n / (n - 1) * part for part in (within, (1 - 1 / size) * between)]
    running = (bn.running_var[channel].item() + bn.eps) ** 0.5
    apart = []
    for chosen in found["stem"].batches(size):
        batch = x[chosen]
        trained = (batch - batch.mean()) / (batch.var(correction=0) + bn.eps).sqrt()
        evaluated = (batch - bn.running_mean[channel].item()) / running
        apart.append((trained - evaluated).square().mean().sqrt().item())
    sentence = picture(BatchState(found["stem"], channel, size))[1]
    share, total, inside, outside, stored = (int(n) for n in re.findall(r"(\d+) %", sentence))
    assert share == round(100 * between / (within + between))
    assert [total, inside, outside] == pytest.approx(
        [100 * part / pool for part in (sum(parts), *parts)], abs=0.51
    )
    assert stored == pytest.approx(100 * bn.running_var[channel].item() / pool, abs=0.51)
    assert f"With {size} image{'s' * (size > 1)} per batch, running_var goes to" in sentence
    part = f"{size - 1}/{size}" if size > 1 else "none"
    assert f"and {part} of what is between them" in sentence
    difference = float(re.search(r"in train mode is (\S+) \|weight\| off", sentence)[1])
    assert difference == pytest.approx(np.median(apart), rel=0.06)
    if size < 64:
        spread = float(re.search(r"spread by (\S+) running σ", sentence)[1])
        exact = (between * (1 / size - 1 / 64)) ** 0.5 / running
        assert spread == pytest.approx(exact, rel=0.06) and "median batch" in sentence
    else:
        assert "There is one such batch, and" in sentence and "median" not in sentence
    assert sentence.startswith("ResNet-50, stand-in weights, bn1, channel 28, of whose variance")


@pytest.mark.parametrize("stage", STAGES)
def test_the_picture_is_a_small_palette_png_on_white(found, lite0, stage):
    for network in (found, lite0):
        for size in SIZES:
            state = BatchState(network[stage], network[stage].most_between(), size)
            png, _ = picture(state)
            image = Image.open(io.BytesIO(png))
            assert (image.format, image.mode, image.size) == ("PNG", "P", (PIXELS, HEIGHT))
            assert image.convert("RGB").getpixel((1, 1)) == (255, 255, 255)
            assert len(png) <= 20_000


def test_the_bar_is_as_high_as_its_parts(found):
    def rows(size):
        image = pixels(picture(BatchState(found["stem"], 28, size))[0])
        bar = image[:BOTTOM, BAR[0] + 4 : BAR[1] - 3]
        return near(bar, BLUE).any(1).sum(), (near(bar, BLUE) | near(bar, ORANGE)).any(1).sum()

    stem = found["stem"].channel(28)
    full = rows(64)[1]
    for size in SIZES:
        blue, both = rows(size)
        wanted = stem.expected_running_var(size) / stem.expected_running_var(64)
        assert both / full == pytest.approx(wanted.item(), abs=0.02)
        wanted = stem.within * stem.unbiased(size) / stem.expected_running_var(64)
        assert blue / full == pytest.approx(wanted.item(), abs=0.02)


def test_only_the_data_move(found):
    """The ticks of all three panels are the same for every size and batch."""
    images = [pixels(picture(BatchState(found["stem"], 28, size))[0]) for size in SIZES]
    images.append(pixels(picture(BatchState(found["stem"], 28, 4, batch=3))[0]))
    for image in images[1:]:
        assert (image[BOTTOM + 11 :] == images[0][BOTTOM + 11 :]).all()  # below the panels
        assert (image[60:, 310 : BAR[0] - 6] == images[0][60:, 310 : BAR[0] - 6]).all()
        assert (image[120:, 570:600] == images[0][120:, 570:600]).all()


def test_the_axes_take_in_the_batches_of_all_sizes(found, lite0):
    for network in (found, lite0):
        for statistics in network.values():
            for choose in (statistics.most_between, statistics.least_between):
                one = statistics.channel(choose())
                reach = module._reach(one)
                for size in SIZES:
                    means, scales = module._normalized(one, one.batches(size))
                    assert np.abs(means).max() <= reach
                    assert scales.max() <= max(1 + 1.2 * reach, 2.4 * reach)


def test_the_typical_batch_is_drawn_first(found):
    one = found["stem"].channel(28)
    batches = one.batches(2)
    within = one.variances[batches, 0].mean(1) - one.within
    between = one.means[batches, 0].var(1) - one.between / 2
    assert one.typical(batches) == (within**2 + between**2).argmin()
    pngs = {picture(BatchState(found["stem"], 28, 2, number))[0] for number in range(5)}
    assert len(pngs) == 5
    assert picture(BatchState(found["stem"], 28, 2, 64)) == picture(
        BatchState(found["stem"], 28, 2)
    )


def test_labels_keep_apart_and_inside(found):
    for labels in (
        [(100.0, "a"), (101.0, "b"), (102.0, "c\nd"), (103.0, "e\nf")],
        [(330.0, "a"), (332.0, "b\nc"), (336.0, "d\ne"), (337.0, "f")],
    ):
        rows = module._apart(labels)
        heights = [9 + 8 * words.count("\n") for _, words in labels]
        gaps = np.diff(rows) - (np.array(heights[1:]) + heights[:-1])
        assert (gaps >= -1e-9).all() and rows[-1] + heights[-1] <= BOTTOM + 1e-9


def test_statistics_far_from_what_is_stored_are_drawn(found):
    """A network fed on another scale: what is stored lies far outside of the axes."""
    for scale in (1e-3, 300.0):
        off = collect(Net().eval(), crops(8, 32) * scale)
        for size in (1, 2, 8):
            png, sentence = picture(BatchState(off["stem"], 0, size))
            assert Image.open(io.BytesIO(png)).width == PIXELS and "nan" not in sentence


def test_what_cannot_be_shown_is_refused_in_one_sentence(found):
    with pytest.raises(ValueError, match="A batch size is a whole number from 1 to 64, not 65"):
        picture(BatchState(found["stem"], 0, 65))
    with pytest.raises(ValueError, match="bn1 has channels 0 to 63, not channel 64"):
        picture(BatchState(found["stem"], 64, 1))
    still = crops(4, 16)
    still[:, 1] = 0.5
    with pytest.raises(ValueError, match="Channel 1 of stem has one value in all pixels of all"):
        picture(BatchState(collect(Net(), still)["stem"], 1, 1))


def test_the_same_state_gives_the_same_bytes(found):
    states = [BatchState(found["layer3"], 5, size) for size in PRESETS]
    assert [picture(s) for s in states] == [picture(s) for s in states]


# The widget


def test_it_starts_at_the_channel_with_the_largest_between_image_share(explorer, found):
    shares = {stage: statistics.between_share.max() for stage, statistics in found.items()}
    assert explorer.stage.value == max(shares, key=shares.get) == "stem"
    assert explorer.channel.value == found["stem"].between_share.argmax() == 28
    assert explorer.state == BatchState(found["stem"], 28, 1, 0)


def test_the_presets_frames_are_the_pictures_of_the_presets(explorer, found):
    assert explorer.preset.options == ("1", "2", "8", "64", "custom")
    for size, frame in zip(PRESETS, explorer.frames, strict=False):
        assert shows(frame, BatchState(found["stem"], 28, size))
    assert "this frame shows it live" in explorer.frames[-1]
    assert len(set(explorer.frames)) == ALL + 1


def test_the_presets_switch_in_the_page_by_a_link(found, monkeypatch):
    links = []
    monkeypatch.setattr(module.W, "jslink", lambda *ends: links.append(ends))
    explorer = BatchExplorer(found)
    [((preset, index), (stack, selected))] = links
    assert (preset, index, selected) == (explorer.preset, "index", "selected_index")
    assert [child.value for child in stack.children] == explorer.frames
    assert stack.selected_index == preset.index == 0


def test_picking_a_preset_sets_the_slider_and_does_not_switch_to_custom(explorer, found):
    before = explorer.frames
    for index in (2, 3, 1, 0):
        explorer.preset.index = index
        assert explorer.size.value == PRESETS[index] and explorer.preset.index == index
        assert explorer.state == BatchState(found["stem"], 28, PRESETS[index], 0)
    assert explorer.frames == before


@pytest.mark.parametrize("size", SIZES[1:])
def test_the_slider_switches_to_custom_and_leaves_the_presets(explorer, found, size):
    presets = explorer.frames[:ALL]
    explorer.size.value = size
    assert explorer.preset.value == "custom" and explorer.frames[:ALL] == presets
    assert shows(explorer.frames[-1], BatchState(found["stem"], 28, size))


def test_choosing_custom_shows_what_the_controls_say(explorer):
    explorer.preset.index = 2
    explorer.preset.index = ALL
    assert explorer.frames[-1] == explorer.frames[2] and explorer.preset.index == ALL


def test_another_batch_and_back_to_the_typical_one(explorer, found):
    explorer.preset.index = 1
    for number in (1, 2):
        explorer.another.click()
        assert explorer.preset.value == "custom"
        assert shows(explorer.frames[-1], BatchState(found["stem"], 28, 2, number))
    explorer.size.value = 4
    assert shows(explorer.frames[-1], BatchState(found["stem"], 28, 4, 0))
    explorer.another.click()
    explorer.preset.index = 1
    assert explorer.state.batch == 0


def test_another_channel_switches_to_custom_and_the_presets_follow(explorer, found):
    explorer.preset.index = 1
    explorer.channel.value = 5
    assert explorer.preset.value == "custom" and explorer.size.value == 2
    assert explorer.frames[-1] == explorer.frames[1]
    for size, frame in zip(PRESETS, explorer.frames, strict=False):
        assert shows(frame, BatchState(found["stem"], 5, size))


def test_another_stage_starts_at_its_largest_share(explorer, found):
    for stage in ("layer4", "layer1", "stem"):
        explorer.stage.value = stage
        assert explorer.channel.max == found[stage].channels - 1
        assert explorer.channel.value == found[stage].most_between()
        for frame in (explorer.frames[0], explorer.frames[-1]):
            assert shows(frame, BatchState(found[stage], explorer.channel.value, 1))


def test_the_buttons_find_the_largest_and_the_smallest_share(explorer, found):
    explorer.stage.value = "layer2"
    shares = found["layer2"].between_share
    explorer.least.click()
    assert explorer.channel.value == shares.argmin() and explorer.preset.value == "custom"
    assert shows(explorer.frames[-1], BatchState(found["layer2"], int(shares.argmin()), 1))
    explorer.most.click()
    assert explorer.channel.value == shares.argmax()
    assert shows(explorer.frames[1], BatchState(found["layer2"], int(shares.argmax()), 2))


def test_of_a_burst_of_channels_the_presets_are_drawn_for_the_last_only(
    explorer, found, monkeypatch
):
    drawn = []
    monkeypatch.setattr(module, "picture", lambda state: drawn.append(state) or picture(state))

    async def burst():
        for channel in (3, 4, 5):
            explorer.channel.value = channel
        explorer.size.value = 16  # does not keep the presets from following
        await asyncio.sleep(4 * live.PATIENCE)

    asyncio.run(burst())
    assert [state.channel for state in drawn] == [3, 4, 5, 5, *[5] * ALL]
    assert shows(explorer.frames[2], BatchState(found["stem"], 5, 8))
    assert shows(explorer.frames[-1], BatchState(found["stem"], 5, 16))


def test_a_channel_beyond_the_last_is_the_last(explorer):
    explorer.channel.value = 10_000
    assert explorer.channel.value == 63 and "channel 63" in sentence_in(explorer.frames[-1])


@pytest.fixture
def half_dead():
    """Channel 1 of the stem stands still, and all of layer1 does."""
    net, images = Net().eval(), crops(64, 16)
    images[:, 1] = 0.5
    nn.init.zeros_(net.layer1[0].weight)
    return BatchExplorer(collect(net, images))


def test_a_channel_that_stands_still_is_said_and_the_last_picture_stays(half_dead):
    explorer = half_dead
    assert (explorer.stage.value, explorer.channel.value) != ("stem", 1)
    first = explorer.channel.value
    explorer.size.value = 4
    before = explorer.frames
    explorer.channel.value = 1
    assert "Not shown:" in explorer.message and "Channel 1 of stem has one" in explorer.message
    assert explorer.frames == before and explorer.preset.value == "custom"
    explorer.preset.index = 1  # the presets' frames are those of the channel before
    assert explorer.channel.value == first and "Not shown" not in explorer.message
    explorer.channel.value = 1
    explorer.channel.value = 2 - first
    assert "Not shown" not in explorer.message and explorer.frames != before


def test_a_stage_that_stands_still_is_said_and_the_old_one_stays(half_dead):
    before = half_dead.frames
    half_dead.stage.value = "layer1"
    assert "Every channel of layer1.1 has one value" in half_dead.message
    assert half_dead.stage.value == "stem" and half_dead.frames == before


def test_a_small_pool_has_the_sizes_that_fit(model):
    explorer = BatchExplorer(collect(Net(), crops(8, 16)))
    assert explorer.size.options == (1, 2, 4, 8)
    assert explorer.preset.options == ("1", "2", "8", "custom")


@pytest.mark.parametrize("name", ["resnet50", "lite0"])
def test_it_takes_the_name_of_a_network_or_the_network_itself(monkeypatch, found, lite0, name):
    known = {"resnet50": found, "lite0": lite0}
    asked = []
    monkeypatch.setattr(module, "load", lambda name: asked.append(name) or name)
    monkeypatch.setattr(module, "collect", lambda model, images: known[model])
    assert BatchExplorer(name)._found is known[name] and asked == [name]
    words = {"resnet50": "ResNet-50, stand-in", "lite0": "EfficientNet-Lite0, trained"}[name]
    assert f"{words} weights" in BatchExplorer(name).text


def test_a_given_model_runs_on_the_crops(found, model, explorer):
    assert BatchExplorer(model).frames == explorer.frames


@pytest.mark.parametrize(
    ("network", "error", "sentence"),
    [
        ("vgg", ValueError, "No network 'vgg' here: choose one of resnet50, lite0"),
        (3, TypeError, "must be a torch.nn.Module, not int"),
        (nn.Linear(2, 2), ValueError, "Linear has no stages"),
        (freeze(Net()), ValueError, "Net has no BatchNorm2d with running statistics"),
    ],
)
def test_a_network_with_nothing_to_show_is_refused_in_one_sentence(network, error, sentence):
    with pytest.raises(error, match=sentence):
        BatchExplorer(network)


def test_every_control_has_a_label(explorer):
    controls = ("preset", "size", "another", "stage", "channel", "most", "least")
    assert [getattr(explorer, name).description for name in controls] == [
        "batch size",
        "custom size",
        "another batch",
        "stage",
        "channel",
        "largest between-image share",
        "smallest between-image share",
    ]


def test_every_frame_takes_the_same_room(explorer):
    places = [re.findall(r'class="([^"]+)"', frame) for frame in explorer.frames]
    assert all(place == ["batch-picture", "batch-sentence"] for place in places)
    assert f"aspect-ratio: {PIXELS} / {HEIGHT}" in module.STYLE
    assert re.search(r"batch-sentence {[^}]* height: 7em", module.STYLE)


def test_the_output_carries_a_sentence_and_a_picture_for_where_widgets_cannot_run(
    explorer, monkeypatch
):
    shown = []
    monkeypatch.setattr(live, "display", lambda data, **options: shown.append((data, options)))
    explorer._ipython_display_()
    data, options = shown[0]
    presets = [sentence_in(frame) for frame in explorer.frames[: len(module.PRESETS)]]
    assert data["text/plain"].splitlines() == presets and len(set(presets)) == 4
    assert not re.search("0x|Model|IPY|object at", data["text/plain"])
    assert base64.b64decode(data["image/png"]) == png_in(explorer.frames[0])
    assert "application/vnd.jupyter.widget-view+json" in data and options["raw"]


def test_the_text_stays_that_of_the_presets_whatever_is_shown(explorer):
    before = explorer.text, explorer.png
    explorer.size.value = 16
    explorer.stage.value = "layer3"
    assert (explorer.text, explorer.png) == before


def test_no_control_runs_a_network(found, monkeypatch):
    explorer = BatchExplorer(found)
    monkeypatch.setattr(nn.Module, "__call__", lambda *_: pytest.fail("a network ran"))
    explorer.size.value = 8
    explorer.stage.value = "layer4"
    explorer.another.click()
    explorer.channel.value = 9
    assert explorer.message.count("Not shown") == 0
