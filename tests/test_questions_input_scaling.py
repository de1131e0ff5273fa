"""Proofs of the answers about the scale of the input."""

import torch
import torch.nn.functional as F

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


def test_only_statistics_that_never_moved_are_0_and_1():
    bn = torch.nn.BatchNorm2d(3, affine=False, momentum=None, dtype=torch.float64)
    assert (bn.running_mean == 0).all() and (bn.running_var == 1).all()
    x, known = pixels(2, 3, 8, 8), pixels(2, 3, 8, 8, seed=1)
    bn((x - known.mean(CHANNELS, keepdim=True)) / known.std(CHANNELS, keepdim=True))
    for values, start in (bn.running_mean, 0), (bn.running_var, 1):
        assert ((values - start).abs() > 1e-3).all() and ((values - start).abs() < 0.3).all()
