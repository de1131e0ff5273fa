"""The NormExplorer's controls, frames and messages, without a browser (that is in browser/)."""

import asyncio
import base64
import io
import re
from datetime import UTC, datetime

import ipywidgets as W
import numpy as np
import pytest
from PIL import Image
from traitlets import Bunch

from helpers.course.explorers import live, norm
from helpers.course.explorers.norm import NormExplorer, frame
from helpers.course.explorers.side_by_side import PRESETS, NormState, Side, view
from helpers.inputs import photos
from helpers.networks import backbones
from helpers.norms import KINDS

CUSTOM = len(PRESETS)
FIRST = next(iter(PRESETS.values()))


@pytest.fixture
def explorer():
    return NormExplorer()


def pictures(html):
    return [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
        for data in re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    ]


def widgets(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from widgets(child)


def test_presets_are_frames_linked_in_the_page(explorer):
    stack = explorer._stack
    for child, state in zip(stack.children, PRESETS.values(), strict=False):
        assert child.value == frame(state, view(state, photos.load(state.photo)))
    assert explorer.preset.options == (*PRESETS, "custom")
    assert len(stack.children) == CUSTOM + 1 and stack.selected_index == 0


def test_picking_a_preset_sets_the_controls_and_draws_nothing(explorer):
    untouched = explorer.frame
    for index, state in enumerate(PRESETS.values()):
        explorer.preset.index = index
        assert explorer.state == state and explorer.preset.index == index
    assert explorer.frame == untouched


def test_every_control_draws_the_live_frame_of_what_the_controls_say(explorer):
    a, b = explorer.sides.values()
    for change in (
        lambda: setattr(explorer.photo, "value", "coffee"),
        lambda: setattr(explorer.stage, "value", "layer3"),
        lambda: setattr(explorer.mean, "value", False),
        lambda: setattr(explorer.channel, "value", 5),
        lambda: setattr(b.kinds[3], "value", "identity"),
        lambda: setattr(a.every, "value", "frozen"),
        lambda: setattr(a.kinds[0], "value", "batch statistics"),
    ):
        explorer.preset.index = 1
        change()
        state = explorer.state
        assert explorer.preset.index == CUSTOM and "Not shown" not in explorer.message
        assert explorer.frame == frame(state, view(state, photos.load(state.photo)))
    assert explorer.state.photo == "cat"  # the last preset had set the controls


def test_changing_the_network_needs_both_sides(explorer):
    a, b = explorer.sides.values()
    explorer.preset.index = 1
    before = explorer.frame
    a.network.value = "Lite0"
    assert "Lite0 and ResNet-50 have feature maps of different shape" in explorer.message
    assert explorer.frame == before and explorer.preset.index == 1
    b.network.value = "Lite0"
    assert "Not shown" not in explorer.message and explorer.preset.index == CUSTOM


def test_all_stages_follows_and_leads(explorer):
    side = explorer.sides["b"]
    side.every.value = "identity"
    assert side.value == Side.all("ResNet-50", "identity")
    side.kinds[2].value = "frozen"
    assert side.every.value == norm.MIXED
    side.kinds[2].value = "identity"
    assert side.every.value == "identity"


def test_nan_is_a_sentence_and_the_last_good_picture_stays(explorer):
    explorer.preset.index = 4
    explorer.stage.value = "layer2"
    before = explorer.frame
    explorer.sides["b"].every.value = "frozen, eps 0"
    assert "B is NaN from stem on" in explorer.message and explorer.frame == before
    explorer.sides["b"].every.value = "frozen"
    assert "Not shown" not in explorer.message and explorer.frame != before


def test_the_channel_that_differs_most_is_one_click_away(explorer):
    explorer.preset.index = 0
    explorer.largest.click()
    seen = view(FIRST, photos.load("cat"))
    assert explorer.state.channel == seen.largest and explorer.preset.index == CUSTOM
    assert f"channel {seen.largest}" in explorer.frame


def test_a_channel_beyond_the_stage_is_a_sentence(explorer):
    explorer.stage.value = "layer4"
    explorer.mean.value = False
    explorer.channel.value = 2000
    explorer.stage.value = "stem"
    assert "stem has channels 0 to 63, not 2000" in explorer.message
    explorer.channel.value = 3
    assert "Not shown" not in explorer.message and "channel 3" in explorer.frame


def upload(explorer, content, name="photo.png"):
    now = datetime.now(UTC)
    file = Bunch(name=name, type="", size=len(content), content=content, last_modified=now)
    explorer.upload.value = (file,)


def test_an_uploaded_photo_is_shown(explorer):
    file = io.BytesIO()
    Image.new("RGB", (300, 200), "teal").save(file, "png")
    upload(explorer, file.getvalue())
    name = explorer.photo.value
    assert name.startswith(norm.UPLOADED) and explorer.preset.index == CUSTOM
    state = explorer.state
    assert explorer.frame == frame(state, view(state, photos.load(file.getvalue())))
    explorer.preset.index = 0
    assert explorer.state.photo == "cat" and name in explorer.photo.options


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "is empty"), (b"hello", "is not a JPEG"), (b"\x89PNG\r\n", "")]
)
def test_a_bad_upload_is_a_sentence_and_the_last_good_picture_stays(explorer, content, words):
    explorer.stage.value = "layer2"
    before, state = explorer.frame, explorer.state
    upload(explorer, content)
    assert "Not shown:</strong> The uploaded file" in explorer.message
    assert words in explorer.message and explorer.frame == before and explorer.state == state


def test_of_a_burst_of_events_the_last_one_wins(explorer, monkeypatch):
    drawn = []
    monkeypatch.setattr(NormExplorer, "draw", lambda self: drawn.append(self.state.stage))

    async def burst():
        for stage in ("layer1", "layer2", "layer3", "layer4"):
            explorer.stage.value = stage
        await asyncio.sleep(5 * live.PATIENCE)

    asyncio.run(burst())
    assert drawn == ["layer4"]


def test_a_frame_shows_the_maps_on_one_scale_and_says_the_range():
    state = PRESETS["December 2020"]
    seen = view(state, photos.load("cat"))
    html = frame(state, seen)
    a, b, difference = pictures(html)
    assert a.shape == b.shape == difference.shape == (56, 56, 3)  # the page enlarges
    row = seen.rows["layer4"]
    for number in (max(seen.a.max(), seen.b.max()), (seen.a - seen.b).abs().max()):
        assert norm.short(number.item()) in html
    assert f"{norm.short(row.relative)} of max|A|" in html and seen.sentence in html
    assert "layer1 ◂" in html and html.count('alt="') == 3


def test_mere_rounding_is_blank_and_has_no_digits():
    state = PRESETS["Today"]
    seen = view(state, photos.load("cat"))
    html = frame(state, seen)
    difference = pictures(html)[2]
    assert "rounding at most: blank" in html and html.count("≤ 1e-5 of max|A|") == 5
    assert difference.min() > 180  # nothing but near-white


def test_the_bars_are_logarithmic_with_a_floor():
    widths = [
        float(
            re.search(r"width: ([\d.]+)%", norm._row("stem", norm.Row((1,), r, r, r, 1e-5), 0))[1]
        )
        for r in (0.0, 1e-9, 1e-8, 1e-5, 1e-2, 10.0, 1e6)
    ]
    assert widths == [0, 0, 0, 33.3, 66.7, 100, 100]


def test_the_output_has_words_and_a_static_picture(explorer, monkeypatch):
    shown = []
    monkeypatch.setattr(norm, "display", lambda data, raw: shown.append(data))
    explorer._ipython_display_()
    (data,) = shown
    image = Image.open(io.BytesIO(data["image/png"]))
    assert image.mode == "P" and image.width == 800
    assert data["text/plain"].count("\n") == len(PRESETS) and "model" not in data["text/plain"]
    assert "application/vnd.jupyter.widget-view+json" in data


def test_every_control_has_a_label_and_every_kind_can_be_chosen(explorer):
    for widget in widgets(explorer.box):
        if isinstance(widget, W.Dropdown | W.BoundedIntText | W.Checkbox | W.Button | W.FileUpload):
            assert widget.description
    assert explorer.sides["a"].kinds[0].options == KINDS


def test_the_state_of_a_new_explorer_is_the_first_preset(explorer):
    assert explorer.state == FIRST and isinstance(explorer.state, NormState)


def test_networks_at_hand_are_used_and_not_loaded_again(monkeypatch):
    given = {"ResNet-50": backbones.load("resnet50"), "Lite0": backbones.load("lite0")}
    monkeypatch.setattr(norm, "variants", None)
    explorer = NormExplorer(given)
    assert explorer._given["ResNet-50"].original["layer4"] is given["ResNet-50"].layer4
    with pytest.raises(ValueError, match="No network 'VGG' here: ResNet-50, Lite0"):
        NormExplorer({"VGG": given["Lite0"]})
