"""The explorers as a reader has them: the cell of each, controls to use, and how they look."""

import re
from typing import NamedTuple

from playwright.sync_api import expect

CUT_OFF = """box => {
  const over = e => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== 'inline';
  return [...box.querySelectorAll('p, b, button, figcaption, li, small, .bars > span')]
    .filter(e => e.offsetParent && over(e)).map(e => e.innerText);
}"""

# The texts whose contrast with what is behind them, as WCAG 2 defines it, is below 4.5.
FAINT = """box => {
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
    const [a, b] = [light(mix(rgb, back, alpha)), light(back)].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  };
  const says = e => [...e.childNodes].some(n => n.nodeType === Node.TEXT_NODE && n.data.trim());
  return [...box.querySelectorAll(':not(:disabled, svg *)')]
    .filter(e => says(e) && e.checkVisibility() && contrast(e) < 4.5).map(e => e.innerText);
}"""

NAMED = "button, select, input, canvas[role=img], svg[role=img], img"


class Change(NamedTuple):
    """A choice in the control of this name, or a press of the button, and what it then says."""

    control: str
    value: str
    words: str


class Explorer(NamedTuple):
    """`in_page`: changes that need no Python; `live`: changes that do; `refused`: what is none."""

    name: str
    module: str
    in_page: list[Change]
    live: list[Change]
    refused: Change | None = None

    @property
    def source(self) -> str:
        return f"from helpers.course.explorers.{self.module} import {self.name}\n{self.name}()"

    def box(self, page):
        return page.get_by_role("region", name=self.name, exact=True)

    def switches(self, page, hand, text: str) -> None:
        """Every preset is pressed, says its own sentence, and shows something of its own."""
        box, seen = self.box(page), []
        for line in text.splitlines():
            name, _, words = line.partition(": ")
            hand.press(preset(box, name))
            says(box, words)
            expect(preset(box, name)).to_have_attribute("aria-pressed", "true")
            seen.append(panels(box))
        assert len(seen) > 1 and all(seen.count(one) == 1 and one for one in seen)

    def uses(self, page, hand, change: Change) -> None:
        box = self.box(page)
        control = box.get_by_label(change.control, exact=True).and_(box.locator("select, input"))
        if not control.count():
            hand.press(button(box, change.control))
        elif control.evaluate("c => c.tagName") == "SELECT":
            hand.choose(control, change.value)
        elif control.get_attribute("type") == "number":
            hand.enter(control, change.value)
        else:
            control.press(change.value)
        says(box, change.words)


def preset(box, name: str):
    return box.locator(".presets").get_by_role("button", name=name, exact=True)


def button(box, name: str):
    """In the panels; a card's name goes on after its title."""
    return box.locator(".panels").get_by_role("button", name=re.compile(f"^{re.escape(name)}"))


def says(box, words: str) -> None:
    """Wait until the sentence, or the trouble below it, has these words."""
    expect(box.locator(".sentence, .trouble").filter(has_text=words).first).to_be_visible()


def panels(box) -> str:
    """What the panels show, pixels included."""
    return box.evaluate(
        """b => [...b.querySelectorAll('.panels canvas')].map(c => c.toDataURL()).join()
           + [...b.querySelectorAll('.panels svg, .panels img')].map(e => e.outerHTML).join()
           + b.querySelector('.panels').innerText"""
    )


EXPLORERS = [
    Explorer(
        "NormExplorer",
        "norm",
        [
            Change("B, all stages:", "batch statistics", "Main cause: batch statistics"),
            Change("B: layer2", "frozen", "batch statistics (also: eps)"),
            Change("layer1", "", "batch statistics (also: eps)"),
        ],
        [
            Change("eps of frozen layers", "End", "Main cause: eps"),
            Change("photo", "coffee", "Main cause: eps"),
            Change("B: layer4", "identity", "missing normalization"),
            Change("network", "ResNet-50", "missing normalization"),
        ],
        None,
    ),
    Explorer(
        "ScaleExplorer",
        "scale",
        [
            Change("eps", "End", "channels of 21,008 are scaled over 10 % too little"),
            Change("layer", "all layers", "too little"),
        ],
        [],
    ),
    Explorer(
        "BatchExplorer",
        "batch",
        [
            Change("+ add one image", "", "running_var → 73 %"),
            Change("images per batch", "End", "running_var → 99 %"),
            Change("stage", "layer3", "of within + between"),
        ],
        [Change("any channel", "7", "of within + between")],
        Change("any channel", "999", "channel"),
    ),
    Explorer(
        "ScalingExplorer",
        "scaling",
        [Change("loader emits", "keras-caffe", "The loader emits keras-caffe")],
        [
            Change("picture", "coffee", "box"),
            Change("network expects", "0-255", "the network expects 0-255"),
            Change("brightness", "Home", "the network expects 0-255"),
        ],
    ),
    Explorer(
        "PyramidExplorer",
        "pyramid",
        [
            Change("C4", "", "C4: 128 maps"),
            Change("the body normalizes by", "FrozenBatchNorm, eps 0", "C4 is off by"),
            Change("P3", "", "P3 is off by"),
            Change("disc 100 %, P3", "", "disc"),
        ],
        [Change("channel", "3", "P2"), Change("picture", "scene 4", "P2")],
    ),
]
NORM = EXPLORERS[0]
