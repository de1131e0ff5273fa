"""CurvesExplorer: loss and recall while the detector is fine-tuned, every run a line."""

from functools import lru_cache, partial
from typing import NamedTuple

from PIL import Image

from helpers.course.explorers.canvas import AXIS, Canvas, palette, tick_words, ticks
from helpers.course.explorers.reading import KINDS, LOOKS, SIZES
from helpers.course.explorers.stored import Stored, dropdown
from helpers.course.stored.runs import RATE, Rows, load_runs
from helpers.figures import BLACK

HEIGHT = 350
TOP, BOTTOM = 66, 290  # of both panels, px
LOSS, RECALL = (52, 380), (460, 788)  # left and right edges, px
GRID = "#E8E8E8"
PALE = {"moving average": "#F0C0A4", "own": "#A9CCE5", "stored": "#C2C6CA", "loss": "#C2C6CA"}
ALL = [(kind, size) for kind in KINDS for size in SIZES] + [("frozen", 16), ("eval", 16)]
WHAT_IT_IS = (
    "Thin: each run; thick: their mean; pale: the mean of the runs beside. Loss: of training, mean "
    "of 10 updates, computed with the statistics of training. Recall: 60 scenes."
)
Curve = dict[int, list[float]]


class State(NamedTuple):
    """Which runs (kind, B) are shown, which are compared with, on which shift."""

    runs: tuple[str, int] = ("train", 1)
    beside: tuple[str, int] = ("train", 16)
    shift: str = "texture and light"


PRESETS = {
    "train, B = 1": State(("train", 1)),
    "train, B = 16": State(("train", 16), ("train", 1)),
    "frozen": State(("frozen", 16)),
    "eval": State(("eval", 16)),
}


def picture(rows: Rows, state: State) -> tuple[bytes, str]:
    """Loss and recall by update, as a palette PNG of 800 × 350 px; a sentence with key numbers.

    `rows`: those of "curves". The axes depend on the shift only. ValueError if no such run is
    stored.
    """
    shown, beside = (_curves(rows, state.shift, *runs) for runs in (state.runs, state.beside))
    here = [row for row in rows if row["shift"] == state.shift and row["rate"] == RATE]
    canvas = Canvas(HEIGHT, _palette())
    title = f'{_name(state.runs)}, shift "{state.shift}"'
    for (left, right), column, words in (
        (LOSS, "loss", "Training loss"),
        (RECALL, "recall", "Recall"),
    ):
        values = [row[column] for row in here if (row["kind"], row["batch_size"]) in ALL]
        axes = _Axes(left, right, min(values), max(values), max(row["update"] for row in here))
        axes.draw(canvas, words, title)
        for reading, curve in beside[column].items():
            pale = PALE["loss" if column == "loss" else reading]
            canvas.line(axes.points(_mean(curve)), pale, 3)
        for reading, curve in shown[column].items():
            color = BLACK if column == "loss" else LOOKS[reading][0]
            for number in range(len(next(iter(curve.values())))):
                canvas.line(axes.points({u: runs[number] for u, runs in curve.items()}), color, 0.5)
            canvas.line(axes.points(_mean(curve)), color, 2.5)
    _draw_key(canvas, list(shown["recall"]), state.beside)
    return canvas.png(), _sentence(state, shown, beside)


class CurvesExplorer(Stored):
    """The stored learning curves, one kind and batch size at a time; shows itself as a last line.

    FileNotFoundError if the stored curves are missing.
    """

    def __init__(self):
        rows = load_runs("curves")
        every = [(_name(runs), runs) for runs in ALL]
        controls = [
            dropdown(every, "runs", "19em"),
            dropdown(every, "beside", "19em", ("train", 16)),
            dropdown(list(dict.fromkeys(row["shift"] for row in rows)), "shift", "15em"),
        ]
        super().__init__(
            "curves",
            PRESETS,
            controls,
            partial(picture, rows),
            HEIGHT,
            ("Loss and recall by update", WHAT_IT_IS),
        )


class _Axes(NamedTuple):
    """A panel: its left and right edge, the values at its bottom and top, the last update."""

    left: float
    right: float
    low: float
    high: float
    last: int

    def points(self, curve: dict[int, float]) -> list[tuple[float, float]]:
        return [(self._across(update), self._up(value)) for update, value in curve.items()]

    def _across(self, update: float) -> float:
        return self.left + (self.right - self.left) * update / self.last

    def _up(self, value: float) -> float:
        return BOTTOM - 6 - (BOTTOM - TOP - 12) * (value - self.low) / (self.high - self.low)

    def draw(self, canvas: Canvas, words: str, title: str) -> None:
        for tick in ticks(self.low, self.high, 5):
            canvas.line([(self.left, self._up(tick)), (self.right, self._up(tick))], GRID)
            canvas.text(self.left - 7, self._up(tick), tick_words(tick), "rm")
        canvas.line([(self.left, TOP), (self.left, BOTTOM), (self.right, BOTTOM)], AXIS)
        for tick in range(0, self.last + 1, 10):
            canvas.line([(self._across(tick), BOTTOM), (self._across(tick), BOTTOM + 4)], AXIS)
            canvas.text(self._across(tick), BOTTOM + 9, str(tick), "mt")
        canvas.text((self.left + self.right) / 2, BOTTOM + 28, "updates", "mt")
        canvas.text(self.left - 44, 4, words, "lt", 15)
        canvas.text(self.left - 44, 26, title, "lt")


def _curves(rows: Rows, shift: str, kind: str, size: int) -> dict[str, dict[str, Curve]]:
    """ "loss" and "recall" → way of reading → update → values by seed."""
    found: dict[str, dict[str, Curve]] = {"loss": {}, "recall": {}}
    for row in rows:
        asked = row["kind"], row["batch_size"], row["shift"], row["rate"]
        if asked == (kind, size, shift, RATE):
            for column in ("loss", "recall"):
                curve = found[column].setdefault(row["statistics"], {})
                curve.setdefault(row["update"], []).append(row[column])
    if not found["loss"]:
        raise ValueError(
            f'No run "{_name((kind, size))}" is stored for the shift "{shift}": choose other runs '
            "or another shift."
        )
    found["loss"] = dict(list(found["loss"].items())[:1])  # the same for every way of reading
    return found


def _mean(curve: Curve) -> dict[int, float]:
    return {update: sum(values) / len(values) for update, values in curve.items()}


def _name(which: tuple[str, int]) -> str:
    kind, size = which
    return f"{kind}, B = {size}" if kind in KINDS else kind


def _draw_key(canvas: Canvas, readings: list[str], beside: tuple[str, int]) -> None:
    x = RECALL[0] + 70
    for reading in readings:
        color = LOOKS[reading][0]
        canvas.line([(x, 13), (x + 20, 13)], color, 2.5)
        canvas.text(x + 26, 13, reading, "lm", 13)
        x += 150 if reading == "moving average" else 90
    canvas.line([(LOSS[0] + 90, 13), (LOSS[0] + 110, 13)], PALE["loss"], 3)
    canvas.text(LOSS[0] + 116, 13, f"beside: {_name(beside)} (pale)", "lm", 13)


def _sentence(state: State, shown, beside) -> str:
    def last(curves) -> str:
        return ", ".join(
            f"{_last(curve):.3f} ({reading})" for reading, curve in curves["recall"].items()
        )

    name, other_name = _name(state.runs), _name(state.beside)
    (loss,), (other,) = shown["loss"].values(), beside["loss"].values()
    count = len(next(iter(loss.values())))
    return (
        f'{name}, shift "{state.shift}", {count} runs: the loss of the last 10 updates is '
        f"{_last(loss):.3f}, recall on 60 scenes then {last(shown)}. Beside: {other_name}, loss "
        f"{_last(other):.3f}, recall {last(beside)}."
    )


def _last(curve: Curve) -> float:
    return _mean(curve)[max(curve)]


@lru_cache
def _palette() -> Image.Image:
    colors = sorted({color for color, _ in LOOKS.values()} | {AXIS, GRID, *PALE.values()})
    return palette([("white", color) for color in colors], 14)
