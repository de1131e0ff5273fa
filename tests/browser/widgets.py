"""What the widgets show in the page, and what they must show, computed apart from them."""

import base64
import io
import json
import re
from functools import cache
from math import log10

import numpy as np
import pytest
import torch
from lab import NOTEBOOK
from PIL import Image
from playwright.sync_api import expect

from helpers import backbones, photos
from helpers.compare import Row, short
from helpers.explorers import gain
from helpers.norms import norm_layers, replace_norms
from helpers.questions import QUESTIONS
from helpers.show import heatmap
from helpers.side_by_side import NETWORKS, PRESETS, Side, State, sentence

FRAME = """box => {
  const frame = [...box.querySelectorAll('.norm-sentence')].find(e => e.offsetParent).parentElement;
  const all = (selector, what) => [...frame.querySelectorAll(selector)].map(what);
  return {
    texts: [
      ...all('.norm-sentence', e => e.innerText),
      ...all('.norm-sentence + .norm-small', e => e.innerText),
      ...all('figcaption', e => e.innerText),
      ...all('.norm-rows > :nth-child(3n)', e => e.innerText),
    ],
    bars: all('.norm-bar', e => parseFloat(e.style.width)),
    maps: all('img', e => e.src.split(',')[1]),
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

CUT_OFF = """box => [...box.querySelectorAll('label, button, .norm-rows > *')]
  .filter(e => e.offsetParent && e.scrollWidth > e.clientWidth).map(e => e.innerText)"""

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

NUMBER = re.compile(r"(\d+(?:\.\d+)?(?:e-?\d+)?)")


@cache
def features(side: Side, photo: str | bytes) -> dict[str, torch.Tensor]:
    """Stage → feature map (C,H,W)."""
    model = backbones.load(NETWORKS[side.network])
    x = getattr(model, "normalize", lambda image: image)(photos.load(photo))
    for stage, kind in zip(backbones.STAGES, side.kinds, strict=True):
        model = replace_norms(model, kind, stages=stage, share_weights=True)
    found = {}
    with torch.inference_mode():
        for stage, part in backbones.stages(model.eval()).items():
            found[stage] = x = part(x)
    return {stage: x[0] for stage, x in found.items()}


def largest(state: State) -> int:
    """The channel that differs most."""
    a, b = (features(side, state.photo)[state.stage] for side in (state.a, state.b))
    return (a - b).abs().amax((1, 2)).argmax().item()


def expected(state: State, photo: bytes | None = None) -> dict:
    """What FRAME must find. `photo` is the content of the file that `state.photo` names."""
    a, b = (features(side, photo or state.photo) for side in (state.a, state.b))
    rows, words, bars = {}, [], []
    for stage in backbones.STAGES:
        rows[stage] = Row.of(a[stage], b[stage])
        most, size = (a[stage] - b[stage]).abs().max().item(), a[stage].abs().max().item()
        bars.append(100 * log10(min(max(most / size, 1e-8), 10) / 1e-8) / 9)
        if most == 0:
            words.append("0")
        elif most / size <= 1e-5:
            words.append("≤ 1e-5 of max|A|")
        else:
            words.append(f"max|A−B| {short(most)}, {short(most / size)} of max|A|")

    c = state.channel
    a, b = (maps[state.stage].mean(0) if c is None else maps[state.stage][c] for maps in (a, b))
    low, high = min(a.min(), b.min()).item(), max(a.max(), b.max()).item()
    most, rounding = (a - b).abs().max().item(), 1e-5 * max(abs(low), abs(high))
    reach = max(most, rounding)
    captions = [
        f"{letter}: {side.network}, {side.kinds[0] if len(set(side.kinds)) == 1 else 'mixed kinds'}"
        f"\n{short(low)} (dark) … {short(high)} (bright)"
        for letter, side in zip("AB", (state.a, state.b), strict=True)
    ]
    blank, apart = "rounding at most: blank", f"−{short(most)} (blue) … {short(most)} (red)"
    captions.append("A − B\n" + (blank if most <= rounding else apart))
    pictures = [heatmap(m, low, high, side=1) for m in (a, b)]
    pictures.append(heatmap(a - b, -reach, reach, diverging=True, side=1))
    eps = next(iter(norm_layers(backbones.load(NETWORKS[state.a.network])).values())).eps
    where = f"{state.photo}, {state.stage}, {'mean over channels' if c is None else f'channel {c}'}"
    return {
        "texts": [sentence(state, rows, eps), where, *captions, *words],
        "bars": bars,
        "maps": [base64.b64encode(picture).decode() for picture in pictures],
    }


def differences(seen: dict, want: dict) -> list:
    """Where the two part by more than another processor's rounding can make them."""
    found = []
    for one, other in zip(seen["texts"], want["texts"], strict=True):
        (words, numbers), (other_words, other_numbers) = parsed(one), parsed(other)
        if words != other_words or numbers != pytest.approx(other_numbers, rel=0.01):
            found.append((one, other))
    for one, other in zip(seen["bars"], want["bars"], strict=True):
        if abs(one - other) > 0.2 and max(one, other) > 33.3:  # below is rounding
            found.append((one, other))
    for number, (one, other) in enumerate(zip(seen["maps"], want["maps"], strict=True)):
        one, other = pixels(one), pixels(other)
        # Where the page says "blank", the colors are those of rounding, all of them pale.
        bound = 80 if "blank" in want["texts"][2 + number] else 8
        if one.shape != other.shape or np.abs(one - other).max() > bound:
            found.append(f"map {number}")
    return found


def parsed(text: str) -> tuple[list[str], list[float]]:
    """What stands around the numbers, and the numbers."""
    parts = NUMBER.split(text)
    return parts[::2], [float(number) for number in parts[1::2]]


def pixels(png: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"), float)


def shows(box, state: State, photo: bytes | None = None) -> None:
    """Wait until the explorer shows this state."""
    want = expected(state, photo)
    for _ in range(200):
        if not (found := differences(box.evaluate(FRAME), want)):
            return
        box.page.wait_for_timeout(50)
    assert not found


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


def switches(box, hand) -> None:
    """Every preset shows its own picture, numbers and sentence, and nothing moves."""
    before = layout(box)
    for name, state in PRESETS.items():
        hand.press(button(box, name))
        shows(box, state)
        assert box.evaluate(LAYOUT) == before


def gain_shows(box, layer: str, eps: float, network: str = "ResNet-50") -> None:
    """Wait until the GainExplorer shows this layer at this eps."""
    model = backbones.load(NETWORKS[network])
    variance = model.state_dict()[f"{layer}.running_var"]
    png, words = gain.picture(gain.State(gain.channels(model), layer, eps))
    assert f"{len(variance):,} channels, variance {short(variance.min().item())} … " in words
    expect(box.locator(".gain-sentence:visible")).to_have_text(words)
    seen = pixels(box.locator("img:visible").get_attribute("src").partition(",")[2])
    off = np.abs(seen - pixels(base64.b64encode(png).decode())).mean()
    assert off < 0.1


def gain_switches(box, hand) -> None:
    """Every preset of the GainExplorer shows its own picture and sentence, and nothing moves."""
    before = layout(box)
    for eps in gain.PRESETS:
        hand.press(button(box, short(eps)))
        gain_shows(box, "bn1", eps)
        assert box.evaluate(LAYOUT) == before


def asked() -> list[str]:
    """The keys of the notebook's questions, in order."""
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    code = "".join(line for cell in cells for line in cell["source"])
    calls = re.findall(r"(?:predict|quiz)\(([^)]*)\)", code)
    return re.findall('"([^"]+)"', "".join(calls))


def answers(page, hand) -> None:
    """Every option of every question shows its own reason, and nothing moves."""
    boxes = page.locator(".helpers-question")
    expect(boxes).to_have_count(len(asked()))
    for key, box in zip(asked(), boxes.all(), strict=True):
        before = layout(box)
        reason = box.locator(".helpers-feedback > :last-child")
        radios = box.get_by_role("radio").all()
        for option, radio in zip(QUESTIONS[key].options, radios, strict=True):
            hand.press(radio)
            words = f"{'Right' if option.right else 'Wrong'}: {option.reason}".replace("`", "")
            expect(reason).to_have_text(words, use_inner_text=True)
            assert box.evaluate(LAYOUT) == before
