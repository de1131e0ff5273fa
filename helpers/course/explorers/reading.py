"""ReadingExplorer: the same weights, read with four kinds of statistics, every run a dot."""

from functools import lru_cache, partial
from typing import NamedTuple

from PIL import Image

from helpers.course.explorers.canvas import AXIS, Canvas, palette, tick_words, ticks
from helpers.course.explorers.stored import Stored, dropdown
from helpers.course.stored.runs import (
    RATE,
    SCORES,
    STATISTICS_SOURCES,
    Rows,
    by_seed,
    load_runs,
    mean,
)
from helpers.figures import BLACK, BLUE, GREEN, ORANGE

HEIGHT = 400
LEFT, RIGHT, TOP, BOTTOM = 62, 640, 66, 340  # of the axes, px
SIZES = (1, 2, 4, 16)
FIXED = ("frozen", "eval")  # kinds whose statistics stay, in two columns at the right
COLUMNS = (*(f"B = {size}" for size in SIZES), *FIXED)
PALE = "#C9CDD1"
LOOKS = {  # the color and the shape of each way of reading
    "moving average": (ORANGE, "disc"),
    "moving average, corrected": ("#A0568A", "diamond"),
    "recalibrated": (GREEN, "triangle"),
    "own": (BLUE, "square"),
    "stored": (BLACK, "disc"),
}
NAMES = {  # of the presets
    "moving average": "moving average",
    "corrected momentum": "moving average, corrected",
    "recalibrated": "recalibrated",
    "each batch's own": "own",
}
WORDS = {"recall": "recall", "ap": "COCO AP", "false_positives": "wrong boxes per image"}
KINDS = ("train", "train, affine frozen")
WHAT_IT_IS = (
    "Every dot is a run, trained ahead and stored. Dashed: the detector before any fine-tuning, "
    "read in the same way (color) and as it came (black)."
)


class State(NamedTuple):
    """Which runs are shown, by which score, and which way of reading stands out."""

    reading: str = "moving average"
    shift: str = "texture and light"
    kind: str = "train"
    score: str = "recall"


def picture(rows: Rows, state: State) -> tuple[bytes, str]:
    """The runs of one kind and shift by batch size, as a palette PNG of 800 × 400 px; a sentence.

    The axes depend on the shift, the kind and the score only. ValueError if no such run is stored.
    """
    dots = _dots(rows, state)
    before = _untrained(rows, state)
    canvas = Canvas(HEIGHT, _palette())
    values = [v for column in dots.values() for runs in column.values() for v in runs.values()]
    values += [v for reading in (*STATISTICS_SOURCES, "as it came") for v in before[reading]]
    room = 0.06 * (max(values) - min(values))
    low, high = min(values) - room, max(values) + room

    def row(value):
        return BOTTOM - (BOTTOM - TOP) * (value - low) / (high - low)

    _draw_axes(canvas, state, low, high, row)
    for reading in (r for r in STATISTICS_SOURCES if r != state.reading):
        _draw_runs(canvas, dots[reading], row, PALE, LOOKS[reading][1])
    _draw_untrained(canvas, before, state.reading, row)
    _draw_runs(canvas, dots["stored"], row, *LOOKS["stored"])
    _draw_runs(canvas, dots[state.reading], row, *LOOKS[state.reading], joined=True)
    _draw_numbers(canvas, dots[state.reading], row, LOOKS[state.reading][0])
    _draw_key(canvas, state)
    return canvas.png(), _sentence(state, dots, before)


class ReadingExplorer(Stored):
    """The stored runs, read in one of four ways; shows itself as a cell's last line.

    FileNotFoundError if the stored runs are missing.
    """

    def __init__(self):
        rows = load_runs()
        shifts = list(dict.fromkeys(row["shift"] for row in rows))
        controls = [
            dropdown([(name, r) for name, r in NAMES.items()], "read with", "20em"),
            dropdown(shifts, "shift", "15em"),
            dropdown(list(KINDS), "kind", "15em"),
            dropdown([(WORDS[score], score) for score in SCORES], "score", "16em"),
        ]
        super().__init__(
            "reading",
            {name: State(reading) for name, reading in NAMES.items()},
            controls,
            partial(picture, rows),
            HEIGHT,
            ("Scores by batch size", WHAT_IT_IS),
        )


def _dots(rows: Rows, state: State) -> dict[str, dict[str, dict[int, float]]]:
    """Way of reading → column → seed → score; "stored": the kinds whose statistics stay."""
    asked = {"shift": state.shift, "rate": RATE}
    wanted = {"kind": state.kind, **asked}.items()
    stored = {row["batch_size"] for row in rows if wanted <= row.items()}
    if not stored:
        raise ValueError(
            f'No run of the kind "{state.kind}" is stored for the shift "{state.shift}": choose '
            "another kind or shift."
        )
    found = {
        reading: {
            f"B = {size}": by_seed(
                rows, state.score, kind=state.kind, batch_size=size, statistics=reading, **asked
            )
            for size in sorted(stored)
        }
        for reading in STATISTICS_SOURCES
    }
    found["stored"] = {
        kind: by_seed(rows, state.score, kind=kind, batch_size=16, statistics="stored", **asked)
        for kind in FIXED
    }
    return found


def _untrained(rows: Rows, state: State) -> dict[str, tuple[float, ...]]:
    """Way of reading → mean score before any fine-tuning, for each batch size."""
    asked = {"kind": "untrained", "shift": state.shift}

    def score(statistics):
        return mean(by_seed(rows, state.score, statistics=statistics, **asked))

    same = {"moving average": "moving average", "moving average, corrected": "moving average"}
    same |= {"recalibrated": "recalibrated", "as it came": "moving average"}
    found = {reading: (score(name),) * len(SIZES) for reading, name in same.items()}
    return found | {"own": tuple(score(f"own, {size}") for size in SIZES)}


def _column(number: float) -> float:
    """The middle of a column, px; the two at the right stand apart."""
    width = (RIGHT - LEFT) / (len(COLUMNS) + 0.4)
    return LEFT + width * (number + 0.5 + (0.4 if number >= len(SIZES) else 0))


def _draw_axes(canvas: Canvas, state: State, low, high, row) -> None:
    for tick in ticks(low, high, 6):
        canvas.line([(LEFT, row(tick)), (RIGHT, row(tick))], "#E8E8E8")
        canvas.text(LEFT - 8, row(tick), tick_words(tick), "rm")
    canvas.line([(LEFT, TOP), (LEFT, BOTTOM), (RIGHT, BOTTOM)], AXIS)
    between = (_column(len(SIZES) - 1) + _column(len(SIZES))) / 2
    canvas.line([(between, TOP), (between, BOTTOM + 30)], AXIS)
    for number, name in enumerate(COLUMNS):
        canvas.text(_column(number), BOTTOM + 9, name, "mt")
    canvas.text(
        (LEFT + between) / 2, BOTTOM + 30, f"{state.kind}: B images normalized together", "mt"
    )
    canvas.text((between + RIGHT) / 2, BOTTOM + 30, "statistics stay", "mt")
    canvas.text(8, 4, f"{WORDS[state.score][:1].upper()}{WORDS[state.score][1:]}", "lt", 15)
    canvas.text(8, 26, f'600 scenes, shift "{state.shift}"', "lt")


def _draw_runs(canvas: Canvas, columns, row, color, shape, joined=False) -> None:
    if joined:
        means = [(_column(COLUMNS.index(c)), row(mean(runs))) for c, runs in columns.items()]
        canvas.line(means, color, 2)
    for column, runs in columns.items():
        middle = _column(COLUMNS.index(column))
        for number, value in enumerate(runs.values()):
            across = middle + 5 * (number - (len(runs) - 1) / 2)
            _mark(canvas, shape, across, row(value), color)


def _mark(canvas: Canvas, shape: str, x: float, y: float, color: str) -> None:
    r = 4.5
    corners = {
        "square": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
        "diamond": [(0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)],
        "triangle": [(0, -1.3), (1.2, 1), (-1.2, 1)],
    }
    if shape == "disc":
        return canvas.disc(x, y, r + 1, color)
    for size, shade in ((r + 1, "white"), (r, color)):
        canvas.polygon([(x + size * a, y + size * b) for a, b in corners[shape]], shade)


def _draw_untrained(canvas: Canvas, before, reading: str, row) -> None:
    half = (_column(1) - _column(0)) / 2
    came = row(before["as it came"][0])
    canvas.dashed((LEFT, came), (RIGHT, came), BLACK)
    labels = [(came, "before, as it came", BLACK)]
    if before[reading] != before["as it came"]:
        color = LOOKS[reading][0]
        for number, value in enumerate(before[reading]):
            x = _column(number)
            canvas.dashed((x - half, row(value)), (x + half, row(value)), color, 2)
        labels.append((row(before[reading][-1]), "before, read so", color))
    labels.sort()
    for number, (y, words, color) in enumerate(labels):
        if number and y - labels[0][0] < 17:
            y = labels[0][0] + 17
        canvas.text(RIGHT + 8, y, words, "lm", 13, color)


def _draw_numbers(canvas: Canvas, columns, row, color) -> None:
    for column, runs in columns.items():
        x, lowest = _column(COLUMNS.index(column)), min(runs.values())
        highest = max(runs.values())
        below = row(lowest) + 20 < BOTTOM
        y, anchor = (row(lowest) + 9, "mt") if below else (row(highest) - 9, "mb")
        top = y - 1 if below else y - 15
        canvas.box(x - 16, top, x + 16, top + 16, "white")
        canvas.text(x, y, f"{mean(runs):.2f}", anchor, 13, color)


def _draw_key(canvas: Canvas, state: State) -> None:
    names = {reading: name for name, reading in NAMES.items()}
    for number, (reading, name) in enumerate(names.items()):
        x, y = RIGHT - 330 + 190 * (number % 2), 14 + 20 * (number // 2)
        color = LOOKS[reading][0] if reading == state.reading else PALE
        _mark(canvas, LOOKS[reading][1], x, y, color)
        canvas.text(x + 12, y, name, "lm", 13, BLACK)


def _sentence(state: State, dots, before) -> str:
    columns = dots[state.reading]
    count = len(next(iter(columns.values())))
    values = ", ".join(f"{mean(runs):.3f} at {column}" for column, runs in columns.items())
    stays = ", ".join(f"{kind} {mean(runs):.3f}" for kind, runs in dots["stored"].items())
    name = next(name for name, reading in NAMES.items() if reading == state.reading)
    own = before[state.reading]
    same = len({*own}) == 1
    read_so = f"{own[0]:.3f}" if same else ", ".join(f"{value:.3f}" for value in own)
    return (
        f'Shift "{state.shift}", {state.kind}, read with {name}: mean {WORDS[state.score]} of '
        f"{count} runs {values}. Before fine-tuning: {read_so} read so, "
        f"{before['as it came'][0]:.3f} as it came. Statistics that stay: {stays}."
    )


@lru_cache
def _palette() -> Image.Image:
    colors = {color for color, _ in LOOKS.values()} | {AXIS, PALE, "#E8E8E8"}
    return palette([("white", color) for color in sorted(colors)], 14)
