"""The explorers of stored costs: against the files, bars against numbers, what was not measured."""

import base64
import html
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from torchvision.ops import batched_nms, nms

from helpers.course.explorers import cost as costs_module
from helpers.course.explorers import nms as nms_module
from helpers.course.explorers.canvas import Canvas, font
from helpers.course.explorers.cost import CostExplorer
from helpers.course.explorers.nms import NmsExplorer
from helpers.course.stored import costs as speed
from helpers.course.stored.costs import BASE, BOTH, FORWARD, SUBJECTS, costs, devices, nms_ms
from helpers.figures import ORANGE, PIXELS
from helpers.implementations import candidates

FIRST = next(iter(devices()))


@pytest.fixture(params=[CostExplorer, NmsExplorer])
def explorer(request):
    return request.param()


def words_drawn(monkeypatch):
    words, draw = [], Canvas.text
    monkeypatch.setattr(Canvas, "text", lambda *a, **k: words.append(a[3]) or draw(*a, **k))
    return words


def test_gpus_come_first_and_every_file_is_a_device():
    kinds = [held["about"]["kind"] for held in devices().values()]
    assert kinds == sorted(kinds, key=lambda kind: kind != "cuda")
    assert len(devices()) == len(list(speed.FOLDER.glob("*.json")))


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("step", [FORWARD, BOTH])
@pytest.mark.parametrize("subject", SUBJECTS)
def test_costs_are_the_rows_of_the_file(device, step, subject):
    [file] = [
        file for file in speed.FOLDER.glob("*.json") if f'"{device}"' in file.read_text()[:400]
    ]
    rows = json.loads(file.read_text())["norms"]
    found = costs(device, subject, 1, "float32", step)
    assert sum(one.way == BASE for one in found) == 1
    for one in found:
        same = [
            row
            for row in rows
            if row["way"] == one.way
            and (row.get("ms"), row.get("ratio")) == (one.ms, one.ratio)
            and (row["batch"], row["dtype"], row["pass"]) == (1, "float32", step)
            and row["level"] == ("layer" if subject in speed.STAGES else subject)
        ]
        assert same and (one.least is None) == ("moved" not in same[0])
        assert ("not told apart" in one.words) == (not one.is_resolved and one.way != BASE)


def test_what_was_not_measured_is_one_sentence():
    with pytest.raises(ValueError, match="No device 'abacus' here: choose one of"):
        costs("abacus", "body", 1, "float32", FORWARD)
    with pytest.raises(ValueError, match="body, batch 3, float32, forward was not measured on"):
        costs(FIRST, "body", 3, "float32", FORWARD)
    with pytest.raises(ValueError, match="7 candidates of 2 classes were not measured"):
        nms_ms(FIRST, 7, 2)
    with pytest.raises(ValueError, match="No device 'abacus'"):
        nms_ms("abacus", 100, 1)


def test_without_any_file_it_says_how_to_get_one(monkeypatch, tmp_path):
    monkeypatch.setattr(speed, "FOLDER", tmp_path)
    devices.cache_clear()
    try:
        with pytest.raises(FileNotFoundError, match="make speed"):
            CostExplorer()
        with pytest.raises(FileNotFoundError, match="make speed"):
            NmsExplorer()
    finally:
        devices.cache_clear()


def test_bars_are_as_long_as_times(monkeypatch):
    words = words_drawn(monkeypatch)
    png, sentence = costs_module.picture(costs_module.State(FIRST, "layer1"))
    found = costs(FIRST, "layer1", 8, "float32", FORWARD)
    base = next(one for one in found if one.way == BASE)
    longest = max(max(one.ms + one.spread * base.ms / 2, one.least or 0) for one in found)
    image = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    rgb = [int(ORANGE[i : i + 2], 16) for i in (1, 3, 5)]
    orange = (np.abs(image - rgb).sum(2) < 12).sum(1).max()
    width = (costs_module.RIGHT - costs_module.LEFT) * base.ms / longest
    assert orange == pytest.approx(width, abs=4)
    for one in found:
        assert any(one.words in word and f"{one.ms:.3g} ms" in word for word in words)
        told, same = sentence.split(" Not told apart: ")
        said = f"{one.way} {one.words}" in told if one.is_resolved else one.way in same
        assert one.way == BASE or said


@pytest.mark.parametrize("classes", [1, 20])
def test_what_stays_is_what_torchvision_keeps(classes):
    boxes, scores, labels = candidates(300, classes)
    _, words = nms_module.picture(nms_module.State(300, classes, 0.3))
    per_class = len(batched_nms(boxes, scores, labels, 0.3))
    assert f": {per_class} stay per class, {len(nms(boxes, scores, 0.3))} without" in words
    for device in devices():
        times = ", ".join(f"{w} {ms:.3g}" for w, ms in nms_ms(device, 300, classes).items())
        assert f"{device}: {times}" in words


def test_an_iou_that_is_none_is_refused():
    with pytest.raises(ValueError, match="from 0 to 1"):
        nms_module.picture(nms_module.State(300, 1, 1.5))


def test_pictures_are_small_palettes_on_white_and_no_words_are_cut_off(monkeypatch):
    placed, draw = [], Canvas.text

    def text(canvas, x, y, words, anchor="lm", size=13, *more):
        placed.append((x, words, anchor, size))
        draw(canvas, x, y, words, anchor, size, *more)

    monkeypatch.setattr(Canvas, "text", text)
    made = [costs_module.picture(state) for state in costs_module.presets().values()]
    made += [nms_module.picture(state) for state in nms_module.PRESETS.values()]
    for png, _ in made:
        image = Image.open(io.BytesIO(png))
        assert image.mode == "P" and image.size[0] == PIXELS and len(png) < 30_000
        assert image.convert("RGB").getpixel((799, 1)) == (255, 255, 255)
    for x, words, anchor, size in placed:
        if anchor[0] == "l":
            assert x + font(size).getlength(words) <= PIXELS, words


def test_each_preset_is_drawn_and_a_control_switches_to_custom(explorer):
    presets = explorer.frames[:-1]
    assert len(set(presets)) == len(presets) and "shows it live" in explorer.frames[-1]
    assert len(explorer.text.splitlines()) == len(presets)
    explorer.controls[1].index = 2
    assert explorer.preset.value == "custom" and explorer.frames[:-1] == presets
    drawn = re.search(r"base64,([^\"]+)", explorer.frames[-1])[1]
    module = costs_module if isinstance(explorer, CostExplorer) else nms_module
    png, words = module.picture(explorer.state)
    assert base64.b64decode(drawn) == png and html.escape(words) in explorer.frames[-1]
    assert explorer.png == base64.b64decode(re.search(r"base64,([^\"]+)", presets[0])[1])


def test_what_has_no_stored_cost_is_said_and_the_last_picture_stays():
    explorer = CostExplorer()
    explorer.controls[1].value = "detector"
    before = explorer.frames
    explorer.controls[3].value = "float16"
    assert "was not measured on" in explorer.message and explorer.frames == before
    explorer.controls[3].value = "float32"
    assert "not measured" not in explorer.message
