"""Proofs of the answers about running statistics."""

from itertools import combinations

import torch
from torch import nn

CHANNELS = (0, 2, 3)


def images(count=64, shift=2):
    """Images that differ in their means: float64 (count,3,8,8)."""
    generator = torch.Generator().manual_seed(0)
    own, means = (
        torch.rand(count, 3, *side, generator=generator, dtype=torch.float64)
        for side in ((8, 8), (1, 1))
    )
    return own + shift * means


def fed(batches, **settings):
    layer = nn.BatchNorm2d(3, **settings).double()
    for batch in batches:
        layer(batch)
    return layer


def test_batches_of_one_miss_the_variance_between_images():
    x = images()
    shuffled = x[torch.randperm(64, generator=torch.Generator().manual_seed(2))]
    one, other = (fed(some.split(1), momentum=None).running_var for some in (x, shuffled))
    torch.testing.assert_close(one, x.var((2, 3)).mean(0))
    torch.testing.assert_close(one, other)
    assert (one < 0.5 * fed([x], momentum=None).running_var).all()


def test_no_momentum_mends_the_bias():
    x = images()
    within, scatter = x.var((2, 3)).mean(0), {}
    for momentum in 0.1, 0.01:
        layers = [fed(10 * x.roll(k, 0).split(1), momentum=momentum) for k in (0, 32)]
        stored = torch.stack([layer.running_var for layer in layers])
        scatter[momentum] = stored.std(0)
        torch.testing.assert_close(stored, within.expand(2, 3), rtol=0.1, atol=0)
        assert all((layer.eval()(x).std(CHANNELS) > 1.4).all() for layer in layers)
    assert (scatter[0.01] < 0.5 * scatter[0.1]).all()


def with_parts(within, between, count=64):
    """Images of these variances within and between, in each channel."""
    x = images(count)
    means = x.mean((2, 3), keepdim=True)
    own = (x - means) / x.var((2, 3), keepdim=True).sqrt()
    return within**0.5 * own + between**0.5 * (means - means.mean(0)) / means.std(0)


def test_eval_mode_after_batches_of_one_spreads_too_far():
    x = with_parts(1, 3)
    spread = fed(x.split(1), momentum=None).eval()(x).std(CHANNELS)
    torch.testing.assert_close(spread, 2 * torch.ones_like(spread), rtol=0.02, atol=0)


def test_half_of_between_is_missing_from_pairs():
    x = with_parts(1, 2, count=16)
    pairs = [x[list(pair)] for pair in combinations(range(16), 2)]
    stored = fed(pairs, momentum=None).running_var
    torch.testing.assert_close(stored, 2 * torch.ones_like(stored), rtol=0.02, atol=0)
