"""Fine-tuning of the scene detector, in which the batch size changes the normalization only."""

import math
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN

from helpers.inputs.scenes import Scene
from helpers.norms import freeze, norm_layers

TRAINING_MODES = {
    "train": "normalizes by the batch; affine parameters train",
    "train, affine frozen": "normalizes by the batch; affine parameters do not train",
    "eval": "normalizes by the stored statistics, which stay; affine parameters train",
    "frozen": "torchvision's FrozenBatchNorm2d: nothing of it changes",
}
PER_UPDATE = 16  # images; the gradients of PER_UPDATE / B forward passes add up to one update
MOMENTUM = 0.9
CLIP = 10.0  # the largest norm of a gradient
WARM_UP = 5  # updates


class Sampler:
    """Draws the anchors or proposals that count in the loss, for each image by itself.

    It differs from torchvision's BalancedPositiveNegativeSampler in two ways, so that a loss does
    not depend on how its images are grouped. The draw of an image depends only on its number in
    `seeds`. And it always takes `count` candidates, with more positives where negatives are
    missing, so that every image has the same weight in a mean.
    """

    def __init__(self, count: int, positive_fraction: float):
        self.count, self.positives = count, int(count * positive_fraction)
        self.seeds: list[int] = []

    def __call__(self, labels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Draw from the labels of each image, and return its masks of positives and negatives.

        A label is positive from 1 up, negative at 0, and neither at -1. The masks are uint8.
        """
        pairs = [self._draw(*pair) for pair in zip(labels, self.seeds, strict=True)]
        positive, negative = zip(*pairs, strict=True)
        return list(positive), list(negative)

    def _draw(self, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        order = torch.rand(len(labels), generator=torch.Generator().manual_seed(seed)).argsort()
        positive, negative = (order[chosen[order]] for chosen in (labels >= 1, labels == 0))
        wanted = max(min(self.positives, len(positive)), self.count - len(negative))
        masks = torch.zeros(2, len(labels), dtype=torch.uint8)
        masks[0, positive[:wanted]] = 1
        masks[1, negative[: self.count - min(wanted, len(positive))]] = 1
        return masks[0], masks[1]


def prepare(model: FasterRCNN, kind: str) -> FasterRCNN:
    """Copy the detector in train mode, with its normalization as TRAINING_MODES says for `kind`.

    Raises ValueError for an unknown kind.
    """
    if kind not in TRAINING_MODES:
        kinds = ", ".join(map(repr, TRAINING_MODES))
        raise ValueError(f"No kind {kind!r} here: choose one of {kinds}.")
    model = freeze(model) if kind == "frozen" else deepcopy(model)
    model.train()
    for layer in norm_layers(model).values():
        if kind == "eval":
            layer.eval()
        if kind == "train, affine frozen":
            layer.requires_grad_(False)
    for part in (model.rpn, model.roi_heads):
        old = part.fg_bg_sampler
        part.fg_bg_sampler = Sampler(old.batch_size_per_image, old.positive_fraction)
    return model


def finetune(
    model: FasterRCNN,
    batch_size: int,
    updates: Iterable[list[Scene]],
    total: int,
    rate: float,
    after_forward: Callable[[], None] = lambda: None,
) -> Iterator[float]:
    """Train in place a model that `prepare` made; yield the mean loss of every update.

    `updates`: `total` lists of PER_UPDATE scenes. They pass through the model in groups of
    `batch_size`, and the batch size changes nothing else: the loss of an update is the mean over
    its images, and the optimizer is SGD with momentum. `rate`: the learning rate after the warm-up;
    it falls to 0 along a cosine. `after_forward` is called after every forward pass.
    Raises ValueError for a batch size that does not divide PER_UPDATE.
    """
    if batch_size < 1 or PER_UPDATE % batch_size:
        raise ValueError(f"batch_size is {batch_size}: give a divisor of {PER_UPDATE}.")
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, rate, MOMENTUM)
    for update, scenes in enumerate(updates):
        down = (1 + math.cos(math.pi * update / total)) / 2
        optimizer.param_groups[0]["lr"] = rate * min((update + 1) / WARM_UP, down)
        loss = accumulate(model, batch_size, scenes, update, after_forward)
        nn.utils.clip_grad_norm_(trained, CLIP)
        optimizer.step()
        yield loss


def accumulate(
    model: FasterRCNN,
    batch_size: int,
    scenes: list[Scene],
    update: int = 0,
    after_forward: Callable[[], None] = lambda: None,
) -> float:
    """Return the mean loss of `scenes`, and leave its gradient in the parameters."""
    model.zero_grad()
    total = 0.0
    for start in range(0, len(scenes), batch_size):
        images, targets = zip(*scenes[start : start + batch_size], strict=True)
        for number, part in enumerate((model.rpn, model.roi_heads)):
            first = (update * len(scenes) + start) * 2 + number
            part.fg_bg_sampler.seeds = [first + 2 * i for i in range(len(images))]
        losses = model(list(images), list(targets)).values()
        after_forward()
        loss = sum(losses) * len(images) / len(scenes)
        loss.backward()
        total += loss.item()
    return total
