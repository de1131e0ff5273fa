"""Drawing without matplotlib: shapes and words as palette PNG bytes in milliseconds."""

import io
from collections.abc import Iterable, Sequence
from functools import lru_cache

import matplotlib
import numpy as np
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageColor, ImageDraw, ImageFont

from helpers.figures import BLACK, PIXELS

FINE = 2  # shapes are drawn so many times larger, and then averaged
AXIS = "#666666"


class Canvas:
    """Shapes, antialiased, and words on top of them; coordinates in px of the finished picture.

    800 px wide, `height` px high. `palette`: what `palette` returned for the colors that are used.
    """

    def __init__(self, height: int, palette: Image.Image | None = None):
        self._shapes = Image.new("RGB", (FINE * PIXELS, FINE * height), "white")
        self._draw = ImageDraw.Draw(self._shapes)
        self._texts = []
        self._palette = palette

    def line(self, points, color, width=1.0) -> None:
        """Through all `points`."""
        self._draw.line(_scaled(points), color, round(FINE * width), joint="curve")

    def dashed(self, start, end, color, width=1.5, dash=4) -> None:
        """A straight line of dashes, with gaps of 3 px."""
        start, end = np.array(start, float), np.array(end, float)
        length = np.hypot(*(end - start))
        for first in np.arange(0, length, dash + 3):
            part = np.array([first, min(first + dash, length)]) / length
            self.line(start + part[:, None] * (end - start), color, width)

    def polygon(self, points, color) -> None:
        """Filled."""
        self._draw.polygon(_scaled(points), color)

    def box(self, left, top, right, bottom, color) -> None:
        """Filled; of whole pixels, so that no edge is blended."""
        left, top, right, bottom = (FINE * round(value) for value in (left, top, right, bottom))
        if left < right and top < bottom:
            self._draw.rectangle((left, top, right - 1, bottom - 1), color)

    def disc(self, x, y, radius, fill, outline="white") -> None:
        """Filled, and outlined by 1 px."""
        corners = _scaled([(x - radius, y - radius), (x + radius, y + radius)])
        self._draw.ellipse(corners, fill, outline, FINE)

    def text(self, x, y, words, anchor="lm", size=13, color=BLACK) -> None:
        """Anchors are Pillow's."""
        self._texts.append(((x, y), words, color, font(size), anchor))

    def finished(self) -> Image.Image:
        """RGB."""
        picture = self._shapes.reduce(FINE)
        draw = ImageDraw.Draw(picture)
        for place, words, color, letters, anchor in self._texts:
            draw.text(place, words, color, letters, anchor)
        return picture

    def png(self) -> bytes:
        """In the palette's colors, without dithering."""
        out = io.BytesIO()
        self.finished().quantize(palette=self._palette, dither=Image.Dither.NONE).save(out, "png")
        return out.getvalue()


def palette(pairs: Iterable[tuple[str, str]], steps: int = 18) -> Image.Image:
    """For `Canvas`: the colors of each pair and those between them, as blended edges have them.

    The steps are wide enough for Pillow to find the nearest: white must stay white.
    """
    blends = []
    for pair in pairs:
        a, b = (np.array(ImageColor.getrgb(name)) for name in pair)
        count = max(2, min(steps, abs(b - a).max() // 12))
        blends.append(a + (b - a) * np.linspace(0, 1, count)[:, None])
    return palette_of(np.concatenate(blends))


def palette_of(colors: np.ndarray) -> Image.Image:
    """`colors` (n,3), rounded."""
    picture = Image.new("P", (1, 1))
    picture.putpalette(colors.round().astype(int).ravel().tolist())
    return picture


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers from `low` to `high`."""
    values = MaxNLocator(count, steps=[1, 2, 5, 10]).tick_values(low, high)
    return [tick for tick in values if low <= tick <= high]


def tick_words(value: float) -> str:
    """A tick's label, with a true minus sign."""
    return f"{round(value, 9) + 0.0:g}".replace("-", "−")


@lru_cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib."""
    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)


def _scaled(points: Sequence) -> list[tuple[float, float]]:
    return [(FINE * x, FINE * y) for x, y in points]
