"""What a BatchNorm layer computes from any batch of a pool of images, from one forward pass.

The mean and variance of a batch follow from those of its images, so one pass over the images in
eval mode is enough. The layers before the measured one normalize by their running statistics: a
number shows what batch statistics do in this layer alone.
"""

import copy
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torchvision.transforms.functional import resized_crop

from helpers.inputs import photos
from helpers.inputs.pixels import check_image
from helpers.norms.folding import same_tensors
from helpers.stages import stages

SMALLEST = 0.25  # of a photo's short side: the smallest crop; the largest is all of it
CHUNK = 8  # images that run together, which bounds the memory
BINS = 64
REACH = 4.0  # standard deviations on either side of the mean that the bins cover


@dataclass(frozen=True, eq=False)
class Statistics:
    """The input of one BatchNorm layer on a pool of N images, and the layer's state, in float64.

    `network`: name and weights; `layer`: name; `pixels`: H·W of the input. `means`, `variances`
    (N,C): of each image by itself, the variance biased (1/n). `edges` (C,bins+1): the bins of each
    channel, which cover all values within 4 standard deviations of the pool's mean. `histograms`
    (N,C,bins): how many pixels lie in each bin; the outer bins also count what lies beyond.
    `running_mean`, `running_var` (C,), `eps`: of the layer.

    A batch is an array of the indices of its images, shape (…,B); results have shape (…,C).
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
    eps: float

    def __len__(self) -> int:
        return len(self.means)

    def channel(self, number: int) -> "Statistics":
        """Select one channel, so that C is 1. Raises ValueError if there is no such channel."""
        last = len(self.running_var) - 1
        if not 0 <= number <= last:
            raise ValueError(f"{self.layer} has channels 0 to {last}, not channel {number}.")
        one = slice(number, number + 1)
        of_layer = {n: getattr(self, n)[one] for n in ("edges", "running_mean", "running_var")}
        of_images = {n: getattr(self, n)[:, one] for n in ("means", "variances", "histograms")}
        return replace(self, **of_layer, **of_images)

    @property
    def within(self) -> np.ndarray:
        """The within-image variance (C,): the mean of the images' own variances."""
        return self.variances.mean(0)

    @property
    def between(self) -> np.ndarray:
        """The between-image variance (C,): the variance of the images' means, with 1/(N−1)."""
        return self.means.var(0, ddof=1)

    @property
    def between_share(self) -> np.ndarray:
        """The share between / (within + between), (C,); 0 for a constant channel."""
        total = self.within + self.between
        return np.divide(self.between, total, out=np.zeros_like(total), where=total > 0)

    def most_between(self) -> int:
        """Find the channel of largest between-image share. ValueError if all are constant."""
        varying = (self.within + self.between).nonzero()[0]
        if not len(varying):
            raise ValueError(f"Every channel of {self.layer} has one value in all of the images.")
        return int(varying[self.between_share[varying].argmax()])

    def of_batch(self, images: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Compute the mean and biased variance by which train mode normalizes a batch.

        By the law of total variance, the variance is the mean of the images' variances plus the
        variance of their means. The layer stores `unbiased(B)` times this variance.
        """
        means, variances = (values[np.asarray(images)] for values in (self.means, self.variances))
        return means.mean(-2), variances.mean(-2) + means.var(-2)

    def expected_running_var(self, size: int) -> np.ndarray:
        """Compute what running_var tends to with batches of B images, (C,).

        It is `unbiased(B)` times the mean of the biased variance over all batches of B different
        images of the pool, which is exactly within + (1 − 1/B)·between.
        """
        return self.unbiased(size) * (self.within + (1 - 1 / size) * self.between)

    def unbiased(self, size: int) -> float:
        """Compute n/(n−1) for n = B·pixels, which makes the biased variance of a batch unbiased."""
        n = self._size(size) * self.pixels
        return n / (n - 1)

    def batches(self, size: int, seed: int = 0) -> np.ndarray:
        """Draw N batches of B different images: indices (N,B), or (1,N) if B is N.

        The pool is shuffled again and again, and cut each time into batches that share no image.
        """
        count, per_shuffling = len(self), len(self) // self._size(size)
        if size == count:
            return np.arange(count)[None]
        generator = torch.Generator().manual_seed(seed)
        draws = torch.rand(-(-count // per_shuffling), count, generator=generator)
        shuffled = draws.argsort(1)[:, : per_shuffling * size].numpy()
        return shuffled.reshape(-1, size)[:count]

    def typical(self, batches: np.ndarray) -> int:
        """Find, for one channel, the batch of (K,B) with the most average parts of its variance."""
        within, between = (values[batches, 0] for values in (self.variances, self.means))
        average = self.within, (1 - 1 / batches.shape[1]) * self.between
        distance = np.hypot(within.mean(1) - average[0], between.var(1) - average[1])
        return int(distance.argmin())

    def _size(self, size: int) -> int:
        if not (isinstance(size, (int, np.integer)) and 1 <= size <= len(self)):
            raise ValueError(f"A batch size is a whole number from 1 to {len(self)}, not {size!r}.")
        return int(size)


def crops(count: int = 64, size: int = 96, seed: int = 0) -> Tensor:
    """Cut squares out of the four bundled photos in turn: float32 (count,3,size,size), RGB in 0–1.

    Side (a quarter to all of the photo's short side) and position are drawn uniformly, and the crop
    is resized bilinearly with antialiasing.
    """
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
    """Measure the input of the first BatchNorm2d of each stage, in one forward pass in eval mode.

    `images`: float (N,3,H,W) in 0–1, at least two; if the model has a `normalize`, it is applied.
    A stage without a BatchNorm2d that has running statistics is left out. The model does not
    change. Raises TypeError for images that are no floating point tensor, and ValueError for a
    wrong shape, a network without stages or without such layers, and an input that is not finite or
    has only one pixel.
    """
    check_image(images, (4,))
    if len(images) < 2:
        raise ValueError("One image has no statistics between images: give two or more.")
    twin = copy.deepcopy(model, same_tensors(model)).eval()
    parts = stages(twin)
    layers: dict[str, nn.BatchNorm2d] = {}
    for stage, part in parts.items():
        for layer in part.modules():
            if isinstance(layer, nn.BatchNorm2d) and layer.running_var is not None:
                layers.setdefault(stage, layer)
    if not layers:
        raise ValueError(
            f"{type(model).__name__} has no BatchNorm2d with running statistics: freezing replaces "
            "them, so give the network as it was before."
        )
    images = images.to(next(model.parameters()))
    chunks = getattr(model, "normalize", lambda image: image)(images).split(CHUNK)
    network = getattr(model, "provenance", type(model).__name__).partition(":")[0]
    names = {module: name for name, module in twin.named_modules()}
    statistics = {}
    for stage, part in parts.items():  # stage by stage, so that few inputs are kept
        inputs: list[Tensor] = []
        layer = layers.get(stage, part)
        with layer.register_forward_pre_hook(lambda _, x, to=inputs: to.append(x[0].flatten(2))):
            chunks = [part(chunk) for chunk in chunks]
        if stage in layers:
            statistics[stage] = _measure(network, names[layer], layer, inputs)
    return statistics


def _measure(network: str, name: str, layer: nn.BatchNorm2d, inputs: list[Tensor]) -> Statistics:
    """Compute the statistics of a layer from its input, in chunks (n,C,pixels)."""
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
        eps=layer.eps,
    )


def _histograms(x: Tensor, low: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Count the values of x (n,C,pixels) in each bin: (n,C,bins)."""
    low, width = (torch.from_numpy(v).to(x)[:, None] for v in (low, width))
    bins = ((x - low) / width).floor_().clamp_(0, BINS - 1).long()
    rows = torch.arange(x.shape[0] * x.shape[1], device=x.device).view(*x.shape[:2], 1)
    counts = (bins + BINS * rows).flatten().bincount(minlength=BINS * rows.numel())
    return counts.view(*x.shape[:2], BINS).to(torch.int32).cpu().numpy()


def _float64(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().cpu().numpy()
