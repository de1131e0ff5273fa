"""The synthetic detection set: squares, discs and triangles on pieces of the bundled photos."""

from functools import cache
from math import sqrt
from random import Random

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import masks_to_boxes

from helpers.inputs import photos

CLASSES = ("background", "square", "disc", "triangle")  # a label is an index
SHIFTS = ("texture", "gain")
SIZE = 128
RADIUS = (7, 60)  # of the circle around a shape, in pixels
CONTRAST = (0.5, 1.0)  # how much of its color a shape shows; the rest is the photo behind it
GAINS = (0.1, 0.5)  # the range of `illumination`
GAIN = 0.2  # the factor of shift "gain"
STRIPE = 3  # the width of a stripe in pixels

Scene = tuple[Tensor, dict[str, Tensor]]

# Pixel centers, as a row and a column that broadcast.
X = np.arange(SIZE)[None] + 0.5
Y = np.arange(SIZE)[:, None] + 0.5


def scenes(
    count: int, seed: int, illumination: bool = False, shift: str | None = None
) -> list[Scene]:
    """Draw `count` pairs of an image, float32 (3,128,128), RGB in 0–1, and its target.

    A target is what torchvision's detectors train on: `boxes` float32 (n,4), xyxy in pixels, around
    the visible part of each shape, and `labels` int64 (n), which index CLASSES. An image holds one
    to six shapes; at least half of each is visible.

    Illumination and shift change the pixels only, never the target:
    - illumination: each image has its own gain (0.1 to 0.5) and offset (0 to 1 − gain).
    - shift "texture": the shapes are striped in their color and its complement.
    - shift "gain": every image is GAIN times as bright.

    Scene i of a seed does not depend on `count`. It is the same on every machine whose JPEG decoder
    reads the same photos: uniform draws, float64 arithmetic that IEEE 754 rounds in one way, and
    rounding to 8 bits. Raises ValueError for an unknown shift.
    """
    if shift is not None and shift not in SHIFTS:
        raise ValueError(f"No shift {shift!r} here: choose one of {', '.join(SHIFTS)}, or None.")
    return [_scene(Random(f"{seed}/{i}"), illumination, shift) for i in range(count)]


def _scene(rng: Random, illumination: bool, shift: str | None) -> Scene:
    photo = _background(rng)
    image = photo.copy()
    visible, labels = [], []
    for _ in range(1 + int(6 * rng.random())):
        label = 1 + int(3 * rng.random())
        radius = _between(rng, *RADIUS, rng.random())
        u, v = _axes(rng, radius)
        color = np.array([rng.random() for _ in "rgb"]).reshape(3, 1, 1)
        contrast = _between(rng, *CONTRAST)
        distance = _distance(label, u, v, radius)
        mask = distance <= 0
        left = [(shape & ~mask, whole) for shape, whole in visible]
        if any(2 * shape.sum() < whole for shape, whole in left):
            continue
        if shift == "texture":
            color = np.where(np.floor(u / STRIPE) % 2, color, 1 - color)
        fill = photo + contrast * (color - photo)
        image += np.clip(0.5 - distance, 0, 1) * (fill - image)
        visible = [*left, (mask, mask.sum())]
        labels.append(label)
    if illumination:
        gain = _between(rng, *GAINS)
        image = gain * image + _between(rng, 0, 1 - gain)
    if shift == "gain":
        image = GAIN * image
    pixels = torch.from_numpy(np.floor(255 * image + 0.5).astype(np.uint8))
    boxes = masks_to_boxes(torch.tensor(np.stack([shape for shape, _ in visible])))
    boxes[:, 2:] += 1  # from the last pixel to its edge
    return pixels.float() / 255, {"boxes": boxes, "labels": torch.tensor(labels)}


def _background(rng: Random) -> np.ndarray:
    photo = _photo(photos.NAMES[int(len(photos.NAMES) * rng.random())])
    y, x = (int((side - SIZE + 1) * rng.random()) for side in photo.shape[1:])
    piece = photo[:, y : y + SIZE, x : x + SIZE]
    return piece[:, :, ::-1] if rng.random() < 0.5 else piece


@cache
def _photo(name: str) -> np.ndarray:
    return photos.load(name, None)[0].double().numpy()


def _between(rng: Random, low: float, high: float, factor: float = 1.0) -> float:
    """Draw uniformly; a `factor` that is uniform in 0–1 makes low values more frequent."""
    return low + (high - low) * rng.random() * factor


def _axes(rng: Random, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Draw a place and a turn of up to 90° either way: each pixel's coordinates in that frame."""
    x, y = X - _between(rng, radius, SIZE - radius), Y - _between(rng, radius, SIZE - radius)
    t = _between(rng, -1, 1)  # the tangent of half the angle: no sine, which no standard rounds
    cos, sin = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    return cos * x + sin * y, cos * y - sin * x


def _distance(label: int, u: np.ndarray, v: np.ndarray, radius: float) -> np.ndarray:
    """Measure each pixel's signed distance to the shape's edge, at corners to the edge's line."""
    match CLASSES[label]:
        case "square":
            return np.maximum(abs(u), abs(v)) - radius * sqrt(0.5)
        case "disc":
            return np.sqrt(u * u + v * v) - radius
        case "triangle":
            return np.maximum(v, sqrt(0.75) * abs(u) - v / 2) - radius / 2
