"""Plausible wrong attempts at the exercises on small batches, with words of the answer to each."""

import torch
from torch import nn

from helpers.course.checkers import small_batches as right


def no_square(counts, means, variances):
    return right._squared_once(counts, means, variances)


def unbiased(counts, means, variances):
    merged = right._merged(counts, means, variances)
    merged[1] *= counts.sum() / (counts.sum() - 1)
    return merged


def groups(weight, zero_in_loop=False, zero_first=True, drop_last=False):
    def attempt(model, x, y, size):
        pairs = list(zip(x.split(size), y.split(size), strict=True))
        if drop_last:
            pairs = [pair for pair in pairs if len(pair[0]) == size]
        if zero_first:
            model.zero_grad()
        for a, b in pairs:
            if zero_in_loop:
                model.zero_grad()
            (weight(a, x, pairs) * nn.functional.mse_loss(model(a), b)).backward()

    return attempt


def share(a, x, pairs):
    return len(a) / len(x)


def all_at_once(model, x, y, size):
    model.zero_grad()
    nn.functional.mse_loss(model(x), y).backward()


def without_backward(model, x, y, size):
    model.zero_grad()
    for a, b in zip(x.split(size), y.split(size), strict=True):
        nn.functional.mse_loss(model(a), b)


WRONG = {
    "04-merge": [
        (right._mean_of_means, "need weights, and what differs between the parts is missing"),
        (right._unweighted, "every part has the same weight"),
        (right._within_only, "the variance between the parts is missing"),
        (right._around_plain_mean, "around the plain mean"),
        (no_square, "enters squared"),
        (unbiased, "; yours are"),
        (lambda counts, means, variances: right._merged(counts, means, variances)[0], "two rows"),
        (lambda counts, means, variances: means, "two rows"),
    ],
    "04-momentum": [
        (lambda m, size, reference: m * size / reference, "in proportion to the size"),
        (lambda m, size, reference: 1 - (1 - m) ** (reference / size), "upside down"),
        (lambda m, size, reference: (1 - m) ** (size / reference), "weight of the old value"),
        (lambda m, size, reference: m ** (size / reference), "it is 1 − momentum that is"),
        (lambda m, size, reference: m, "and yours is 0.10000"),
        (lambda m, size, reference: 0.00656, "one value for each momentum"),
    ],
    "04-accumulate": [
        (groups(lambda a, x, pairs: 1 / len(pairs)), "the last one is smaller"),
        (groups(lambda a, x, pairs: 1.0), "grows with the number of groups"),
        (groups(share, zero_first=False), "of the update before is still in it"),
        (groups(share, zero_in_loop=True), "only the last group's gradient is left: "),
        (groups(lambda *_: 1.0, zero_in_loop=True), "with the weight of a whole batch"),
        (groups(share, drop_last=True), "the last group may be smaller"),
        (all_at_once, "a forward pass had 10 rows where size is 4"),
        (without_backward, "call `backward()` on each loss"),
        (lambda model, x, y, size: torch.zeros(1), "of 10 rows, 0 passed"),
    ],
}
