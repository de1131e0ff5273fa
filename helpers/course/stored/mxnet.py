"""Reference numbers recorded from the real MXNet, as tensors; data/golden/README.md says how."""

import json
from typing import NamedTuple

import torch
from torch import Tensor

from helpers import DATA

STATISTICS = ("running_mean", "running_var")


class Case(NamedTuple):
    """What MXNet 1.9.1's BatchNorm did to one batch in a training step, in float32.

    `settings` have MXNet's names. Given are the input `x` (2,3,2,2), and the layer's four vectors
    `before` (3,). Recorded are `y`, shaped like x, and the running statistics after the forward
    pass alone and after the backward pass.
    """

    settings: dict[str, float | bool]
    x: Tensor
    before: dict[str, Tensor]
    y: Tensor
    after_forward: dict[str, Tensor]
    after_backward: dict[str, Tensor]


def mxnet_cases() -> dict[str, Case]:
    """Read every recorded case, by name; the tensors are new each time."""
    recorded = _read("mxnet_batchnorm.json")
    return {
        name: Case(
            {key: value for key, value in case["kwargs"].items() if key != "axis"},
            torch.tensor(recorded["x"]),
            _tensors(recorded["params"]),
            torch.tensor(case["train_y"]),
            _tensors(case["train_state_after_forward_only"]),
            _tensors(case["train_state_after_backward"]),
        )
        for name, case in recorded["cases"].items()
    }


def mxnet_first_layer() -> dict[str, dict[str, Tensor]]:
    """Return case → the layer's vectors after a training step whose input needs no gradient."""
    cases = _read("mxnet_first_layer.json")["cases"]
    return {name: _tensors(case["state_after_backward"]) for name, case in cases.items()}


def close_to_recorded(tensor: Tensor, recorded: Tensor) -> bool:
    """Tell whether two tensors are equal up to float32: to 1e-5 of the value, or to 1e-5."""
    return torch.allclose(tensor, recorded, rtol=1e-5, atol=1e-5)


def _tensors(values: dict) -> dict[str, Tensor]:
    return {name: torch.tensor(value) for name, value in values.items()}


def _read(name: str) -> dict:
    return json.loads((DATA / "golden" / name).read_text(encoding="utf-8"))
