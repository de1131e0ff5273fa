"""Exercises on small batches."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from helpers.course.checkers.checker import (
    RETURNS_NOTHING,
    Checker,
    is_empty,
    recognize,
    same_values,
    uniform,
)


def shares(counts):
    return counts[:, None] / counts.sum()


def merged(counts, means, variances, center=None, distance=Tensor.square):
    mean = (shares(counts) * means).sum(0)
    spread = distance(means - (mean if center is None else center))
    return torch.stack([mean, (shares(counts) * (variances + spread)).sum(0)])


def same_reach(momentum, size, reference):
    return 1 - (1 - momentum) ** (size / reference)


X, Y = uniform(10, 3, seed=1), uniform(10, 1, seed=2)
SIZES = [(4,), (5,), (10,)]


def run(attempt: Callable, size: int) -> tuple[Tensor | None, list[int], object]:
    """The gradient after an attempt, the rows of each of its forward passes, and its answer.

    The model has an older gradient when the attempt begins.
    """
    model, rows = nn.Linear(3, 1, dtype=torch.float64), []
    for tensor in model.parameters():
        nn.init.constant_(tensor, 0.5)
        tensor.grad = torch.full_like(tensor, 7.0)
    model.register_forward_pre_hook(lambda model, given: rows.append(len(given[0])))
    answer = attempt(model, X.clone(), Y.clone(), size)
    return model.weight.grad, rows, answer


def groups(
    weight: Callable = lambda rows, number: rows / len(X),
    zero_first: bool = True,
    zero_in_loop: bool = False,
    drop_last: bool = False,
) -> Callable:
    """The right attempt, but for what is given; weight(rows, number of groups) is of the loss."""

    def attempt(model, x, y, size):
        pairs = list(zip(x.split(size), y.split(size), strict=True))
        if zero_first:
            model.zero_grad()
        for a, b in pairs[:-1] if drop_last else pairs:
            if zero_in_loop:
                model.zero_grad()
            (weight(len(a), len(pairs)) * nn.functional.mse_loss(model(a), b)).backward()

    return attempt


def all_at_once(model, x, y, size):
    model.zero_grad()
    nn.functional.mse_loss(model(x), y).backward()


def without_backward(model, x, y, size):
    model.zero_grad()
    for a, b in zip(x.split(size), y.split(size), strict=True):
        nn.functional.mse_loss(model(a), b)


ACCUMULATION_MISTAKES = {
    "the gradient of the update before is still in it: `model.zero_grad()` before the first "
    "group.": groups(zero_first=False),
    "the losses are added as they are, so the gradient grows with the number of groups: weigh each "
    "by its share of the rows.": groups(lambda rows, number: 1),
    "every group has the same weight, and the last one is smaller: weigh each by its share of the "
    "rows.": groups(lambda rows, number: 1 / number),
    "only the last group's gradient is left: `zero_grad()` once, before the first group.": groups(
        zero_in_loop=True
    ),
    "only the last group's gradient is left, and with the weight of a whole batch: `zero_grad()` "
    "once, before the first group.": groups(lambda rows, number: 1, zero_in_loop=True),
}


def find_accumulation_mistake(attempt) -> str | None:
    gradients = []
    for (size,) in SIZES:
        gradient, rows, answer = run(attempt, size)
        if not rows and is_empty(answer):
            return RETURNS_NOTHING
        if max(rows, default=0) > size:
            return f"a forward pass had {max(rows)} rows where size is {size}: pass `size` at once."
        if sum(rows) != len(X):
            return f"of 10 rows, {sum(rows)} passed with size {size}: smaller groups count, too."
        if gradient is None:
            return "no gradient is left in `model`: call `backward()` on each loss."
        gradients.append(gradient)
    attempts = {None: groups()} | ACCUMULATION_MISTAKES
    left = {k: lambda size, attempt=a: run(attempt, size)[0] for k, a in attempts.items()}
    return recognize(gradients, SIZES, left, "the gradient is not that of the mean loss.")


CHECKERS = {
    "04-merge": same_values(
        [
            (n, uniform(len(n), 2, seed=3), uniform(len(n), 2, seed=4) / 9)
            for n in (torch.tensor([64.0, 16.0, 4.0]), torch.tensor([6.0, 6.0, 30.0, 2.0]))
        ],
        merged,
        praise="the law of total variance, each part with its share of the values.",
        mistakes={
            "that is the mean of the means and of the variances: parts of different sizes need "
            "weights, and what differs between the parts is "
            "missing.": lambda n, means, variances: torch.stack([means.mean(0), variances.mean(0)]),
            "every part has the same weight: weigh by counts / counts.sum().": lambda n, *moments: (
                merged(torch.ones_like(n), *moments)
            ),
            "the variance between the parts is missing: add (means − mean)².": lambda *given: (
                merged(*given, distance=torch.zeros_like)
            ),
            "the between-part variance is taken around the plain mean of the means: take the "
            "weighted mean that you return.": lambda *given: merged(*given, given[1].mean(0)),
            "the means' distance enters squared.": lambda *given: merged(
                *given, distance=torch.abs
            ),
        },
        wrong={
            "in test case 1 the answer, value 1 of 4, is": lambda *given: 2 * merged(*given),
            "return a tensor of shape (2, 2), not a tensor of shape (3, 2)": lambda *given: given[
                1
            ],
        },
    ),
    "04-momentum": same_values(
        [(torch.tensor([0.1, 0.5, 0.01], dtype=torch.float64), size, 16) for size in (1, 4, 32)],
        same_reach,
        praise="after the same number of images, the old statistics have the same weight.",
        mistakes={
            "that is in proportion to the size. It is close for a small momentum; but the weight "
            "of the old value is multiplied with every batch: ask what is left of it after "
            "`reference` images.": lambda m, size, reference: m * size / reference,
            "the exponent is upside down: with smaller batches there are more updates, so each "
            "must weigh less.": lambda m, size, reference: 1 - (1 - m) ** (reference / size),
            "that is the weight of the old value: momentum is that of the "
            "new one.": lambda m, size, reference: (1 - m) ** (size / reference),
            "momentum is the weight of the new value; it is 1 − momentum that is multiplied with "
            "every batch.": lambda m, size, reference: m ** (size / reference),
            "the power is of momentum: what is multiplied with each batch is "
            "1 − momentum.": lambda m, size, reference: m ** (reference / size),
        },
        wrong={
            "is 0.0065634, and yours is 0.1": lambda m, size, reference: m,
            "a tensor of shape (3,), not one number": lambda m, size, reference: 0.00656,
        },
    ),
    "04-accumulate": Checker(
        find_accumulation_mistake,
        praise="every row counts once, whatever the groups: the gradient is that of one batch. A "
        "BatchNorm layer in `model` would still normalize by each group.",
        wrong={
            **ACCUMULATION_MISTAKES,
            "of 10 rows, 8 passed with size 4": groups(drop_last=True),
            "a forward pass had 10 rows where size is 4": all_at_once,
            "call `backward()` on each loss": without_backward,
            "not that of the mean loss": groups(lambda rows, number: 3 * rows),
            "of 10 rows, 0 passed": lambda model, x, y, size: torch.zeros(1),
        },
    ),
}
