"""Fine-tuning with B images normalized together: B changes the normalization, and nothing else."""

import pytest
import torch
from torch import nn
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.ops import FrozenBatchNorm2d

from data.results.small_batches.fine_tuning import (
    TRAINING_MODES,
    Sampler,
    accumulate,
    finetune,
    prepare,
)
from data.results.small_batches.make import MovingAverages, corrected
from helpers.inputs.scenes import scenes
from helpers.networks.detector import load_detector
from helpers.norms import norm_layers


@pytest.fixture(scope="module")
def trained():
    return load_detector()


@pytest.fixture(scope="module")
def two():
    return [(image.double(), target) for image, target in scenes(2, 31, illumination=True)]


def gradients(model, batch_size, images):
    accumulate(model, batch_size, images)
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_the_batch_size_changes_the_gradient_only_through_batch_statistics(trained, two):
    for kind in TRAINING_MODES:
        model = prepare(trained, kind).double()
        whole, parts = gradients(model, 2, two), gradients(model, 1, two)
        difference = (parts - whole).abs().max() / whole.abs().max()
        assert difference > 1e-2 if kind.startswith("train") else difference < 1e-9, kind


def test_negative_control_over_several_updates(trained):
    updates = [scenes(4, seed, illumination=True) for seed in (32, 33)]
    updates = [[(image.double(), target) for image, target in update] for update in updates]
    losses = []
    for size in (1, 4):
        model = prepare(trained, "frozen").double()
        losses.append(list(finetune(model, size, updates, 2, 0.01)))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert losses[0][0] != losses[0][1]


def test_kinds_are_what_they_say(trained, two):
    for kind in TRAINING_MODES:
        model = prepare(trained, kind)
        layers = list(norm_layers(model).values())
        assert model.training and len(layers) == 12
        expected = FrozenBatchNorm2d if kind == "frozen" else nn.BatchNorm2d
        assert {type(layer) for layer in layers} == {expected}
        trains = {p.requires_grad for layer in layers for p in layer.parameters()}
        assert trains == {"train": {True}, "eval": {True}, "frozen": set()}.get(kind, {False})
        before = [layer.running_var.clone() for layer in layers]
        gradients(model.double(), 2, two)
        for old, layer in zip(before, layers, strict=True):
            assert torch.equal(old.double(), layer.running_var) != kind.startswith("train")


def test_the_detector_given_is_left_alone(trained):
    before = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    model = prepare(trained, "train")
    list(finetune(model, 2, [scenes(2, 33)], 1, 0.01))
    assert all(torch.equal(t, before[name]) for name, t in trained.state_dict().items())
    assert not trained.training
    assert isinstance(trained.rpn.fg_bg_sampler, BalancedPositiveNegativeSampler)
    assert any(not torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_bad_input_is_one_sentence(trained):
    with pytest.raises(ValueError, match="No kind 'batch' here: choose one of 'train'"):
        prepare(trained, "batch")
    for size in (0, 3, 32):
        with pytest.raises(ValueError, match="divisor of 16"):
            next(finetune(prepare(trained, "train"), size, [], 1, 0.01))


def labels(positive, negative, ignored=3):
    return torch.cat([torch.ones(positive), torch.zeros(negative), -torch.ones(ignored)])


def test_it_always_takes_as_many_as_there_are():
    sampler = Sampler(64, 0.25)
    for positive, negative, expected in (
        (50, 500, [16, 48]),
        (4, 500, [4, 60]),
        (80, 20, [44, 20]),
        (10, 20, [10, 20]),
    ):
        given, sampler.seeds = labels(positive, negative), [7]
        masks = [mask.bool() for [mask] in sampler([given])]
        assert [int(mask.sum()) for mask in masks] == expected
        assert (given[masks[0]] == 1).all() and (given[masks[1]] == 0).all()


def test_an_image_is_drawn_for_by_itself():
    sampler, given = Sampler(64, 0.5), [labels(50, 100), labels(40, 300), labels(9, 90)]
    sampler.seeds = [1, 2, 3]
    together = sampler(given)
    for number, each in enumerate(given):
        sampler.seeds = [number + 1]
        alone = sampler([each])
        for masks, mask in zip(together, alone, strict=True):
            assert torch.equal(masks[number], mask[0])
    sampler.seeds = [8]
    assert not torch.equal(sampler([given[0]])[1][0], together[1][0])


def test_with_the_layers_own_momentum_it_is_the_layers_own_average(trained):
    model = prepare(trained, "train").double()
    averages = MovingAverages(model, 0.1)
    images = [(image.double(), target) for image, target in scenes(4, 34)]
    list(finetune(model, 2, [images], 1, 0.01, averages.update))
    state = model.state_dict()
    assert len(averages.averages) == 24
    for name, average in averages.averages.items():
        torch.testing.assert_close(average, state[name], rtol=1e-9, atol=1e-12)


def test_another_momentum_weighs_each_batch_so():
    layer, model = nn.BatchNorm2d(3).double(), nn.Sequential()
    model.add_module("bn", layer)
    averages, mean, random = MovingAverages(model, 0.02), torch.zeros(3), torch.Generator()
    for _ in range(5):
        x = torch.rand(2, 3, 4, 4, generator=random.manual_seed(_), dtype=torch.float64)
        layer(x)
        averages.update()
        mean = 0.98 * mean + 0.02 * x.mean((0, 2, 3))
    torch.testing.assert_close(averages.averages["bn.running_mean"], mean)


def test_the_corrected_momentum_reaches_as_many_images_back():
    assert corrected(0.1, 16) == pytest.approx(0.1)
    for size in (1, 2, 4):
        assert (1 - corrected(0.1, size)) ** (16 / size) == pytest.approx(0.9)
