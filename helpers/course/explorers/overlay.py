"""Pictures with boxes and labels over them, as palette PNG bytes in milliseconds."""

import io
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageColor
from torch import Tensor

from helpers.course.explorers.canvas import Canvas, font, palette_of
from helpers.figures import BLACK

KEY = "#FF00FF"  # what is painted in it lets the picture below show through
TAG = 16  # height of a label, px


class Pixels(NamedTuple):
    """A picture as numbers of its `colors` (n,3): `index` uint8 (h,w)."""

    index: np.ndarray
    colors: np.ndarray

    def enlarged(self, factor: int) -> "Pixels":
        """Without blurring."""
        return Pixels(self.index.repeat(factor, 0).repeat(factor, 1), self.colors)


class Collage(Canvas):
    """A canvas that pictures lie below, where it is painted in KEY.

    `colors` (n,3): those that shapes and words are drawn in, and their blends. They and the
    colors of the pictures are 256 at most.
    """

    def __init__(self, height: int, colors: np.ndarray):
        super().__init__(height, palette_of(colors))
        self._colors = colors
        self._below: list[tuple[int, int, Pixels]] = []

    def place(self, left: int, top: int, pixels: Pixels) -> None:
        """Lay a picture below the canvas; what is drawn later lies above it."""
        height, width = pixels.index.shape
        self.box(left, top, left + width, top + height, KEY)
        self._below.append((left, top, pixels))

    def png(self) -> bytes:
        """The canvas over the pictures, in the colors of all."""
        finished = self.finished()
        key = (np.asarray(finished) == ImageColor.getrgb(KEY)).all(2)
        whole = np.array(finished.quantize(palette=self._palette, dither=Image.Dither.NONE))
        table = [self._colors]
        for left, top, (index, colors) in self._below:
            number = next((i for i, known in enumerate(table) if known is colors), len(table))
            start = sum(map(len, table[:number]))
            if number == len(table):
                table.append(colors)
            here = slice(top, top + index.shape[0]), slice(left, left + index.shape[1])
            through = key[here]
            whole[here][through] = (index + np.uint8(start))[through]
        picture = Image.fromarray(whole)
        picture.putpalette(np.concatenate(table).ravel().tolist())
        out = io.BytesIO()
        picture.save(out, "png")
        return out.getvalue()


def photo_pixels(image: Tensor, colors: int) -> Pixels:
    """`image` (3,H,W), clamped to 0–1, in at most so many colors."""
    values = (255 * image.clamp(0, 1)).round().byte().permute(1, 2, 0).numpy()
    photo = Image.fromarray(np.ascontiguousarray(values))
    photo = photo.quantize(colors, Image.Quantize.FASTOCTREE)
    return Pixels(np.asarray(photo), np.reshape(photo.getpalette(), (-1, 3)))


def outlined(canvas: Canvas, left, top, right, bottom, color) -> None:
    """A box of whole pixels; a white seam tells it from the picture."""
    for width, shade in ((3, "white"), (2, color)):
        canvas.box(left, top, right, top + width, shade)
        canvas.box(left, bottom - width, right, bottom, shade)
        canvas.box(left, top, left + width, bottom, shade)
        canvas.box(right - width, top, right, bottom, shade)


def dashed(canvas: Canvas, left, top, right, bottom) -> None:
    """Black and white in turn: seen on any picture."""
    for start in range(left, right, 5):
        color = "white" if (start - left) % 10 else BLACK
        canvas.box(start, top, min(start + 5, right), top + 2, color)
        canvas.box(start, bottom - 2, min(start + 5, right), bottom, color)
    for start in range(top, bottom, 5):
        color = "white" if (start - top) % 10 else BLACK
        canvas.box(left, start, left + 2, min(start + 5, bottom), color)
        canvas.box(right - 2, start, right, min(start + 5, bottom), color)


class Tags:
    """Labels beside or inside of boxes, where they hide none of those before; within `limits`.

    `limits`: left, top, right and bottom of the picture. `taken`: left, right and top of each.
    """

    def __init__(self, canvas: Canvas, limits: tuple[int, int, int, int]):
        self._canvas, self._limits = canvas, limits
        self.taken: list[tuple[int, int, int]] = []

    def add(self, box: tuple[int, int, int, int], words: str, fill: str, color: str) -> None:
        """Label a box with `words` in `color` on `fill`."""
        left, top, _, bottom = box
        _, first, end, last = self._limits
        width = int(font(12).getlength(words)) + 6
        left = min(left, end - width)
        choices = (top - TAG, bottom, top + 3, bottom - TAG - 3)
        places = [min(max(y, first), last - TAG) for y in choices]

        def free(y):
            return all(
                abs(y - t) >= TAG or left >= stop or start >= left + width
                for start, stop, t in self.taken
            )

        top = next(filter(free, places), places[0])
        self.taken.append((left, left + width, top))
        self._canvas.box(left, top, left + width, top + TAG, fill)
        self._canvas.text(left + 3, top + TAG // 2, words, "lm", 12, color)
