"""The stored fine-tuning runs of data/results/small_batches."""

import csv

from helpers import DATA

FOLDER = DATA / "results" / "small_batches"
TABLES = ("runs", "extra")
STATISTICS_SOURCES = ("moving average", "moving average, corrected", "recalibrated", "own")
RATE = 0.01  # the learning rate of all runs but a few in extra.csv

Rows = list[dict[str, str | int | float]]
BySeed = dict[int, float]


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
    sizes = {row["batch_size"] for row in rows if wanted.items() <= row.items()}
    if not sizes:
        raise ValueError(f"No stored run fits {wanted}.")
    return {size: by_seed(rows, column, batch_size=size, **wanted) for size in sorted(sizes)}


def _number(text: str) -> str | int | float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
