"""ScalingExplorer: what the loader emits, what the network expects, and what it then detects."""

import io
from functools import lru_cache, partial

import ipywidgets as W
import numpy as np
from PIL import Image, ImageColor
from torch import Tensor
from torchvision.models.detection import FasterRCNN

from helpers.canvas import AXIS, Canvas, font, palette_of, tick_words, ticks
from helpers.compare import ROUNDING
from helpers.detector import load_detector
from helpers.explorers import live
from helpers.explorers.live import UNTOUCHED, Live
from helpers.feeding import (
    PRESETS,
    Box,
    Feeding,
    Histogram,
    State,
    View,
    between,
    formats,
    percent,
    pictures,
    two_digits,
)
from helpers.scenes import CLASSES, SIZE
from helpers.show import BLACK, BLUE, ORANGE, PIXELS

HEIGHT = 484
PHOTO, TOP = 10, 46  # left and upper edge of the image, px
ENLARGED = 3
LEFT, RIGHT = 444, 788  # of what stands at the right, px
TRACK = 506, 712  # of the bars, px
LEAST, MOST = -3, 3  # decades at the ends of the bars
SECOND, THIRD = 158, 316  # where the lower two panels start, px
PLOT = 72  # height of a histogram, px
FILL, TRACK_FILL, KEY = "#9CC5E0", "#E4E4E4", "#FF00FF"
FALSE = "#B34700"  # ORANGE, dark enough for white words
MOST_BOXES = 12
TAG = 16  # height of a label in the image, px
FIRST = "scene 1"  # in which the presets differ
STYLE = f"""<style>
.scaling-explorer {{ max-width: {PIXELS}px; color: var(--jp-content-font-color1, inherit); }}
.scaling-explorer .widget-toggle-buttons {{ display: flex; margin-bottom: 6px; }}
.scaling-explorer .widget-toggle-buttons .widget-toggle-button {{ width: auto; }}
.scaling-explorer .widget-html {{ width: 100%; margin: 0; }}
.scaling-explorer .widget-html-content {{ flex: 1; }}
.scaling-explorer .scaling-picture {{ width: 100%; aspect-ratio: {PIXELS} / {HEIGHT};
  display: block; }}
.scaling-explorer .scaling-sentence {{ line-height: 1.4; height: 5.6em; overflow: auto;
  margin: 6px 0; }}
.scaling-explorer .scaling-small {{ font-size: 0.85em; line-height: 1.4; opacity: 0.85; }}
.scaling-explorer .scaling-error {{ min-height: 2.8em; line-height: 1.4; }}
.scaling-explorer .jupyter-widgets-disconnected::before {{ display: none; }}
.scaling-explorer.jupyter-widgets-disconnected::before {{ display: none; }}
</style>"""

WHAT_IT_IS = (
    "The detector takes RGB in 0–1 and normalizes it itself. What the loader emits is converted to "
    "that from the format which the network is told; where the two differ, it gets another image."
)
NEEDS_KERNEL = (
    "The presets switch in the page alone. The controls below need a kernel: run the notebook "
    "first."
)
frame = partial(live.frame, "scaling", "What the detector is fed")


def picture(view: View) -> bytes:
    """The image with its boxes, both histograms, a bar per stage: a palette PNG of 800 × 484 px."""
    canvas = _Canvas()
    _draw_image(canvas, view)
    _draw_histogram(canvas, 0, "What enters the first convolution", view.entering)
    _draw_histogram(canvas, SECOND, "What the first convolution gives", view.leaving)
    _draw_bars(canvas, view)
    return canvas.png(view.fed)


class ScalingExplorer(Live):
    """A loader, the format the scene detector is told, and a picture; shows itself as a last line.

    `model`: the detector if it is loaded already, which saves memory; None loads it. A change costs
    one forward pass; when the picture changed, each preset is then drawn anew, one pass at a time.
    Its text/plain holds the presets' sentences, and the first frame's picture stands in for the
    widgets where they cannot run. `state` is what the controls say, `frames` the presets' HTML and
    the live one, `message` the latest error.

    TypeError or ValueError for a model that is no scene detector in eval mode; RuntimeError if the
    detector's weights are missing.
    """

    def __init__(self, model: FasterRCNN | None = None):
        super().__init__("scaling")
        self._feeding = Feeding(load_detector() if model is None else model)
        self._feeding.warm()
        self._build()
        self._pictured = [""] * len(PRESETS)  # which picture each preset's frame shows
        first = self.picture.value
        drawn = [
            self._draw_preset(number, State(first, emitted))
            for number, emitted in enumerate(PRESETS.values())
        ]
        self.png = drawn[0][0]
        self.text = "\n".join(
            f"{name}: {sentence}" for name, (_, sentence) in zip(PRESETS, drawn, strict=True)
        )

    def _build(self) -> None:
        style, layout = {"description_width": "10.5em"}, W.Layout(width="22em")
        self.preset = W.ToggleButtons(
            options=[*PRESETS, "custom"],
            description="preset",
            index=0,
            style={"description_width": "4em"},
        )
        self.emitted = W.Dropdown(
            options=formats(), description="the loader emits", style=style, layout=layout
        )
        self.expected = W.Dropdown(
            options=formats(), description="the network is told", style=style, layout=layout
        )
        self.picture = W.Dropdown(
            options=list(pictures()),
            value=FIRST,
            description="picture",
            style={"description_width": "4em"},
            layout=W.Layout(width="13.5em"),
        )
        self._views = [W.HTML() for _ in PRESETS] + [W.HTML(frame(None, UNTOUCHED))]
        stack = W.Stack(self._views, selected_index=0)
        W.jslink((self.preset, "index"), (stack, "selected_index"))
        self.preset.observe(self._picked, "index")
        for control in (self.emitted, self.expected, self.picture):
            control.observe(self._changed, "value")
        self.box = W.VBox(
            [
                W.HTML(STYLE, layout={"display": "none"}),
                self.preset,
                stack,
                self._error,
                W.HTML(f'<div class="scaling-small">{WHAT_IT_IS}<br>{NEEDS_KERNEL}</div>'),
                W.HBox(
                    [self.emitted, self.expected, self.picture],
                    layout=W.Layout(flex_flow="row wrap"),
                ),
            ]
        ).add_class("scaling-explorer")

    @property
    def state(self) -> State:
        """What the controls say."""
        return State(self.picture.value, self.emitted.value, self.expected.value)

    @property
    def frames(self) -> list[str]:
        return [view.value for view in self._views]

    def _draw_preset(self, number: int, state: State) -> tuple[bytes, str]:
        drawn = self._drawn(state)
        self._views[number].value = frame(*drawn)
        self._pictured[number] = state.picture
        return drawn

    def _drawn(self, state: State) -> tuple[bytes, str]:
        view = self._feeding.view(state)
        return picture(view), view.sentence()

    def _draw(self) -> None:
        """Show as "custom" what the controls say; if it has no picture only say why not."""
        try:
            drawn = self._drawn(self.state)
        except ValueError as error:
            return self._say(str(error))
        self._views[-1].value = frame(*drawn)
        self._say("")
        with self._not_following():
            self.preset.index = len(PRESETS)
        self._soon(self._follow)

    def _follow(self) -> None:
        """Draw one preset that shows another picture than the control says; more of them later."""
        stale = [i for i, name in enumerate(self._pictured) if name != self.picture.value]
        if not stale:
            return
        number = self.preset.index if self.preset.index in stale else stale[0]
        try:
            self._draw_preset(number, State(self.picture.value, list(PRESETS.values())[number]))
        except ValueError as error:
            return self._say(str(error))
        self._soon(self._follow)

    def _picked(self, change) -> None:
        if not self._following:
            return
        if change["new"] == len(PRESETS):
            return self._soon(self._draw)
        with self._not_following():
            self.emitted.value = list(PRESETS.values())[change["new"]]
            self.expected.value = "0-1"
        self._say("")
        self._soon(self._follow)

    def _changed(self, change) -> None:
        if self._following:
            self._not_now(self._follow)  # the reader goes first
            self._soon(self._draw)


class _Canvas(Canvas):
    """What is painted in KEY lets the image show through."""

    def __init__(self):
        super().__init__(HEIGHT)

    def png(self, image: Tensor) -> bytes:
        finished = self.finished()
        fixed, colors = _palette()
        values = (255 * image.clamp(0, 1)).round().byte().permute(1, 2, 0).numpy()
        photo = Image.fromarray(np.ascontiguousarray(values))
        photo = photo.quantize(256 - len(colors), Image.Quantize.FASTOCTREE)
        below = np.asarray(photo).repeat(ENLARGED, 0).repeat(ENLARGED, 1) + np.uint8(len(colors))
        place = slice(TOP, TOP + len(below)), slice(PHOTO, PHOTO + below.shape[1])
        through = (np.asarray(finished)[place] == ImageColor.getrgb(KEY)).all(2)
        pixels = np.array(finished.quantize(palette=fixed, dither=Image.Dither.NONE))
        pixels[place][through] = below[through]
        whole = Image.fromarray(pixels)
        whole.putpalette([*colors.ravel().tolist(), *photo.getpalette()])
        out = io.BytesIO()
        whole.save(out, "png")
        return out.getvalue()


def _draw_image(canvas: _Canvas, view: View) -> None:
    side = ENLARGED * SIZE
    _, emitted, expected = view.state
    canvas.text(PHOTO, 4, f"{view.state.picture}, as the network gets it", "lt", 15)
    canvas.text(PHOTO, 26, f"emitted as {emitted}, taken for {expected}", "lt")
    canvas.box(PHOTO - 1, TOP - 1, PHOTO + side + 1, TOP + side + 1, AXIS)
    canvas.box(PHOTO, TOP, PHOTO + side, TOP + side, KEY)
    for box in view.truth or ():
        _dashed(canvas, *_placed(box))
    for box in reversed(view.boxes[:MOST_BOXES]):
        _outlined(canvas, *_placed(box), _color(view, box))
    tags: list[tuple[int, int, int]] = []
    for box in view.boxes[:MOST_BOXES]:
        words = f"{CLASSES[box.label]} {100 * box.score:.0f} %"
        if view.truth is not None:
            words = f"{words} ✓" if box.matched else f"{words} ✗"
        _tag(canvas, box, words, _color(view, box), "white", tags)
    for box in view.truth or ():
        if not box.matched:
            _tag(canvas, box, f"missed: {CLASSES[box.label]}", "white", BLACK, tags)
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
            _outlined(canvas, x, y - 7, x + 20, y + 7, color)
        else:
            _dashed(canvas, x, y - 7, x + 20, y + 7)
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


def _outlined(canvas: _Canvas, left, top, right, bottom, color) -> None:
    for width, shade in ((3, "white"), (2, color)):  # a white seam tells it from the image
        canvas.box(left, top, right, top + width, shade)
        canvas.box(left, bottom - width, right, bottom, shade)
        canvas.box(left, top, left + width, bottom, shade)
        canvas.box(right - width, top, right, bottom, shade)


def _dashed(canvas: _Canvas, left, top, right, bottom) -> None:
    """Black and white in turn: seen on any image."""
    for start in range(left, right, 5):
        color = "white" if (start - left) % 10 else BLACK
        canvas.box(start, top, min(start + 5, right), top + 2, color)
        canvas.box(start, bottom - 2, min(start + 5, right), bottom, color)
    for start in range(top, bottom, 5):
        color = "white" if (start - top) % 10 else BLACK
        canvas.box(left, start, left + 2, min(start + 5, bottom), color)
        canvas.box(right - 2, start, right, min(start + 5, bottom), color)


def _tag(canvas: _Canvas, box: Box, words: str, fill: str, color: str, tags: list) -> None:
    """Beside or inside of the box, where it hides none of `tags`; it is added to them."""
    left, top, _, bottom = _placed(box)
    end = TOP + ENLARGED * SIZE - TAG
    width = int(font(12).getlength(words)) + 6
    left = min(left, PHOTO + ENLARGED * SIZE - width)
    places = [min(max(y, TOP), end) for y in (top - TAG, bottom, top + 3, bottom - TAG - 3)]

    def free(y):
        return all(
            abs(y - t) >= TAG or left >= stop or start >= left + width for start, stop, t in tags
        )

    top = next(filter(free, places), places[0])
    tags.append((left, left + width, top))
    canvas.box(left, top, left + width, top + TAG, fill)
    canvas.text(left + 3, top + TAG // 2, words, "lm", 12, color)


def _draw_histogram(canvas: _Canvas, start: int, title: str, found: Histogram) -> None:
    bottom = start + TOP + PLOT
    low, high = found.limits

    def column(value):
        return LEFT + (RIGHT - LEFT) * (value - low) / ((high - low) or 1.0)

    def outline(shares):
        rows = bottom - PLOT * shares.numpy() / (shares.max().item() or 1.0)
        walls = np.linspace(LEFT, RIGHT, len(rows) + 1).repeat(2)
        return list(zip(walls, [bottom, *rows.repeat(2), bottom], strict=True))

    canvas.text(LEFT, start + 4, title, "lt", 15)
    canvas.box(LEFT, start + 26, LEFT + 14, start + 38, FILL)
    words = f"now {between(found.span)}"
    canvas.text(LEFT + 20, start + 32, words)
    at = LEFT + 20 + int(font(13).getlength(words)) + 18
    canvas.line([(at, start + 32), (at + 14, start + 32)], BLACK, 2)
    canvas.text(at + 20, start + 32, f"right {between(found.right_span)}")
    canvas.polygon(outline(found.fed), FILL)
    canvas.line(outline(found.right), BLACK, 1.5)
    canvas.line([(LEFT, bottom), (RIGHT, bottom)], AXIS)
    for tick in ticks(low, high, 5):
        canvas.line([(column(tick), bottom), (column(tick), bottom + 4)], AXIS)
        canvas.text(column(tick), bottom + 8, tick_words(tick), "mt")


def _draw_bars(canvas: _Canvas, view: View) -> None:
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
def _palette() -> tuple[Image.Image, np.ndarray]:
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
    colors = np.concatenate(blends).round().astype(int)
    return palette_of(colors), colors
