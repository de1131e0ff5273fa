"""The bundled photos, and the reader's own, as tensors."""

import io
import os
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torchvision.transforms.functional import to_tensor

from helpers import DATA

NAMES = ("cat", "coffee", "rocket", "astronaut")
# Only these: Pillow would hand other formats (EPS) to outside programs.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_PIXELS = 50_000_000
MAX_SIZE = 4096


class PhotoError(ValueError):
    """One sentence for the reader: what is wrong with the picture, and what to do."""


def load(source, size=224):
    """A picture as a tensor.

    source: a name of NAMES, the path of an image file (str or Path), or its bytes (bytes,
        bytearray, memoryview). JPEG, PNG, WebP, GIF, BMP or TIFF, at most 50 megapixels; of an
        animation the first frame.
    size: side of the square in pixels, 1 to 4096. The short side is resized to it (Pillow's
        bicubic, antialiased), the long side center-cropped. None keeps the whole picture.
    Returns float32 (1, 3, size, size), or (1, 3, H, W), RGB in 0-1.
    Raises PhotoError.

    The pixels are as stored, 8 bits deep: an EXIF rotation is carried out, 16-bit gray is scaled
    down, a color profile is ignored.
    """
    if size is not None and not (type(size) is int and 1 <= size <= MAX_SIZE):
        raise PhotoError(
            f"size is {size!r}: give a whole number from 1 to {MAX_SIZE}, or None to keep the "
            "whole picture."
        )
    image = _read(source)
    if size is not None:
        image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    return to_tensor(image)[None]


def load_all(size=224):
    """The four bundled photos in the order of NAMES: float32 (4, 3, size, size), RGB in 0-1."""
    if size is None:
        raise PhotoError("The photos differ in shape: load_all needs a size, for example 224.")
    return torch.cat([load(name, size) for name in NAMES])


def _read(source):
    """The decoded picture, upright, in mode RGB."""
    name, file = _open(source)
    with file, warnings.catch_warnings():
        # What Pillow can work around (odd EXIF, odd palette) need not worry the reader.
        warnings.simplefilter("ignore")
        if file.seek(0, os.SEEK_END) == 0:
            raise PhotoError(f"{name} is empty (0 bytes): copy or download it again.")
        try:
            image = Image.open(file, formats=FORMATS)
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            # Pillow 10.1 calls the 16 bits of a gray PNG "I", its name for 32 bits.
            deep = image.mode.startswith("I;16") or (image.format, image.mode) == ("PNG", "I")
            if image.mode in ("I", "F") and not deep:
                raise PhotoError(
                    f"{name} has 32-bit pixels, of which no rule says how bright white is: save it "
                    "with 8 or 16 bits first."
                )
            return _to_rgb(ImageOps.exif_transpose(image), deep)
        except Image.DecompressionBombError:
            raise PhotoError(
                f"{name} has more than {MAX_PIXELS // 10**6} megapixels: shrink it first."
            ) from None
        except UnidentifiedImageError:
            raise PhotoError(
                f"{name} is not a JPEG, PNG, WebP, GIF, BMP or TIFF picture: save it as JPEG or "
                "PNG first."
            ) from None
        except PhotoError:
            raise
        except Exception:  # Pillow's readers raise a dozen kinds of errors on damaged files
            raise PhotoError(f"{name} is cut off or damaged: copy or download it again.") from None


def _open(source):
    """What to call the source in a message, and its bytes as an open file."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "The uploaded file", io.BytesIO(bytes(source))
    if not isinstance(source, (str, Path)):
        raise PhotoError(
            f"A photo is one of {', '.join(NAMES)}, a path, or the bytes of an image file (of a "
            f"FileUpload: upload.value[0].content), not {type(source).__name__}."
        )
    bundled = source in NAMES
    path = DATA / "photos" / f"{source}.jpg" if bundled else Path(os.path.expanduser(source))
    if path.is_dir():
        raise PhotoError(f"{path} is a folder: give the path of a picture in it.")
    try:
        return path, path.open("rb")
    except FileNotFoundError:
        raise PhotoError(
            f"There is no file {path}: give the path of a picture, or one of {', '.join(NAMES)}."
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PhotoError(
            f"{path} cannot be opened ({reason}): check the path and its permissions."
        ) from None


def _to_rgb(image, deep):
    """deep: whether it is gray with 16 bits."""
    if deep:
        # convert() would clip at 255; 65535 / 257 = 255.
        image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
    if image.has_transparency_data:
        # On white, the page it was drawn for: convert() alone would uncover whatever color is
        # stored under the transparent pixels, mostly black.
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
