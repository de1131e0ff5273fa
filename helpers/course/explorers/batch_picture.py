"""A channel by batch size, as the BatchExplorer shows it: one batch, running_var, all batches."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image

from helpers.batch_statistics import Statistics
from helpers.course.explorers.canvas import AXIS, Canvas, palette, tick_words, ticks
from helpers.figures import BLACK, BLUE, ORANGE
from helpers.text import short

SIZES = (1, 2, 4, 8, 16, 32, 64)
HEIGHT = 400
TOP, BOTTOM = 70, 338  # of all three panels, px
LEGEND, CLOUD_TOP = (56, 74, 92, 110), 128
HISTOGRAM, BAR, CLOUD = (14, 300), (368, 420), (604, 790)  # left and right edges, px
FILL, DOT, MANY = "#D0D4D8", "#5E6E7E", "#9CC5E0"
RADII = tuple(m * 10.0**e for e in range(-2, 4) for m in (1, 1.5, 2, 3, 4, 6))


class BatchState(NamedTuple):
    """What a picture shows: batches of `size` of one `channel`, and one of them closely.

    `batch` counts from the typical one, whose parts of the variance are nearest to the average.
    """

    statistics: Statistics
    channel: int
    size: int
    batch: int = 0


def picture(state: BatchState) -> tuple[bytes, str]:
    """One batch's histograms, the bar of what running_var goes to, all batches around the stored.

    Returns a palette PNG of 800 × 400 px and a sentence with the key numbers. The axes depend on
    the channel only. ValueError for a size or a channel that there is not, and for a channel that
    has one value everywhere.
    """
    statistics = state.statistics.channel(state.channel)
    if not statistics.within + statistics.between > 0:
        raise ValueError(
            f"Channel {state.channel} of {statistics.layer} has one value in all pixels of all "
            "images: choose another."
        )
    batches = statistics.batches(state.size)
    chosen = (statistics.typical(batches) + state.batch) % len(batches)
    canvas = Canvas(HEIGHT, _palette())
    _draw_histograms(canvas, statistics, batches[chosen])
    _draw_bar(canvas, statistics, state.size)
    _draw_cloud(canvas, statistics, batches, chosen)
    return canvas.png(), _sentence(state, statistics, batches)


def _draw_histograms(canvas: Canvas, statistics: Statistics, batch: np.ndarray) -> None:
    left, right = HISTOGRAM
    low, high = statistics.edges[0, [0, -1]]
    merge = 2 if statistics.pixels > 500 else 4  # small maps: wider bins
    shares = (
        statistics.histograms[:, 0].reshape(len(statistics), -1, merge).sum(2) / statistics.pixels
    )
    top = np.quantile(shares.max(1), 0.75)
    walls = np.rint(np.linspace(left, right, shares.shape[1] + 1)).repeat(2)

    def column(value):
        return left + (right - left) * np.clip((value - low) / (high - low), 0, 1)

    def outline(shares):
        rows = np.rint(BOTTOM - (BOTTOM - TOP) * np.minimum(shares / top, 1)).repeat(2)
        return list(zip(walls, [BOTTOM, *rows, BOTTOM], strict=True))

    merged = outline(shares[batch].mean(0))
    canvas.polygon(merged, FILL)
    for image in batch:
        canvas.line(outline(shares[image]), BLUE if len(batch) <= 8 else MANY)
    canvas.line(merged, BLACK, 2)
    canvas.line([(left, BOTTOM), (right, BOTTOM)], AXIS)
    for image in batch:
        at = column(statistics.means[image, 0])
        canvas.polygon([(at, BOTTOM + 1), (at - 4, BOTTOM + 9), (at + 4, BOTTOM + 9)], ORANGE)
    at = column(statistics.running_mean[0])
    canvas.dashed((at, TOP - 16), (at, BOTTOM), BLACK)
    beside, anchor = (6, "lm") if at < (left + right) / 2 else (-6, "rm")
    canvas.text(at + beside, TOP - 10, "running mean", anchor)
    for tick in ticks(low, high):
        canvas.line([(column(tick), BOTTOM), (column(tick), BOTTOM + 4)], AXIS)
        canvas.text(column(tick), BOTTOM + 12, tick_words(tick), "mt")
    canvas.text(left, 4, f"One batch: {_images(len(batch))}", "lt", 15)
    canvas.text(left, 26, "thin: each image · filled: merged", "lt")
    canvas.text((left + right) / 2, HEIGHT - 8, "input   ▲ mean of each image", "mb")


def _draw_bar(canvas: Canvas, statistics: Statistics, size: int) -> None:
    left, right = BAR
    within, between, stored = _percents(statistics, size)
    most = 1.12 * max(100.0, min(stored, 200.0))

    def row(percent):
        return BOTTOM - (BOTTOM - TOP) * min(percent / most, 1)

    for tick in range(0, int(most) + 1, 25 if most < 160 else 50):
        canvas.line([(left - 5, row(tick)), (left, row(tick))], AXIS)
        canvas.text(left - 9, row(tick), f"{tick} %", "rm")
    canvas.polygon(_box(left, row(within), right, BOTTOM), BLUE)
    top = row(within + between)
    if between:
        canvas.polygon(_box(left, top, right, row(within)), ORANGE)
        for start in np.arange(left - (row(within) - top), right, 7):  # hatched
            ends = np.clip([start, start + row(within) - top], left, right)
            canvas.line([(x, row(within) - (x - start)) for x in ends], "white")
    canvas.line([*_box(left, top, right, BOTTOM), (left, BOTTOM)], BLACK, 1.5)
    canvas.line([(left, TOP), (left, BOTTOM), (right + 8, BOTTOM)], AXIS)
    canvas.line([(left, row(100)), (right + 8, row(100))], BLACK)
    canvas.dashed((left - 4, row(stored)), (right + 8, row(stored)), BLACK, 2)
    canvas.text(left - 38, 4, f"running_var goes to {_percent(within + between)}", "lt", 15)
    canvas.text(left - 38, 26, f"of the variance of all {len(statistics)} images", "lt")
    beyond = " ↑" if stored > most else ""
    labels = [
        (row(100), f"all {len(statistics)}: 100 %"),
        (row(stored), f"stored: {_percent(stored)}{beyond}"),
        ((row(within) + top) / 2, f"between-image\n× (1 − 1/B): {_percent(between)}"),
        ((row(within) + BOTTOM) / 2, f"within-image:\n{_percent(within)}"),
    ]
    labels.sort(key=lambda label: label[0])
    for (at, words), y in zip(labels, _apart(labels), strict=True):
        canvas.line([(right + 9, at), (right + 17, y)], AXIS)
        for number, line in enumerate(words.split("\n")):
            canvas.text(right + 21, y + 16 * number - 8 * words.count("\n"), line)


def _apart(labels: list[tuple[float, str]]) -> np.ndarray:
    """Rows for the labels, in order, as near to theirs as their lines' height allows."""
    heights = np.array([18.0 + 16 * words.count("\n") for _, words in labels])
    gaps = np.append(0, (heights[1:] + heights[:-1]) / 2).cumsum()
    rows = np.maximum.accumulate(np.array([at for at, _ in labels]) - gaps)
    return np.minimum(rows, BOTTOM - heights[-1] / 2 - gaps[-1]) + gaps


def _draw_cloud(canvas: Canvas, statistics: Statistics, batches: np.ndarray, chosen: int) -> None:
    """Across: how far the mean is off, up: what the layer divides by, in units of the stored."""
    left, right = CLOUD
    reach = _reach(statistics)
    unit = (right - left) / (2 * reach)
    low = max(0.0, 1 - (BOTTOM - CLOUD_TOP) / unit / 2)

    def place(across, up):
        x, y = (left + right) / 2 + unit * across, BOTTOM - unit * (up - low)
        return np.clip(x, left, right), np.clip(y, CLOUD_TOP, BOTTOM)

    for radius in (reach / 2, reach):
        angles = np.linspace(0, 2 * np.pi, 121)
        xs, ys = place(radius * np.cos(angles), 1 + radius * np.sin(angles))
        inside = (ys > CLOUD_TOP) & (ys < BOTTOM)
        for i in range(0, 120, 2):
            if inside[i : i + 2].all():
                canvas.line([(xs[i], ys[i]), (xs[i + 1], ys[i + 1])], AXIS)
        canvas.text(*place(0, 1 + radius), f" {radius:g}", "lb")
    canvas.line([(left, CLOUD_TOP), (left, BOTTOM), (right, BOTTOM)], AXIS)
    for tick in ticks(-reach, reach):
        x, _ = place(tick, 0)
        canvas.line([(x, BOTTOM), (x, BOTTOM + 4)], AXIS)
        canvas.text(x, BOTTOM + 12, tick_words(tick), "mt")
    for tick in ticks(low, low + (BOTTOM - CLOUD_TOP) / unit):
        _, y = place(0, tick)
        canvas.line([(left - 5, y), (left, y)], AXIS)
        canvas.text(left - 9, y, tick_words(tick), "rm")
    means, scales = _normalized(statistics, batches)
    dots = list(zip(*place(means, scales), strict=True))
    for x, y in dots:
        canvas.disc(x, y, 4, DOT)
    canvas.disc(*dots[chosen], 6, ORANGE, BLACK)
    _cross(canvas, *place(0, 1))
    keys = "a batch", "the one at the left", "running mean and σ", "train − eval, in |weight|"
    for y, words in zip(LEGEND, keys, strict=True):
        canvas.text(left + 8, y, words)
    canvas.disc(left - 8, LEGEND[0], 4, DOT)
    canvas.disc(left - 8, LEGEND[1], 6, ORANGE, BLACK)
    _cross(canvas, left - 8, LEGEND[2])
    canvas.dashed((left - 20, LEGEND[3]), (left + 3, LEGEND[3]), AXIS, 1)
    count = len(batches)
    canvas.text(left - 30, 4, f"{count} batch{'es' * (count > 1)} of {batches.shape[1]}", "lt", 15)
    canvas.text(left - 30, 26, "up: batch σ / running σ", "lt")
    canvas.text(right, HEIGHT - 8, "(mean − running mean) / running σ", "rb")


def _normalized(statistics: Statistics, batches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean off the running one, and √(variance + eps), of each batch (n,) in running √(… + eps)."""
    mean, variance = statistics.of_batch(batches)
    running = np.sqrt(statistics.running_var + statistics.eps)
    means, scales = (
        (mean - statistics.running_mean) / running,
        np.sqrt(variance + statistics.eps) / running,
    )
    return means[:, 0], scales[:, 0]


def _reach(statistics: Statistics) -> float:
    """Half the width of the cloud's axes: a round number that takes in the batches of all sizes."""
    sizes = [size for size in SIZES if size <= len(statistics)]
    means, scales = np.hstack([_normalized(statistics, statistics.batches(size)) for size in sizes])
    height = (BOTTOM - CLOUD_TOP) / (CLOUD[1] - CLOUD[0])
    needed = max(np.abs(means).max(), (scales.max() - 1) / height, scales.max() / height / 2)
    return next((radius for radius in RADII if radius >= needed), RADII[-1])


def _percents(statistics: Statistics, size: int) -> tuple[float, float, float]:
    """Within, (1 − 1/B)·between, and running_var as stored, in percent of the pool's variance."""
    pool = statistics.expected_running_var(len(statistics))
    within = statistics.unbiased(size) * statistics.within
    parts = within, statistics.expected_running_var(size) - within, statistics.running_var
    return tuple(100 * (part / pool).item() for part in parts)


def _sentence(state: BatchState, statistics: Statistics, batches: np.ndarray) -> str:
    size = batches.shape[1]
    within, between, stored = _percents(statistics, size)
    spread = statistics.spread_of_means(size) / np.sqrt(statistics.running_var + statistics.eps)
    difference = np.median(statistics.difference(batches))
    part = f"{size - 1}/{size}" if size > 1 else "none"
    cloud, median = "There is one such batch", ""
    if size < len(statistics):
        cloud = f"The means of the batches spread by {short(spread.item(), 2)} running σ"
        median = ", median batch"
    return (
        f"{statistics.network}, {statistics.layer}, channel {state.channel}, of whose variance "
        f"{_percent(100 * statistics.between_share.item())} is between images. With "
        f"{_images(size)} per batch, running_var goes to {_percent(within + between)} of the "
        f"variance of all {len(statistics)}: {_percent(within)} within the images, and {part} of "
        f"what is between them, {_percent(between)}; stored is {_percent(stored)}. "
        f"{cloud}, and the output in train mode is {short(difference, 2)} |weight| off that in "
        f"eval mode (rms{median})."
    )


def _images(count: int) -> str:
    return f"{count} image{'s' * (count > 1)}"


def _percent(value: float) -> str:
    return f"{value:.0f} %"


def _box(left, top, right, bottom) -> list[tuple[float, float]]:
    return [(left, bottom), (left, top), (right, top), (right, bottom)]


@lru_cache
def _palette() -> Image.Image:
    """Colors that fade into white, and into each other where they meet."""
    pairs = [("white", color) for color in (BLACK, AXIS, FILL, DOT, BLUE, MANY, ORANGE)]
    pairs += [(FILL, color) for color in (BLACK, BLUE, MANY)]
    pairs += [(BLACK, color) for color in (BLUE, MANY, ORANGE)]
    return palette(pairs)


def _cross(canvas: Canvas, x: float, y: float) -> None:
    for color, width, arm in (("white", 5, 10), (BLACK, 2.5, 8)):
        canvas.line([(x - arm, y), (x + arm, y)], color, width)
        canvas.line([(x, y - arm), (x, y + arm)], color, width)
