"""The pyramid explorer: pixels and words against the view, controls in step."""

import re
from dataclasses import replace

import numpy as np
import pytest
from frames import near, pixels, recorded, shown

from helpers.course.explorers import pyramid
from helpers.course.explorers.levels import BATCH, BATCHNORM, EPS_0, FROZEN, MEAN, PyramidState
from helpers.course.explorers.overlay import Collage
from helpers.course.explorers.pyramid import FIRST, PRESETS, SIDE, PyramidExplorer, picture
from helpers.figures import PIXELS, activation_map, difference_map
from helpers.networks.detector import load_detector


@pytest.fixture(scope="module")
def explorer():
    return PyramidExplorer(load_detector())


@pytest.fixture(scope="module")
def view(explorer):
    return lambda *state: explorer._levels.view(PyramidState(*state))


def panel(png, column, row):
    left, top = pyramid.LEFTS[column], (pyramid.TOP, pyramid.SECOND)[row]
    return pixels(png)[top : top + SIDE, left : left + SIDE]


def enlarged(image):
    return image.repeat(SIDE // len(image), 0).repeat(SIDE // len(image), 1)


def colored(colors, steps):
    """What a map of `steps` from 0 to 40 looks like in a panel."""
    return enlarged((colors(np.rint(steps.numpy()) / 40)[..., :3] * 255).round())


def test_the_panels_are_image_map_and_difference(view):
    for state in ((FIRST, "P3", MEAN, BATCH), (FIRST, "C5", 2, EPS_0)):
        seen = view(*state)
        png = picture(seen)
        assert pixels(png).shape == (pyramid.HEIGHT, PIXELS, 3) and len(png) <= 40_000
        share = (seen.map - seen.map.min()) / (seen.map.max() - seen.map.min())
        assert np.abs(panel(png, 0, 1) - colored(activation_map(), 40 * share)).max() <= 1
        share = seen.difference / seen.difference.abs().max()
        wanted = colored(difference_map(), 20 * share + 20)
        assert np.abs(panel(png, 1, 1) - wanted).max() <= 1
        wanted = enlarged((255 * seen.image.clamp(0, 1)).permute(1, 2, 0).numpy())
        drawn = panel(picture(replace(seen, boxes=[], truth=[])), 2, 0)
        assert np.abs(drawn - wanted).mean() < 8  # a palette holds fewer colors


def test_what_is_mere_rounding_is_an_empty_panel_without_digits(view, monkeypatch):
    calls = recorded(monkeypatch, Collage, "text")
    for kind, said in (
        (BATCHNORM, "this is it: nothing to subtract"),
        (FROZEN, "no larger than rounding (≤ 1e-5)"),
    ):
        png = picture(view(FIRST, "P3", MEAN, kind))
        assert near(panel(png, 1, 1), pyramid.EMPTY, 1).all()
        assert said in [args[3] for args in calls]


def test_boxes_have_the_color_and_the_name_of_their_level(view, monkeypatch):
    calls, seen = recorded(monkeypatch, Collage, "text"), view(FIRST, "P3")
    drawn = panel(picture(seen), 2, 0)
    for box in seen.boxes:
        left, top, _, bottom = (round(2 * value) for value in box.xyxy)
        column = drawn[top + 4 : bottom - 4, left : left + 2]
        assert near(column, pyramid.COLORS[box.pooled_from]).mean() > 0.5
        assert any(re.match(rf"\w+ P{box.pooled_from} \d+ %", args[3]) for args in calls)
    picture(replace(seen, boxes=[], proposals=seen.proposals[:0], pooled=0))
    words = [args[3] for args in calls]
    assert "dashed: truth, 3; none found" in words
    assert any("none to draw" in word for word in words)


def test_presets_and_controls_are_shown(explorer, view):
    def expected(state):
        return picture(view(*state)), view(*state).sentence()

    *presets, _ = explorer.frames
    assert [shown(frame) for frame in presets] == [*map(expected, PRESETS.values())]
    explorer.level.value, explorer.channel.value, explorer.kind.value = "P5", 7, EPS_0
    assert shown(explorer.frames[-1]) == expected((FIRST, "P5", 7, EPS_0))
    assert explorer.preset.value == "custom" and explorer.frames[:-1] == presets
    explorer.picture.value = "rocket"
    for index, state in enumerate(PRESETS.values()):  # they follow, and keep the picture
        explorer.preset.index = index
        assert explorer.state == state._replace(picture="rocket")
        assert shown(explorer.frames[index]) == expected(explorer.state)
