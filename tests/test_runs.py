"""The stored runs: what is read; the conditions that the design promises."""

import pytest

from helpers.course.stored import runs
from helpers.course.stored.runs import by_seed, load_runs

STATISTICS_SOURCES = ("moving average", "moving average, corrected", "recalibrated", "own")
FIXED = ("frozen", "eval", "frozen, float64", "recalibrated, frozen")  # statistics that stay


def by_size(rows, column="recall", **wanted):
    """Batch size → seed → value of the column."""
    sizes = sorted({row["batch_size"] for row in rows if wanted.items() <= row.items()})
    return {size: by_seed(rows, column, batch_size=size, **wanted) for size in sizes}


def test_every_batchnorm_run_is_read_in_four_ways():
    names, read = ("kind", "batch_size", "shift", "rate", "seed"), {}
    for row in load_runs("runs") + load_runs("extra"):
        assert 0 <= row["recall"] <= 1 and 0 <= row["ap"] <= 1 and row["false_positives"] >= 0
        read.setdefault(tuple(row[name] for name in names), []).append(row["statistics"])
    assert len(read) > 50
    for (kind, size, shift, rate, _), found in read.items():
        wanted = list(STATISTICS_SOURCES)
        if kind in FIXED or kind.startswith("group"):
            wanted = ["stored" if kind in FIXED else "none"]
        if kind == "untrained":
            wanted = ["moving average", "recalibrated", *(f"own, {b}" for b in (1, 2, 4, 16))]
        if (kind, size, shift, rate) == ("train", 16, "texture and light", runs.RATE):
            wanted.append("own, 1")
        assert sorted(found) == sorted(wanted)


def test_the_main_table_has_six_paired_seeds():
    main = load_runs("runs")
    settings = {(row["kind"], row["batch_size"], row["statistics"]) for row in main}
    settings.remove(("group, untrained", 1, "none"))  # no seed enters it
    for kind, size, read in settings:
        assert [*by_seed(main, kind=kind, batch_size=size, statistics=read)] == [*range(6)]


def test_the_negative_control_holds():
    """Without batch statistics B enters nowhere: exact in float64, up to chance in float32."""
    for column in ("recall", "ap", "false_positives"):
        one, many = by_size(load_runs("extra"), column, kind="frozen, float64").values()
        assert one == many
    for kind in ("frozen", "eval"):
        sizes = by_size(load_runs("runs"), kind=kind, statistics="stored")
        pairs = [sizes[1][seed] - sizes[16][seed] for seed in range(6)]
        assert max(map(abs, pairs)) <= 0.03 and abs(sum(pairs) / 6) <= 0.015


def test_runs_are_found_by_what_they_are():
    main = load_runs("runs")
    assert [type(main[0][name]) for name in ("kind", "batch_size", "rate")] == [str, int, float]
    found = by_seed(main, "ap", kind="train", batch_size=4, statistics="own")
    assert [*found] == [*range(6)] and 0 < min(found.values()) < 1
    with pytest.raises(ValueError, match="Several rows of seed 0 fit"):
        by_seed(main, kind="frozen")
    with pytest.raises(ValueError, match="No stored run fits"):
        by_seed(main, kind="melted")


def test_what_cannot_be_read_is_one_sentence(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="No table 'walks' here"):
        load_runs("walks")
    monkeypatch.setattr(runs, "FOLDER", tmp_path)
    with pytest.raises(FileNotFoundError, match="git checkout -- data/results"):
        load_runs("runs")
