"""ScalingExplorer: what the loader emits, what the network expects, and what it then detects."""

from functools import lru_cache

import ipywidgets as W
import numpy as np
from PIL import ImageColor
from torchvision.models.detection import FasterRCNN

from helpers.compare import ROUNDING
from helpers.course.explorers.canvas import AXIS, font, tick_words, ticks
from helpers.course.explorers.feeding import (
    PRESETS,
    Box,
    Feeding,
    Histogram,
    ScalingState,
    View,
    between,
    formats,
    percent,
    pictures,
    two_digits,
)
from helpers.course.explorers.overlay import Collage, Tags, dashed, outlined, photo_pixels
from helpers.course.explorers.pictured import Pictured
from helpers.figures import BLACK, BLUE, ORANGE
from helpers.inputs.scenes import CLASSES, SIZE
from helpers.networks.detector import load_detector

HEIGHT = 484
PHOTO, TOP = 10, 46  # left and upper edge of the image, px
ENLARGED = 3
LEFT, RIGHT = 444, 788  # of what stands at the right, px
TRACK = 506, 712  # of the bars, px
LEAST, MOST = -3, 3  # decades at the ends of the bars
SECOND, THIRD = 158, 316  # where the lower two panels start, px
PLOT = 72  # height of a histogram, px
FILL, TRACK_FILL = "#9CC5E0", "#E4E4E4"
FALSE = "#B34700"  # ORANGE, dark enough for white words
MOST_BOXES = 12
FIRST = "scene 1"  # in which the presets differ
WHAT_IT_IS = (
    "The detector takes RGB in 0–1 and normalizes it itself. What the loader emits is converted to "
    "that from the format which the network is told; where the two differ, it gets another image."
)


def picture(view: View) -> bytes:
    """The image with its boxes, both histograms, a bar per stage: a palette PNG of 800 × 484 px."""
    canvas = Collage(HEIGHT, _colors())
    _draw_image(canvas, view)
    _draw_histogram(canvas, 0, "What enters the first convolution", view.entering)
    _draw_histogram(canvas, SECOND, "What the first convolution gives", view.leaving)
    _draw_bars(canvas, view)
    return canvas.png()


class ScalingExplorer(Pictured):
    """A loader, the format the scene detector is told, and a picture; shows itself as a last line.

    `model`: the detector if it is loaded already, which saves memory; None loads it. A change costs
    one forward pass; when the picture changed, each preset is then drawn anew, one pass at a time.
    See helpers.course.explorers.stored for what it holds.

    TypeError or ValueError for a model that is no scene detector in eval mode; RuntimeError if the
    detector's weights are missing.
    """

    def __init__(self, model: FasterRCNN | None = None):
        self._feeding = Feeding(load_detector() if model is None else model)
        self._feeding.warm()
        style, layout = {"description_width": "10.5em"}, W.Layout(width="22em")
        self.emitted = W.Dropdown(
            options=formats(), description="the loader emits", style=style, layout=layout
        )
        self.expected = W.Dropdown(
            options=formats(), description="the network is told", style=style, layout=layout
        )
        pictured = W.Dropdown(
            options=list(pictures()),
            value=FIRST,
            description="picture",
            style={"description_width": "4em"},
            layout=W.Layout(width="13.5em"),
        )
        super().__init__(
            "scaling",
            {name: ScalingState(FIRST, emitted) for name, emitted in PRESETS.items()},
            [pictured, self.emitted, self.expected],
            self._drawn,
            HEIGHT,
            ("What the detector is fed", WHAT_IT_IS),
            shown=[self.emitted, self.expected, pictured],
        )

    def _drawn(self, state: ScalingState) -> tuple[bytes, str]:
        view = self._feeding.view(state)
        return picture(view), view.sentence()


def _draw_image(canvas: Collage, view: View) -> None:
    side = ENLARGED * SIZE
    _, emitted, expected = view.state
    canvas.text(PHOTO, 4, f"{view.state.picture}, as the network gets it", "lt", 15)
    canvas.text(PHOTO, 26, f"emitted as {emitted}, taken for {expected}", "lt")
    canvas.box(PHOTO - 1, TOP - 1, PHOTO + side + 1, TOP + side + 1, AXIS)
    canvas.place(PHOTO, TOP, photo_pixels(view.fed, 256 - len(_colors())).enlarged(ENLARGED))
    for box in view.truth or ():
        dashed(canvas, *_placed(box))
    for box in reversed(view.boxes[:MOST_BOXES]):
        outlined(canvas, *_placed(box), _color(view, box))
    tags = Tags(canvas, (PHOTO, TOP, PHOTO + side, TOP + side))
    for box in view.boxes[:MOST_BOXES]:
        words = f"{CLASSES[box.label]} {100 * box.score:.0f} %"
        if view.truth is not None:
            words = f"{words} ✓" if box.matched else f"{words} ✗"
        tags.add(_placed(box), words, _color(view, box), "white")
    for box in view.truth or ():
        if not box.matched:
            tags.add(_placed(box), f"missed: {CLASSES[box.label]}", "white", BLACK)
    y, x = TOP + side + 20, PHOTO
    if view.truth is None:
        keys = [(BLUE, f"detected: {len(view.boxes)} (a photo has no truth)")]
    else:
        keys = [
            (BLUE, f"found: {view.found} ✓"),
            (FALSE, f"false: {view.false} ✗"),
            (None, f"truth: {len(view.truth)}"),
        ]
    for color, words in keys:
        if color:
            outlined(canvas, x, y - 7, x + 20, y + 7, color)
        else:
            dashed(canvas, x, y - 7, x + 20, y + 7)
        canvas.text(x + 27, y, words)
        x += 130
    notes = []
    if view.outside:
        notes.append(f"{percent(view.outside)} of its values lie outside 0–1: drawn as 0 or 1")
    if len(view.boxes) > MOST_BOXES:
        notes.append(f"the best {MOST_BOXES} boxes")
    canvas.text(PHOTO, y + 21, "; ".join(notes))


def _color(view: View, box: Box) -> str:
    return BLUE if view.truth is None or box.matched else FALSE


def _placed(box: Box) -> list[int]:
    x, y, right, bottom = (round(ENLARGED * value) for value in box.xyxy)
    return [PHOTO + x, TOP + y, PHOTO + right, TOP + bottom]


def _draw_histogram(canvas: Collage, start: int, title: str, histogram: Histogram) -> None:
    bottom = start + TOP + PLOT
    low, high = histogram.limits

    def column(value):
        return LEFT + (RIGHT - LEFT) * (value - low) / ((high - low) or 1.0)

    def outline(shares):
        rows = bottom - PLOT * shares.numpy() / (shares.max().item() or 1.0)
        walls = np.linspace(LEFT, RIGHT, len(rows) + 1).repeat(2)
        return list(zip(walls, [bottom, *rows.repeat(2), bottom], strict=True))

    canvas.text(LEFT, start + 4, title, "lt", 15)
    canvas.box(LEFT, start + 26, LEFT + 14, start + 38, FILL)
    words = f"now {between(histogram.span)}"
    canvas.text(LEFT + 20, start + 32, words)
    at = LEFT + 20 + int(font(13).getlength(words)) + 18
    canvas.line([(at, start + 32), (at + 14, start + 32)], BLACK, 2)
    canvas.text(at + 20, start + 32, f"right {between(histogram.right_span)}")
    canvas.polygon(outline(histogram.fed), FILL)
    canvas.line(outline(histogram.right), BLACK, 1.5)
    canvas.line([(LEFT, bottom), (RIGHT, bottom)], AXIS)
    for tick in ticks(low, high, 5):
        canvas.line([(column(tick), bottom), (column(tick), bottom + 4)], AXIS)
        canvas.text(column(tick), bottom + 8, tick_words(tick), "mt")


def _draw_bars(canvas: Collage, view: View) -> None:
    left, right = TRACK
    canvas.text(LEFT, THIRD + 4, "How far each stage's maps are off", "lt", 15)
    canvas.text(LEFT, THIRD + 26, "max|now − right| / max|right|, log scale", "lt")

    def column(value):
        share = (np.log10(max(value, 1e-12)) - LEAST) / (MOST - LEAST)
        return left + (right - left) * min(max(share, 0), 1)

    top = THIRD + 46
    for number, (stage, row) in enumerate(view.rows.items()):
        y = top + 20 * number + 10
        canvas.box(left, y - 7, right, y + 7, TRACK_FILL)
        canvas.box(left, y - 7, column(row.relative), y + 7, ORANGE)
        canvas.text(LEFT, y, stage)
        small = row.relative <= ROUNDING
        canvas.text(right + 8, y, "≤ 1e-5" if small else two_digits(row.relative))
    bottom = top + 104
    for decade in range(LEAST, MOST + 1):
        at = column(10.0**decade)
        if decade == 0:  # off by as much as the largest right value
            canvas.line([(at, top), (at, bottom)], BLACK, 1.5)
        canvas.line([(at, bottom - 4), (at, bottom)], AXIS)
        if decade % 3 == 0:
            canvas.text(at, bottom + 3, f"{10.0**decade:g}", "mt", 12)


@lru_cache
def _colors() -> np.ndarray:
    """Colors that fade into white, and into each other where they meet; (n, 3) of them."""
    names = "white", BLACK, AXIS, FILL, BLUE, ORANGE, FALSE, TRACK_FILL
    white, *colors = (np.array(ImageColor.getrgb(name)) for name in names)
    black, _, fill, _, orange, _, track = colors
    pairs = [(white, color) for color in colors]
    pairs += [(fill, black), (track, black), (orange, black)]
    blends = [  # steps wide enough for Pillow to find the nearest: white must stay white
        a + (b - a) * np.linspace(0, 1, max(2, min(16, abs(b - a).max() // 14)))[:, None]
        for a, b in pairs
    ]
    return np.concatenate(blends).round().astype(int)
