"""The notebooks run from top to bottom: every control, by mouse and by keyboard alone."""

import hashlib
import io
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from explorers import (
    AUDIT,
    BATCH,
    COST,
    CURVES,
    EXPLORERS,
    NMS,
    NORM,
    PYRAMID,
    READING,
    SCALING,
    audit_shows,
    batch_shows,
    cost_shows,
    curves_show,
    gain_shows,
    largest,
    nms_shows,
    pyramid_shows,
    reading_shows,
    scaling_shows,
    shows,
    statistics,
)
from lab import KERNEL_MISSED, Keyboard, Mouse, hands, menu, run, shut_down, stored
from PIL import Image
from playwright.sync_api import expect
from widgets import CONTRAST, CUT_OFF, LAYOUT, answers, button, labelled, layout, soon

from helpers.course.explorers import cost, nms, pyramid
from helpers.course.explorers import levels as pyramid_levels
from helpers.course.explorers.batch import SIZES
from helpers.course.explorers.curves import State as CurvesState
from helpers.course.explorers.reading import State as ReadingState
from helpers.course.explorers.side_by_side import PRESETS, Side
from helpers.course.stored.costs import BOTH, devices
from helpers.stages import STAGES

pytestmark = pytest.mark.browser
TODAY = PRESETS["Today"]
A_KINDS = ("batch statistics", "frozen", "frozen, eps 1e-5", "folded", "identity")
B_KINDS = ("frozen, eps 0", "identity", "folded", "running statistics", "batch statistics")


def of(*notebooks):
    """Only in the pages of these notebooks."""
    return pytest.mark.parametrize("notebook", notebooks, indirect=True)


@pytest.fixture(scope="module")
def page(lab, browser, notebook):
    path = stored(notebook)
    with lab.open(browser, f"{notebook}-live", path, known=KERNEL_MISSED) as page:
        run(page, "Run All Cells")
        yield page


@pytest.fixture
def explorer(page):
    """The NormExplorer at its preset "Today"."""
    box = NORM.box(page)
    button(box, "Today").click()
    shows(box, TODAY)
    return box


@pytest.fixture
def narrow(page):
    before = page.viewport_size
    page.set_viewport_size(before | {"width": 760})
    yield
    page.set_viewport_size(before)


def test_it_ran_without_an_error(page):
    wrong = "[data-mime-type='application/vnd.jupyter.stderr']"  # an exception, too
    expect(page.locator(wrong)).to_have_count(0)


def test_presets_switch(page, notebook):
    for explorer in EXPLORERS[notebook]:
        explorer.switches(page, Mouse())


@of("01_two_backbones")
@hands
def test_presets_set_the_controls(page, explorer, hand):
    NORM.switches(page, hand)
    last = [*PRESETS.values()][-1]
    for letter, side in (("A", last.a), ("B", last.b)):
        values = [side.network, *side.kinds]
        for name, value in zip(["network", *STAGES], values, strict=True):
            expect(labelled(explorer, f"{letter}: {name}")).to_have_value(value)


@of("01_two_backbones")
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


@of("01_two_backbones")
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


@of("01_two_backbones", "03_frozen_batchnorm")
@hands
def test_every_control_of_the_gain_explorer(page, notebook, hand):
    network, layer, other = {
        "01_two_backbones": ("ResNet-50", "layer1.0.bn1", "Lite0"),
        "03_frozen_batchnorm": ("Lite0", "layer4.2.layers.1.1", "ResNet-50"),
    }[notebook]
    box = page.locator(".gain-explorer")
    button(box, "1e-3").click()
    before = layout(box)
    hand.enter(labelled(box, "custom eps"), "0.01")
    gain_shows(box, network, eps=0.01)
    hand.choose(labelled(box, "layer"), layer)
    gain_shows(box, network, layer, eps=0.01)
    hand.enter(labelled(box, "custom eps"), "little")
    expect(box.locator(".gain-error")).to_contain_text("not 'little'")
    gain_shows(box, network, layer, eps=0.01)
    assert box.evaluate(LAYOUT) == before
    hand.enter(labelled(box, "custom eps"), "1e-5")
    for chosen in (other, network):
        hand.choose(labelled(box, "network"), chosen)
        gain_shows(box, chosen, eps=1e-5)
        assert box.evaluate(LAYOUT) == before


@of("02_batchnorm")
@hands
def test_every_control_of_the_batch_explorer(page, hand):
    box = BATCH.box(page)
    button(box, "2").click()
    before, state = layout(box), {"size": 2}

    def now(**change):
        state.update(change)
        batch_shows(box, **state)
        expect(button(box, "custom")).to_have_class(re.compile("mod-active"))
        expect(box.locator(".batch-error")).to_be_empty()
        assert box.evaluate(LAYOUT) == before

    for size in (32, 4):
        hand.slide(box.get_by_role("slider"), SIZES.index(size))
        now(size=size)
    for number in (1, 2):
        hand.press(button(box, "another batch"))
        now(number=number)
    hand.choose(labelled(box, "stage"), "layer3")
    shares = statistics()["layer3"].between_share
    now(stage="layer3", channel=shares.argmax())
    hand.press(button(box, "smallest between-image share"))
    now(channel=shares.argmin())
    hand.press(button(box, "largest between-image share"))
    now(channel=shares.argmax())
    for typed, channel in (("5", 5), ("9999", len(shares) - 1), ("-1", 0)):
        hand.enter(labelled(box, "channel"), typed)
        expect(labelled(box, "channel")).to_have_value(str(channel))
        now(channel=channel)
    hand.press(button(box, "8"))
    batch_shows(box, **state | {"size": 8, "number": 0})
    expect(box.get_by_role("slider")).to_have_attribute("aria-valuenow", f"{SIZES.index(8)}.0")
    hand.choose(labelled(box, "stage"), "stem")
    now(stage="stem", channel=28, size=8, number=0)


@of("03_frozen_batchnorm")
@hands
def test_every_control_of_the_audit_explorer(page, hand):
    box = AUDIT.box(page)
    button(box, "v2").click()
    before = layout(box)
    builder, weights = labelled(box, "builder"), labelled(box, "weights")
    expect(builder).to_have_value("fasterrcnn_resnet50_fpn_v2")
    for name in ("ssd300_vgg16", "resnet50"):
        hand.choose(builder, name)
        audit_shows(box, name, "pretrained")
        assert box.evaluate(LAYOUT) == before
    hand.choose(weights, "no weights")
    audit_shows(box, "resnet50", "none")
    hand.choose(weights, "COCO weights")
    expect(box.locator(".audit-error")).to_contain_text("resnet50 has no weights 'coco'")
    audit_shows(box, "resnet50", "none")
    assert box.evaluate(LAYOUT) == before
    hand.choose(weights, "pretrained")
    audit_shows(box, "resnet50", "pretrained")
    expect(box.locator(".audit-error")).to_be_empty()
    assert box.evaluate(LAYOUT) == before


@of("03_frozen_batchnorm")
@pytest.mark.usefixtures("narrow")
def test_long_findings_scroll_by_keyboard(page):
    box = AUDIT.box(page)
    button(box, "MobileNetV3").click()
    Keyboard().reach(findings := box.locator(".audit-words:visible"))
    page.keyboard.press("ArrowDown")
    soon(page, lambda: findings.evaluate("e => e.scrollTop ? [] : ['at the top']"))
    expect(findings).to_be_focused()


@of("05_input_scaling")
@hands
def test_every_control_of_the_scaling_explorer(page, hand):
    box = SCALING.box(page)
    button(box, "halved").click()
    before, state = layout(box), {"emitted": "halved"}
    names = {"emitted": "the loader emits", "expected": "the network is told"}

    def now(**change):
        state.update(change)
        scaling_shows(box, **state)
        expect(box.locator(".scaling-error")).to_be_empty()  # no choice is an error
        assert box.evaluate(LAYOUT) == before
        assert box.evaluate(CUT_OFF) == []

    for change in (
        {"expected": "halved"},
        {"emitted": "torchvision, twice"},
        {"expected": "divided twice"},
        {"picture": "coffee"},
        {"picture": "scene 6"},
        {"expected": "mmdet-pytorch"},
    ):
        [(control, option)] = change.items()
        hand.choose(labelled(box, names.get(control, control)), option)
        now(**change)
        expect(button(box, "custom")).to_have_class(re.compile("mod-active"))
    hand.press(button(box, "normalized twice"))
    now(emitted="torchvision", expected="0-1")
    for control, name in names.items():
        expect(labelled(box, name)).to_have_value(state[control])
    hand.choose(labelled(box, "picture"), "scene 1")
    now(picture="scene 1")
    SCALING.switches(page, hand)


@of("06_faster_rcnn_backbone")
@hands
def test_every_control_of_the_pyramid_explorer(page, hand):
    box = PYRAMID.box(page)
    state = pyramid_levels.PyramidState(pyramid.FIRST, "P6")
    button(box, "P6").click()
    pyramid_shows(box, state)
    before = layout(box)
    names = {"kind": "the body normalizes by"}
    for change in (
        {"level": "C3"},
        {"channel": 7},
        {"kind": pyramid_levels.BATCH},
        {"picture": "rocket"},
        {"kind": pyramid_levels.FROZEN},
        {"picture": "scene 6"},
        {"level": "P2"},
        {"picture": pyramid.FIRST},  # as it was found, for the presets
    ):
        [(control, option)] = change.items()
        hand.choose(labelled(box, names.get(control, control)), str(option))
        state = state._replace(**change)
        pyramid_shows(box, state)
        expect(box.locator(".pyramid-error")).to_be_empty()  # no choice is an error
        assert box.evaluate(LAYOUT) == before
        assert box.evaluate(CUT_OFF) == []
    PYRAMID.switches(page, hand)


def every_control(page, hand, explorer, shown, state, changes, refused=None):
    """`changes`: (label, option, part of the state). `refused`: (label, option, what it says)."""
    box = explorer.box(page)
    button(box, list(explorer.presets)[0]).click()
    list(explorer.presets.values())[0](box)
    before, error = layout(box), box.locator(f".{explorer.name}-error")
    for label, option, change in changes:
        hand.choose(labelled(box, label), option)
        state = state._replace(**change)
        shown(box, state)
        expect(error).to_be_empty()
        assert box.evaluate(LAYOUT) == before
        assert box.evaluate(CUT_OFF) == []
        expect(button(box, "custom")).to_have_class(re.compile("mod-active"))
    if refused:
        label, option, says = refused
        hand.choose(labelled(box, label), option)
        expect(error).to_contain_text(says)
        shown(box, state)
        assert box.evaluate(LAYOUT) == before
    explorer.switches(page, hand)
    expect(error).to_be_empty()


@of("04_small_batches")
@hands
def test_every_control_of_the_explorers_of_stored_runs(page, hand):
    every_control(
        page,
        hand,
        READING,
        reading_shows,
        ReadingState(),
        [
            ("read with", "each batch's own", {"reading": "own"}),
            ("score", "wrong boxes per image", {"score": "false_positives"}),
            ("kind", "train, affine frozen", {"kind": "train, affine frozen"}),
        ],
        ("shift", "texture", 'is stored for the shift "texture": choose'),
    )
    every_control(
        page,
        hand,
        CURVES,
        curves_show,
        CurvesState(),
        [
            ("runs", "train, B = 4", {"runs": ("train", 4)}),
            ("beside", "eval", {"beside": ("eval", 16)}),
            ("runs", "train, affine frozen, B = 1", {"runs": ("train, affine frozen", 1)}),
        ],
        ("shift", "gain", 'is stored for the shift "gain": choose'),
    )


@of("07_where_the_time_goes")
@hands
def test_every_control_of_the_explorers_of_stored_costs(page, hand):
    every_control(
        page,
        hand,
        COST,
        cost_shows,
        cost.presets()["a layer"],
        [
            ("where", "body", {"subject": "body"}),
            ("batch", "2", {"batch": 2}),
            ("pass", BOTH, {"step": BOTH}),
            ("dtype", "bfloat16", {"dtype": "bfloat16"}),
            ("device", list(devices())[-1], {"device": list(devices())[-1]}),
        ],
        ("dtype", "float16", "was not measured on"),
    )
    every_control(
        page,
        hand,
        NMS,
        nms_shows,
        nms.PRESETS["1 class"],
        [
            ("candidates", "1000", {"candidates": 1000}),
            ("classes", "80", {"classes": 80}),
            ("IoU", "0.7", {"iou": 0.7}),
        ],
    )


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_readable_in_both_themes(page, notebook, theme, tmp_path):
    """No words cut off, none too faint. SCREENSHOTS=folder keeps the pictures to look at."""
    folder = Path(os.environ.get("SCREENSHOTS", tmp_path))

    def look(box, name):
        layout(box)
        page.screenshot(path=folder / f"{notebook}-{theme}-{name}.png")
        assert box.evaluate(CUT_OFF) == []
        assert [text for text, contrast in box.evaluate(CONTRAST) if contrast < 4.5] == []

    menu(page, "Settings", "Theme", f"JupyterLab {theme}")
    expect(page.locator("body")).to_have_attribute("data-jp-theme-name", f"JupyterLab {theme}")
    expect(page.locator("#jupyterlab-splash")).to_have_count(0)
    look(page.locator(".helpers-question").first, "question")
    for explorer in EXPLORERS[notebook]:
        for number, (preset, shown) in enumerate(explorer.presets.items()):
            button(box := explorer.box(page), preset).click()
            shown(box)
            look(box, f"{explorer.name}-{number}")


# 01 is in test_without_kernel.py
@of(*list(EXPLORERS)[1:])
def test_last_of_all_presets_still_switch_when_the_kernel_is_shut_down(page, notebook):
    for explorer in EXPLORERS[notebook]:
        explorer.change(explorer.box(page), Mouse())
        explorer.custom(explorer.box(page))
    shut_down(page)
    for explorer in EXPLORERS[notebook]:
        explorer.switches(page, Mouse())
        button(explorer.box(page), "custom").click()
        explorer.custom(explorer.box(page))
    answers(page, notebook, Mouse())
