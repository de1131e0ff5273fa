"""What is read from the stored costs for notebook 07, and the notebook without any GPU's."""

import json
import shutil

import nbformat
import pytest

from helpers.course.pictures import power_picture
from helpers.course.stored import costs as speed
from helpers.course.stored.costs import BASE, BOTH, COPYING, FORWARD, STAGE_4, TWO_LINEAR
from helpers.implementations import bytes_moved

ROOT = speed.FOLDER.parents[2]
DEVICES = list(speed.devices())


def rows(device, section, **wanted):
    held = speed.devices()[device][section]
    return [row for row in held if all(row.get(key) == value for key, value in wanted.items())]


@pytest.mark.parametrize("device", DEVICES)
def test_a_layers_times_are_those_of_the_file(device):
    found = speed.layer_times(device, [BASE, "FrozenBN"])
    assert list(found) == [COPYING, BASE, "FrozenBN"]
    cudnn = True if device in speed.gpus() else None
    stem = {"shape": [64, 112, 112], "batch": 8, "dtype": "float32", "pass": FORWARD}
    [row] = rows(device, "norms", level="layer", way="FrozenBN", cudnn=cudnn, **stem)
    moved = bytes_moved("FrozenBN", 8 * 64 * 112 * 112, 4, backward=False)
    assert (moved / 2**20, row["ms"]) in found["FrozenBN"]
    assert len(found[BASE]) == len(found["FrozenBN"]) == 5 * 3  # stages, batches
    assert [x for x, _ in found[COPYING]] == sorted({x for x, _ in found[BASE]})
    fastest = max(r["copy_bandwidth"] for r in rows(device, "norms", way=BASE, moved=moved // 2))
    assert found[COPYING][-1][1] <= 1000 * (moved / 2) / fastest * (1 + 1e-9) * 1.5
    assert speed.layer_times(device, ["folded"])["folded"] == []


def test_one_way_is_one_of_all():
    found = {one.way: one for one in speed.costs(DEVICES[0], "body", 8, "float32", BOTH)}
    assert speed.cost(DEVICES[0], "body", 8, "float32", BOTH, "folded") == found["folded"]
    with pytest.raises(ValueError, match="'GroupNorm' was not measured there: choose one of BN"):
        speed.cost(DEVICES[0], "body", 8, "float32", BOTH, "GroupNorm")


@pytest.mark.parametrize("device", speed.gpus())
def test_images_fit_where_they_were_measured(device):
    for dtype in ("float32", "float16"):
        for way in (BASE, "FrozenBN"):
            wanted = {"level": "body", "dtype": dtype, "way": way, "pass": BOTH, "cudnn": True}
            for batch in (2, 8):
                [row] = rows(device, "norms", batch=batch, **wanted)
                fit = speed.images_that_fit(device, way, dtype, row["peak"] / 1e9 + 1e-6)
                assert fit == batch
    with pytest.raises(ValueError, match="no peak of memory was measured"):
        speed.images_that_fit(device, "GroupNorm", "float32", 24)


def test_a_cpu_has_no_peak():
    with pytest.raises(ValueError, match="no peak of memory was measured on"):
        speed.images_that_fit(DEVICES[-1], BASE, "float32", 24)


@pytest.mark.parametrize("device", DEVICES)
def test_heads_shares_and_parts_are_those_of_the_file(device):
    ms = speed.head_ms(device, 300)
    [row] = rows(device, "heads", what=STAGE_4, proposals=300)
    assert ms[STAGE_4] == row["ms"] > ms[TWO_LINEAR]
    shares = speed.nms_shares(device)
    assert len(shares) >= 2 and all("resnet50" in row["model"] for row in shares)
    boxes = [sum(row["candidates"]) for row in shares]
    assert boxes == sorted(boxes)
    parts = speed.part_shares(device)
    [row] = rows(device, "nms", what="parts", part="rpn")
    assert parts["rpn"] == (row["share"], row["unwaited"])
    for number in (0, 1):
        assert 0.9 < sum(pair[number] for pair in parts.values()) < 1.05
    with pytest.raises(ValueError, match="7 proposals were not measured"):
        speed.head_ms(device, 7)


def test_nms_by_classes_is_that_of_the_file():
    for device, panel in speed.nms_times(300).items():
        for way, points in panel.items():
            [row] = rows(device, "nms", what="classes", candidates=300, classes=20, way=way)
            assert (20, row["ms"]) in points and len(points) == 7


def test_mxnets_numbers_are_those_recorded():
    found = speed.mxnet_nms(300)
    assert list(found) == ["one list", "per class"]
    assert [classes for classes, _ in found["per class"]] == [1, 20, 80]
    assert found["per class"][2][1] > 10 * found["one list"][2][1]
    with pytest.raises(KeyError):
        speed.mxnet_nms(7)


def test_an_unknown_device_is_named():
    for call in (
        lambda: speed.layer_times("abacus", [BASE]),
        lambda: speed.head_ms("abacus", 300),
        lambda: speed.nms_shares("abacus"),
        lambda: speed.images_that_fit("abacus", BASE, "float32", 24),
    ):
        with pytest.raises(ValueError, match="No device 'abacus' here: choose one of "):
            call()


def test_power_picture_draws_its_points_on_axes_alike():
    panels = {
        "one": {"a": [(1, 2.0), (10, 3.0)], "limit": [(1, 0.5), (10, 5)]},
        "other": {"a": [(1, 2.0), (1, 4.0)], "limit": [(1, 0.1), (10, 1)]},
    }
    fig, words = power_picture(panels, "bytes", "time", line="limit")
    left, right = fig.axes
    assert words == (
        "Time by bytes, from, to. one: a 2 at 1 to 3 at 10; limit 0.5 at 1 to 5 at 10. "
        "other: a 2 at 1 to 4 at 1; limit 0.1 at 1 to 1 at 10."
    )
    assert left.get_xlim() == right.get_xlim() and left.get_ylim() == right.get_ylim()
    assert {axis.get_xscale() for axis in fig.axes} == {axis.get_yscale() for axis in fig.axes}
    (a, limit), (twice, _) = left.lines, right.lines
    assert a.get_marker() == "o" and a.get_linestyle() == "-" and list(a.get_ydata()) == [2, 3]
    assert limit.get_marker() == "None" and twice.get_linestyle() == "None"


def test_without_a_gpus_file_notebook_07_says_so_and_runs(monkeypatch, tmp_path, capsys):
    for name, held in speed.devices().items():
        if name not in speed.gpus():
            text = json.dumps(held)
            [file] = [f for f in speed.FOLDER.glob("*.json") if json.loads(f.read_text()) == held]
            shutil.copy(file, tmp_path / file.name)
            assert name in text
    monkeypatch.setattr(speed, "FOLDER", tmp_path)
    speed.devices.cache_clear()
    try:
        notebook = ROOT / "notebooks" / "07_where_the_time_goes.ipynb"
        namespace = {}
        for cell in nbformat.read(notebook, 4).cells:
            if cell.cell_type == "code":
                exec(cell.source, namespace)
    finally:
        speed.devices.cache_clear()
    out = capsys.readouterr().out
    assert "No file of a GPU is here: what the text says of GPUs, no cell shows." in out
    assert not [line for line in out.splitlines() if "NVIDIA" in line and "07-" not in line]
