"""The figures that one lesson uses; each function returns the figure and its description."""

from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
from matplotlib.patches import Rectangle
from torch import Tensor

from helpers.batch_statistics import Statistics
from helpers.course.stored.costs import Points
from helpers.faster_rcnn import SURE, Walk
from helpers.figures import BLACK, BLUE, DPI, ORANGE, PIXELS, SERIES, figure
from helpers.text import short


def variance_picture(variances: Mapping[str, Tensor], eps_trained: float, eps_layer: float):
    """Draw the scale error by running variance, and below it every channel at its variance.

    `variances`: group → running variances (C,). The scale error sqrt((v + eps_trained) / (v +
    eps_layer)) is how many times too large the layer's scale is. Channels of variance 0 have no
    place on the axis and are only counted.
    """
    fig, (top, bottom) = figure(2, 1, height=4.4, sharex=True, height_ratios=(2, 3))
    lowest = min(v[v > 0].min().item() for v in variances.values())
    highest = max(v.max().item() for v in variances.values())
    v = np.geomspace(lowest / 2, highest * 2, 200)
    top.loglog(v, np.sqrt((v + eps_trained) / (v + eps_layer)) - 1, color=BLACK, lw=2)
    top.set_ylabel("scale factor − 1")
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
    bottom.set_yticks(range(len(variances)), list(variances))
    bottom.set(xlabel="running variance of a channel (one dot each)", ylim=(len(words) - 0.4, -0.6))
    run, trained = short(eps_layer), short(eps_trained)
    return fig, f"Scale error by variance, eps {run} instead of {trained}: {'; '.join(words)}."


def format_picture(photo: Tensor, stored: Mapping[str, Tensor]):
    """Show a photo as it is stored in several formats, each as if it were RGB in 0–1.

    All have the shape (1,3,H,W). Formats less than a 200th of their range apart share a panel.
    """
    alike: dict[str, Tensor] = {}
    for name, x in stored.items():
        reach = (x.max() - x.min()) / 200
        near = (names for names, y in alike.items() if (x - y).abs().max() < reach)
        names = next(near, None)
        alike[f"{names}, {name}" if names else name] = alike.pop(names) if names else x
    panels, words = {"photo": photo}, []
    for names, x in alike.items():
        outside = 100 * ((x < 0) | (x > 1)).float().mean().item()
        panels[fill(f"{names}: {outside:.0f}\u00a0%", 24)] = x
        words.append(f"{names} {outside:.0f} %")
    rows = 1 + (len(panels) > 6)
    fig, axes = figure(rows, -(-len(panels) // rows), height=2 + 1.2 * rows, squeeze=False)
    for panel in axes.flat:
        panel.set_axis_off()
    for panel, (title, x) in zip(axes.flat, panels.items(), strict=False):
        half = x[0, :, ::2, ::2].permute(1, 2, 0).clamp(0, 1).numpy()  # four times fewer bytes
        panel.imshow(half, interpolation="nearest")
        panel.set_title(title, fontsize=10)
    return fig, f"A photo in {len(stored)} formats, outside of 0–1: {'; '.join(words)}."


def score_picture(rows: Mapping[str, Mapping[str, str]]):
    """Draw recall and false positives by what happened to the input, the best recall first.

    `rows`: name → "recall" and "false_positives", as text.
    """
    scores = {n: (float(row["recall"]), float(row["false_positives"])) for n, row in rows.items()}
    names = sorted(scores, key=lambda name: scores[name][0], reverse=True)
    fig, axes = figure(1, 2, height=3.9, sharey=True)
    looks = (BLUE, "recall at IoU 0.5"), (ORANGE, "false positives per image")
    for column, (axis, (color, label)) in enumerate(zip(axes, looks, strict=True)):
        values = [scores[name][column] for name in names]
        bars = axis.barh(names, values, color=color, height=0.6)
        axis.bar_label(bars, fmt="%.2f", padding=4, fontsize=10)
        axis.set(xlim=(0, 1.18 * max(values)), xlabel=label)
    axes[0].invert_yaxis()
    words = ("{} {:.2f} and {:.2f}".format(name, *scores[name]) for name in names)
    return fig, f"Recall, and false positives per image: {'; '.join(words)}."


def batch_picture(channel: Statistics, sizes: Sequence[int]):
    """Draw for each batch size a typical batch, and what a batch's variance is made of.

    `channel`: Statistics of one channel. Left are the histogram of the batch, those of its images
    (below 10 images), and the images' means. Right is the mean of a batch's variance over all
    batches of that size from the pool, in percent of within + between.
    """
    fig, axes = figure(len(sizes), 2, height=1.25 * len(sizes) + 0.6, sharex="col", squeeze=False)
    between = 100 * channel.between_share.item()
    within = 100 - between
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
    axes[-1, 1].set_xlabel("average variance (% of within + between)")
    axes[0, 0].set_title("one batch (gray), its images (lines), their means (▲)", fontsize=10)
    axes[0, 1].set_title("within images (plain), between them (striped)", fontsize=10)
    return fig, (
        f"Variance of a batch, on average, as a share of within + between: {', '.join(words)}. "
        f"In each, {within:.0f} points are within images."
    )


def power_picture(panels: Mapping[str, Mapping[str, Points]], over: str, quantity: str):
    """Draw a panel for each of `panels`: quantity by `over`, on the same logarithmic axes.

    `panels`: title → label → (x, y) points, the smallest x first.
    """
    fig, axes = figure(1, len(panels), height=3.9, sharex=True, sharey=True, squeeze=False)
    words = []
    for axis, (title, series) in zip(axes[0], panels.items(), strict=True):
        said = []
        for (label, points), (color, marker, dashes) in zip(series.items(), SERIES, strict=False):
            x, y = zip(*points, strict=True)
            axis.plot(x, y, color=color, marker=marker, ms=5, lw=1, ls=dashes, label=label)
            ends = (f"{short(y[i], 2)} at {short(x[i], 2)}" for i in (0, -1))
            said.append(f"{label} {' to '.join(ends)}")
        axis.set(xscale="log", yscale="log", xlabel=over)
        axis.set_title(title, fontsize=11)
        words.append(f"{title}: {'; '.join(said)}.")
    axes[0][0].set_ylabel(quantity)
    handles, labels = axes[0][0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper left", ncols=len(labels), frameon=False)
    return fig, f"{quantity[:1].upper()}{quantity[1:]} by {over}, from, to. {' '.join(words)}"


def box_picture(image: Tensor, walked: Walk, classes: Sequence[str], best: int = 15):
    """Draw the `best` proposals of each level that is pooled from, and the boxes found.

    `image` is (3,H,W) in 0–1, `walked` its walk, `classes` the names by label. The boxes have a
    score of at least SURE, and beside them stands the level that they are pooled from.
    """
    levels = walked.pooled_from.unique().tolist()
    height = 0.95 * PIXELS / DPI / (len(levels) + 1) * image.shape[1] / image.shape[2] + 0.75
    fig, axes = figure(1, len(levels) + 1, height, squeeze=False)
    for axis in axes.flat:
        axis.imshow(image.permute(1, 2, 0).clamp(0, 1).numpy(), interpolation="nearest")
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    rows, columns = (given / got for given, got in zip(image.shape[1:], walked.size, strict=True))
    counts, names = [], []
    for axis, level in zip(axes.flat, levels, strict=False):
        here = walked.proposals[walked.pooled_from == level]
        counts.append(f"{len(here)} from P{level}")
        axis.set_title(f"P{level}: the best {min(best, len(here))} of {len(here)}", fontsize=10)
        for box in (here[:best] * here.new_tensor([columns, rows] * 2)).tolist():
            _draw_box(axis, box, level)
    axis, sure = axes.flat[-1], walked.result["scores"] >= SURE
    axis.set_title(f"boxes with a score ≥ {SURE}", fontsize=10)
    found = walked.result["boxes"], walked.result["labels"], walked.pooled_from[walked.source]
    for box, label, level in zip(*(each[sure].tolist() for each in found), strict=True):
        names.append(f"{classes[label]} P{level}")
        _draw_box(axis, box, level, names[-1])
    return fig, (
        f"Proposals by the level that they are pooled from: {', '.join(counts) or 'none'}. Boxes: "
        f"{', '.join(names) or 'none'}."
    )


def _draw_box(axis, xyxy: Sequence[float], level: int, words: str = "") -> None:
    left, top, right, bottom = xyxy
    color, _, line = SERIES[level - 2]
    for width, shade, style in ((3.5, "white", "-"), (1.8, color, line)):  # seen on any image
        look = {"fill": False, "ec": shade, "lw": width, "ls": style}
        place = (left - 0.5, top - 0.5), right - left, bottom - top
        axis.add_patch(Rectangle(*place, **look))
    if words:
        behind = {"facecolor": color, "edgecolor": "none", "pad": 1.2}
        axis.text(left, top - 1.5, words, fontsize=9, color="white", va="bottom", bbox=behind)
