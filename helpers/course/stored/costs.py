"""The stored costs of normalization and NMS of data/results/speed, a file for each device."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from helpers import DATA
from helpers.implementations import CLASSES

FOLDER = DATA / "results" / "speed"
STAGES = {  # a normalization layer at the end of each of ResNet-50's stages at 224 px: its input
    "stem": [64, 112, 112],
    "layer1": [256, 56, 56],
    "layer2": [512, 28, 28],
    "layer3": [1024, 14, 14],
    "layer4": [2048, 7, 7],
}
SUBJECTS = (*STAGES, "body", "detector")
FORWARD, BOTH = "forward", "forward+backward"
BASE = "BN eval"  # what ratios are over
COPYING = "copying"
STAGE_4, TWO_LINEAR = "stage 4 on every proposal", "two linear layers on every proposal"
C4, FPN = "body to C4", "body and FPN"


class Cost(NamedTuple):
    """One way to normalize: median ms, its ratio over BASE with the spread, whether it is resolved.

    `least`: the ms that the bytes it has to move would take at the bandwidth of copying, and `kept`
    the bytes kept for backward; None where they are not counted.
    """

    way: str
    ms: float
    ratio: float
    spread: float
    is_resolved: bool
    least: float | None
    kept: int | None

    @property
    def words(self) -> str:
        if self.way == BASE:
            return "1"
        if not self.is_resolved:
            return f"not told apart (± {self.spread:.2g})"
        return f"{self.ratio:.3g} ± {self.spread:.2g}"


@cache
def devices() -> Mapping[str, dict[str, Any]]:
    """Name → what its file holds: about, norms, nms, heads; GPUs come first.

    FileNotFoundError if there is no file.
    """
    files = sorted(FOLDER.glob("*.json"))
    if not files:
        raise FileNotFoundError(
            "No stored costs (data/results/speed): restore them with `git checkout -- data`, or "
            "measure your own with `make speed`."
        )
    held = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    held.sort(key=lambda one: one["about"]["kind"] != "cuda")
    return {one["about"]["device"]: one for one in held}


def gpus() -> list[str]:
    """The GPUs among the devices; none if no such file is here."""
    return [name for name, held in devices().items() if held["about"]["kind"] == "cuda"]


def costs(device: str, subject: str, batch: int, dtype: str, step: str) -> list[Cost]:
    """What each way costs in one of SUBJECTS; `step` is FORWARD or BOTH.

    With cuDNN, where there is one. ValueError for an unknown device, and for what was not measured.
    """
    level = "layer" if subject in STAGES else subject
    wanted = {"level": level, "batch": batch, "dtype": dtype, "pass": step}
    if subject in STAGES:
        wanted["shape"] = STAGES[subject]
    found = [
        _cost(row)
        for row in _of(device)["norms"]
        if row["cudnn"] is not False
        and "ms" in row
        and all(row[key] == value for key, value in wanted.items())
    ]
    if not found:
        raise ValueError(
            f"{subject}, batch {batch}, {dtype}, {step} was not measured on {device}: choose "
            "another batch or dtype."
        )
    return found


def cost(device: str, subject: str, batch: int, dtype: str, step: str, way: str) -> Cost:
    """What one way costs: see `costs`. ValueError, too, for a way that was not measured."""
    found = {cost.way: cost for cost in costs(device, subject, batch, dtype, step)}
    if way not in found:
        raise ValueError(f"{way!r} was not measured there: choose one of {', '.join(found)}.")
    return found[way]


def layer_times(device: str, ways: Sequence[str]) -> dict[str, list[tuple[float, float]]]:
    """Way → (MiB moved, ms) of each float32 forward pass of a layer alone, the least bytes first.

    Also COPYING: the least time of copying a map, whose bytes are read and written. ValueError for
    an unknown device. A way whose bytes are not counted has no points.
    """
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    copying: dict[float, float] = {}
    for row in _of(device)["norms"]:
        if "moved" not in row or row["cudnn"] is False:
            continue
        if (row["dtype"], row["pass"]) != ("float32", FORWARD):
            continue
        mebibytes = row["moved"] / 2**20
        if row["way"] in ways:
            found[row["way"]].append((mebibytes, row["ms"]))
        if row["way"] == BASE:
            ms = 1000 * row["moved"] / row["copy_bandwidth"]
            copying[mebibytes] = min(ms, copying.get(mebibytes, ms))
    found = {COPYING: list(copying.items())} | found
    return {way: sorted(points) for way, points in found.items()}


def images_that_fit(device: str, way: str, dtype: str, gigabytes: float) -> int:
    """How many images' forward and backward pass through ResNet-50's body takes so much memory.

    800 × 1088 px, the body alone, no optimizer. From the measured peaks of 2 and of 8 images, by a
    straight line. ValueError for an unknown device, and where no peak was measured.
    """
    peaks = {
        row["batch"]: row["peak"]
        for row in _of(device)["norms"]
        if (row["level"], row["dtype"], row["way"]) == ("body", dtype, way)
        and row["pass"] == BOTH
        and row["cudnn"]
        and "peak" in row
    }
    if not {2, 8} <= set(peaks):
        raise ValueError(f"{way}, {dtype}: no peak of memory was measured on {device}.")
    an_image = (peaks[8] - peaks[2]) / 6
    return 2 + int((1e9 * gigabytes - peaks[2]) // an_image)


def head_ms(device: str, proposals: int) -> dict[str, float]:
    """STAGE_4, TWO_LINEAR, C4, FPN → ms, for so many proposals; ValueError as in `nms_ms`."""
    found = {
        row["what"]: row["ms"] for row in _of(device)["heads"] if row["proposals"] == proposals
    }
    if not found:
        raise ValueError(f"{proposals} proposals were not measured on {device}.")
    return found


def nms_times(candidates: int) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Device → "trick" and "loop" → (classes, ms) of suppressing so many boxes; see `nms_ms`."""
    return {
        device: {
            way: [(number, nms_ms(device, candidates, number)[way]) for number in CLASSES]
            for way in ("trick", "loop")
        }
        for device in devices()
    }


def nms_shares(device: str) -> list[dict[str, Any]]:
    """NMS's share of forward passes of ResNet-50's detector, the fewest boxes first.

    Rows with `candidates` of the RPN and of the box head, `size`, `share`.
    """
    rows = [row for row in _of(device)["nms"] if row["what"] == "share"]
    return [row for row in rows if "resnet50" in row["model"]]


def part_shares(device: str) -> dict[str, tuple[float, float]]:
    """Part of ResNet-50's detector → its share of a pass, and what an unwaiting timer says."""
    rows = [row for row in _of(device)["nms"] if row["what"] == "parts"]
    return {row["part"]: (row["share"], row["unwaited"]) for row in rows}


@cache
def mxnet() -> Mapping[str, Any]:
    """The times recorded from MXNet 1.9.1 on a CPU: see data/golden/README.md."""
    return json.loads((DATA / "golden" / "mxnet_timing.json").read_text(encoding="utf-8"))


def mxnet_nms(proposals: int) -> dict[str, list[tuple[int, float]]]:
    """MXNet's `box_nms` as GluonCV 0.2 ("one list") and 0.10 ("per class") did → (classes, ms).

    Each proposal is a box of every class. KeyError for proposals that were not recorded.
    """
    names = {"v0.2 flat (1,C*N,6)": "one list", "v0.10 batched (C,N,6)": "per class"}
    rows = {names[r["style"]]: r for r in mxnet()["nms"]["rows"] if r["N"] == proposals}
    return {
        name: [(int(classes), ms) for classes, ms in rows[name]["median_ms"].items()]
        for name in names.values()
    }


def nms_ms(device: str, candidates: int, classes: int) -> dict[str, float]:
    """Way ("agnostic", "trick", "loop") → median ms of suppressing so many boxes at IoU 0.5.

    ValueError for an unknown device, and for what was not measured.
    """
    found = {
        row["way"]: row["ms"]
        for row in _of(device)["nms"]
        if row["what"] == "classes" and (row["candidates"], row["classes"]) == (candidates, classes)
    }
    if not found:
        raise ValueError(f"{candidates} candidates of {classes} classes were not measured.")
    return found


def _of(device: str) -> Mapping[str, Any]:
    if device not in devices():
        raise ValueError(f"No device {device!r} here: choose one of {', '.join(devices())}.")
    return devices()[device]


def _cost(row: Mapping[str, Any]) -> Cost:
    least = 1000 * row["moved"] / row["copy_bandwidth"] if "moved" in row else None
    values = (row[name] for name in ("way", "ms", "ratio", "spread", "is_resolved"))
    return Cost(*values, least, row.get("kept"))
