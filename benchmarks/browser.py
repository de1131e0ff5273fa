"""JupyterLab in headless Chromium, with a HOME of its own, on a notebook of one cell."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.error import URLError
from urllib.request import urlopen

import nbformat
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = shutil.which("chromium")
SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
KERNEL = {"name": "python3", "display_name": "Python 3"}
PATIENCE = 120  # seconds, for a busy machine

# Resolves when the panels show something else and the browser has painted it.
WATCH = """() => {
  const explorer = document.querySelector('.explorer');
  window.painted = new Promise(resolve => {
    explorer.addEventListener('change', event => {
      new MutationObserver((_, observer) => {
        observer.disconnect();
        requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - event.timeStamp)));
      }).observe(explorer.querySelector('.panels'), {childList: true});
    }, {capture: true, once: true});
  });
}"""


@contextmanager
def page(source: str) -> Iterator[Page]:
    """Open JupyterLab, run `source` there, and yield the page once it shows an explorer."""
    with TemporaryDirectory() as home, _lab(Path(home), source) as url, sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=CHROMIUM, args=SWITCHES, env=os.environ | {"HOME": home}
        )
        page = browser.new_page(viewport={"width": 1400, "height": 1600})
        page.set_default_timeout(1000 * PATIENCE)
        page.goto(url)
        page.get_by_text("| Idle").first.wait_for()  # a kernel that is not there yet runs nothing
        page.locator(".jp-CodeCell .cm-content").click()
        page.keyboard.press("Control+Enter")
        page.locator(".explorer canvas").first.wait_for()
        yield page
        browser.close()


def preset(page: Page, name: str) -> None:
    """Press a preset's button, and wait until it is shown."""
    button = page.locator(".presets").get_by_role("button", name=name)
    button.click()
    page.locator(f".presets [aria-pressed=true]:text-is('{name}')").wait_for()


def choice_to_paint(page: Page, label: str, choice: str) -> float:
    """Choose in a list; return the milliseconds until what follows is painted."""
    page.evaluate(WATCH)
    page.locator(".explorer").get_by_label(label, exact=True).select_option(choice)
    return page.evaluate("painted")


@contextmanager
def _lab(home: Path, source: str) -> Iterator[str]:
    """Start JupyterLab without its user's settings; yield the address of a one-cell notebook."""
    cell = nbformat.v4.new_code_cell(source)
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": KERNEL})
    nbformat.write(notebook, home / "one.ipynb")
    port, token, log = _free_port(), secrets.token_hex(), home / "log"
    options = {
        "ServerApp.root_dir": home,
        "ServerApp.port": port,
        "ServerApp.port_retries": 0,
        "IdentityProvider.token": token,
        "LabApp.news_url": None,  # else it asks, in front of everything
        "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
    }
    switches = [f"--{name}={value}" for name, value in options.items()]
    env = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER")}
    path = os.pathsep.join(filter(None, [str(ROOT), env.get("PYTHONPATH")]))
    with log.open("w") as file:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", *switches],
            env=env | {"HOME": str(home), "PYTHONPATH": path},
            stdout=file,
            stderr=file,
        )
    try:
        _wait(f"http://127.0.0.1:{port}/api?token={token}", server, log)
        yield f"http://127.0.0.1:{port}/lab/tree/one.ipynb?token={token}"
    finally:
        server.terminate()
        server.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _wait(url: str, server: subprocess.Popen, log: Path) -> None:
    for _ in range(10 * PATIENCE):
        if server.poll() is not None:
            break
        try:
            return urlopen(url).close()
        except URLError:
            time.sleep(0.1)
    raise RuntimeError(f"JupyterLab does not start:\n{log.read_text()}")
