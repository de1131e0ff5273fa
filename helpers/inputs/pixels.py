"""Input conventions: channel order, range, mean and std; converting and folding them."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import inf

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MEAN = (0.485, 0.456, 0.406)  # of ImageNet's pixels, RGB in 0–1
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class PixelFormat:
    """How a tensor stores a color: p in 0–1 becomes ((low + (high − low)·p) − mean) / std.

    `order` is "RGB" or "BGR", for the channels as for `mean` and `std`. Raises ValueError for
    another order, a range that does not rise, and what is no tuple of three means or positive stds.
    """

    order: str
    low: float
    high: float
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self):
        if self.order not in ("RGB", "BGR"):
            raise ValueError(f'The order is {self.order!r}: choose "RGB" or "BGR".')
        if not -inf < self.low < self.high < inf:
            raise ValueError(f"The range {self.low} … {self.high} must rise, and be finite.")
        for name, kind, above in (("mean", "finite", -inf), ("std", "positive", 0)):
            values = getattr(self, name)
            three = isinstance(values, tuple) and len(values) == 3
            if not (three and all(above < value < inf for value in values)):
                raise ValueError(f"{name} is {values}: give a tuple of three {kind} numbers.")


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
KNOWN = {
    "0-1": PLAIN,
    **FORMATS,
    # what a wrong loader leaves; "torchvision, twice" is seen inside a detector
    "BGR": PixelFormat("BGR", 0, 1),
    "0-255": PixelFormat("RGB", 0, 255),
    "halved": PixelFormat("RGB", 0, 0.5),
    "divided twice": PixelFormat("RGB", 0, 1 / 255),
    "torchvision, twice": PixelFormat("RGB", 0, 1, *_TWICE),
}


def convert(image: Tensor, source: str | PixelFormat, target: str | PixelFormat) -> Tensor:
    """Return the same picture in another format, computed in float64 and rounded once.

    `image` is floating point, (3,H,W) or (N,3,H,W); its dtype and device stay. A format is a
    PixelFormat or a name in KNOWN. Values outside the range are not clipped. Raises TypeError for
    what is not a floating point tensor; ValueError for another shape, an empty image, NaN or
    infinity, also in the result, where its dtype cannot hold it, and for an unknown name.
    """
    check_image(image, finite=True)
    channels, scale, shift = _map(pixel_format(source), pixel_format(target))
    scale, shift = (t.reshape(3, 1, 1).to(image.device) for t in (scale, shift))
    converted = (image.double()[..., channels, :, :] * scale + shift).to(image.dtype)
    if not converted.isfinite().all():
        raise ValueError(f"{image.dtype} cannot hold the result: give the image as float32.")
    return converted


class Rescale(nn.Module):
    """Turn ImageNet-normalized RGB back into levels 0–255, as GluonCV's layer of this name does.

    Takes (N,3,H,W); (3,H,W) comes back as (1,3,H,W), as it does there. Source: GluonCV 0.2.0,
    model_zoo/faster_rcnn/resnet50_v2a.py; constants are rounded to float32 before the factor 255.
    """

    def __init__(self):
        super().__init__()
        self.register_buffer("init_scale", torch.tensor(STD).reshape(1, 3, 1, 1) * 255)
        self.register_buffer("init_mean", torch.tensor(MEAN).reshape(1, 3, 1, 1) * 255)

    def forward(self, x: Tensor) -> Tensor:
        check_image(x)
        return x * self.init_scale + self.init_mean


class PadWithColor(nn.Module):
    """Pad (3,H,W) or (N,3,H,W) with one color: like ZeroPad2d, but with a value for each channel.

    `padding` counts the pixels left, right, above and below; `color` has three numbers.
    """

    def __init__(self, padding: tuple[int, int, int, int], color: tuple[float, float, float]):
        super().__init__()
        self.padding, self.color = padding, color

    def forward(self, image: Tensor) -> Tensor:
        check_image(image)
        pairs = zip(image.split(1, -3), self.color, strict=True)
        return torch.cat([F.pad(channel, self.padding, value=v) for channel, v in pairs], -3)


@torch.no_grad()
def fold(conv: nn.Conv2d, source: str | PixelFormat, target: str | PixelFormat) -> nn.Sequential:
    """Copy a first convolution made for `target`, so that it takes `source` and gives the same.

    The result equals conv(convert(image, source, target)), the border included: `conv` pads with
    zeros, which in `target` are a color (mostly the mean color), so the source is padded with that
    color before a convolution without padding. Weight and bias are computed in float64 and rounded
    once; dtype, device, training flag, requires_grad and hooks stay. Raises TypeError for anything
    but an nn.Conv2d itself; ValueError for other than 3 input channels, for groups, and for another
    padding mode than zeros.
    """
    if type(conv) is not nn.Conv2d:
        raise TypeError(f"Only an nn.Conv2d itself can be folded, not {type(conv).__name__}.")
    if conv.in_channels != 3 or conv.groups != 1:
        has = f"{conv.in_channels} input channels in {conv.groups} group(s)"
        raise ValueError(f"The convolution has {has}: only one with 3 in 1 group takes an image.")
    if conv.padding_mode != "zeros":
        raise ValueError(f"The padding mode is {conv.padding_mode!r}: only 'zeros' can be folded.")
    channels, scale, shift = _map(pixel_format(source), pixel_format(target))
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
    check_image(image)
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

A torchvision detector normalizes once more after "normalized twice"; "gamma" gives linear light.
"""


def check_image(image, dimensions: tuple[int, ...] = (3, 4), finite: bool = False) -> None:
    """Raise TypeError for what is no floating point tensor, and ValueError for another shape.

    `dimensions`: 3 allows (3,H,W), 4 allows (N,3,H,W). `finite`: refuse NaN and infinity, too.
    """
    if not isinstance(image, Tensor):
        kind = type(image).__name__
        raise TypeError(f"The image must be a tensor, not {kind}: photos.load gives one.")
    if not image.is_floating_point():
        raise TypeError(f"The image is {image.dtype}: make it floating point, divided by 255.")
    if image.ndim not in dimensions or image.shape[-3] != 3 or not image.numel():
        wanted = " or ".join({3: "(3,H,W)", 4: "(N,3,H,W)"}[count] for count in dimensions)
        raise ValueError(f"The image must have shape {wanted}, not {tuple(image.shape)}.")
    if finite and not image.isfinite().all():
        raise ValueError("The image holds NaN or infinity: give finite values.")


def pixel_format(format: str | PixelFormat) -> PixelFormat:
    """Look a format's name up in KNOWN; raises ValueError for a name that is not there."""
    if isinstance(format, PixelFormat):
        return format
    if not isinstance(format, str) or format not in KNOWN:
        names = ", ".join(FORMATS)
        raise ValueError(f"No format {format!r}: choose one of {names}, or give a PixelFormat.")
    return KNOWN[format]


def _map(source: PixelFormat, target: PixelFormat) -> tuple[list[int], Tensor, Tensor]:
    """Find channels, scale, shift (3,) float64 with target = scale·source[channels] + shift."""
    channels = [source.order.index(letter) for letter in target.order]
    (gain_in, offset_in), (gain_out, offset_out) = line(source), line(target)
    scale = gain_out / gain_in[channels]
    return channels, scale, offset_out - scale * offset_in[channels]


def line(format: PixelFormat) -> tuple[Tensor, Tensor]:
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
