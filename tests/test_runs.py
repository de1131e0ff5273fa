"""The stored runs: what is read, how it is paired; the conditions that the design promises."""

import itertools
import statistics

import pytest

from helpers.course.stored import runs
from helpers.course.stored.runs import (
    STATISTICS_SOURCES,
    by_rate,
    by_seed,
    by_size,
    correlation,
    difference,
    load_runs,
    mean,
    signed,
)

FIXED = ("frozen", "eval", "frozen, float64", "recalibrated, frozen")  # statistics that stay


@pytest.fixture(scope="module")
def rows():
    return load_runs()


# ---------------------------------------------------------------- the stored rows


def test_every_batchnorm_run_is_read_in_four_ways(rows):
    names = ("kind", "batch_size", "shift", "rate", "seed")
    found = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in names), []).append(row["statistics"])
    assert len(found) > 50
    for (kind, size, shift, rate, _), read in found.items():
        wanted = ["stored"] if kind in FIXED else None
        wanted = ["none"] if kind.startswith("group") else wanted
        if kind == "untrained":
            wanted = ["moving average", "recalibrated", *(f"own, {b}" for b in (1, 2, 4, 16))]
        beside = (kind, size, shift, rate) == ("train", 16, "texture and light", runs.RATE)
        assert sorted(read) == sorted([*(wanted or STATISTICS_SOURCES), *["own, 1"] * beside])


def test_the_main_table_has_six_paired_seeds():
    main = load_runs("runs")
    settings = {(row["kind"], row["batch_size"], row["statistics"]) for row in main}
    settings.remove(("group, untrained", 1, "none"))  # no seed enters it
    for kind, size, read in settings:
        assert [*by_seed(main, kind=kind, batch_size=size, statistics=read)] == [*range(6)]


def test_scores_are_shares(rows):
    assert all(0 <= row["recall"] <= 1 and 0 <= row["ap"] <= 1 for row in rows)
    assert all(row["false_positives"] >= 0 for row in rows)


def test_the_negative_control_holds_exactly_in_float64():
    """Without batch statistics B enters nowhere: 40 updates later, the scores are the same."""
    exact = [
        {column: by_seed(load_runs("extra"), column, kind="frozen, float64", batch_size=size)}
        for size in (1, 16)
        for column in runs.SCORES
    ]
    assert exact[:3] == exact[3:] and 0.6 < exact[0]["recall"][0] < 0.9


def test_the_negative_control_holds_up_to_chance_in_float32():
    """Rounding turns a candidate box here and there, and training amplifies it."""
    main = load_runs("runs")
    for kind in ("frozen", "eval"):
        sizes = by_size(main, kind=kind, statistics="stored")
        found = difference(sizes[16], sizes[1])
        assert max(map(abs, found.pairs)) <= 0.03 and abs(found.mean) <= 0.015


def test_at_sixteen_the_corrected_momentum_is_the_layers_own():
    for kind in ("train", "train, affine frozen"):
        a, b = (
            by_size(load_runs("runs"), kind=kind, statistics=read)[16]
            for read in STATISTICS_SOURCES[:2]
        )
        assert a == b


# ---------------------------------------------------------------- reading and pairing


def test_numbers_are_numbers(rows):
    row = rows[0]
    assert [type(row[name]) for name in ("kind", "batch_size", "rate", "recall")] == [
        str,
        int,
        float,
        float,
    ]


def test_by_seed_asks_for_what_is_unique(rows):
    found = by_seed(load_runs("runs"), kind="frozen", batch_size=16)
    assert len(found) == 6 and mean(found) == pytest.approx(sum(found.values()) / 6)
    with pytest.raises(ValueError, match="Several rows of seed 0 fit"):
        by_seed(load_runs("runs"), kind="frozen")
    with pytest.raises(ValueError, match="No stored run fits"):
        by_seed(rows, kind="melted")


def test_by_size_holds_the_sizes_that_there_are():
    main = load_runs("runs")
    assert [*by_size(main, kind="frozen", statistics="stored")] == [1, 16]
    found = by_size(main, "ap", kind="train", statistics="own")
    assert [*found] == [1, 2, 4, 16]
    assert found[4] == by_seed(main, "ap", kind="train", batch_size=4, statistics="own")
    with pytest.raises(ValueError, match="No stored run fits"):
        by_size(main, kind="melted")


def test_by_rate_holds_the_rates_that_there_are():
    found = by_rate(load_runs(), kind="frozen", batch_size=16, shift="gain", statistics="stored")
    assert [*found] == [0.001, 0.01] and len(found[0.01]) == 3


def test_rows_can_be_asked_for_at_once():
    rows = load_runs("distances", kind="train", batch_size=2)
    assert rows and {(row["kind"], row["batch_size"]) for row in rows} == {("train", 2)}


def test_a_correlation_over_all_runs_may_hold_at_no_batch_size():
    a = {1: {0: 1.0, 1: 2.0, 2: 3.0}, 2: {0: 11.0, 1: 12.0, 2: 13.0}}
    b = {1: {2: 1.0, 1: 2.0, 0: 3.0}, 2: {0: 13.0, 1: 12.0, 2: 11.0}}
    overall, within = correlation(a, b)
    assert overall > 0.9 and within == pytest.approx([-1, -1])


def test_the_bootstrap_is_exact_and_paired():
    a, b = {0: 0.1, 1: 0.5, 2: 0.9, 7: 0.0}, {2: 0.95, 0: 0.2, 1: 0.52}
    found = difference(a, b)
    pairs = [0.1, 0.02, 0.05]
    assert found.mean == pytest.approx(statistics.fmean(pairs))
    means = sorted(statistics.fmean(each) for each in itertools.product(pairs, repeat=3))
    assert means[0] <= found.low <= means[1] and means[-2] <= found.high <= means[-1]
    assert found.pairs == pytest.approx(tuple(pairs))
    assert str(found) == "+0.057 (+0.027 to +0.089), 3 of 3"


def test_a_difference_of_nothing_has_no_sign():
    found = difference({0: 0.5, 1: 0.25}, {0: 0.5, 1: 0.25})
    assert found == ((0, 0), 0, 0, 0) and str(found) == "0.000 (0.000 to 0.000), 0 of 2"
    assert signed(-0.0001) == "0.000" and signed(-0.012) == "−0.012"


@pytest.mark.parametrize("pair", [({}, {}), ({0: 1.0}, {0: 2.0}), ({0: 1.0, 1: 2.0}, {1: 2.0})])
def test_one_pair_is_too_few(pair):
    with pytest.raises(ValueError, match="two common seeds"):
        difference(*pair)


def test_too_many_to_resample_is_one_sentence():
    many = dict.fromkeys(range(8), 0.5)
    with pytest.raises(ValueError, match="7 at most"):
        difference(many, many)


def test_a_missing_or_unknown_table_is_one_sentence(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="No table 'walks' here"):
        load_runs("walks")
    monkeypatch.setattr(runs, "FOLDER", tmp_path)
    with pytest.raises(FileNotFoundError, match="git checkout -- data/results"):
        load_runs("runs")
