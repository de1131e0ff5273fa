"""The stored times and memory of normalization and NMS, a file for each device."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from helpers import DATA
from helpers.implementations import CLASSES

FOLDER = DATA / "results" / "speed"
FORWARD, BOTH = "forward", "forward+backward"

Points = list[tuple[float, float]]


class Cost(NamedTuple):
    """What a way to normalize costs: its median ms, and its time over that of BatchNorm in eval().

    The ratio is resolved if it differs from 1 by more than its spread.
    """

    ms: float
    ratio: float
    spread: float
    is_resolved: bool

    @property
    def words(self) -> str:
        """The ratio and its spread as text."""
        if not self.is_resolved:
            return f"not told apart (± {self.spread:.2g})"
        return f"{self.ratio:.3g} ± {self.spread:.2g}"


@cache
def devices() -> Mapping[str, dict[str, Any]]:
    """Read every device's file, GPUs first: device → its sections about, norms, nms and heads.

    Raises FileNotFoundError if there is no file.
    """
    files = sorted(FOLDER.glob("*.json"))
    if not files:
        raise FileNotFoundError(
            "No stored costs (data/results/speed): restore them with `git checkout -- data`, or "
            "measure your own with `make speed`."
        )
    contents = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    contents.sort(key=lambda content: content["about"]["kind"] != "cuda")
    return {content["about"]["device"]: content for content in contents}


def gpus() -> list[str]:
    """Name the GPUs among the devices; the list may be empty."""
    return [name for name, content in devices().items() if content["about"]["kind"] == "cuda"]


def cost(device: str, subject: str, batch: int, dtype: str, step: str, way: str) -> Cost:
    """Return what a way to normalize costs in ResNet-50's "body" or in its "detector".

    `batch` counts images and `step` is FORWARD or BOTH; GPUs use cuDNN. Raises ValueError for an
    unknown device, and for what was not measured.
    """
    wanted = {"level": subject, "batch": batch, "dtype": dtype, "pass": step, "way": way}
    for row in _rows(device, "norms", wanted):
        if row["cudnn"] is not False and "ms" in row:
            return Cost(*(row[name] for name in Cost._fields))
    said = f"{subject}, batch {batch}, {dtype}, {step}, {way}"
    raise ValueError(f"{said} was not measured on {device}.")


def nms_ms(device: str, candidates: int, classes: int) -> dict[str, float]:
    """Return the median ms of suppressing so many boxes: "agnostic", "trick" and "loop".

    The IoU is 0.5. Raises ValueError for an unknown device, and for what was not measured.
    """
    wanted = {"what": "classes", "candidates": candidates, "classes": classes}
    rows = _rows(device, "nms", wanted)
    if not rows:
        raise ValueError(f"{candidates} candidates of {classes} classes were not measured.")
    return {row["way"]: row["ms"] for row in rows}


def nms_times(candidates: int) -> dict[str, dict[str, Points]]:
    """Return device → "trick" and "loop" → (classes, ms) of suppressing so many boxes."""
    return {
        device: {
            way: [(number, nms_ms(device, candidates, number)[way]) for number in CLASSES]
            for way in ("trick", "loop")
        }
        for device in devices()
    }


def nms_shares(device: str) -> list[dict[str, Any]]:
    """List NMS's share of forward passes of ResNet-50's detector, the fewest boxes first.

    A row has "share", the "ms" of the pass, and "candidates", of the RPN and of the box head.
    """
    return [row for row in _rows(device, "nms", {"what": "share"}) if "resnet50" in row["model"]]


def part_shares(device: str) -> dict[str, tuple[float, float]]:
    """Return part of ResNet-50's detector → its share of a pass, true and as shown on the CPU.

    The second is what a timer on the CPU says that does not wait for the GPU.
    """
    rows = _rows(device, "nms", {"what": "parts"})
    return {row["part"]: (row["share"], row["unwaited"]) for row in rows}


def _rows(device: str, section: str, wanted: dict[str, Any]) -> list[dict[str, Any]]:
    if device not in devices():
        raise ValueError(f"No device {device!r} here: choose one of {', '.join(devices())}.")
    return [row for row in devices()[device][section] if wanted.items() <= row.items()]
