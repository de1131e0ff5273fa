"""After the explorer has run: the kernel shut down, and the notebook saved and opened again."""

from dataclasses import replace

import pytest
from lab import Keyboard, Mouse, run, shut_down
from playwright.sync_api import expect
from widgets import answers, button, gain_switches, labelled, shows, switches

from helpers.side_by_side import PRESETS

pytestmark = pytest.mark.browser
# A widget that ran tries to tell its kernel of every change; the debugger asks for its state.
KERNEL_MISSED = "Cannot send|Could not restore the debugger state"
LAST = replace(PRESETS["December 2020"], photo="coffee")


@pytest.fixture(scope="module")
def page(lab, browser):
    """All has run up to the explorer; it shows LAST, is saved, and the kernel is shut down."""
    with lab.open(browser, "saved", known=KERNEL_MISSED) as page:
        explorer = page.locator(".norm-explorer")
        page.locator(".jp-CodeCell", has=explorer).locator(".jp-InputArea").click()
        run(page, "Run All Above Selected Cell")
        run(page, "Run Selected Cell")
        Mouse().choose(labelled(explorer, "photo"), "coffee")
        shows(explorer, LAST)
        page.keyboard.press("ControlOrMeta+s")
        expect(page.locator(".jp-mod-current.jp-mod-dirty")).to_have_count(0)
        shut_down(page)
        yield page


def still_there(page):
    explorer = page.locator(".norm-explorer")
    switches(explorer, Mouse())
    button(explorer, "custom").click()
    shows(explorer, LAST)
    switches(explorer, Keyboard())
    gain_switches(page.locator(".gain-explorer"), Mouse())
    answers(page, Mouse())


def test_presets_still_switch_when_the_kernel_is_shut_down(page):
    still_there(page)


@pytest.mark.usefixtures("page")
def test_saved_and_opened_again_all_is_there_without_a_kernel(lab, browser):
    saved = lab.notebooks / "saved.ipynb"
    with lab.open(browser, "reopened", saved, trust=None, known=KERNEL_MISSED) as page:
        shut_down(page)
        still_there(page)
