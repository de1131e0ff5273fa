"""Remake the bundled photos from an installed scikit-image: python -m data.photos.make

Prints the sha256 of each file, as README.md lists them (made with scikit-image 0.26.0 and
Pillow 13.0.0; another JPEG encoder may write other bytes of the same picture).
"""

import hashlib
from pathlib import Path

from PIL import Image

HERE = Path(__file__).resolve().parent
SOURCES = {"cat": "chelsea", "coffee": "coffee", "rocket": "rocket", "astronaut": "astronaut"}
SHORT_SIDE = 320


def main():
    try:
        from skimage import data
    except ImportError:
        raise SystemExit("The photos come with scikit-image: pip install scikit-image") from None
    for name, source in SOURCES.items():
        photo = Image.fromarray(getattr(data, source)())
        shrink = min(1, SHORT_SIDE / min(photo.size))
        size = [round(side * shrink) for side in photo.size]
        path = HERE / f"{name}.jpg"
        photo.resize(size, Image.Resampling.BICUBIC).save(
            path, quality=90, subsampling="4:4:4", optimize=True
        )
        print(f"{path.name:14} {hashlib.sha256(path.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()
