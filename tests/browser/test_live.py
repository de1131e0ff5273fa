"""The notebook run from top to bottom: every control, by mouse and by keyboard alone."""

import hashlib
import io
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from lab import hands, menu, run
from PIL import Image
from playwright.sync_api import expect
from widgets import (
    CONTRAST,
    CUT_OFF,
    LAYOUT,
    button,
    gain_shows,
    labelled,
    largest,
    layout,
    shows,
    switches,
)

from helpers import backbones
from helpers.backbones import STAGES
from helpers.explorers import gain
from helpers.side_by_side import PRESETS, Side

pytestmark = pytest.mark.browser
TODAY = PRESETS["Today"]
A_KINDS = ("batch statistics", "frozen", "frozen, eps 1e-5", "folded", "identity")
B_KINDS = ("frozen, eps 0", "identity", "folded", "running statistics", "batch statistics")


@pytest.fixture(scope="module")
def page(lab, browser):
    with lab.open(browser, "live") as page:
        run(page, "Run All Cells")
        yield page


@pytest.fixture
def explorer(page):
    """The NormExplorer at its preset "Today"."""
    box = page.locator(".norm-explorer")
    button(box, "Today").click()
    shows(box, TODAY)
    return box


def test_it_ran_without_an_error(page):
    wrong = "[data-mime-type='application/vnd.jupyter.stderr']"  # an exception, too
    expect(page.locator(wrong)).to_have_count(0)


@hands
def test_presets_switch_and_set_the_controls(explorer, hand):
    switches(explorer, hand)
    last = [*PRESETS.values()][-1]
    for letter, side in (("A", last.a), ("B", last.b)):
        values = [side.network, *side.kinds]
        for name, value in zip(["network", *STAGES], values, strict=True):
            expect(labelled(explorer, f"{letter}: {name}")).to_have_value(value)


@hands
def test_every_control_changes_picture_numbers_and_sentence(explorer, hand):
    before, state = layout(explorer), TODAY

    def now(**change):
        nonlocal state
        state = replace(state, **change)
        shows(explorer, state)
        expect(button(explorer, "custom")).to_have_class(re.compile("mod-active"))
        expect(explorer.locator(".norm-error")).to_be_empty()
        assert explorer.evaluate(LAYOUT) == before

    hand.choose(labelled(explorer, "photo"), "coffee")
    now(photo="coffee")
    for stage in ("stem", "layer4", "layer3", "layer1", "layer2"):
        hand.press(button(explorer, stage))
        now(stage=stage)
    hand.press(labelled(explorer, "mean over channels"))
    now(channel=0)
    hand.enter(labelled(explorer, "channel"), "5")
    now(channel=5)
    hand.press(button(explorer, "channel that differs most"))
    now(channel=largest(state))
    hand.press(labelled(explorer, "mean over channels"))
    now(channel=None)
    for letter, kinds in (("A", A_KINDS), ("B", B_KINDS)):
        side = Side.all("ResNet-50", {"A": "running statistics", "B": "frozen"}[letter])
        for number, stage in enumerate(STAGES, 1):
            hand.choose(labelled(explorer, f"{letter}: {stage}"), kinds[number - 1])
            now(**{letter.lower(): replace(side, kinds=kinds[:number] + side.kinds[number:])})
    for letter, kind in (("A", "running statistics"), ("B", "frozen, eps 1e-5")):
        hand.choose(labelled(explorer, f"{letter}: all stages"), kind)
        now(**{letter.lower(): Side.all("ResNet-50", kind)})
    hand.choose(labelled(explorer, "A: network"), "Lite0")
    expect(explorer.locator(".norm-error")).to_contain_text("choose the same network for A and B")
    shows(explorer, state)
    assert explorer.evaluate(LAYOUT) == before
    hand.choose(labelled(explorer, "B: network"), "Lite0")
    now(a=replace(state.a, network="Lite0"), b=replace(state.b, network="Lite0"))


@hands
def test_uploads(page, explorer, hand):
    before = layout(explorer)
    file = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(file, "png")
    photo = file.getvalue()
    state = replace(TODAY, photo=f"your photo {hashlib.sha256(photo).hexdigest()[:6]}")
    error = explorer.locator(".norm-error")
    for name, content, complaint in (
        ("photo.png", photo, ""),
        ("notes.txt", b"No photo.", "is not a JPEG"),
        ("empty.png", b"", "is empty"),
    ):
        with page.expect_file_chooser() as chooser:
            hand.press(explorer.get_by_role("button", name="Your photo"))
        chooser.value.set_files({"name": name, "mimeType": "", "buffer": content})
        expect(error).to_contain_text(complaint)
        assert bool(error.inner_text()) == bool(complaint)
        shows(explorer, state, photo)
        assert explorer.evaluate(LAYOUT) == before


@hands
def test_every_control_of_the_gain_explorer(page, hand):
    box = page.locator(".gain-explorer")
    button(box, "1e-3").click()
    before = layout(box)
    hand.enter(labelled(box, "custom eps"), "0.01")
    gain_shows(box, "bn1", 0.01)
    hand.choose(labelled(box, "layer"), "layer1.0.bn1")
    gain_shows(box, "layer1.0.bn1", 0.01)
    hand.enter(labelled(box, "custom eps"), "little")
    expect(box.locator(".gain-error")).to_contain_text("not 'little'")
    gain_shows(box, "layer1.0.bn1", 0.01)
    assert box.evaluate(LAYOUT) == before
    hand.enter(labelled(box, "custom eps"), "1e-5")
    hand.choose(labelled(box, "network"), "Lite0")
    gain_shows(box, gain.channels(backbones.load("lite0")).most_affected(), 1e-5, "Lite0")
    hand.choose(labelled(box, "network"), "ResNet-50")
    gain_shows(box, "bn1", 1e-5)
    assert box.evaluate(LAYOUT) == before


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_readable_in_both_themes(page, theme, tmp_path):
    """No words cut off, none too faint. SCREENSHOTS=folder keeps the pictures to look at."""
    button(page, "December 2020").click()
    menu(page, "Settings", "Theme", f"JupyterLab {theme}")
    expect(page.locator("body")).to_have_attribute("data-jp-theme-name", f"JupyterLab {theme}")
    expect(page.locator("#jupyterlab-splash")).to_have_count(0)
    folder = Path(os.environ.get("SCREENSHOTS", tmp_path))
    page.locator(".jp-Cell").first.scroll_into_view_if_needed()
    page.screenshot(path=folder / f"top-{theme}.png")
    for name in ("norm-explorer", "gain-explorer", "helpers-question"):
        box = page.locator(f".{name}").first
        layout(box)
        page.screenshot(path=folder / f"{name}-{theme}.png")
        assert box.evaluate(CUT_OFF) == []
        assert [text for text, contrast in box.evaluate(CONTRAST) if contrast < 4.5] == []
