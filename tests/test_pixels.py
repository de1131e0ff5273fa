"""inputs/pixels.py against the published formulas, MXNet's recorded numbers, torch's own conv."""

import copy
import json
import math
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torchvision.transforms import v2

from helpers import DATA
from helpers.inputs import photos
from helpers.inputs.diagnose import diagnose
from helpers.inputs.pixels import (
    FORMATS,
    KNOWN,
    PLAIN,
    PadWithColor,
    PixelFormat,
    Rescale,
    convert,
    fold,
    loader_mistakes,
)

GOLDEN = json.loads((DATA / "golden" / "mxnet_rescale.json").read_text())
LEVELS_BGR = ["detectron", "detectron2", "keras-caffe"]
PHOTOS = {name: photos.load(name) for name in photos.NAMES}
PAIRS = list(product(KNOWN, repeat=2))


def draw(*shape, dtype=torch.float32, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def conv2d(dtype=torch.float32, kernel=3, **options):
    """A convolution with uniform weights, whose outputs stay near 1 for an input near 1."""
    conv = nn.Conv2d(3, 5, kernel, **options)
    with torch.no_grad():
        for index, parameter in enumerate(conv.parameters()):
            values = 2 * draw(*parameter.shape, seed=index) - 1
            parameter.copy_(values / math.sqrt(conv.weight[0].numel()))
    return conv.to(dtype)


def channels(*values):
    return torch.tensor(values, dtype=torch.float64).reshape(3, 1, 1)


MEAN, STD = (channels(*GOLDEN[name]) for name in ("mean", "std"))

# The formulas as each project publishes them, on RGB levels 0–255; nothing of inputs/pixels.py.
PUBLISHED = {
    "torchvision": lambda x: v2.functional.normalize(
        x / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    ),
    "detectron": lambda x: x.flip(-3) - channels(102.9801, 115.9465, 122.7717),
    "detectron2": lambda x: (x.flip(-3) - channels(103.53, 116.28, 123.675)) / channels(1, 1, 1),
    "keras-caffe": lambda x: x.flip(-3) - channels(103.939, 116.779, 123.68),
    "keras-torch": lambda x: (
        (x / 255 - channels(0.485, 0.456, 0.406)) / channels(0.229, 0.224, 0.225)
    ),
    "keras-tf": lambda x: x / 127.5 - 1,
    "mmdet-pytorch": lambda x: (
        (x - channels(123.675, 116.28, 103.53)) / channels(58.395, 57.12, 57.375)
    ),
    "gluoncv": lambda x: (x / 255 - channels(0.485, 0.456, 0.406)) / channels(0.229, 0.224, 0.225),
}


# formats and convert


def test_a_format_is_its_formula():
    odd = PixelFormat("BGR", -2, 3, (0.5, 1, 2), (4, 5, 6))
    p = draw(3, 4, 4, dtype=torch.float64)
    expected = ((-2 + 5 * p.flip(0)) - channels(0.5, 1, 2)) / channels(4, 5, 6)
    torch.testing.assert_close(convert(p, PLAIN, odd), expected)


@pytest.mark.parametrize(
    "values, sentence",
    [
        (("RBG", 0, 1), 'The order is \'RBG\': choose "RGB" or "BGR".'),
        (("RGB", 1, 1), r"The range 1 … 1 must rise, and be finite\."),
        (("RGB", 0, math.nan), r"The range 0 … nan must rise"),
        (("RGB", 0, math.inf), r"The range 0 … inf must rise"),
        (("RGB", 0, 1, (0, 0)), r"mean is \(0, 0\): give a tuple of three finite numbers\."),
        (("RGB", 0, 1, 0.5), r"mean is 0.5: give a tuple of three"),
        (("RGB", 0, 1, (0, 0, math.nan)), "mean is .*: give a tuple of three"),
        (("RGB", 0, 1, (0, 0, 0), (1, 0, 1)), r"std is \(1, 0, 1\): .* three positive numbers\."),
    ],
)
def test_a_format_that_cannot_be_says_so(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        PixelFormat(*values)


def test_every_pair_follows_the_published_formulas():
    assert list(FORMATS) == list(PUBLISHED)
    levels = 255 * draw(2, 3, 5, 7, dtype=torch.float64)
    for source, target in product(FORMATS, repeat=2):
        stored, expected = PUBLISHED[source](levels), PUBLISHED[target](levels)
        converted = convert(stored, source, target)
        torch.testing.assert_close(converted, expected, rtol=1e-12, atol=1e-12)
        single = stored.float()
        once = convert(single.double(), source, target).float()
        assert torch.equal(convert(single, source, target), once)


def test_every_pair_goes_there_and_back():
    for (source, target), dtype in product(PAIRS, (torch.float32, torch.float64)):
        image = convert(draw(3, 6, 5, dtype=dtype), PLAIN, source)
        there = convert(image, source, target)
        back = convert(there, target, source)
        assert back.dtype == dtype and there.data_ptr() != image.data_ptr()
        # Each format rounds at the size of its values, which is at most 4 times their range.
        span = image.max() - image.min()
        assert (back - image).abs().max() <= 8 * torch.finfo(dtype).eps * span, (source, target)
        assert source != target or torch.equal(there, image)


def test_dtype_batch_shape_and_gradient_carry_over():
    image = draw(3, 4, 5)
    for dtype in (torch.float16, torch.bfloat16):
        assert convert(image.to(dtype), PLAIN, "keras-caffe").dtype == dtype
    batch = convert(image[None].repeat(2, 1, 1, 1), PLAIN, "detectron2")
    assert torch.equal(batch[1], convert(image, PLAIN, "detectron2"))
    x = image.clone().requires_grad_()
    convert(x, PLAIN, "detectron").sum().backward()
    assert torch.equal(x.grad, torch.full_like(x, 255))


@pytest.mark.parametrize(
    "image, error, sentence",
    [
        ([[0.5]], TypeError, r"must be a tensor, not list: photos\.load gives one\.$"),
        (
            torch.zeros(3, 2, 2, dtype=torch.uint8),
            TypeError,
            r"^The image is torch\.uint8: make it floating point, divided by 255\.$",
        ),
        (torch.zeros(1, 1, 2, 2), ValueError, r"\(N,3,H,W\), not \(1, 1, 2, 2\)\.$"),
        (torch.zeros(4, 5, 3), ValueError, r"not \(4, 5, 3\)"),
        (torch.zeros(3, 4), ValueError, r"not \(3, 4\)"),
        (torch.zeros(1, 1, 3, 2, 2), ValueError, r"not \(1, 1, 3, 2, 2\)"),
        (torch.zeros(0, 3, 2, 2), ValueError, r"not \(0, 3, 2, 2\)"),
        (torch.full((3, 2, 2), math.nan), ValueError, "^The image holds NaN or infinity: give"),
        (torch.full((3, 2, 2), math.inf), ValueError, "holds NaN or infinity"),
    ],
)
def test_a_bad_image_gets_one_sentence(image, error, sentence):
    calls = [lambda image: convert(image, PLAIN, "torchvision")]
    if "NaN" not in sentence:
        calls += [Rescale(), PadWithColor((1, 1, 1, 1), (0, 0, 0)), *loader_mistakes.values()]
    for call in calls:
        with pytest.raises(error, match=sentence):
            call(image)


def test_a_result_beyond_the_dtype_is_refused():
    image = torch.full((3, 2, 2), 300, dtype=torch.float16)
    with pytest.raises(ValueError, match=r"^torch\.float16 cannot hold the result: give the image"):
        convert(image, PLAIN, "0-255")
    assert convert(image.float(), PLAIN, "0-255").eq(76_500).all()
    assert convert(image - 100, PLAIN, "0-255").eq(51_000).all()


def test_an_unknown_format_is_answered_with_the_names():
    image = draw(3, 2, 2)
    for name in ("caffe", None, ["RGB"], ""):
        calls = [lambda n: convert(image, PLAIN, n), lambda n: fold(conv2d(), n, PLAIN)]
        for call in calls:
            with pytest.raises(ValueError, match=r"one of torchvision, .*, or give a PixelFormat"):
                call(name)


# Rescale


def test_rescale_equals_what_mxnet_and_gluoncv_recorded():
    layer = Rescale()
    for name, constant in GOLDEN["constants"].items():
        assert getattr(layer, name).flatten().tolist() == constant["value"]
    rescaled = layer(torch.tensor(GOLDEN["normalized_CHW"])[None])
    assert torch.equal(rescaled, torch.tensor(GOLDEN["rescaled_NCHW"]))


def test_the_recorded_preset_is_the_gluoncv_format():
    image = torch.tensor(GOLDEN["to_tensor_CHW"])
    assert torch.equal(image, torch.tensor(GOLDEN["image_uint8_HWC"]).permute(2, 0, 1) / 255)
    normalized = torch.tensor(GOLDEN["normalized_CHW"])
    torch.testing.assert_close(convert(image, PLAIN, "gluoncv"), normalized, rtol=0, atol=1e-6)


def test_rescale_takes_every_level_back():
    image = torch.arange(256.0).reshape(1, 1, 1, 256).repeat(1, 3, 1, 1) / 255
    back = Rescale()(convert(image, PLAIN, "gluoncv"))
    assert (back - image * 255).abs().max() <= 1.6e-5
    assert GOLDEN["roundtrip_all_256_levels"]["max_abs_error"] <= 1.6e-5


# fold

CONVS = [
    {"kernel": 7, "stride": 2, "padding": 3, "bias": False},
    {"padding": 2, "dilation": 2},
    {"padding": "same"},
    {"kernel": (3, 4), "padding": "same", "dilation": (2, 1)},
    {"padding": "valid"},
    {"kernel": (3, 5), "padding": (2, 0), "stride": (1, 2)},
]


def rounding(reference, bound=2e-5):
    return bound * max(1, reference.abs().max().item())


@torch.no_grad()
def test_the_fold_is_right_everywhere_and_with_zeros_at_the_border_only_inside():
    conv = conv2d(padding=1)
    for source, target in PAIRS:
        image = convert(draw(2, 3, 7, 8), PLAIN, source)
        expected = conv(convert(image, source, target))
        folded = fold(conv, source, target)
        assert (folded(image) - expected).abs().max() <= rounding(expected), (source, target)
        naive = copy.deepcopy(folded[1])
        naive.padding = (1, 1)
        off = (naive(image) - expected).abs().amax((0, 1))
        assert off[1:-1, 1:-1].max() <= rounding(expected)
        if max(map(abs, folded[0].color)) > 1e-12:
            off[1:-1, 1:-1] = math.inf
            assert off.min() > rounding(expected)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
def test_the_fold_holds_for_every_shape_of_convolution():
    pairs = (("0-1", "torchvision"), ("0-255", "keras-caffe"), ("BGR", "gluoncv"))
    dtypes = (torch.float32, torch.float64)
    for options, dtype, (source, target) in product(CONVS, dtypes, pairs):
        conv = conv2d(dtype=dtype, **options)
        image = convert(draw(1, 3, 13, 16, dtype=dtype), PLAIN, source)
        expected = conv(convert(image, source, target))
        bound = rounding(expected, 2e-5 if dtype == torch.float32 else 1e-13)
        output = fold(conv, KNOWN[source], KNOWN[target])(image)
        assert output.dtype == dtype and output.shape == expected.shape
        assert (output - expected).abs().max() <= bound, options
        assert (fold(conv, source, target)(image[0]) - output[0]).abs().max() <= bound


def test_the_border_has_the_mean_color():
    pad = fold(conv2d(padding=(1, 2)), "0-255", "detectron2")[0]
    assert pad.padding == (2, 2, 1, 1)
    assert pad.color == pytest.approx((123.675, 116.28, 103.53))


def test_padding_with_a_color():
    image = draw(2, 3, 4, 5)
    black = F.pad(image, (1, 2, 3, 4), value=0)
    assert torch.equal(PadWithColor((1, 2, 3, 4), (0, 0, 0))(image), black)
    padded = PadWithColor((1, 2, 3, 4), (0.1, 0.2, 0.3))(image)
    assert torch.equal(padded[..., 3:-4, 1:-2], image)
    assert torch.equal(padded[0, :, 0, 0], torch.tensor([0.1, 0.2, 0.3]))


def test_the_convolution_stays_as_it_was_and_lends_what_it_is():
    conv = conv2d(padding=1, bias=False).eval().half()
    conv.weight.requires_grad_(False)
    conv.register_forward_hook(lambda *_: None)
    before = conv.weight.clone()
    folded = fold(conv, PLAIN, "torchvision")
    assert torch.equal(conv.weight, before) and conv.bias is None and conv.padding == (1, 1)
    assert not any(module.training for module in folded.modules())
    assert {(p.dtype, p.requires_grad) for p in folded.parameters()} == {(torch.float16, False)}
    assert len(folded[1]._forward_hooks) == 1
    assert all(p.is_meta for p in fold(conv.to("meta"), PLAIN, "torchvision").parameters())
    trainable = fold(conv2d(padding=1), PLAIN, "torchvision")
    assert trainable.training and all(p.requires_grad for p in trainable.parameters())


def test_the_fold_exports():
    folded, image = fold(conv2d(padding=1), "0-255", "torchvision"), 255 * draw(1, 3, 8, 8)
    exported = torch.export.export(folded, (image,)).module()
    torch.testing.assert_close(exported(image), folded(image))


class Special(nn.Conv2d):
    pass


@pytest.mark.parametrize(
    "conv, error, sentence",
    [
        (nn.Linear(3, 3), TypeError, r"^Only an nn\.Conv2d itself can be folded, not Linear\.$"),
        (Special(3, 4, 1), TypeError, "not Special"),
        (nn.Conv2d(4, 4, 1), ValueError, r"has 4 input channels in 1 group\(s\)"),
        (nn.Conv2d(3, 3, 1, groups=3), ValueError, r"has 3 input channels in 3 group\(s\)"),
        (
            nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"),
            ValueError,
            r"^The padding mode is 'reflect': only 'zeros' can be folded\.$",
        ),
    ],
)
def test_what_cannot_be_folded_says_why(conv, error, sentence):
    with pytest.raises(error, match=sentence):
        fold(conv, PLAIN, "torchvision")


# loader_mistakes


def test_the_mistakes_are_their_definitions():
    p = photos.load("astronaut").double()
    expected = {
        "0-255": p * 255,
        "halved": p / 2,
        "normalized twice": (p - MEAN) / STD,
        "BGR": p.flip(1),
        "-1 to 1": 2 * p - 1,
        "caffe style": p.flip(1) * 255 - channels(103.939, 116.779, 123.68),
        "divided twice": p / 255,
    }
    for name, tensor in expected.items():
        torch.testing.assert_close(loader_mistakes[name](p), tensor)
    assert set(loader_mistakes) == {*expected, "gamma"}


def test_gamma_undoes_srgb():
    p = torch.linspace(0, 1, 999, dtype=torch.float64).reshape(3, 9, 37)
    linear = loader_mistakes["gamma"](p)
    encoded = torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    torch.testing.assert_close(encoded, p, rtol=0, atol=1e-7)  # IEC's knees round to 8e-8


# diagnose


def test_the_true_format_is_never_excluded_even_dim_or_resized():
    for name, photo, bright in product(KNOWN, PHOTOS.values(), (1, 0.1)):
        image = convert(bright * photo[..., ::2, ::2], PLAIN, name)
        for shown in (image, F.interpolate(image, (150, 150), mode="bicubic")):
            diagnosis = diagnose(shown, name)
            assert name in diagnosis.allowed and diagnosis.warning == "", (name, bright)
            assert set(diagnosis.allowed) | set(diagnosis.excluded) == set(KNOWN)
            assert not set(diagnosis.allowed) & set(diagnosis.excluded)


def test_an_excluded_format_would_have_no_picture():
    ends = torch.tensor([0.0, 255.0], dtype=torch.float64).reshape(1, 1, 2).expand(3, 1, 2)
    for name, photo in product(KNOWN, PHOTOS.values()):
        image = convert(photo[..., ::2, ::2], PLAIN, name)
        values, excluded = image.double().flatten(2)[0], diagnose(image).excluded
        for other, published in PUBLISHED.items():
            black, white = published(ends)[:, 0].unbind(-1)
            low, high = ((v - black) / (white - black) for v in (values.amin(1), values.amax(1)))
            beyond = max(-low.min(), high.max() - 1) > 0.2
            flat = (high - low).max() * 255 <= 8  # the photos have more than 9 values
            assert (other in excluded) == bool(beyond or flat), (name, other)


def test_dim_levels_are_not_told_for_a_format_of_their_own():
    for photo in PHOTOS.values():
        levels = (100 * photo).round()
        diagnosis = diagnose(levels, expected="0-1")
        assert diagnosis.allowed == (*LEVELS_BGR, "0-255")
        assert diagnosis.warning == (
            f"Values up to {levels.max():.0f}, above 1: not 0-1; "
            "perhaps levels 0–255: divide by 255."
        )


WARNINGS = {
    "0-255": "above 1: not 0-1; perhaps levels 0–255: divide by 255.",
    "normalized twice": "not 0-1; perhaps torchvision or ",
    "-1 to 1": "below 0: not 0-1; perhaps torchvision or keras-torch or keras-tf or ",
    "caffe style": "not 0-1; perhaps detectron or detectron2 or keras-caffe.",
    "divided twice": "Values all within 8 of 255 levels: not 0-1; perhaps divided twice.",
}


def test_the_mistakes_that_the_values_show_are_warned_of():
    for (name, load), photo in product(loader_mistakes.items(), PHOTOS.values()):
        diagnosis = diagnose(load(photo), "0-1")
        if name in WARNINGS:
            assert WARNINGS[name] in diagnosis.warning and "0-1" in diagnosis.excluded
        else:  # a picture may be blue, and it may be dark
            assert name in ("BGR", "gamma", "halved")
            assert diagnosis.warning == "" and {"0-1", "BGR"} <= set(diagnosis.allowed)
        assert diagnose(load(photo)).warning == ""


def test_only_the_values_that_a_format_cannot_have_are_warned_of():
    levels, dark = 255 * PHOTOS["astronaut"], (draw(3, 40, 40) ** 8)
    half = PixelFormat("RGB", -0.5, 0.5)
    for image, expected, warning in (
        (dark, "0-1", ""),
        (torch.zeros(3, 4, 4), "0-1", ""),
        (torch.zeros(3, 4, 4), "0-255", ""),
        ((5 * dark).round(), "0-255", ""),  # a black picture, but of whole levels
        (dark, "0-255", "Values all within 8 of 255 levels: not 0-255; perhaps 0-1 or "),
        (levels, "torchvision", "not torchvision; perhaps levels 0–255."),
        (levels, "detectron", "not detectron; perhaps levels 0–255."),
        (convert(levels, "0-255", half), half, ""),
        (levels, half, "Values up to 255, above 0.5: not the expected format; perhaps levels"),
        (1e4 * dark, "0-1", "not 0-1; perhaps no known format."),
        (1e4 * dark, None, "No known format allows these values."),
    ):
        told = diagnose(image, expected).warning
        assert warning in told and bool(told) == bool(warning), (expected, told)


def test_what_a_detector_holds_after_its_own_normalization():
    for photo in PHOTOS.values():
        twice = convert(loader_mistakes["normalized twice"](photo), PLAIN, "torchvision")
        diagnosis = diagnose(twice, "torchvision")
        assert "torchvision, twice" in diagnosis.allowed
        assert "below -2.12: not torchvision" in diagnosis.warning
        torch.testing.assert_close(convert(twice, "torchvision, twice", PLAIN), photo)


def test_an_image_of_any_kind_and_layout_is_taken():
    levels = (255 * PHOTOS["cat"]).round().byte()
    hwc = levels[0].permute(1, 2, 0)
    batch = PHOTOS["cat"].clone().requires_grad_()
    wanted = diagnose(levels.double())
    for image in (
        levels,
        levels[0],
        levels.permute(0, 2, 3, 1),
        hwc,
        hwc.numpy(),
        hwc.numpy()[:, ::-1],
        levels.numpy().astype(np.float16),
        Image.fromarray(hwc.numpy()),
        torch.cat([levels, levels]).int(),
    ):
        assert diagnose(image) == wanted
    assert "0-1" in diagnose(batch).allowed and torch.equal(batch, PHOTOS["cat"])
    with pytest.raises(TypeError, match="must be a tensor, not ndarray"):
        diagnose(np.array([["red"]]))
    with pytest.raises(TypeError, match="The image is torch.complex64: make it floating point"):
        diagnose(levels * 1j)
    with pytest.raises(ValueError, match=r"must have shape .*, not \(4, 4\)"):
        diagnose(Image.new("I;16", (4, 4), 40_000))  # RGB would clip it to 255
