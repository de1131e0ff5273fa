"""The pyramid explorer: frames against picture(), pixels against the view, controls in step."""

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

from helpers.course.explorers.canvas import font
from helpers.course.explorers.levels import (
    BATCH,
    BATCHNORM,
    EPS_0,
    FROZEN,
    LEVELS,
    MEAN,
    YOURS,
    Levels,
    PyramidState,
)
from helpers.course.explorers.overlay import Collage
from helpers.course.explorers.pyramid import (
    COLORS,
    EMPTY,
    FIRST,
    HEIGHT,
    LEFTS,
    PRESETS,
    SECOND,
    SIDE,
    TOP,
    PyramidExplorer,
    picture,
)
from helpers.figures import PIXELS, activation_map, difference_map
from helpers.networks.detector import load_detector

ALL = len(PRESETS)


@pytest.fixture(scope="module")
def levels():
    return Levels(load_detector())


@pytest.fixture
def explorer():
    return PyramidExplorer(load_detector())


def sentence_in(frame):
    return html.unescape(re.search(r'pyramid-sentence" role="status">(.*?)</div>', frame)[1])


def png_in(frame):
    return base64.b64decode(re.search(r"base64,([^\"]+)", frame)[1])


def shows(frame, levels, state):
    view = levels.view(state)
    return png_in(frame) == picture(view) and sentence_in(frame) == view.sentence()


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def rgb(color):
    return np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])


def panel(png, column, row):
    top = (TOP, SECOND)[row]
    return pixels(png)[top : top + SIDE, LEFTS[column] : LEFTS[column] + SIDE]


@pytest.mark.parametrize("state", [*PRESETS.values(), PyramidState("cat", "P5", 3, EPS_0)], ids=str)
def test_the_picture_is_a_small_palette_png_on_white(levels, state):
    png = picture(levels.view(state))
    image = Image.open(io.BytesIO(png))
    assert (image.format, image.mode, image.size) == ("PNG", "P", (PIXELS, HEIGHT))
    for corner in ((0, 0), (PIXELS - 1, HEIGHT - 1), (LEFTS[1] - 3, TOP + 9)):
        assert image.convert("RGB").getpixel(corner) == (255, 255, 255)
    assert len(png) <= 40_000


def test_the_image_lies_below_its_boxes(levels):
    view = replace(levels.view(PyramidState(FIRST, "P3")), boxes=[], truth=[])
    drawn = panel(picture(view), 2, 0)
    wanted = (255 * view.image.clamp(0, 1)).permute(1, 2, 0).numpy().repeat(2, 0).repeat(2, 1)
    assert np.abs(drawn - wanted).mean() < 8  # a palette holds fewer colors


@pytest.mark.parametrize("level", ["C2", "C5", "P3", "P6"])
@pytest.mark.parametrize("channel", [MEAN, 2])
def test_the_map_is_the_levels_from_dark_to_bright(levels, level, channel):
    view = levels.view(PyramidState(FIRST, level, channel))
    share = ((view.map - view.map.min()) / (view.map.max() - view.map.min())).numpy()
    wanted = (activation_map()(np.rint(40 * share) / 40)[..., :3] * 255).round()
    factor = SIDE // len(wanted)
    drawn = panel(picture(view), 0, 1)
    assert np.abs(drawn - wanted.repeat(factor, 0).repeat(factor, 1)).max() <= 1


def test_the_difference_is_white_where_there_is_none_and_has_signs(levels):
    view = levels.view(PyramidState(FIRST, "P3", MEAN, BATCH))
    share = (view.difference / view.difference.abs().max()).numpy()
    wanted = (difference_map()(np.rint(20 * share + 20) / 40)[..., :3] * 255).round()
    drawn = panel(picture(view), 1, 1)
    assert np.abs(drawn - wanted.repeat(16, 0).repeat(16, 1)).max() <= 1


@pytest.mark.parametrize("kind", [BATCHNORM, FROZEN])
def test_what_is_mere_rounding_is_an_empty_panel_without_digits(levels, kind, monkeypatch):
    words, draw = [], Collage.text
    monkeypatch.setattr(Collage, "text", lambda *a, **k: words.append(a[3]) or draw(*a, **k))
    png = picture(levels.view(PyramidState(FIRST, "P3", MEAN, kind)))
    assert (panel(png, 1, 1) == rgb(EMPTY)).all()
    said = "nothing to subtract" if kind == BATCHNORM else "no larger than rounding (≤ 1e-5)"
    assert any(said in word for word in words)


def test_boxes_have_the_color_and_the_name_of_their_level(levels, monkeypatch):
    words, draw = [], Collage.text
    monkeypatch.setattr(Collage, "text", lambda *a, **k: words.append(a[3]) or draw(*a, **k))
    view = levels.view(PyramidState(FIRST, "P3"))
    drawn = panel(picture(view), 2, 0)
    for box in view.boxes:
        left, top, right, bottom = (round(2 * value) for value in box.xyxy)
        column = drawn[top + 4 : bottom - 4, left : left + 2]
        assert (np.abs(column - rgb(COLORS[box.pooled_from])).sum(2) < 12).mean() > 0.5
        assert any(re.match(rf"\w+ P{box.pooled_from} \d+ %", word) for word in words)


def test_no_words_leave_the_picture_or_touch_the_next_column(levels, monkeypatch):
    placed, draw = [], Collage.text

    def text(canvas, x, y, words, anchor="lm", size=13, color=""):
        placed.append((x, y, words, size))
        draw(canvas, x, y, words, anchor, size)

    monkeypatch.setattr(Collage, "text", text)
    for state in (
        *PRESETS.values(),
        *(
            PyramidState(name, level, 15, BATCH)
            for name in ("scene 5", "rocket")
            for level in LEVELS
        ),
    ):
        placed.clear()
        picture(levels.view(state))
        for x, y, words, size in placed:
            ends = x + font(size).getlength(words)
            limit = next((left for left in (*LEFTS[1:], PIXELS) if left > x), PIXELS)
            if y < TOP or SECOND - 45 < y < SECOND:  # the titles
                assert ends < limit, (state, words)
            assert ends <= PIXELS, (state, words)


def test_nothing_found_is_an_empty_labelled_picture(levels, monkeypatch):
    words, draw = [], Collage.text
    monkeypatch.setattr(Collage, "text", lambda *a, **k: words.append(a[3]) or draw(*a, **k))
    view = levels.view(PyramidState(FIRST, "P3"))
    picture(replace(view, boxes=[], proposals=view.proposals[:0], pooled=0))
    assert "dashed: truth, 3; none found" in words
    assert any("none to draw" in word for word in words)


# The widgets


def test_each_preset_shows_its_level_and_the_last_frame_waits(explorer, levels):
    for frame, state in zip(explorer.frames, PRESETS.values(), strict=False):
        assert shows(frame, levels, state)
    assert "this frame shows it live" in explorer.frames[-1]
    assert len(set(explorer.frames)) == ALL + 1
    lines = explorer.text.splitlines()
    assert [line.split(": ")[0] for line in lines] == list(PRESETS)
    assert explorer.png == png_in(explorer.frames[0])


def test_a_preset_sets_the_controls_and_keeps_the_picture(explorer):
    explorer.picture.value = "scene 4"
    for index, state in enumerate(PRESETS.values()):
        explorer.preset.index = index
        assert explorer.state == state._replace(picture="scene 4")
        assert explorer.preset.index == index


def test_a_control_switches_to_custom(explorer, levels):
    presets = explorer.frames[:ALL]
    explorer.level.value = "P5"
    explorer.channel.value = 7
    explorer.kind.value = EPS_0
    assert shows(explorer.frames[-1], levels, PyramidState(FIRST, "P5", 7, EPS_0))
    assert explorer.preset.value == "custom" and explorer.frames[:ALL] == presets


def test_the_presets_follow_another_picture(explorer, levels):
    explorer.picture.value = "rocket"
    for frame, state in zip(explorer.frames, PRESETS.values(), strict=False):
        assert shows(frame, levels, state._replace(picture="rocket"))


def test_what_is_not_finite_is_said_and_the_last_picture_stays(explorer):
    explorer.level.value = "P5"
    before = explorer.frames
    broken = explorer._levels._models[BATCH]
    broken.roi_heads.box_predictor = torch.nn.Module()
    nan = torch.full((100, 4), torch.nan), torch.full((100, 16), torch.nan)
    broken.roi_heads.box_predictor.forward = lambda x: nan
    explorer._levels._walks.clear()
    explorer.kind.value = BATCH
    assert "Not shown:" in explorer.message and "comes out of the box head" in explorer.message
    assert explorer.frames == before
    explorer.kind.value = EPS_0
    assert "Not shown" not in explorer.message and explorer.frames != before


def test_a_readers_own_image_comes_first():
    explorer = PyramidExplorer(load_detector(), torch.rand(1, 3, 40, 90))
    assert explorer.picture.value == YOURS
    assert all(line.split(": ", 1)[1].startswith("yours, ") for line in explorer.text.splitlines())


def test_every_control_has_a_label_and_every_choice_is_there(explorer):
    def widgets(widget):
        yield widget
        for child in getattr(widget, "children", ()):
            yield from widgets(child)

    for widget in widgets(explorer.box):
        if isinstance(widget, W.Dropdown | W.ToggleButtons):
            assert widget.description
    assert explorer.level.options == LEVELS
    assert explorer.picture.options == tuple(explorer._levels.pictures)
