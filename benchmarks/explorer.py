"""What a reader of the NormExplorer waits for, and what it keeps in memory."""

import random
import sys
from dataclasses import replace
from functools import partial
from itertools import count, cycle
from statistics import median

import torch
from helpers.course.explorers.side_by_side import EPS_0, FROZEN, PRESETS, Side, variants, view
from torch import nn
from tqdm import tqdm

from benchmarks import browser
from benchmarks.memory import rss_mb
from benchmarks.report import emit, settle, skip
from benchmarks.timing import medians
from helpers.course.explorers.norm import NormExplorer, frame
from helpers.inputs import photos
from helpers.norms import KINDS
from helpers.stages import STAGES

BASE = PRESETS["Today"]  # ResNet-50, and ResNet-50 frozen


def rss_growth_mb(toggles: int) -> float:
    """Measure the memory that random toggles add once every kind has been in every stage."""
    explorer = NormExplorer()
    choices = [(number, kind) for number in range(len(STAGES)) for kind in KINDS]

    def toggle(side: str, number: int, kind: str) -> None:
        explorer.sides[side].kinds[number].value = kind

    for choice in choices:
        toggle("b", *choice)
    before, generator = rss_mb(), random.Random(0)
    for _ in tqdm(range(toggles), "random toggles", disable=None):
        toggle(generator.choice("ab"), *generator.choice(choices))
    return rss_mb() - before


def toggle_over_forward(rounds: int) -> float:
    """Time an uncached toggle without its picture, over a bare pass of the recomputed stages.

    The ratio is the median over the five stages whose kind can change.
    """
    return median(
        _toggle_over_forward(number, rounds)
        for number in tqdm(range(len(STAGES)), "toggled stages", disable=None)
    )


def _toggle_over_forward(number: int, rounds: int) -> float:
    image, networks, names = photos.load("cat"), variants(BASE.b.network), count()
    kinds = (*BASE.b.kinds[:number], EPS_0, *BASE.b.kinds[number + 1 :])
    stages = [networks.part(*choice) for choice in zip(STAGES, kinds, strict=True)]
    recomputed, state = nn.Sequential(*stages[number:]), BASE
    with torch.inference_mode():
        entry = nn.Sequential(*stages[:number])(networks.normalize(image))

    def show_base():
        nonlocal state
        state = replace(BASE, photo=f"{number} {next(names)}")  # by this name, nothing is cached
        view(state, image)

    def toggle():
        view(replace(state, b=Side(BASE.b.network, kinds)), image)

    @torch.inference_mode()
    def forward():
        recomputed(entry)

    seconds = medians({"toggle": toggle, "forward": forward}, rounds, before=show_base)
    return seconds["toggle"] / seconds["forward"]


def picture_ms(rounds: int) -> float:
    """Time all panels of a view, at the preset and stage where they take longest."""
    image = photos.load("cat")
    states = [replace(preset, stage=stage) for preset in PRESETS.values() for stage in STAGES]
    calls = {state: partial(frame, state, view(state, image)) for state in states}
    return 1000 * max(medians(calls, rounds).values())


def cached_toggle_ms(rounds: int) -> float:
    """Time a control that is set back to what is cached, until its picture is there."""
    explorer, kinds = NormExplorer(), cycle([FROZEN, EPS_0])

    def toggle():
        before, explorer.sides["b"].kinds[0].value = explorer.frame, next(kinds)
        assert explorer.frame != before, "without an event loop, a change draws at once"

    medians({"": toggle}, 2)
    return 1000 * medians({"": toggle}, rounds)[""]


def click_to_paint_ms(rounds: int) -> float:
    """Time a click on a stage's button, which needs no forward pass, until the frame is painted."""
    source = "from helpers.course.explorers.norm import NormExplorer\nNormExplorer()"
    with browser.page(source) as page:
        times = [
            browser.click_to_paint(page, stage)
            for _ in tqdm(range(rounds + 1), "rounds of clicks", disable=None)
            for stage in STAGES
        ]
    return median(times[len(STAGES) :])  # after a round in which everything happens first


def main() -> int:
    """Measure and print all; return 1 if something cannot be measured in CI."""
    settle()
    emit("rss_growth_mb", rss_growth_mb(toggles=500), "MB", 50)  # first, from a small process
    emit("toggle_over_forward", toggle_over_forward(rounds=15), "×", 1.25)
    emit("picture_ms", picture_ms(rounds=25), "ms", 25)
    emit("cached_toggle_ms", cached_toggle_ms(rounds=50), "ms", 30)
    click = dict(name="click_to_paint_ms", unit="ms", limit=150)
    if not browser.CHROMIUM:
        return skip(**click, reason="Chromium is not installed.")
    emit(**click, value=click_to_paint_ms(rounds=5))
    return 0


if __name__ == "__main__":
    sys.exit(main())
