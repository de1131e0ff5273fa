"""Figures and heatmaps: one look, one color rule, a description that carries the numbers.

Activations are viridis, differences a diverging map centered on zero; panels that are compared
share one scale, and its range is said in words.
"""

import io
from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
from IPython.display import display
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor

from helpers.batches import Statistics
from helpers.compare import ROUNDING, Comparison, short
from helpers.pyramid import SURE, Walk
from helpers.runs import BySeed, Difference, mean

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

Series = Mapping[str, Sequence[tuple[float, float]]]

STYLE = {"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": False}

_NOT_FINITE = 255  # the palette's last entry; 0 … 254 are the map, so that 127 is its very middle


def figure(rows: int = 1, columns: int = 1, height: float = 3.4, **subplots):
    """A white figure of the house's width (8 inches; height in inches) and its axes."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        fig = Figure(
            figsize=(PIXELS / DPI, height), dpi=DPI, layout="constrained", facecolor="white"
        )
        return fig, fig.subplots(rows, columns, **subplots)


def show(fig: Figure, description: str, caption: str) -> None:
    """Display a figure as a palette PNG of 800 px, its caption drawn below it.

    `description` becomes the output's text/plain: what is shown, with its key numbers. It is what a
    screen reader gets, what an untrusted viewer shows, and what the tests compare.
    """
    if not isinstance(description, str) or not description.strip():
        raise ValueError("A figure needs a description: say what is shown, with its key numbers.")
    data = {"image/png": png(fig, caption), "text/plain": description}
    display(data, metadata={"image/png": {"alt": description}}, raw=True)


def png(fig: Figure, caption: str) -> bytes:
    """The figure as palette PNG bytes, its caption drawn below it."""
    if not isinstance(caption, str) or not caption.strip():
        raise ValueError("A figure needs a caption: say what the reader should see.")
    fig.supxlabel(fill(caption, 104), fontsize=10, color="#333333", x=0.01, ha="left")
    canvas = io.BytesIO()
    fig.savefig(canvas, format="png", dpi=DPI)
    return _png(_with_palette(Image.open(canvas)))


def heatmap(
    values: Tensor, low: float, high: float, diverging: bool = False, side: int = 224
) -> bytes:
    """A map (H,W) as palette PNG bytes, about `side` px on its longer side, in milliseconds.

    `low` and `high` are the ends of the colors; with `diverging` they must be −r and r, so that
    zero is the middle. Values beyond them are clipped; NaN and infinity are gray. Enlarged without
    blurring. ValueError for another shape or a range that does not rise.
    """
    if values.ndim != 2 or not values.numel():
        raise ValueError(f"A heatmap takes one map of shape (H,W), not {tuple(values.shape)}.")
    if not low <= high or (diverging and low != -high):
        raise ValueError(f"The range {low} … {high} must rise, and be −r … r for a difference.")
    array = values.detach().to("cpu").double().numpy()
    finite = np.isfinite(array)
    share = (np.where(finite, array, low) - low) / ((high - low) or 1.0)
    if low == high:
        share += 0.5
    index = np.where(finite, np.rint(254 * share.clip(0, 1)), _NOT_FINITE).astype(np.uint8)
    factor = max(1, side // max(index.shape))
    picture = Image.fromarray(index.repeat(factor, 0).repeat(factor, 1), mode=None)
    picture.putpalette(_palette(difference_map() if diverging else activation_map()))
    return _png(picture, compress_level=1)


def activation_map():
    return colormaps["viridis"]


def difference_map():
    return colormaps["RdBu_r"]


def stage_picture(comparisons: Mapping[str, Comparison], floor: float = 1e-8):
    """One line per comparison: relative difference by point, on a log axis with a floor.

    Returns the figure and its description. What is no larger than rounding lies in the gray band,
    and is described by its bound only; with a floor above it there is no band.
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


def variance_picture(variances: Mapping[str, Tensor], eps_trained: float, eps_layer: float):
    """Above, the scale error by running variance; below, the channels at theirs, group by group.

    `variances`: group → running variances (C,). The scale error sqrt((v + eps_trained) / (v +
    eps_layer)) is how many times too large the layer's scale is. Returns the figure and its
    description. Channels of variance 0 have no place on the axes, and are counted.
    """
    fig, (top, bottom) = figure(2, 1, height=4.4, sharex=True, height_ratios=(2, 3))
    lowest = min(v[v > 0].min().item() for v in variances.values())
    highest = max(v.max().item() for v in variances.values())
    v = np.geomspace(lowest / 2, highest * 2, 200)
    top.loglog(v, np.sqrt((v + eps_trained) / (v + eps_layer)) - 1, color=BLACK, lw=2)
    top.set_ylabel("scale error − 1")
    words = []
    for row, ((group, v), (color, *_)) in enumerate(zip(variances.items(), SERIES, strict=False)):
        v = v.detach().double()
        spread = (np.arange(len(v)) * 0.618034) % 1 * 0.7 - 0.35
        bottom.plot(v, row + spread, ".", color=color, ms=3)
        error = ((v.median() + eps_trained) / (v.median() + eps_layer)).sqrt().item() - 1
        zeros = f"; {(v == 0).sum()} have variance 0 and are not drawn" if (v == 0).any() else ""
        words.append(
            f"{group} {len(v):,} channels, median variance {short(v.median().item(), 2)} "
            f"(scale off by {short(error, 2)}){zeros}"
        )
    bottom.set(yticks=range(len(variances)), yticklabels=list(variances), ylim=(len(words), -0.6))
    bottom.set_xlabel("running variance of a channel (one dot each)")
    bottom.set_ylim(len(words) - 0.4, -0.6)
    run, trained = short(eps_layer), short(eps_trained)
    return fig, f"Scale error by variance, eps {run} instead of {trained}: {'; '.join(words)}."


def format_picture(photo: Tensor, stored: Mapping[str, Tensor]):
    """A photo as it is stored in several formats, each shown as if it were RGB in 0–1.

    Shapes: all (1,3,H,W). Formats less than a 200th of their range apart share a panel. Returns
    the figure and its description.
    """
    alike: dict[str, Tensor] = {}
    for name, x in stored.items():
        reach = (x.max() - x.min()) / 200
        names = next((names for names, y in alike.items() if _near(x, y, reach)), None)
        alike[f"{names}, {name}" if names else name] = alike.pop(names) if names else x
    titles, words = ["photo"], []
    for names, x in alike.items():
        outside = 100 * ((x < 0) | (x > 1)).float().mean().item()
        titles.append(fill(f"{names}: {outside:.0f}\u00a0%", 24))
        words.append(f"{names} {outside:.0f} %")
    fig, axes = figure(1, len(titles), height=3.2, squeeze=False)
    for panel, title, x in zip(axes.flat, titles, [photo, *alike.values()], strict=True):
        half = x[0, :, ::2, ::2].permute(1, 2, 0).clamp(0, 1).numpy()  # four times fewer bytes
        panel.imshow(half, interpolation="nearest")
        panel.set_title(title, fontsize=10)
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
    return fig, f"A photo in {len(stored)} formats, outside of 0–1: {'; '.join(words)}."


def _near(x: Tensor, y: Tensor, reach: Tensor) -> bool:
    return bool((x - y).abs().max() < reach)


def score_picture(rows: Mapping[str, Mapping[str, str]]):
    """Recall and false positives by what happened to the input, the best recall first.

    `rows`: name → "recall" and "false_positives", as text. Returns the figure and its description.
    """
    order = sorted(rows, key=lambda name: float(rows[name]["recall"]), reverse=True)
    fig, (left, right) = figure(1, 2, height=3.9, sharey=True)
    words = []
    for axis, column, color, digits in (
        (left, "recall", BLUE, 2),
        (right, "false_positives", ORANGE, 2),
    ):
        values = [float(rows[name][column]) for name in order]
        bars = axis.barh(order, values, color=color, height=0.6)
        axis.bar_label(bars, [f"{value:.{digits}f}" for value in values], padding=4, fontsize=10)
        axis.set_xlim(0, 1.18 * max(values))
    left.set_xlabel("recall at IoU 0.5")
    right.set_xlabel("wrong boxes per image")
    left.invert_yaxis()
    for name in order:
        recall, wrong = (float(rows[name][c]) for c in ("recall", "false_positives"))
        words.append(f"{name} {recall:.2f} and {wrong:.2f}")
    return fig, f"Recall, and wrong boxes per image: {'; '.join(words)}."


def run_picture(series: Mapping[str, Mapping[int, BySeed]], quantity: str):
    """Every run a dot, by batch size; a line through the means of each series.

    `series`: label → batch size → seed → value. Returns the figure and its description.
    """
    fig, axes = figure(height=3.8)
    sizes = sorted({size for runs in series.values() for size in runs})
    words = []
    for number, ((label, runs), (color, marker, line)) in enumerate(
        zip(series.items(), SERIES, strict=False)
    ):
        at = [sizes.index(size) + 0.16 * (number - (len(series) - 1) / 2) for size in runs]
        means = [mean(values) for values in runs.values()]
        axes.plot(at, means, ls=line, color=color, lw=2)
        axes.plot([], [], ls=line, color=color, marker=marker, lw=2, label=label)
        for x, values in zip(at, runs.values(), strict=True):
            aside = 0.012 * (np.arange(len(values)) - (len(values) - 1) / 2)
            axes.plot(x + aside, values.values(), marker, color=color, ms=5, mec="white", mew=0.5)
        each = ", ".join(f"{short(m, 2)} at {size}" for m, size in zip(means, runs, strict=True))
        words.append(f"{label}: {each}")
    axes.set_xticks(range(len(sizes)), [f"B = {size}" for size in sizes])
    axes.set(ylabel=quantity, ylim=(0, None))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False)
    title = f"{quantity[:1].upper()}{quantity[1:]}"
    return fig, f"{title} by batch size, means of the runs: {'; '.join(words)}."


def difference_picture(pairs: Mapping[str, Difference], quantity: str):
    """A row per comparison: every pair's difference a dot, their mean with its interval a bar.

    Returns the figure and its description.
    """
    fig, axes = figure(height=0.42 * len(pairs) + 1.3)
    for row, found in enumerate(pairs.values()):
        axes.barh(row, found.high - found.low, 0.3, found.low, color=BLUE, alpha=0.3, zorder=1)
        axes.plot([found.mean] * 2, [row - 0.24, row + 0.24], color=BLUE, lw=2.5, zorder=2)
        up = row + 0.06 * (np.arange(len(found.pairs)) - (len(found.pairs) - 1) / 2)
        axes.plot(found.pairs, up, "o", color=ORANGE, ms=5, mec="white", mew=0.5, zorder=3)
    axes.axvline(0, color=BLACK, lw=1.2, zorder=0)
    axes.set_yticks(range(len(pairs)), list(pairs))
    axes.set(xlabel=f"difference of {quantity}", ylim=(len(pairs) - 0.5, -0.5))
    words = "; ".join(f"{name}: {found}" for name, found in pairs.items())
    return fig, f"Paired differences of {quantity}. {words}."


def batch_picture(channel: Statistics, sizes: Sequence[int]):
    """A row per batch size: histograms of a batch's images, and what its variance is made of.

    `channel`: Statistics of one channel. Left, a typical batch: all its values filled, those of
    each image in outline (below 10 images), and the images' means. Right, the mean of a batch's
    variance, over all batches of that size from the pool. Returns the figure and its description.
    """
    fig, axes = figure(len(sizes), 2, height=1.25 * len(sizes) + 0.6, sharex="col", squeeze=False)
    pool = channel.expected_variance(len(channel)).item()
    within, between = 100 * channel.within.item() / pool, 100 * channel.between.item() / pool
    edges, words = channel.edges[0], []
    for (left, right), size in zip(axes, sizes, strict=True):
        batches = channel.batches(size)
        batch = batches[channel.typical(batches)]
        images = channel.histograms[batch, 0] / size
        height = images.sum(0).max()
        left.stairs(images.sum(0), edges, color="#d0d0d0", fill=True)
        for values in images if size < 10 else ():
            left.stairs(values, edges, color=BLACK)
        means = channel.means[batch, 0]
        left.plot(means, 0 * means - 0.09 * height, "^", color=ORANGE, ms=5, alpha=0.8)
        left.set(yticks=[], ylabel=f"B = {size}", ylim=(-0.2 * height, 1.1 * height))
        part = (1 - 1 / size) * between
        share = f"{within + part:.0f} %"
        right.barh(0, within, color=BLUE, height=0.5)
        right.barh(0, part, left=within, color=ORANGE, height=0.5, hatch="///", edgecolor="white")
        right.axvline(100, color=BLACK, ls="--", lw=1.2, clip_on=False)
        right.text(103, 0, share, va="center", fontsize=10)
        right.set(yticks=[], ylim=(-0.5, 0.5), xlim=(0, 122), xticks=range(0, 101, 20))
        words.append(f"{share} at B = {size}")
    axes[-1, 0].set_xlabel("value before the layer")
    axes[-1, 1].set_xlabel("variance of a batch, on average (% of all images')")
    axes[0, 0].set_title("one batch (gray), its images (lines), their means (▲)", fontsize=10)
    axes[0, 1].set_title("within images (plain), between them (striped)", fontsize=10)
    axes[0, 1].text(99, 0.33, f"all {len(channel)} ", ha="right", va="center", fontsize=9)
    return fig, (
        f"Variance of a batch, on average, as a share of that of all {len(channel)} images: "
        f"{', '.join(words)}. In each, {within:.0f} points are within images."
    )


def block_picture(blocks: Mapping[str, Sequence[tuple[Tensor, bool]]], limit: float):
    """Every channel at its running variance, layer by layer; per block, how many below `limit`.

    `blocks`: block → its layers in order, each as running variances (C,) and whether to mark them:
    marked ones are orange triangles. Channels of variance 0 have no place on the log axis, and are
    not counted as below. Returns the figure and its description.
    """
    fig, axes = figure(height=4.4)
    values = [v.detach().double() for layers in blocks.values() for v, _ in layers]
    lowest = min(v[v > 0].min().item() for v in values if (v > 0).any())
    row, layer, ticks, words = min(lowest, limit) / 4, 0, [], []
    for shaded, (block, layers) in enumerate(blocks.items()):
        first, below = layer, 0
        for v, marked in layers:
            v = v.detach().double()
            v = v[v > 0]
            color, mark = (ORANGE, "^") if marked else (BLUE, "o")
            axes.plot(layer + np.linspace(0.15, 0.85, len(v)), v, mark, color=color, ms=2.5)
            below, layer = below + int((v < limit).sum()), layer + 1
        if shaded % 2:
            axes.axvspan(first, layer, color="#ececec", lw=0, zorder=0)
        ticks.append((first + layer) / 2)
        if below:
            axes.text(ticks[-1], row, f"{below}", ha="center", va="center", fontsize=10)
            words.append(f"{block} {below}")
    axes.axhline(limit, color=BLACK, ls="--", lw=1.5)
    axes.text(0.2, row, f"channels below {short(limit)}:", va="center", fontsize=10)
    axes.set(yscale="log", xlim=(0, layer), ylim=(row / 2, None), ylabel="running variance")
    axes.set_xticks(ticks, list(blocks), rotation=90, fontsize=9)
    axes.tick_params(axis="x", length=0)
    held = ", ".join(words) or "none"
    return fig, (
        f"Running variance of {sum(map(len, values)):,} channels in {layer} layers. Below "
        f"{short(limit)}, by block: {held}."
    )


def bar_picture(values: Mapping[str, float], unit: str, quantity: str, form: str = ".0f"):
    """A bar for each of `values`, its number beside it in `form`; the last bar stands out.

    Returns the figure and its description.
    """
    fig, axes = figure(height=0.45 * len(values) + 1.2)
    colors = [BLUE] * (len(values) - 1) + [ORANGE]
    bars = axes.barh(list(values), list(values.values()), color=colors, height=0.6)
    words = {name: f"{value:{form}} {unit}" for name, value in values.items()}
    axes.bar_label(bars, list(words.values()), padding=4)
    axes.set(xlim=(0, 1.17 * max(values.values())), xlabel=f"{quantity} ({unit})")
    axes.invert_yaxis()
    each = "; ".join(f"{name}: {number}" for name, number in words.items())
    return fig, f"{quantity[:1].upper()}{quantity[1:]}. {each}."


def power_picture(panels: Mapping[str, Series], over: str, quantity: str, line: str | None = None):
    """A panel for each of `panels`: quantity by `over`, all axes logarithmic and the same.

    `panels`: title → label → (x, y) points, the smallest x first; the one labelled `line` is drawn
    without marks, one that has an x twice without a line. Returns the figure and its description,
    which has both ends of each.
    """
    fig, axes = figure(1, len(panels), height=3.9, sharex=True, sharey=True, squeeze=False)
    words = []
    for axis, (title, series) in zip(axes[0], panels.items(), strict=True):
        styles = iter(SERIES)
        for label, points in series.items():
            x, y = zip(*points, strict=True)
            if label == line:
                axis.plot(x, y, color=BLACK, lw=1.5, label=label)
            else:
                color, marker, dashes = next(styles)
                dashes = dashes if len(set(x)) == len(x) else ""
                axis.plot(x, y, color=color, marker=marker, ms=5, lw=1, ls=dashes, label=label)
        axis.set(xscale="log", yscale="log", xlabel=over)
        axis.set_title(title, fontsize=11)
        each = "; ".join(f"{label} {_ends(points)}" for label, points in series.items())
        words.append(f"{title}: {each}.")
    axes[0][0].set_ylabel(quantity)
    handles, labels = axes[0][0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper left", ncols=len(labels), frameon=False)
    return fig, f"{quantity[:1].upper()}{quantity[1:]} by {over}, from, to. {' '.join(words)}"


def _ends(points: Sequence[tuple[float, float]]) -> str:
    (low, first), (high, last) = points[0], points[-1]
    return f"{short(first, 2)} at {short(low, 2)} to {short(last, 2)} at {short(high, 2)}"


def box_picture(image: Tensor, walked: Walk, classes: Sequence[str], best: int = 15):
    """A panel per level that is pooled from, with its `best` proposals, and one with the boxes.

    `image` (3,H,W) in 0–1, and its walk; `classes`: names by label. Drawn are boxes with a score of
    at least SURE, beside them the level that they are pooled from. Returns the figure and its
    description.
    """
    levels = walked.pooled_from.unique().tolist()
    height = 0.95 * PIXELS / DPI / (len(levels) + 1) * image.shape[1] / image.shape[2] + 0.75
    fig, axes = figure(1, len(levels) + 1, height, squeeze=False)
    for axis in axes.flat:
        axis.imshow(image.permute(1, 2, 0).clamp(0, 1).numpy(), interpolation="nearest")
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    rows, columns = (given / got for given, got in zip(image.shape[1:], walked.size, strict=True))
    counts = []
    for axis, level in zip(axes.flat, levels, strict=False):
        here = walked.proposals[walked.pooled_from == level]
        counts.append(f"{len(here)} from P{level}")
        axis.set_title(f"P{level}: the best {min(best, len(here))} of {len(here)}", fontsize=10)
        for box in here[:best]:
            _draw_box(axis, box * box.new_tensor([columns, rows] * 2), level)
    sure, names = walked.result["scores"] >= SURE, []
    axes.flat[-1].set_title(f"boxes with a score ≥ {SURE}", fontsize=10)
    for box, label, source in zip(
        walked.result["boxes"][sure],
        walked.result["labels"][sure],
        walked.source[sure],
        strict=True,
    ):
        level = walked.pooled_from[source].item()
        names.append(f"{classes[label]} P{level}")
        _draw_box(axes.flat[-1], box, level, names[-1])
    return fig, (
        f"Proposals by the level that they are pooled from: {', '.join(counts) or 'none'}. Boxes: "
        f"{', '.join(names) or 'none'}."
    )


def _draw_box(axis, xyxy: Tensor, level: int, words: str = "") -> None:
    left, top, right, bottom = xyxy.tolist()
    color, _, line = SERIES[level - 2]
    for width, shade, style in ((3.5, "white", "-"), (1.8, color, line)):  # seen on any image
        edge = Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False)
        edge.set(edgecolor=shade, linewidth=width, linestyle=style)
        axis.add_patch(edge)
    if words:
        said = axis.text(left, top - 1.5, words, fontsize=9, color="white", va="bottom")
        said.set_bbox({"facecolor": color, "edgecolor": "none", "pad": 1.2})


def feature_maps(a: Tensor, b: Tensor, names: tuple[str, str], photo: Tensor | None = None):
    """Maps A and B on one scale, their difference on its own with zero in the middle.

    Shapes: `a`, `b` (H,W); `photo` (1,3,H,W) in 0–1, drawn first. Returns the figure and its
    description.
    """
    fig, axes = figure(1, 3 if photo is None else 4, height=3.7 if "\n" in "".join(names) else 3.1)
    panels = list(axes)
    if photo is not None:
        first = panels.pop(0)
        half = photo[0, :, ::2, ::2].permute(1, 2, 0).clamp(0, 1).numpy()  # four times fewer bytes
        first.imshow(half, interpolation="nearest")
        first.set_title("photo", fontsize=10)
        space = fig.colorbar(ScalarMappable(), ax=first, location="bottom", shrink=0.9)
        space.ax.set_visible(False)  # it only keeps the photo as large as the maps
    difference = (a - b).numpy()
    low, high = min(a.min().item(), b.min().item()), max(a.max().item(), b.max().item())
    reach = float(np.abs(difference).max())
    for panel, values, title in zip(panels, (a.numpy(), b.numpy()), names, strict=False):
        drawn = panel.imshow(values, cmap=activation_map(), vmin=low, vmax=high)
        panel.set_title(title, fontsize=10)
    fig.colorbar(drawn, ax=panels[:2], location="bottom", shrink=0.7)
    drawn = panels[2].imshow(difference, cmap=difference_map(), vmin=-reach or -1, vmax=reach or 1)
    panels[2].set_title("A − B", fontsize=10)
    fig.colorbar(drawn, ax=panels[2], location="bottom", shrink=0.9, format="%.2g")
    for panel in axes:
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
    return fig, (
        f"A ({names[0]}) and B ({names[1]}) on one scale from {short(low)} to {short(high)}; "
        f"A − B from {short(difference.min().item())} to {short(difference.max().item())}."
    )


def _with_palette(image: Image.Image) -> Image.Image:
    # A palette fitted to the picture alone would turn a color bar into steps; and Pillow's own
    # mapping to a given palette is only roughly the nearest, so that white turns gray.
    pixels = np.asarray(image.convert("RGB")).astype(np.int64)
    fitted = image.convert("RGB").quantize(95).getpalette()[: 95 * 3]
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
