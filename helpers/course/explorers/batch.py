"""BatchExplorer: how the batch size changes what BatchNorm normalizes by, and what it stores."""

from collections.abc import Mapping
from functools import lru_cache, partial
from typing import NamedTuple

import ipywidgets as W
import numpy as np
from PIL import Image
from torch import nn

from helpers.batch_statistics import Statistics, collect, crops
from helpers.course.explorers import live
from helpers.course.explorers.canvas import AXIS, Canvas, palette, tick_words, ticks
from helpers.course.explorers.live import UNTOUCHED, Live
from helpers.figures import BLACK, BLUE, ORANGE, PIXELS
from helpers.networks.backbones import load
from helpers.text import short

SIZES = (1, 2, 4, 8, 16, 32, 64)
PRESETS = (1, 2, 8, 64)
HEIGHT = 400
TOP, BOTTOM = 70, 338  # of all three panels, px
LEGEND, CLOUD_TOP = (56, 74, 92, 110), 128
HISTOGRAM, BAR, CLOUD = (14, 300), (368, 420), (604, 790)  # left and right edges, px
FILL, DOT, MANY = "#D0D4D8", "#5E6E7E", "#9CC5E0"
RADII = tuple(m * 10.0**e for e in range(-2, 4) for m in (1, 1.5, 2, 3, 4, 6))
STYLE = f"""<style>
.batch-explorer {{ max-width: {PIXELS}px; color: var(--jp-content-font-color1, inherit); }}
.batch-explorer .widget-toggle-buttons {{ display: flex; margin-bottom: 6px; }}
.batch-explorer .widget-toggle-buttons .widget-toggle-button {{ width: auto; min-width: 4em; }}
.batch-explorer .widget-button {{ padding: 0 6px; }}
.batch-explorer .widget-readout {{ pointer-events: none; -webkit-user-modify: read-only; }}
.batch-explorer .widget-html {{ width: 100%; margin: 0; }}
.batch-explorer .widget-html-content {{ flex: 1; }}
.batch-explorer .batch-picture {{ width: 100%; aspect-ratio: {PIXELS} / {HEIGHT};
  display: block; }}
.batch-explorer .batch-sentence {{ line-height: 1.4; height: 7em; overflow: auto;
  margin: 6px 0; }}
.batch-explorer .batch-small {{ font-size: 0.85em; line-height: 1.4; opacity: 0.85; }}
.batch-explorer .batch-error {{ min-height: 1.4em; line-height: 1.4; }}
.batch-explorer .jupyter-widgets-disconnected::before {{ display: none; }}
.batch-explorer.jupyter-widgets-disconnected::before {{ display: none; }}
</style>"""

WHAT_IT_IS = (
    "All images: crops of four photos. σ: √(variance + eps), by which the layer divides. The "
    "layers before this one use their running statistics."
)
NEEDS_KERNEL = (
    "The batch size buttons switch in the page alone. The controls below need a kernel: run the "
    "notebook first."
)
frame = partial(live.frame, "batch", "A channel by batch size")


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
    found = state.statistics.channel(state.channel)
    if not found.within + found.between > 0:
        raise ValueError(
            f"Channel {state.channel} of {found.layer} has one value in all pixels of all images: "
            "choose another."
        )
    batches = found.batches(state.size)
    chosen = (found.typical(batches) + state.batch) % len(batches)
    canvas = Canvas(HEIGHT, _palette())
    _draw_histograms(canvas, found, batches[chosen])
    _draw_bar(canvas, found, state.size)
    _draw_cloud(canvas, found, batches, chosen)
    return canvas.png(), _sentence(state, found, batches)


class BatchExplorer(Live):
    """One channel of one BatchNorm layer, by batch size; shows itself as a cell's last line.

    `network`: "resnet50", "lite0", a model that batch_statistics.collect takes, which then runs
    once on `crops()`, or what `collect` has returned. No control runs the network. It
    starts at the channel with the largest share of between-image variance. Its text/plain holds the
    presets' sentences, and the first frame's picture stands in for the widgets where they cannot
    run. `state` is what the controls say, `frames` the presets' HTML and the live one, `message`
    the latest bad input.

    ValueError or TypeError for a network that has nothing to show.
    """

    def __init__(self, network: str | nn.Module | Mapping[str, Statistics] = "resnet50"):
        super().__init__("batch")
        if isinstance(network, str):
            network = load(network)
        if not isinstance(network, Mapping):
            network = collect(network, crops())
        self._found = network
        self._batch = 0
        first = max(network, key=lambda stage: network[stage].between_share.max())
        self._build(first, network[first])
        self._shown = self.state
        self.png, self.text = self._draw_presets()

    def _build(self, stage: str, found: Statistics) -> None:
        wide, auto = {"description_width": "6em"}, W.Layout(width="auto")
        self._presets = [size for size in PRESETS if size <= len(found)]
        self.preset = W.ToggleButtons(
            options=[*map(str, self._presets), "custom"], description="batch size", style=wide
        )
        self.size = W.SelectionSlider(
            options=[size for size in SIZES if size <= len(found)],
            description="custom size",
            style=wide,
            layout=W.Layout(width="22em"),
        )
        self.another = W.Button(description="another batch", layout=auto)
        self.stage = W.Dropdown(
            options=list(self._found),
            value=stage,
            description="stage",
            style=wide,
            layout=W.Layout(width="14em"),
        )
        self.channel = W.BoundedIntText(
            found.most_between(),
            0,
            found.channels - 1,
            description="channel",
            style={"description_width": "4.5em"},
            layout=W.Layout(width="11em"),
        )
        self.most = W.Button(description="largest between-image share", layout=auto)
        self.least = W.Button(description="smallest between-image share", layout=auto)
        self._views = [W.HTML() for _ in self._presets] + [W.HTML(frame(None, UNTOUCHED))]
        stack = W.Stack(self._views, selected_index=0)
        W.jslink((self.preset, "index"), (stack, "selected_index"))
        self.preset.observe(self._picked, "index")
        self.size.observe(self._slid, "value")
        self.stage.observe(self._turned_stage, "value")
        self.channel.observe(self._turned_channel, "value")
        self.another.on_click(self._to_another)
        self.most.on_click(lambda _: self._to(self._statistics.most_between()))
        self.least.on_click(lambda _: self._to(self._statistics.least_between()))
        row = W.Layout(flex_flow="row wrap")
        self.box = W.VBox(
            [
                W.HTML(STYLE, layout={"display": "none"}),
                self.preset,
                stack,
                self._error,
                W.HTML(f'<div class="batch-small">{WHAT_IT_IS}<br>{NEEDS_KERNEL}</div>'),
                W.HBox([self.size, self.another], layout=row),
                W.HBox([self.stage, self.channel, self.most, self.least], layout=row),
            ]
        ).add_class("batch-explorer")

    @property
    def state(self) -> BatchState:
        """What the controls say."""
        return BatchState(self._statistics, self.channel.value, self.size.value, self._batch)

    @property
    def frames(self) -> list[str]:
        return [view.value for view in self._views]

    @property
    def _statistics(self) -> Statistics:
        return self._found[self.stage.value]

    def _draw_presets(self) -> tuple[bytes, str]:
        """Fill the presets' frames for the channel shown; the first's picture, all sentences."""
        drawn = [picture(BatchState(*self._shown[:2], size)) for size in self._presets]
        for view, (png, sentence) in zip(self._views, drawn, strict=False):
            view.value = frame(png, sentence)
        return drawn[0][0], "\n".join(sentence for _, sentence in drawn)

    def _draw(self) -> None:
        """Show as "custom" what the controls say; after bad input only say why not."""
        try:
            png, sentence = picture(self.state)
        except ValueError as error:
            return self._say(str(error))
        self._views[-1].value = frame(png, sentence)
        self._say("")
        with self._not_following():
            self.preset.index = len(self._presets)
        before, self._shown = self._shown, self.state
        if self._shown[:2] != before[:2]:
            self._soon(self._draw_presets)

    def _picked(self, change) -> None:
        if not self._following:
            return
        if change["new"] == len(self._presets):
            return self._draw()
        self._batch = 0
        with self._not_following():  # the presets' frames show the last channel that can be shown
            self.size.value = self._presets[change["new"]]
            self.stage.value = next(
                stage for stage, found in self._found.items() if found is self._shown.statistics
            )
            self._bound_channel(self._shown.channel)
        self._say("")

    def _slid(self, change) -> None:
        if self._following:
            self._batch = 0
            self._draw()

    def _to_another(self, _) -> None:
        self._batch += 1
        self._draw()

    def _turned_channel(self, change) -> None:
        if self._following:
            self._draw()

    def _turned_stage(self, change) -> None:
        if not self._following:
            return
        try:
            channel = self._statistics.most_between()
        except ValueError as error:
            with self._not_following():
                self.stage.value = change["old"]
            return self._say(str(error))
        self._to(channel)

    def _to(self, channel: int) -> None:
        with self._not_following():
            self._bound_channel(channel)
        self._draw()

    def _bound_channel(self, channel: int) -> None:
        self.channel.max = self._statistics.channels - 1
        self.channel.value = channel


def _draw_histograms(canvas: Canvas, found: Statistics, batch: np.ndarray) -> None:
    left, right = HISTOGRAM
    low, high = found.edges[0, [0, -1]]
    merge = 2 if found.pixels > 500 else 4  # small maps: wider bins
    shares = found.histograms[:, 0].reshape(len(found), -1, merge).sum(2) / found.pixels
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
        at = column(found.means[image, 0])
        canvas.polygon([(at, BOTTOM + 1), (at - 4, BOTTOM + 9), (at + 4, BOTTOM + 9)], ORANGE)
    at = column(found.running_mean[0])
    canvas.dashed((at, TOP - 16), (at, BOTTOM), BLACK)
    beside, anchor = (6, "lm") if at < (left + right) / 2 else (-6, "rm")
    canvas.text(at + beside, TOP - 10, "running mean", anchor)
    for tick in ticks(low, high):
        canvas.line([(column(tick), BOTTOM), (column(tick), BOTTOM + 4)], AXIS)
        canvas.text(column(tick), BOTTOM + 12, tick_words(tick), "mt")
    canvas.text(left, 4, f"One batch: {_images(len(batch))}", "lt", 15)
    canvas.text(left, 26, "thin: each image · filled: merged", "lt")
    canvas.text((left + right) / 2, HEIGHT - 8, "input   ▲ mean of each image", "mb")


def _draw_bar(canvas: Canvas, found: Statistics, size: int) -> None:
    left, right = BAR
    within, between, stored = _percents(found, size)
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
    canvas.text(left - 38, 26, f"of the variance of all {len(found)} images", "lt")
    beyond = " ↑" if stored > most else ""
    labels = [
        (row(100), f"all {len(found)}: 100 %"),
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


def _draw_cloud(canvas: Canvas, found: Statistics, batches: np.ndarray, chosen: int) -> None:
    """Across: how far the mean is off, up: what the layer divides by, in units of the stored."""
    left, right = CLOUD
    reach = _reach(found)
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
    means, scales = _normalized(found, batches)
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


def _normalized(found: Statistics, batches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean off the running one, and √(variance + eps), of each batch (n,) in running √(… + eps)."""
    mean, variance = found.of_batch(batches)
    running = np.sqrt(found.running_var + found.eps)
    means, scales = (mean - found.running_mean) / running, np.sqrt(variance + found.eps) / running
    return means[:, 0], scales[:, 0]


def _reach(found: Statistics) -> float:
    """Half the width of the cloud's axes: a round number that takes in the batches of all sizes."""
    sizes = [size for size in SIZES if size <= len(found)]
    means, scales = np.hstack([_normalized(found, found.batches(size)) for size in sizes])
    height = (BOTTOM - CLOUD_TOP) / (CLOUD[1] - CLOUD[0])
    needed = max(np.abs(means).max(), (scales.max() - 1) / height, scales.max() / height / 2)
    return next((radius for radius in RADII if radius >= needed), RADII[-1])


def _percents(found: Statistics, size: int) -> tuple[float, float, float]:
    """Within, (1 − 1/B)·between, and running_var as stored, in percent of the pool's variance."""
    pool = found.expected_running_var(len(found))
    within = found.unbiased(size) * found.within
    parts = within, found.expected_running_var(size) - within, found.running_var
    return tuple(100 * (part / pool).item() for part in parts)


def _sentence(state: BatchState, found: Statistics, batches: np.ndarray) -> str:
    size = batches.shape[1]
    within, between, stored = _percents(found, size)
    spread = found.spread_of_means(size) / np.sqrt(found.running_var + found.eps)
    difference = np.median(found.difference(batches))
    part = f"{size - 1}/{size}" if size > 1 else "none"
    cloud = f"The means of the batches spread by {short(spread.item(), 2)} running σ"
    return (
        f"{found.network}, {found.layer}, channel {state.channel}, of whose variance "
        f"{_percent(100 * found.between_share.item())} is between images. With {_images(size)} per "
        f"batch, running_var goes to {_percent(within + between)} of the variance of all "
        f"{len(found)}: {_percent(within)} within the images, and {part} of what is "
        f"between them, {_percent(between)}; stored is {_percent(stored)}. "
        f"{cloud if size < len(found) else 'There is one such batch'}, and the output in train "
        f"mode is {short(difference, 2)} |weight| off that in eval mode (rms"
        f"{', median batch' if size < len(found) else ''})."
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
