"""What a BatchNorm layer computes from a batch, for every batch of a pool, from one forward pass.

A batch's mean and variance follow from those of its images. The model runs in eval mode, image by
image, and in each stage one layer's input is measured. So every number is that of this layer alone
looking at the batch: the layers before it normalize by their running statistics.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torchvision.transforms.functional import resized_crop

from helpers.inputs import photos
from helpers.stages import stages

SMALLEST = 0.25  # of a photo's short side: the smallest crop; the largest is all of it
CHUNK = 8  # images that run together, for the memory's sake
BINS = 64
REACH = 4.0  # standard deviations on either side of the mean that the bins cover


@dataclass(frozen=True, eq=False)
class Statistics:
    """One BatchNorm layer's input on a pool of N images, and what the layer has stored; float64.

    `network`: which, with which weights; `layer`: its name. `pixels`: H·W of its input. `means`,
    `variances` (N,C): of each image by itself, the variance biased (1/n). `histograms` (N,C,bins):
    how many of the pixels lie in each bin; `edges` (C,bins+1): a channel's bins, the same for all
    images, within 4 standard deviations of the pool's mean. The outer bins count what lies beyond.
    `running_mean`, `running_var`, `weight`, `bias` (C,) and `eps` are the layer's.

    A batch is given by the indices of its images, shape (…,B); results have shape (…,C).
    """

    network: str
    layer: str
    pixels: int
    means: np.ndarray
    variances: np.ndarray
    histograms: np.ndarray
    edges: np.ndarray
    running_mean: np.ndarray
    running_var: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    eps: float

    def __len__(self) -> int:
        """N, the number of images."""
        return len(self.means)

    @property
    def channels(self) -> int:
        return self.means.shape[1]

    def channel(self, number: int) -> "Statistics":
        """The same of one channel: C is 1. ValueError if there is no such channel."""
        if not 0 <= number < self.channels:
            raise ValueError(
                f"{self.layer} has channels 0 to {self.channels - 1}, not channel {number}."
            )
        one = slice(number, number + 1)
        along_0 = ("edges", "running_mean", "running_var", "weight", "bias")
        parts = {name: getattr(self, name)[one] for name in along_0}
        along_1 = ("means", "variances", "histograms")
        return replace(self, **parts, **{name: getattr(self, name)[:, one] for name in along_1})

    @property
    def within(self) -> np.ndarray:
        """Within-image variance (C,): the mean of the images' own variances."""
        return self.variances.mean(0)

    @property
    def between(self) -> np.ndarray:
        """Between-image variance (C,): that of the images' means, with 1/(N−1)."""
        return self.means.var(0, ddof=1)

    @property
    def between_share(self) -> np.ndarray:
        """between / (within + between), (C,); 0 for a channel that stands still."""
        total = self.within + self.between
        return np.divide(self.between, total, out=np.zeros_like(total), where=total > 0)

    def most_between(self) -> int:
        """The channel with the largest between-image share. ValueError if all stand still."""
        moving = self._moving()
        return int(moving[self.between_share[moving].argmax()])

    def least_between(self) -> int:
        """The one with the smallest, of those that do not stand still."""
        moving = self._moving()
        return int(moving[self.between_share[moving].argmin()])

    def of_batch(self, images: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Mean and biased variance of a batch: what the forward pass in train mode normalizes by.

        The law of total variance: the mean of the images' variances and the variance of their
        means. The layer stores that times n/(n−1), n = B·pixels: see `unbiased`.
        """
        images = self._indices(images)
        means = self.means[images]
        return means.mean(-2), self.variances[images].mean(-2) + means.var(-2)

    def expected_variance(self, size: int) -> np.ndarray:
        """within + (1 − 1/B)·between, (C,): the mean of the biased variance over batches of B.

        Exactly that over all batches of B different images of the pool, at N the pool's variance.
        """
        return self.within + (1 - 1 / self._size(size)) * self.between

    def expected_running_var(self, size: int) -> np.ndarray:
        """What running_var goes to with batches of B images, (C,): the unbiased counterpart."""
        return self.unbiased(size) * self.expected_variance(size)

    def unbiased(self, size: int) -> float:
        """n/(n−1), n = B·pixels: running_var's factor on a batch's biased variance."""
        n = self._size(size) * self.pixels
        return n / (n - 1)

    def spread_of_means(self, size: int) -> np.ndarray:
        """Standard deviation (C,) of the batch mean, over all batches of B different images.

        Exactly sqrt(between · (1/B − 1/N)): 0 at N, where there is one batch only.
        """
        return np.sqrt(self.between * (1 / self._size(size) - 1 / len(self)))

    def batches(self, size: int, seed: int = 0) -> np.ndarray:
        """Indices (N,B) of N batches of B different images; (1,N) if B is N.

        One seeded shuffling of the pool after another, each cut into batches that share no image.
        """
        count, per_shuffling = len(self), len(self) // self._size(size)
        if size == count:
            return np.arange(count)[None]
        generator = torch.Generator().manual_seed(seed)
        draws = torch.rand(-(-count // per_shuffling), count, generator=generator)
        shuffled = draws.argsort(1)[:, : per_shuffling * size].numpy()
        return shuffled.reshape(-1, size)[:count]

    def typical(self, batches: np.ndarray) -> int:
        """Of batches (K,B), the number of that whose within- and between-image variance are nearest
        to the average ones. For one channel."""
        within, between = (values[batches, 0] for values in (self.variances, self.means))
        average = self.within, (1 - 1 / batches.shape[1]) * self.between
        distance = np.hypot(within.mean(1) - average[0], between.var(1) - average[1])
        return int(distance.argmin())

    def difference(self, images: ArrayLike) -> np.ndarray:
        """Root mean square of the output in train mode minus that in eval mode, over |weight|.

        Over the batch's pixels, channel by channel. With m, v the batch's mean and variance, μ, σ²
        the running ones, the normalized values differ by
        (x − m)·(1/√(v + eps) − 1/√(σ² + eps)) − (m − μ)/√(σ² + eps),
        of which the first part has mean 0; the weight scales that, and the bias drops out.

        But for eps it is the distance between the points (m, √v) and (μ, σ), in units of σ; and the
        output in train mode has the standard deviation |weight|.
        """
        mean, variance = self.of_batch(images)
        running = np.sqrt(self.running_var + self.eps)
        scales = 1 / np.sqrt(variance + self.eps) - 1 / running
        return np.sqrt(variance * scales**2 + ((mean - self.running_mean) / running) ** 2)

    def relative_difference(self, images: ArrayLike) -> np.ndarray:
        """Root mean square of train − eval over that of the eval output, weight and bias included.

        Not a number or infinite where the eval output is 0 throughout.
        """
        mean, variance = self.of_batch(images)
        scale = self.weight / np.sqrt(self.running_var + self.eps)
        center = scale * (mean - self.running_mean) + self.bias
        with np.errstate(divide="ignore", invalid="ignore"):
            output = np.sqrt(scale**2 * variance + center**2)
            return np.abs(self.weight) * self.difference(images) / output

    def _moving(self) -> np.ndarray:
        moving = (self.within + self.between).nonzero()[0]
        if not len(moving):
            raise ValueError(f"Every channel of {self.layer} has one value in all of the images.")
        return moving

    def _indices(self, images: ArrayLike) -> np.ndarray:
        images = np.asarray(images)
        whole = images.size and np.issubdtype(images.dtype, np.integer)
        if not (whole and images.ndim and 0 <= images.min() and images.max() < len(self)):
            raise ValueError(f"A batch is a list of image numbers from 0 to {len(self) - 1}.")
        return images

    def _size(self, size: int) -> int:
        if not (isinstance(size, (int, np.integer)) and 1 <= size <= len(self)):
            raise ValueError(f"A batch size is a whole number from 1 to {len(self)}, not {size!r}.")
        return int(size)


def crops(count: int = 64, size: int = 96, seed: int = 0) -> Tensor:
    """Square crops of the four bundled photos in turn: float32 (count,3,size,size), RGB in 0–1.

    Side (a quarter to all of the photo's short side) and position are uniform draws of a seeded
    generator; resized bilinearly, antialiased. ValueError for a count or size below 1.
    """
    for name, value in (("count", count), ("size", size)):
        if type(value) is not int or value < 1:
            raise ValueError(f"{name} must be a whole number from 1 up, not {value!r}.")
    pool = [photos.load(name, None)[0] for name in photos.NAMES]
    generator = torch.Generator().manual_seed(seed)
    cut = torch.empty(count, 3, size, size)
    for number in range(count):
        photo = pool[number % len(pool)]
        height, width = photo.shape[1:]
        scale, down, right = torch.rand(3, generator=generator).tolist()
        side = round((SMALLEST + (1 - SMALLEST) * scale) * min(height, width))
        top, left = int(down * (height - side + 1)), int(right * (width - side + 1))
        cut[number] = resized_crop(photo, top, left, side, side, [size, size], antialias=True)
    return cut.clamp_(0, 1)


@torch.inference_mode()
def collect(model: nn.Module, images: Tensor) -> dict[str, Statistics]:
    """Stage → Statistics of the input of its first BatchNorm2d, from one pass in eval mode.

    `images`: float (N,3,H,W) in 0–1, N from 2 up; a model with a `normalize` gets them normalized.
    A stage without a BatchNorm2d that has running statistics is left out. The model is left as it
    was. TypeError for what is not a model or not a floating point tensor; ValueError for a wrong
    shape, a network without stages or without such layers, and an input that is not finite or has
    one pixel only.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"The model must be a torch.nn.Module, not {type(model).__name__}.")
    if not (isinstance(images, Tensor) and images.is_floating_point()):
        raise TypeError("The images must be a floating point tensor, such as crops().")
    if images.ndim != 4 or images.shape[1] != 3 or len(images) < 2:
        raise ValueError(
            f"The images must have shape (N,3,H,W), N from 2 up, not {tuple(images.shape)}."
        )
    parts = stages(model)
    network = getattr(model, "provenance", type(model).__name__).partition(":")[0]
    names = {module: name for name, module in model.named_modules()}
    layers = {stage: layer for stage, part in parts.items() if (layer := _first(part)) is not None}
    if not layers:
        raise ValueError(
            f"{type(model).__name__} has no BatchNorm2d with running statistics: freezing replaces "
            "them, so give the network as it was before."
        )
    found = {}
    images = images.to(next(model.parameters()))
    chunks = getattr(model, "normalize", lambda image: image)(images).split(CHUNK)
    with _evaluating(model):
        for stage, part in parts.items():  # one after the other, so that little is kept at a time
            layer = layers.get(stage)
            with _inputs_of(layer) as inputs:
                chunks = [part(chunk) for chunk in chunks]
            if inputs:
                found[stage] = _measure(network, names[layer], layer, inputs)
    return found


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    flags = {module: module.training for module in model.modules()}
    try:
        model.eval()
        yield
    finally:
        for module, training in flags.items():
            module.training = training


@contextmanager
def _inputs_of(layer: nn.Module | None) -> Iterator[list[Tensor]]:
    """What the layer gets, call by call; nothing without a layer."""
    inputs = []
    with ExitStack() as stack:
        if layer is not None:
            hook = layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
            stack.callback(hook.remove)
        yield inputs


def _first(part: nn.Module) -> nn.BatchNorm2d | None:
    layers = (layer for layer in part.modules() if isinstance(layer, nn.BatchNorm2d))
    return next((layer for layer in layers if layer.running_var is not None), None)


def _measure(network: str, name: str, layer: nn.BatchNorm2d, inputs: list[Tensor]) -> Statistics:
    """`inputs`: the layer's, in chunks (n,C,H,W)."""
    inputs = [x.flatten(2) for x in inputs]
    pixels = inputs[0].shape[2]
    if pixels < 2:
        raise ValueError(f"{name} gets one pixel per image: give larger images.")
    moments = [torch.var_mean(x.double(), dim=2, correction=0) for x in inputs]
    variances, means = (_float64(torch.cat(parts)) for parts in zip(*moments, strict=True))
    if not np.isfinite(variances).all():
        raise ValueError(f"The input of {name} is not finite: give finite images and weights.")
    center, spread = means.mean(0), np.sqrt(variances.mean(0) + means.var(0))
    lowest = _float64(torch.stack([x.amin((0, 2)) for x in inputs]).amin(0))
    highest = _float64(torch.stack([x.amax((0, 2)) for x in inputs]).amax(0))
    low = np.maximum(lowest, center - REACH * spread)
    high = np.minimum(highest, center + REACH * spread)
    width = np.where(high > low, high - low, 1.0) / BINS
    histograms = [_histograms(x, low, width) for x in inputs]
    ones = np.ones(len(center))
    return Statistics(
        network=network,
        layer=name,
        pixels=pixels,
        means=means,
        variances=variances,
        histograms=np.concatenate(histograms).astype(np.min_scalar_type(pixels)),
        edges=low[:, None] + width[:, None] * np.arange(BINS + 1),
        running_mean=_float64(layer.running_mean),
        running_var=_float64(layer.running_var),
        weight=ones if layer.weight is None else _float64(layer.weight),
        bias=0 * ones if layer.bias is None else _float64(layer.bias),
        eps=layer.eps,
    )


def _histograms(x: Tensor, low: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Counts (n,C,bins) of x (n,C,pixels)."""
    low, width = (torch.from_numpy(v).to(x)[:, None] for v in (low, width))
    bins = ((x - low) / width).floor_().clamp_(0, BINS - 1).long()
    rows = torch.arange(x.shape[0] * x.shape[1], device=x.device).view(*x.shape[:2], 1)
    counts = (bins + BINS * rows).flatten().bincount(minlength=BINS * rows.numel())
    return counts.view(*x.shape[:2], BINS).to(torch.int32).cpu().numpy()


def _float64(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().cpu().numpy()


class VarianceRatio(NamedTuple):
    """A stage's output (N,C,H,W), and how the input of its BatchNorm layers fits.

    `ratio`: median over all their channels of the input's variance over what the layer has stored,
    running_var + eps; about 1 where the statistics fit.
    """

    output: Tensor
    ratio: float


@torch.no_grad()
def variance_ratios(network: nn.Module, x: Tensor) -> dict[str, VarianceRatio]:
    """Stage → VarianceRatio, of one forward pass; `x` (N,3,H,W) is what the network takes.

    ValueError for a network without stages (helpers.stages.stages) and for a stage without a
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
        found[stage] = VarianceRatio(x.clone(), torch.cat(ratios).median().item())
    return found


def _note(ratios: list[Tensor]):
    def hook(layer, args):
        ratios.append(args[0].var((0, 2, 3)) / (layer.running_var + layer.eps))

    return hook
