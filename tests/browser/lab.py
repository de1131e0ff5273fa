"""JupyterLab and Chromium apart from the reader's own, and what a reader does in them."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import nbformat
import pytest
from nbformat.sign import NotebookNotary
from playwright.sync_api import expect, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60  # that a slow machine may take for one thing
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ABOUT_ITSELF = "strict mode: use allowUnionTypes"  # embed.js on its own schema
# A widget that ran tries to tell its kernel of every change; the debugger asks for its state.
KERNEL_MISSED = "Cannot send|Could not restore the debugger state"
FLAGS = (
    "--no-sandbox --disable-gpu --disable-background-networking --no-first-run "
    "--disable-component-update --disable-sync --disable-quic"
)


def stored(notebook: str) -> Path:
    """The committed file."""
    return ROOT / "notebooks" / f"{notebook}.ipynb"


def find_chromium() -> str:
    """Its path. Without one a test is skipped, and under CI fails."""
    if path := next(filter(None, map(shutil.which, BROWSERS)), None):
        return path
    missing = f"None of {', '.join(BROWSERS)} is installed: apt-get install chromium."
    (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)


@contextmanager
def headless(chromium: str):
    expect.set_options(timeout=1000 * SECONDS)
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=chromium, args=FLAGS.split())


@contextmanager
def clean_page(browser, address: str, known: str = "^$", **options):
    """A page that asks nobody but its own address, and whose console stays free of complaints.

    `known`: a pattern of those that are no fault of the page.
    """
    own = (address.partition("/lab/")[0], "data:", "blob:")
    complaints = []
    context = browser.new_context(viewport={"width": 1200, "height": 1200}, **options)
    context.set_default_timeout(1000 * SECONDS)
    page = context.new_page()
    page.on("console", lambda m: m.type in ("error", "warning") and complaints.append(m.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda r: r.url.startswith(own) or complaints.append(f"asks {r.url}"))
    page.goto(address)
    yield page
    context.close()
    assert [complaint for complaint in complaints if not re.search(known, complaint)] == []


class Lab:
    """A JupyterLab with the settings of `make lab`, and nothing of the reader's own."""

    def __init__(self, home: Path):
        self.notebooks = home / "root" / "notebooks"
        self.notebooks.mkdir(parents=True)
        self._notary = NotebookNotary(data_dir=str(home))
        self._log = home / "log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._address = free.getsockname()
        (settings := home / "settings").mkdir()
        shutil.copy(ROOT / "jupyter" / "overrides.json", settings)
        for config in (ROOT / "jupyter").glob("*.py"):
            shutil.copy(config, home)
        options = (
            "--no-browser --allow-root --ServerApp.port_retries=0 --IdentityProvider.token=reader "
            f"--ServerApp.ip=127.0.0.1 --port={self._address[1]} "
            f"--ServerApp.root_dir={home / 'root'} --LabApp.app_settings_dir={settings}"
        )
        folders = "HOME JUPYTER_CONFIG_DIR JUPYTER_DATA_DIR JUPYTER_RUNTIME_DIR IPYTHONDIR"
        env = {k: v for k, v in os.environ.items() if not k.startswith("JUPYTER")}
        env |= dict.fromkeys(folders.split(), str(home))
        env |= {"PYTHONPATH": str(ROOT), "MPLCONFIGDIR": matplotlib.get_configdir()}
        with self._log.open("w") as log:
            command = [sys.executable, "-m", "jupyterlab", *options.split()]
            self._process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        self._wait()

    def _wait(self):
        end = time.monotonic() + SECONDS
        while True:
            try:
                return socket.create_connection(self._address).close()
            except OSError:
                if self._process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(self._log.read_text()) from None
                time.sleep(0.1)

    def stop(self):
        self._process.terminate()
        self._process.wait(SECONDS)

    @contextmanager
    def open(self, browser, name: str, source: Path, trust: bool | None = True, **page):
        """A copy of the notebook, open in a page, and a kernel that has run nothing yet.

        `trust` None leaves that as it is: JupyterLab knows a notebook it trusts by its content.
        """
        path = Path(shutil.copy(source, self.notebooks / f"{name}.ipynb"))
        if trust is not None:
            (self._notary.sign if trust else self._notary.unsign)(nbformat.read(path, 4))
        host = "{}:{}".format(*self._address)
        address = f"http://{host}/lab/workspaces/{name}/tree/notebooks/{path.name}?token=reader"
        with clean_page(browser, address, **page) as page:
            expect(page.get_by_text("Python 3 (ipykernel) | Idle", exact=True)).to_be_visible()
            yield page


def menu(page, first: str, *names: str) -> None:
    page.get_by_role("menuitem", name=first, exact=True).click()
    for name in names:
        page.locator(".lm-Menu-itemLabel").get_by_text(name, exact=True).click()


def run(page, what: str) -> None:
    """Choose this in the menu, and wait for it to be done."""
    menu(page, "Run", what)
    waiting = page.locator(".jp-InputPrompt", has_text="[*]:")
    waiting.first.wait_for()
    expect(waiting).to_have_count(0, timeout=10_000 * SECONDS)


def shut_down(page) -> None:
    menu(page, "Kernel", "Shut Down Kernel")
    expect(page.get_by_text("No Kernel", exact=True).first).to_be_visible()


class Mouse:
    """Works a control by clicking. (A drop-down's list is the system's: its choice is set.)"""

    def press(self, control):
        control.click()

    def choose(self, control, option):
        control.select_option(option)

    def enter(self, control, text):
        control.fill(text)
        control.blur()

    def slide(self, control, index):
        track = control.locator("xpath=ancestor::*[contains(@class, 'noUi-base')]")
        part = index / float(control.get_attribute("aria-valuemax"))
        # While the handle glides to the last place, a click does nothing.
        target = track.locator("xpath=..")
        expect(target).not_to_have_class(re.compile("noUi-state-tap"))
        width, height = (track.bounding_box()[side] for side in ("width", "height"))
        track.click(position={"x": part * width, "y": height / 2}, force=True)


class Keyboard:
    """Works a control by keys alone, from wherever the focus is."""

    def reach(self, control):
        """Tab to it, forward or back."""
        for _ in range(100):
            if control.evaluate("c => c === document.activeElement"):
                return
            ahead = control.evaluate(
                "c => document.activeElement.compareDocumentPosition(c)"
                " & Node.DOCUMENT_POSITION_FOLLOWING"
            )
            control.page.keyboard.press("Tab" if ahead else "Shift+Tab")
        raise AssertionError(f"Tab does not reach {control}")

    def press(self, control):
        self.reach(control)
        control.page.keyboard.press("Space")

    def choose(self, control, option):
        self.reach(control)
        options = control.locator("option").evaluate_all("all => all.map(o => o.value)")
        steps = options.index(option) - control.evaluate("c => c.selectedIndex")
        # Open it first: the arrows of a closed drop-down belong to JupyterLab (ipywidgets #3912).
        for key in ("Space", *["ArrowDown" if steps > 0 else "ArrowUp"] * abs(steps), "Enter"):
            control.page.keyboard.press(key)

    def enter(self, control, text):
        self.reach(control)
        control.page.keyboard.press("ControlOrMeta+a")
        control.page.keyboard.type(text)
        control.page.keyboard.press("Tab")

    def slide(self, control, index):
        self.reach(control)
        steps = index - round(float(control.get_attribute("aria-valuenow")))
        for _ in range(abs(steps)):
            control.page.keyboard.press("ArrowRight" if steps > 0 else "ArrowLeft")


hands = pytest.mark.parametrize("hand", [Mouse(), Keyboard()], ids=["mouse", "keyboard"])
