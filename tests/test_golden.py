"""PyTorch beside the numbers that the real MXNet recorded: what agrees, and what does not."""

import json

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from helpers import DATA
from helpers.course.stored.mxnet import (
    STATISTICS,
    close_to_recorded,
    mxnet_cases,
    mxnet_first_layer,
)

CASES = mxnet_cases()
GOLDEN = json.loads((DATA / "golden" / "mxnet_batchnorm.json").read_text())
FIRST_LAYER = json.loads((DATA / "golden" / "mxnet_first_layer.json").read_text())["cases"]
CHANNELS = (0, 2, 3)
BEFORE = {name: torch.tensor(values) for name, values in GOLDEN["params"].items()}


def torch_layer(case):
    """nn.BatchNorm2d that computes what MXNet's layer with these settings does."""
    settings = case["kwargs"]
    layer = nn.BatchNorm2d(3, eps=settings["eps"], momentum=1 - settings["momentum"])
    weight = torch.ones(3) if settings["fix_gamma"] else BEFORE["gamma"]
    state = {"weight": weight, "bias": BEFORE["beta"]}
    layer.load_state_dict(state | {k: BEFORE[k] for k in ("running_mean", "running_var")}, False)
    return layer.train(not settings["use_global_stats"])


@pytest.mark.parametrize("name", GOLDEN["cases"])
def test_outputs_gradients_and_means_agree(name):
    case = GOLDEN["cases"][name]
    layer, x = torch_layer(case), torch.tensor(GOLDEN["x"], requires_grad=True)
    y = layer(x)
    y.backward(torch.tensor(GOLDEN["dy"]))
    close = {"rtol": 1e-5, "atol": 1e-5}
    assert_close(y.detach(), torch.tensor(case["train_y"]), **close)
    assert_close(x.grad, torch.tensor(case["train_dx"]), **close)
    for ours, theirs in (layer.weight.grad, "dgamma"), (layer.bias.grad, "dbeta"):
        if case[f"train_{theirs}"] is not None:
            assert_close(ours, torch.tensor(case[f"train_{theirs}"]), **close)
    after = case["train_state_after_backward"]
    assert_close(layer.running_mean, torch.tensor(after["running_mean"]))

    momentum = layer.momentum if layer.training else 0.0
    biased = x.detach().var(CHANNELS, correction=0)
    expected = (1 - momentum) * BEFORE["running_var"] + momentum * biased
    assert_close(torch.tensor(after["running_var"]), expected)
    if layer.training:
        assert not torch.allclose(layer.running_var, expected, rtol=1e-3)


def test_the_forward_pass_alone_moves_nothing_in_mxnet():
    for case in GOLDEN["cases"].values():
        for when in ("predict_state_after", "train_state_after_forward_only"):
            for statistic in ("running_mean", "running_var"):
                assert case[when][statistic] == GOLDEN["params"][statistic]


def test_a_first_layer_without_parameters_to_train_never_moves():
    moved = {
        name: case["state_after_backward"]["running_mean"] != GOLDEN["params"]["running_mean"]
        for name, case in FIRST_LAYER.items()
    }
    assert moved == {"scaleF": True, "scaleF_centerF": False}
    assert all(case["gradient_of_the_factor"] != [0.0] for case in FIRST_LAYER.values())


def test_cases_are_the_files_as_tensors():
    assert list(CASES) == list(GOLDEN["cases"]) and len(CASES) == 8
    case, recorded = CASES["momentum0.7"], GOLDEN["cases"]["momentum0.7"]
    settings = {"eps": 1e-5, "momentum": 0.7, "fix_gamma": False, "use_global_stats": False}
    assert case.settings == settings
    assert case.x.tolist() == GOLDEN["x"] and case.y.tolist() == recorded["train_y"]
    assert {name: tensor.tolist() for name, tensor in case.before.items()} == GOLDEN["params"]
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
