"""Proofs of the answers about BatchNorm."""

import torch
from torch import nn

CHANNELS = (0, 2, 3)


def batch(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def norm(channels=3, **settings):
    return nn.BatchNorm2d(channels, **settings).double()


def test_the_biased_variance_divides_the_unbiased_is_stored():
    x = batch(2, 3, 1, 1)
    layer = norm(momentum=1.0, eps=1e-12)
    y = layer(x)
    torch.testing.assert_close(y.square().mean(CHANNELS), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(layer.running_var, x.var(CHANNELS, correction=1))
    torch.testing.assert_close(layer.running_var, 2 * x.var(CHANNELS, correction=0))

    running = norm()
    running.running_var.fill_(7.0)
    torch.testing.assert_close(norm()(x), running(x))  # running_var is not read


def test_batches_of_one_miss_the_variance_between_images():
    x = batch(64, 3, 8, 8) + 2 * batch(64, 3, 1, 1, seed=1)
    one, all_at_once = norm(momentum=None), norm(momentum=None)
    shuffled = norm(momentum=None)
    for image in x.split(1):
        one(image)
    for n in torch.randperm(64, generator=torch.Generator().manual_seed(2)):
        shuffled(x[n : n + 1])
    all_at_once(x)
    torch.testing.assert_close(one.running_var, x.var((2, 3)).mean(0))
    torch.testing.assert_close(one.running_var, shuffled.running_var)
    assert (one.running_var < 0.5 * all_at_once.running_var).all()


def test_a_look_under_no_grad_changes_the_model():
    layer, x = norm(), 3 + batch(4, 3, 5, 5)
    before = layer.eval()(x)
    with torch.no_grad():
        layer.train()(x)
    assert layer.running_mean.ne(0).all() and layer.running_var.ne(1).all()
    assert layer.num_batches_tracked == 1
    assert not torch.allclose(layer.eval()(x), before)


def test_momentum_09_follows_the_latest_batch():
    layer = norm(momentum=0.9)
    first, second = batch(4, 3, 5, 5), 5 + batch(4, 3, 5, 5, seed=1)
    layer(first), layer(second)
    old = 0.9 * first.mean(CHANNELS)
    torch.testing.assert_close(layer.running_mean, 0.1 * old + 0.9 * second.mean(CHANNELS))


def test_train_overwrites_eval():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)).double()
    model[1].eval()
    model.train()
    assert model[1].training
    model(batch(4, 3, 5, 5))
    assert model[1].num_batches_tracked == 1


def test_no_momentum_mends_the_bias():
    x = batch(64, 3, 8, 8) + 2 * batch(64, 3, 1, 1, seed=1)
    whole, within = x.var(CHANNELS), x.var((2, 3)).mean(0)
    last = {}
    for momentum in 0.1, 0.01:
        layer = norm(momentum=momentum)
        for _ in range(20):
            for image in x.split(1):
                layer(image)
        last[momentum] = (layer.running_var - within).abs() / within
        assert (layer.running_var < 0.5 * whole).all()
    assert (last[0.01] < 0.05).all() and last[0.01].mean() < last[0.1].mean()


def test_in_train_mode_the_batch_decides():
    layer, image = norm(), batch(1, 3, 5, 5)
    others = [torch.cat([image, offset + batch(1, 3, 5, 5, seed=1)]) for offset in (0, 3)]
    a, b = (layer(x)[:1] for x in others)
    assert not torch.allclose(a, b)
    a, b = (layer.eval()(x)[:1] for x in others)
    torch.testing.assert_close(a, b)
