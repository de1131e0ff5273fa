"""How wide a piece of the image a cell of a feature map depends on, by its gradient."""

import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN

from helpers.pyramid import check_input


def seen(model: FasterRCNN, image: Tensor, share: float = 0.9) -> dict[str, float]:
    """C2 … C5 and P2 … P5 → width in px, around a cell in the middle, of what it depends on.

    The width of the band of columns that holds `share` of the squared gradient of the squared norm
    of that cell; columns of the resized image, which should be square. `model`: a detector with an
    FPN, in eval mode; `image` (3,H,W) in 0–1. After arXiv 1701.04128, which looks at squares.
    ValueError for a share that is none, and as in helpers.pyramid.walk.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}: give a part of the whole, above 0 and up to 1.")
    check_input(model, image)
    x = model.transform([image])[0].tensors.detach().requires_grad_()
    body = model.backbone.body(x)
    pyramid = model.backbone.fpn(body)
    maps = {f"C{int(name) + 2}": body[name] for name in body}
    maps |= {f"P{int(name) + 2}": pyramid[name] for name in body}
    return {level: _width(x, features, share) for level, features in maps.items()}


def _width(x: Tensor, features: Tensor, share: float) -> float:
    row, column = (size // 2 for size in features.shape[-2:])
    [gradient] = torch.autograd.grad(
        features[0, :, row, column].square().sum(), x, retain_graph=True
    )
    columns = gradient.double().square().sum((0, 1, 2))
    center = (column + 0.5) * x.shape[-1] / features.shape[-1]
    away = (torch.arange(len(columns)) + 0.5 - center).abs()
    order = away.argsort()
    held = columns[order].cumsum(0) / columns.sum()
    return 2 * away[order][held >= share - 1e-12][0].item() + 1
