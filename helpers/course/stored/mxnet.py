"""Reference numbers recorded from the real MXNet, as tensors; data/golden/README.md says how."""

import json
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from helpers import DATA

STATE = ("gamma", "beta", "running_mean", "running_var")
STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True, eq=False)
class Case:
    """What MXNet 1.9.1's BatchNorm did to one batch in a training step, in float32.

    `settings` have MXNet's names. Given are the input `x` and the output's gradient `dy`, both
    (2,3,2,2), and the layer's four vectors `before` (3,). Recorded are `y` and `dx`, shaped like x,
    `dgamma` and `dbeta`, (3,) or None where MXNet does not train them, and the running statistics
    after the forward pass alone and after the backward pass.
    """

    settings: dict[str, float | bool]
    x: Tensor
    dy: Tensor
    before: dict[str, Tensor]
    y: Tensor
    dx: Tensor
    dgamma: Tensor | None
    dbeta: Tensor | None
    after_forward: dict[str, Tensor]
    after_backward: dict[str, Tensor]


def mxnet_cases() -> dict[str, Case]:
    """Read every recorded case, by name; the tensors are new each time."""
    recorded = _read("mxnet_batchnorm.json")
    return {name: _case(recorded, case) for name, case in recorded["cases"].items()}


def mxnet_first_layer() -> dict[str, dict[str, Tensor]]:
    """Return case → the statistics after a training step whose input needs no gradient."""
    cases = _read("mxnet_first_layer.json")["cases"]
    return {name: _tensors(case["state_after_backward"]) for name, case in cases.items()}


def close_to_recorded(tensor: Tensor, recorded: Tensor) -> bool:
    """Tell whether two tensors are equal up to float32: to 1e-5 of the value, or to 1e-5."""
    return torch.allclose(tensor, recorded, rtol=1e-5, atol=1e-5)


def _case(recorded: dict, case: dict) -> Case:
    trained = {name: case[f"train_{name}"] for name in ("dgamma", "dbeta")}
    return Case(
        settings={name: value for name, value in case["kwargs"].items() if name != "axis"},
        x=torch.tensor(recorded["x"]),
        dy=torch.tensor(recorded["dy"]),
        before=_tensors(recorded["params"], STATE),
        y=torch.tensor(case["train_y"]),
        dx=torch.tensor(case["train_dx"]),
        **{name: values and torch.tensor(values) for name, values in trained.items()},
        after_forward=_tensors(case["train_state_after_forward_only"]),
        after_backward=_tensors(case["train_state_after_backward"]),
    )


def _tensors(values: dict, names: tuple[str, ...] = STATISTICS) -> dict[str, Tensor]:
    return {name: torch.tensor(values[name]) for name in names}


@cache
def _read(name: str) -> dict:
    return json.loads((DATA / "golden" / name).read_text(encoding="utf-8"))
