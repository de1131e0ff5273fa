"""Fine-tune the scene detector with 1, 2, 4 or 16 images normalized together, for notebook 04.

    python -m data.results.small_batches.make [--table runs|extra] [--workers 2]

Writes runs.csv (six seeds on one shift) and extra.csv (three seeds on the others), with a row for
each source of running statistics; and curves.csv and distances.csv. A run takes about a minute and
a half of one core. Its rows are written when it ends; the next call keeps finished runs.

    python -m data.results.small_batches.make --check 10

runs every tenth finished run again, and compares the rows.
"""

import argparse
import csv
import multiprocessing
import os
import signal
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from copy import deepcopy
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models.detection import FasterRCNN
from tqdm import tqdm

from data import coco
from data.results.small_batches.fine_tuning import PER_UPDATE, finetune, prepare
from helpers.batch_statistics import Statistics, collect
from helpers.course.stored.runs import RATE
from helpers.inputs.scenes import Scene, scenes
from helpers.networks.detector import detect, load_detector, normalize, rate
from helpers.norms import norm_layers, recalibrate, replace_norms
from helpers.stages import STAGES, stages

HERE = Path(__file__).resolve().parent
SIZES = (1, 2, 4, 16)
UPDATES = 40
GROUP_RATE = 0.03  # the best of 0.003, 0.01 and 0.03, on a seed that is in no table
SLOWER = (  # whether the conclusions hang on the learning rate
    (0.001, "gain", (("train", 16), ("frozen", 16), ("recalibrated, frozen", 16))),
    (0.003, "texture and light", (("train", 1), ("train", 16), ("frozen", 16))),
)
SHIFTS = {
    "texture and light": {"shift": "texture", "illumination": True},
    "texture": {"shift": "texture"},
    "illumination": {"illumination": True},
    "gain": {"shift": "gain"},
}
MAIN = "texture and light"  # the shift of runs.csv
TEST_SEED, TEST = 20181213, 600  # scenes
CALIBRATION, CALIBRATION_BATCH = 256, 64  # scenes
FEW = 60  # scenes, of the test's, for a point of a learning curve
EVERY = 10  # updates
MEASURED = 64  # scenes, of the test's, for the distances

TRAINING = ("train", "train, affine frozen")  # kinds that normalize by the batch
RECALIBRATED = "recalibrated, frozen"  # first one, then the other, then fine-tuned
FLOAT64 = "frozen, float64"  # the control without rounding to speak of


class Run(NamedTuple):
    """One fine-tuning: the columns that README.md explains."""

    kind: str
    batch_size: int
    shift: str
    rate: float
    seed: int


RUN = Run._fields
COLUMNS = {
    "runs": (*RUN, "statistics", "recall", "ap", "false_positives"),
    "extra": (*RUN, "statistics", "recall", "ap", "false_positives"),
    "curves": (*RUN, "update", "loss", "statistics", "recall"),
    "distances": (*RUN, "stage", "batch", "moving_average", "corrected"),
}


class MovingAverages:
    """Average running statistics with another momentum, beside the layers' own.

    Call `update` after every forward pass in train mode; `averages` is a part of a state_dict.
    """

    def __init__(self, model: nn.Module, momentum: float):
        self.momentum = momentum
        self.layers = {
            name: layer
            for name, layer in norm_layers(model).items()
            if isinstance(layer, _BatchNorm) and layer.training
        }
        self.before = self._running()
        self.averages = self._running()

    @torch.no_grad()
    def update(self) -> None:
        """Take in the batch that the layers have just seen."""
        after = self._running()
        for name, average in self.averages.items():
            moved, own = after[name] - self.before[name], self._momentum(name)
            batch = self.before[name] + moved / own  # running = before + own·(batch − before)
            average += self.momentum * (batch - average)
        self.before = after

    def _momentum(self, name: str) -> float:
        return self.layers[name.rpartition(".")[0]].momentum

    def _running(self) -> dict[str, Tensor]:
        return {
            f"{name}.{kind}": getattr(layer, kind).clone()
            for name, layer in self.layers.items()
            for kind in ("running_mean", "running_var")
        }


def corrected(momentum: float, batch_size: int) -> float:
    """Compute the momentum that averages over as many images at `batch_size` as at PER_UPDATE.

    `momentum` is that at PER_UPDATE images a batch.
    """
    return 1 - (1 - momentum) ** (batch_size / PER_UPDATE)


def plan(table: str) -> list[Run]:
    """List a table's runs, seed by seed, so that what there is at any time is paired."""
    if table == "runs":
        sizes = {kind: SIZES for kind in TRAINING}
        sizes |= {"frozen": (1, 16), "eval": (1, 16), "group": (16,)}
        return runs(range(6), [MAIN], sizes)
    sizes = {"train": (1, 16), "frozen": (16,), "eval": (16,), "group": (16,)}
    others = runs(range(3), [shift for shift in SHIFTS if shift != MAIN], sizes)
    control = [Run(FLOAT64, size, MAIN, RATE, 0) for size in (1, 16)]
    first = [Run(RECALIBRATED, 16, shift, RATE, seed) for seed in range(3) for shift in SHIFTS]
    slower = [
        Run(kind, size, shift, learning_rate, seed)
        for seed in range(3)
        for learning_rate, shift, kinds in SLOWER
        for kind, size in kinds
    ]
    return others + control + first + slower


def runs(seeds: Iterable[int], shifts: list[str], sizes: dict[str, tuple]) -> list[Run]:
    """List the runs of every seed, shift, kind and batch size, and those before fine-tuning."""
    planned = []
    for seed, shift in product(seeds, shifts):
        planned.append(Run("untrained", 1, shift, 0.0, seed))
        if seed == 0:
            planned.append(Run("group, untrained", 1, shift, 0.0, seed))
        for kind, batch_sizes in sizes.items():
            learning_rate = GROUP_RATE if kind == "group" else RATE
            planned += [Run(kind, size, shift, learning_rate, seed) for size in batch_sizes]
    return planned


def do(run: Run) -> dict[str, list[tuple]]:
    """Carry out one run and return its rows by table, where "runs" stands for runs or extra."""
    rows = {"runs": [], "curves": [], "distances": []}
    test, calibration = test_scenes(run.shift), calibration_images(run.shift, run.seed)
    if run.kind == "untrained":
        model = load_detector()
        readings = {"moving average": (model, 16)}
        readings["recalibrated"] = with_body(model, recalibrated(model, calibration)), 16
        for size in SIZES:
            readings[f"own, {size}"] = own(model), size
        for name, (read, size) in readings.items():
            rows["runs"].append((*run, name, *scores(read, test, size)))
        return rows
    if run.kind == "group, untrained":
        rows["runs"].append((*run, "none", *scores(load_detector("group"), test, 16)))
        return rows
    batches = updates(run.shift, run.seed)
    if run.kind == "group":
        model = prepare(load_detector("group"), "train")
    elif run.kind == RECALIBRATED:
        model = load_detector()
        model = prepare(with_body(model, recalibrated(model, calibration)), "frozen")
    elif run.kind == FLOAT64:
        model, test = prepare(load_detector(), "frozen").double(), doubled(test)
        batches = [doubled(batch) for batch in batches]
    else:
        model = prepare(load_detector(), run.kind)
    averages = MovingAverages(model, corrected(0.1, run.batch_size))
    losses = []
    training = finetune(model, run.batch_size, batches, UPDATES, run.rate, averages.update)
    for update, loss in enumerate(training, 1):
        losses.append(loss)
        if update % EVERY == 0:
            mean, losses = sum(losses) / EVERY, []
            for name, read in as_read(model, run).items():
                few = rate(detect(read, test[:FEW], run.batch_size), test[:FEW])
                rows["curves"].append((*run, update, f"{mean:.4f}", name, f"{few.recall:.4f}"))
    readings = as_read(model, run)
    if run.kind in TRAINING:
        truth = recalibrated(model, calibration)
        readings["recalibrated"] = with_body(model, truth)
        slow = deepcopy(model).eval()
        slow.load_state_dict(averages.averages, strict=False)
        if run.batch_size < PER_UPDATE:
            readings["moving average, corrected"] = slow
        images = normalize(torch.stack([image for image, _ in test[:MEASURED]]))
        of_batches = batch_distances(truth, images, run.batch_size)
        moving = distances(model.backbone.body, truth)
        of_slow = distances(slow.backbone.body, truth)
        for stage in STAGES:
            values = (of_batches[stage], moving[stage], of_slow[stage])
            rows["distances"].append((*run, stage, *(f"{value:.4f}" for value in values)))
    for name, read in readings.items():
        rows["runs"].append((*run, name, *scores(read, test, run.batch_size)))
    if run[:4] == ("train", PER_UPDATE, MAIN, RATE):  # beside those of B = 1, in the same way
        rows["runs"].append((*run, "own, 1", *scores(own(model), test, 1)))
    if run.kind in TRAINING and run.batch_size == PER_UPDATE:  # the momentum is the layers' own
        usual = next(row for row in rows["runs"] if row[len(run)] == "moving average")
        rows["runs"].append((*run, "moving average, corrected", *usual[len(run) + 1 :]))
    return rows


def as_read(model: FasterRCNN, run: Run) -> dict[str, FasterRCNN]:
    """Return the sources of statistics that need no further images, each as a model to test."""
    if run.kind in TRAINING:
        return {"moving average": deepcopy(model).eval(), "own": own(model)}
    return {"none" if run.kind == "group" else "stored": deepcopy(model).eval()}


def scores(model: FasterRCNN, test: list[Scene], batch_size: int) -> tuple[str, str, str]:
    """Score a model: recall, COCO's AP, false positives per image."""
    results = detect(model, test, batch_size)
    rated = rate(results, test)
    precision, _ = coco.average_precision(results, test)
    return f"{rated.recall:.4f}", f"{precision:.4f}", f"{rated.false_positives:.4f}"


def own(model: FasterRCNN) -> FasterRCNN:
    """Copy the model in eval mode so that its layers normalize each batch by its own statistics."""
    return with_body(model, replace_norms(model.backbone.body, "batch statistics"))


def recalibrated(model: FasterRCNN, images: Tensor) -> nn.Module:
    """Copy the body and recompute its running statistics on these images."""
    return recalibrate(model.backbone.body, images.split(CALIBRATION_BATCH))


def with_body(model: FasterRCNN, body: nn.Module) -> FasterRCNN:
    """Copy the model in eval mode, on another body."""
    copied = deepcopy(model)
    copied.backbone.body = body
    return copied.eval()


def batch_distances(body: nn.Module, images: Tensor, batch_size: int) -> dict[str, float]:
    """Measure how far the statistics of test batches lie from `body`'s recalibrated ones.

    The distance of a stage is that of its first layer: the root mean square over batches and
    channels of `difference`, in standard deviations.
    """
    return {
        stage: float((difference(s, s.batches(batch_size)) ** 2).mean() ** 0.5)
        for stage, s in collect(Body(body), images).items()
    }


def difference(statistics: Statistics, images: ArrayLike) -> np.ndarray:
    """Compute the root mean square of train-mode minus eval-mode output, in units of |weight|.

    `images`: batches (…,B) of indices; the result is (…,C). The mean is over the pixels of a batch.
    With its mean m and variance v, and the running ones μ and σ², the normalized values differ by
    (x − m)·(1/√(v + eps) − 1/√(σ² + eps)) − (m − μ)/√(σ² + eps),
    whose first term has mean 0. The weight scales the difference, and the bias cancels.

    For eps = 0 it is the distance between the points (m, √v) and (μ, σ), in units of σ.
    """
    mean, variance = statistics.of_batch(images)
    running = np.sqrt(statistics.running_var + statistics.eps)
    scales = 1 / np.sqrt(variance + statistics.eps) - 1 / running
    return np.sqrt(variance * scales**2 + ((mean - statistics.running_mean) / running) ** 2)


class Body(nn.Sequential):
    """Copy a body so that its output is that of its last stage; names stay torchvision's."""

    def __init__(self, body: nn.Module):
        super().__init__()
        for name, part in deepcopy(body).named_children():
            self.add_module(name, part)
        self.eval()


def distances(body: nn.Module, truth: nn.Module) -> dict[str, float]:
    """Measure how far the stored statistics lie from `truth`'s, stage by stage.

    The distance is the one of `batch_distances`, with stored statistics instead of a batch's: the
    root mean square over the first layer's channels of the distance between the points (mean,
    standard deviation), in standard deviations of `truth`.
    """
    by_stage = {}
    for stage in STAGES:
        layer, right = (first(stages(Body(b))[stage]) for b in (body, truth))
        sigma = (right.running_var + right.eps).sqrt()
        mean = (layer.running_mean - right.running_mean) / sigma
        spread = (layer.running_var + layer.eps).sqrt() / sigma - 1
        by_stage[stage] = (mean.square() + spread.square()).mean().sqrt().item()
    return by_stage


def first(part: nn.Module) -> nn.BatchNorm2d:
    """Return the first normalization layer."""
    return next(iter(norm_layers(part).values()))


def doubled(drawn: list[Scene]) -> list[Scene]:
    """Turn the images into float64."""
    return [(image.double(), target) for image, target in drawn]


@lru_cache(1)
def test_scenes(shift: str) -> list[Scene]:
    """Draw the scenes to test on."""
    return scenes(TEST, TEST_SEED, **SHIFTS[shift])


@lru_cache(1)
def calibration_images(shift: str, seed: int) -> Tensor:
    """Draw the normalized images (n,3,128,128) to recompute running statistics on."""
    drawn = scenes(CALIBRATION, 10_000_000 * (seed + 1) + UPDATES, **SHIFTS[shift])
    return normalize(torch.stack([image for image, _ in drawn]))


@lru_cache(1)
def updates(shift: str, seed: int) -> list[list[Scene]]:
    """Draw the scenes of every update."""
    first = 10_000_000 * (seed + 1)
    return [scenes(16, first + update, **SHIFTS[shift]) for update in range(UPDATES)]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Fine-tune with small batches.")
    parser.add_argument("--table", choices=("runs", "extra"), default="runs")
    parser.add_argument("--kinds", nargs="+", help="these only, in this sitting")
    parser.add_argument("--sizes", nargs="+", type=int, help="these batch sizes only, likewise")
    parser.add_argument("--rates", nargs="+", type=float, help="these learning rates only")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--check", type=int, help="run every Nth finished run again, and compare")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the tables")
    given = parser.parse_args(arguments)
    coco.need_pycocotools()
    done = finished(given.out, given.table)
    if given.check:
        todo = done[given.check // 2 :: given.check]
    else:
        todo = [run for run in plan(given.table) if run not in done]
        todo = [run for run in todo if run.kind in (given.kinds or [run.kind])]
        todo = [run for run in todo if run.batch_size in (given.sizes or [run.batch_size])]
        todo = [run for run in todo if run.rate in (given.rates or [run.rate])]
    different = 0
    for run, rows in carried_out(todo, given.workers):
        if given.check:
            different += not same(given.out, given.table, run, rows["runs"])
        else:
            store(given.out, given.table, run, rows)
    if given.check:
        print(f"{len(todo)} runs again: {len(todo) - different} as stored, {different} not.")
        raise SystemExit(different > 0)


def carried_out(runs: list[Run], workers: int) -> Iterable[tuple[Run, dict[str, list[tuple]]]]:
    """Yield each run with its rows as it ends; with one worker, this process does the work."""
    if workers == 1:
        torch.set_num_threads(1)
        for run in tqdm(runs, unit="run"):
            yield run, do(run)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, one_thread) as pool:
        futures = {pool.submit(do, run): run for run in runs}
        try:
            for future in tqdm(as_completed(futures), total=len(futures), unit="run"):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(pool._processes.values()):
                process.terminate()
            raise


def one_thread() -> None:
    """Prepare a process of the pool."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it, and ends its processes
    torch.set_num_threads(1)


def finished(folder: Path, table: str) -> list[Run]:
    """List the runs that the table holds; their rows are written last, and together."""
    return list(dict.fromkeys(run_of(row) for row in read(folder / f"{table}.csv")))


def run_of(row: dict[str, str]) -> Run:
    """Read the run off a row of a table."""
    return Run(
        row["kind"], int(row["batch_size"]), row["shift"], float(row["rate"]), int(row["seed"])
    )


def read(file: Path) -> list[dict[str, str]]:
    """Read the rows of a table; a missing one has none."""
    return list(csv.DictReader(file.open(encoding="utf-8"))) if file.exists() else []


def store(folder: Path, table: str, run: Run, rows: dict[str, list[tuple]]) -> None:
    """Add a run's rows, in the order of the plan; a file is written whole or not at all."""
    order = {each: number for number, each in enumerate(plan("runs") + plan("extra"))}
    for name in ("curves", "distances", "runs"):
        file = folder / f"{table if name == 'runs' else name}.csv"
        columns = COLUMNS[name]
        kept = [row for row in read(file) if run_of(row) != run]
        kept += [dict(zip(columns, values, strict=True)) for values in rows[name]]
        kept.sort(key=lambda row: order[run_of(row)])  # stable: within a run as they are
        part = file.with_suffix(".part")
        with part.open("w", newline="", encoding="utf-8") as out:
            writer = csv.DictWriter(out, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(kept)
        os.replace(part, file)


def same(folder: Path, table: str, run: Run, rows: list[tuple]) -> bool:
    """Compare a run's rows with the stored ones, and print where they differ."""
    stored = [tuple(row.values()) for row in read(folder / f"{table}.csv") if run_of(row) == run]
    again = [tuple(map(str, row)) for row in rows]
    if stored != again:
        print(f"{run}: stored {stored}, now {again}")
    return stored == again


if __name__ == "__main__":
    main()
