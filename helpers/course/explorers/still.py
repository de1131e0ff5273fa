"""A frame as a still picture, for places where no widget can run: GitHub, print, a slow start."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, groupby
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from PIL import Image

from helpers.figures import BLACK, BLUE, ORANGE, activation_map, difference_map, figure, png

Panel = Mapping[str, Any]
SHARPNESS = 2  # picture pixels for each px of the page
PURPLE = "#6A3D9A"
KINDS = {"right": BLUE, "wrong": "#B34700", "truth": BLACK, "other": PURPLE}


def still(panels: Sequence[Panel], caption: str) -> bytes:
    """Draw the panels of a frame below one another: PNG bytes, 1,600 px wide."""
    rows = []
    for pictured, group in groupby(panels, lambda panel: panel["kind"] == "image"):
        some = list(group)
        rows += [_images(some)] if pictured else chain.from_iterable(map(_rows, some))
    heights = [height for _, height, _ in rows]
    fig, _ = figure(height=sum(heights) + 0.5)
    fig.clear()
    below = fig.subfigures(len(rows), 1, height_ratios=heights)
    for part, (columns, _, draw) in zip(np.atleast_1d(below), rows, strict=True):
        axes = part.subplots(1, columns, squeeze=False)[0]
        draw(axes)
    return png(fig, caption, SHARPNESS)


def _rows(panel: Panel) -> list[tuple[int, float, Callable]]:
    """What a panel takes: (columns, inches of height, what draws into its axes)."""
    kind = panel["kind"]
    if kind == "maps":
        return [(len(panel["maps"]), 2.6, lambda axes: _maps(axes, panel["maps"]))]
    if kind == "cards":
        return [(len(row), 0.7, lambda axes, row=row: _cards(axes, row)) for row in panel["rows"]]
    if kind == "bars":
        return [(1, 0.35 * len(panel["rows"]) + 0.4, lambda axes: _bars(axes[0], panel))]
    return [(1, 3.0, lambda axes: _plot(axes[0], panel))]


def _images(panels: Sequence[Panel]) -> tuple[int, float, Callable]:
    """Pictures stand side by side."""

    def draw(axes: Sequence[Axes]) -> None:
        for ax, panel in zip(axes, panels, strict=True):
            _image(ax, panel)
            words = " ".join(filter(None, [panel["title"], panel.get("note")]))
            ax.set_title(fill(words, 90 // len(panels)), fontsize=10)

    return len(panels), 3.6, draw


def _maps(axes: Sequence[Axes], maps: Sequence[Panel]) -> None:
    for ax, one in zip(axes, maps, strict=True):
        ax.axis("off")
        values = np.frombuffer(base64.b64decode(one["values"]), np.uint8).reshape(one["shape"])
        colors = difference_map() if one.get("diverging") else activation_map()
        ax.imshow(np.where(values == 255, np.nan, values / 254), cmap=colors, vmin=0, vmax=1)
        ax.set_title("\n".join(filter(None, [one["title"], one.get("note")])), fontsize=10)


def _cards(axes: Sequence[Axes], cards: Sequence[Panel]) -> None:
    for ax, card in zip(axes, cards, strict=True):
        ax.axis("off")
        words = (fill(card.get(part, ""), 90 // len(axes)) for part in ("title", "text"))
        words = "\n".join(filter(None, words))
        ax.set_title(words, fontsize=9, loc="left", fontweight="bold" if card.get("warn") else None)


def _bars(ax: Axes, panel: Panel) -> None:
    rows = panel["rows"][::-1]
    for part, color in (("share", ORANGE), ("first", BLUE), ("floor", "#999999")):
        lengths = [min(row.get(part, 0), 1) for row in rows]
        ax.barh([row["label"] for row in rows], lengths, color=color)
    ax.axvspan(0, panel.get("floor", 0), color="#dddddd", zorder=0)
    ax.set(xlim=(0, 1.3), xticks=[], title=panel.get("title", ""))
    for number, row in enumerate(rows):
        end = min(max(row["share"], row.get("floor", 0)), 1)
        ax.text(end + 0.01, number, row["text"], va="center", fontsize=10)


def _image(ax: Axes, panel: Panel) -> None:
    ax.axis("off")
    ax.imshow(Image.open(io.BytesIO(base64.b64decode(panel["png"]))).convert("RGB"))
    for one in panel["boxes"]:
        x0, y0, x1, y1 = one["box"]
        line = "--" if one["kind"] in ("truth", "own dashed") else "-"
        color = KINDS.get(one["kind"]) or one["color"]
        ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec=color, ls=line, lw=1.5))
        if one.get("text"):
            ax.text(x0, y0, one["text"], color="white", fontsize=8, backgroundcolor=color)


def _plot(ax: Axes, panel: Panel) -> None:
    for axis, name in ((panel["x"], "x"), (panel["y"], "y")):
        scale = "log" if axis.get("log") else "linear"
        ax.set(**{f"{name}scale": scale, f"{name}lim": (axis["low"], axis["high"])})
        ax.set(**{f"{name}label": axis["label"]})
    for group in panel.get("dots", ()):
        color = "#5B8DB8" if group["kind"] == "many" else ORANGE
        ax.plot(group["x"], group["y"], "o", ms=3, mew=0, alpha=0.6, color=color)
    for line in panel.get("lines", ()):
        if line["kind"] == "filled":
            ax.fill(line["x"], line["y"], color=BLUE, alpha=0.3, lw=0)
        else:
            ax.plot(line["x"], line["y"], color="#999999", lw=1.5)
    ax.set_title(panel["title"], fontsize=10)
