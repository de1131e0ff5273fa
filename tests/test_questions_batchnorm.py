"""Proofs of the answers about BatchNorm."""

import torch
from torch import nn


def batch(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def norm(channels=3, **settings):
    return nn.BatchNorm2d(channels, **settings).double()


def test_missing_statistics_spoil_eval_mode_alone():
    trained, layer, x = norm(), norm(), 3 + batch(4, 3, 5, 5)
    for parameter in trained.parameters():
        nn.init.uniform_(parameter, 1, 2, generator=torch.Generator().manual_seed(0))
    for _ in range(50):
        trained(x)
    layer.load_state_dict(dict(trained.named_parameters()), strict=False)
    alone = x * layer.weight[:, None, None] + layer.bias[:, None, None]
    torch.testing.assert_close(layer.eval()(x), alone, rtol=1e-5, atol=0)
    assert (layer(x) - trained.eval()(x)).abs().min() > 1
    torch.testing.assert_close(layer.train()(x), trained.train()(x))
    for _ in range(9):
        layer(x)
    left = 1 - layer.running_mean / x.mean((0, 2, 3))
    torch.testing.assert_close(left, torch.full_like(left, 0.9**10))


def test_train_overwrites_eval():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)).double()
    model[1].eval()
    model.train()
    assert model[1].training
    model(batch(4, 3, 5, 5))
    assert model[1].num_batches_tracked == 1
