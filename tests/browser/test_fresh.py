"""The committed notebook before anything has run: untrusted, trusted, exported."""

import hashlib
import json
import shutil
import sys

import pytest
from lab import ABOUT_ITSELF, NOTEBOOK, ROOT, Mouse, clean_page, find_chromium, hands
from playwright.sync_api import expect
from widgets import answers, gain_switches, switches

sys.path.insert(0, str(ROOT / "tools"))
import export  # noqa: E402

pytestmark = pytest.mark.browser


def works(page, hand):
    switches(page.locator(".norm-explorer"), hand)
    gain_switches(page.locator(".gain-explorer"), hand)
    answers(page, hand)


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail), ("", pytest.skip)])
def test_without_a_browser_ci_fails_and_others_skip(monkeypatch, ci, outcome):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome.Exception, match="apt-get install chromium"):
        find_chromium()


def test_untrusted_it_shows_pictures_and_sentences(lab, browser):
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    data = [o["data"] for cell in cells for o in cell.get("outputs", []) if "data" in o]
    pngs = [d["image/png"] for d in data if "image/png" in d]
    texts = ["".join(d["text/plain"]) for d in data if not d.keys() & {"image/png", "text/html"}]
    with lab.open(browser, "untrusted", trust=False) as page:
        pictures = page.locator(".jp-RenderedImage img")
        expect(pictures).to_have_count(len(pngs))
        for picture, png in zip(pictures.all(), pngs, strict=True):
            assert picture.get_attribute("src").partition(",")[2] == png.strip()
            assert picture.evaluate("p => p.decode().then(() => p.naturalWidth)") == 800
        for text in texts:
            expect(page.locator(".jp-RenderedText", has_text=text)).to_be_attached()
        expect(page.locator(".jupyter-widgets")).to_have_count(0)


@hands
def test_trusted_it_works_before_any_run(lab, browser, hand):
    with lab.open(browser, f"trusted-{type(hand).__name__}") as page:
        works(page, hand)


def test_exported_it_works_with_the_network_off(browser, tmp_path):
    file = tmp_path / "page.html"
    file.write_text(export.page(NOTEBOOK), encoding="utf-8")
    with clean_page(browser, file.as_uri(), ABOUT_ITSELF, offline=True) as page:
        works(page, Mouse())


def test_the_vendored_files_are_those_of_their_readme():
    readme = (export.VENDOR / "README.md").read_text("utf-8")
    for file in (export.VENDOR / "embed.js", *export.VENDOR.glob("*.woff2")):
        assert hashlib.sha256(file.read_bytes()).hexdigest() in readme
