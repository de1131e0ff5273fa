"""Score the trained detector after eight mistakes of a loader: scores.csv.

    python -m data.results.input_scaling.make

It takes about 3 minutes on one core. Each row is written as soon as it is done; the next call keeps
the rows that are there.
"""

import csv
import os
from pathlib import Path

import torch
from tqdm import tqdm

from helpers.inputs.pixels import loader_mistakes
from helpers.inputs.scenes import scenes
from helpers.networks.detector import evaluate, load_detector

HERE = Path(__file__).resolve().parent
SCENES, SEED = 600, 20180611  # none of training's, which are above a million and below two
COLUMNS = ("accident", "recall", "false_positives", "objects", "scenes")


def main() -> None:
    torch.set_num_threads(1)
    file = HERE / "scores.csv"
    rows = list(csv.DictReader(file.open())) if file.exists() else []
    done = {row["accident"] for row in rows}
    model, clean = load_detector(), scenes(SCENES, SEED)
    todo = {"right": lambda image: image, **loader_mistakes}
    for name, load in tqdm(todo.items(), unit="mistake", disable=None):
        if name in done:
            continue
        scores = evaluate(model, [(load(image), target) for image, target in clean])
        rounded = (f"{score:.3f}" for score in (scores.recall, scores.false_positives))
        values = (name, *rounded, scores.objects, SCENES)
        rows.append(dict(zip(COLUMNS, values, strict=True)))
        write(file, rows)


def write(file: Path, rows: list[dict]) -> None:
    """Write the table, whole or not at all."""
    part = file.with_suffix(".part")
    with part.open("w", newline="") as out:
        writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(part, file)


if __name__ == "__main__":
    main()
