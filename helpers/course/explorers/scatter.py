"""A scatter on log-log axes as palette PNG bytes, drawn in milliseconds: a widget can redraw it."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, floor, log10, sqrt

import matplotlib
import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageColor, ImageDraw, ImageFont

from helpers.figures import BLACK, BLUE, ORANGE, PIXELS
from helpers.text import short

HEIGHT = 420
LEFT, RIGHT, TOP, BOTTOM = 58, 24, 36, 50  # the margins, px
COLUMN = 52  # what the column for x = 0 takes of the width, px
SMALL, LARGE = 2.5, 12.0  # radii of the smallest and the largest chosen dot, px
LINES = (BLACK, BLUE)
DOT, RING, AXIS, GRID = "#5E6E7E", "#7A3400", "#666666", "#E8E8E8"


@dataclass(frozen=True)
class Axes:
    """Two log axes: limits in data units, titles. `zero` adds a column for x = 0 at the left."""

    xlim: tuple[float, float]
    ylim: tuple[float, float]
    xlabel: str
    ylabel: str
    zero: bool = False

    def __post_init__(self):
        for low, high in (self.xlim, self.ylim):
            if not 0 < low < high < float("inf"):
                raise ValueError(
                    f"The limits {low} … {high} of a log axis must be positive and rise."
                )

    def columns(self, x: ArrayLike) -> np.ndarray:
        """Pixels from the picture's left edge; beyond the limits the border, 0 in its column."""
        x = np.asarray(x, float)
        left = LEFT + COLUMN * self.zero
        columns = left + _share(x, self.xlim) * (PIXELS - RIGHT - left)
        return np.where(x == 0, LEFT + 0.4 * COLUMN, columns) if self.zero else columns

    def rows(self, y: ArrayLike) -> np.ndarray:
        """Pixels from the picture's top edge; beyond the limits the border."""
        return HEIGHT - BOTTOM - _share(np.asarray(y, float), self.ylim) * (HEIGHT - BOTTOM - TOP)


def scatter(
    axes: Axes,
    x: ArrayLike,
    y: ArrayLike,
    chosen: ArrayLike,
    shares: ArrayLike | None = None,
    *,
    labels: tuple[str, str],
    share_label: str = "",
    curves: Sequence[tuple[ArrayLike, ArrayLike, str]] = (),
    line: tuple[float, str] | None = None,
) -> bytes:
    """All dots (x, y) in gray, darker where many meet; the chosen ones as rings on top of them.

    `x` (n,) from 0 up and `y` (n,) above 0, may be infinite; `chosen`: a mask (n,); `shares` (c,)
    of the c chosen, in their order, not all 0: a ring's area is in proportion, from a smallest size
    on (None: all of one size). What lies beyond the limits stands on the border; above the upper
    one a ring becomes a triangle.

    `labels` name all dots and the chosen; `share_label` stands in the legend beside a ring of the
    largest size, after its share in percent. `curves`: up to two of (x, y, label), the first solid
    and the second dashed, straight between their points on log axes. `line`: (x, label), a dashed
    upright.

    Returns a palette PNG of 800 × 420 px. ValueError for dots that cannot be placed, and for
    shapes that do not match.
    """
    x, y, chosen = np.asarray(x, float), np.asarray(y, float), np.asarray(chosen, bool)
    if x.ndim != 1 or not x.shape == y.shape == chosen.shape:
        raise ValueError(f"x, y and chosen must be (n,): {x.shape}, {y.shape}, {chosen.shape}.")
    if not ((x >= 0) & (x < np.inf) & (y > 0)).all():
        raise ValueError("A dot needs x from 0 up, finite, and y above 0.")
    if shares is not None and np.shape(shares) != (chosen.sum(),):
        raise ValueError(f"{chosen.sum()} dots are chosen, but shares is {np.shape(shares)}.")
    radii = np.full(chosen.sum(), SMALL)
    if shares is not None and len(radii):
        largest = np.max(shares)
        radii = np.maximum(SMALL, LARGE * np.sqrt(np.divide(shares, largest)))
        labels = *labels, f"{short(100 * largest, 2)} % {share_label}"
    columns, rows = axes.columns(x), axes.rows(y)

    picture = _frame(axes).copy()
    at, heights = _legend(picture, labels, curves)
    if line and axes.xlim[0] <= line[0] <= axes.xlim[1]:
        _upright(picture, float(axes.columns(line[0])), line[1])
    for color, dashed, (curve_x, curve_y, _) in zip(LINES, (False, True), curves, strict=False):
        _paint(picture, color, _curve(axes, curve_x, curve_y, dashed))
    _paint(picture, DOT, _cloud(np.append(columns, at), np.append(rows, heights[0])))
    samples = np.array([SMALL, LARGE][: len(heights) - 1])
    above = y[chosen] > axes.ylim[1]
    fill, ring = _rings(
        np.append(columns[chosen], np.full(len(samples), at)),
        np.append(rows[chosen], heights[1:]),
        np.append(radii, samples),
        np.append(above, samples < 0),
    )
    _paint(picture, ORANGE, fill)
    _paint(picture, RING, ring)
    if (beyond := y > axes.ylim[1]).any():
        words = "∞" if np.isinf(y).any() else f"> {short(axes.ylim[1], 6)}"
        where = columns[beyond].min() - 8, TOP + 22
        ImageDraw.Draw(picture).text(where, words, BLACK, _font(14), anchor="lm")
    return _png(picture)


def _decades(low: float, high: float) -> list[float]:
    return [10.0**n for n in range(ceil(log10(low) - 1e-9), floor(log10(high) + 1e-9) + 1)]


def _share(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    low, high = np.log10(limits)
    return (np.log10(values.clip(*limits)) - low) / (high - low)


@lru_cache(8)
def _frame(axes: Axes) -> Image.Image:
    """Axes, ticks and titles: what stays the same from one picture to the next."""
    picture = Image.new("RGB", (PIXELS, HEIGHT), "white")
    draw = ImageDraw.Draw(picture)
    left, bottom = LEFT, HEIGHT - BOTTOM
    start = left + COLUMN * axes.zero
    for ticks, along in ((_decades(*axes.xlim), True), (_decades(*axes.ylim), False)):
        step = ceil(len(ticks) / 10)
        for number, tick in enumerate(ticks):
            if along:
                at = round(float(axes.columns(tick)))
                draw.line((at, TOP, at, bottom), GRID)
                draw.line((at, bottom, at, bottom + 5), AXIS)
                where, anchor = (at, bottom + 8), "mt"
            else:
                at = round(float(axes.rows(tick)))
                draw.line((left, at, PIXELS - RIGHT, at), GRID)
                draw.line((left - 5, at, left, at), AXIS)
                where, anchor = (left - 8, at), "rm"
            if number % step == 0:
                draw.text(where, short(tick, 6), BLACK, _font(14), anchor=anchor)
    draw.line((left, TOP, left, bottom), AXIS)
    draw.line((left, bottom, PIXELS - RIGHT, bottom), AXIS)
    if axes.zero:
        at = round(float(axes.columns(0)))
        draw.line((at, bottom, at, bottom + 5), AXIS)
        draw.text((at, bottom + 8), "0", BLACK, _font(14), anchor="mt")
        gap = start - 12  # the axis is broken between 0 and the first decade
        draw.line((gap - 3, bottom, gap + 3, bottom), "white")
        for x in (gap - 3, gap + 3):
            draw.line((x - 2, bottom + 5, x + 2, bottom - 5), AXIS)
    draw.text((8, 8), axes.ylabel, BLACK, _font(15), anchor="lt")
    middle = (start + PIXELS - RIGHT) / 2
    draw.text((middle, HEIGHT - 6), axes.xlabel, BLACK, _font(15), anchor="mb")
    return picture


def _cloud(columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """A mask of dots of 7 px, by how many dots share a pixel."""
    flat = np.rint(rows).astype(int) * PIXELS + np.rint(columns).astype(int)
    counts = np.bincount(flat, minlength=PIXELS * HEIGHT)
    places = counts.nonzero()[0]
    depth = np.log1p(counts[places])
    ink = (255 * (0.4 + 0.6 * depth / depth.max(initial=1.0))).astype(np.uint8)
    mask = np.zeros(PIXELS * HEIGHT, np.uint8)
    for down in range(-3, 4):
        for right in range(-3, 4):
            if abs(down) + abs(right) < 5:
                near = places + down * PIXELS + right
                mask[near] = np.maximum(mask[near], ink)
    return mask.reshape(HEIGHT, PIXELS)


def _curve(axes: Axes, x: ArrayLike, y: ArrayLike, dashed: bool) -> np.ndarray:
    """A mask of a line 2 px wide, antialiased; it stops where it leaves the axes."""
    left, right = (int(np.rint(edge)) for edge in axes.columns(axes.xlim))
    columns = np.arange(left, right + 1)
    y = 10 ** np.interp(columns, axes.columns(x), np.log10(y))
    drawn = (y >= axes.ylim[0]) & (y <= axes.ylim[1]) & ~(dashed & (columns % 14 > 8))
    columns, rows = columns[drawn], axes.rows(y[drawn])
    mask = np.zeros((HEIGHT, PIXELS), np.uint8)
    for offset in range(-2, 4):
        near = np.floor(rows).astype(int) + offset
        mask[near, columns] = 255 * (1.5 - np.abs(near - rows)).clip(0, 1)
    return mask


def _rings(columns, rows, radii, above) -> tuple[np.ndarray, np.ndarray]:
    """Masks of the discs and of their outlines, antialiased; triangles where `above`."""
    radii = np.where(above, np.maximum(radii, 8), radii)
    fill, ring = np.zeros((2, HEIGHT, PIXELS), np.uint8)
    sizes = np.ceil(radii).astype(int) + 1
    for size in np.unique(sizes):
        these = sizes == size
        window = np.arange(-size, size + 1)
        near_rows = (np.rint(rows[these]).astype(int)[:, None] + window)[:, :, None]
        near_columns = (np.rint(columns[these]).astype(int)[:, None] + window)[:, None, :]
        down = near_rows - rows[these][:, None, None]
        right = near_columns - columns[these][:, None, None]
        triangle = np.maximum(2 * down, sqrt(3) * np.abs(right) - down)
        distance = np.where(above[these][:, None, None], triangle, np.hypot(down, right))
        inside = radii[these][:, None, None] - distance
        inked = inside > -1
        place = tuple(
            np.broadcast_to(near.clip(0, end - 1), inside.shape)[inked]
            for near, end in ((near_rows, HEIGHT), (near_columns, PIXELS))
        )
        inside = inside[inked]
        np.maximum.at(fill, place, (115 * (inside + 0.5).clip(0, 1)).astype(np.uint8))
        np.maximum.at(ring, place, (255 * (1.1 - np.abs(inside)).clip(0, 1)).astype(np.uint8))
    return fill, ring


def _upright(picture: Image.Image, column: float, label: str) -> None:
    draw = ImageDraw.Draw(picture)
    for row in range(TOP, HEIGHT - BOTTOM, 8):
        draw.line((column, row, column, row + 3), AXIS, width=2)
    fits = column + 8 + draw.textlength(label, _font(14)) < PIXELS - RIGHT
    where = (column + 8 if fits else column - 8, HEIGHT - BOTTOM - 8)
    draw.text(where, label, BLACK, _font(14), anchor="ls" if fits else "rs")


def _legend(picture: Image.Image, labels, curves) -> tuple[float, np.ndarray]:
    """Text and lines in the upper right corner; the column and the rows of the dots to go there."""
    draw = ImageDraw.Draw(picture)
    texts = [*labels, *(label for *_, label in curves)]
    left = PIXELS - RIGHT - 8 - max(draw.textlength(text, _font(14)) for text in texts)
    rows = TOP + 14 + 23 * np.arange(len(texts))
    for text, row in zip(texts, rows, strict=True):
        draw.text((left, row), text, BLACK, _font(14), anchor="lm")
    column = left - 24
    strokes = ((-14, 12),), ((-14, -5), (0, 9))
    for color, parts, row in zip(LINES, strokes, rows[len(labels) :], strict=False):
        for start, end in parts:
            draw.line((column + start, row, column + end, row), color, width=2)
    return column, rows[: len(labels)]


def _paint(picture: Image.Image, color: str, mask: np.ndarray) -> None:
    picture.paste(color, mask=Image.fromarray(mask))


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # The typeface of the other figures; Pillow's own lacks √ and ∞.
    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)


@lru_cache
def _palette() -> Image.Image:
    """White fading to every color, and the chosen dots' colors over the others."""
    white, *colors = (
        np.array(ImageColor.getrgb(color))
        for color in ("white", BLACK, AXIS, DOT, BLUE, ORANGE, RING)
    )
    black, _, dot, _, orange, ring = colors
    pairs = [(white, color) for color in colors]
    pairs += [(below, color) for below in (dot, black) for color in (orange, ring)]
    blends = [a + (b - a) * np.linspace(0, 1, 20)[:, None] for a, b in pairs]
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.concatenate(blends).round().astype(int).ravel().tolist())
    return palette


def _png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.quantize(palette=_palette(), dither=Image.Dither.NONE).save(out, "png")
    return out.getvalue()
