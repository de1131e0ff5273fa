"""The stored fine-tuning runs of data/results/small_batches."""

import csv

from helpers import DATA

FOLDER = DATA / "results" / "small_batches"
TABLES = ("runs", "extra")
RATE = 0.01  # the learning rate of all runs but a few in extra.csv

Rows = list[dict[str, str | int | float]]


def load_runs(table: str, **wanted) -> Rows:
    """Read the rows of one of TABLES that have the `wanted` values in their columns.

    Numbers become int or float. Raises ValueError for another name, and FileNotFoundError if
    the file is missing.
    """
    if table not in TABLES:
        raise ValueError(f"No table {table!r} here: choose one of {', '.join(TABLES)}.")
    file = FOLDER / f"{table}.csv"
    if not file.exists():
        raise FileNotFoundError(
            f"{file.name} is missing: restore it with `git checkout -- data/results`, or run "
            "data/results/small_batches/make.py."
        )
    with file.open(newline="", encoding="utf-8") as lines:
        rows = [{k: _number(v) for k, v in row.items()} for row in csv.DictReader(lines)]
    return [row for row in rows if wanted.items() <= row.items()]


def by_seed(rows: Rows, column: str = "recall", **wanted) -> dict[int, float]:
    """Return seed → value of `column`, for the rows with the `wanted` values in other columns.

    Raises ValueError if there is no such row, or if a seed has several.
    """
    values = {}
    for row in rows:
        if wanted.items() <= row.items():
            if row["seed"] in values:
                raise ValueError(f"Several rows of seed {row['seed']} fit {wanted}: say more.")
            values[row["seed"]] = row[column]
    if not values:
        raise ValueError(f"No stored run fits {wanted}.")
    return values


def _number(text: str) -> str | int | float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
