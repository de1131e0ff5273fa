"""Exercises on what BatchNorm computes."""

from collections.abc import Callable

import torch
from torch import nn

from helpers.course.checkers.checker import same_choice, same_values, uniform

CHANNELS = 0, 2, 3


def by_hand(
    variance: Callable = lambda x: x.var(CHANNELS),
    mean: Callable = lambda x: x.mean(CHANNELS),
    weight: Callable = lambda momentum: momentum,
) -> type[nn.BatchNorm2d]:
    """A BatchNorm2d whose running statistics are updated in Python, right by default."""

    class Layer(nn.BatchNorm2d):
        def forward(self, x):
            if not self.training:
                return super().forward(x)
            with torch.no_grad():
                self.running_mean.lerp_(mean(x), weight(self.momentum))
                self.running_var.lerp_(variance(x), weight(self.momentum))
            self.num_batches_tracked += 1
            return nn.functional.batch_norm(
                x, None, None, self.weight, self.bias, training=True, eps=self.eps
            )

    return Layer


def biased(x):
    return x.var(CHANNELS, correction=0)


LAYERS = {
    "`nn.BatchNorm2d` itself must pass. Compare with what it stores: momentum · the unbiased "
    "batch variance + (1 − momentum) · the old value.": (nn.BatchNorm2d, True),
    "a layer that stores the same, computed in another order, must pass: look at the numbers, with "
    "a "
    "tolerance for rounding (`torch.allclose`), not at the type or at the bits.": (by_hand(), True),
    "a layer that stores the biased variance passes your test. Compare `running_var` itself: "
    "the outputs and `running_mean` are the same. And feed it few values per channel: the two "
    "variances differ by the factor n/(n − 1), and a large n hides it.": (by_hand(biased), False),
    "a layer that corrects by N/(N − 1), with N the number of images, passes your test: n is that "
    "of all values of a channel. Feed it "
    "more than one pixel per image.": (by_hand(lambda x: biased(x) * len(x) / (len(x) - 1)), False),
    "a layer with momentum turned round passes your test. Compare with a new `nn.BatchNorm2d` "
    "after one batch whose variance is not 1.": (by_hand(weight=lambda m: 1 - m), False),
    "a layer whose running_mean never moves passes your test: give the batch a mean other than 0, "
    "and "
    "compare both running statistics.": (by_hand(mean=lambda x: torch.zeros(x.shape[1])), False),
}


def after_one(x, names=("running_mean", "running_var"), tolerance=1e-5, reference=nn.BatchNorm2d):
    """A test that compares these buffers of a layer and of the reference after one batch."""

    def attempt(layer):
        ours, theirs = layer(3), reference(3)
        ours(x), theirs(x)
        pairs = [(getattr(ours, name), getattr(theirs, name)) for name in names]
        return all(torch.allclose(a, b, rtol=tolerance, atol=tolerance) for a, b in pairs)

    return attempt


def outputs_in_train_mode(layer):
    return torch.allclose(layer(3)(SMALL), nn.BatchNorm2d(3)(SMALL), atol=1e-6)


SMALL = uniform(2, 3, 2, 1, seed=0, low=3.0).float()
VARIANCE_ONE = 3 + (SMALL - SMALL.mean(CHANNELS, True)) / SMALL.std(CHANNELS, keepdim=True)


def step(running_var, x, momentum):
    return (1 - momentum) * running_var + momentum * x.var(CHANNELS)


def step_with(variance: Callable) -> Callable:
    return lambda running_var, x, m: (1 - m) * running_var + m * variance(x)


def eval_output(x, weight, bias, mean, var, eps, root=None):
    scale = weight / ((var + eps).sqrt() if root is None else root)
    return x * scale[:, None, None] + (bias - mean * scale)[:, None, None]


def eval_with(root: Callable) -> Callable:
    return lambda *args: eval_output(*args, root=root(args[4], args[5]))


CHECKERS = {
    "02-test": same_choice(
        LAYERS.items,
        praise="your test sees the biased variance, momentum turned round and a mean that stands "
        "still, and lets rounding pass.",
        wrong={
            "stores the biased variance passes your test": outputs_in_train_mode,
            "large n hides it": after_one(uniform(16, 3, 28, 28, seed=0).float(), tolerance=1e-3),
            "with N the number of images": after_one(SMALL[:, :, :1]),
            "momentum turned round passes": after_one(VARIANCE_ONE, ["running_var"]),
            "running_mean never moves passes": after_one(SMALL, ["running_var"]),
            "`nn.BatchNorm2d` itself must": after_one(SMALL, reference=by_hand(biased)),
            "computed in another order, must pass": after_one(SMALL, tolerance=0),
            "not at the type": lambda layer: layer is nn.BatchNorm2d,
            "one of True, False": lambda layer: torch.ones(3) > 0,
        },
    ),
    "02-step": same_values(
        [
            (uniform(3, seed=1, low=0.5), uniform(2, 3, 2, 2, seed=2) * 3, 0.1),
            (uniform(4, seed=3, low=0.5), uniform(3, 4, 1, 2, seed=4) - 5, 0.3),
        ],
        step,
        praise="momentum weighs the new value, and the variance stored is the unbiased one, of all "
        "values of a channel.",
        mistakes={
            "momentum is turned round. In PyTorch it is the weight of the new value; as the weight "
            "of the old one, it is MXNet's.": lambda v, x, m: step(v, x, 1 - m),
            "that is the biased variance. The layer normalizes with it, and stores the unbiased "
            "one, which divides by n − 1.": step_with(biased),
            "momentum is turned round, and the variance is the biased one: this is what MXNet's "
            "layer stores at this momentum.": lambda v, x, m: m * v + (1 - m) * biased(x),
            "that is the mean of the images' own variances. What differs between the images "
            "counts, "
            "too: take it over the axes 0, 2 and 3.": step_with(lambda x: x.var((2, 3)).mean(0)),
            "that is the mean of the images' own biased variances. Take the unbiased variance over "
            "the axes 0, 2 and 3.": step_with(lambda x: x.var((2, 3), correction=0).mean(0)),
            "that is a standard deviation, not the variance.": step_with(lambda x: x.std(CHANNELS)),
            "the old value is lost: its weight is 1 − momentum.": lambda v, x, m: step(0, x, m),
            "that is the new variance alone: its weight is momentum.": lambda v, x, m: step(
                v, x, 1
            ),
        },
        wrong={
            "return a tensor of shape (3,), not": lambda v, x, m: (1 - m) * v.mean() + m * x.var(),
            "in test case 1 the answer, value 1 of 3, is": lambda v, x, m: 2 * v,
        },
    ),
    "02-eval": same_values(
        [
            (
                uniform(2, 3, 3, 3, seed=5) - 0.5,
                uniform(3, seed=6, low=0.5),
                uniform(3, seed=7, low=-0.5),
                uniform(3, seed=8, low=-0.5),
                torch.tensor([1e-3, 0.04, 2.0], dtype=torch.float64),
                eps,
            )
            for eps in (1e-3, 1e-5)
        ],
        eval_output,
        praise="eps stands under the root, and each channel has one scale and one shift.",
        mistakes={
            "eps stands outside the root. The layer adds it to the variance and takes the root of "
            "the sum: at variance 0.001 "
            "and eps 0.001 that is 0.045, not 0.033.": eval_with(lambda v, eps: v.sqrt() + eps),
            "eps is missing: it is added to the variance.": eval_with(lambda v, eps: v.sqrt()),
            "the root is missing: divide by `sqrt(running_var + eps)`.": eval_with(torch.add),
            "the statistics lie along the last axis, the columns, and with as many columns as "
            "channels nothing complains. Give them the shape "
            "(C, 1, 1).": lambda x, w, b, mean, var, eps: (x - mean) / (var + eps).sqrt() * w + b,
            "the bias is multiplied by the weight: add it last.": lambda x, w, b, *rest: (
                eval_output(x, w, b * w, *rest)
            ),
            "the running statistics were not used: in eval mode the batch's own do not "
            "enter.": lambda x, w, b, mean, var, eps: eval_output(
                x, w, b, x.mean(CHANNELS), biased(x), eps
            ),
            "weight and bias are missing.": lambda x, w, b, mean, var, eps: (
                nn.functional.batch_norm(x, mean, var, eps=eps)
            ),
        },
    ),
}
