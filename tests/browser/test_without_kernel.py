"""After an explorer has run: the kernel shut down, and the notebook saved and opened again."""

import pytest
from explorers import EXPLORERS
from lab import KERNEL_MISSED, Keyboard, Mouse, run, shut_down, stored
from playwright.sync_api import expect
from widgets import answers, button

pytestmark = pytest.mark.browser
NOTEBOOK = "01_two_backbones"
*OTHERS, EXPLORER = EXPLORERS[NOTEBOOK]


@pytest.fixture(scope="module")
def page(lab, browser):
    """All has run up to the explorer; it was changed, saved, and the kernel is shut down."""
    with lab.open(browser, "saved", stored(NOTEBOOK), known=KERNEL_MISSED) as page:
        box = EXPLORER.box(page)
        page.locator(".jp-CodeCell", has=box).locator(".jp-InputArea").click()
        run(page, "Run All Above Selected Cell")
        run(page, "Run Selected Cell")
        EXPLORER.change(box, Mouse())
        EXPLORER.custom(box)
        page.keyboard.press("ControlOrMeta+s")
        expect(page.locator(".jp-mod-current.jp-mod-dirty")).to_have_count(0)
        shut_down(page)
        yield page


def still_there(page):
    EXPLORER.switches(page, Mouse())
    button(EXPLORER.box(page), "custom").click()
    EXPLORER.custom(EXPLORER.box(page))
    EXPLORER.switches(page, Keyboard())
    for other in OTHERS:
        other.switches(page, Mouse())
    answers(page, NOTEBOOK, Mouse())


def test_presets_still_switch_when_the_kernel_is_shut_down(page):
    still_there(page)


@pytest.mark.usefixtures("page")
def test_saved_and_opened_again_all_is_there_without_a_kernel(lab, browser):
    saved = lab.notebooks / "saved.ipynb"
    with lab.open(browser, "reopened", saved, trust=None, known=KERNEL_MISSED) as page:
        shut_down(page)
        still_there(page)
