"""What a reader of the explorers waits for, and what they keep in memory."""

import random
import sys
from collections.abc import Callable
from functools import partial
from itertools import count, cycle
from statistics import median
from time import perf_counter

import torch
from torch import nn
from tqdm import tqdm

from benchmarks import browser
from benchmarks.memory import rss_mb
from benchmarks.report import emit, settle, skip
from benchmarks.timing import medians
from helpers.course.explorers.batch import BatchExplorer
from helpers.course.explorers.explorer import Explorer
from helpers.course.explorers.norm import NormExplorer
from helpers.course.explorers.pyramid import PyramidExplorer
from helpers.course.explorers.scaling import ScalingExplorer
from helpers.course.explorers.variants import FROZEN, IDENTITY, KINDS, RUNNING
from helpers.inputs import photos
from helpers.stages import STAGES

LIVE = NormExplorer, BatchExplorer, ScalingExplorer, PyramidExplorer  # those that ask Python
NETWORK = "ResNet-50"


def asked(explorer: Explorer, state: dict) -> dict:
    """Put a question as the page does, and return the answer."""
    answers = []
    explorer.send = lambda content, buffers=None: answers.append(content)
    explorer._answer(explorer, {"id": 1, "state": state}, [])
    return answers[-1]


def random_states(explorer: Explorer, generator: random.Random):
    """Endless changes, one at a time, of what the controls offer."""
    state = dict(explorer.presets[0]["state"])
    offers = {one["trait"]: one["options"] for one in explorer.spec["controls"] if one["options"]}
    while True:
        trait = generator.choice(list(offers))
        state[trait] = generator.choice(offers[trait])
        if trait == "kind_b":
            state["kinds_b"] = [generator.choice(KINDS) for _ in STAGES]
        if trait == "stage":
            state["channel"] = generator.randrange(8)
        yield dict(state)


def rss_growth_mb(kind: Callable[[], Explorer], events: int) -> float:
    """Measure the memory that random questions add.

    Everything that is kept up to a bound is there before: 300 questions come first.
    """
    explorer = kind()
    states = random_states(explorer, random.Random(0))
    for _ in tqdm(range(300), f"{kind.__name__}, first", disable=None):
        asked(explorer, next(states))
    before = rss_mb()
    for _ in tqdm(range(events), f"{kind.__name__}, questions", disable=None):
        asked(explorer, next(states))
    return rss_mb() - before


def burst_seconds(kind: Callable[[], Explorer]) -> float:
    """Time 200 changes of a trait from Python, each drawn, as a linked control makes them."""
    explorer = kind()
    states = random_states(explorer, random.Random(1))
    start = perf_counter()
    for _ in range(200):
        for name, value in next(states).items():
            setattr(explorer, name, value)
    asked(explorer, explorer.state)  # of a burst, the page asks for the last one
    return perf_counter() - start


def toggle_over_forward(rounds: int) -> float:
    """Time an uncached toggle, its frame included, over a bare pass of the recomputed stages.

    The ratio is the median over the five stages whose kind can change.
    """
    explorer = NormExplorer()
    return median(
        _toggle_over_forward(explorer, number, rounds)
        for number in tqdm(range(len(STAGES)), "toggled stages", disable=None)
    )


def _toggle_over_forward(explorer: NormExplorer, number: int, rounds: int) -> float:
    network, names = explorer._network(NETWORK), count()
    image = photos.load("cat")
    kinds = [RUNNING] * len(STAGES)
    toggled = [*kinds[:number], FROZEN, *kinds[number + 1 :]]
    x, eps = network.normalize(image), 0.0
    stages = [network.part(*one, eps) for one in zip(STAGES, toggled, strict=True)]
    recomputed = nn.Sequential(*stages[number:])
    with torch.inference_mode():
        entry = nn.Sequential(*stages[:number])(x)
    key = None

    def untoggled():
        nonlocal key
        key = f"{number} {next(names)}"  # by this name, nothing is cached
        network.maps(key, x, tuple(kinds), eps)

    def toggle():
        network.maps(key, x, tuple(toggled), eps)

    @torch.inference_mode()
    def forward():
        recomputed(entry)

    seconds = medians({"toggle": toggle, "forward": forward}, rounds, before=untoggled)
    return seconds["toggle"] / seconds["forward"]


def cached_toggle_ms(rounds: int) -> float:
    """Time a control that is set back to what is cached, until its frame is there."""
    explorer, kinds = NormExplorer(), cycle([FROZEN, IDENTITY])
    state = explorer.presets[0]["state"] | {"network": NETWORK}

    def toggle():
        assert "frame" in asked(explorer, state | {"kinds_b": [next(kinds)] * len(STAGES)})

    medians({"": toggle}, 2)
    return 1000 * medians({"": toggle}, rounds)[""]


def click_to_paint_ms(rounds: int, live: bool) -> float:
    """Time a switch of a stage until it is painted: by Python, or in the page alone."""
    source = "from helpers.course.explorers.norm import NormExplorer\nNormExplorer()"
    with browser.page(source) as page:
        if live:
            browser.preset(page, "ResNet-50, today")
        kinds = KINDS[:2] if live else KINDS[:3]
        times = [
            browser.choice_to_paint(page, "B: layer4", kinds[number % len(kinds)])
            for number in tqdm(range(1, 5 * rounds), "choices", disable=None)
        ]
    return median(times[len(kinds) :])  # after a round in which everything happens first


def main() -> int:
    """Measure and print all; return 1 if something cannot be measured in CI."""
    settle()
    for kind in LIVE:
        name = "" if kind is NormExplorer else f" {kind.__name__}"
        emit(f"rss_growth_mb{name}", rss_growth_mb(kind, 2000), "MB", 50)
        emit(f"burst_s{name}", burst_seconds(kind), "s", 5)
    emit("toggle_over_forward", toggle_over_forward(rounds=15), "×", 1.25)
    emit("cached_toggle_ms", cached_toggle_ms(rounds=50), "ms", 30)
    for name, live, limit in (("click_to_paint_ms", True, 150), ("in_page_ms", False, 50)):
        measure = partial(click_to_paint_ms, 5, live)
        if not browser.CHROMIUM:
            return skip(name=name, unit="ms", limit=limit, reason="Chromium is not installed.")
        emit(name, measure(), "ms", limit)
    return 0


if __name__ == "__main__":
    sys.exit(main())
