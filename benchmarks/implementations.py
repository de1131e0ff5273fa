"""Implementations of batch normalization whose costs are compared, and the bytes each moves."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from helpers.implementations import CastFrozen
from helpers.norms import norm_layers, replace_norms


class NativeBatchNorm(nn.BatchNorm2d):
    """BatchNorm2d in eval mode that always runs PyTorch's own kernel, never cuDNN's.

    Switching `torch.backends.cudnn` off would take the convolutions out of cuDNN, too. On a CPU
    nothing changes. Input and output are (N,C,H,W).
    """

    def forward(self, x: Tensor) -> Tensor:
        parameters = self.weight, self.bias, self.running_mean, self.running_var
        return torch.native_batch_norm(x, *parameters, False, 0.0, self.eps)[0]


class Passes(NamedTuple):
    """How often a layer reads or writes a whole feature map in its forward and backward pass.

    The numbers are the least that the kernels can do if no map stays in a cache between them:

    - BatchNorm in train mode reads x for its statistics, then reads x and writes y: 3. Backward
      reads dy and x for two sums, reads both again, and writes dx: 5.
    - BatchNorm in eval mode reads x and writes y: 2. Backward reads dy and x for the gradients of
      the parameters, and writes dx: 3. With frozen parameters it reads dy and writes dx: 2.
    - FrozenBatchNorm2d is a product and a sum, and each kernel reads and writes: 4. Backward is
      one product: 2. Compiled, product and sum are one kernel: 2.
    """

    forward: int
    backward: int


class Implementation(NamedTuple):
    """One way to normalize: `make(model)` copies a model in eval mode and changes its layers.

    `passes` is None where no layer is left. `make` leaves requires_grad alone; for "BN eval, affine
    frozen" the caller turns it off in the normalization layers.
    """

    make: Callable[[nn.Module], nn.Module]
    passes: Passes | None


def _train(model: nn.Module) -> nn.Module:
    copied = replace_norms(model, "running statistics")
    for layer in norm_layers(copied).values():
        layer.train()
    return copied


def _changed(kind: str, layer_class: type[nn.Module]) -> Callable[[nn.Module], nn.Module]:
    def make(model: nn.Module) -> nn.Module:
        copied = replace_norms(model, kind)
        for layer in norm_layers(copied).values():
            layer.__class__ = layer_class
        return copied

    return make


def _kind(kind: str) -> Callable[[nn.Module], nn.Module]:
    return lambda model: replace_norms(model, kind)


IMPLEMENTATIONS = {
    "BN train": Implementation(_train, Passes(3, 5)),
    "BN eval": Implementation(_kind("running statistics"), Passes(2, 3)),
    "BN eval, no cuDNN": Implementation(
        _changed("running statistics", NativeBatchNorm), Passes(2, 3)
    ),
    "BN eval, affine frozen": Implementation(_kind("running statistics"), Passes(2, 2)),
    "FrozenBN": Implementation(_kind("frozen"), Passes(4, 2)),
    "FrozenBN, cast": Implementation(_changed("frozen", CastFrozen), Passes(4, 2)),
    "FrozenBN, compiled": Implementation(
        lambda model: torch.compile(replace_norms(model, "frozen")), Passes(2, 2)
    ),
    "folded": Implementation(_kind("folded"), None),
    "identity": Implementation(_kind("identity"), None),
}


def bytes_moved(
    way: str, elements: int, itemsize: int, backward: bool, no_gradient: bool = False
) -> int | None:
    """Count the bytes that a layer reads and writes for one feature map; None without a layer.

    `way`: a name of IMPLEMENTATIONS; `elements` and `itemsize`: number of elements of the map and
    bytes of each; `backward`: add the backward pass. `no_gradient`: nothing needs a gradient, so
    that "FrozenBN, cast" runs the same kernel as BatchNorm in eval mode.

    The scale and shift of "FrozenBN" are float32, so a half precision map is promoted: forward
    reads x in half precision, then writes, reads and writes float32. Backward does the same in the
    other direction, because a kernel of its own casts dx back.
    """
    passes = IMPLEMENTATIONS[way].passes
    if passes is None:
        return None
    if way == "FrozenBN" and itemsize < 4:
        return elements * (itemsize + 3 * 4) * (2 if backward else 1)
    if way == "FrozenBN, cast" and no_gradient:
        passes = IMPLEMENTATIONS["BN eval"].passes
    return elements * itemsize * (passes.forward + (passes.backward if backward else 0))
