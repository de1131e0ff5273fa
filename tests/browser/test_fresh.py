"""The committed notebooks before anything has run: untrusted, trusted, exported."""

import hashlib
import json
import re
import shutil

import export
import pytest
from explorers import EXPLORERS
from lab import ABOUT_ITSELF, ROOT, Keyboard, Mouse, clean_page, find_chromium, stored
from playwright.sync_api import expect
from widgets import LAYOUT, answers, button, layout

pytestmark = pytest.mark.browser


def works(page, notebook, hand):
    for explorer in EXPLORERS[notebook]:
        explorer.switches(page, hand)
        before = layout(box := explorer.box(page))
        hand.press(button(box, "custom"))
        expect(box.get_by_text("Change a")).to_be_visible()
        assert box.evaluate(LAYOUT) == before
    answers(page, notebook, hand)


def cells(notebook):
    return json.loads(stored(notebook).read_text("utf-8"))["cells"]


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail), ("", pytest.skip)])
def test_without_a_browser_ci_fails_and_others_skip(monkeypatch, ci, outcome):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome.Exception, match="apt-get install chromium"):
        find_chromium()


def test_every_explorer_of_every_notebook_is_tested():
    found = {}
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        code = "\n".join("".join(cell["source"]) for cell in cells(path.stem))
        found[path.stem] = [name.lower() for name in re.findall(r"^(\w+)Explorer\(", code, re.M)]
    assert found == {n: [one.name for one in explorers] for n, explorers in EXPLORERS.items()}


def test_untrusted_it_shows_pictures_and_sentences(lab, browser, notebook):
    data = [o["data"] for c in cells(notebook) for o in c.get("outputs", []) if "data" in o]
    pngs = [d["image/png"] for d in data if "image/png" in d]
    texts = ["".join(d["text/plain"]) for d in data if not d.keys() & {"image/png", "text/html"}]
    with lab.open(browser, f"{notebook}-untrusted", stored(notebook), trust=False) as page:
        pictures = page.locator(".jp-RenderedImage img")
        expect(pictures).to_have_count(len(pngs))
        for picture, png in zip(pictures.all(), pngs, strict=True):
            assert picture.get_attribute("src").partition(",")[2] == png.strip()
            assert picture.evaluate("p => p.decode().then(() => p.naturalWidth)") == 800
        for text in texts:
            expect(page.locator(".jp-RenderedText", has_text=text)).to_be_attached()
        expect(page.locator(".jupyter-widgets")).to_have_count(0)


def test_trusted_it_works_before_any_run(lab, browser, notebook):
    with lab.open(browser, f"{notebook}-trusted", stored(notebook)) as page:
        works(page, notebook, Mouse())
        if notebook == "01_two_backbones":  # which has presets and questions like the others
            works(page, notebook, Keyboard())


def test_exported_it_works_with_the_network_off(browser, tmp_path, notebook):
    file = tmp_path / "page.html"
    file.write_text(export.page(stored(notebook)), encoding="utf-8")
    with clean_page(browser, file.as_uri(), ABOUT_ITSELF, offline=True) as page:
        works(page, notebook, Mouse())


def test_the_vendored_files_are_those_of_their_readme():
    readme = (export.VENDOR / "README.md").read_text("utf-8")
    for file in (export.VENDOR / "embed.js", *export.VENDOR.glob("*.woff2")):
        assert hashlib.sha256(file.read_bytes()).hexdigest() in readme
