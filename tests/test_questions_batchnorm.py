"""Proofs of the answers about BatchNorm."""

import torch
from torch import nn


def batch(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def norm(channels=3, **settings):
    return nn.BatchNorm2d(channels, **settings).double()


def test_a_look_under_no_grad_changes_the_model():
    layer, x = norm(), 3 + batch(4, 3, 5, 5)
    before = layer.eval()(x)
    with torch.no_grad():
        layer.train()(x)
    assert layer.running_mean.ne(0).all() and layer.running_var.ne(1).all()
    assert layer.num_batches_tracked == 1
    assert not torch.allclose(layer.eval()(x), before)


def test_train_overwrites_eval():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)).double()
    model[1].eval()
    model.train()
    assert model[1].training
    model(batch(4, 3, 5, 5))
    assert model[1].num_batches_tracked == 1


def test_in_train_mode_the_batch_decides():
    layer, image = norm(), batch(1, 3, 5, 5)
    others = [torch.cat([image, offset + batch(1, 3, 5, 5, seed=1)]) for offset in (0, 3)]
    a, b = (layer(x)[:1] for x in others)
    assert not torch.allclose(a, b)
    a, b = (layer.eval()(x)[:1] for x in others)
    torch.testing.assert_close(a, b)
