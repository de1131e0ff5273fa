"""One contract for all explorers, and the questions, in JupyterLab and in an exported page.

The tests of one page build on each other in order.
"""

import io
import json
import re
import shutil

import export
import nbformat
import numpy as np
import pytest
from explorers import CUT_OFF, EXPLORERS, FAINT, NAMED, NORM, panels, preset, says
from ipykernel.ipkernel import IPythonKernel
from lab import Keyboard, Mouse, clean_page, find_chromium, menu, run_all, save
from nbformat.v4 import new_code_cell, new_notebook
from notebook_rules import ROOT, make
from PIL import Image
from playwright.sync_api import expect

pytestmark = pytest.mark.browser
explorers = pytest.mark.parametrize("explorer", EXPLORERS, ids=lambda one: one.name)
QUESTION = 'from helpers.course.exercises import quiz\nquiz("01-a")'
LINK = """import ipywidgets as W
from helpers.course.explorers.norm import KINDS
kinds = W.Dropdown(options=KINDS, description="linked")
W.link((kinds, "value"), (explorer, "kind_b"))
kinds"""
# A second view, in a row with another widget; a chosen channel makes Python open layer1.
VIEWS = """explorer.observe(lambda _: setattr(explorer, "stage", "layer1"), "channel")
W.HBox([W.Label("beside"), explorer])"""
NEEDS_PYTHON = "needs Python"


@pytest.fixture(scope="module")
def made():
    """Every explorer and a question, made as `make notebooks` makes them."""
    cells = [new_code_cell(one.source) for one in EXPLORERS]
    cells[0].source = cells[0].source.replace(
        "NormExplorer()", "explorer = NormExplorer()\nexplorer"
    )
    nb = make.execute(new_notebook(cells=[*cells, new_code_cell(QUESTION)]))
    nb.metadata["language_info"] = IPythonKernel.language_info  # else JupyterLab fills it in
    return nb


@pytest.fixture(scope="module")
def texts(made):
    """Explorer → what its text/plain says of every preset."""
    shown = [cell.outputs[0].data["text/plain"] for cell in made.cells]
    return {one.name: text for one, text in zip(EXPLORERS, shown, strict=False)}


@pytest.fixture(scope="module")
def stored(lab, browser, made):
    """The notebook opened, and nothing run yet."""
    with lab.open(browser, "stored", made) as page:
        yield page


@pytest.fixture(scope="module")
def exported(browser, made, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    nbformat.write(made, folder / "page.ipynb")
    file = folder / "page.html"
    file.write_text(export.page(folder / "page.ipynb"), encoding="utf-8")
    with clean_page(browser, file.as_uri(), offline=True) as page:
        yield page


def contract_without_python(page, explorer, text):
    """Presets and what the page computes work; the rest is greyed out, and one line says why."""
    explorer.switches(page, Mouse(), text)
    preset(box := explorer.box(page), text.partition(":")[0]).click()
    for change in explorer.in_page:
        explorer.uses(page, Mouse(), change)
    for change in explorer.live:
        option = box.get_by_label(change.control, exact=True).locator("option")
        if option.count():
            expect(option.get_by_text(change.value, exact=True)).to_be_disabled()
    if explorer.live:
        expect(box.get_by_text(NEEDS_PYTHON)).to_be_visible()


@explorers
def test_before_any_run(stored, texts, explorer):
    contract_without_python(stored, explorer, texts[explorer.name])
    expect(stored.locator(".jp-RenderedImage img").locator("visible=true")).to_have_count(0)


def test_a_notebook_that_is_only_opened_is_not_changed(stored):
    expect(stored.locator(".lm-TabBar-tab.jp-mod-dirty")).to_have_count(0)


@explorers
def test_names_roles_and_keys(stored, texts, explorer):
    box = explorer.box(stored)
    for part in box.locator(NAMED).all():
        if not part.evaluate("e => !!e.closest('[aria-hidden], .card')"):
            expect(part).to_have_accessible_name(re.compile("."))
    preset(box, texts[explorer.name].partition(":")[0]).focus()
    explorer.switches(stored, Keyboard(), texts[explorer.name])
    active = (
        "[...document.querySelectorAll('.jp-Cell')].findIndex(c => c.matches('.jp-mod-active'))"
    )
    cell = stored.evaluate(active)
    for select in box.locator("select:enabled").all()[:1]:
        select.focus()
        for key in ("ArrowDown", "ArrowUp", "a", "x"):  # of JupyterLab: other cells, a new one, cut
            stored.keyboard.press(key)
        assert stored.evaluate(active) == cell
    assert stored.locator(".jp-CodeCell").count() == len(EXPLORERS) + 1


@pytest.mark.parametrize("theme", ["Dark", "Light"])
def test_readable_in_both_themes(stored, theme):
    menu(stored, "Settings", "Theme", f"JupyterLab {theme}")
    expect(stored.locator("body")).to_have_attribute("data-jp-theme-name", f"JupyterLab {theme}")
    expect(stored.locator("#jupyterlab-splash")).to_have_count(0)
    for explorer in EXPLORERS:
        box = explorer.box(stored)
        box.scroll_into_view_if_needed()
        assert box.evaluate(CUT_OFF) == [] and box.evaluate(FAINT) == []


@explorers
def test_live_a_change_is_drawn_and_bad_input_is_one_sentence(stored, texts, explorer):
    if explorer is EXPLORERS[0]:
        run_all(stored)
        errors = stored.locator("[data-mime-type='application/vnd.jupyter.stderr']")
        assert errors.all_inner_texts() == []
    box = explorer.box(stored)
    expect(box.get_by_text(NEEDS_PYTHON)).to_be_hidden()
    explorer.switches(stored, Mouse(), texts[explorer.name])
    for number, change in enumerate(explorer.in_page + explorer.live):
        if number in (0, len(explorer.in_page)):
            preset(box, texts[explorer.name].partition(":")[0]).click()
            says(box, texts[explorer.name].partition(": ")[2].split("\n")[0])
        before = panels(box)
        explorer.uses(stored, Mouse(), change)
        differs(box, before)
    if explorer.refused:
        before = panels(box)
        explorer.uses(stored, Mouse(), explorer.refused)
        assert panels(box) == before


def test_a_linked_dropdown_leads_the_explorer(stored):
    box = NORM.box(stored)
    preset(box, "another eps").click()
    says(box, "Main cause: eps")
    run_last(stored, LINK)
    linked = stored.get_by_label("linked")
    linked.select_option("batch statistics")
    says(box, "Main cause: batch statistics")
    box.get_by_label("B, all stages:").select_option("frozen")
    expect(linked.locator("option:checked")).to_have_text("frozen")


def test_two_views_agree_and_one_fits_beside_another_widget(stored):
    run_last(stored, VIEWS)
    views = stored.get_by_role("region", name=NORM.name, exact=True)
    expect(views).to_have_count(2)
    assert views.last.evaluate("box => box.clientWidth") > 500
    views.last.locator(".panels .cards").get_by_role("button", name="mean of all").focus()
    for key in ("Tab", "Enter"):  # the channel that differs most
        stored.keyboard.press(key)
    for number in range(2):
        readout = views.nth(number).locator(".under output")
        expect(readout).to_have_text("layer1, mean of the channels")
    run_last(stored, "explorer.unobserve_all('channel')")
    expect(views).to_have_count(1)


def test_the_divider_is_dragged_on_the_picture(stored):
    box = NORM.box(stored)
    toggle = box.get_by_role("button", name="A over B, with a divider")
    toggle.click()
    picture, line = box.locator(".divided"), box.locator(".divider")
    picture.scroll_into_view_if_needed()
    area = picture.bounding_box()
    stored.mouse.move(area["x"] + 0.2 * area["width"], area["y"] + 9)
    stored.mouse.down()
    stored.mouse.move(area["x"] + 0.75 * area["width"], area["y"] + 9, steps=3)
    stored.mouse.up()
    at = line.bounding_box()
    assert abs(at["x"] + at["width"] / 2 - area["x"] - 0.75 * area["width"]) < 3
    expect(box.get_by_label(re.compile("^divider"))).to_have_value("75")
    toggle.click()


def test_a_readers_photo_of_any_size_is_shown_and_never_saved(stored, lab):
    box, file = NORM.box(stored), io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (2400, 2400, 3), np.uint8)
    Image.fromarray(noise).save(file, "png")
    assert len(file.getvalue()) > 10_000_000  # the server takes no message of this size
    preset(box, "another eps").click()
    picture = box.locator("input[type=file]")
    picture.set_input_files(
        {"name": "mine.png", "mimeType": "image/png", "buffer": file.getvalue()}
    )
    expect(box.locator("figcaption", has_text="mine.png")).to_be_visible()
    box.get_by_label("photo", exact=True).select_option("coffee")
    expect(box.locator("figcaption", has_text="coffee")).to_be_visible()
    box.get_by_label("photo", exact=True).select_option("mine.png")
    expect(box.locator("figcaption", has_text="mine.png")).to_be_visible()
    picture.set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": b"No photo."})
    says(box, "a.png is no picture that this browser can read")
    expect(box.locator("figcaption", has_text="mine.png")).to_be_visible()
    before = (lab.notebooks / "stored.ipynb").stat().st_size
    stored.locator(".jp-CodeCell .cm-content").last.click()
    save(stored)
    text = (lab.notebooks / "stored.ipynb").read_text("utf-8")
    assert "mine.png" not in text and abs(len(text) - before) < 20_000


@explorers
def test_without_the_kernel_controls_say_what_is_shown(stored, texts, explorer):
    if explorer is EXPLORERS[0]:
        menu(stored, "Kernel", "Shut Down Kernel")
        expect(stored.get_by_text("No Kernel", exact=True).first).to_be_visible()
    explorer.box(stored).hover()
    contract_without_python(stored, explorer, texts[explorer.name])


def test_saved_and_opened_again_it_is_as_it_was_made(lab, browser, stored, texts):
    notebook = nbformat.read(lab.notebooks / "stored.ipynb", 4)
    with lab.open(browser, "again", notebook) as page:
        for explorer in EXPLORERS:
            explorer.switches(page, Mouse(), texts[explorer.name])


@explorers
def test_exported_with_the_network_off(exported, texts, explorer):
    contract_without_python(exported, explorer, texts[explorer.name])


@pytest.mark.parametrize("size", [(1400, 1000), (1000, 800), (1024, 576), (390, 844)], ids=str)
def test_it_fits_the_page(exported, size):
    exported.set_viewport_size(dict(zip(("width", "height"), size, strict=True)))
    for explorer in EXPLORERS:
        box = explorer.box(exported)
        assert box.evaluate("b => b.scrollWidth <= b.clientWidth + 1")
        assert box.evaluate(CUT_OFF) == []


def test_untrusted_it_answers_and_shows_the_static_picture(lab, browser, made):
    with lab.open(browser, "untrusted", made, trust=False) as page:
        answers(page)
        expect(page.locator(".jp-RenderedImage img").first).to_be_visible()
        expect(page.get_by_text("once the notebook is trusted").first).to_be_visible()
        expect(page.locator(".explorer")).to_have_count(0)


def run_last(page, source: str) -> None:
    """Run this in the last cell."""
    page.locator(".jp-CodeCell .cm-content").last.click()
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.insert_text(source)
    page.keyboard.press("ControlOrMeta+Enter")


def differs(box, before):
    """Wait until its panels are no longer as before."""
    for _ in range(100):
        if panels(box) != before:
            return
        box.page.wait_for_timeout(100)
    raise AssertionError("The panels show what they showed before.")


def answers(page):
    """The option A of the question opens on its reason."""
    summary = page.locator("summary", has_text=re.compile(r"^\s*A\."))
    option = page.locator("details", has=summary)
    expect(option).not_to_have_attribute("open", "")
    summary.click()
    expect(option).to_have_attribute("open", "")
    assert len(option.inner_text()) > len(summary.inner_text()) + 20


def test_every_explorer_of_the_notebooks_is_tested():
    used = set()
    for path in (ROOT / "notebooks").rglob("*.ipynb"):
        for cell in json.loads(path.read_text("utf-8"))["cells"]:
            used |= set(re.findall(r"\b(\w+Explorer)\(", "".join(cell["source"])))
    assert used <= {one.name for one in EXPLORERS}


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail), ("", pytest.skip)])
def test_without_a_browser_ci_fails_and_others_skip(monkeypatch, ci, outcome):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome.Exception, match="apt-get install chromium"):
        find_chromium()
