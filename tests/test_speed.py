"""The benchmarks behind data/results/speed: what they count, store and combine; no times."""

import json
from argparse import Namespace

import pytest
import torch
from torchvision.ops import batched_nms

from benchmarks import heads, nms, norms, speed
from benchmarks.implementations import IMPLEMENTATIONS
from helpers import DATA
from helpers.implementations import CLASSES, candidates

FILES = sorted((DATA / "results" / "speed").glob("*.json"))


def options(path, **more):
    return Namespace(**{"out": path, "device": "cpu", "resume": False, "again": False} | more)


@pytest.mark.parametrize("benchmark", [nms, heads, norms])
def test_a_quick_run_writes_a_section(benchmark, tmp_path, capsys):
    path = tmp_path / "found.json"
    threads = torch.get_num_threads()
    assert benchmark.main(["--quick", "--out", str(path)]) == 0
    torch.set_num_threads(threads)
    sections = json.loads(path.read_text())
    about, [rows] = sections.pop("about"), sections.values()
    assert about["kind"] == "cpu" and about["threads"] == 1
    assert len(rows) >= 4 and not list(tmp_path.glob("*.part"))


def test_a_row_counts_what_it_moves_and_keeps():
    case = norms.Case("layer", (4, 8, 8), 2, "float32", True, None)
    rows = {row["way"]: row for row in norms.measured(case, "cpu", 3)}
    size = 2 * 4 * 8 * 8 * 4
    assert set(rows) == set(IMPLEMENTATIONS) - {"folded", "FrozenBN, compiled", "BN eval, no cuDNN"}
    assert rows["BN eval"]["ratio"] == 1 and not speed.resolved(rows["BN eval"])["is_resolved"]
    assert rows["FrozenBN"]["moved"] == 6 * size and rows["BN eval"]["moved"] == 5 * size
    assert rows["FrozenBN"]["kept"] == 4 * 4 and rows["BN eval"]["kept"] > size
    assert "moved" not in rows["identity"]
    for row in rows.values():
        if "moved" in row:
            assert row["bandwidth"] == pytest.approx(1000 * row["moved"] / row["ms"], rel=1e-3)


def test_candidates_are_as_many_whatever_the_classes():
    for classes in CLASSES:
        boxes, scores, labels = candidates(300, classes)
        assert len(boxes) == len(scores) == 300 and len(labels.unique()) == classes
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert torch.equal(boxes, candidates(300, 1)[0])


def test_trick_and_loop_keep_the_same_unless_coordinates_are_negative():
    given = candidates(300, 20)
    kept = {way: call(*given).tolist() for way, call in nms.WAYS.items()}
    assert kept["trick"] == kept["loop"] == batched_nms(*given, nms.IOU).tolist()
    assert len(kept["agnostic"]) < len(kept["loop"])
    assert nms.chosen(1000, "cpu") == "trick" and nms.chosen(1001, "cpu") == "loop"
    negative = nms.negative_coordinates()
    assert negative["loop"] == [0, 1, 2] and negative["trick"] == [0, 2]


def test_shares_and_parts_are_of_the_whole():
    name, model, images = next(nms.detectors("cpu", True))
    row = nms.shares(name, model, images, "cpu", 3)
    assert len(row["candidates"]) == 2 and 0 < row["share"] < 1
    assert row["rpn_ms"] + row["heads_ms"] < row["ms"]
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
    [both] = json.loads(path.read_text())["nms"]
    assert both == {**row, "ms": 3.0, "ratio": 1.3, "spread": 0.4, "is_resolved": False, "runs": 2}
    anew = speed.Store(options(path), "nms", ("what",))
    anew.add([row])
    speed.Store(options(path), "heads", ("what",)).add([{"what": "y"}])
    sections = json.loads(path.read_text())
    assert sections["nms"] == [row] and sections["heads"] == [{"what": "y"}]


def test_files_agree_within_their_spreads():
    a = [{"way": way, "ratio": ratio, "spread": 0.1} for way, ratio in (("a", 2.0), ("b", 1.0))]
    b = [a[0] | {"ratio": 2.2, "spread": 0.3}, a[1] | {"ratio": 2.0}]
    assert speed.agreement({"nms": a}, {"nms": b})["nms"] == (1, 2)
    assert speed.slug("Intel(R) Xeon(R) CPU @ 2.20GHz") == "intel-xeon-cpu"  # no trademarks


def test_stored_files_are_whole():
    kinds = set()
    for path in FILES:
        sections = json.loads(path.read_text())
        kinds.add(kind := sections["about"]["kind"])
        about = {"device", "kind", "date", "torch", "torchvision", "python"}
        assert about <= sections["about"].keys()
        stored = {tuple(str(row.get(key)) for key in norms.KEYS) for row in sections["norms"]}
        for case in norms.cases(kind, quick=False):
            assert tuple(str(case.named().get(key)) for key in norms.KEYS) in stored, case
        for row in sections["norms"]:
            assert "failed" in row or row["ms"] > 0
            assert not row.get("is_resolved") or abs(row["ratio"] - 1) > row["spread"]
        found = [row["what"] for row in sections["nms"]]
        assert found.count("switch") == 2 and found.count("share") >= 2
        assert all(row["same"] for row in sections["nms"] if row["what"] == "classes")
        assert {row["proposals"] for row in sections["heads"]} == set(heads.PROPOSALS)
    assert kinds == {"cpu", "cuda"}
