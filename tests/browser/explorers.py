"""The explorers of each notebook, and what they must show, computed apart from them."""

import base64
import html
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from math import log10
from typing import NamedTuple

import numpy as np
import pytest
import torch
from playwright.sync_api import expect
from torchvision.ops import batched_nms
from widgets import LAYOUT, button, labelled, layout, pixels, soon

from helpers.audit import audit_builder
from helpers.audit.census import build
from helpers.batch_statistics import Statistics, collect, crops
from helpers.compare import Row
from helpers.course.explorers import (
    audit,
    batch,
    cost,
    curves,
    feeding,
    gain,
    nms,
    pyramid,
    reading,
    scaling,
)
from helpers.course.explorers import levels as pyramid_levels
from helpers.course.explorers.side_by_side import NETWORKS, PRESETS, NormState, Side, sentence
from helpers.course.stored.costs import costs
from helpers.course.stored.runs import RATE, by_seed, load_runs, mean
from helpers.figures import heatmap
from helpers.implementations import candidates
from helpers.inputs import photos
from helpers.inputs.pixels import convert
from helpers.networks import backbones
from helpers.networks.detector import load_detector
from helpers.norms import norm_layers, replace_norms
from helpers.stages import STAGES, stages
from helpers.text import short


class Explorer(NamedTuple):
    """`presets`: button → what waits until the explorer's box shows that preset.

    `change(box, hand)` works a control that leaves the presets as they are; then `custom` holds.
    """

    name: str
    presets: dict[str, Callable]
    change: Callable
    custom: Callable

    def box(self, page):
        return page.locator(f".{self.name}-explorer")

    def switches(self, page, hand) -> None:
        """Every preset shows its own picture, numbers and sentence, and nothing moves."""
        before = layout(box := self.box(page))
        for name, shows in self.presets.items():
            hand.press(button(box, name))
            shows(box)
            assert box.evaluate(LAYOUT) == before


# NormExplorer

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

NUMBER = re.compile(r"(\d+(?:\.\d+)?(?:e-?\d+)?)")


@cache
def features(side: Side, photo: str | bytes) -> dict[str, torch.Tensor]:
    """Stage → feature map (C,H,W)."""
    model = backbones.load(NETWORKS[side.network])
    x = getattr(model, "normalize", lambda image: image)(photos.load(photo))
    for stage, kind in zip(STAGES, side.kinds, strict=True):
        model = replace_norms(model, kind, stages=stage, share_weights=True)
    found = {}
    with torch.inference_mode():
        for stage, part in stages(model.eval()).items():
            found[stage] = x = part(x)
    return {stage: x[0] for stage, x in found.items()}


def largest(state: NormState) -> int:
    """The channel that differs most."""
    a, b = (features(side, state.photo)[state.stage] for side in (state.a, state.b))
    return (a - b).abs().amax((1, 2)).argmax().item()


def expected(state: NormState, photo: bytes | None = None) -> dict:
    """What FRAME must find. `photo` is the content of the file that `state.photo` names."""
    a, b = (features(side, photo or state.photo) for side in (state.a, state.b))
    rows, words, bars = {}, [], []
    for stage in STAGES:
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


def shows(box, state: NormState, photo: bytes | None = None) -> None:
    """Wait until the NormExplorer shows this state."""
    want = expected(state, photo)
    soon(box.page, lambda: differences(box.evaluate(FRAME), want))


# GainExplorer, BatchExplorer and ScalingExplorer


def picture_shows(box, png: bytes, words: str) -> None:
    """Wait until the explorer shows this picture, and this sentence below."""
    expect(box.locator("[class$=-sentence]:visible")).to_have_text(words)
    want = pixels(base64.b64encode(png).decode())

    def wrong():
        seen = pixels(box.locator("img:visible").get_attribute("src").partition(",")[2])
        return [off] if (off := np.abs(seen - want).mean()) >= 0.1 else []

    soon(box.page, wrong)


def gain_shows(box, network: str, layer: str = "", *, eps: float) -> None:
    """Wait until the GainExplorer shows this layer, or the one it starts with, at this eps."""
    layer = layer or {"ResNet-50": "bn1", "Lite0": "layer4.3.layers.1.1"}[network]
    model = backbones.load(NETWORKS[network])
    variance = model.state_dict()[f"{layer}.running_var"]
    png, words = gain.picture(gain.GainState(gain.channels(model), layer, eps))
    assert f"{len(variance):,} channels, variance {short(variance.min().item())} … " in words
    picture_shows(box, png, words)


@cache
def statistics() -> dict[str, Statistics]:
    return collect(backbones.load("resnet50"), crops())


def batch_shows(box, size: int, stage="stem", channel=28, number=0) -> None:
    """Wait until the BatchExplorer shows batches of this size, and this one of them closely."""
    found = statistics()[stage]
    png, words = batch.picture(batch.BatchState(found, channel, size, number))
    shares = found.expected_running_var(size) / found.expected_running_var(len(found))
    assert f"{found.layer}, channel {channel}, of whose variance " in words
    assert f"running_var goes to {100 * shares[channel]:.0f} % of the variance of all 64: " in words
    picture_shows(box, png, words)


@cache
def fed() -> feeding.Feeding:
    return feeding.Feeding(load_detector())


def scaling_shows(box, emitted="0-1", expected="0-1", picture=scaling.FIRST) -> None:
    """Wait until the ScalingExplorer shows this picture, emitted and taken for these formats."""
    view = fed().view(feeding.ScalingState(picture, emitted, expected))
    image = convert(feeding.pictures()[picture][0], "0-1", emitted)
    low, high = convert(convert(image, expected, "0-1"), "0-1", "torchvision").aminmax()
    words = view.sentence()
    assert f"taken for {expected}: the network gets {feeding.between((low, high))} after" in words
    picture_shows(box, scaling.picture(view), words)


@cache
def levels() -> pyramid_levels.Levels:
    return pyramid_levels.Levels(load_detector())


def pyramid_shows(box, state: pyramid_levels.PyramidState) -> None:
    """Wait until the PyramidExplorer shows this level of this picture."""
    view = levels().view(state)
    with torch.no_grad():
        [result] = load_detector()([feeding.pictures()[state.picture][0]])
    words = view.sentence()
    if state.kind != pyramid_levels.BATCH:
        found = (result["scores"] >= 0.5).sum()
        assert words.split("Boxes: ")[1].split(".")[0].count(" P") == found
    picture_shows(box, pyramid.picture(view), words)


def reading_shows(box, state: reading.State) -> None:
    """Wait until the ReadingExplorer shows these runs, read so."""
    png, words = reading.picture(load_runs(), state)
    found = by_seed(
        load_runs("runs"), state.score, kind=state.kind, batch_size=1, statistics=state.reading
    )
    assert f"{mean(found):.3f} at B = 1, " in words
    picture_shows(box, png, words)


def curves_show(box, state: curves.State) -> None:
    """Wait until the CurvesExplorer shows these learning curves."""
    png, words = curves.picture(load_runs("curves"), state)
    kind, size = state.runs
    last = load_runs("curves", kind=kind, batch_size=size, shift=state.shift, rate=RATE, update=40)
    losses = [row["loss"] for row in last]
    assert f"the last 10 updates is {sum(losses) / len(losses):.3f}, " in words
    picture_shows(box, png, words)


def cost_shows(box, state: cost.State) -> None:
    """Wait until the CostExplorer shows these ways to normalize."""
    png, words = cost.picture(state)
    for each in costs(*state):
        if each.is_resolved:
            assert f"{each.way} {each.words}" in words.split(". Not told apart")[0]
    picture_shows(box, png, words)


def nms_shows(box, state: nms.State) -> None:
    """Wait until the NmsExplorer shows these candidates."""
    png, words = nms.picture(state)
    kept = batched_nms(*candidates(state.candidates, state.classes), state.iou)
    assert f": {len(kept)} stay per class, " in words
    picture_shows(box, png, words)


# AuditExplorer


def audit_shows(box, builder: str, weights: str) -> None:
    """Wait until the AuditExplorer shows the findings and the layers of this builder."""
    words = html.unescape(re.sub("<[^>]*>", "", audit.frame(audit_builder(builder, weights))))
    shown = box.locator(".widget-html-content:visible", has=box.page.locator(".audit-words"))
    expect(shown).to_have_text(words)
    numbers = shown.locator("td:nth-child(2)").all_text_contents()
    assert sum(map(int, numbers)) == len(norm_layers(build(builder, weights)))


# The table

NORM = Explorer(
    "norm",
    {name: partial(shows, state=state) for name, state in PRESETS.items()},
    lambda box, hand: hand.choose(labelled(box, "photo"), "coffee"),
    partial(shows, state=replace(PRESETS["December 2020"], photo="coffee")),
)


def gain_of(network: str) -> Explorer:
    """The GainExplorer that starts with this network."""
    return Explorer(
        "gain",
        {short(eps): partial(gain_shows, network=network, eps=eps) for eps in gain.PRESETS},
        lambda box, hand: hand.enter(labelled(box, "custom eps"), "0.01"),
        partial(gain_shows, network=network, eps=0.01),
    )


BATCH = Explorer(
    "batch",
    {str(size): partial(batch_shows, size=size) for size in batch.PRESETS},
    lambda box, hand: hand.slide(box.get_by_role("slider"), batch.SIZES.index(16)),
    partial(batch_shows, size=16),
)
AUDIT = Explorer(
    "audit",
    {
        name: partial(audit_shows, builder=builder, weights=weights)
        for name, (builder, weights) in audit.PRESETS.items()
    },
    lambda box, hand: hand.choose(labelled(box, "builder"), "fcos_resnet50_fpn"),
    partial(audit_shows, builder="fcos_resnet50_fpn", weights="pretrained"),
)
SCALING = Explorer(
    "scaling",
    {name: partial(scaling_shows, emitted=emitted) for name, emitted in feeding.PRESETS.items()},
    lambda box, hand: hand.choose(labelled(box, "the loader emits"), "keras-caffe"),
    partial(scaling_shows, emitted="keras-caffe"),
)


def after_first(label: str, option: str, box, hand) -> None:
    """A choice at the first preset: the presets set these explorers' other controls."""
    hand.press(box.locator(".widget-toggle-button").first)
    hand.choose(labelled(box, label), option)


READING = Explorer(
    "reading",
    {
        name: partial(reading_shows, state=reading.State(read))
        for name, read in reading.NAMES.items()
    },
    partial(after_first, "score", "COCO AP"),
    partial(reading_shows, state=reading.State(score="ap")),
)
CURVES = Explorer(
    "curves",
    {name: partial(curves_show, state=state) for name, state in curves.PRESETS.items()},
    partial(after_first, "beside", "frozen"),
    partial(curves_show, state=curves.State(beside=("frozen", 16))),
)
PYRAMID = Explorer(
    "pyramid",
    {name: partial(pyramid_shows, state=state) for name, state in pyramid.PRESETS.items()},
    partial(after_first, "level", "P5"),
    partial(pyramid_shows, state=pyramid_levels.PyramidState(pyramid.FIRST, "P5")),
)
COST = Explorer(
    "cost",
    {name: partial(cost_shows, state=state) for name, state in cost.presets().items()},
    partial(after_first, "batch", "2"),
    partial(cost_shows, state=cost.presets()["a layer"]._replace(batch=2)),
)
NMS = Explorer(
    "nms",
    {name: partial(nms_shows, state=state) for name, state in nms.PRESETS.items()},
    partial(after_first, "IoU", "0.7"),
    partial(nms_shows, state=nms.PRESETS["1 class"]._replace(iou=0.7)),
)
EXPLORERS = {
    "01_two_backbones": (gain_of("ResNet-50"), NORM),
    "02_batchnorm": (BATCH,),
    "03_frozen_batchnorm": (gain_of("Lite0"), AUDIT),
    "04_small_batches": (READING, CURVES),
    "05_input_scaling": (SCALING,),
    "06_faster_rcnn_backbone": (PYRAMID,),
    "07_where_the_time_goes": (COST, NMS),
}
