"""The site, from a folder and without a network: addresses, links, search, explorers, a phone."""

import importlib.util
import re
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from urllib.parse import unquote, urldefrag

import nbformat
import pytest
from explorers import FAINT
from lab import clean_page
from notebook_rules import ROOT
from playwright.sync_api import expect

pytestmark = pytest.mark.browser
SITE = ROOT / "build" / "site"
PHONE = {"width": 390, "height": 800}
FETCHED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}


class Page(HTMLParser):
    """What a page links to, what it loads, and the ids in it."""

    def __init__(self, file):
        super().__init__()
        self.links, self.loads, self.ids = set(), set(), set()
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids |= {attributes.get("id")}
        if tag == "a" and "href" in attributes:
            self.links.add(attributes["href"])
        elif tag in FETCHED and FETCHED[tag] in attributes:
            self.loads.add(attributes[FETCHED[tag]])


page_of = cache(Page)


def git(*command):
    return subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def make():
    """The site is built, as `make site` does it."""
    subprocess.run([sys.executable, str(ROOT / "site" / "make.py")], check=True)
    spec = importlib.util.spec_from_file_location("site_make", ROOT / "site" / "make.py")
    spec.loader.exec_module(made := importlib.util.module_from_spec(spec))
    return made


@pytest.fixture(scope="module")
def phone(browser, make):
    with clean_page(
        browser, (SITE / "index.html").as_uri(), SITE.as_uri(), viewport=PHONE, offline=True
    ) as page:
        yield page


def pages():
    return sorted(file for file in SITE.rglob("*.html") if "_static" not in file.parts)


def test_addresses_last(make):
    """What was once a page or an anchor is one still; new ones are written down."""
    kept = make.ANCHORS.read_text(encoding="utf-8").splitlines()
    assert sorted(set(kept) - make.anchors()) == [], "these addresses are gone"
    assert sorted(make.anchors() - set(kept)) == [], "python site/make.py --anchors adds these"
    tag = git("describe", "--tags", "--abbrev=0").strip() or "HEAD"
    published = git("show", f"{tag}:site/anchors.txt").splitlines()
    assert sorted(set(published) - set(kept)) == [], f"lines are only added to those of {tag}"


def test_every_link_leads_somewhere_and_nothing_is_loaded_from_elsewhere(make):
    dead = []
    for file in pages():
        page = page_of(file)
        assert [load for load in page.loads if re.match(r"(https?:)?//", load)] == [], file
        for link in page.links | page.loads:
            path, label = urldefrag(link)
            if re.match(r"\w+:", link) or (not label and link.endswith("#")):
                continue
            target = (file.parent / unquote(path.partition("?")[0])).resolve() if path else file
            if not target.exists() or (label and unquote(label) not in page_of(target).ids):
                dead.append(f"{file.relative_to(SITE)}: {link}")
    assert dead == []


def test_downloads_carry_no_outputs_and_pictures_their_description(make):
    for file in SITE.glob("_sources/**/*.ipynb"):
        nb = nbformat.read(file, 4)
        assert not any(cell.get("outputs") for cell in nb.cells) and "widgets" not in nb.metadata
    for file in pages():
        images = re.findall(r"<img[^>]*figures/[^>]*>", file.read_text(encoding="utf-8"))
        assert all(re.search(r'alt="[^"]{20,}"', image) for image in images), file


def test_no_page_scrolls_sideways_on_a_phone(phone):
    wide = []
    for file in pages():
        phone.goto(file.as_uri())
        if phone.evaluate("document.documentElement.scrollWidth > innerWidth"):
            wide.append(str(file.relative_to(SITE)))
    assert wide == []


def test_the_toggle_works_on_the_front_page(phone):
    phone.goto((SITE / "index.html").as_uri())
    sentence = phone.locator(".explorer .sentence")
    expect(sentence).to_be_visible()
    before = sentence.inner_text()
    phone.get_by_role("button", name="forgot eval()").click()
    expect(sentence).not_to_have_text(before)


def test_the_output_below_a_prediction_waits(phone):
    phone.goto((SITE / "01_two_backbones.html").as_uri())
    folded = phone.locator("details.hide").first
    expect(folded.locator(".cell_output")).to_be_hidden()
    folded.locator("summary").click()
    expect(folded.locator(".cell_output")).to_be_visible()


@pytest.mark.parametrize(
    "asked, found",
    [
        ("NaN", "symptoms.html#nan-after-half"),
        ("FrozenBatchNorm2d", "05_frozen_batchnorm.html"),
    ],
)
def test_the_search_lists_the_right_section_first(phone, asked, found):
    phone.goto(f"{(SITE / 'search.html').as_uri()}?q={asked}")
    first = phone.locator("#search-results li a").first
    expect(first).to_have_attribute("href", re.compile(re.escape(found)))


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_explorers_and_questions_are_readable_in_both_themes(browser, make, theme):
    for name in ("index", "02_batchnorm", "05_frozen_batchnorm"):
        address = (SITE / f"{name}.html").as_uri()
        with clean_page(browser, address, SITE.as_uri(), color_scheme=theme) as page:
            for box in page.locator(".explorer, .cell_output").all():
                assert box.evaluate(FAINT) == [], (name, theme)


def test_a_claim_is_copied_with_its_address(browser, make):
    address = (SITE / "claims.html").as_uri()
    permissions = ["clipboard-read", "clipboard-write"]
    with clean_page(browser, address, SITE.as_uri(), permissions=permissions) as page:
        button = page.locator("button.paste").first
        button.click()
        expect(button).to_have_text("Copied")
        text = page.evaluate("navigator.clipboard.readText()")
        assert f"claims.html#{button.get_attribute('data-claim')}))" in text
