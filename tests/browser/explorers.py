"""The explorers: the cell of each, what its presets say, a control to use; and how they look."""

from typing import NamedTuple

from playwright.sync_api import expect

from helpers.course.explorers import feeding, pyramid

# What a box shows: its pictures, or the table in their place, and its sentence.
SEEN = """box => {
  const shown = parts => [...box.querySelectorAll(parts)].filter(e => e.offsetParent);
  return {
    pictures: shown('img, .audit-layers').map(e => e.src || e.innerText),
    words: shown('[class$=-sentence], .audit-words').map(e => e.innerText).join(' '),
  };
}"""

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
    let opacity = alpha;
    for (let p = e; p !== box; p = p.parentElement) opacity *= getComputedStyle(p).opacity;
    const [a, b] = [light(mix(rgb, back, opacity)), light(back)].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  };
  const says = e => [...e.childNodes].some(n => n.nodeType === Node.TEXT_NODE && n.data.trim());
  return [...box.querySelectorAll('*')]
    .filter(e => says(e) && e.checkVisibility({visibilityProperty: true}) && contrast(e) < 4.5)
    .map(e => e.innerText);
}"""


class Explorer(NamedTuple):
    """`presets`: button → words in its frame; a change: (control, value, words)."""

    name: str
    source: str
    presets: dict[str, str]
    change: tuple[str, str, str]
    refused: tuple[str, str, str] | None = None  # None where no choice is an error

    def box(self, page):
        return page.locator(f".{self.name}-explorer")

    def switches(self, page, hand) -> None:
        """Every preset says its own words and shows its own frame, and nothing moves."""
        box, before, frames = self.box(page), layout(self.box(page)), []
        for name, words in self.presets.items():
            hand.press(button(box, name))
            says(box, words)
            frames.append(box.evaluate(SEEN))
            assert box.evaluate(LAYOUT) == before
        assert all(frames.count(frame) == 1 and frame["pictures"] for frame in frames)

    def uses(self, page, hand, name: str, value: str, words: str) -> None:
        """Choose or type `value` in the control of this name, or press it, until it says so."""
        box = self.box(page)
        control = box.get_by_label(name, exact=True).or_(button(box, name))
        if control.evaluate("c => c.tagName === 'SELECT'"):
            hand.choose(control, value)
        elif value:
            hand.enter(control, value)
        else:
            hand.press(control)
        says(box, words)


def button(box, name: str):
    return box.get_by_role("button", name=name, exact=True)


def says(box, words: str) -> None:
    """Wait until the box shows these words."""
    expect(box.get_by_text(words).and_(box.page.locator(":visible")).first).to_be_visible()


def layout(box) -> list[list[int]]:
    """Where the box, its parts and the next cell are, once they have come to rest in view."""
    box.scroll_into_view_if_needed()
    last = None
    while (now := box.evaluate(LAYOUT)) != last:
        last = now
        box.page.wait_for_timeout(100)
    return now


NORM = Explorer(
    "norm",
    "from helpers.course.explorers.norm import NormExplorer\nNormExplorer()",
    {
        "December 2020": "Main cause: eps. A and B part from the stem on",
        "Today": "Rounding at most",
        "The accepted answer's test": "A and B hold the same layers",
        "Forgot eval()": "Main cause: batch statistics",
        "Lite0 with the frozen default": "Lite0, frozen, eps 1e-5",
    },
    ("A: all stages", "batch statistics", "Main cause: batch statistics"),
    ("A: network", "Lite0", "choose the same network for A and B"),
)
GAIN = Explorer(
    "gain",
    "from helpers.course.explorers.gain import GainExplorer\nGainExplorer()",
    {"0": "with eps 0 instead", "1e-5": "with its own eps", "1e-3": "with eps 1e-3 instead"},
    ("custom eps", "0.01", "with eps 0.01 instead of its own"),
    ("custom eps", "many", "eps must be a number from 0 to 1"),
)
BATCH = Explorer(
    "batch",
    """from helpers.batch_statistics import collect, crops
from helpers.course.explorers.batch import BatchExplorer
from helpers.networks.backbones import load
network = load()
network.conv1.weight.data[5] = 0
BatchExplorer(collect(network, crops()[:8]))""",
    {"1": "With 1 image per", "2": "With 2 images per", "8": "With 8 images per"},
    ("channel", "7", "bn1, channel 7,"),
    ("channel", "5", "Channel 5 of bn1 has one value in all pixels"),
)
AUDIT = Explorer(
    "audit",
    "from helpers.course.explorers.audit import AuditExplorer\nAuditExplorer()",
    {
        "v1, ImageNet backbone": "fasterrcnn_resnet50_fpn, pretrained",
        "v1, COCO weights": "fasterrcnn_resnet50_fpn, COCO weights",
        "v2": "fasterrcnn_resnet50_fpn_v2, pretrained",
        "MobileNetV3": "fasterrcnn_mobilenet_v3_large_fpn, pretrained",
    },
    ("builder", "resnet50", "resnet50, pretrained: 53 BatchNorm2d"),
    ("weights", "COCO weights", "resnet50 has no weights 'coco'"),
)
SCALING = Explorer(
    "scaling",
    "from helpers.course.explorers.scaling import ScalingExplorer\nScalingExplorer()",
    {name: f"emitted as {emitted}, taken" for name, emitted in feeding.PRESETS.items()},
    ("the loader emits", "keras-caffe", "emitted as keras-caffe, taken for 0-1"),
)
PYRAMID = Explorer(
    "pyramid",
    "from helpers.course.explorers.pyramid import PyramidExplorer\nPyramidExplorer()",
    {name: f"{state.kind}. {state.level}:" for name, state in pyramid.PRESETS.items()},
    ("level", "P5", "P5: 64 maps of 4 × 4"),
)
EXPLORERS = {one.name: one for one in (NORM, GAIN, BATCH, AUDIT, SCALING, PYRAMID)}
