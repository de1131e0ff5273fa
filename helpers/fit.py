"""Whether a network's running statistics fit what it is fed."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from helpers.backbones import stages


class Fit(NamedTuple):
    """A stage's output (N,C,H,W), and how the input of its BatchNorm layers fits.

    `ratio`: median over all their channels of the input's variance over what the layer has stored,
    running_var + eps; about 1 where the statistics fit.
    """

    output: Tensor
    ratio: float


@torch.no_grad()
def fit(network: nn.Module, x: Tensor) -> dict[str, Fit]:
    """Stage → Fit, of one forward pass; `x` (N,3,H,W) is what the network takes.

    ValueError for a network without stages (helpers.backbones.stages) and for a stage without a
    BatchNorm2d that has running statistics.
    """
    found = {}
    for stage, part in stages(network).items():
        ratios: list[Tensor] = []
        hooks = [
            layer.register_forward_pre_hook(_note(ratios))
            for layer in part.modules()
            if isinstance(layer, nn.BatchNorm2d) and layer.running_var is not None
        ]
        if not hooks:
            raise ValueError(f"{stage} has no BatchNorm2d with running statistics to look at.")
        try:
            x = part(x)
        finally:
            for hook in hooks:
                hook.remove()
        found[stage] = Fit(x.clone(), torch.cat(ratios).median().item())
    return found


def _note(ratios: list[Tensor]):
    def hook(layer, args):
        ratios.append(args[0].var((0, 2, 3)) / (layer.running_var + layer.eps))

    return hook
