"""The reader of what the real MXNet recorded; the notebook on it compares PyTorch with that."""

import json

import torch

from helpers import DATA
from helpers.course.stored.mxnet import (
    STATE,
    STATISTICS,
    close_to_recorded,
    mxnet_cases,
    mxnet_first_layer,
)

CASES = mxnet_cases()
GOLDEN = json.loads((DATA / "golden" / "mxnet_batchnorm.json").read_text())
FIRST_LAYER = json.loads((DATA / "golden" / "mxnet_first_layer.json").read_text())["cases"]


def test_cases_are_the_files_as_tensors():
    assert list(CASES) == list(GOLDEN["cases"]) and len(CASES) == 8
    case, recorded = CASES["momentum0.7"], GOLDEN["cases"]["momentum0.7"]
    settings = {"eps": 1e-5, "momentum": 0.7, "fix_gamma": False, "use_global_stats": False}
    assert case.settings == settings
    assert case.x.tolist() == GOLDEN["x"] and case.dy.tolist() == GOLDEN["dy"]
    assert case.y.tolist() == recorded["train_y"] and case.dx.tolist() == recorded["train_dx"]
    assert case.dgamma.tolist() == recorded["train_dgamma"]
    assert CASES["scaleF_centerF"].dgamma is None and CASES["scaleF"].dbeta is not None
    assert {name: case.before[name].tolist() for name in STATE} == GOLDEN["params"]
    for name in STATISTICS:
        assert case.after_backward[name].tolist() == recorded["train_state_after_backward"][name]
        assert case.after_forward[name].tolist() == GOLDEN["params"][name]
    for name, state in mxnet_first_layer().items():
        recorded = FIRST_LAYER[name]["state_after_backward"]
        assert state["running_var"].tolist() == recorded["running_var"]


def test_cases_are_new_each_time():
    mxnet_cases()["default"].before["running_mean"].add_(1)
    again = mxnet_cases()["default"].before["running_mean"]
    assert again.tolist() == GOLDEN["params"]["running_mean"]


def test_agreement_is_that_of_float32():
    a = torch.tensor([1000.0, 0.0])
    assert close_to_recorded(a, a + torch.tensor([5e-3, 5e-6]))
    assert not close_to_recorded(a, a + torch.tensor([2e-2, 0.0]))
    assert not close_to_recorded(a, a + torch.tensor([0.0, 2e-5]))
