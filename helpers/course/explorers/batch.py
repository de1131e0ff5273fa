"""BatchExplorer: how the batch size changes what BatchNorm normalizes by, and what it stores."""

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from traitlets import Int, Unicode

from helpers.batch_statistics import Statistics, collect, crops
from helpers.course.explorers.explorer import Control, Explorer, check, png
from helpers.networks import backbones

PRESETS = (1, 2, 8, 64)
SHIPPED = 8  # channels of each stage: those of largest between-image share, and that of smallest
BATCHES = 64  # of every size, at most; the first one's images are the first ones of its order
THUMBNAIL = 32  # px
DIGITS = 4  # of the numbers of single images; those of the pool travel whole


class BatchExplorer(Explorer):
    """One channel of one BatchNorm layer by batch size, with the images of one batch.

    `found`: what batch_statistics.collect has returned for `images`; by default, for ResNet-50 and
    `crops()`. Traits: `size`, `batch` (its number), `stage`, `channel`. ValueError for another
    number of images, and for what has nothing to show.
    """

    modules = "plot.js", "batch.js"
    size, batch = Int(1).tag(sync=True), Int(0).tag(sync=True)
    stage, channel = Unicode().tag(sync=True), Int(0).tag(sync=True)

    def __init__(self, found: Mapping[str, Statistics] | None = None, images: Tensor | None = None):
        images = crops() if images is None else images
        self._by_stage = found = found or collect(backbones.load("resnet50"), images)
        first = max(found, key=lambda stage: found[stage].between_share.max())
        count = len(found[first])
        if len(images) != count:
            raise ValueError(f"These statistics are of {count} images, not of {len(images)}.")
        self._orders = orders(count)
        shipped = {stage: most_and_least(one) for stage, one in found.items()}
        self.stage, self.channel = first, found[first].most_between()
        self.batch = found[first].channel(self.channel).typical(self._orders[:, : min(8, count)])
        sizes = [*(size for size in PRESETS if size < count), count]
        presets = {f"{size} image{'s' * (size > 1)}": {"size": size} for size in sizes}
        controls = {
            "size": Control("images per batch", tuple(range(1, count + 1)), "range"),
            "batch": Control("which batch", tuple(range(len(self._orders))), "range"),
            "stage": Control("stage", tuple(found)),
            "channel": Control("any channel", look="number", below=True),
        }
        small = interpolate(images, (THUMBNAIL,) * 2, mode="area")
        data = {
            "count": count,
            "orders": self._orders.tolist(),
            "thumbnails": [png(image, 24) for image in small],
            "layers": {stage: f"{one.network}, {one.layer}" for stage, one in found.items()},
            "channels": {
                stage: [self._packed(stage, number) for number in numbers]
                for stage, numbers in shipped.items()
            },
        }
        super().__init__(presets, controls, data)
        starts = {stage: next(iter(numbers), 0) for stage, numbers in shipped.items()}
        self.observe(lambda _: self.set_trait("channel", starts.get(self.stage, 0)), "stage")

    def draw(self, state: dict[str, Any]) -> dict[str, Any]:
        """Say what running_var goes to, and hand over the channel. ValueError if it has nothing."""
        stage, size, batch = state["stage"], state["size"], state["batch"]
        check(stage=(stage, self._by_stage))
        if not 0 <= batch < len(self._orders):
            raise ValueError(f"There are batches 0 to {len(self._orders) - 1}, not {batch}.")
        one = self._by_stage[stage].channel(state["channel"])
        if not one.within + one.between > 0:
            raise ValueError(
                f"Channel {state['channel']} of {one.layer} has one value in all pixels of all "
                "images: choose another."
            )
        within, between, _ = parts(one, size)
        all_of_it = 100 * one.between_share.item()
        return {
            "headline": f"running_var → {within + between:.0f} %",
            "sentence": f"of within + between: {within:.0f} % within the images, "
            f"{between:.0f} of {all_of_it:.0f} % between them.",
            "one": self._packed(stage, state["channel"]),
        }

    def panels(self, state: dict[str, Any], frame: dict[str, Any]) -> list[dict[str, Any]]:
        """The variance in its parts, and the histograms of one batch."""
        one, size = self._by_stage[state["stage"]].channel(state["channel"]), state["size"]
        rows = []
        for label, of in ((f"average batch of {size}", size), (f"all {len(one)} images", len(one))):
            within, between, stored = parts(one, of)
            whole = within + between
            text = f"{whole:.0f} % = {within:.0f} within + {between:.0f} between"
            rows.append({"label": label, "first": within / 125, "share": whole / 125, "text": text})
        floor = {"share": 0, "floor": stored / 125}
        rows.append({"label": "stored", **floor, "text": f"{stored:.0f} %"})
        x = np.linspace(*one.edges[0, [0, -1]], len(self._shares(one)[0]))
        shares = self._shares(one)[self._orders[state["batch"], :size]]
        lines = [{"kind": "filled", "x": [x[0], *x, x[-1]], "y": [0, *shares.mean(0), 0]}]
        lines += [{"kind": "thin", "x": x, "y": share} for share in shares]
        title = f"{one.layer}, channel {state['channel']}: a batch of {size}"
        axes = {"x": {"label": "input of the layer", "low": x[0], "high": x[-1]}}
        axes["y"] = {"label": "share of pixels", "low": 0, "high": float(shares.max())}
        plot = {"kind": "plot", "title": title, **axes, "lines": lines}
        title = "variance: blue within the images, orange between them"
        return [{"kind": "bars", "title": title, "rows": rows}, plot]

    def _shares(self, one: Statistics) -> np.ndarray:
        """The histograms of the images, as shares of their pixels; wider bins for small maps."""
        merge = 2 if one.pixels > 500 else 4
        return one.histograms[:, 0].reshape(len(one), -1, merge).sum(2) / one.pixels

    def _packed(self, stage: str, number: int) -> dict[str, Any]:
        one = self._by_stage[stage].channel(number)
        shares = self._shares(one)
        top = float(np.quantile(shares.max(1), 0.75)) or 1.0
        eight = np.rint(255 * np.minimum(shares / top, 1)).astype(np.uint8)
        of_pool = "within", "between", "running_mean", "running_var"
        return {
            "channel": number,
            "pixels": one.pixels,
            "eps": one.eps,
            **{name: getattr(one, name).item() for name in of_pool},
            "means": _rounded(one.means[:, 0]),
            "variances": _rounded(one.variances[:, 0]),
            "ends": one.edges[0, [0, -1]].tolist(),
            "reach": self._reach(one),
            "histograms": base64.b64encode(eight.tobytes()).decode(),
        }

    def _reach(self, one: Statistics) -> float:
        """How far the batches of all sizes lie from the stored statistics, in running σ."""
        running = np.sqrt(one.running_var + one.eps) or 1.0
        furthest = 0.0
        for size in {2**power for power in range(7) if 2**power < len(one)} | {len(one)}:
            mean, variance = one.of_batch(self._orders[:, :size])
            off = (mean - one.running_mean) / running, np.sqrt(variance + one.eps) / running - 1
            furthest = max(furthest, *(float(abs(axis).max()) for axis in off))
        return float(f"{1.05 * furthest:.2g}") or 1.0


def orders(count: int, seed: int = 0) -> np.ndarray:
    """Orders of `count` images: (K,count), of which number k starts with image k.

    A batch of B is the first B of one, so that another image can be added; over the batches of 1
    every image counts once.
    """
    draws = torch.rand(min(count, BATCHES), count, generator=torch.Generator().manual_seed(seed))
    return draws.fill_diagonal_(-1.0).argsort(1).numpy()


def most_and_least(statistics: Statistics) -> list[int]:
    """The channels of largest between-image share, and last that of smallest; none constant."""
    share = statistics.between_share
    varying = (statistics.within + statistics.between).nonzero()[0]
    ranked = varying[np.argsort(-share[varying], kind="stable")].tolist()
    return [*ranked[: SHIPPED - 1], *ranked[SHIPPED - 1 :][-1:]]


def parts(one: Statistics, size: int) -> tuple[float, float, float]:
    """Within, (1 − 1/B)·between, and running_var as stored, in percent of within + between."""
    pool = one.within + one.between
    within = one.unbiased(size) * one.within
    values = within, one.expected_running_var(size) - within, one.running_var
    return tuple(100 * (value / pool).item() for value in values)


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{value:.{DIGITS}g}") for value in values]
