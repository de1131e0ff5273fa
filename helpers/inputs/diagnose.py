"""Which formats the values of an image allow."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from helpers.inputs.pixels import KNOWN, PLAIN, PixelFormat, check_image, line, pixel_format

OUTSIDE = 0.2  # of the range; bicubic resizing carries a photo's values half as far beyond it
FEWEST = 8  # levels of 255; a picture with fewer is all but flat


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """Which formats of KNOWN the values of an image allow, and what is surely wrong with them.

    `allowed`: names that nothing here tells apart; `excluded`: name → reason, with the values;
    `warning`: a sentence, or "" where the expected format is allowed.
    """

    allowed: tuple[str, ...]
    excluded: dict[str, str]
    warning: str

    def __repr__(self) -> str:
        lines = [f"Allowed: {' or '.join(self.allowed) or 'no known format'}."]
        lines += [f"Not {name}: {reason}." for name, reason in self.excluded.items()]
        return "\n".join([*lines, f"Warning: {self.warning}" if self.warning else "No warning."])


def diagnose(
    image: Tensor | np.ndarray | Image, expected: str | PixelFormat | None = None
) -> Diagnosis:
    """Say which formats the values of an image allow, and warn if they exclude the expected one.

    Values exclude a format if they lie outside its range by more than resizing explains, or if all
    lie within 8 of its 255 levels and are more than these levels. Nothing tells apart what is left:
    a blue picture may be BGR, a dark one halved or linear light. Without `expected` a warning comes
    if nothing is left. `image`: numbers of any dtype, with three channels, first or last; a batch
    counts as one picture. Raises TypeError for what is no image, ValueError as `convert` does.
    """
    values = _values(image)
    low, high = values.amin(1), values.amax(1)
    many = any(len(channel.unique()) > FEWEST + 1 for channel in values)
    reasons = {name: _reason(low, high, many, format) for name, format in KNOWN.items()}
    excluded = {name: reason for name, reason in reasons.items() if reason}
    allowed = tuple(name for name in KNOWN if name not in excluded)
    warning = "" if allowed or expected is not None else "No known format allows these values."
    if expected is not None and (reason := _reason(low, high, many, pixel_format(expected))):
        perhaps = " or ".join(allowed) or "no known format"
        if "0-255" in allowed and low.min() >= 0:
            mend = ": divide by 255" if pixel_format(expected) == PLAIN else ""
            perhaps = f"levels 0–255{mend}"
        name = expected if isinstance(expected, str) else "the expected format"
        warning = f"Values {reason}: not {name}; perhaps {perhaps}."
    return Diagnosis(allowed, excluded, warning)


def _values(image) -> Tensor:  # of each channel, float64 (3,…)
    if isinstance(image, Image):
        image = np.asarray(image if image.mode[0] in "IF" else image.convert("RGB"))  # I;16 clips
    if isinstance(image, np.ndarray) and image.dtype.kind in "buif":
        image = torch.from_numpy(image.astype(np.float64))
    if isinstance(image, Tensor) and not image.is_complex():
        image = image.detach().double()
        if image.ndim in (3, 4) and image.shape[-3] != 3 == image.shape[-1]:
            image = image.movedim(-1, -3)
    check_image(image, finite=True)
    return image.movedim(-3, 0).flatten(1)


def _reason(low: Tensor, high: Tensor, many: bool, format: PixelFormat) -> str:
    """Say why channels from low to high exclude the format, with `many` values; "" if not."""
    gain, black = (t.to(low.device) for t in line(format))
    below, above = (black - low) / gain, (high - black) / gain - 1
    channel = torch.maximum(below, above).argmax()
    if max(below[channel], above[channel]) > OUTSIDE:
        if below[channel] > above[channel]:
            return f"down to {low[channel]:.3g}, below {black[channel] + 0.0:.3g}"
        return f"up to {high[channel]:.3g}, above {black[channel] + gain[channel]:.3g}"
    flat = 255 * ((high - low) / gain).max() <= FEWEST
    return f"all within {FEWEST} of 255 levels" if flat and many else ""
