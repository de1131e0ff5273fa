"""The script behind the stored runs, on very few scenes: its plan, its rows, stopping, checking."""

import csv

import pytest
import torch
from test_runs import STATISTICS_SOURCES

from data.results.small_batches import make
from data.results.small_batches.fine_tuning import prepare
from helpers import DATA
from helpers.networks.detector import load_detector
from helpers.norms import recalibrate

FOLDER = DATA / "results" / "small_batches"

UNTRAINED = ["moving average", "recalibrated", "own, 1", "own, 2", "own, 4", "own, 16"]
RUN = make.Run("train", 2, make.MAIN, 0.01, 0)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    sizes = {"UPDATES": 1, "EVERY": 1, "TEST": 16, "FEW": 2, "MEASURED": 16}
    sizes |= {"CALIBRATION": 4, "CALIBRATION_BATCH": 2}
    for name, value in sizes.items():
        monkeypatch.setattr(make, name, value)
    for cached in (make.test_scenes, make.calibration_images, make.updates):
        cached.cache_clear()


def rows(folder, table):
    with (folder / f"{table}.csv").open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def test_the_plan_holds_what_the_design_promises():
    main, extra = make.plan("runs"), make.plan("extra")
    assert len({*main, *extra}) == len(main) + len(extra)
    assert {run.shift for run in main} == {make.MAIN} and {run.seed for run in main} == {*range(6)}
    for kind in make.TRAINING:
        assert {run.batch_size for run in main if run.kind == kind} == {1, 2, 4, 16}
    for kind in ("frozen", "eval"):  # the control
        assert {run.batch_size for run in main if run.kind == kind} == {1, 16}
    assert {run.shift for run in extra} == {*make.SHIFTS}
    assert len({run.rate for run in main if run.kind not in ("untrained", "group")} - {0.0}) == 1


def test_the_stored_tables_hold_no_run_that_is_not_planned():
    for table in ("runs", "extra"):
        assert {*make.finished(FOLDER, table)} <= {*make.plan(table)}


def test_images_of_training_test_and_recalibration_are_different_ones(monkeypatch):
    monkeypatch.undo()
    first = [10_000_000 * (seed + 1) for seed in range(6)]
    used = {start + update for start in first for update in range(make.UPDATES + 1)}
    assert len(used) == 6 * (make.UPDATES + 1) and make.TEST_SEED not in used
    assert not used & {*range(1_000_000, 1_003_400)}  # the pretraining's


@pytest.mark.parametrize(
    ("run", "readings"),
    [
        (RUN._replace(kind="train, affine frozen", batch_size=16), STATISTICS_SOURCES),
        (RUN._replace(kind="eval", batch_size=4), ["stored"]),
        (RUN._replace(kind=make.FLOAT64, batch_size=16), ["stored"]),
        (RUN._replace(kind=make.RECALIBRATED, batch_size=16), ["stored"]),
        (RUN._replace(kind="group", batch_size=16), ["none"]),
        (RUN._replace(kind="untrained", batch_size=1, rate=0.0), UNTRAINED),
    ],
)
def test_the_rows_of_a_run(run, readings):
    rows = make.do(run)
    assert sorted(row[len(run)] for row in rows["runs"]) == sorted(readings)
    for name, values in rows.items():
        assert all(len(row) == len(make.COLUMNS[name]) for row in values)
        assert all(row[: len(run)] == run for row in values)
    trains = "untrained" not in run.kind
    ways = 2 if run.kind in make.TRAINING else 1
    assert len(rows["curves"]) == trains * ways * make.UPDATES / make.EVERY
    assert len(rows["distances"]) == (5 if run.kind in make.TRAINING else 0)


def test_an_interrupted_table_goes_on_and_a_check_runs_again(tmp_path, monkeypatch, capsys):
    untrained = RUN._replace(kind="group, untrained", batch_size=1, rate=0.0)
    plan = [untrained, RUN._replace(kind="frozen", batch_size=16)]
    monkeypatch.setattr(make, "plan", lambda table: plan if table == "runs" else [])
    do, asked = make.do, []

    def interrupted(run):
        if asked:
            raise KeyboardInterrupt
        asked.append(run)
        return do(run)

    arguments = ["--workers", "1", "--out", str(tmp_path)]
    monkeypatch.setattr(make, "do", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make.main(arguments)
    assert {row["kind"] for row in rows(tmp_path, "runs")} == {"group, untrained"}
    asked.clear()
    monkeypatch.setattr(make, "do", lambda run: asked.append(run) or do(run))
    make.main(arguments)
    assert asked == [plan[1]] and make.finished(tmp_path, "runs") == plan
    assert not list(tmp_path.glob("*.part"))
    file = tmp_path / "runs.csv"
    file.write_text(file.read_text().replace("stored,0.", "stored,1."))
    with pytest.raises(SystemExit) as ended:
        make.main([*arguments, "--check", "1"])
    assert ended.value.code
    assert "2 runs again: 1 as stored, 1 not." in capsys.readouterr().out


def test_kinds_and_sizes_of_a_sitting_can_be_chosen(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(make, "carried_out", lambda runs, workers: asked.extend(runs) or [])
    make.main(["--kinds", "train", "frozen", "--sizes", "1", "--out", str(tmp_path)])
    assert {(run.kind, run.batch_size) for run in asked} == {("train", 1), ("frozen", 1)}


def test_distances_are_zero_of_the_statistics_themselves():
    body, images = prepared_body(), make.calibration_images(make.MAIN, 0)
    truth = recalibrate(body, images.split(2))
    assert max(make.distances(truth, truth).values()) == 0
    assert min(make.distances(body, truth).values()) > 0.01
    whole = make.batch_distances(truth, images, len(images))
    alone = make.batch_distances(truth, images, 1)
    assert all(whole[stage] < alone[stage] for stage in whole)


def prepared_body():
    return prepare(load_detector(), "train").eval().backbone.body


def test_distances_are_root_mean_squares_in_standard_deviations():
    body, off = prepared_body(), prepared_body()
    with torch.no_grad():
        off.bn1.running_mean += 0.3 * (body.bn1.running_var + body.bn1.eps).sqrt()
    assert make.distances(off, body)["stem"] == pytest.approx(0.3, rel=1e-4)
