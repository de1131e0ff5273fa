"""What is read from the stored costs, and notebook 11 without any GPU's."""

import json
import shutil

import nbformat
import pytest

from helpers.course.stored import costs as stored
from helpers.course.stored.costs import BOTH, FORWARD

ROOT = stored.FOLDER.parents[2]
DEVICES = list(stored.devices())


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """An empty folder in place of the stored files."""
    monkeypatch.setattr(stored, "FOLDER", tmp_path)
    stored.devices.cache_clear()
    yield tmp_path
    stored.devices.cache_clear()


def rows(device, section, **wanted):
    return [row for row in stored.devices()[device][section] if wanted.items() <= row.items()]


def test_every_file_is_a_device_and_gpus_come_first():
    kinds = [content["about"]["kind"] for content in stored.devices().values()]
    assert kinds == sorted(kinds, reverse=True) and set(kinds) == {"cuda", "cpu"}
    assert len(kinds) == len(list(stored.FOLDER.glob("*.json")))
    assert stored.gpus() == DEVICES[: kinds.count("cuda")]


def test_costs_are_the_rows_of_the_file():
    for device in DEVICES:
        cudnn = True if device in stored.gpus() else None
        for subject, step in (("body", BOTH), ("detector", FORWARD)):
            wanted = {"batch": 1, "dtype": "float32", "pass": step, "cudnn": cudnn}
            for row in rows(device, "norms", level=subject, **wanted):
                one = stored.cost(device, subject, 1, "float32", step, row["way"])
                assert (one.ms, one.ratio, one.spread) == (row["ms"], row["ratio"], row["spread"])
                assert ("not told" in one.words) == (not row["is_resolved"])


def test_parts_and_nms_are_those_of_the_file():
    for device in DEVICES:
        boxes = [sum(row["candidates"]) for row in stored.nms_shares(device)]
        assert len(boxes) >= 2 and boxes == sorted(boxes)
        [row] = rows(device, "nms", what="parts", part="rpn")
        assert stored.part_shares(device)["rpn"] == (row["share"], row["unwaited"])
        for way, points in stored.nms_times(300)[device].items():
            [row] = rows(device, "nms", what="classes", candidates=300, classes=20, way=way)
            assert (20, row["ms"]) in points and len(points) == 7


def test_what_was_not_measured_is_one_sentence():
    for call, words in (
        (lambda: stored.cost("abacus", "body", 1, "float32", BOTH, "x"), "No device 'abacus' here"),
        (lambda: stored.cost(DEVICES[0], "body", 8, "float32", BOTH, "x"), "x was not measured on"),
        (lambda: stored.nms_ms(DEVICES[0], 7, 2), "7 candidates of 2 classes were not measured"),
    ):
        with pytest.raises(ValueError, match=words):
            call()


def test_without_a_gpus_file_notebook_11_says_so_and_runs(elsewhere, monkeypatch, capsys):
    with pytest.raises(FileNotFoundError, match="make speed"):
        stored.devices()
    for file in (ROOT / "data" / "results" / "speed").glob("*.json"):
        if json.loads(file.read_text())["about"]["kind"] == "cpu":
            shutil.copy(file, elsewhere)
    namespace = {}
    for cell in nbformat.read(ROOT / "notebooks" / "11_where_the_time_goes.ipynb", 4).cells:
        if cell.cell_type == "code":
            exec(cell.source, namespace)
    out = capsys.readouterr().out
    assert "No file of a GPU is here: what the text says of GPUs, no cell shows." in out
    assert not [line for line in out.splitlines() if "NVIDIA" in line]
