"""The exercise on small batches."""

import copy

import torch
from torch import Tensor, nn

from helpers.course.checkers.checker import RETURNS_NOTHING, Checker, is_empty, recognize, uniform


def layer(momentum: float, training: bool) -> nn.BatchNorm2d:
    """A layer whose statistics are stale, in one of its two modes."""
    bn = nn.BatchNorm2d(3, momentum=momentum, dtype=torch.float64).train(training)
    bn.running_mean.fill_(5.0)
    return bn


def batches(*sizes: int) -> list[Tensor]:
    """Batches of so many images, (n,3,2,2), each image with a light of its own."""
    light, drawn = uniform(sum(sizes), 3, 1, 1, seed=1), uniform(sum(sizes), 3, 2, 2, seed=2)
    return [*(4 * light + drawn).split(sizes)]


CASES = [(layer(0.1, False), batches(1, 1, 1, 1)), (layer(0.3, True), batches(3, 1, 2))]


def averaged(bn, batches, momentum=None):
    bn.reset_running_stats()
    bn.train().momentum = momentum
    for x in batches:
        bn(x)
    return bn


def pooled(bn, batches, correction=1):
    pixels = torch.cat([x.transpose(0, 1).flatten(1) for x in batches], 1)
    bn.running_mean.copy_(pixels.mean(1))
    bn.running_var.copy_(pixels.var(1, correction=correction))
    return bn


KNOWN = {
    "the batches' variances are averaged, and those of single images lack what differs between "
    "images: take mean and variance over the pixels of all batches.": averaged,
    "that is a moving average: with the layer's own momentum the last batches weigh most, and the "
    "starting value is still in it.": lambda bn, batches: averaged(bn, batches, bn.momentum),
    "running_var stores the unbiased variance: divide by n − 1.": lambda bn, batches: pooled(
        bn, batches, correction=0
    ),
}


def find_mistake(attempt) -> str | None:
    def statistics(bn: nn.BatchNorm2d) -> Tensor:
        return torch.stack([bn.running_mean, bn.running_var])

    layers = [attempt(*case) for case in copy.deepcopy(CASES)]
    if all(map(is_empty, layers)):
        return RETURNS_NOTHING
    if not all(isinstance(bn, nn.BatchNorm2d) for bn in layers):
        return "return the layer, with new statistics."
    known = {
        says: lambda *case, attempt=a: statistics(attempt(*copy.deepcopy(case)))
        for says, a in ({None: pooled} | KNOWN).items()
    }
    other = "the statistics are not mean and unbiased variance over the pixels of all batches."
    if says := recognize([*map(statistics, layers)], CASES, known, other):
        return says
    for (before, _), bn in zip(CASES, layers, strict=True):
        for name in "momentum", "training":
            was, now = getattr(before, name), getattr(bn, name)
            if was != now:
                return f"`{name}` was {was} and is now {now}: put it back."
    return None


CHECKERS = {
    "04-recalibrate": Checker(
        find_mistake,
        praise="exact for batches of any size, and the layer is otherwise as it came.",
        wrong={
            **KNOWN,
            "`momentum` was 0.1 and is now None": lambda bn, x: pooled(averaged(bn, x), x),
            "`training` was False and is now True": lambda bn, x: pooled(bn.train(), x),
            "return the layer": lambda bn, batches: bn.running_var,
        },
    )
}
