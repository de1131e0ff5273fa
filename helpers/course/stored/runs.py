"""The stored fine-tuning runs of data/results/small_batches, and differences paired by seed."""

import csv
from collections.abc import Iterable, Mapping
from itertools import product
from statistics import fmean
from typing import NamedTuple

import numpy as np

from helpers import DATA

FOLDER = DATA / "results" / "small_batches"
TABLES = ("runs", "extra")
SCORES = ("recall", "ap", "false_positives")
STATISTICS_SOURCES = ("moving average", "moving average, corrected", "recalibrated", "own")
LEVEL = 0.95
RATE = 0.01  # the learning rate of all runs but a few in extra.csv

Rows = list[dict[str, str | int | float]]
BySeed = dict[int, float]


class Difference(NamedTuple):
    """Of paired runs: the differences by seed, their mean, its bootstrap interval.

    As text: mean, interval, and how many pairs have the sign of the mean.
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
    """The rows of runs.csv and extra.csv, or of one table: "curves" and "distances", too.

    Only those with the `wanted` values in their columns. Numbers are numbers. ValueError for a
    table that there is not, FileNotFoundError for a missing file.
    """
    names = TABLES if table is None else (table,)
    if not {*names} <= {*TABLES, "curves", "distances"}:
        raise ValueError(f"No table {table!r} here: choose runs, extra, curves or distances.")
    rows = []
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
    """Seed → value of `column`, of the rows that have the `wanted` values in other columns.

    ValueError if there is no such row, and if a seed has several.
    """
    found: BySeed = {}
    for row in rows:
        if all(row[name] == value for name, value in wanted.items()):
            if row["seed"] in found:
                raise ValueError(f"Several rows of seed {row['seed']} fit {wanted}: say more.")
            found[row["seed"]] = row[column]
    if not found:
        raise ValueError(f"No stored run fits {wanted}.")
    return found


def by_size(rows: Rows, column: str = "recall", **wanted) -> dict[int, BySeed]:
    """Batch size → `by_seed`, for the sizes that such rows have, the smallest first."""
    return _by("batch_size", rows, column, wanted)


def by_rate(rows: Rows, column: str = "recall", **wanted) -> dict[float, BySeed]:
    """Learning rate → `by_seed`, likewise."""
    return _by("rate", rows, column, wanted)


def _by(name: str, rows: Rows, column: str, wanted: dict) -> dict:
    values = {row[name] for row in rows if wanted.items() <= row.items()}
    if not values:
        raise ValueError(f"No stored run fits {wanted}.")
    return {value: by_seed(rows, column, **{name: value}, **wanted) for value in sorted(values)}


def difference(a: BySeed, b: BySeed) -> Difference:
    """b − a, paired by seed, with the interval of the exact bootstrap: all resamples, no chance.

    The interval holds the middle 95 % of the means of all n^n resamples of the n differences. With
    few pairs it is too narrow. ValueError for fewer than two common seeds.
    """
    pairs = tuple(b[seed] - a[seed] for seed in sorted(a.keys() & b.keys()))
    if len(pairs) < 2:
        raise ValueError(f"A paired difference needs two common seeds; here is {len(pairs)}.")
    low, high = np.quantile(_resampled(pairs), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Difference(pairs, fmean(pairs), float(low), float(high))


def correlation(a: dict[int, BySeed], b: dict[int, BySeed]) -> tuple[float, list[float]]:
    """Pearson's, over all runs of both; and over the seeds at each batch size by itself.

    `a`, `b`: batch size → seed → value, as `by_size` gives them. NaN where nothing varies.
    """
    pairs = {size: np.array([(a[size][seed], b[size][seed]) for seed in a[size]]) for size in a}
    with np.errstate(invalid="ignore"):
        within = [float(np.corrcoef(points.T)[0, 1]) for points in pairs.values()]
        return float(np.corrcoef(np.concatenate(list(pairs.values())).T)[0, 1]), within


def mean(values: Mapping[int, float]) -> float:
    return fmean(values.values())


def signed(value: float, digits: int = 3) -> str:
    """+0.012, −0.150, and 0.000 without a sign."""
    words = f"{value:+.{digits}f}"
    return (words[1:] if not float(words) else words).replace("-", "−")


def _resampled(values: Iterable[float]) -> np.ndarray:
    """The means of all resamples with replacement; n^n of them, so of at most 7 values."""
    values = list(values)
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
