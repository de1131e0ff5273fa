"""The exercise on Faster R-CNN's backbone."""

from collections.abc import Callable
from functools import partial
from math import ceil

from helpers.course.checkers.checker import same_values

IMAGES = [(800, 600), (600, 1200), (400, 500)]  # the second is bounded by max_size, 1333


def pad_up(side: int) -> int:
    return side + -side % 32


def map_sizes(
    rows: int,
    columns: int,
    most: float = 1333,
    whole: Callable = int,
    pad: Callable = pad_up,
    halved: Callable = ceil,
) -> dict[str, tuple[int, int]]:
    """The right attempt, but for what is given."""
    scale = min(800 / min(rows, columns), most / max(rows, columns))
    resized = whole(rows * scale), whole(columns * scale)
    padded = tuple(map(pad, resized))
    levels = {f"P{n}": tuple(halved(side / 2**n) for side in padded) for n in (2, 3, 4, 5, 6)}
    return {"resized": resized, "padded": padded} | levels


def with_keys(**others) -> Callable:
    """An attempt that is right but for some parts."""
    return lambda rows, columns: map_sizes(rows, columns) | others


MISTAKES = {
    "resized exceeds max_size: at 600×1200 the long side would be 1600, and 1333 is the most.": (
        partial(map_sizes, most=float("inf"))
    ),
    "resized is neither bounded by 1333 nor rounded down.": partial(
        map_sizes, most=float("inf"), whole=round
    ),
    "resized is rounded to the nearest: torchvision rounds down.": partial(map_sizes, whole=round),
    "resized is turned round: rows come first.": lambda rows, columns: {
        name: size[::-1] for name, size in map_sizes(rows, columns).items()
    },
    "padded adds 32 to a side that is a multiple already: `-side % 32` adds nothing there.": (
        partial(map_sizes, pad=lambda side: side + 32 - side % 32)
    ),
    "padded is not padded: both sides must be multiples of 32.": partial(map_sizes, pad=int),
    "padded is cut: the next multiple of 32 is above, not below.": partial(
        map_sizes, pad=lambda side: side // 32 * 32
    ),
    "P6 is rounded down: every second of 25 columns, from the first on, are 13.": partial(
        map_sizes, halved=int
    ),
}

CHECKERS = {
    "09-sizes": same_values(
        IMAGES,
        map_sizes,
        praise="every size is right, for an image that max_size bounds, too.",
        mistakes=MISTAKES,
        wrong={
            "P3 is something else": with_keys(P3=(1, 1)),
            "P2 is still missing": with_keys(P2=...),
            "return a dict with the keys P2, P3": lambda rows, columns: {"P2": (272, 200)},
        },
        parts={
            name: f"{name} is something else: print it beside the part before it."
            for name in map_sizes(*IMAGES[0])
        },
    ),
}
