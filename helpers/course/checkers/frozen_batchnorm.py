"""The exercise on what a step of training moves, frozen or not."""

import copy
from collections import OrderedDict

import torch
from torch import nn

from helpers.course.checkers.checker import RETURNS_NOTHING, Checker, agree, is_empty, uniform


def network_in_training():
    """A network after a backward pass, frozen in part too late, and its optimizer."""
    names = "stem", "neck", "spare", "head"
    network = nn.Sequential(OrderedDict((n, nn.Conv2d(1, 1, 1, bias=False)) for n in names))
    groups = [network.neck.weight, network.spare.weight], [network.stem.weight]
    optimizer = torch.optim.SGD([{"params": one} for one in groups], lr=0.1, weight_decay=0.1)
    network.head(network.neck(network.stem(uniform(1, 1, 2, 2, seed=0).float()))).sum().backward()
    network.stem.requires_grad_(False)
    return network, optimizer


ABOUT_A_NAME = {
    "stem.weight": "was frozen after the backward pass. Its stale gradient is still there, and "
    "the step uses it: ask for `grad`, not for `requires_grad`, in every group",
    "spare.weight": "has no gradient (it had no part in the loss), and a step passes over "
    "it, weight decay and all",
    "head.weight": "has a gradient, but no group of the optimizer holds it",
    "neck.weight": "has a gradient, and the optimizer holds it: it moves",
}
MOVERS = "stem.weight", "neck.weight"


def find_movers_mistake(attempt) -> str | None:
    network, optimizer = network_in_training()
    before = copy.deepcopy(network.state_dict())
    answer = attempt(network, optimizer)
    if not agree(network.state_dict(), before):
        return "that takes the step. Say before it what it will move."
    if is_empty(answer):
        return RETURNS_NOTHING
    names = list(answer) if isinstance(answer, (list, tuple, set, dict)) else [None]
    if not all(isinstance(name, str) for name in names):
        return "return the names, as `network.named_parameters()` gives them, in a list."
    if unknown := [name for name in names if name not in before]:
        return f"{unknown[0]!r} is no parameter's name here."
    for name, about in ABOUT_A_NAME.items():
        if (name in names) != (name in MOVERS):
            says = "is named, but it" if name in names else "is missing. It"
            return f"{name} {says} {about}."
    return None


CHECKERS = {
    "05-movers": Checker(
        find_movers_mistake,
        praise="what the optimizer holds and what has a gradient moves, frozen or not.",
        wrong={
            "stem.weight is missing. It was frozen after the backward": lambda *_: ["neck.weight"],
            "spare.weight is named, but it has no": lambda *_: ["stem.weight", "spare.weight"],
            "head.weight is named, but it has a": lambda *_: ["stem.weight", "head.weight"],
            "neck.weight is missing. It has a gradient": lambda *_: ["stem.weight"],
            "Say before it what it will move": lambda network, optimizer: optimizer.step(),
            "return the names": lambda n, _: [p for p in n.parameters() if p.grad is not None],
            "'stem' is no parameter's name": lambda *_: ["stem", "neck"],
        },
    ),
}
