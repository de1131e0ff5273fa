"""CostExplorer: the stored time of each way to normalize, and what the memory's speed allows."""

from typing import NamedTuple

from helpers.course.explorers.canvas import AXIS, Canvas, palette
from helpers.course.explorers.stored import Stored, dropdown
from helpers.course.stored.costs import BASE, BOTH, FORWARD, SUBJECTS, Cost, costs, devices
from helpers.figures import BLACK, BLUE, ORANGE

HEIGHT = 360
TOP, STEP = 58, 32  # of the bars, px
NAMES, LEFT, RIGHT = 10, 180, 530  # px
PALE, SPREAD = "#C9DDEC", "#777777"
BATCHES, DTYPES = (1, 2, 8), ("float32", "bfloat16", "float16")
WHAT_IT_IS = (
    "Bars: median time. Beside them: the ratio over BatchNorm in eval mode, measured round by "
    "round, with its spread, which the gray line shows; a pale bar's effect is no larger. Black "
    "mark: the time that the bytes it has to move take at the speed of copying. Nothing is "
    "measured here."
)


class State(NamedTuple):
    """Where a way to normalize was measured: see helpers.course.stored.costs.costs."""

    device: str
    subject: str
    batch: int = 8
    dtype: str = "float32"
    step: str = FORWARD


def presets() -> dict[str, State]:
    first, last = list(devices())[0], list(devices())[-1]
    return {
        "a layer": State(first, "layer1"),
        "with backward": State(first, "layer1", step=BOTH),
        "the body": State(first, "body"),
        "body, backward": State(first, "body", step=BOTH),
        "body, half": State(first, "body", 8, "bfloat16", BOTH),
        "last device": State(last, "layer1", 1),
    }


def picture(state: State) -> tuple[bytes, str]:
    """A bar for each way, as a palette PNG of 800 × 360 px; a sentence with the ratios.

    ValueError where nothing was measured.
    """
    found = costs(*state)
    canvas = Canvas(
        HEIGHT, palette([(c, "#FFFFFF") for c in (BLACK, BLUE, ORANGE, PALE, SPREAD, AXIS)])
    )
    base = next(cost.ms for cost in found if cost.way == BASE)
    longest = max(max(cost.ms + cost.spread * base / 2, cost.least or 0) for cost in found)
    where = f"{state.subject}, batch {state.batch}, {state.dtype}, {state.step}"
    canvas.text(NAMES, 12, f"{where}: {state.device}", "lt", 15)
    canvas.text(RIGHT + 12, 38, "over BN eval", "lt", 12)

    def column(ms: float) -> float:
        return LEFT + (RIGHT - LEFT) * ms / longest

    for number, cost in enumerate(found):
        y = TOP + STEP * number + STEP // 2
        color = ORANGE if cost.way == BASE else BLUE if cost.is_resolved else PALE
        canvas.box(LEFT, y - 9, column(cost.ms), y + 9, color)
        half = cost.spread * base / 2
        canvas.box(column(max(0, cost.ms - half)), y - 1, column(cost.ms + half), y + 1, SPREAD)
        if cost.least is not None:
            canvas.box(column(cost.least) - 1, y - 13, column(cost.least) + 1, y + 13, BLACK)
        canvas.text(NAMES, y, cost.way)
        canvas.text(RIGHT + 12, y, f"{cost.ms:.3g} ms · {cost.words}", size=12)
    bottom = TOP + STEP * len(found) + 4
    canvas.line([(LEFT, TOP - 4), (LEFT, bottom)], AXIS)
    return canvas.png(), _sentence(where, state.device, found)


class CostExplorer(Stored):
    """The stored costs, one layer or network at a time; shows itself as a last line.

    FileNotFoundError if no device has a file.
    """

    error_height = 2.8  # em: its message takes two lines

    def __init__(self):
        controls = [
            dropdown(list(devices()), "device", "22em"),
            dropdown(list(SUBJECTS), "where", "11em", "layer1"),
            dropdown(list(BATCHES), "batch", "8.5em", 8),
            dropdown(list(DTYPES), "dtype", "11em"),
            dropdown([FORWARD, BOTH], "pass", "14em"),
        ]
        super().__init__(
            "cost", presets(), controls, picture, HEIGHT, ("Time by way to normalize", WHAT_IT_IS)
        )


def _sentence(where: str, device: str, found: list[Cost]) -> str:
    others = [cost for cost in found if cost.way != BASE]
    ratios = "; ".join(f"{cost.way} {cost.words}" for cost in others if cost.is_resolved)
    words = f"{where}, on {device}. Time over {BASE}: {ratios or 'nothing to tell'}."
    if same := [cost.way for cost in others if not cost.is_resolved]:
        words += f" Not told apart: {'; '.join(same)}."
    kept: dict[str, list[str]] = {}
    for cost in found:
        if cost.kept:
            kept.setdefault(f"{cost.kept / 2**20:,.0f}", []).append(cost.way)
    if kept:
        each = ". ".join(f"{number}: {'; '.join(ways)}" for number, ways in kept.items())
        words += f" MiB kept for backward, {each}."
    return words
