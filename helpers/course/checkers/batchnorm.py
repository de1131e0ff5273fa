"""Exercises on what BatchNorm computes."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from helpers.course.checkers.task import (
    RETURNS_NOTHING,
    Task,
    Verdict,
    is_bool,
    is_empty,
    same_formula,
)

CHANNELS = 0, 2, 3


def _uniform(*shape: int, seed: int, low: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return low + torch.rand(*shape, generator=generator, dtype=torch.float64)


def _by_hand(
    correction: int = 1,
    old: Callable = lambda momentum: 1 - momentum,
    new: Callable = lambda momentum: momentum,
    mean_moves: bool = True,
    scale: Callable = lambda images: 1,
) -> type[nn.BatchNorm2d]:
    """A BatchNorm2d whose running statistics are updated in Python, right by default."""

    class Layer(nn.BatchNorm2d):
        def forward(self, x):
            if not self.training:
                return super().forward(x)
            var = x.var(CHANNELS, correction=correction) * scale(len(x))
            with torch.no_grad():
                for running, batch in (
                    (self.running_mean, x.mean(CHANNELS)),
                    (self.running_var, var),
                ):
                    if mean_moves or running is self.running_var:
                        running.copy_(old(self.momentum) * running + new(self.momentum) * batch)
            self.num_batches_tracked += 1
            return nn.functional.batch_norm(
                x, None, None, self.weight, self.bias, training=True, eps=self.eps
            )

    return Layer


_LAYERS = (
    (
        nn.BatchNorm2d,
        True,
        "`nn.BatchNorm2d` itself must pass. Compare with what it stores: momentum · the unbiased "
        "batch variance + (1 − momentum) · the old value.",
    ),
    (
        _by_hand(),
        True,
        "a layer that stores the same, computed in another order, must pass: look at the numbers, "
        "with a tolerance for rounding (`torch.allclose`), not at the type or at the bits.",
    ),
    (
        _by_hand(correction=0),
        False,
        "a layer that stores the biased variance passes your test. Compare `running_var` itself: "
        "the outputs and `running_mean` are the same. And feed it few values per channel: the two "
        "variances differ by the factor n/(n − 1), and a large n hides it.",
    ),
    (
        _by_hand(correction=0, scale=lambda images: images / (images - 1)),
        False,
        "a layer that corrects by N/(N − 1), with N the number of images, passes your test: n is "
        "that of all values of a channel. Feed it more than one pixel per image.",
    ),
    (
        _by_hand(old=lambda m: m, new=lambda m: 1 - m),
        False,
        "a layer with momentum turned round passes your test. Compare with a new `nn.BatchNorm2d` "
        "after one batch whose variance is not 1.",
    ),
    (
        _by_hand(mean_moves=False),
        False,
        "a layer whose running_mean never moves passes your test: give the batch a mean other than "
        "0, and compare both running statistics.",
    ),
)


def _check_test(attempt) -> Verdict:
    for layer, agrees, mistake in _LAYERS:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            answer = attempt(layer)
        if is_empty(answer):
            return RETURNS_NOTHING
        if not is_bool(answer):
            return Verdict(False, "return one True or False.")
        if bool(answer) != agrees:
            return Verdict(False, mistake)
    return Verdict(
        True,
        "your test sees the biased variance, momentum turned round and a mean that stands still, "
        "and lets rounding pass.",
    )


def _step(running_var, x, momentum):
    return (1 - momentum) * running_var + momentum * x.var(CHANNELS)


def _turned(running_var, x, momentum):
    return _step(running_var, x, 1 - momentum)


def _step_with(variance: Callable) -> Callable:
    return lambda running, x, m: (1 - m) * running + m * variance(x)


_STEP_CASES = [
    (_uniform(3, seed=1, low=0.5), _uniform(2, 3, 2, 2, seed=2) * 3, 0.1),
    (_uniform(4, seed=3, low=0.5), _uniform(3, 4, 1, 2, seed=4) - 5, 0.3),
]


def _eval(x, weight, bias, running_mean, running_var, eps, root=None):
    root = (running_var + eps).sqrt() if root is None else root
    scale = weight / root
    shift = bias - running_mean * scale
    return x * scale[:, None, None] + shift[:, None, None]


def _eval_with(root: Callable) -> Callable:
    return lambda *args: _eval(*args, root=root(args[4], args[5]))


def _last_axis(x, weight, bias, mean, var, eps):
    return (x - mean) / (var + eps).sqrt() * weight + bias


def _bias_scaled(x, weight, bias, mean, var, eps):
    channel = (slice(None), None, None)
    return ((x - mean[channel]) / (var + eps).sqrt()[channel] + bias[channel]) * weight[channel]


_EVAL_CASES = [
    (
        _uniform(2, 3, 3, 3, seed=5) - 0.5,
        *(_uniform(3, seed=seed, low=low) for seed, low in ((6, 0.5), (7, -0.5), (8, -0.5))),
        torch.tensor([1e-3, 0.04, 2.0], dtype=torch.float64),
        eps,
    )
    for eps in (1e-3, 1e-5)
]

TASKS: dict[str, Task] = {
    "02-test": Task(
        "A test that can see it",
        difficulty=2,
        minutes=3,
        checker=_check_test,
        hints=(
            "Build one `Layer(3)` and one `nn.BatchNorm2d(3)`, feed both the same small batch, and "
            "compare their `running_mean` and `running_var`.",
            "The common error is a batch with many values per channel: with n = 12544 the two "
            "variances differ by 8e-5 of themselves, a tenth of that comes in, and `allclose` lets "
            "1e-5 pass. Take a small batch, of shape (2, 3, 2, 1).",
        ),
        solution="""\
def agrees_with_torch(Layer):
    x = 3 + 2 * torch.rand(2, 3, 2, 1, generator=torch.Generator().manual_seed(0))
    layer, reference = Layer(3), nn.BatchNorm2d(3)
    layer(x), reference(x)
    names = "running_mean", "running_var"
    return all(torch.allclose(getattr(layer, n), getattr(reference, n)) for n in names)
""",
    ),
    "02-step": Task(
        "One batch later",
        difficulty=1,
        minutes=1,
        checker=same_formula(
            _STEP_CASES,
            _step,
            "momentum weighs the new value, and the variance stored is the unbiased one, of all "
            "values of a channel.",
            (
                (
                    "momentum is turned round. In PyTorch it is the weight of the new value; as "
                    "the weight of the old one, it is MXNet's.",
                    _turned,
                ),
                (
                    "that is the biased variance. The layer normalizes with it, and stores the "
                    "unbiased one, which divides by n − 1.",
                    _step_with(lambda x: x.var(CHANNELS, correction=0)),
                ),
                (
                    "momentum is turned round, and the variance is the biased one: this is what "
                    "MXNet's layer stores at this momentum.",
                    lambda v, x, m: m * v + (1 - m) * x.var(CHANNELS, correction=0),
                ),
                (
                    "that is the mean of the images' own variances. What differs between the "
                    "images counts, too: take the variance over the axes 0, 2 and 3 at once.",
                    _step_with(lambda x: x.var((2, 3)).mean(0)),
                ),
                (
                    "that is the mean of the images' own biased variances. Take the unbiased "
                    "variance over the axes 0, 2 and 3 at once.",
                    _step_with(lambda x: x.var((2, 3), correction=0).mean(0)),
                ),
                (
                    "that is a standard deviation: the layer stores the variance.",
                    _step_with(lambda x: x.std(CHANNELS)),
                ),
                (
                    "the old value is lost: it stays in with the weight 1 − momentum.",
                    lambda v, x, m: m * x.var(CHANNELS),
                ),
                (
                    "that is the new batch's variance alone: it enters with the weight momentum.",
                    lambda v, x, m: x.var(CHANNELS),
                ),
            ),
            lambda answer: (
                f"for the first case the first channel's answer is {_step(*_STEP_CASES[0])[0]:.5f},"
                f" and yours is {answer[0]:.5f}."
            ),
            "one value for each channel",
        ),
        hints=(
            "`x.var((0, 2, 3))` is the variance of each channel over images, rows and columns. "
            "Which of torch's two variances is its default?",
            "The common errors are momentum turned round, and the variance that the layer "
            "normalizes with (`correction=0`) in place of the one it stores.",
        ),
        solution="""\
def step(running_var, x, momentum):
    return (1 - momentum) * running_var + momentum * x.var((0, 2, 3), correction=1)
""",
    ),
    "02-eval": Task(
        "Where eps goes",
        difficulty=1,
        minutes=2,
        checker=same_formula(
            _EVAL_CASES,
            _eval,
            "eps stands under the root, and each channel has one scale and one shift.",
            (
                (
                    "eps stands outside the root. The layer adds it to the variance and takes the "
                    "root of the sum: at variance 0.001 and eps 0.001 that is 0.045, not 0.033.",
                    _eval_with(lambda v, eps: v.sqrt() + eps),
                ),
                (
                    "eps is missing: it is added to the variance.",
                    _eval_with(lambda v, eps: v.sqrt()),
                ),
                (
                    "the root is missing: divide by `sqrt(running_var + eps)`.",
                    _eval_with(torch.add),
                ),
                (
                    "the statistics lie along the last axis, the columns, and with as many columns "
                    "as channels nothing complains. Give them the shape (C, 1, 1).",
                    _last_axis,
                ),
                (
                    "the bias is multiplied by the weight: add it last.",
                    _bias_scaled,
                ),
                (
                    "the running statistics were not used: in eval mode the batch's own do not "
                    "enter.",
                    lambda x, w, b, mean, var, eps: _eval(
                        x, w, b, x.mean(CHANNELS), x.var(CHANNELS, correction=0), eps
                    ),
                ),
                (
                    "weight and bias are missing.",
                    lambda x, w, b, mean, var, eps: _eval(
                        x, torch.ones_like(w), torch.zeros_like(b), mean, var, eps
                    ),
                ),
            ),
            lambda answer: (
                f"for the first case the first value is {_eval(*_EVAL_CASES[0]).flatten()[0]:.5f}, "
                f"and yours is {answer.flatten()[0]:.5f}."
            ),
            "a value for each of x",
        ),
        hints=(
            "One scale per channel, `weight / sqrt(running_var + eps)`, and one shift, "
            "`bias - running_mean * scale`.",
            "The common errors are `sqrt(running_var) + eps`, and a forgotten reshape: a (C,) "
            "tensor is broadcast along the last axis of x, the columns, not along its channels.",
        ),
        solution="""\
def eval_output(x, weight, bias, running_mean, running_var, eps):
    scale = weight / (running_var + eps).sqrt()
    shift = bias - running_mean * scale
    return x * scale[:, None, None] + shift[:, None, None]
""",
    ),
}
