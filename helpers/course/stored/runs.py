"""The stored fine-tuning runs of data/results/small_batches, and how they are compared."""

import csv
from itertools import product
from statistics import fmean
from typing import NamedTuple

import numpy as np

from helpers import DATA

FOLDER = DATA / "results" / "small_batches"
TABLES = ("runs", "extra")
STATISTICS_SOURCES = ("moving average", "moving average, corrected", "recalibrated", "own")
LEVEL = 0.95
RATE = 0.01  # the learning rate of all runs but a few in extra.csv

Rows = list[dict[str, str | int | float]]
BySeed = dict[int, float]


class Difference(NamedTuple):
    """How much runs differ that are paired by seed: each pair, the mean, its bootstrap interval.

    As text it gives the mean, the interval, and how many pairs have the sign of the mean.
    """

    pairs: tuple[float, ...]
    mean: float
    low: float
    high: float

    def __str__(self):
        same = sum(pair * self.mean > 0 for pair in self.pairs)
        return (
            f"{signed(self.mean)} ({signed(self.low)} to {signed(self.high)}), "
            f"{same} of {len(self.pairs)}"
        )


def load_runs(table: str | None = None, **wanted) -> Rows:
    """Read the rows of one table that have the `wanted` values in their columns.

    The tables are "runs", "extra", "curves" and "distances"; without a name, runs and extra are
    read. Numbers become int or float. Raises ValueError for another name, and FileNotFoundError
    if the file is missing.
    """
    names = TABLES if table is None else (table,)
    if not {*names} <= {*TABLES, "curves", "distances"}:
        raise ValueError(f"No table {table!r} here: choose runs, extra, curves or distances.")
    rows: Rows = []
    for name in names:
        file = FOLDER / f"{name}.csv"
        if not file.exists():
            raise FileNotFoundError(
                f"{name}.csv is missing: restore it with `git checkout -- data/results`, or run "
                "data/results/small_batches/make.py."
            )
        with file.open(newline="", encoding="utf-8") as lines:
            rows += [{k: _number(v) for k, v in row.items()} for row in csv.DictReader(lines)]
    return [row for row in rows if wanted.items() <= row.items()]


def by_seed(rows: Rows, column: str = "recall", **wanted) -> BySeed:
    """Return seed → value of `column`, for the rows with the `wanted` values in other columns.

    Raises ValueError if there is no such row, or if a seed has several.
    """
    values: BySeed = {}
    for row in rows:
        if wanted.items() <= row.items():
            if row["seed"] in values:
                raise ValueError(f"Several rows of seed {row['seed']} fit {wanted}: say more.")
            values[row["seed"]] = row[column]
    if not values:
        raise ValueError(f"No stored run fits {wanted}.")
    return values


def by_size(rows: Rows, column: str = "recall", **wanted) -> dict[int, BySeed]:
    """Return batch size → `by_seed`, for the sizes that such rows have, the smallest first."""
    return _by("batch_size", rows, column, wanted)


def by_rate(rows: Rows, column: str = "recall", **wanted) -> dict[float, BySeed]:
    """Return learning rate → `by_seed`, the lowest rate first."""
    return _by("rate", rows, column, wanted)


def by_update(rows: Rows, column: str, **wanted) -> dict[int, list[float]]:
    """Return update → the value of each run, in the order of training; `rows` are of "curves"."""
    curve = _by("update", rows, column, wanted)
    return {update: list(values.values()) for update, values in curve.items()}


def _by(name: str, rows: Rows, column: str, wanted: dict) -> dict:
    values = {row[name] for row in rows if wanted.items() <= row.items()}
    if not values:
        raise ValueError(f"No stored run fits {wanted}.")
    return {value: by_seed(rows, column, **{name: value}, **wanted) for value in sorted(values)}


def difference(a: BySeed, b: BySeed) -> Difference:
    """Subtract a from b, seed by seed, and bootstrap the mean.

    The interval holds the middle 95 % of the means of all n^n resamples of the n differences, so
    that no chance enters; with few pairs it is too narrow. Raises ValueError for fewer than two
    seeds in common, and for more than 7.
    """
    pairs = tuple(b[seed] - a[seed] for seed in sorted(a.keys() & b.keys()))
    if len(pairs) < 2:
        raise ValueError(f"A paired difference needs two common seeds; here is {len(pairs)}.")
    low, high = np.quantile(_resampled(pairs), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Difference(pairs, fmean(pairs), float(low), float(high))


def correlation(a: dict[int, BySeed], b: dict[int, BySeed]) -> tuple[float, list[float]]:
    """Correlate two values (Pearson), over all runs, and over the seeds at each batch size alone.

    `a` and `b` are batch size → seed → value, as `by_size` returns them. A correlation is NaN where
    nothing varies.
    """
    pairs = {size: np.array([(a[size][seed], b[size][seed]) for seed in a[size]]) for size in a}
    with np.errstate(invalid="ignore"):
        within = [float(np.corrcoef(points.T)[0, 1]) for points in pairs.values()]
        return float(np.corrcoef(np.concatenate(list(pairs.values())).T)[0, 1]), within


def mean(values: BySeed) -> float:
    """Return the mean over the seeds."""
    return fmean(values.values())


def signed(value: float, digits: int = 3) -> str:
    """Write a number with its sign: +0.012, −0.150; what rounds to zero has none."""
    words = f"{value:+.{digits}f}"
    return (words if float(words) else words[1:]).replace("-", "−")


def _resampled(values: tuple[float, ...]) -> np.ndarray:
    """The means of all n^n resamples with replacement."""
    if len(values) > 7:
        raise ValueError(f"All resamples of {len(values)} values are too many: give 7 at most.")
    return np.array(list(product(values, repeat=len(values)))).mean(1)


def _number(text: str) -> str | int | float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
