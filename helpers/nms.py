"""Candidate boxes for non-maximum suppression, as many whatever the number of classes."""

import torch
from torch import Tensor

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
