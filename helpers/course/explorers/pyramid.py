"""PyramidExplorer: a level of the pyramid, its anchors and proposals, under four normalizations."""

from functools import lru_cache

import numpy as np
from PIL import ImageColor
from torch import Tensor
from torchvision.models.detection import FasterRCNN

from helpers.compare import ROUNDING
from helpers.course.explorers.canvas import AXIS
from helpers.course.explorers.feeding import two_digits
from helpers.course.explorers.levels import (
    BATCH,
    BATCHNORM,
    BODY_KINDS,
    CHANNELS,
    EPS_0,
    LEVELS,
    MEAN,
    YOURS,
    Levels,
    PyramidState,
    View,
)
from helpers.course.explorers.overlay import Collage, Pixels, Tags, dashed, outlined, photo_pixels
from helpers.course.explorers.pictured import Pictured
from helpers.course.explorers.stored import dropdown
from helpers.figures import BLACK, activation_map, difference_map
from helpers.inputs.scenes import CLASSES
from helpers.networks.detector import load_detector

FIRST = "scene 1"
PRESETS = {
    "C2": PyramidState(FIRST, "C2"),
    "C5": PyramidState(FIRST, "C5"),
    "P2": PyramidState(FIRST, "P2"),
    "P6": PyramidState(FIRST, "P6"),
    "P3, eps 0": PyramidState(FIRST, "P3", MEAN, EPS_0),
    "P3, batch statistics": PyramidState(FIRST, "P3", MEAN, BATCH),
}
HEIGHT = 648
SIDE = 256  # of a panel, px
LEFTS = 8, 272, 536
TOP, SECOND = 46, 382  # upper edges of the two rows of panels, px
MOST_PROPOSALS = 15
COLORS = {2: "#B34700", 3: "#0060A0", 4: "#00704F", 5: "#A03070", 6: "#505050"}  # under white words
EMPTY = "#E4E4E4"
PHOTO_COLORS, STEPS = 60, 41  # of the photo, and of each color map; odd, so that zero is white
WHAT_IT_IS = (
    "The scene detector, float64; the body's normalization is what is chosen, its weights stay. C "
    "levels come out of the body, P levels out of the FPN; the RPN and the heads see only P levels."
)


def picture(view: View) -> bytes:
    """Anchors, proposals and boxes on the image; the map, its difference, and numbers.

    A palette PNG of 800 × 648 px.
    """
    canvas = Collage(HEIGHT, _colors())
    photo = photo_pixels(view.image, PHOTO_COLORS)
    scale = max(1, SIDE // max(photo.index.shape))
    _draw_anchors(canvas, view, photo, scale)
    _draw_proposals(canvas, view, photo, scale)
    _draw_boxes(canvas, view, photo, scale)
    _draw_map(canvas, view)
    _draw_difference(canvas, view)
    _draw_numbers(canvas, view)
    return canvas.png()


class PyramidExplorer(Pictured):
    """A level of the scene detector's pyramid, four normalizations; shows itself as a last line.

    `model`: the detector if it is loaded already; None loads it. `image`: one of the reader's own,
    (3,H,W) or (1,3,H,W), RGB in 0–1. A new picture or normalization costs one forward pass each;
    another level or channel is only drawn. See helpers.course.explorers.stored for what it holds.

    TypeError or ValueError for a model that is no scene detector in eval mode, and for an image
    that is none; RuntimeError if the detector's weights are missing.
    """

    def __init__(self, model: FasterRCNN | None = None, image: Tensor | None = None):
        self._levels = Levels(load_detector() if model is None else model, image)
        first = FIRST if image is None else YOURS
        self.level = dropdown(list(LEVELS), "level", "9em", "C2")
        self.channel = dropdown(list(CHANNELS), "channel", "11em")
        self.kind = dropdown(list(BODY_KINDS), "the body normalizes by", "31em")
        pictured = dropdown(list(self._levels.pictures), "picture", "13em", first)
        super().__init__(
            "pyramid",
            {name: state._replace(picture=first) for name, state in PRESETS.items()},
            [pictured, self.level, self.channel, self.kind],
            self._drawn,
            HEIGHT,
            ("A level of the pyramid", WHAT_IT_IS),
        )

    def _drawn(self, state: PyramidState) -> tuple[bytes, str]:
        view = self._levels.view(state)
        return picture(view), view.sentence()


def _draw_anchors(canvas: Collage, view: View, photo: Pixels, scale: int) -> None:
    level, left = view.pyramid_level, LEFTS[0]
    rows, columns = (side // view.stride for side in _padded(view))
    if view.state.level == level:
        title = f"Anchors of {level}: 3 for each of {rows} × {columns} cells"
    else:
        title = f"The RPN sees no {view.state.level}: anchors of {level}"
    canvas.text(left, 6, title, "lt", 12)
    canvas.text(
        left, 25, f"those of one cell, about {view.anchor_size:.0f} px; dots: cells", "lt", 12
    )
    canvas.place(left, TOP, photo.enlarged(scale))
    height, width = photo.index.shape
    for row in range(rows):
        for column in range(columns):
            y, x = (round((n + 0.5) * view.stride * scale) for n in (row, column))
            if y < height * scale and x < width * scale:
                shade = "white" if (row + column) % 2 else BLACK
                canvas.box(left + x - 1, TOP + y - 1, left + x + 1, TOP + y + 1, shade)
    for anchor in view.anchors.tolist():
        outlined(canvas, *_placed(anchor, left, photo, scale), COLORS[int(level[1])])


def _draw_proposals(canvas: Collage, view: View, photo: Pixels, scale: int) -> None:
    level, left = view.pyramid_level, LEFTS[1]
    drawn = view.proposals[:MOST_PROPOSALS].tolist()
    if level == "P6":
        title = f"Proposed by P6: {view.proposed} of {view.of}; pooled: 0"
    else:
        title = f"Proposals pooled from {level}: {view.pooled} of {view.of}"
    canvas.text(left, 6, title, "lt", 12)
    said = f"drawn: the best {len(drawn)}" if drawn else "none to draw"
    by = "" if level == "P6" else f"; proposed by {level}: {view.proposed}"
    canvas.text(left, 25, said + by, "lt", 12)
    canvas.place(left, TOP, photo.enlarged(scale))
    for box in reversed(drawn):
        outlined(canvas, *_placed(box, left, photo, scale), COLORS[int(level[1])])


def _draw_boxes(canvas: Collage, view: View, photo: Pixels, scale: int) -> None:
    left = LEFTS[2]
    height, width = (scale * side for side in photo.index.shape)
    canvas.text(left, 6, "Boxes with a score ≥ 0.5 and their level", "lt", 12)
    truth = "a photo has no truth" if view.truth is None else f"dashed: truth, {len(view.truth)}"
    none = "" if view.boxes else "; none found"
    canvas.text(left, 25, f"{truth}{none}", "lt", 12)
    canvas.place(left, TOP, photo.enlarged(scale))
    for box, _ in view.truth or ():
        dashed(canvas, *_placed(box, left, photo, scale))
    for box in reversed(view.boxes):
        placed = _placed(box.xyxy, left, photo, scale)
        outlined(canvas, *placed, COLORS[box.pooled_from])
    tags = Tags(canvas, (left, TOP, left + width, TOP + height))
    for box in view.boxes[:12]:
        words = f"{CLASSES[box.label]} P{box.pooled_from} {100 * box.score:.0f} %"
        placed = _placed(box.xyxy, left, photo, scale)
        tags.add(placed, words, COLORS[box.pooled_from], "white")


def _draw_map(canvas: Collage, view: View) -> None:
    left = LEFTS[0]
    of = "mean of the channels" if view.state.channel == MEAN else f"channel {view.state.channel}"
    low, high = view.map.min().item(), view.map.max().item()
    canvas.text(left, SECOND - 40, f"{view.state.level}, {of}", "lt", 12)
    canvas.text(left, SECOND - 21, f"colors from {two_digits(low)} to {two_digits(high)}", "lt", 12)
    share = (view.map - low) / ((high - low) or 1.0)
    _place(canvas, left, Pixels(_steps(share), _map_colors("activation")))


def _draw_difference(canvas: Collage, view: View) -> None:
    left = LEFTS[1]
    canvas.text(left, SECOND - 40, f"{view.state.level} less that with BatchNorm", "lt", 12)
    reach = view.difference.abs().max().item()
    if view.state.kind == BATCHNORM or view.off <= ROUNDING:
        same = view.state.kind == BATCHNORM
        said = "this is it: nothing to subtract" if same else "no larger than rounding (≤ 1e-5)"
        canvas.text(left, SECOND - 21, said, "lt", 12)
        canvas.box(left, SECOND, left + SIDE, SECOND + SIDE, EMPTY)
        return
    canvas.text(
        left, SECOND - 21, f"colors from −{two_digits(reach)} to {two_digits(reach)}", "lt", 12
    )
    share = (view.difference / (reach or 1.0) + 1) / 2
    _place(canvas, left, Pixels(_steps(share), _map_colors("difference")))


def _draw_numbers(canvas: Collage, view: View) -> None:
    left, (channels, rows, columns) = LEFTS[2], view.shape
    kind, changed = view.state.kind, view.changed
    lines = [
        f"{view.state.level}: {channels} maps of {rows} × {columns}",
        f"a cell: {view.stride} × {view.stride} px",
        "",
        "the body normalizes by",
        kind,
    ]
    if kind != BATCHNORM:
        off = "≤ 1e-5, rounding" if view.off <= ROUNDING else two_digits(view.off)
        lines += [
            "",
            "against BatchNorm in eval mode:",
            f"max|difference| / max|map|: {off}",
            f"proposals moved by a pixel: {changed.moved} of {changed.proposals}",
            f"boxes lost (IoU < 0.9): {changed.lost} of {changed.boxes}, new: {changed.new}",
        ]
    for number, line in enumerate(lines):
        canvas.text(left, SECOND + 6 + 20 * number, line, "lt", 12)
    y = SECOND + 6 + 20 * len(lines) + 14
    for words, colors in (("low … high", "activation"), ("− … 0 … +", "difference")):
        table = _map_colors(colors)
        bar = np.arange(STEPS, dtype=np.uint8)[None].repeat(10, 0).repeat(3, 1)
        canvas.place(left, y, Pixels(bar, table))
        canvas.text(left + 3 * STEPS + 8, y + 5, words, "lm", 12)
        y += 20


def _padded(view: View) -> tuple[int, int]:
    """Height and width of what the body sees."""
    _, rows, columns = view.shape
    return rows * view.stride, columns * view.stride


def _placed(box, left: int, photo: Pixels, scale: int) -> tuple[int, int, int, int]:
    """Where the part of `box` lies that is inside the image."""
    height, width = photo.index.shape
    x, right = (left + round(scale * min(max(v, 0), width)) for v in (box[0], box[2]))
    y, bottom = (TOP + round(scale * min(max(v, 0), height)) for v in (box[1], box[3]))
    return x, y, right, bottom


def _place(canvas: Collage, left: int, pixels: Pixels) -> None:
    canvas.place(left, SECOND, pixels.enlarged(max(1, SIDE // max(pixels.index.shape))))


def _steps(share: Tensor) -> np.ndarray:
    return (share * (STEPS - 1)).round().clamp(0, STEPS - 1).byte().numpy()


@lru_cache
def _map_colors(name: str) -> np.ndarray:
    colormap = {"activation": activation_map, "difference": difference_map}[name]()
    return (colormap(np.linspace(0, 1, STEPS))[:, :3] * 255).round().astype(int)


@lru_cache
def _colors() -> np.ndarray:
    """Colors that fade into white, on which words stand, or from which white words stand out."""
    white, *colors = (
        np.array(ImageColor.getrgb(name))
        for name in ("white", BLACK, AXIS, EMPTY, *COLORS.values())
    )
    blends = [  # steps wide enough for Pillow to find the nearest: white must stay white
        white
        + (c - white) * np.linspace(0, 1, max(2, min(14, abs(c - white).max() // 14)))[:, None]
        for c in colors
    ]
    return np.concatenate(blends).round().astype(int)
