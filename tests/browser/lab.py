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
SECONDS = 30
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# No fault of a page: what embed.js says of its own schema, and JupyterLab of its slow start; and
# that widgets and the debugger miss a kernel that is shut down.
KNOWN = re.compile("use allowUnionTypes|^Plugin .* activate|Cannot send|restore the debugger state")
FOLLOWING = 4  # the DOM's Node.DOCUMENT_POSITION_FOLLOWING
FLAGS = ("--no-sandbox", "--disable-gpu")


def find_chromium() -> str:
    """Its path. Without one a test is skipped, and under CI fails."""
    if path := next(filter(None, map(shutil.which, BROWSERS)), None):
        return path
    missing = f"None of {', '.join(BROWSERS)} is installed: apt-get install chromium."
    (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)


@contextmanager
def headless():
    expect.set_options(timeout=1000 * SECONDS)
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)


@contextmanager
def clean_page(browser, address: str, own: str = "", **options):
    """A page that asks nobody but its own address, and whose console stays free of complaints."""
    own = (own or address.partition("/lab/")[0], "data:", "blob:")
    complaints = []
    context = browser.new_context(**{"viewport": {"width": 1200, "height": 1200}} | options)
    context.set_default_timeout(1000 * SECONDS)
    page = context.new_page()
    page.on("console", lambda m: m.type in ("error", "warning") and complaints.append(m.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda r: r.url.startswith(own) or complaints.append(f"asks {r.url}"))
    page.goto(address)
    yield page
    context.close()
    assert [complaint for complaint in complaints if not KNOWN.search(complaint)] == []


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

    def _wait(self):
        end = time.monotonic() + SECONDS
        while self._process.poll() is None and time.monotonic() < end:
            try:
                return socket.create_connection(self._address).close()
            except OSError:
                time.sleep(0.1)
        raise RuntimeError(self._log.read_text())

    def stop(self):
        self._process.terminate()
        self._process.wait(SECONDS)

    @contextmanager
    def open(self, browser, name: str, notebook, trust: bool = True):
        """The notebook open in a page, and a kernel that has run nothing yet."""
        self._wait()
        file = self.notebooks / f"{name}.ipynb"
        nbformat.write(notebook, file)
        (self._notary.sign if trust else self._notary.unsign)(nbformat.read(file, 4))
        host = "{}:{}".format(*self._address)
        address = f"http://{host}/lab/workspaces/{name}/tree/notebooks/{file.name}?token=reader"
        with clean_page(browser, address) as page:
            expect(page.get_by_text("Python 3 (ipykernel) | Idle", exact=True)).to_be_visible()
            yield page


def menu(page, first: str, *names: str) -> None:
    page.get_by_role("menuitem", name=first, exact=True).click()
    for name in names:
        page.locator(".lm-Menu-itemLabel").get_by_text(name, exact=True).click()


def run_all(page) -> None:
    menu(page, "Run", "Run All Cells")
    waiting = page.locator(".jp-InputPrompt", has_text="[*]:")
    waiting.first.wait_for()
    expect(waiting).to_have_count(0, timeout=3000 * SECONDS)


def save(page) -> None:
    with page.expect_response(lambda r: r.request.method == "PUT" and "/api/contents/" in r.url):
        page.keyboard.press("ControlOrMeta+s")


class Mouse:
    """Works a control by clicking. (A drop-down's list is the system's: its choice is set.)"""

    def press(self, control):
        control.click()

    def choose(self, control, option):
        control.select_option(option)

    def enter(self, control, text):
        control.fill(text)
        control.blur()


class Keyboard:
    """Works a control by keys alone, from wherever the focus is."""

    def reach(self, control):
        """Tab to it, forward or back."""
        for _ in range(100):
            way = control.evaluate("c => document.activeElement.compareDocumentPosition(c)")
            if way == 0:
                return
            control.page.keyboard.press("Tab" if way & FOLLOWING else "Shift+Tab")
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
