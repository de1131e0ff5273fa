"""The explorers and the questions in JupyterLab and in an exported page, as a reader uses them.

The tests of one notebook, which holds an explorer in every cell, build on each other in order.
"""

import hashlib
import io
import json
import re
import shutil

import export
import nbformat
import pytest
from explorers import CUT_OFF, EXPLORERS, FAINT, GAIN, LAYOUT, NORM, SEEN, button, layout, says
from lab import Keyboard, Mouse, clean_page, find_chromium, menu, run_all, save
from nbformat.v4 import new_code_cell, new_notebook
from notebook_rules import ROOT, RULES, make
from PIL import Image
from playwright.sync_api import expect

pytestmark = pytest.mark.browser
explorers = pytest.mark.parametrize("explorer", EXPLORERS.values(), ids=EXPLORERS)


def notebook(*sources):
    return make.normalize(new_notebook(cells=[new_code_cell(source) for source in sources]))


@pytest.fixture(scope="module")
def live(lab, browser):
    """Every explorer, after its cell has run."""
    cells = notebook(*(explorer.source for explorer in EXPLORERS.values()))
    with lab.open(browser, "live", cells) as page:
        run_all(page)
        errors = page.locator("[data-mime-type='application/vnd.jupyter.stderr']")
        assert errors.all_inner_texts() == []
        yield page


@pytest.fixture(scope="module")
def exported(lab, browser, live, tmp_path_factory):
    """What JupyterLab saves of them, as a page, with the network off."""
    save(live)
    file = tmp_path_factory.mktemp("exported") / "page.html"
    file.write_text(export.page(lab.notebooks / "live.ipynb"), encoding="utf-8")
    with clean_page(browser, file.as_uri(), offline=True) as page:
        yield page


@pytest.fixture(scope="module")
def made():
    """A question, an explorer and a slider, made as `make notebooks` makes them."""
    question = 'from helpers.course.exercises import quiz\nquiz("01-a")'
    return make.execute(notebook(question, GAIN.source, "import ipywidgets as W\nW.IntSlider()"))


@explorers
def test_a_control_works_and_presets_switch(live, explorer):
    room = layout(box := explorer.box(live))
    before = box.evaluate(SEEN)
    explorer.uses(live, Mouse(), *explorer.change)
    after = box.evaluate(SEEN)
    assert before["words"] != after["words"] and before["pictures"] != after["pictures"]
    expect(button(box, "custom")).to_have_class(re.compile("mod-active"))
    if explorer.refused:
        explorer.uses(live, Mouse(), *explorer.refused)
        assert box.evaluate(SEEN) == after
    assert box.evaluate(LAYOUT) == room
    explorer.switches(live, Mouse())
    expect(box.locator(f".{explorer.name}-error")).to_be_empty()


@pytest.mark.parametrize("hand", [Mouse(), Keyboard()], ids=["mouse", "keyboard"])
def test_norm_explorer_by_mouse_and_by_keyboard(live, hand):
    NORM.switches(live, hand)
    NORM.uses(live, hand, "Today", "", "Rounding at most")
    room = layout(box := NORM.box(live))
    for name, value, words in (
        ("photo", "coffee", "coffee, layer1, mean over channels"),
        ("layer3", "", "coffee, layer3, mean over channels"),
        ("mean over channels", "", "coffee, layer3, channel 0"),
        ("channel", "5", "coffee, layer3, channel 5"),
        ("A: all stages", "frozen, eps 0", "Main cause: eps"),
        ("B: layer4", "identity", "missing normalization"),
        ("B: network", "Lite0", "choose the same network for A and B"),
    ):
        NORM.uses(live, hand, name, value, words)
        assert box.evaluate(LAYOUT) == room


def test_norm_explorer_takes_a_photo_and_refuses_other_files(live):
    box, file = NORM.box(live), io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(file, "png")
    for content, words in ((file.getvalue(), "your photo"), (b"No photo.", "is not a JPEG")):
        with live.expect_file_chooser() as chooser:
            box.get_by_role("button", name="Your photo").click()
        chooser.value.set_files({"name": "a.png", "mimeType": "", "buffer": content})
        says(box, words)


@pytest.mark.parametrize("theme", ["Dark", "Light"])
def test_readable_in_both_themes(live, theme):
    menu(live, "Settings", "Theme", f"JupyterLab {theme}")
    expect(live.locator("body")).to_have_attribute("data-jp-theme-name", f"JupyterLab {theme}")
    expect(live.locator("#jupyterlab-splash")).to_have_count(0)
    for explorer in EXPLORERS.values():
        layout(box := explorer.box(live))
        assert box.evaluate(CUT_OFF) == []
        assert box.evaluate(FAINT) == []


@explorers
def test_exported_presets_switch_with_the_network_off(exported, explorer):
    explorer.switches(exported, Mouse())
    if explorer is NORM:
        explorer.switches(exported, Keyboard())


def test_norm_explorers_presets_switch_when_the_kernel_is_shut_down(live):
    menu(live, "Kernel", "Shut Down Kernel")
    expect(live.get_by_text("No Kernel", exact=True).first).to_be_visible()
    NORM.switches(live, Mouse())


def answers(page):
    """The option A of the question opens on its reason."""
    summary = page.locator("summary", has_text=re.compile(r"^\s*A\."))
    option = page.locator("details", has=summary)
    expect(option).not_to_have_attribute("open", "")
    summary.click()
    expect(option).to_have_attribute("open", "")
    assert len(option.inner_text()) > len(summary.inner_text()) + 20


def test_made_notebook_works_before_any_run_and_keeps_its_widgets_when_saved(lab, browser, made):
    with lab.open(browser, "made", made) as page:
        answers(page)
        GAIN.switches(page, Mouse())
        page.locator(".jp-CodeCell .jp-InputArea").last.click()
        menu(page, "Run", "Run Selected Cell")
        expect(page.locator(".jp-InputPrompt").nth(2)).to_have_text("[1]:")  # it was the third
        save(page)
    file = lab.notebooks / "made.ipynb"
    saved = nbformat.read(file, 4)
    assert saved.cells[2] != made.cells[2]
    assert "not stored" not in " ".join(RULES["widgets"](saved, file))


def test_untrusted_it_answers_and_shows_the_static_picture(lab, browser, made):
    with lab.open(browser, "untrusted", made, trust=False) as page:
        answers(page)
        expect(page.locator(".jp-RenderedImage img")).to_have_count(1)
        expect(page.locator(".jupyter-widgets")).to_have_count(0)


def test_every_explorer_of_the_notebooks_is_tested():
    used = set()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        for cell in json.loads(path.read_text("utf-8"))["cells"]:
            used |= set(re.findall(r"^(\w+)Explorer\(", "".join(cell["source"]), re.M))
    assert {name.lower() for name in used} == EXPLORERS.keys()


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail), ("", pytest.skip)])
def test_without_a_browser_ci_fails_and_others_skip(monkeypatch, ci, outcome):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome.Exception, match="apt-get install chromium"):
        find_chromium()


def test_the_vendored_files_are_those_of_their_readme():
    readme = (export.VENDOR / "README.md").read_text("utf-8")
    for file in (export.VENDOR / "embed.js", *export.VENDOR.glob("*.woff2")):
        assert hashlib.sha256(file.read_bytes()).hexdigest() in readme
