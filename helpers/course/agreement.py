"""A BatchNorm written out by hand, compared with nn.BatchNorm2d in every state of the layer."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from helpers import text

STATES = {
    "as built": {},
    "momentum=0.3": {"momentum": 0.3},
    "momentum=None": {"momentum": None},
    "eps=1e-3": {"eps": 1e-3},
    "affine=False": {"affine": False},
    "track_running_stats=False": {"track_running_stats": False},
    "after load_state_dict": {},
}
OUTPUTS = ("train", "eval")
STORED = ("running_mean", "running_var", "num_batches_tracked")

Agreement = dict[str, dict[str, bool]]


def agreement(batchnorm: Callable) -> Agreement:
    """Return for each state of STATES whether outputs and buffers agree with nn.BatchNorm2d.

    `batchnorm(x, state, training, momentum, eps)` returns the output (N,C,H,W) and updates `state`,
    a dict like the layer's state_dict, in place. It runs on three batches in train mode and one in
    eval mode, all float64 and with a gradient. Values agree within 1e-12; a buffer that needs a
    gradient does not agree. A buffer that the layer lacks in this state is left out.
    """
    return {name: _agreement(batchnorm, _layer(name)) for name in STATES}


def table(agree: Agreement) -> text.Table:
    """Lay out an agreement, one row per state."""
    words = {True: "agrees", False: "DIFFERS", None: "-"}
    columns = (*OUTPUTS, *STORED)
    rows = [(state, *(words[same.get(c)] for c in columns)) for state, same in agree.items()]
    return text.table(rows, ("", *columns))


def _layer(name: str) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(3, **STATES[name]).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(0.5, 2, generator=generator)
        if name == "after load_state_dict":
            other = nn.BatchNorm2d(3).double()
            for _ in range(2):
                other(_batch(generator))
            layer.load_state_dict(other.state_dict())
    return layer


def _batch(generator: torch.Generator) -> Tensor:
    return 5 * torch.rand(4, 3, 2, 2, generator=generator, dtype=torch.float64) - 1


def _agreement(batchnorm: Callable, layer: nn.BatchNorm2d) -> dict[str, bool]:
    state = {name: tensor.detach().clone() for name, tensor in layer.state_dict().items()}
    generator, agree = torch.Generator().manual_seed(0), dict.fromkeys(OUTPUTS, True)
    for mode in ("train", "train", "train", "eval"):
        x = _batch(generator).requires_grad_()
        wanted = layer.train(mode == "train")(x).detach()
        pairs = {mode: (wanted, batchnorm(x, state, layer.training, layer.momentum, layer.eps))}
        pairs |= {name: (layer.state_dict()[name], state[name]) for name in STORED if name in state}
        for name, (a, b) in pairs.items():
            same = torch.allclose(a.double(), b.detach().double(), rtol=1e-12, atol=1e-12)
            same &= name in OUTPUTS or not b.requires_grad
            agree[name] = agree.get(name, True) and same
    return agree
