"""The scaling explorer: frames against picture(), pixels against the view, controls in step."""

import asyncio
import base64
import html
import io
import re
from dataclasses import replace

import ipywidgets as W
import numpy as np
import pytest
import torch
from PIL import Image

from helpers.course.explorers import live
from helpers.course.explorers import scaling as module
from helpers.course.explorers.feeding import PRESETS, Box, Feeding, ScalingState, formats, pictures
from helpers.course.explorers.overlay import TAG, Collage, Tags
from helpers.course.explorers.scaling import (
    FALSE,
    FILL,
    FIRST,
    HEIGHT,
    PHOTO,
    THIRD,
    TOP,
    TRACK,
    ScalingExplorer,
    picture,
)
from helpers.figures import BLUE, ORANGE, PIXELS
from helpers.networks.detector import detector

ALL = len(PRESETS)  # the index of "custom"
EMITTED = list(PRESETS.values())


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return detector().eval()


@pytest.fixture(scope="module")
def feeding(model):
    return Feeding(model)


@pytest.fixture
def explorer(model):
    return ScalingExplorer(model)


def sentence_in(frame):
    return html.unescape(re.search(r'scaling-sentence" role="status">(.*?)</div>', frame)[1])


def png_in(frame):
    return base64.b64decode(re.search(r"base64,([^\"]+)", frame)[1])


def shows(frame, feeding, state):
    view = feeding.view(state)
    return png_in(frame) == picture(view) and sentence_in(frame) == view.sentence()


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def near(image, color):
    rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return np.abs(image - rgb).sum(2) < 12


def widgets(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from widgets(child)


# The picture


@pytest.mark.parametrize("name", ["scene 0", "scene 4", "astronaut"])
def test_the_picture_is_a_small_palette_png_on_white(feeding, name):
    for emitted in EMITTED:
        png = picture(feeding.view(ScalingState(name, emitted)))
        image = Image.open(io.BytesIO(png))
        assert (image.format, image.mode, image.size) == ("PNG", "P", (PIXELS, HEIGHT))
        assert image.convert("RGB").getpixel((1, 1)) == (255, 255, 255)
        assert len(png) <= 35_000


@pytest.mark.parametrize("emitted", [*EMITTED, "divided twice", "keras-caffe"])
def test_the_image_is_what_is_fed_clipped_to_0_1(feeding, emitted):
    view = replace(feeding.view(ScalingState("scene 0", emitted)), boxes=[], truth=[])
    drawn = pixels(picture(view))[TOP : TOP + 384, PHOTO : PHOTO + 384]
    wanted = (255 * view.fed.clamp(0, 1)).permute(1, 2, 0).numpy()
    wanted = wanted.repeat(3, 0).repeat(3, 1)
    assert np.abs(drawn - wanted).mean() < 6  # a palette holds fewer colors


def test_boxes_are_drawn_where_they_are(feeding):
    view = feeding.view(ScalingState("scene 0", "0-255"))
    found, wrong = Box((20, 30, 60, 80), 1, 0.9, True), Box((70, 40, 100, 90), 2, 0.8, False)
    view = replace(view, boxes=[found, wrong], truth=[])
    image = pixels(picture(view))
    for box, color in ((found, BLUE), (wrong, FALSE)):
        left, top, right, bottom = (3 * value for value in box.xyxy)
        inked = near(image[TOP : TOP + 384, PHOTO : PHOTO + 384], color)
        assert (
            inked[top : top + 2, left:right].all() and inked[bottom - 2 : bottom, left:right].all()
        )
        assert inked[top:bottom, left : left + 2].all()
        assert inked[top:bottom, right - 2 : right].all()
        inked[top - 16 : bottom, left : left + 130] = False  # the label
        assert not inked.any()


def test_labels_hide_no_other_label_and_stay_in_the_image(feeding):
    view, limits = feeding.view(ScalingState("scene 0")), (PHOTO, TOP, PHOTO + 384, TOP + 384)
    tags = Tags(Collage(HEIGHT, np.zeros((1, 3), int)), limits)
    for box in [(60, 90, 180, 240), (66, 90, 192, 240), (60, 87, 180, 237), (330, 0, 384, 384)]:
        left, top, right, bottom = box
        placed = (PHOTO + left, TOP + top, PHOTO + right, TOP + bottom)
        tags.add(placed, "triangle 100 % ✓", BLUE, "white")
    for i, (left, right, top) in enumerate(tags.taken):
        assert PHOTO <= left < right <= PHOTO + 384 and TOP <= top <= TOP + 384 - TAG
        for start, stop, other in tags.taken[:i]:
            assert abs(top - other) >= TAG or left >= stop or start >= right
    assert len(tags.taken) == 4
    assert len(picture(replace(view, boxes=view.boxes * 3))) > 0


def test_what_is_found_what_is_false_and_what_is_missed_is_said_in_words(feeding, monkeypatch):
    words = []
    monkeypatch.setattr(Collage, "text", lambda *args, **_: words.append(args[3]))
    view = feeding.view(ScalingState("scene 0", "0-255"))
    box = (20.0, 30.0, 60.0, 80.0)
    boxes = [Box(box, 1, 0.97, True), Box(box, 2, 0.6, False)]
    truth = [Box(box, 1, 1.0, True), Box(box, 3, 1.0, False)]
    picture(replace(view, boxes=boxes, truth=truth))
    said = {"square 97 % ✓", "disc 60 % ✗", "missed: triangle", "missed: square"}
    assert said & set(words) == said - {"missed: square"}
    assert {"found: 1 ✓", "false: 1 ✗", "truth: 2", "emitted as 0-255, taken for 0-1"} <= set(words)
    words.clear()
    picture(replace(view, boxes=boxes * 10, truth=None))
    assert "square 97 %" in words and "detected: 20 (a photo has no truth)" in words
    assert sum(w.startswith("square 97") for w in words) < 10  # the best few
    assert any("drawn as 0 or 1; the best 12 boxes" in w for w in words)


def test_the_bars_are_as_long_as_the_logarithm(feeding):
    view = feeding.view(ScalingState("scene 0", "keras-tf"))
    relative = dict(zip(view.rows, (0.0, 1e-6, 1e-2, 3.0, 1e6), strict=True))
    rows = {stage: row._replace(relative=relative[stage]) for stage, row in view.rows.items()}
    image = pixels(picture(replace(view, rows=rows)))
    left, right = TRACK
    for number, value in enumerate(relative.values()):
        y = THIRD + 46 + 20 * number + 5
        wanted = (right - left) * min(max(np.log10(max(value, 1e-9)) + 3, 0), 6) / 6
        # the line at 1 covers two pixels
        assert near(image[y : y + 1], ORANGE).sum() == pytest.approx(wanted, abs=4)


def test_mere_rounding_has_no_bar_and_no_digits(feeding, monkeypatch):
    words = []
    draw = Collage.text
    monkeypatch.setattr(Collage, "text", lambda *a, **k: words.append(a[3]) or draw(*a, **k))
    image = pixels(picture(feeding.view(ScalingState("scene 0", "detectron", "detectron"))))
    assert words.count("≤ 1e-5") == 5 and not near(image[THIRD:], ORANGE).any()


def test_the_histograms_are_drawn_over_their_limits(feeding):
    view = feeding.view(ScalingState("scene 0", "0-255"))
    image = pixels(picture(view))
    filled = near(image[TOP : TOP + module.PLOT, module.LEFT : module.RIGHT], FILL)
    shares = view.entering.fed.numpy()
    width = (module.RIGHT - module.LEFT) / len(shares)
    for number in (10, 30, 60, 70):
        column = int((number + 0.5) * width)
        wanted = module.PLOT * shares[number] / shares.max()
        assert filled[:, column].sum() == pytest.approx(wanted, abs=1.6)


def test_the_same_view_gives_the_same_bytes(feeding):
    views = [feeding.view(ScalingState("coffee", emitted)) for emitted in EMITTED]
    assert [picture(v) for v in views] == [picture(v) for v in views]


# The widget


def test_the_presets_frames_are_the_pictures_of_the_presets(explorer, feeding):
    assert explorer.preset.options == (*PRESETS, "custom")
    for emitted, frame in zip(EMITTED, explorer.frames, strict=False):
        assert shows(frame, feeding, ScalingState(FIRST, emitted, "0-1"))
    assert "this frame shows it live" in explorer.frames[-1]
    assert len(set(explorer.frames)) == ALL + 1


def test_the_presets_switch_in_the_page_by_a_link(model, monkeypatch):
    links = []
    monkeypatch.setattr(module.W, "jslink", lambda *ends: links.append(ends))
    explorer = ScalingExplorer(model)
    [((preset, index), (stack, selected))] = links
    assert (preset, index, selected) == (explorer.preset, "index", "selected_index")
    assert [child.value for child in stack.children] == explorer.frames
    assert stack.selected_index == preset.index == 0


def test_picking_a_preset_sets_the_formats_and_does_not_switch_to_custom(explorer):
    before = explorer.frames
    for index in (2, 5, 1, 0):
        explorer.preset.index = index
        assert explorer.state == ScalingState(FIRST, EMITTED[index], "0-1")
        assert explorer.preset.index == index
    assert explorer.frames == before


def test_picking_a_preset_undoes_what_the_network_is_told(explorer):
    explorer.expected.value = "gluoncv"
    explorer.preset.index = 4
    assert explorer.state == ScalingState(FIRST, "BGR", "0-1")


def test_a_format_switches_to_custom_and_leaves_the_presets(explorer, feeding):
    presets = explorer.frames[:ALL]
    explorer.emitted.value = "detectron2"
    assert shows(explorer.frames[-1], feeding, ScalingState(FIRST, "detectron2", "0-1"))
    explorer.expected.value = "torchvision"
    assert shows(explorer.frames[-1], feeding, ScalingState(FIRST, "detectron2", "torchvision"))
    assert explorer.preset.value == "custom" and explorer.frames[:ALL] == presets


def test_choosing_custom_shows_what_the_controls_say(explorer):
    explorer.preset.index = 2
    explorer.preset.index = ALL
    assert explorer.frames[-1] == explorer.frames[2] and explorer.preset.index == ALL


def test_another_picture_switches_to_custom_and_the_presets_follow(explorer, feeding):
    explorer.preset.index = 1
    for name in ("scene 3", "rocket"):
        explorer.picture.value = name
        assert explorer.preset.value == "custom" and explorer.frames[-1] == explorer.frames[1]
        for emitted, frame in zip(EMITTED, explorer.frames, strict=False):
            assert shows(frame, feeding, ScalingState(name, emitted))


def test_a_change_costs_one_forward_pass(model, monkeypatch):
    explorer = ScalingExplorer(model)
    ran, forward = [], model.forward
    monkeypatch.setattr(model, "forward", lambda images: ran.extend(images) or forward(images))
    explorer.emitted.value = "BGR"
    explorer.expected.value = "keras-tf"
    assert len(ran) == 2
    explorer.preset.index = 3
    assert len(ran) == 2
    monkeypatch.setattr(explorer, "_follow", lambda: None)
    explorer.picture.value = "scene 7"
    assert len(ran) == 3


def test_after_another_picture_the_presets_follow_one_pass_at_a_time(explorer, monkeypatch):
    drawn, draw = [], explorer._picture_of
    monkeypatch.setattr(explorer, "_picture_of", lambda state: drawn.append(state) or draw(state))

    async def run():
        explorer.picture.value = "scene 6"
        explorer.picture.value = "scene 2"  # the first is stale
        while len(drawn) < 3:
            await asyncio.sleep(live.PATIENCE / 4)
        assert len(drawn) == 3  # one at a time
        explorer.preset.index = 4  # jumps the queue
        explorer.emitted.value = "gluoncv"
        while len(drawn) < ALL + 2:
            await asyncio.sleep(live.PATIENCE / 4)
        await asyncio.sleep(4 * live.PATIENCE)

    asyncio.run(asyncio.wait_for(run(), 60))
    assert {state.picture for state in drawn} == {"scene 2"} and len(drawn) == ALL + 2
    assert explorer._pictured == ["scene 2"] * ALL
    assert drawn[3] == ScalingState("scene 2", "gluoncv", "0-1")


def test_a_preset_picked_before_it_followed_is_drawn_next(explorer, monkeypatch):
    drawn, draw = [], explorer._picture_of
    monkeypatch.setattr(explorer, "_picture_of", lambda state: drawn.append(state) or draw(state))

    async def run():
        explorer.picture.value = "scene 6"
        while not drawn:
            await asyncio.sleep(live.PATIENCE / 4)
        explorer.preset.index = 4
        await asyncio.sleep(live.PATIENCE)
        while len(drawn) < ALL + 1:
            await asyncio.sleep(live.PATIENCE / 4)

    asyncio.run(asyncio.wait_for(run(), 60))
    assert drawn[1] == ScalingState("scene 6", "BGR") and explorer.preset.index == 4


def test_of_a_burst_of_formats_the_last_one_wins(explorer, monkeypatch):
    drawn, draw = [], explorer._picture_of
    monkeypatch.setattr(explorer, "_picture_of", lambda state: drawn.append(state) or draw(state))

    async def burst():
        for name in ("BGR", "halved", "keras-tf"):
            explorer.emitted.value = name
        await asyncio.sleep(4 * live.PATIENCE)

    asyncio.run(burst())
    assert drawn == [ScalingState(FIRST, "keras-tf")]


def test_maps_that_are_not_finite_are_said_and_the_last_picture_stays(explorer, monkeypatch):
    explorer.emitted.value = "detectron"
    before = explorer.frames
    [view] = [explorer._feeding.view]

    def broken(state):
        if state.emitted == "halved":
            raise ValueError("It <halved> gives maps that are not finite.")
        return view(state)

    monkeypatch.setattr(explorer._feeding, "view", broken)
    explorer.emitted.value = "halved"
    assert "Not shown:" in explorer.message and "&lt;halved&gt; gives maps" in explorer.message
    assert explorer.frames == before and explorer.preset.value == "custom"
    explorer.preset.index = 1
    assert "Not shown" not in explorer.message
    explorer.emitted.value = "halved"
    explorer.emitted.value = "BGR"
    assert "Not shown" not in explorer.message and explorer.frames != before
    explorer.picture.value = "scene 6"  # the preset cannot follow: it is said, and drawing ends
    assert "&lt;halved&gt; gives maps" in explorer.message and explorer.frames[2] == before[2]


def test_every_control_has_a_label_and_every_choice_is_there(explorer):
    for widget in widgets(explorer.box):
        if isinstance(widget, W.Dropdown | W.ToggleButtons):
            assert widget.description
    assert explorer.emitted.options == explorer.expected.options == tuple(formats())
    assert explorer.picture.options == tuple(pictures())


def test_every_frame_takes_the_same_room(explorer):
    places = [re.findall(r'class="([^"]+)"', frame) for frame in explorer.frames]
    assert all(place == ["scaling-picture", "scaling-sentence"] for place in places)
    style = explorer.box.children[0].value
    assert f"aspect-ratio: {PIXELS} / {HEIGHT}" in style
    assert re.search(r"scaling-sentence {[^}]* height: 5.6em", style)


def test_the_output_carries_sentences_and_a_picture_for_where_widgets_cannot_run(
    explorer, monkeypatch
):
    shown = []
    monkeypatch.setattr(live, "display", lambda data, **options: shown.append((data, options)))
    explorer._ipython_display_()
    data, options = shown[0]
    wanted = [f"{n}: {sentence_in(f)}" for n, f in zip(PRESETS, explorer.frames, strict=False)]
    assert data["text/plain"].splitlines() == wanted and len(set(wanted)) == ALL
    assert not re.search("0x|Model|IPY|object at", data["text/plain"])
    assert base64.b64decode(data["image/png"]) == png_in(explorer.frames[0])
    assert "application/vnd.jupyter.widget-view+json" in data and options["raw"]


def test_the_text_stays_that_of_the_presets_whatever_is_shown(explorer):
    before = explorer.text, explorer.png
    explorer.picture.value = "cat"
    explorer.emitted.value = "keras-tf"
    assert (explorer.text, explorer.png) == before


def test_the_detector_is_loaded_if_none_is_given(model, monkeypatch):
    asked = []
    monkeypatch.setattr(module, "load_detector", lambda: asked.append(1) or model)
    assert ScalingExplorer()._feeding._model is model and asked == [1]
    ScalingExplorer(model)
    assert asked == [1]
    with pytest.raises(TypeError, match="a FasterRCNN, not Linear"):
        ScalingExplorer(torch.nn.Linear(1, 1))


def test_missing_weights_are_one_sentence(monkeypatch):
    def missing():
        raise RuntimeError("The detector's weights (detector.pt) are missing or altered.")

    monkeypatch.setattr(module, "load_detector", missing)
    with pytest.raises(RuntimeError, match="are missing or altered"):
        ScalingExplorer()
