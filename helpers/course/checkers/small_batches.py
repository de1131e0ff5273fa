"""Exercises on small batches."""

import torch
from torch import Tensor, nn

from helpers.course.checkers.task import (
    RETURNS_NOTHING,
    Task,
    Verdict,
    has_shape,
    is_empty,
    same_formula,
)

_GENERATOR = torch.Generator().manual_seed(4)


def _uniform(*shape: int) -> Tensor:
    return 0.5 + torch.rand(*shape, generator=_GENERATOR, dtype=torch.float64)


_PARTS = [
    (
        torch.tensor(counts, dtype=torch.float64),
        3 * _uniform(len(counts), 2),
        _uniform(len(counts), 2),
    )
    for counts in ([64.0, 16.0, 4.0], [6.0, 6.0, 30.0, 2.0])
]


def _merged(counts, means, variances):
    shares = counts[:, None] / counts.sum()
    mean = (shares * means).sum(0)
    return torch.stack([mean, (shares * (variances + (means - mean).square())).sum(0)])


def _mean_of_means(counts, means, variances):
    return torch.stack([means.mean(0), variances.mean(0)])


def _unweighted(counts, means, variances):
    return torch.stack([means.mean(0), variances.mean(0) + means.var(0, correction=0)])


def _within_only(counts, means, variances):
    shares = counts[:, None] / counts.sum()
    return torch.stack([(shares * means).sum(0), (shares * variances).sum(0)])


def _around_plain_mean(counts, means, variances):
    shares = counts[:, None] / counts.sum()
    spread = (means - means.mean(0)).square()
    return torch.stack([(shares * means).sum(0), (shares * (variances + spread)).sum(0)])


def _squared_once(counts, means, variances):
    shares = counts[:, None] / counts.sum()
    mean = (shares * means).sum(0)
    return torch.stack([mean, (shares * (variances + (means - mean).abs())).sum(0)])


_MOMENTA = [
    (torch.tensor([0.1, 0.5, 0.01], dtype=torch.float64), 1, 16),
    (torch.tensor([0.1, 0.3], dtype=torch.float64), 4, 16),
    (torch.tensor([0.1, 0.3], dtype=torch.float64), 32, 16),
]


def _same_reach(momentum, size, reference):
    return 1 - (1 - momentum) ** (size / reference)


class _Recorder(nn.Linear):
    """A linear layer in float64 that notes how many rows each forward pass had."""

    def __init__(self):
        super().__init__(3, 1, dtype=torch.float64)
        with torch.no_grad():
            self.weight.fill_(0.5)
            self.bias.zero_()
        self.rows: list[int] = []

    def forward(self, x):
        self.rows.append(len(x))
        return super().forward(x)


def _check_accumulate(attempt) -> Verdict:
    x, y = _uniform(10, 3), _uniform(10, 1)
    for size in (4, 5, 10):
        whole, parts = _Recorder(), _Recorder()
        nn.functional.mse_loss(whole(x), y).backward()
        parts.weight.grad = torch.full_like(parts.weight, 7.0)  # left from an update before
        answer = attempt(parts, x.clone(), y.clone(), size)
        if not parts.rows and is_empty(answer):
            return RETURNS_NOTHING
        if max(parts.rows, default=0) > size:
            return Verdict(
                False,
                f"a forward pass had {max(parts.rows)} rows where size is {size}: pass `size` rows "
                "at a time.",
            )
        if sum(parts.rows) != len(x):
            return Verdict(
                False,
                f"of {len(x)} rows, {sum(parts.rows)} passed with size {size}: the last group may "
                "be smaller, and counts, too.",
            )
        gradient, wanted = parts.weight.grad, whole.weight.grad
        if gradient is None or not has_shape(gradient, wanted.shape):
            return Verdict(False, "no gradient is left in `model`: call `backward()` on each loss.")
        mistake = _accumulation_mistake(x, y, size, gradient)
        if not torch.allclose(gradient, wanted, rtol=1e-9, atol=0):
            return Verdict(False, mistake)
    return Verdict(
        True,
        "every row counts once, whatever the groups: the gradient is that of one batch. A "
        "BatchNorm layer in `model` would still normalize by each group.",
    )


def _accumulation_mistake(x: Tensor, y: Tensor, size: int, gradient: Tensor) -> str:
    groups = list(zip(x.split(size), y.split(size), strict=True))

    def of(weights, kept=slice(None)) -> Tensor:
        model = _Recorder()
        for (a, b), weight in list(zip(groups, weights, strict=True))[kept]:
            (weight * nn.functional.mse_loss(model(a), b)).backward()
        return model.weight.grad

    shares = [len(a) / len(x) for a, _ in groups]
    known = (
        (
            "the gradient of the update before is still in it: `model.zero_grad()` before the "
            "first group.",
            of(shares) + 7.0,
        ),
        (
            "the losses are added as they are, so the gradient grows with the number of groups: "
            "weigh each by its share of the rows.",
            of([1.0] * len(groups)),
        ),
        (
            "every group has the same weight, and the last one is smaller: weigh each by its share "
            "of the rows.",
            of([1 / len(groups)] * len(groups)),
        ),
        (
            "only the last group's gradient is left: `zero_grad()` once, before the first group.",
            of(shares, slice(-1, None)),
        ),
        (
            "only the last group's gradient is left, and with the weight of a whole batch: "
            "`zero_grad()` once, before the first group.",
            of([1.0] * len(groups), slice(-1, None)),
        ),
    )
    for words, value in known:
        if torch.allclose(gradient, value, rtol=1e-9, atol=0):
            return words
    return f"with size {size} the gradient is not that of the mean loss over all rows."


TASKS: dict[str, Task] = {
    "04-merge": Task(
        "Merge the statistics of several processes",
        difficulty=2,
        minutes=2,
        checker=same_formula(
            _PARTS,
            _merged,
            "the law of total variance, each part with its share of the values.",
            (
                (
                    "that is the mean of the means and of the variances: parts of different sizes "
                    "need weights, and what differs between the parts is missing.",
                    _mean_of_means,
                ),
                (
                    "every part has the same weight: weigh by counts / counts.sum().",
                    _unweighted,
                ),
                (
                    "the variance between the parts is missing: add (means − mean)².",
                    _within_only,
                ),
                (
                    "the between-part variance is taken around the plain mean of the means: take "
                    "the weighted mean that you return.",
                    _around_plain_mean,
                ),
                (
                    "the distance of the means enters squared.",
                    _squared_once,
                ),
            ),
            lambda answer: (
                f"for the first case the merged mean and variance of channel 0 are "
                f"{_merged(*_PARTS[0])[0, 0]:.4f} and {_merged(*_PARTS[0])[1, 0]:.4f}; yours are "
                f"{answer[0, 0]:.4f} and {answer[1, 0]:.4f}."
            ),
            "two rows, means and biased variances: `torch.stack([mean, var])`",
        ),
        hints=(
            "`shares = counts[:, None] / counts.sum()`, and the merged mean is "
            "`(shares * means).sum(0)`. For the variance, section 3: within plus between.",
            "The common errors are the mean of the variances, without the distance of the means, "
            "and equal weights for images of different sizes.",
        ),
        solution="""\
def merge(counts, means, variances):
    shares = counts[:, None] / counts.sum()
    mean = (shares * means).sum(0)
    var = (shares * (variances + (means - mean).square())).sum(0)
    return torch.stack([mean, var])
""",
    ),
    "04-momentum": Task(
        "A momentum that reaches as far back",
        difficulty=1,
        minutes=1,
        checker=same_formula(
            _MOMENTA,
            _same_reach,
            "after the same number of images, the old statistics have the same weight.",
            (
                (
                    "that is in proportion to the size. It is close for a small momentum; but the "
                    "weight of the old value is multiplied with every batch: ask what is left of "
                    "it after `reference` images.",
                    lambda m, size, reference: m * size / reference,
                ),
                (
                    "the exponent is upside down: with smaller batches there are more updates, so "
                    "each must weigh less.",
                    lambda m, size, reference: 1 - (1 - m) ** (reference / size),
                ),
                (
                    "that is the weight of the old value: momentum is that of the new one.",
                    lambda m, size, reference: (1 - m) ** (size / reference),
                ),
                (
                    "momentum is the weight of the new value; it is 1 − momentum that is "
                    "multiplied with every batch.",
                    lambda m, size, reference: m ** (size / reference),
                ),
                (
                    "the power is of momentum: what is multiplied with each batch is 1 − momentum.",
                    lambda m, size, reference: m ** (reference / size),
                ),
            ),
            lambda answer: (
                f"for momentum 0.1, size 1 and reference 16 the answer is "
                f"{_same_reach(*_MOMENTA[0])[0]:.5f}, and yours is {answer[0]:.5f}."
            ),
            "one value for each momentum",
        ),
        hints=(
            "One batch leaves the old value the weight `1 - momentum`. How much is left after "
            "`reference / size` batches, which are `reference` images?",
            "The common error is `momentum * size / reference`. Near for a small momentum; at 0.5 "
            "and one image instead of 16 it is 0.031, and right is 0.042.",
        ),
        solution="""\
def same_reach(momentum, size, reference):
    return 1 - (1 - momentum) ** (size / reference)
""",
    ),
    "04-accumulate": Task(
        "One update from several groups",
        difficulty=2,
        minutes=2,
        checker=_check_accumulate,
        hints=(
            "`model.zero_grad()`, then for each pair of `zip(x.split(size), y.split(size))` the "
            "loss, times a weight, and `backward()`. What weight makes their sum the mean over all "
            "rows?",
            "The common error is 1 / number of groups: right as long as all groups are of one "
            "size. A group's mean has to count by its share of the rows, `len(a) / len(x)`.",
        ),
        solution="""\
def accumulate(model, x, y, size):
    model.zero_grad()
    for a, b in zip(x.split(size), y.split(size)):
        loss = nn.functional.mse_loss(model(a), b) * len(a) / len(x)
        loss.backward()
""",
    ),
}
