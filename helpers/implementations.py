"""Parts whose costs are compared: detectron2's frozen layer, and boxes for an NMS."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import FrozenBatchNorm2d


class CastFrozen(FrozenBatchNorm2d):
    """FrozenBatchNorm2d as in detectron2 0.6, which casts scale and shift to the input's dtype.

    So the output (N,C,H,W) has the dtype of the input. An input that needs no gradient goes through
    F.batch_norm, which is a single kernel.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not x.requires_grad:
            four = self.running_mean, self.running_var, self.weight, self.bias
            return F.batch_norm(x, *four, eps=self.eps)
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        scale, shift = (v.reshape(1, -1, 1, 1).to(x.dtype) for v in (scale, shift))
        return x * scale + shift


CLASSES = (1, 2, 5, 10, 20, 40, 80)
IMAGE = 800  # px


def candidates(count: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Draw boxes (n,4), scores (n) and labels (n) for an NMS, in an image of 800 × 800 px.

    The boxes are xyxy in px, 16 to 256 px wide and high, cut off at the border of the image. The
    labels count through the classes; boxes and scores do not depend on the number of classes.
    """
    generator = torch.Generator().manual_seed(seed)
    center = IMAGE * torch.rand(count, 2, generator=generator)
    half = 8 + 120 * torch.rand(count, 2, generator=generator)
    boxes = torch.cat([center - half, center + half], 1).clamp(0, IMAGE)
    return boxes, torch.rand(count, generator=generator), torch.arange(count) % classes
