"""inputs.photos: what it reads, what it makes of it, and what it refuses in one sentence."""

import hashlib
import io
import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from helpers import DATA
from helpers.inputs import photos

FOLDER = DATA / "photos"
pytestmark = pytest.mark.filterwarnings("ignore:::PIL")  # of damaged or huge files


def encoded(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def picture(width=60, height=40):
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def pixels(source):
    """The uint8 (H, W, 3) array that load saw."""
    image = photos.load(source, size=None)
    return (image[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()


def png_of(width, height):
    """A small PNG whose header says that it is larger."""
    data = bytearray(encoded(picture()))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return data


def refusal(source, size=224):
    """The sentence with which load refuses, after checking that it is only one."""
    with pytest.raises(photos.PhotoError) as caught:
        photos.load(source, size)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert re.fullmatch(r"(?!.*\. ).*\.", str(caught.value)), "not one sentence"
    return str(caught.value)


def test_bundled_photos_are_small_documented_and_without_metadata():
    readme = (FOLDER / "README.md").read_text("utf-8").splitlines()
    for name in photos.NAMES:
        path = FOLDER / f"{name}.jpg"
        assert path.stat().st_size <= 100_000
        row = next(line for line in readme if path.name in line)
        assert hashlib.sha256(path.read_bytes()).hexdigest() in row
        with Image.open(path) as image:
            assert f"{image.width} x {image.height}" in row
            assert not image.getexif() and not {"exif", "icc_profile", "comment"} & set(image.info)


def test_load_all_in_the_order_of_names():
    batch = photos.load_all(64)
    assert batch.shape == (4, 3, 64, 64) and batch.dtype == torch.float32
    for name, image in zip(("cat", "coffee", "rocket", "astronaut"), batch, strict=True):
        assert torch.equal(image, photos.load(name, 64)[0])
    assert batch.min() >= 0 and batch.max() <= 1 and batch.is_contiguous()
    assert photos.load("cat").shape == (1, 3, 224, 224)
    assert photos.load("cat", None).shape == (1, 3, 300, 451)


def test_every_kind_of_source_is_the_same_picture(monkeypatch):
    monkeypatch.setenv("USERPROFILE" if os.name == "nt" else "HOME", str(FOLDER))
    data = (path := FOLDER / "rocket.jpg").read_bytes()
    for source in (str(path), path, "~/rocket.jpg", data, bytearray(data), memoryview(data)):
        assert torch.equal(photos.load(source), photos.load("rocket"))


def test_resize_and_crop_are_those_of_torchvision():
    resize = transforms.Resize(150, transforms.InterpolationMode.BICUBIC)
    steps = transforms.Compose([resize, transforms.CenterCrop(150), transforms.ToTensor()])
    image = picture(600, 300)
    assert torch.equal(photos.load(encoded(image), 150)[0], steps(image))
    long = photos.load(encoded(Image.new("RGB", (20_000, 1), "red")), 64)
    assert long.shape == (1, 3, 64, 64) and long[0, :, 0, 0].tolist() == [1, 0, 0]


def test_exif_rotation_and_broken_exif():
    stored = np.arange(24, dtype=np.uint8).reshape(2, 4, 3) * 10
    for orientation, shown in {3: stored[::-1, ::-1], 6: np.rot90(stored, -1)}.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(Image.fromarray(stored), exif=exif)
        np.testing.assert_array_equal(pixels(data), shown)
    junk = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\1\x12\0\3"
    assert pixels(encoded(picture(), "JPEG", exif=junk)).shape == (40, 60, 3)


def test_every_color_mode_becomes_rgb():
    """Of two pixels one is transparent where the mode can say so, and shows white."""
    white, gray, clear = [255] * 3, [200] * 3, {"transparency": 0}
    for mode, first, second, options, shown in (
        ("RGBA", (9, 0, 0, 0), (200, 200, 200, 255), {}, white),
        ("LA", (0, 128), (200, 255), {}, [127] * 3),
        ("P", 0, 200, clear, white),
        ("L", 0, 200, clear, white),
        ("RGB", (0, 0, 0), (200, 200, 200), {"transparency": (0, 0, 0)}, white),
    ):
        image = Image.new(mode, (2, 1), first)
        if mode == "P":
            image.putpalette([level for level in range(256) for _ in range(3)])
        image.putpixel((1, 0), second)
        assert pixels(encoded(image, **options)).tolist() == [[shown, gray]], (mode, first)
    red = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG")
    assert np.abs(pixels(red).astype(int) - [255, 0, 0]).max() <= 2


def test_sizes_and_sources_that_are_none():
    for size in (0, -3, 224.0, "224", True, (224, 224), 4097, 10**12):
        assert f"size is {size!r}: give a whole number from 1 to 4096" in refusal("cat", size)
    for source in (None, 3, ["cat"], np.zeros((4, 4))):
        assert f"content), not {type(source).__name__}" in refusal(source)


@pytest.mark.posix
def test_paths_that_lead_to_no_picture(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("empty.jpg").touch()
    os.mkfifo("pipe")
    long = "x" * 300
    for path in ("astronat", Path("cat"), "pipe", long, "~no-one/cat.jpg", "a\0b", "empty.jpg/x"):
        assert f"no file {path}: give the path of a picture, or one of cat," in refusal(path)
    assert "is a folder" in refusal(str(tmp_path))
    assert "jpg is empty" in refusal("empty.jpg") and "file is empty" in refusal(b"")


def test_files_that_are_no_pictures_of_8_bits():
    heic, svg = b"\0\0\0\x18ftypheic" + bytes(99), b"<svg xmlns='http://www.w3.org/2000/svg'/>"
    for data in (b"hello", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"P6 1 1 255\nRGB", heic, svg):
        assert "is not a JPEG" in refusal(data)
    for dtype in (np.uint16, np.int32, np.float32):
        image = Image.fromarray(np.full((4, 4), 300, dtype))
        assert "16 or 32 bits" in refusal(encoded(image, "TIFF"))


# Pillow stays silent up to 89 megapixels, warns up to twice that, then raises.
def test_more_than_50_megapixels_are_refused_before_decoding():
    for shape in ((5001, 10_000), (10_000, 10_000), (20_000, 20_000)):
        assert "more than 50 megapixels" in refusal(png_of(*shape))
    assert "cut off" in refusal(png_of(5000, 10_000))


@pytest.mark.parametrize("format", photos.FORMATS)
def test_damage_is_one_sentence(format, tmp_path):
    data = encoded(picture(200, 200), format)
    (tmp_path / "half").write_bytes(data[: len(data) // 2])
    assert "half is cut off" in refusal(tmp_path / "half")
    rng, data = np.random.default_rng(0), encoded(picture(), format)
    assert pixels(data).shape == (40, 60, 3)
    for _ in range(60):
        damaged = bytearray(data)
        for place in rng.integers(0, min(len(data), 400), 4):
            damaged[place] = rng.integers(256)
        try:
            assert photos.load(damaged, 8).shape == (1, 3, 8, 8)
        except photos.PhotoError:
            refusal(damaged, 8)
