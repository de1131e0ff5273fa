"""The benchmarks behind data/results/speed: what they count, store and combine; no times."""

import json
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from torchvision.ops import batched_nms

from benchmarks import heads, nms, norms, speed
from helpers import DATA
from helpers.implementations import CLASSES, IMPLEMENTATIONS, candidates

ROOT = Path(__file__).resolve().parent.parent


FILES = sorted((DATA / "results" / "speed").glob("*.json"))


def options(path, **more):
    return Namespace(**{"out": path, "device": "cpu", "resume": False, "again": False} | more)


@pytest.mark.parametrize("benchmark", [nms, heads, norms])
def test_a_quick_run_writes_a_section(benchmark, tmp_path, capsys):
    path = tmp_path / "found.json"
    threads = torch.get_num_threads()
    assert benchmark.main(["--quick", "--out", str(path)]) == 0
    torch.set_num_threads(threads)
    held = json.loads(path.read_text())
    [section] = set(held) - {"about"}
    assert held["about"]["kind"] == "cpu" and held["about"]["threads"] == 1
    assert len(held[section]) >= 4 and not list(tmp_path.glob("*.part"))


def test_a_row_counts_what_it_moves_and_keeps():
    case = norms.Case("layer", (4, 8, 8), 2, "float32", True, None)
    rows = {row["way"]: row for row in norms.measured(case, "cpu", 3)}
    size = 2 * 4 * 8 * 8 * 4
    assert set(rows) == set(IMPLEMENTATIONS) - {"folded", "FrozenBN, compiled", "BN eval, no cuDNN"}
    assert rows["BN eval"]["ratio"] == 1 and not speed.is_resolved(rows["BN eval"])["is_resolved"]
    assert rows["FrozenBN"]["moved"] == 6 * size and rows["BN eval"]["moved"] == 5 * size
    assert rows["FrozenBN"]["kept"] == 4 * 4 and rows["BN eval"]["kept"] > size
    assert "moved" not in rows["identity"]
    for row in rows.values():
        if "moved" in row:
            assert row["bandwidth"] == pytest.approx(1000 * row["moved"] / row["ms"], rel=1e-3)


def test_affine_parameters_are_frozen_where_the_way_says_so():
    case = norms.Case("body", (3, 32, 32), 1, "float32", True, None)
    found = norms.subject(case, "cpu")
    call = norms.built(case, found, "BN eval, affine frozen", "cpu")
    assert call() is None  # backward, too


def test_candidates_are_as_many_whatever_the_classes():
    for classes in CLASSES:
        boxes, scores, labels = candidates(300, classes)
        assert len(boxes) == len(scores) == 300 and len(labels.unique()) == classes
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert torch.equal(boxes, candidates(300, 1)[0])
    with pytest.raises(ValueError, match="one or more"):
        candidates(0, 1)


def test_trick_and_loop_keep_the_same_and_agnostic_keeps_less():
    given = candidates(300, 20)
    kept = {way: call(*given).tolist() for way, call in nms.WAYS.items()}
    assert kept["trick"] == kept["loop"] == batched_nms(*given, nms.IOU).tolist()
    assert len(kept["agnostic"]) < len(kept["loop"])


def test_where_torchvision_goes_from_trick_to_loop():
    assert nms.chosen(1000, "cpu") == "trick" and nms.chosen(1001, "cpu") == "loop"


def test_the_trick_fails_on_negative_coordinates():
    found = nms.negative_coordinates()
    assert found["loop"] == [0, 1, 2] and found["trick"] == [0, 2]


def test_shares_are_of_both_calls():
    model, images = next(iter((m, i) for _, m, i in nms.detectors("cpu", True)))
    row = nms.shares("small", model, images, "cpu", 3)
    assert len(row["candidates"]) == 2 and 0 < row["share"] < 1
    assert row["rpn_ms"] + row["heads_ms"] < row["ms"]


def test_parts_are_less_than_the_whole():
    name, model, images = next(nms.detectors("cpu", True))
    rows = nms.by_part(name, model, images, "cpu", 3)
    assert [row["part"] for row in rows] == ["transform", "backbone", "rpn", "roi_heads"]
    assert 0.5 < sum(row["share"] for row in rows) <= 1.1  # medians, each its own
    assert not any(module._forward_hooks for module in model.modules())


def test_an_interrupted_run_goes_on_and_another_one_is_added(tmp_path):
    path, row = tmp_path / "a.json", {"what": "x", "way": "w", "ms": 2.0, "ratio": 1.5}
    row |= {"spread": 0.1, "is_resolved": True}
    speed.Store(options(path), "nms", ("what",)).add([row])
    resumed = speed.Store(options(path, resume=True), "nms", ("what",))
    assert resumed.has(what="x") and not resumed.has(what="y")
    again = speed.Store(options(path, again=True), "nms", ("what",))
    assert not again.has(what="x")
    again.add([row | {"ms": 4.0, "ratio": 1.1, "spread": 0.05}])
    [held] = json.loads(path.read_text())["nms"]
    assert held == {**row, "ms": 3.0, "ratio": 1.3, "spread": 0.4, "is_resolved": False, "runs": 2}
    anew = speed.Store(options(path), "nms", ("what",))
    anew.add([row])
    assert json.loads(path.read_text())["nms"] == [row]


def test_other_sections_stay(tmp_path):
    path = tmp_path / "a.json"
    speed.Store(options(path), "nms", ("what",)).add([{"what": "x"}])
    speed.Store(options(path), "heads", ("what",)).add([{"what": "y"}])
    held = json.loads(path.read_text())
    assert held["nms"] == [{"what": "x"}] and held["heads"] == [{"what": "y"}]


def test_files_agree_within_their_spreads():
    a = {
        "nms": [{"way": "a", "ratio": 2.0, "spread": 0.1}, {"way": "b", "ratio": 1, "spread": 0.1}]
    }
    b = {
        "nms": [{"way": "a", "ratio": 2.2, "spread": 0.3}, {"way": "b", "ratio": 2, "spread": 0.1}]
    }
    assert speed.agreement(a, b)["nms"] == (1, 2)


def test_a_device_is_named_without_its_trademarks():
    assert speed.slug("NVIDIA H200") == "nvidia-h200"
    assert speed.slug("Intel(R) Xeon(R) CPU @ 2.20GHz") == "intel-xeon-cpu"
    assert speed.device_name("cpu")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_stored_files_are_whole(path):
    held = json.loads(path.read_text())
    assert {"device", "kind", "date", "torch", "torchvision", "python"} <= set(held["about"])
    cuda = held["about"]["kind"] == "cuda"
    stored = {tuple(str(row.get(key)) for key in norms.KEYS) for row in held["norms"]}
    for case in norms.cases(held["about"]["kind"], quick=False):
        named = case.named()
        assert tuple(str(named.get(key)) for key in norms.KEYS) in stored, named
    for row in held["norms"]:
        assert "failed" in row or row["ms"] > 0
        if row.get("is_resolved"):
            assert abs(row["ratio"] - 1) > row["spread"]
        if "moved" in row and cuda is False:
            assert row["share"] < 3
    whats = [row["what"] for row in held["nms"]]
    assert whats.count("switch") == 2 and whats.count("share") >= 2
    assert all(row["same"] for row in held["nms"] if row["what"] == "classes")
    assert {row["proposals"] for row in held["heads"]} == set(heads.PROPOSALS)


def test_a_gpu_and_a_cpu_have_been_measured():
    kinds = {json.loads(path.read_text())["about"]["kind"] for path in FILES}
    assert kinds == {"cpu", "cuda"}
