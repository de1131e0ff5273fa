"""inputs.photos: what it reads, what it makes of it, and what it refuses in one sentence."""

import hashlib
import io
import struct
import warnings
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
STORED = np.arange(24, dtype=np.uint8).reshape(2, 4, 3) * 10


@pytest.fixture(autouse=True)
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def encoded(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def picture(width=60, height=40, mode="RGB"):
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise).convert(mode)


def pixels(source):
    """The uint8 (H, W, 3) array that load saw."""
    image = photos.load(source, size=None)
    return (image[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()


def png_header(width, height):
    """The start of a PNG of any size, in a hundred bytes."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))


def refusal(source, size=224):
    """The sentence with which load refuses, after checking that it is only one."""
    with pytest.raises(photos.PhotoError) as caught:
        photos.load(source, size)
    sentence = str(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence and ". " not in sentence
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return sentence


# The bundled photos


@pytest.mark.parametrize("name", photos.NAMES)
def test_bundled_photo_is_small_documented_and_without_metadata(name):
    path = FOLDER / f"{name}.jpg"
    assert path.stat().st_size <= 100_000
    row = next(x for x in (FOLDER / "README.md").read_text("utf-8").splitlines() if path.name in x)
    assert hashlib.sha256(path.read_bytes()).hexdigest() in row
    with Image.open(path) as image:
        assert f"{image.width} x {image.height}" in row
        assert not image.getexif() and not {"exif", "icc_profile", "comment"} & set(image.info)


def test_load_all_in_the_order_of_names():
    assert photos.NAMES == ("cat", "coffee", "rocket", "astronaut")
    batch = photos.load_all(64)
    assert batch.shape == (4, 3, 64, 64) and batch.dtype == torch.float32
    assert torch.equal(batch[1:2], photos.load("coffee", 64))
    assert batch.min() >= 0 and batch.max() <= 1 and batch.is_contiguous()
    with pytest.raises(photos.PhotoError, match="needs a size"):
        photos.load_all(None)


def test_default_size_and_whole_picture():
    assert photos.load("cat").shape == (1, 3, 224, 224)
    assert photos.load("cat", None).shape == (1, 3, 300, 451)


# Sources


def test_every_kind_of_source_is_the_same_picture():
    path = FOLDER / "rocket.jpg"
    data = path.read_bytes()
    sources = [str(path), path, data, bytearray(data), memoryview(data)]
    want = photos.load("rocket")
    assert all(torch.equal(photos.load(source), want) for source in sources)


def test_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    picture().save(tmp_path / "mine.png")
    assert photos.load("~/mine.png", None).shape == (1, 3, 40, 60)


def test_a_path_is_never_a_bundled_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "no file cat" in refusal(Path("cat"))


# Pixels


def test_resize_and_crop_are_those_of_torchvision():
    image = picture(600, 300)
    reference = transforms.Compose(
        [
            transforms.Resize(150, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(150),
            transforms.ToTensor(),
        ]
    )
    assert torch.equal(photos.load(encoded(image), 150)[0], reference(image))


def test_a_very_long_picture_costs_no_memory():
    image = photos.load(encoded(Image.new("RGB", (20_000, 1), "red")), 64)
    assert torch.equal(image[0, :, 0, 0], torch.tensor([1.0, 0, 0])) and image.shape[-1] == 64


@pytest.mark.parametrize(
    "orientation, shown",
    [
        (1, STORED),
        (2, STORED[:, ::-1]),
        (3, STORED[::-1, ::-1]),
        (4, STORED[::-1]),
        (5, STORED.transpose(1, 0, 2)),
        (6, np.rot90(STORED, -1)),
        (7, STORED.transpose(1, 0, 2)[::-1, ::-1]),
        (8, np.rot90(STORED)),
    ],
)
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_exif_rotation(format, orientation, shown):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(STORED), format, exif=exif)
    np.testing.assert_array_equal(pixels(data), shown)


def test_broken_exif_is_ignored():
    junk = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\1\x12\0\3"
    assert pixels(encoded(picture(), "JPEG", exif=junk)).shape == (40, 60, 3)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_gray_is_scaled_not_clipped(format):
    ramp = np.array([[0, 256, 257 * 200, 40_000, 65_535]], dtype=np.uint16)
    got = pixels(encoded(Image.fromarray(ramp), format))
    assert got[0, :, 0].tolist() == [0, 1, 200, 156, 255]
    assert (got == got[..., :1]).all()


@pytest.mark.parametrize("mode", ["L", "1"])
def test_gray_fills_three_channels(mode):
    image = picture(mode=mode)
    np.testing.assert_array_equal(pixels(encoded(image))[..., 2], np.asarray(image.convert("L")))


@pytest.mark.parametrize(
    "mode, clear, half", [("RGBA", (9, 0, 0, 0), (0, 0, 0, 128)), ("LA", (0, 0), (0, 128))]
)
def test_alpha_is_composited_on_white(mode, clear, half):
    image = Image.new(mode, (2, 1), clear)
    image.putpixel((1, 0), half)
    assert pixels(encoded(image)).tolist() == [[[255] * 3, [127] * 3]]


@pytest.mark.parametrize("mode, color", [("P", 0), ("L", 0), ("RGB", (0, 0, 0))])
def test_a_transparent_color_is_white(mode, color):
    image = Image.new(mode, (2, 1), color)
    if mode == "P":
        image.putpalette([0, 0, 0, 200, 200, 200])
    image.putpixel((1, 0), {"P": 1, "L": 200, "RGB": (200, 200, 200)}[mode])
    data = encoded(image, transparency=color)
    assert pixels(data).tolist() == [[[255] * 3, [200] * 3]]


def test_palette_with_an_alpha_of_each_entry():
    image = Image.new("P", (2, 1), 0)
    image.putpalette([0, 0, 0, 200, 200, 200])
    image.putpixel((1, 0), 1)
    assert pixels(encoded(image, transparency=b"\x80\xff")).tolist() == [[[127] * 3, [200] * 3]]


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk(format):
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert np.abs(pixels(encoded(red, format)).astype(int) - [255, 0, 0]).max() <= 2


@pytest.mark.parametrize("format", ["GIF", "WEBP"])
def test_first_frame_of_an_animation(format):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    options = {"lossless": True} if format == "WEBP" else {}
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
    assert (pixels(data) == [255, 0, 0]).all()


@pytest.mark.parametrize("format", photos.FORMATS)
def test_every_format(format):
    assert pixels(encoded(picture(), format)).shape == (40, 60, 3)


# Refusals


@pytest.mark.parametrize("size", [0, -3, 224.0, "224", True, (224, 224), 4097, 10**12])
def test_bad_size(size):
    sentence = refusal("cat", size)
    assert repr(size) in sentence and "1 to 4096" in sentence


def test_misspelled_name_lists_the_names():
    sentence = refusal("astronat")
    assert "no file astronat" in sentence and "cat, coffee, rocket, astronaut" in sentence


def test_missing_file_folder_and_impossible_path(tmp_path):
    assert "no file" in refusal(tmp_path / "none.jpg")
    assert "is a folder" in refusal(str(tmp_path))
    assert "cannot be opened" in refusal("a\0b")
    (tmp_path / "file").touch()
    assert "Not a directory" in refusal(tmp_path / "file" / "cat.jpg")


def test_unreadable_file(tmp_path, monkeypatch):
    def deny(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", deny)
    assert "(Permission denied)" in refusal(tmp_path / "cat.jpg")


@pytest.mark.parametrize("source", [None, 3, ["cat"], np.zeros((4, 4))])
def test_wrong_type_names_the_type(source):
    sentence = refusal(source)
    assert type(source).__name__ in sentence and "upload.value[0].content" in sentence


def test_empty(tmp_path):
    (tmp_path / "empty.jpg").touch()
    assert "empty.jpg is empty" in refusal(tmp_path / "empty.jpg")
    assert "The uploaded file is empty" in refusal(b"")


@pytest.mark.parametrize(
    "data", [b"hello", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"P6 1 1 255\nRGB", b"\0" * 5000]
)
def test_not_a_picture(data):
    assert "is not a JPEG" in refusal(data)


@pytest.mark.parametrize("format", photos.FORMATS)
def test_truncated(format, tmp_path):
    data = encoded(picture(200, 200), format)
    path = tmp_path / "half"
    path.write_bytes(data[: len(data) // 2])
    assert "half is cut off" in refusal(path)
    assert "The uploaded file" in refusal(data[:20])


def test_damage_in_the_middle():
    head, name, tail = encoded(picture(200, 200), compress_level=0).rpartition(b"IDAT")
    assert b"IDAT" in head  # Pillow raises SyntaxError for the second one
    assert "is cut off or damaged" in refusal(head + b"\x83" + name[1:] + tail)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_32_bit_pixels(mode):
    assert "32-bit" in refusal(encoded(picture(mode=mode), "TIFF"))


# Pillow stays silent up to 89 megapixels, warns up to twice that, then raises.
@pytest.mark.parametrize("shape", [(5001, 10_000), (10_000, 10_000), (20_000, 20_000)])
def test_more_than_50_megapixels_are_refused_before_decoding(shape):
    assert "more than 50 megapixels" in refusal(png_header(*shape))


def test_50_megapixels_are_not_too_many():
    assert "cut off" in refusal(png_header(5000, 10_000))


def test_damage_never_raises_anything_else():
    rng = np.random.default_rng(0)
    for format in photos.FORMATS:
        good = encoded(picture(), format)
        for _ in range(60):
            data = bytearray(good)
            for place in rng.integers(0, min(len(data), 400), 4):
                data[place] = rng.integers(256)
            try:
                assert photos.load(data, 8).shape == (1, 3, 8, 8)
            except photos.PhotoError:
                refusal(data, 8)
