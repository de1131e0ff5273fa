"""Plausible wrong attempts at the exercises on BatchNorm, each with words of the answer to it."""

import torch
from torch import nn

from helpers.course.checkers.batchnorm import _by_hand

CHANNELS = (0, 2, 3)
STATISTICS = ("running_mean", "running_var")


def batch(*shape, shift=3.0):
    return shift + torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def after_one(x, names=STATISTICS, tolerance=1e-5, reference=nn.BatchNorm2d):
    """A test that compares these buffers of a layer and of the reference after one batch."""

    def attempt(layer):
        ours, theirs = layer(3), reference(3)
        ours(x), theirs(x)
        pairs = [(getattr(ours, name), getattr(theirs, name)) for name in names]
        return all(torch.allclose(a, b, rtol=tolerance, atol=tolerance) for a, b in pairs)

    return attempt


def outputs_in_train_mode(layer):
    x = batch(2, 3, 1, 1)
    return torch.allclose(layer(3)(x), nn.BatchNorm2d(3)(x), atol=1e-6)


def identical_bits(layer):
    ours, theirs, x = layer(3), nn.BatchNorm2d(3), batch(4, 3, 3, 3)
    ours(x), theirs(x)
    return ours.running_var.equal(theirs.running_var) and type(ours) is nn.BatchNorm2d


def eval_output(x, weight, bias, mean, var, eps, root=None):
    scale = weight / ((var + eps).sqrt() if root is None else root)
    return x * scale[:, None, None] + (bias - mean * scale)[:, None, None]


SMALL = batch(2, 3, 2, 1)

WRONG = {
    "02-test": [
        (outputs_in_train_mode, "stores the biased variance passes your test"),
        (after_one(SMALL, ["running_mean"]), "stores the biased variance passes your test"),
        (after_one(batch(16, 3, 28, 28), tolerance=1e-3), "a large n hides it"),
        (after_one(batch(2, 3, 1, 1)), "with N the number of images"),
        (after_one(SMALL, ["running_var"]), "running_mean never moves passes"),
        (after_one(SMALL * 0), "biased variance passes"),
        (after_one(SMALL, reference=_by_hand(correction=0)), "`nn.BatchNorm2d` itself must pass"),
        (lambda layer: layer is nn.BatchNorm2d, "computed in another order, must pass"),
        (identical_bits, "computed in another order, must pass"),
        (lambda layer: True, "stores the biased variance passes your test"),
        (lambda layer: False, "`nn.BatchNorm2d` itself must pass"),
        (lambda layer: torch.ones(3) > 0, "one True or False"),
    ],
    "02-step": [
        (lambda v, x, m: m * v + (1 - m) * x.var(CHANNELS), "momentum is turned round. In PyTorch"),
        (
            lambda v, x, m: (1 - m) * v + m * x.var(CHANNELS, correction=0),
            "that is the biased variance",
        ),
        (lambda v, x, m: m * v + (1 - m) * x.var(CHANNELS, correction=0), "what MXNet's layer"),
        (lambda v, x, m: (1 - m) * v + m * x.var((2, 3)).mean(0), "the images' own variances"),
        (
            lambda v, x, m: (1 - m) * v + m * x.var((2, 3), correction=0).mean(0),
            "the images' own biased variances",
        ),
        (lambda v, x, m: (1 - m) * v + m * x.std(CHANNELS), "standard deviation"),
        (lambda v, x, m: m * x.var(CHANNELS), "the old value is lost"),
        (lambda v, x, m: x.var(CHANNELS), "the new batch's variance alone"),
        (lambda v, x, m: v.mul_(1 - m).add_(m * x.var(CHANNELS)), "in place"),
        (lambda v, x, m: (1 - m) * v + m * x.var(0), "your code raises"),
        (lambda v, x, m: (1 - m) * v.mean() + m * x.var(), "one value for each channel"),
        (lambda v, x, m: 2 * v, "the first channel's answer is"),
    ],
    "02-eval": [
        (
            lambda x, w, b, mean, var, eps: eval_output(x, w, b, mean, var, eps, var.sqrt() + eps),
            "eps stands outside the root",
        ),
        (
            lambda x, w, b, mean, var, eps: eval_output(x, w, b, mean, var, eps, var.sqrt()),
            "eps is missing",
        ),
        (
            lambda x, w, b, mean, var, eps: eval_output(x, w, b, mean, var, eps, var + eps),
            "the root is missing",
        ),
        (
            lambda x, w, b, mean, var, eps: (x - mean) * w / (var + eps).sqrt() + b,
            "along the last axis",
        ),
        (
            lambda x, w, b, mean, var, eps: eval_output(x, w, b * w, mean, var, eps),
            "the bias is multiplied by the weight",
        ),
        (
            lambda x, w, b, mean, var, eps: nn.functional.batch_norm(
                x, None, None, w, b, training=True, eps=eps
            ),
            "running statistics were not used",
        ),
        (
            lambda x, w, b, mean, var, eps: nn.functional.batch_norm(x, mean, var, eps=eps),
            "weight and bias are missing",
        ),
        (lambda x, w, b, mean, var, eps: x.sub_(1) * 1, "in place"),
        (lambda x, w, b, mean, var, eps: x.mean(), "a value for each of x"),
        (lambda x, w, b, mean, var, eps: 2 * x, "the first value is"),
    ],
}
