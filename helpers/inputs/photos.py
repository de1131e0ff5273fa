"""The bundled photos, and the reader's own, as tensors."""

import io
import os
from pathlib import Path

import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torchvision.transforms.functional import to_tensor

from helpers import DATA

NAMES = ("cat", "coffee", "rocket", "astronaut")
# Only these: Pillow would hand other formats (EPS) to outside programs.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_PIXELS = 50_000_000
MAX_SIZE = 4096

DAMAGED = "is cut off or damaged: copy or download it again."
ADVICE = {
    Image.DecompressionBombError: f"has more than {MAX_PIXELS // 10**6} megapixels: shrink it.",
    UnidentifiedImageError: "is not a JPEG, PNG, WebP, GIF, BMP or TIFF picture: save it as JPEG "
    "or PNG first.",
}


class PhotoError(ValueError):
    """One sentence for the reader: what is wrong with the picture, and what to do."""


def load(source, size=224):
    """Load a picture as a tensor.

    source: a name of NAMES, the path of an image file (str or Path), or its bytes (bytes,
        bytearray, memoryview). JPEG, PNG, WebP, GIF, BMP or TIFF, at most 50 megapixels; of an
        animation the first frame.
    size: side of the square in pixels, 1 to 4096. The short side is resized to it (Pillow's
        bicubic, antialiased), the long side center-cropped. None keeps the whole picture.
    Returns float32 (1, 3, size, size), or (1, 3, H, W), RGB in 0-1. Raises PhotoError.
    An EXIF rotation is carried out, transparency shows white, a color profile is ignored.
    """
    if size is not None and not (type(size) is int and 1 <= size <= MAX_SIZE):
        raise PhotoError(
            f"size is {size!r}: give a whole number from 1 to {MAX_SIZE}, or None to keep the "
            "whole picture."
        )
    image = _decode(*_open(source))
    if size is not None:
        image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    return to_tensor(image)[None]


def load_all(size=224):
    """Load the bundled photos in the order of NAMES: float32 (4, 3, size, size), RGB in 0-1."""
    return torch.cat([load(name, size) for name in NAMES])


def _open(source):
    """What to call the source in a message, and its bytes as an open file."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "The uploaded file", io.BytesIO(source)
    if not isinstance(source, (str, Path)):
        raise PhotoError(
            f"A photo is one of {', '.join(NAMES)}, a path, or the bytes of an image file (of a "
            f"FileUpload: upload.value[0].content), not {type(source).__name__}."
        )
    path = os.path.expanduser(DATA / "photos" / f"{source}.jpg" if source in NAMES else source)
    if os.path.isdir(path):
        raise PhotoError(f"{path} is a folder: give the path of a picture in it.")
    if not os.path.isfile(path):  # also a pipe, whose reader would wait forever
        names = ", ".join(NAMES)
        raise PhotoError(f"There is no file {path}: give the path of a picture, or one of {names}.")
    return path, open(path, "rb")


def _decode(name, file):
    """The picture in mode RGB, upright."""
    with file:
        if not file.read(1):
            raise PhotoError(f"{name} is empty (0 bytes): copy or download it again.")
        try:
            image = Image.open(file, formats=FORMATS)
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            image = ImageOps.exif_transpose(image)
        except Exception as error:  # Pillow raises a dozen kinds of errors on damaged files
            raise PhotoError(f"{name} {ADVICE.get(type(error), DAMAGED)}") from None
    if image.mode[0] in "IF":  # convert() would clip at 255
        raise PhotoError(f"{name} has 16 or 32 bits a pixel: save it with 8 bits first.")
    if image.has_transparency_data:  # convert() alone uncovers what lies beneath, mostly black
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")
