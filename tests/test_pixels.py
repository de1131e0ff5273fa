"""inputs/pixels.py against the published formulas, MXNet's recorded numbers, torch's own conv."""

import copy
import json
import math
from html.parser import HTMLParser
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.transforms import v2

from helpers import DATA
from helpers.inputs import photos
from helpers.inputs.pixels import (
    FORMATS,
    KNOWN,
    PLAIN,
    PadWithColor,
    PixelFormat,
    Rescale,
    convert,
    diagnose,
    fold,
    fold_naively,
    loader_mistakes,
)

GOLDEN = json.loads((DATA / "golden" / "mxnet_rescale.json").read_text())
PAIRS = list(product(KNOWN, repeat=2))
IMAGENET = ["torchvision", "keras-torch", "mmdet-pytorch", "gluoncv"]
LEVELS_BGR = ["detectron", "detectron2", "keras-caffe"]
PHOTOS = {name: photos.load(name) for name in photos.NAMES}


def draw(*shape, dtype=torch.float32, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def conv2d(seed=0, dtype=torch.float32, out=5, kernel=3, **options):
    """Uniform weights whose outputs stay near 1 for an input near 1."""
    conv = nn.Conv2d(3, out, kernel, **options)
    with torch.no_grad():
        for index, parameter in enumerate(conv.parameters()):
            values = 2 * draw(*parameter.shape, seed=10 * seed + index) - 1
            parameter.copy_(values / math.sqrt(conv.weight[0].numel()))
    return conv.to(dtype)


def channels(*values):
    return torch.tensor(values, dtype=torch.float64).reshape(3, 1, 1)


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


# formats


def test_the_formats_are_the_eight_with_a_source_each():
    assert list(FORMATS) == list(PUBLISHED)
    assert all(format.source for format in (PLAIN, *FORMATS.values()))


def test_a_format_is_its_formula():
    odd = PixelFormat("BGR", -2, 3, (0.5, 1, 2), (4, 5, 6))
    p = draw(3, 4, 4, dtype=torch.float64)
    expected = ((-2 + 5 * p.flip(0)) - channels(0.5, 1, 2)) / channels(4, 5, 6)
    torch.testing.assert_close(convert(p, PLAIN, odd), expected)


def test_the_source_does_not_tell_formats_apart():
    assert FORMATS["torchvision"] == FORMATS["gluoncv"] != FORMATS["mmdet-pytorch"]
    assert hash(FORMATS["torchvision"]) == hash(FORMATS["gluoncv"])
    assert "source" not in repr(PLAIN)


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
        (("RGB", 0, 1, (0, 0, 0), (1, 0, 1)), r"std is \(1, 0, 1\): give three positive numbers\."),
    ],
)
def test_a_format_that_cannot_be_says_so(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        PixelFormat(*values)


# convert


@pytest.mark.parametrize("target", FORMATS)
@pytest.mark.parametrize("source", FORMATS)
def test_every_pair_follows_the_published_formulas(source, target):
    levels = 255 * draw(2, 3, 5, 7, dtype=torch.float64)
    stored, expected = PUBLISHED[source](levels), PUBLISHED[target](levels)
    found = convert(stored, source, target)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    single = convert(stored.float(), source, target)
    once = convert(stored.float().double(), source, target).float()
    assert torch.equal(single, once)


@pytest.mark.parametrize("source, target", PAIRS)
def test_every_pair_goes_there_and_back(source, target):
    for dtype, seed in product((torch.float32, torch.float64), range(3)):
        image = convert(draw(3, 6, 5, dtype=dtype, seed=seed), PLAIN, source)
        back = convert(convert(image, source, target), target, source)
        assert back.dtype == dtype
        # Each format rounds at the size of its values, which is at most 4 times their range.
        span = image.max() - image.min()
        assert (back - image).abs().max() <= 8 * torch.finfo(dtype).eps * span


@pytest.mark.parametrize("name", KNOWN)
def test_the_same_format_changes_nothing_and_shares_nothing(name):
    image = 255 * draw(1, 3, 4, 4)
    same = convert(image, name, name)
    assert torch.equal(same, image)
    assert same.data_ptr() != image.data_ptr()


def test_dtype_batch_shape_and_gradient_carry_over():
    image = draw(3, 4, 5)
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        assert convert(image.to(dtype), PLAIN, "keras-caffe").dtype == dtype
    batch = convert(image[None].repeat(2, 1, 1, 1), PLAIN, "detectron2")
    assert torch.equal(batch[1], convert(image, PLAIN, "detectron2"))
    x = image.clone().requires_grad_()
    convert(x, PLAIN, "detectron").sum().backward()
    assert torch.equal(x.grad, torch.full_like(x, 255))


BAD_IMAGES = {
    "not a tensor": ([[0.5]], TypeError, r"must be a tensor, not list: photos\.load gives one\.$"),
    "uint8": (
        torch.zeros(3, 2, 2, dtype=torch.uint8),
        TypeError,
        r"^The image is torch\.uint8: make it floating point, divided by 255\.$",
    ),
    "bool": (torch.zeros(3, 2, 2, dtype=torch.bool), TypeError, "is torch.bool"),
    "gray": (torch.zeros(1, 1, 2, 2), ValueError, r"\(N,3,H,W\), not \(1, 1, 2, 2\)\.$"),
    "channels last": (torch.zeros(4, 5, 3), ValueError, r"not \(4, 5, 3\)"),
    "two dimensions": (torch.zeros(3, 4), ValueError, r"not \(3, 4\)"),
    "video": (torch.zeros(1, 1, 3, 2, 2), ValueError, r"not \(1, 1, 3, 2, 2\)"),
    "empty": (torch.zeros(0, 3, 2, 2), ValueError, r"not \(0, 3, 2, 2\)"),
    "NaN": (torch.full((3, 2, 2), math.nan), ValueError, "^The image holds NaN or infinity: give"),
    "infinity": (torch.full((3, 2, 2), math.inf), ValueError, "holds NaN or infinity"),
}


@pytest.mark.parametrize("image, error, sentence", BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_a_bad_image_gets_one_sentence(image, error, sentence):
    with pytest.raises(error, match=sentence):
        convert(image, PLAIN, "torchvision")
    with pytest.raises(error, match=sentence):
        diagnose(image)
    if "NaN" not in sentence:
        for call in (Rescale(), PadWithColor((1, 1, 1, 1), (0, 0, 0)), *loader_mistakes.values()):
            with pytest.raises(error, match=sentence):
                call(image)


@pytest.mark.parametrize("name", ["caffe", None, ["RGB"], ""])
def test_an_unknown_format_is_answered_with_the_names(name):
    sentence = r"choose one of torchvision, detectron, .*, gluoncv, or give a PixelFormat\.$"
    for call in (
        lambda: convert(draw(3, 2, 2), PLAIN, name),
        lambda: fold(conv2d(), name, PLAIN),
        lambda: fold_naively(conv2d(), PLAIN, name),
    ):
        with pytest.raises(ValueError, match=sentence):
            call()
    if name is not None:
        with pytest.raises(ValueError, match=sentence):
            diagnose(draw(3, 2, 2), name)


# Rescale


def test_rescale_equals_what_mxnet_and_gluoncv_recorded():
    layer = Rescale()
    for name, constant in GOLDEN["constants"].items():
        assert getattr(layer, name).flatten().tolist() == constant["value"]
        assert list(getattr(layer, name).shape) == constant["shape"]
    found = layer(torch.tensor(GOLDEN["normalized_CHW"])[None])
    assert torch.equal(found, torch.tensor(GOLDEN["rescaled_NCHW"]))


def test_the_recorded_preset_is_the_gluoncv_format():
    image = torch.tensor(GOLDEN["to_tensor_CHW"])
    assert torch.equal(image, torch.tensor(GOLDEN["image_uint8_HWC"]).permute(2, 0, 1) / 255)
    found = convert(image, PLAIN, "gluoncv")
    torch.testing.assert_close(found, torch.tensor(GOLDEN["normalized_CHW"]), rtol=0, atol=1e-6)


def test_rescale_takes_every_level_back():
    image = torch.arange(256.0).reshape(1, 1, 1, 256).repeat(1, 3, 1, 1) / 255
    mean, std = (torch.tensor(GOLDEN[name]).reshape(3, 1, 1) for name in ("mean", "std"))
    for normalized in ((image - mean) / std, convert(image, PLAIN, "gluoncv")):
        back = Rescale()(normalized)
        assert (back - image * 255).abs().max() <= 1.6e-5
        assert torch.equal(back.round(), (image * 255).round())
    assert GOLDEN["roundtrip_all_256_levels"]["max_abs_error"] <= 1.6e-5


# fold

CONVS = {
    "3x3, padded": {"padding": 1},
    "7x7 of a ResNet": {"kernel": 7, "stride": 2, "padding": 3, "bias": False},
    "dilated": {"padding": 2, "dilation": 2},
    "same": {"padding": "same"},
    "same, lopsided": {"kernel": (3, 4), "padding": "same", "dilation": (2, 1)},
    "valid": {"padding": "valid"},
    "uneven": {"kernel": (3, 5), "padding": (2, 0), "stride": (1, 2)},
    "unpadded": {},
}


def rounding(reference, bound=2e-5):
    return bound * max(1, reference.abs().max().item())


def touches_border(conv, shape):
    """Where the output of `conv` sees its own padding."""
    seen = copy.deepcopy(conv).double()
    nn.init.ones_(seen.weight)
    seen.bias = None
    counts = seen(torch.ones(1, 3, *shape, dtype=torch.float64))[0, 0].round()
    return counts < conv.weight[0].numel()


@torch.no_grad()
@pytest.mark.parametrize("source, target", PAIRS)
def test_the_fold_is_right_everywhere_and_the_naive_one_inside(source, target):
    image = convert(draw(2, 3, 12, 15), PLAIN, source)
    conv = conv2d(padding=1)
    expected = conv(convert(image, source, target))
    folded, naive = fold(conv, source, target), fold_naively(conv, source, target)
    assert (folded(image) - expected).abs().max() <= rounding(expected)
    border = touches_border(conv, (12, 15))
    assert border.any() and not border.all()
    difference = (naive(image) - expected).abs().amax((0, 1))
    assert difference[~border].max() <= rounding(expected)
    color = convert(torch.zeros(3, 1, 1, dtype=torch.float64), target, source)
    if color.abs().max() > 1e-12:
        assert (difference[border] > rounding(expected)).all()


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", CONVS.values(), ids=CONVS)
def test_the_fold_holds_for_every_shape_of_convolution(options, dtype):
    conv = conv2d(dtype=dtype, **options)
    for source, target in (("0-1", "torchvision"), ("0-255", "keras-caffe"), ("BGR", "gluoncv")):
        image = convert(draw(1, 3, 13, 16, dtype=dtype), PLAIN, source)
        expected = conv(convert(image, source, target))
        bound = rounding(expected, 2e-5 if dtype == torch.float32 else 1e-13)
        found = fold(conv, KNOWN[source], KNOWN[target])(image)
        assert found.dtype == dtype and found.shape == expected.shape
        assert (found - expected).abs().max() <= bound
        assert (fold(conv, source, target)(image[0]) - found[0]).abs().max() <= bound


@torch.no_grad()
def test_without_padding_the_naive_fold_is_right_too():
    image, conv = draw(1, 3, 9, 9), conv2d()
    expected = conv(convert(image, PLAIN, "torchvision"))
    assert (fold_naively(conv, PLAIN, "torchvision")(image) - expected).abs().max() <= 2e-5


@torch.no_grad()
def test_the_border_shows_on_a_photo():
    conv = conv2d(out=64, kernel=7, stride=2, padding=3, bias=False)
    image = PHOTOS["cat"]
    expected = conv(convert(image, PLAIN, "torchvision"))
    off = (fold_naively(conv, PLAIN, "torchvision")(image) - expected).abs().amax((0, 1))
    assert off.max() > 0.1
    assert off[2:-1, 2:-1].max() <= rounding(expected)
    assert (fold(conv, PLAIN, "torchvision")(image) - expected).abs().max() <= rounding(expected)


def test_the_border_has_the_mean_color():
    pad = fold(conv2d(padding=(1, 2)), "0-255", "detectron2")[0]
    assert pad.padding == (2, 2, 1, 1)
    assert pad.color == pytest.approx((123.675, 116.28, 103.53))
    assert repr(pad) == "PadWithColor((2, 2, 1, 1), color=(123.7, 116.3, 103.5))"


def test_padding_with_a_color_is_zero_padding_for_black():
    image = draw(2, 3, 4, 5)
    assert torch.equal(
        PadWithColor((1, 2, 3, 4), (0, 0, 0))(image), F.pad(image, (1, 2, 3, 4), value=0)
    )
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
    assert not {p.data_ptr() for p in folded.parameters()} & {conv.weight.data_ptr()}
    assert {p.device.type for p in fold(conv.to("meta"), PLAIN, "torchvision").parameters()} == {
        "meta"
    }
    trainable = fold(conv2d(padding=1), PLAIN, "torchvision")
    assert trainable.training and all(p.requires_grad for p in trainable.parameters())


def test_the_fold_exports_and_copies():
    folded = fold(conv2d(padding=1), "0-255", "torchvision")
    image = 255 * draw(1, 3, 8, 8)
    for other in (copy.deepcopy(folded), torch.export.export(folded, (image,)).module()):
        torch.testing.assert_close(other(image), folded(image))


class Special(nn.Conv2d):
    pass


@pytest.mark.parametrize(
    "conv, error, sentence",
    [
        (nn.Linear(3, 3), TypeError, r"^Only an nn\.Conv2d itself can be folded, not Linear\.$"),
        (Special(3, 4, 1), TypeError, "not Special"),
        (nn.LazyConv2d(4, 1), TypeError, "not LazyConv2d"),
        (nn.Conv2d(4, 4, 1), ValueError, r"has 4 input channels in 1 group\(s\)"),
        (nn.Conv2d(3, 3, 1, groups=3), ValueError, r"has 3 input channels in 3 group\(s\)"),
        (
            nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"),
            ValueError,
            r"^The padding mode is 'reflect': only 'zeros' can be folded\.$",
        ),
    ],
    ids=["linear", "subclass", "lazy", "channels", "groups", "padding mode"],
)
def test_what_cannot_be_folded_says_why(conv, error, sentence):
    for call in (fold, fold_naively):
        with pytest.raises(error, match=sentence):
            call(conv, PLAIN, "torchvision")


# loader_mistakes


@pytest.mark.parametrize("name", photos.NAMES)
def test_the_accidents_are_their_definitions(name):
    p = PHOTOS[name]
    found = {accident: make(p) for accident, make in loader_mistakes.items()}
    mean, std = torch.tensor(GOLDEN["mean"]), torch.tensor(GOLDEN["std"])
    caffe = torch.tensor([103.939, 116.779, 123.68]).reshape(3, 1, 1)
    expected = {
        "0-255": p * 255,
        "halved": p / 2,
        "normalized twice": (p - mean.reshape(3, 1, 1)) / std.reshape(3, 1, 1),
        "BGR": p.flip(1),
        "-1 to 1": 2 * p - 1,
        "caffe style": p.flip(1) * 255 - caffe,
        "divided twice": p / 255,
    }
    for accident, tensor in expected.items():
        torch.testing.assert_close(found[accident], tensor, rtol=1e-6, atol=2e-5)
    assert set(found) == {*expected, "gamma"}
    assert all(t.dtype == p.dtype and t.shape == p.shape for t in found.values())


def test_gamma_undoes_srgb():
    p = torch.linspace(0, 1, 999, dtype=torch.float64).reshape(3, 9, 37)
    linear = loader_mistakes["gamma"](p)
    encoded = torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    torch.testing.assert_close(encoded, p, rtol=0, atol=1e-7)  # IEC's knees round to 8e-8
    assert (linear <= p).all() and linear.min() == 0 and linear.max() == 1


# diagnose


def like(name):
    """The formats that no tensor, or less than one level of 255, tells from this one."""
    return next(
        (group for group in (IMAGENET, LEVELS_BGR, ["0-1", "BGR"]) if name in group), [name]
    )


def top(diagnosis):
    return next(iter(diagnosis.scores))


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("photo", photos.NAMES)
def test_the_true_format_is_a_candidate_and_its_group_comes_first(photo, name):
    found = diagnose(convert(PHOTOS[photo], PLAIN, name))
    assert name in found.candidates
    assert top(found) in like(name)
    assert found.scores[name] >= 0.7 * found.scores[top(found)]
    assert set(found.scores) == set(KNOWN)
    assert list(found.scores.values()) == sorted(found.scores.values(), reverse=True)


def test_how_often_the_true_format_comes_first():
    hits = {
        name: sum(top(diagnose(convert(p, PLAIN, name))) == name for p in PHOTOS.values())
        for name in KNOWN
    }
    # Of equal formats the first is named; the rocket stands before a blue sky; the cat is neither
    # black nor white, so that a shift of its levels stays inside;
    # the rocket's keras-caffe and detectron2 are 1e-4 apart.
    often = {name: 4 for name in KNOWN} | {"0-1": 3, "BGR": 3, "detectron": 3, "keras-caffe": 3}
    assert hits == often | dict.fromkeys(IMAGENET[1:], 0)


@pytest.mark.parametrize("photo", photos.NAMES)
def test_the_same_function_has_the_same_score(photo):
    scores = diagnose(convert(PHOTOS[photo], PLAIN, "mmdet-pytorch")).scores
    assert list(scores)[:4] == IMAGENET
    assert len({scores[name] for name in IMAGENET}) == 1


@pytest.mark.parametrize("name", ["0-1", *FORMATS])
@pytest.mark.parametrize("photo", photos.NAMES)
def test_clean_tensors_are_not_warned_of(photo, name):
    image = convert(PHOTOS[photo], PLAIN, name)
    for expected in (None, *like(name), FORMATS.get(name, PLAIN)):
        assert diagnose(image, expected).warning is None


WARNINGS = {
    "0-255": "divide by 255",
    "halved": "a dark picture, or one halved",
    "normalized twice": "torchvision or keras-torch or mmdet-pytorch or gluoncv, not like 0-1",
    "-1 to 1": "looks like keras-tf, not like 0-1",
    "caffe style": "keras-caffe",
    "divided twice": "divided by 255 twice",
}


@pytest.mark.parametrize("accident", loader_mistakes)
@pytest.mark.parametrize("photo", photos.NAMES)
def test_the_accidents_that_can_be_seen_are_warned_of(photo, accident):
    image = loader_mistakes[accident](PHOTOS[photo])
    warning = diagnose(image, "0-1").warning
    if accident in WARNINGS:
        assert WARNINGS[accident] in warning
        assert diagnose(image, PLAIN).warning is not None
    else:
        assert accident in ("BGR", "gamma")  # a picture may be blue, and it may be dark
        assert warning is None
    formats = ("normalized twice", "-1 to 1", "caffe style", "BGR", "gamma")
    assert (diagnose(image).warning is None) == (accident in formats)


@pytest.mark.parametrize("photo", photos.NAMES)
def test_what_a_detector_holds_after_its_own_normalization(photo):
    twice = convert(loader_mistakes["normalized twice"](PHOTOS[photo]), PLAIN, "torchvision")
    found = diagnose(twice)
    assert top(found) == "torchvision, twice"
    assert "normalized twice" in found.warning
    torch.testing.assert_close(convert(twice, top(found), PLAIN), PHOTOS[photo], rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [100, 300])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("name", ["0-1", *FORMATS])
def test_resizing_after_normalizing_raises_no_alarm(name, mode, size):
    for photo in PHOTOS.values():
        image = F.interpolate(convert(photo, PLAIN, name), (size, size), mode=mode)
        found = diagnose(image, name)
        assert name in found.candidates
        assert found.warning is None


def test_dark_and_blue_pictures_raise_no_alarm():
    dark, blue = draw(3, 40, 40) ** 8, draw(3, 40, 40) * channels(0.3, 0.4, 1).float()
    for image in (dark, blue):
        assert "0-1" in diagnose(image).candidates
        assert diagnose(image).warning is diagnose(image, PLAIN).warning is None


def test_what_nothing_explains_is_said():
    sentence = "No known format explains this range: it is nearly flat, shifted or too wide."
    for image in (torch.zeros(3, 4, 4), torch.full((3, 4, 4), 0.5), 1e4 * draw(3, 4, 4)):
        assert diagnose(image).warning == sentence


def test_a_batch_counts_as_one_picture_and_stays_as_it_is():
    batch = torch.cat(list(PHOTOS.values())).requires_grad_()
    before = batch.detach().clone()
    assert top(diagnose(batch)) == "0-1"
    assert torch.equal(batch, before)


def test_another_format_can_be_expected():
    half = PixelFormat("RGB", -0.5, 0.5)
    image = convert(PHOTOS["astronaut"], PLAIN, half)
    assert diagnose(image, half).warning is None
    assert "not like the expected format" in diagnose(PHOTOS["astronaut"] * 255 - 110, half).warning


def test_the_text_is_short_and_stable():
    assert repr(diagnose(loader_mistakes["halved"](PHOTOS["astronaut"]))) == (
        "Range 0 … 0.5, channel means 0.278, 0.207, 0.189.\n"
        "halved              0.92\n"
        "0-1                 0.05\n"
        "BGR                 0.04\n"
        "Warning: Hardly anything exceeds 0.5: a dark picture, or one halved on its way."
    )
    assert repr(diagnose(convert(PHOTOS["astronaut"], PLAIN, "detectron2"))) == (
        "Range -124 … 151, channel means -7.05, -10.5, 17.9.\n"
        "detectron2          0.92\n"
        "keras-caffe         0.90\n"
        "detectron           0.87\n"
        "No warning."
    )


def test_the_page_says_in_words_what_it_shows_in_color():
    class Text(HTMLParser):
        found = ""

        def handle_data(self, data):
            self.found += f"{data} "

    for image, word in (
        (PHOTOS["cat"], "No warning."),
        (loader_mistakes["0-255"](PHOTOS["cat"]), "Warning: Levels 0–255"),
    ):
        page = diagnose(image)._repr_html_()
        text = Text()
        text.feed(page)
        assert word in text.found and "channel means" in text.found and "score" in text.found
        assert "--jp-" in page and "currentColor" in page and "#" not in page
