"""Figures and heatmaps: one look, one color rule, a description that carries the numbers.

Activations are viridis, differences a diverging map centered on zero; panels that are compared
share one scale, and its range is said in words. What draws returns the figure and its description.
"""

import io
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from textwrap import fill

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, stack

from helpers.compare import ROUNDING, Comparison
from helpers.text import short

PIXELS = 800  # the width of every figure: it fits a notebook's column, and a phone scales it down
DPI = 100
BLACK, BLUE, ORANGE, GREEN = "#222222", "#0072B2", "#D55E00", "#009E73"  # Okabe and Ito's
SERIES = (
    (ORANGE, "o", "-"),
    (BLUE, "s", "--"),
    (GREEN, "^", ":"),
    ("#CC79A7", "D", "-."),
    ("#56B4E9", "v", (0, (5, 1))),
)

STYLE = {"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": False}

_NOT_FINITE = 255  # the palette's last entry; 0 … 254 are the map, so that 127 is its very middle


def figure(rows: int = 1, columns: int = 1, height: float = 3.4, **subplots):
    """A white figure of the house's width (8 inches; height in inches) and its axes."""
    with rc_context(STYLE):
        size = PIXELS / DPI, height
        fig = Figure(figsize=size, dpi=DPI, layout="constrained", facecolor="white")
        return fig, fig.subplots(rows, columns, **subplots)


@dataclass(frozen=True, repr=False)
class Shown:
    """A picture's PNG bytes and description, shown as a cell's last line; see `show`."""

    png: bytes
    description: str

    def __repr__(self) -> str:
        return self.description

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        data = {"image/png": b64encode(self.png).decode(), "text/plain": self.description}
        return data, {"image/png": {"alt": self.description}}


def show(fig: Figure, description: str, caption: str) -> Shown:
    """The figure as a palette PNG of 800 px with its caption below: the last line of a cell.

    `description`, the output's text/plain, says what is shown, with its key numbers: it is what a
    screen reader gets, and what the tests compare. ValueError if it or the caption is empty.
    """
    for name, words in (("description", description), ("caption", caption)):
        if not isinstance(words, str) or not words.strip():
            raise ValueError(f"A figure needs a {name}: say what is shown, with its key numbers.")
    return Shown(png(fig, caption), description)


def png(fig: Figure, caption: str, sharpness: int = 1) -> bytes:
    """The figure as palette PNG bytes, 800 px × `sharpness` wide, its caption drawn below it."""
    fig.supxlabel(fill(caption, 104), fontsize=10, color="#333333", x=0.01, ha="left")
    canvas = io.BytesIO()
    fig.savefig(canvas, format="png", dpi=sharpness * DPI)
    return _png(_with_palette(Image.open(canvas)))


def heatmap(
    values: Tensor, low: float, high: float, diverging: bool = False, side: int = 224
) -> bytes:
    """A map (H,W) as palette PNG bytes, about `side` px on its longer side, in milliseconds.

    `low` and `high` are the ends of the colors; with `diverging` they must be −r and r, so that
    zero is the middle. Values beyond them are clipped; NaN and infinity are gray. ValueError for
    another shape or a range that does not rise.
    """
    if values.ndim != 2 or not values.numel():
        raise ValueError(f"A heatmap takes one map of shape (H,W), not {tuple(values.shape)}.")
    if not low <= high or (diverging and low != -high):
        raise ValueError(f"The range {low} … {high} must rise, and be −r … r for a difference.")
    array = values.detach().to("cpu").double().numpy()
    share = (array - low) / (high - low) if low < high else np.full_like(array, 0.5)
    index = np.rint(254 * share.clip(0, 1))
    index = np.where(np.isfinite(array), index, _NOT_FINITE).astype(np.uint8)
    factor = max(1, side // max(index.shape))
    picture = Image.fromarray(index.repeat(factor, 0).repeat(factor, 1))
    picture.putpalette(_palette(difference_map() if diverging else activation_map()))
    return _png(picture, compress_level=1)


def activation_map() -> Colormap:
    """The colors of activations: viridis."""
    return colormaps["viridis"]


def difference_map() -> Colormap:
    """The colors of differences: blue, white at zero, red."""
    return colormaps["RdBu_r"]


def stage_picture(comparisons: Mapping[str, Comparison], floor: float = 1e-8):
    """One line per comparison: relative difference by point, on a log axis with a floor.

    What is no larger than rounding lies in the gray band, and is described by its bound only; with
    a floor above it there is no band.
    """
    fig, axes = figure(height=3.8)
    if floor < ROUNDING:
        axes.axhspan(floor, ROUNDING, color="#e4e4e4", zorder=0)
        axes.text(4.18, ROUNDING / 1.5, "float32 rounding", color="#444444", va="top", ha="right")
    for (label, rows), (color, marker, line) in zip(comparisons.items(), SERIES, strict=False):
        heights = [max(row.relative, floor) for row in rows.values()]
        axes.plot(list(rows), heights, ls=line, color=color, marker=marker, ms=8, lw=2, label=label)
    axes.set(yscale="log", ylim=(floor, None), ylabel="max|A − B| / max|A|")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)
    words = "; ".join(f"{label}: {in_words(rows)}" for label, rows in comparisons.items())
    return fig, f"Relative difference max|A−B| / max|A| by stage. {words}."


def in_words(rows: Comparison) -> str:
    """The relative differences of a comparison in one phrase."""
    if all(row.relative <= row.rounding for row in rows.values()):
        return "rounding at most (≤ 1e-5) at every point"
    return ", ".join(f"{point} {row.cells()[-1]}" for point, row in rows.items())


def bar_picture(values: Mapping[str, float], unit: str, quantity: str, form: str = ".0f"):
    """A bar for each of `values`, its number beside it in `form`; the last bar stands out."""
    fig, axes = figure(height=0.45 * len(values) + 1.2)
    colors = [BLUE] * (len(values) - 1) + [ORANGE]
    bars = axes.barh(list(values), list(values.values()), color=colors, height=0.6)
    words = {name: f"{value:{form}} {unit}" for name, value in values.items()}
    axes.bar_label(bars, list(words.values()), padding=4)
    axes.set(xlim=(0, 1.17 * max(values.values())), xlabel=f"{quantity} ({unit})")
    axes.invert_yaxis()
    each = "; ".join(f"{name}: {number}" for name, number in words.items())
    return fig, f"{quantity[:1].upper()}{quantity[1:]}. {each}."


def feature_maps(a: Tensor, b: Tensor, names: tuple[str, str], photo: Tensor):
    """A photo, maps A and B on one scale, and A − B on its own with zero in the middle.

    Shapes: `a`, `b` (H,W); `photo` (1,3,H,W) in 0–1.
    """
    fig, axes = figure(1, 4, height=3.7 if "\n" in "".join(names) else 3.1)
    half = photo[0, :, ::2, ::2].permute(1, 2, 0).clamp(0, 1)  # four times fewer bytes
    axes[0].imshow(half, interpolation="nearest")
    space = fig.colorbar(ScalarMappable(), ax=axes[0], location="bottom", shrink=0.9)
    space.ax.set_visible(False)  # it only keeps the photo as large as the maps
    low, high = (end.item() for end in stack([a, b]).aminmax())
    for panel, values in zip(axes[1:3], (a, b), strict=True):
        drawn = panel.imshow(values, cmap=activation_map(), vmin=low, vmax=high)
    fig.colorbar(drawn, ax=axes[1:3], location="bottom", shrink=0.7)
    least, most = (end.item() for end in (a - b).aminmax())
    reach = max(-least, most) or 1
    drawn = axes[3].imshow(a - b, cmap=difference_map(), vmin=-reach, vmax=reach)
    fig.colorbar(drawn, ax=axes[3], location="bottom", shrink=0.9, format="%.2g")
    for panel, title in zip(axes, ("photo", *names, "A − B"), strict=True):
        panel.set_title(title, fontsize=10)
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
    return fig, (
        f"A ({names[0]}) and B ({names[1]}) on one scale from {short(low)} to {short(high)}; "
        f"A − B from {short(least)} to {short(most)}."
    )


def _with_palette(image: Image.Image) -> Image.Image:
    # A palette fitted to the picture alone would turn a color bar into steps; and Pillow's own
    # mapping to a given palette is only roughly the nearest, so that white turns gray.
    pixels = np.asarray(image.convert("RGB")).astype(np.int64)
    fitted = image.convert("RGB").quantize(47).getpalette()[: 47 * 3]
    maps = [m(np.linspace(0, 1, 80))[:, :3] * 255 for m in (activation_map(), difference_map())]
    palette = np.concatenate([[[255] * 3], np.reshape(fitted, (-1, 3)), *maps]).round()
    codes, inverse = np.unique(pixels @ [1 << 16, 1 << 8, 1], return_inverse=True)
    colors = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1)
    nearest = ((palette**2).sum(1) - 2 * colors @ palette.T).argmin(1).astype(np.uint8)
    picture = Image.fromarray(nearest[inverse].reshape(pixels.shape[:2]))
    picture.putpalette(palette.astype(np.uint8).tobytes())
    return picture


def _palette(colormap) -> bytes:
    colors = (colormap(np.linspace(0, 1, _NOT_FINITE))[:, :3] * 255).round().astype(np.uint8)
    return bytes(colors) + bytes([150, 150, 150])


def _png(picture: Image.Image, **options) -> bytes:
    out = io.BytesIO()
    picture.save(out, format="png", **(options or {"optimize": True}))
    return out.getvalue()
