"""Input conventions: channel order, range, mean and std; converting, folding, recognizing them."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import exp, isfinite

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MEAN = (0.485, 0.456, 0.406)  # of ImageNet's pixels, RGB in 0–1
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class PixelFormat:
    """How a tensor stores a color: p in 0–1 becomes ((low + (high − low)·p) − mean) / std.

    `order` is "RGB" or "BGR", for the channels as for `mean` and `std`. Raises ValueError for
    another order, for a range that does not rise, and for anything but tuples of three finite means
    and three positive stds.
    """

    order: str
    low: float
    high: float
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self):
        if self.order not in ("RGB", "BGR"):
            raise ValueError(f'The order is {self.order!r}: choose "RGB" or "BGR".')
        if not (self.low < self.high and isfinite(self.high - self.low)):
            raise ValueError(f"The range {self.low} … {self.high} must rise, and be finite.")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if not (isinstance(values, tuple) and len(values) == 3 and all(map(isfinite, values))):
                raise ValueError(f"{name} is {values}: give a tuple of three finite numbers.")
        if min(self.std) <= 0:
            raise ValueError(f"std is {self.std}: give three positive numbers.")


PLAIN = PixelFormat("RGB", 0, 1)  # of photos.load, and what torchvision's detectors take

FORMATS = {
    # torchvision 0.29: FasterRCNN's image_mean and image_std, after GeneralizedRCNNTransform
    "torchvision": PixelFormat("RGB", 0, 1, MEAN, STD),
    # py-faster-rcnn, lib/fast_rcnn/config.py: PIXEL_MEANS; maskrcnn-benchmark: PIXEL_MEAN
    "detectron": PixelFormat("BGR", 0, 255, (102.9801, 115.9465, 122.7717)),
    # detectron2, config/defaults.py: PIXEL_MEAN; PIXEL_STD is 1, absorbed into conv1
    "detectron2": PixelFormat("BGR", 0, 255, (103.53, 116.28, 123.675)),
    # Keras 3, applications/imagenet_utils.py: the three modes of preprocess_input
    "keras-caffe": PixelFormat("BGR", 0, 255, (103.939, 116.779, 123.68)),
    "keras-torch": PixelFormat("RGB", 0, 1, MEAN, STD),
    "keras-tf": PixelFormat("RGB", -1, 1),
    # mmdetection 3, configs/_base_/models/faster-rcnn_r50_fpn.py: data_preprocessor
    "mmdet-pytorch": PixelFormat("RGB", 0, 255, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    # GluonCV 0.2.0, data/transforms/presets/rcnn.py: to_tensor, then normalize
    "gluoncv": PixelFormat("RGB", 0, 1, MEAN, STD),
}

_TWICE = tuple(m + s * m for m, s in zip(MEAN, STD, strict=True)), tuple(s * s for s in STD)
MISTAKEN_FORMATS = {  # what a wrong loader leaves; "torchvision, twice" is seen inside a detector
    "BGR": PixelFormat("BGR", 0, 1),
    "0-255": PixelFormat("RGB", 0, 255),
    "halved": PixelFormat("RGB", 0, 0.5),
    "divided twice": PixelFormat("RGB", 0, 1 / 255),
    "torchvision, twice": PixelFormat("RGB", 0, 1, *_TWICE),
}
KNOWN = {"0-1": PLAIN, **FORMATS, **MISTAKEN_FORMATS}


def convert(image: Tensor, source: str | PixelFormat, target: str | PixelFormat) -> Tensor:
    """Return the same picture in another format, computed in float64 and rounded once.

    `image` is floating point, (3,H,W) or (N,3,H,W); its dtype and device stay. A format is a
    PixelFormat or a name in KNOWN. Values outside the range are not clipped. Raises TypeError for
    what is not a floating point tensor; ValueError for another shape, an empty image, NaN or
    infinity, and an unknown name.
    """
    _check(image)
    if not image.isfinite().all():
        raise ValueError("The image holds NaN or infinity: give finite values.")
    channels, scale, shift = _map(_format(source), _format(target))
    scale, shift = (t.reshape(3, 1, 1).to(image.device) for t in (scale, shift))
    return (image.double()[..., channels, :, :] * scale + shift).to(image.dtype)


class Rescale(nn.Module):
    """Turn ImageNet-normalized RGB back into levels 0–255, as GluonCV's layer of this name does.

    Takes (N,3,H,W); (3,H,W) comes back as (1,3,H,W), as it does there. Raises TypeError and
    ValueError as `convert` does. Source: GluonCV 0.2.0, model_zoo/faster_rcnn/resnet50_v2a.py; its
    constants are rounded to float32 before the factor 255.
    """

    def __init__(self):
        super().__init__()
        self.register_buffer("init_scale", torch.tensor(STD).reshape(1, 3, 1, 1) * 255)
        self.register_buffer("init_mean", torch.tensor(MEAN).reshape(1, 3, 1, 1) * 255)

    def forward(self, x: Tensor) -> Tensor:
        _check(x)
        return x * self.init_scale + self.init_mean


class PadWithColor(nn.Module):
    """Pad with one color: like ZeroPad2d, but with a value for each channel.

    `padding` counts the pixels left, right, above and below; `color` has three numbers. Takes
    (3,H,W) or (N,3,H,W). Raises TypeError and ValueError as `convert` does.
    """

    def __init__(self, padding: tuple[int, int, int, int], color: tuple[float, float, float]):
        super().__init__()
        self.padding, self.color = padding, color

    def forward(self, image: Tensor) -> Tensor:
        _check(image)
        pairs = zip(image.split(1, -3), self.color, strict=True)
        return torch.cat([F.pad(channel, self.padding, value=v) for channel, v in pairs], -3)

    def extra_repr(self) -> str:
        return f"{self.padding}, color=({', '.join(f'{value:.4g}' for value in self.color)})"


@torch.no_grad()
def fold(conv: nn.Conv2d, source: str | PixelFormat, target: str | PixelFormat) -> nn.Sequential:
    """Copy a first convolution made for `target`, so that it takes `source` and gives the same.

    The result equals conv(convert(image, source, target)), the border included: `conv` pads with
    zeros, which in `target` are a color (mostly the mean color), so the source is padded with that
    color before a convolution without padding. Weight and bias are computed in float64 and rounded
    once; dtype, device, training flag, requires_grad and hooks stay. Formats are as in `convert`.

    Raises TypeError for anything but an nn.Conv2d itself; ValueError for other than 3 input
    channels, for groups, and for another padding mode than zeros.
    """
    if type(conv) is not nn.Conv2d:
        raise TypeError(f"Only an nn.Conv2d itself can be folded, not {type(conv).__name__}.")
    if conv.in_channels != 3 or conv.groups != 1:
        raise ValueError(
            f"The convolution has {conv.in_channels} input channels in {conv.groups} group(s): "
            "only one with 3 in 1 group takes an image."
        )
    if conv.padding_mode != "zeros":
        raise ValueError(f"The padding mode is {conv.padding_mode!r}: only 'zeros' can be folded.")
    channels, scale, shift = _map(_format(source), _format(target))
    weight = conv.weight.double()
    bias = weight.sum((2, 3)) @ shift.to(weight.device)
    if conv.bias is not None:
        bias += conv.bias.double()
    weight = weight * scale.reshape(3, 1, 1).to(weight.device)
    folded = copy.deepcopy(conv)
    for name, tensor in {"weight": weight[:, channels], "bias": bias}.items():
        parameter = nn.Parameter(tensor.to(conv.weight.dtype), conv.weight.requires_grad)
        setattr(folded, name, parameter)
    folded.padding = (0, 0)
    color = convert(torch.zeros(3, 1, 1, dtype=torch.float64), target, source)
    pad = PadWithColor(_padding(conv), tuple(color.flatten().tolist()))
    return nn.Sequential(pad, folded).train(conv.training)


def _linear_light(image: Tensor) -> Tensor:
    """Undo the transfer function of sRGB (IEC 61966-2-1)."""
    _check(image)
    return torch.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)


loader_mistakes: dict[str, Callable[[Tensor], Tensor]] = {
    "0-255": partial(convert, source=PLAIN, target="0-255"),
    "halved": partial(convert, source=PLAIN, target="halved"),
    "normalized twice": partial(convert, source=PLAIN, target="torchvision"),
    "BGR": partial(convert, source=PLAIN, target="BGR"),
    "-1 to 1": partial(convert, source=PLAIN, target="keras-tf"),
    "caffe style": partial(convert, source=PLAIN, target="keras-caffe"),
    "divided twice": partial(convert, source=PLAIN, target="divided twice"),
    "gamma": _linear_light,
}
"""Name → function that makes of an image in 0–1 what a loader with this mistake gives.

The image is meant for a torchvision detector, which normalizes once more after "normalized twice".
"gamma" gives linear light.
"""

SPREAD = 0.3  # a guess: how far a picture's mean color lies from ImageNet's
OUTSIDE = 16 / 255  # a guess: how far resizing may carry values outside the range
LEAST = 0.01  # the lowest score of a candidate
ADVICE = {
    "0-255": "Levels 0–255 that nothing has scaled: divide by 255.",
    "halved": "Hardly anything exceeds 0.5: a dark picture, or one halved on its way.",
    "divided twice": "Hardly anything exceeds 1/255: levels divided by 255 twice.",
    "torchvision, twice": "As if normalized twice: leave one of the two out.",
}


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """Which formats a tensor can have: `scores`, name → 0–1, the best first; a `warning`, or None.

    `low`, `high` and `means`, one for each channel, are the numbers that were looked at.
    """

    low: float
    high: float
    means: tuple[float, float, float]
    scores: dict[str, float]
    warning: str | None

    @property
    def candidates(self) -> dict[str, float]:
        """The scores from 0.01 up."""
        return {name: score for name, score in self.scores.items() if score >= LEAST}

    def __repr__(self) -> str:
        low, high, *means = (f"{round(v, 4) + 0.0:.3g}" for v in (self.low, self.high, *self.means))
        seen = f"Range {low} … {high}, channel means {', '.join(means)}."
        rows = [f"{name:<20}{score:.2f}" for name, score in self.candidates.items()]
        return "\n".join(
            [seen, *rows, f"Warning: {self.warning}" if self.warning else "No warning."]
        )


def diagnose(image: Tensor, expected: str | PixelFormat | None = None) -> Diagnosis:
    """Say which formats a tensor can have, told from its range and channel means alone.

    A score says how usual the picture would be in that format. It is 1 if the picture fills 0–1 and
    has ImageNet's mean color; it falls with the cube of the part of 0–1 that is filled, with what
    lies outside, and with another mean color. The widths SPREAD and OUTSIDE are guesses, so a score
    is no probability. Equal scores mean that nothing tells the formats apart: four are the same
    function, and detectron, detectron2 and keras-caffe differ by less than one level of 255.

    The range alone decides on the warning: it comes when the best candidate explains the range more
    than twice as well as the `expected` format does (without `expected`: as any of FORMATS and
    PLAIN), or when nothing explains it. Mean colors never warn, for a blue picture is not BGR, nor
    a dark one linear light.

    `image`, formats and errors are as in `convert`; a batch counts as one picture.
    """
    _check(image)
    values = image.detach().double().movedim(-3, 0).flatten(1)
    # An image of the channels' minima, maxima and means: what converts it, converts them.
    summary = torch.stack([values.amin(1), values.amax(1), values.mean(1)], -1)[:, None]
    fits = {name: _fits(summary, format) for name, format in KNOWN.items()}
    # Rounded, so that formats which are the same function tie.
    scores = {name: round(in_range * in_color, 4) for name, (in_range, in_color) in fits.items()}
    scores = dict(sorted(scores.items(), key=lambda item: -item[1]))
    right = [PLAIN, *FORMATS.values()] if expected is None else [_format(expected)]
    in_range = max(_fits(summary, format)[0] for format in right)
    return Diagnosis(
        low=values.min().item(),
        high=values.max().item(),
        means=tuple(values.mean(1).tolist()),
        scores=scores,
        warning=_warning(scores, fits[next(iter(scores))][0], in_range, expected),
    )


def _fits(summary: Tensor, format: PixelFormat) -> tuple[float, float]:
    """Rate how well the format explains the range and the mean color, each from 0 to 1."""
    low, high, mean = convert(summary, format, PLAIN)[:, 0].unbind(-1)
    low, high = low.min().item(), high.max().item()
    outside = max(0, -low, high - 1)
    filled = max(0, min(high, 1) - max(low, 0))
    off = (mean - torch.tensor(MEAN).to(mean)).square().sum().item()
    return filled**3 * exp(-outside / OUTSIDE), 1 / (1 + off / SPREAD**2)


def _warning(scores: dict[str, float], best_range: float, right_range: float, expected):
    best = next(iter(scores))
    if max(best_range, right_range) < LEAST:
        return "No known format explains this range: it is nearly flat, shifted or too wide."
    if 2 * right_range > best_range:
        return None
    if best in ADVICE:
        return ADVICE[best]
    alike = " or ".join(name for name, score in scores.items() if 2 * score >= scores[best])
    wanted = expected if isinstance(expected, str) else "the expected format"
    return f"It looks like {alike}, not like {wanted}: convert it, or change the loader."


def _check(image) -> None:
    if not isinstance(image, Tensor):
        raise TypeError(
            f"The image must be a tensor, not {type(image).__name__}: photos.load gives one."
        )
    if not image.is_floating_point():
        raise TypeError(f"The image is {image.dtype}: make it floating point, divided by 255.")
    if image.ndim not in (3, 4) or image.shape[-3] != 3 or not image.numel():
        raise ValueError(
            f"The image must have shape (3,H,W) or (N,3,H,W), not {tuple(image.shape)}."
        )


def _format(format: str | PixelFormat) -> PixelFormat:
    if isinstance(format, PixelFormat):
        return format
    if not isinstance(format, str) or format not in KNOWN:
        raise ValueError(
            f"No format {format!r}: choose one of {', '.join(FORMATS)}, or give a PixelFormat."
        )
    return KNOWN[format]


def _map(source: PixelFormat, target: PixelFormat) -> tuple[list[int], Tensor, Tensor]:
    """Find channels, scale, shift (3,) float64 with target = scale·source[channels] + shift."""
    channels = [source.order.index(letter) for letter in target.order]
    (gain_in, offset_in), (gain_out, offset_out) = _line(source), _line(target)
    scale = gain_out / gain_in[channels]
    return channels, scale, offset_out - scale * offset_in[channels]


def _line(format: PixelFormat) -> tuple[Tensor, Tensor]:
    """Find gain and offset (3,) float64 with stored = gain·p + offset."""
    mean, std = (torch.tensor(v, dtype=torch.float64) for v in (format.mean, format.std))
    return (format.high - format.low) / std, (format.low - mean) / std


def _padding(conv: nn.Conv2d) -> tuple[int, int, int, int]:
    """Count what `conv` pads left, right, above, below; "same" pads an odd pixel right or below."""
    if conv.padding == "same":
        reach = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        (above, below), (left, right) = ((r // 2, r - r // 2) for r in reach)
        return left, right, above, below
    rows, columns = (0, 0) if conv.padding == "valid" else conv.padding
    return columns, columns, rows, rows
