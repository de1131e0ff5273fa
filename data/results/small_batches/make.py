"""Fine-tune the scene detector with 1, 2, 4 or 16 images normalized together, for notebook 04.

    python -m data.results.small_batches.make [--table runs|extra] [--workers 2]

Writes runs.csv (six seeds on one shift) and extra.csv (three seeds on the others), a row for each
way of reading the statistics; and curves.csv, distances.csv. About a minute and a half of one core
for each run. A run's rows are written as it ends; started again, finished runs stay.

    python -m data.results.small_batches.make --check 10

runs every tenth finished run again, and compares.
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

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models.detection import FasterRCNN
from tqdm import tqdm

from data import coco
from helpers.batch_statistics import collect
from helpers.course.stored.runs import RATE
from helpers.fine_tuning import PER_UPDATE, finetune, prepare
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
    """Running statistics averaged with another momentum than the layers' own, beside these.

    Call `update` after every forward pass in train mode.
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
    """The momentum with which a moving average reaches back over as many images at `batch_size` as
    with `momentum` at PER_UPDATE images a batch."""
    return 1 - (1 - momentum) ** (batch_size / PER_UPDATE)


def plan(table: str) -> list[Run]:
    """Seed by seed, so that what there is at any time is paired."""
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
    found = []
    for seed, shift in product(seeds, shifts):
        found.append(Run("untrained", 1, shift, 0.0, seed))
        if seed == 0:
            found.append(Run("group, untrained", 1, shift, 0.0, seed))
        for kind, batch_sizes in sizes.items():
            learning_rate = GROUP_RATE if kind == "group" else RATE
            found += [Run(kind, size, shift, learning_rate, seed) for size in batch_sizes]
    return found


def do(run: Run) -> dict[str, list[tuple]]:
    """The rows of one run, by table; "runs" stands for either table."""
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
        found = recalibrated(model, calibration)
        readings["recalibrated"] = with_body(model, found)
        slow = deepcopy(model).eval()
        slow.load_state_dict(averages.averages, strict=False)
        if run.batch_size < PER_UPDATE:
            readings["moving average, corrected"] = slow
        images = normalize(torch.stack([image for image, _ in test[:MEASURED]]))
        of_batches = batch_distances(found, images, run.batch_size)
        moving = distances(model.backbone.body, found)
        of_slow = distances(slow.backbone.body, found)
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
    """Ways of reading that need no further images."""
    if run.kind in TRAINING:
        return {"moving average": deepcopy(model).eval(), "own": own(model)}
    return {"none" if run.kind == "group" else "stored": deepcopy(model).eval()}


def scores(model: FasterRCNN, test: list[Scene], batch_size: int) -> tuple[str, str, str]:
    results = detect(model, test, batch_size)
    found = rate(results, test)
    precision, _ = coco.average_precision(results, test)
    return f"{found.recall:.4f}", f"{precision:.4f}", f"{found.false_positives:.4f}"


def own(model: FasterRCNN) -> FasterRCNN:
    """A copy in eval mode whose every layer normalizes each batch by the batch."""
    return with_body(model, replace_norms(model.backbone.body, "batch statistics"))


def recalibrated(model: FasterRCNN, images: Tensor) -> nn.Module:
    return recalibrate(model.backbone.body, images.split(CALIBRATION_BATCH))


def with_body(model: FasterRCNN, body: nn.Module) -> FasterRCNN:
    copied = deepcopy(model)
    copied.backbone.body = body
    return copied.eval()


def batch_distances(body: nn.Module, images: Tensor, batch_size: int) -> dict[str, float]:
    """How far the statistics of test batches lie from recalibrated ones, by stage.

    For the stage's first layer: root mean square over batches and channels of
    helpers.batch_statistics.Statistics.difference, in standard deviations.
    """
    found = collect(Body(body), images)
    return {
        stage: float((s.difference(s.batches(batch_size)) ** 2).mean() ** 0.5)
        for stage, s in found.items()
    }


class Body(nn.Sequential):
    """A body with torchvision's names, whose output is that of its last stage."""

    def __init__(self, body: nn.Module):
        super().__init__()
        for name, part in deepcopy(body).named_children():
            self.add_module(name, part)
        self.eval()


def distances(body: nn.Module, truth: nn.Module) -> dict[str, float]:
    """How far the stored statistics lie from `truth`'s, by stage, in standard deviations.

    For the stage's first layer, root mean square over channels of the distance between the points
    (mean, standard deviation): what `batch_distances` takes of a batch.
    """
    found = {}
    for stage in STAGES:
        layer, right = (first(stages(Body(b))[stage]) for b in (body, truth))
        sigma = (right.running_var + right.eps).sqrt()
        mean = (layer.running_mean - right.running_mean) / sigma
        spread = (layer.running_var + layer.eps).sqrt() / sigma - 1
        found[stage] = (mean.square() + spread.square()).mean().sqrt().item()
    return found


def first(part: nn.Module) -> nn.BatchNorm2d:
    return next(iter(norm_layers(part).values()))


def doubled(drawn: list[Scene]) -> list[Scene]:
    return [(image.double(), target) for image, target in drawn]


@lru_cache(1)
def test_scenes(shift: str) -> list[Scene]:
    return scenes(TEST, TEST_SEED, **SHIFTS[shift])


@lru_cache(1)
def calibration_images(shift: str, seed: int) -> Tensor:
    drawn = scenes(CALIBRATION, 10_000_000 * (seed + 1) + UPDATES, **SHIFTS[shift])
    return normalize(torch.stack([image for image, _ in drawn]))


@lru_cache(1)
def updates(shift: str, seed: int) -> list[list[Scene]]:
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
    """Each run with its rows, as it ends, under a progress bar; one worker is this process."""
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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it, and ends its processes
    torch.set_num_threads(1)


def finished(folder: Path, table: str) -> list[Run]:
    """The runs that the table holds; their rows are written last, and together."""
    return list(dict.fromkeys(run_of(row) for row in read(folder / f"{table}.csv")))


def run_of(row: dict[str, str]) -> Run:
    return Run(
        row["kind"], int(row["batch_size"]), row["shift"], float(row["rate"]), int(row["seed"])
    )


def read(file: Path) -> list[dict[str, str]]:
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
    stored = [tuple(row.values()) for row in read(folder / f"{table}.csv") if run_of(row) == run]
    again = [tuple(map(str, row)) for row in rows]
    if stored != again:
        print(f"{run}: stored {stored}, now {again}")
    return stored == again


if __name__ == "__main__":
    main()
