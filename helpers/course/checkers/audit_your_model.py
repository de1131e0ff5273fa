"""Exercises on judging a model that is to be fine-tuned, and on holding a part of it."""

import copy
from collections import OrderedDict
from functools import partial

import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from helpers.audit import audit
from helpers.course.checkers.checker import RETURNS_NOTHING, Checker, is_empty, same_choice, uniform


def network(kind=nn.BatchNorm2d, eps=1e-3):
    """A body and a head, trained with eps 1e-3, with normalization layers of this kind and eps."""
    parts = OrderedDict()
    for seed, (name, channels) in enumerate([("body", 3), ("head", 4)]):
        conv, layer = nn.Conv2d(channels, 4, 3, bias=False), kind(4, eps=eps)
        conv.weight.data.copy_(uniform(4, channels, 3, 3, seed=seed, low=-0.5))
        layer.running_mean.copy_(uniform(4, seed=seed))
        layer.running_var.copy_(torch.tensor([2.0, 0.1, 1e-3, 1e-4]))
        parts[name] = nn.Sequential(conv, layer)
    return nn.Sequential(parts).requires_grad_(False).eval()


def models():
    """Pairs: what to say of another choice; a model, what it was trained as, whether it is safe."""
    cases = {
        "frozen layers with the eps of training are safe.": (FrozenBatchNorm2d, 1e-3, True),
        "frozen layers of eps 1e-5 were called safe. Without a recipe the audit compares eps with "
        "nothing: give it `trained`.": (FrozenBatchNorm2d, 1e-5, False),
        "statistics that move in training were called safe. A model comes in eval mode, and that "
        "is what the audit judges: audit it after `train()`.": (nn.BatchNorm2d, 1e-3, False),
    }
    for says, (kind, eps, is_safe) in cases.items():
        yield says, (network(kind, eps), network(), is_safe)


MOVES = "the body's statistics moved: `model.train()` sets every layer to train mode, each time."
MIXES = "the body's statistics stand still, yet it normalizes by the batch. Use eval()."
STUCK = "the head's statistics did not move, and they shall: hold the body only."


def find_loops_mistake(attempt):
    batches = [uniform(2, 3, 6, 6, seed=seed, low=1.0).float() for seed in range(3)]
    right, given, seen = network(), network(), []
    given.body.register_forward_hook(lambda body, args, y: seen.append(y.detach().clone()))
    given.head.requires_grad_(True)
    model = attempt(given, [copy.deepcopy(batches) for _ in range(2)])
    if is_empty(model):
        return RETURNS_NOTHING
    if not isinstance(model, nn.Sequential):
        return "return the model."
    if not model.body[1].running_var.equal(right.body[1].running_var):
        return MOVES
    if not all(map(torch.allclose, seen, [right.body(x) for x in batches] * 2)):
        return MIXES
    return STUCK if model.head[1].running_var.equal(right.head[1].running_var) else None


def fine_tune(model, epochs, prepare):
    for batches in epochs:
        prepare(model)
        for x in batches:
            model(x)
    return model


CHECKERS = {
    "06-judge": same_choice(
        models,
        praise="in train mode, and held against what the weights were trained in.",
        wrong={
            "are safe": lambda model, trained: False,
            "give it `trained`": lambda model, trained: not audit(model.train()).findings,
            "after `train()`": lambda model, trained: not audit(model, trained).findings,
        },
    ),
    "06-loop": Checker(
        find_loops_mistake,
        praise="the body is held in every epoch, and the head learns.",
        wrong={
            MOVES: partial(fine_tune, prepare=nn.Module.train),
            MIXES: partial(
                fine_tune, prepare=lambda model: setattr(model.train().body[1], "momentum", 0.0)
            ),
            STUCK: partial(fine_tune, prepare=nn.Module.eval),
        },
    ),
}
