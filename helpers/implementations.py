"""The ways to normalize by batch normalization whose cost is compared, and what each moves."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from helpers.norms import norm_layers, replace_norms


class CastFrozen(FrozenBatchNorm2d):
    """Frozen as in detectron2 0.6: scale and shift take the input's dtype, so nothing is promoted.

    Where the input needs no gradient it is F.batch_norm, which is one pass. (N,C,H,W) → the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not x.requires_grad:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        scale, shift = (v.reshape(1, -1, 1, 1).to(x.dtype) for v in (scale, shift))
        return x * scale + shift


class NativeBatchNorm(nn.BatchNorm2d):
    """BatchNorm2d in eval mode by PyTorch's own kernel, where cuDNN's would run; the same on a CPU.

    Only the layer leaves cuDNN: with `torch.backends.cudnn` off, the convolutions would, too.
    (N,C,H,W) → the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        parameters = self.weight, self.bias, self.running_mean, self.running_var
        return torch.native_batch_norm(x, *parameters, False, 0.0, self.eps)[0]


class Passes(NamedTuple):
    """How often the layer reads or writes a whole feature map: forward, and backward.

    Counted from what each kernel must do at least, with no map left in a cache between kernels:

    - BatchNorm in train mode reads x for its statistics, then reads x and writes y: 3. Backward
      reads dy and x for the two sums, then both again, and writes dx: 5.
    - in eval mode it reads x and writes y: 2. Backward reads dy and x for the parameters'
      gradients, and writes dx: 3; with frozen parameters it reads dy and writes dx: 2.
    - FrozenBatchNorm2d is a product and a sum, two kernels that read and write: 4. Backward is
      one product: 2. Compiled, product and sum are one kernel: 2.
    """

    forward: int
    backward: int


class Implementation(NamedTuple):
    """`make(model)` gives a copy of a model in eval mode that normalizes in this way.

    Which parameters train is the caller's: in "BN eval, affine frozen" not those of normalization.
    """

    make: Callable[[nn.Module], nn.Module]
    passes: Passes | None  # None where there is no layer left


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
    """Bytes that the layer reads and writes for a map of so many elements; None where it is gone.

    `no_gradient`: nothing needs one, for which "FrozenBN, cast" takes one pass as BatchNorm does.
    FrozenBatchNorm2d's scale and shift are float32: of a smaller map only the reading of x and, in
    backward, the writing of dx are small; all between is float32, and dx is cast in a pass more.
    """
    passes = IMPLEMENTATIONS[way].passes
    if passes is None:
        return None
    if way == "FrozenBN" and itemsize < 4:
        return elements * (itemsize + 3 * 4) * (2 if backward else 1)
    if way == "FrozenBN, cast" and no_gradient:
        passes = IMPLEMENTATIONS["BN eval"].passes
    return elements * itemsize * (passes.forward + (passes.backward if backward else 0))


CLASSES = (1, 2, 5, 10, 20, 40, 80)
CANDIDATES = (100, 300, 1000)
IMAGE = 800  # px


def candidates(count: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (n,4), xyxy in an image of 800 px, 16 to 256 px wide and high; scores (n); labels (n).

    Labels go round the classes; boxes and scores do not depend on their number. ValueError for less
    than one box or class.
    """
    if count < 1 or classes < 1:
        raise ValueError(f"{count} candidates of {classes} classes: give one or more of each.")
    generator = torch.Generator().manual_seed(seed)
    center = IMAGE * torch.rand(count, 2, generator=generator)
    half = 8 + 120 * torch.rand(count, 2, generator=generator)
    boxes = torch.cat([center - half, center + half], 1).clamp(0, IMAGE)
    return boxes, torch.rand(count, generator=generator), torch.arange(count) % classes
