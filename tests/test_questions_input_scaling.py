"""Proofs of the answers about input formats."""

import pytest
import torch
import torch.nn.functional as F
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from helpers.inputs import photos
from helpers.inputs.pixels import FORMATS, PLAIN, convert, diagnose
from helpers.networks.detector import detector

CHANNELS = (0, 2, 3)


def pixels(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 255 * torch.rand(*shape, generator=generator, dtype=torch.float64)


def test_stored_statistics_belong_to_a_scale():
    x = pixels(2, 3, 8, 8)
    mean, var = x.mean(CHANNELS), x.var(CHANNELS)
    wanted = F.batch_norm(x, mean, var, eps=0.0)
    torch.testing.assert_close(F.batch_norm(x / 255, mean / 255, var / 255**2, eps=0.0), wanted)
    for wrong in F.batch_norm(x / 255, mean, var), F.batch_norm(x / 255, mean / 255, var / 255):
        assert (wrong - wanted).abs().max() > 1
    # eps belongs to the scale, too
    scaled = F.batch_norm(x / 255, mean / 255, var / 255**2, eps=1e-5 / 255**2)
    torch.testing.assert_close(scaled, F.batch_norm(x, mean, var, eps=1e-5))


def test_five_functions():
    image = photos.load("cat").double()
    different = []
    for name in FORMATS:
        stored = convert(image, PLAIN, name)
        if not any((stored - other).abs().max() < 1e-9 for other in different):
            different.append(stored)
    assert len(different) == 5
    alike = [convert(image, PLAIN, n) for n in ("keras-torch", "mmdet-pytorch", "gluoncv")]
    assert all((x - convert(image, PLAIN, "torchvision")).abs().max() < 1e-9 for x in alike)
    caffe = [convert(image, PLAIN, n) for n in ("detectron", "detectron2", "keras-caffe")]
    assert all((a - b).abs().max() < 1 for a in caffe for b in caffe)


def test_batch_statistics_take_the_scale_away():
    x = pixels(2, 3, 8, 8) / 255

    def normalized(x, eps=1e-5):
        return F.batch_norm(x, None, None, training=True, eps=eps)

    assert (normalized(x) - normalized(255 * x)).abs().max() < 1e-3
    torch.testing.assert_close(normalized(x), normalized(255 * x, eps=1e-5 * 255**2))


def test_integers_are_refused_and_floats_pass():
    model = detector().eval()
    levels = pixels(3, 64, 64).byte()
    with torch.no_grad(), pytest.raises(TypeError):
        model([levels])
    with torch.no_grad():
        assert "boxes" in model([levels.float()])[0]


def test_bgr_cannot_be_told_for_sure():
    blue = torch.zeros(3, 8, 8)
    blue[2], blue[:, 0, 0] = 0.9, 1.0
    assert torch.equal(convert(blue, PLAIN, "BGR"), blue.flip(0))
    for image in (blue, blue.flip(0)):
        assert {"0-1", "BGR"} <= set(diagnose(image).allowed)


def test_torchvision_pads_with_the_mean_color():
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.5, 0.5]
    transform = GeneralizedRCNNTransform(32, 64, mean, std).eval()
    images = [torch.rand(3, *size, generator=torch.Generator()) for size in ((32, 48), (48, 32))]
    batch = transform(images)[0].tensors
    color = batch[0, :, -1, -1] * torch.tensor(std) + torch.tensor(mean)
    torch.testing.assert_close(color, torch.tensor(mean))
    black = (torch.zeros(3) - torch.tensor(mean)) / torch.tensor(std)
    assert not torch.allclose(batch[0, :, -1, -1], black)


def test_turning_a_convolution_is_turning_the_image():
    weight, image = pixels(4, 3, 3, 3), pixels(1, 3, 8, 8, seed=1)
    torch.testing.assert_close(F.conv2d(image.flip(1), weight), F.conv2d(image, weight.flip(1)))
    assert not torch.allclose(F.conv2d(image.flip(1), weight), F.conv2d(image, weight.flip(0)))
