"""Proofs of the questions on small batches."""

import pytest
import torch
import torch.nn.functional as F
from test_runs import STATISTICS_SOURCES, by_size
from torch import nn

from helpers.course.stored.runs import by_seed, load_runs
from helpers.norms import recalibrate


def pool(count=64):
    """Images that differ in mean and spread: (count,3,6,6)."""
    random = torch.Generator().manual_seed(2)
    offsets = torch.rand(count, 3, 1, 1, generator=random, dtype=torch.float64)
    return 4 * offsets + torch.rand(count, 3, 6, 6, generator=random, dtype=torch.float64)


def averaged(x, momentum):
    """running_var after every image of x, one at a time, forty times over: (40·count,3)."""
    bn, seen = nn.BatchNorm2d(3, momentum=momentum).double(), []
    for _ in range(40):
        for image in x:
            bn(image[None])
            seen.append(bn.running_var.clone())
    return torch.stack(seen)


def test_other_statistics_bring_the_recall_back():
    rows = load_runs("runs", kind="train")
    recall = {source: by_size(rows, statistics=source) for source in STATISTICS_SOURCES}
    recall["own, 1"] = {1: recall["own"][1], 16: by_seed(rows, batch_size=16, statistics="own, 1")}
    lost = {s: [by[16][n] - by[1][n] for n in range(6)] for s, by in recall.items()}
    mean = {source: sum(pairs) / 6 for source, pairs in lost.items()}
    usual = mean["moving average"]
    assert min(lost["moving average"]) > 0.1 and min(lost["recalibrated"]) > 0
    assert mean["moving average, corrected"] > 0.9 * usual
    assert mean["recalibrated"] == pytest.approx(usual / 4, abs=0.01)
    assert -0.02 < mean["own, 1"] < 0
    alone = {source: sum(recall[source][1].values()) / 6 for source in STATISTICS_SOURCES}
    mended, lost_to_own = (alone[s] - alone["moving average"] for s in ("recalibrated", "own"))
    assert 0.6 < mended / lost_to_own < 0.66


def test_recalibrating_raises_false_positives_too():
    def mean(column, size, source):
        rows = by_seed(load_runs("runs"), column, kind="train", batch_size=size, statistics=source)
        return round(sum(rows.values()) / 6, 2)

    sources = (1, "moving average"), (1, "recalibrated"), (16, "recalibrated")
    assert [mean("false_positives", *source) for source in sources] == [0.39, 0.70, 0.75]
    assert [mean("ap", *source) for source in sources] == [0.35, 0.46, 0.51]


def test_recalibrated_without_training_finds_most_in_new_light():
    rows = load_runs("extra", shift="illumination", rate=0.01, batch_size=16)
    untrained = load_runs("extra", shift="illumination", kind="untrained")
    least = min(by_seed(untrained, statistics="recalibrated").values())
    for kind, statistics in (("train", "moving average"), ("frozen", "stored")):
        assert max(by_seed(rows, kind=kind, statistics=statistics).values()) < least
    assert max(by_seed(untrained, statistics="moving average").values()) < least


def test_a_plain_all_reduce_loses_the_inputs_gradient():
    """Four images as if each were in a process: autograd sees the sums of all, or only its own."""
    x, weight = (
        pool(4).requires_grad_(),
        torch.full((3,), 2.0, dtype=torch.float64).requires_grad_(),
    )

    def results(differentiable):
        sums = torch.stack([x.sum((2, 3)), x.square().sum((2, 3))])
        total = sums.sum(1, keepdim=True)
        if not differentiable:
            total = total.detach() + sums - sums.detach()
        mean, square = total[..., None, None] / (4 * 36)
        y = (x - mean) / (square - mean**2 + 1e-5).sqrt() * weight.view(-1, 1, 1)
        return y.detach(), *torch.autograd.grad((y * pool(4).flip(0)).sum(), (weight, x))

    (y, dw, dx), (plain_y, plain_dw, plain_dx) = results(True), results(False)
    torch.testing.assert_close((plain_y, plain_dw), (y, dw))
    assert (plain_dx - dx).abs().max() > 0.1 * dx.abs().max()
    torch.testing.assert_close(y, F.batch_norm(x, None, None, weight, training=True))


def test_a_smaller_momentum_mends_noise_not_bias():
    x = pool()
    usual, slow = (averaged(x, momentum)[-64:] for momentum in (0.1, 0.0066))
    alone = x.var((2, 3)).mean(0)
    assert (slow.std(0) < 0.3 * usual.std(0)).all()
    assert slow[-1] == pytest.approx(alone, rel=0.2)
    assert usual.mean(0) == pytest.approx(alone, rel=0.2)
    assert (slow[-1] < 0.4 * x.var((0, 2, 3))).all()


def test_accumulation_does_not_enlarge_a_layers_batch():
    x, bn = pool(16), nn.BatchNorm2d(3).double()
    outputs = []
    for image in x:
        outputs.append(bn(image[None]))
        outputs[-1].square().sum().backward()  # accumulates; no update between
    means = torch.stack([y.mean((0, 2, 3)) for y in outputs])
    assert means.abs().max() < 1e-9
    assert bn(x).mean((2, 3)).abs().max() > 0.5


def test_recalibration_in_batches_of_one_is_biased_low():
    x, network = pool(), nn.Sequential(nn.BatchNorm2d(3)).double()
    low, right = (recalibrate(network, x.split(size))[0].running_var for size in (1, 64))
    assert (low < 0.4 * right).all()
    assert right == pytest.approx(x.var((0, 2, 3)))
