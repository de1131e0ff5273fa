"""The stored costs of normalization and NMS of data/results/speed, a file for each device."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from helpers import DATA

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


class Cost(NamedTuple):
    """One way to normalize: median ms, its ratio over BASE with the spread, whether it is told.

    `least`: the ms that the bytes it has to move would take at the bandwidth of copying, and `kept`
    the bytes kept for backward; None where they are not counted.
    """

    way: str
    ms: float
    ratio: float
    spread: float
    told: bool
    least: float | None
    kept: int | None

    @property
    def words(self) -> str:
        if self.way == BASE:
            return "1"
        if not self.told:
            return f"no difference (± {self.spread:.2g})"
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


def costs(device: str, subject: str, batch: int, dtype: str, step: str) -> list[Cost]:
    """What each way costs in one of SUBJECTS; `step` is FORWARD or BOTH.

    With cuDNN, where there is one. ValueError for an unknown device, and for what was not measured.
    """
    if device not in devices():
        raise ValueError(f"No device {device!r} here: choose one of {', '.join(devices())}.")
    level = "layer" if subject in STAGES else subject
    wanted = {"level": level, "batch": batch, "dtype": dtype, "pass": step}
    if subject in STAGES:
        wanted["shape"] = STAGES[subject]
    found = [
        _cost(row)
        for row in devices()[device]["norms"]
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


def nms_ms(device: str, candidates: int, classes: int) -> dict[str, float]:
    """Way ("agnostic", "trick", "loop") → median ms of suppressing so many boxes at IoU 0.5.

    ValueError for an unknown device, and for what was not measured.
    """
    if device not in devices():
        raise ValueError(f"No device {device!r} here: choose one of {', '.join(devices())}.")
    found = {
        row["way"]: row["ms"]
        for row in devices()[device]["nms"]
        if row["what"] == "classes" and (row["candidates"], row["classes"]) == (candidates, classes)
    }
    if not found:
        raise ValueError(f"{candidates} candidates of {classes} classes were not measured.")
    return found


def _cost(row: Mapping[str, Any]) -> Cost:
    least = 1000 * row["moved"] / row["copy_bandwidth"] if "moved" in row else None
    values = (row[name] for name in ("way", "ms", "ratio", "spread", "told"))
    return Cost(*values, least, row.get("kept"))
