"""The scaling explorer: frames against picture(), pixels against the view, controls in step."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from frames import near, pixels, recorded, shown

from helpers.course.explorers import live
from helpers.course.explorers import scaling as module
from helpers.course.explorers.feeding import PRESETS, Box, Feeding, ScalingState
from helpers.course.explorers.overlay import Collage
from helpers.course.explorers.scaling import FIRST, PHOTO, TOP, ScalingExplorer, picture
from helpers.figures import BLUE, ORANGE, PIXELS
from helpers.networks.detector import load_detector

CUSTOM = len(PRESETS)  # its index
EMITTED = list(PRESETS.values())


@pytest.fixture(scope="module")
def feeding():
    feeding = Feeding(load_detector())
    feeding.warm()
    return feeding


@pytest.fixture
def explorer(feeding, monkeypatch):
    monkeypatch.setattr(module, "Feeding", lambda model: feeding)  # warm already
    return ScalingExplorer(feeding._model)


@pytest.fixture
def expected(feeding):
    def expected(*state):
        view = feeding.view(ScalingState(*state))
        return picture(view), view.sentence()

    return expected


def image_in(view):
    return pixels(picture(view))[TOP : TOP + 384, PHOTO : PHOTO + 384]


def test_the_picture_is_a_small_palette_png_of_what_is_fed_with_its_boxes(feeding):
    for state in (ScalingState("scene 0", "0-255"), ScalingState("astronaut", "torchvision")):
        view = feeding.view(state)
        png = picture(view)
        assert pixels(png).shape == (module.HEIGHT, PIXELS, 3) and len(png) <= 35_000
        drawn = image_in(replace(view, boxes=[], truth=[]))
        wanted = (255 * view.fed.clamp(0, 1)).permute(1, 2, 0).numpy().repeat(3, 0).repeat(3, 1)
        assert np.abs(drawn - wanted).mean() < 6  # a palette holds fewer colors
    boxes = [Box((20, 30, 60, 80), 1, 0.9, True), Box((70, 40, 100, 90), 2, 0.8, False)]
    drawn = image_in(replace(feeding.view(ScalingState("scene 0", "0-255")), boxes=boxes, truth=[]))
    for box, color in zip(boxes, (BLUE, module.FALSE), strict=True):
        left, top, right, bottom = (3 * value for value in box.xyxy)
        inked = near(drawn, color)
        assert inked[bottom - 2 : bottom, left:right].all() and inked[top:bottom, left].all()
        inked[top - 16 : bottom, left : left + 130] = False  # the label
        assert not inked.any()


def test_what_is_matched_what_is_false_and_what_is_missed_is_said(feeding, monkeypatch):
    view, words = feeding.view(ScalingState("scene 0", "0-255")), []
    monkeypatch.setattr(Collage, "text", lambda *args, **_: words.append(args[3]))
    xyxy = (20.0, 30.0, 60.0, 80.0)
    boxes = [Box(xyxy, 1, 0.97, True), Box(xyxy, 2, 0.6, False)]
    picture(replace(view, boxes=boxes, truth=[boxes[0], Box(xyxy, 3, 1.0, False)]))
    assert {"square 97 % ✓", "disc 60 % ✗", "missed: triangle"} <= set(words)
    assert {"found: 1 ✓", "false: 1 ✗", "truth: 2"} <= set(words) - {"missed: square"} == set(words)
    words.clear()
    picture(replace(view, boxes=boxes * 10, truth=None))
    assert words.count("square 97 %") == words.count("disc 60 %") == 6  # the best twelve
    assert "detected: 20 (a photo has no truth)" in words


def test_the_bars_are_as_long_as_the_logarithm_and_rounding_has_no_digits(feeding, monkeypatch):
    view = feeding.view(ScalingState("scene 0", "keras-tf"))
    relative = dict(zip(view.rows, (0.0, 1e-6, 1e-2, 3.0, 1e6), strict=True))
    rows = {stage: row._replace(relative=relative[stage]) for stage, row in view.rows.items()}
    calls = recorded(monkeypatch, Collage, "text")
    image, (left, right) = pixels(picture(replace(view, rows=rows))), module.TRACK
    for number, value in enumerate(relative.values()):
        y = module.THIRD + 46 + 20 * number + 5
        wanted = (right - left) * min(max(np.log10(max(value, 1e-9)) + 3, 0), 6) / 6
        # the line at 1 covers two pixels
        assert near(image[y : y + 1], ORANGE).sum() == pytest.approx(wanted, abs=4)
    assert [args[3] for args in calls].count("≤ 1e-5") == 2


def test_the_presets_are_their_pictures_and_set_the_formats(explorer, expected):
    lines = explorer.text.splitlines()
    explorer.expected.value = "gluoncv"
    before = explorer.frames
    for index, (name, emitted) in enumerate(PRESETS.items()):
        explorer.preset.index = index
        assert explorer.state == ScalingState(FIRST, emitted, "0-1")
        assert explorer.preset.index == index and explorer.frames == before
        assert shown(before[index]) == expected(FIRST, emitted)
        assert lines[index] == f"{name}: {shown(before[index])[1]}"


def test_every_control_is_shown_as_custom(explorer, expected):
    presets = explorer.frames[:CUSTOM]
    explorer.emitted.value, explorer.expected.value = "detectron2", "torchvision"
    assert shown(explorer.frames[-1]) == expected(FIRST, "detectron2", "torchvision")
    assert explorer.preset.value == "custom" and explorer.frames[:CUSTOM] == presets
    explorer.picture.value = "rocket"
    for emitted, frame in zip(EMITTED, explorer.frames, strict=False):  # the presets follow
        assert shown(frame) == expected("rocket", emitted)


def test_the_last_event_wins_and_the_presets_follow_one_at_a_time(explorer, monkeypatch):
    drawn = recorded(monkeypatch, explorer, "_picture_of")

    async def until(count):
        while len(drawn) < count:
            await asyncio.sleep(live.PATIENCE / 4)
        assert len(drawn) == count

    async def run():
        for emitted in ("BGR", "halved", "keras-tf"):
            explorer.emitted.value = emitted
        await until(1)
        explorer.picture.value = "scene 6"
        explorer.picture.value = "scene 2"  # the first is stale
        await until(2)
        explorer.preset.index = 3  # it has not followed yet: it is drawn next
        await until(3)
        explorer.emitted.value = "gluoncv"  # jumps the queue
        await until(CUSTOM + 3)
        await asyncio.sleep(4 * live.PATIENCE)

    asyncio.run(asyncio.wait_for(run(), 60))
    states = [state for (state,) in drawn]
    assert states[0] == ScalingState(FIRST, "keras-tf") and len(states) == CUSTOM + 3
    assert {state.picture for state in states[1:]} == {"scene 2"}
    assert states[2] == ScalingState("scene 2", EMITTED[3])
    assert states[3] == ScalingState("scene 2", "gluoncv")


def test_what_cannot_be_shown_is_said_and_the_last_picture_stays(explorer, feeding, monkeypatch):
    before, view = explorer.frames, feeding.view

    def broken(state):
        if state.emitted == "halved":
            raise ValueError("It <halved> gives maps that are not finite.")
        return view(state)

    monkeypatch.setattr(feeding, "view", broken)
    explorer.emitted.value = "halved"
    assert "Not shown:</strong> It &lt;halved&gt; gives maps" in explorer.message
    assert explorer.frames == before
    explorer.emitted.value = "BGR"
    assert "Not shown" not in explorer.message and explorer.frames != before
    explorer.picture.value = "scene 6"  # the preset cannot follow: it is said, and drawing ends
    assert "&lt;halved&gt; gives maps" in explorer.message and explorer.frames[2] == before[2]
