"""The detector without P2: what it lacks, and how its results are made."""

import csv

import pytest
import torch

from data.results.levels import make
from helpers import DATA
from helpers.faster_rcnn import walk
from helpers.inputs.scenes import scenes
from helpers.networks.detector import ANCHORS, evaluate, load_detector

FOLDER = DATA / "results" / "levels"


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make.without_p2().eval()


def test_it_lacks_the_finest_level_and_no_anchor(model):
    walked = walk(model, scenes(1, 1)[0][0])
    assert list(walked.pyramid) == ["P3", "P4", "P5", "P6"]
    assert walked.pooled_from.min() >= 3
    sizes = {size for level in model.rpn.anchor_generator.sizes for size in level}
    assert set(ANCHORS) <= sizes
    body, trained = model.backbone.body, load_detector().backbone.body
    assert body.state_dict().keys() == trained.state_dict().keys()


def test_objects_are_counted_by_size_as_they_are_found():
    counts, given = make.found_by_size(load_detector(), 5), scenes(5, make.SEED)
    assert sum(objects for objects, _ in counts) == sum(len(t["labels"]) for _, t in given)
    recall = evaluate(load_detector(), given).recall
    assert sum(found for _, found in counts) / sum(o for o, _ in counts) == pytest.approx(recall)


def test_a_short_run_writes_the_table_and_clears_up(tmp_path):
    make.main(steps=1, count=1, out=tmp_path)
    rows = list(csv.DictReader((tmp_path / "recall.csv").open()))
    assert tuple(rows[0]) == make.COLUMNS and len(rows) == 2 * len(make.SIZES)
    assert not list(tmp_path.glob("*.part"))


def test_the_stored_table_is_of_all_scenes_and_says_what_notebook_06_does():
    rows = list(csv.DictReader((FOLDER / "recall.csv").open()))
    smallest, largest = (
        [int(r["found"]) / int(r["objects"]) for r in rows if int(r["from"]) == size]
        for size in (0, 64)
    )
    assert 0.08 < smallest[0] - smallest[1] < 0.12 and largest[0] == largest[1]
    scores = csv.DictReader((DATA / "results" / "input_scaling" / "scores.csv").open())
    (objects,) = {int(row["objects"]) for row in scores}  # of the same scenes
    for levels in ("P2 to P6", "P3 to P6"):
        assert sum(int(r["objects"]) for r in rows if r["levels"] == levels) == objects
