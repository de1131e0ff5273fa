"""The stored runs: what is read, how it is paired; the conditions that the design promises."""

import itertools
import statistics

import pytest

from helpers.course.stored import runs
from helpers.course.stored.runs import STATISTICS_SOURCES, by_seed, by_size, difference, load_runs

FIXED = ("frozen", "eval", "frozen, float64", "recalibrated, frozen")  # statistics that stay


def test_every_batchnorm_run_is_read_in_four_ways():
    names, read = ("kind", "batch_size", "shift", "rate", "seed"), {}
    for row in load_runs():
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
        found = difference(sizes[16], sizes[1])
        assert max(map(abs, found.pairs)) <= 0.03 and abs(found.mean) <= 0.015


def test_runs_are_found_by_what_they_are():
    main = load_runs("runs")
    assert [type(main[0][name]) for name in ("kind", "batch_size", "rate")] == [str, int, float]
    found = by_size(main, "ap", kind="train", statistics="own")
    assert [*found] == [1, 2, 4, 16] and len(found[4]) == 6
    assert found[4] == by_seed(main, "ap", kind="train", batch_size=4, statistics="own")
    assert runs.mean(found[4]) == pytest.approx(sum(found[4].values()) / 6)
    rates = runs.by_rate(
        load_runs(), kind="frozen", batch_size=16, shift="gain", statistics="stored"
    )
    assert [*rates] == [0.001, 0.01] and len(rates[0.01]) == 3
    log = load_runs("curves", kind="train", batch_size=2, rate=0.01, shift="texture and light")
    curve = runs.by_update(log, "loss", statistics="own")
    assert [*curve] == [10, 20, 30, 40] and max(curve[40]) < min(curve[10])
    with pytest.raises(ValueError, match="Several rows of seed 0 fit"):
        by_seed(main, kind="frozen")
    for search in (by_seed, by_size):
        with pytest.raises(ValueError, match="No stored run fits"):
            search(main, kind="melted")


def test_a_correlation_over_all_runs_may_hold_at_no_batch_size():
    a = {1: {0: 1.0, 1: 2.0, 2: 3.0}, 2: {0: 11.0, 1: 12.0, 2: 13.0}}
    b = {1: {2: 1.0, 1: 2.0, 0: 3.0}, 2: {0: 13.0, 1: 12.0, 2: 11.0}}
    overall, within = runs.correlation(a, b)
    assert overall > 0.9 and within == pytest.approx([-1, -1])


def test_the_bootstrap_is_exact_and_paired():
    found = difference({0: 0.1, 1: 0.5, 2: 0.9, 7: 0.0}, {2: 0.95, 0: 0.2, 1: 0.52})
    pairs = [0.1, 0.02, 0.05]
    means = sorted(statistics.fmean(each) for each in itertools.product(pairs, repeat=3))
    assert found.mean == pytest.approx(statistics.fmean(pairs))
    assert means[0] <= found.low <= means[1] and means[-2] <= found.high <= means[-1]
    assert found.pairs == pytest.approx(tuple(pairs))
    assert str(found) == "+0.057 (+0.027 to +0.089), 3 of 3"
    nothing = difference({0: 0.5, 1: 0.25}, {0: 0.5, 1: 0.25})
    assert str(nothing) == "0.000 (0.000 to 0.000), 0 of 2"
    assert runs.signed(-0.0001) == "0.000" and runs.signed(-0.012) == "−0.012"


def test_what_cannot_be_read_or_paired_is_one_sentence(monkeypatch, tmp_path):
    for a, b in (({}, {}), ({0: 1.0}, {0: 2.0}), ({0: 1.0, 1: 2.0}, {1: 2.0})):
        with pytest.raises(ValueError, match="two common seeds"):
            difference(a, b)
    with pytest.raises(ValueError, match="7 at most"):
        difference(*[dict.fromkeys(range(8), 0.5)] * 2)
    with pytest.raises(ValueError, match="No table 'walks' here"):
        load_runs("walks")
    monkeypatch.setattr(runs, "FOLDER", tmp_path)
    with pytest.raises(FileNotFoundError, match="git checkout -- data/results"):
        load_runs("runs")
