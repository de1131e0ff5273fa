"""Proofs of the answers about costs, of which most are stored measurements."""

import pytest
import torch
from torch import nn

from helpers.course.stored.costs import (
    C4,
    FORWARD,
    STAGE_4,
    cost,
    gpus,
    head_ms,
    nms_ms,
    nms_shares,
    part_shares,
)
from helpers.implementations import IMPLEMENTATIONS
from helpers.measure import kept_for_backward
from helpers.norms import norm_layers

H200 = "NVIDIA H200"


def test_nothing_that_is_left_out_gains_a_factor_of_3():
    detector, ms = nms_shares(H200)[-1], head_ms(H200, 300)
    backbone, _ = part_shares(H200)["backbone"]
    norms = backbone * (1 - cost(H200, "body", 8, "float32", FORWARD, "identity").ratio)
    stage_4 = (ms[C4] + ms[STAGE_4]) / ms[C4]
    assert detector["candidates"][1] == 4598
    assert 1 / (1 - detector["share"]) == pytest.approx(1.2, abs=0.01)
    assert norms == pytest.approx(0.1, abs=0.01) and stage_4 == pytest.approx(1.9, abs=0.05)


def test_frozen_takes_3_times_as_long_in_layer1():
    ratio = cost(H200, "layer1", 8, "float32", FORWARD, "FrozenBN").ratio
    assert ratio == pytest.approx(3, abs=0.1)


def test_nms_takes_as_long_for_80_classes():
    for device in gpus():
        one, many = (nms_ms(device, 300, classes)["trick"] for classes in (1, 80))
        assert many == pytest.approx(one, rel=0.1)


def test_a_timer_that_does_not_wait_blames_the_rpn():
    for device in gpus():
        parts = part_shares(device)
        assert parts["rpn"][1] == pytest.approx(0.5, abs=0.05) and parts["rpn"][0] < 0.2
        assert parts["backbone"][0] > 3 * parts["backbone"][1]


def test_folding_saves_no_time_on_the_gpus():
    for device in gpus():
        ratio = cost(device, "body", 8, "float32", FORWARD, "folded").ratio
        assert ratio == pytest.approx(1, abs=0.03)


def test_eval_mode_saves_no_memory():
    network = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    x = torch.rand(4, 3, 34, 34)
    kept = {}
    for way in "BN train", "BN eval", "FrozenBN":
        made = IMPLEMENTATIONS[way].make(network)
        if way == "BN eval":
            for layer in norm_layers(made).values():
                layer.requires_grad_(False)
        _, kept[way] = kept_for_backward(made, x)
    a_map = 4 * 8 * 32 * 32 * 4
    assert kept["BN eval"] == pytest.approx(kept["BN train"], abs=1000)
    assert kept["BN eval"] - kept["FrozenBN"] == pytest.approx(a_map, abs=1000)


def test_half_of_six_percent():
    before, after = 6 + 94, 6 / 2 + 94
    assert (before - after) / before == 0.03 and before / after == pytest.approx(1.03, abs=0.002)
