"""What holds for any widget of the course: its layout, its colors, and the questions."""

import base64
import io
import json
import re
from collections.abc import Callable

import numpy as np
from lab import stored
from PIL import Image
from playwright.sync_api import expect

from helpers.course.questions import QUESTIONS

# Relative to the box, so that scrolling does not count; with the top of the cell below.
LAYOUT = """box => {
  const {left, top} = box.getBoundingClientRect();
  const place = e => {
    const r = e.getBoundingClientRect();
    return [r.left - left, r.top - top, r.width, r.height].map(Math.round);
  };
  const parts = [...box.children].filter(e => e.offsetParent);
  const next = box.closest('.jp-Cell').nextElementSibling;
  return [box, ...parts].map(place).concat(next ? [place(next).slice(0, 2)] : []);
}"""

CUT_OFF = """box => {
  const parts = 'label, button, input, th, td, figcaption, [class$=-sentence], .norm-rows > *';
  const over = e => e.scrollWidth > e.clientWidth || e.scrollHeight > e.clientHeight + 1;
  return [...box.querySelectorAll(parts)]
    .filter(e => e.offsetParent && over(e)).map(e => e.innerText || e.value);
}"""

# Of every text, its contrast with what is behind it, as WCAG 2 defines it.
CONTRAST = """box => {
  const parse = color => {
    const [r, g, b, a] = color.match(/[\\d.]+/g).map(Number);
    return {rgb: [r, g, b], alpha: a ?? 1};
  };
  const mix = (front, back, alpha) => front.map((c, i) => alpha * c + (1 - alpha) * back[i]);
  const ground = e => {
    if (!e) return [255, 255, 255];
    const {rgb, alpha} = parse(getComputedStyle(e).backgroundColor);
    return alpha === 1 ? rgb : mix(rgb, ground(e.parentElement), alpha);
  };
  const light = rgb => rgb.map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const contrast = e => {
    const back = ground(e), {rgb, alpha} = parse(getComputedStyle(e).color);
    let opacity = alpha;
    for (let p = e; p !== box; p = p.parentElement) opacity *= getComputedStyle(p).opacity;
    const [a, b] = [light(mix(rgb, back, opacity)), light(back)].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  };
  const says = e => [...e.childNodes].some(n => n.nodeType === Node.TEXT_NODE && n.data.trim());
  return [...box.querySelectorAll('*')]
    .filter(e => says(e) && e.checkVisibility({visibilityProperty: true}))
    .map(e => [e.innerText, contrast(e)]);
}"""


def button(box, name: str):
    return box.get_by_role("button", name=name, exact=True)


def labelled(box, name: str):
    return box.get_by_label(name, exact=True)


def layout(box) -> list[list[int]]:
    """Where the box, its parts and the next cell are, once they have come to rest in view."""
    box.scroll_into_view_if_needed()
    last = None
    while (now := box.evaluate(LAYOUT)) != last:
        last = now
        box.page.wait_for_timeout(100)
    return now


def soon(page, wrong: Callable[[], list]) -> None:
    """Wait until nothing is wrong any more."""
    for _ in range(200):
        if not (found := wrong()):
            return
        page.wait_for_timeout(50)
    assert not found


def pixels(png: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"), float)


def asked(notebook: str) -> list[str]:
    """The keys of the notebook's questions, in order."""
    cells = json.loads(stored(notebook).read_text("utf-8"))["cells"]
    code = "".join(line for cell in cells for line in cell["source"])
    calls = re.findall(r"(?:predict|quiz)\(([^)]*)\)", code)
    return re.findall('"([^"]+)"', "".join(calls))


def answers(page, notebook: str, hand) -> None:
    """Every option of every question shows its own reason, and nothing moves."""
    boxes = page.locator(".helpers-question")
    expect(boxes).to_have_count(len(asked(notebook)))
    for key, box in zip(asked(notebook), boxes.all(), strict=True):
        before = layout(box)
        reason = box.locator(".helpers-feedback > :last-child")
        radios = box.get_by_role("radio").all()
        for option, radio in zip(QUESTIONS[key].options, radios, strict=True):
            hand.press(radio)
            words = f"{'Right' if option.right else 'Wrong'}: {option.reason}".replace("`", "")
            expect(reason).to_have_text(words, use_inner_text=True)
            assert box.evaluate(LAYOUT) == before
