"""The explorers of stored runs: numbers against the rows, frames against picture(), controls."""

import base64
import html
import io
import re
from itertools import product
from statistics import fmean

import numpy as np
import pytest
from PIL import Image

from helpers.course.explorers import curves, live, reading
from helpers.course.explorers.curves import CurvesExplorer
from helpers.course.explorers.reading import NAMES, ReadingExplorer
from helpers.course.stored import runs
from helpers.course.stored.runs import load_runs

MODULES = {"reading": reading, "curves": curves}
CLASSES = {"reading": ReadingExplorer, "curves": CurvesExplorer}
FIRST = load_runs()[0]["shift"]  # of the main table


@pytest.fixture(scope="module")
def rows():
    return {"reading": load_runs(), "curves": load_runs("curves")}


@pytest.fixture(params=MODULES)
def name(request):
    return request.param


@pytest.fixture
def explorer(name):
    return CLASSES[name]()


def sentence_in(frame):
    return html.unescape(re.search(r'-sentence" role="status">(.*?)</div>', frame)[1])


def png_in(frame):
    return base64.b64decode(re.search(r"base64,([^\"]+)", frame)[1])


def drawn(frame):
    return png_in(frame), sentence_in(frame)


def states(module, rows):
    """Every state that the controls can say."""
    if module is reading:
        shifts = {row["shift"] for row in rows}
        parts = NAMES.values(), shifts, reading.KINDS, runs.SCORES
    else:
        parts = curves.ALL, [("train", 16)], {row["shift"] for row in rows}
    return [module.State(*each) for each in product(*parts)]


def numbers(text):
    return [float(n) for n in re.findall(r"\d+\.\d+", text)]


# The pictures and their sentences


def test_a_picture_is_a_small_palette_png_on_white(name, rows):
    module = MODULES[name]
    png, _ = module.picture(rows[name], module.State())
    image = Image.open(io.BytesIO(png))
    assert image.mode == "P" and image.size == (800, module.HEIGHT) and len(png) < 20_000
    assert image.convert("RGB").getpixel((2, module.HEIGHT - 2)) == (255, 255, 255)


@pytest.mark.parametrize("score", runs.SCORES)
@pytest.mark.parametrize("read", NAMES.values())
def test_the_sentence_holds_the_means_of_the_rows(rows, read, score):
    found = [
        fmean(
            row[score]
            for row in rows["reading"]
            if (row["kind"], row["batch_size"], row["shift"], row["statistics"], row["rate"])
            == ("train", size, FIRST, read, runs.RATE)
        )
        for size in (1, 2, 4, 16)
    ]
    _, sentence = reading.picture(rows["reading"], reading.State(read, FIRST, "train", score))
    assert numbers(sentence)[:4] == pytest.approx(found, abs=6e-4)
    assert f"mean {reading.WORDS[score]} of 6 runs" in sentence


def test_the_sentence_of_the_curves_holds_their_last_points(rows):
    state = curves.State(("train", 2))
    _, sentence = curves.picture(rows["curves"], state)
    last = [r for r in rows["curves"] if r["update"] == max(x["update"] for x in rows["curves"])]
    mine = [
        r
        for r in last
        if (r["kind"], r["batch_size"], r["shift"]) == ("train", 2, FIRST)
        and r["rate"] == runs.RATE
    ]
    wanted = [fmean(r["loss"] for r in mine)]
    for read in ("moving average", "own"):
        wanted.append(fmean(r["recall"] for r in mine if r["statistics"] == read))
    assert numbers(sentence)[:3] == pytest.approx(wanted, abs=6e-4)


def test_every_state_is_drawn_or_refused_in_one_sentence(name, rows):
    module, refused = MODULES[name], 0
    for state in states(module, rows[name]):
        try:
            png, sentence = module.picture(rows[name], state)
        except ValueError as error:
            refused += 1
            assert re.fullmatch(r"No run .* is stored for the shift .*: choose .*\.", str(error))
        else:
            assert png.startswith(b"\x89PNG") and sentence.endswith(".")
            assert not re.search("nan|None|inf", sentence)
    assert refused  # the second kind, on the other shifts


def test_a_changed_row_changes_picture_and_sentence(name, rows):
    module = MODULES[name]
    before = module.picture(rows[name], module.State())
    changed = [dict(row) for row in rows[name]]
    state = {"kind": "train", "batch_size": 1, "statistics": "moving average", "shift": FIRST}
    state["rate"] = runs.RATE
    found = [r for r in changed if all(r[k] == v for k, v in state.items())]
    max(found, key=lambda row: row.get("update", 0))["recall"] -= 0.05
    after = module.picture(changed, module.State())
    assert after[0] != before[0] and after[1] != before[1]


def test_only_the_dots_move_between_ways_of_reading(rows):
    """The axes, the line of the detector as it came and the fixed kinds stay where they are."""
    shown = []
    for read in NAMES.values():
        png, _ = reading.picture(rows["reading"], reading.State(read, FIRST))
        image = np.asarray(Image.open(io.BytesIO(png)).convert("L")).astype(int)
        shown.append(image[:, list(range(reading.LEFT)) + list(range(460, reading.RIGHT))])
    for image in shown[1:]:
        assert np.abs(image[60:] - shown[0][60:]).max() == 0


# The widgets


def test_the_presets_are_the_pictures(name, explorer, rows):
    module = MODULES[name]
    presets = list(explorer._presets.values())
    for frame, state in zip(explorer.frames, presets, strict=False):
        assert drawn(frame) == module.picture(rows[name], state)
    assert "shows it live" in explorer.frames[-1] and "img" not in explorer.frames[-1]
    assert explorer.preset.index == 0 and explorer.state == presets[0]


def test_a_change_is_drawn_as_custom(name, explorer, rows):
    control = next(c for c in explorer.controls if c.description == "shift")
    control.value = next(shift for _, shift in control._options_full if shift != FIRST)
    assert explorer.preset.value == "custom"
    assert drawn(explorer.frames[-1]) == MODULES[name].picture(rows[name], explorer.state)
    assert explorer.state.shift == control.value != FIRST


def test_picking_a_preset_sets_the_controls(name, explorer):
    explorer.controls[-1].index = len(explorer.controls[-1].options) - 1
    for index, state in enumerate(explorer._presets.values()):
        explorer.preset.index = index
        assert explorer.state == state and explorer.preset.index == index


def test_what_is_not_stored_is_said_and_the_last_picture_stays(name, explorer):
    other = next(
        control for control in explorer.controls if control.description in ("kind", "runs")
    )
    shift = next(control for control in explorer.controls if control.description == "shift")
    other.index = 1 if name == "reading" else 4  # affine frozen
    before = explorer.frames
    shift.value = next(s for _, s in shift._options_full if s != FIRST)
    assert explorer.message.startswith('<div class="') and "Not shown" in explorer.message
    assert "is stored for the shift" in html.unescape(explorer.message)
    assert explorer.frames == before
    explorer.preset.index = 0
    assert "Not shown" not in explorer.message


def test_every_control_has_a_label(explorer):
    assert all(control.description for control in (explorer.preset, *explorer.controls))


def test_every_frame_takes_the_same_room(name, explorer):
    places = [re.findall(r'class="([^"]+)"', frame) for frame in explorer.frames]
    assert all(place == [f"{name}-picture", f"{name}-sentence"] for place in places)


def test_the_output_carries_sentences_and_a_picture_where_widgets_cannot_run(
    name, explorer, monkeypatch
):
    shown = []
    monkeypatch.setattr(live, "display", lambda data, **options: shown.append((data, options)))
    explorer.controls[-1].index = 0
    explorer._ipython_display_()
    data, options = shown[0]
    assert data["text/plain"].splitlines() == [sentence_in(f) for f in explorer.frames[:-1]]
    assert base64.b64decode(data["image/png"]) == png_in(explorer.frames[0])
    assert "application/vnd.jupyter.widget-view+json" in data and options["raw"]


def test_without_the_stored_runs_it_says_what_to_do(name, monkeypatch, tmp_path):
    monkeypatch.setattr(runs, "FOLDER", tmp_path)
    with pytest.raises(FileNotFoundError, match="git checkout -- data/results"):
        CLASSES[name]()
