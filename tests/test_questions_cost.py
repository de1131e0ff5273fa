"""What the questions on costs claim, where no notebook cell shows it."""

import pytest
import torch
from torch import nn

from helpers.course.checkers import TASKS
from helpers.implementations import IMPLEMENTATIONS
from helpers.measure import kept_for_backward
from helpers.norms import norm_layers


def test_eval_mode_saves_no_memory():
    network = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    x = torch.rand(4, 3, 34, 34)
    kept = {}
    for way in ("BN train", "BN eval", "BN eval, affine frozen", "FrozenBN"):
        made = IMPLEMENTATIONS[way].make(network)
        if way == "BN eval, affine frozen":
            for layer in norm_layers(made).values():
                layer.requires_grad_(False)
        _, kept[way] = kept_for_backward(made, x)
    a_map = 4 * 8 * 32 * 32 * 4
    assert kept["BN train"] == pytest.approx(kept["BN eval, affine frozen"], abs=1000)
    assert kept["BN eval"] - kept["FrozenBN"] == pytest.approx(a_map, abs=1000)


def test_half_of_six_percent():
    namespace = {}
    exec(TASKS["07-halve"].solution, namespace)
    assert namespace["speedup"](0.06, True) == pytest.approx(1.03, abs=0.002)
