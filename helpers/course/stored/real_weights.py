"""What data/results/real_weights holds, where somebody has measured it; nowhere else are there any.

`make real-weights` measures networks whose weights have to be downloaded; a lesson that has no file
of them says so.
"""

import json
from typing import Any, NamedTuple

import numpy as np

from helpers import DATA
from helpers.networks.download import is_whole

FOLDER = DATA / "results" / "real_weights"
NETWORKS = ("resnet50", "coco", "mobilenet_v3")
OFF = ("effect", "rounding", "rounding_detector")


class RealWeights(NamedTuple):
    """What was measured of one network.

    `about`: its checkpoint's url, sha256 and bytes, the layers "trained" and of the "detector",
    versions and processor. `effects`: for each photo and point its "shape", and over max|A| the
    "effect", of the trained network from the detector's with another eps, both in float64, and
    "rounding" and "rounding_detector", of each in float32 from its own float64 twin; None where
    nothing is finite.
    """

    about: dict[str, Any]
    effects: list[dict[str, Any]]

    def largest(self) -> dict[str, tuple[float, float]]:
        """Point → the largest effect and the largest rounding of the two networks on any photo.

        Either is NaN if it is so on one photo.
        """
        points = dict.fromkeys(row["point"] for row in self.effects)
        for point in points:
            rows = [[row[of] for of in OFF] for row in self.effects if row["point"] == point]
            effect, *rounding = np.array(rows, float).max(0)  # None is NaN, and max keeps it
            points[point] = effect.item(), np.max(rounding).item()
        return points


def real_weights(network: str) -> RealWeights | None:
    """Read what was measured of one of NETWORKS; None if it was not measured here.

    Raises ValueError for another name, and RuntimeError if one of its two files is damaged.
    """
    if network not in NETWORKS:
        raise ValueError(f"No network {network!r} here: choose one of {', '.join(NETWORKS)}.")
    file = FOLDER / f"{network}.json"
    if not file.exists():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        held = content["channels"]
        if not is_whole(FOLDER / held["file"], held["sha256"]):
            raise KeyError(held["file"])
        return RealWeights(content["about"], content["effects"])
    except (ValueError, KeyError, TypeError):
        raise RuntimeError(
            f"What was measured of {network} (data/results/real_weights) is missing or altered: "
            "delete its files and run `make real-weights`."
        ) from None
