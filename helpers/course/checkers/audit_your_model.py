"""Exercises on judging a model that is to be fine-tuned, and on holding a part of it."""

import copy
from collections import OrderedDict

import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from helpers.audit import audit
from helpers.course.checkers.checker import RETURNS_NOTHING, Checker, is_empty, same_choice, uniform


class Hidden(FrozenBatchNorm2d):
    def forward(self, x):
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        return x * scale[:, None, None] + (self.bias - self.running_mean * scale)[:, None, None]


def block(channels, seed):
    bn, conv = nn.BatchNorm2d(4, eps=1e-3), nn.Conv2d(channels, 4, 3, bias=False)
    bn.running_mean.copy_(uniform(4, seed=seed))
    bn.running_var.copy_(torch.tensor([2.0, 0.1, 1e-3, 1e-4]))
    conv.weight.data.copy_(uniform(*conv.weight.shape, seed=seed, low=-0.5))
    return nn.Sequential(conv, bn)


def network(kind=nn.BatchNorm2d, eps=1e-3):
    """Trained with eps 1e-3; its normalization layers made anew as this kind, with this eps."""
    parts = OrderedDict(body=block(3, 0), head=block(4, 1))
    for part in parts.values():
        layer = kind(4, eps=eps)
        layer.load_state_dict(part[1].state_dict())
        part[1] = layer
    return nn.Sequential(parts).requires_grad_(False).eval()


def models():
    """Pairs: what to say of another choice; a model, what it was trained as, whether it is safe."""
    cases = {
        "frozen layers with the eps of training are safe.": (FrozenBatchNorm2d, 1e-3, True),
        "frozen layers of eps 1e-5 were called safe. Without a recipe the audit compares eps with "
        "nothing: give it `trained`.": (FrozenBatchNorm2d, 1e-5, False),
        "layers whose attribute says eps 1e-3, and which use 1e-5, were called safe. Measure what "
        "they do.": (Hidden, 1e-3, False),
        "statistics that move in training were called safe. A model comes in eval mode, and that "
        "is what the audit judges: audit it after `train()`.": (nn.BatchNorm2d, 1e-3, False),
    }
    for says, (kind, eps, is_safe) in cases.items():
        yield says, (network(kind, eps), network(), is_safe)


MOVES = "the body's statistics moved: `model.train()` sets every layer to train mode, each time."
MIXES = "the body's statistics stand still, yet it normalizes by the batch. Use eval()."
STUCK = "the head's statistics did not move, and they shall: hold the body only."
SHORT = "return the model, after every batch has passed in both epochs."


def find_loops_mistake(attempt):
    batches = [uniform(2, 3, 6, 6, seed=seed, low=1.0).float() for seed in range(3)]
    right, given, seen = network(), network(), []
    given.body.register_forward_hook(lambda body, args, y: seen.append(y.detach().clone()))
    given.head.requires_grad_(True)
    model = attempt(given, [copy.deepcopy(batches) for _ in range(2)])
    if is_empty(model):
        return RETURNS_NOTHING
    if not isinstance(model, nn.Sequential) or len(seen) != 2 * len(batches):
        return SHORT
    if not model.body[1].running_var.equal(right.body[1].running_var):
        return MOVES
    if not all(map(torch.allclose, seen, [right.body(x) for x in batches] * 2)):
        return MIXES
    return STUCK if model.head[1].running_var.equal(right.head[1].running_var) else None


def tuning(before=lambda model: None, after=lambda model: None):
    def fine_tune(model, epochs):
        before(model)
        for batches in epochs:
            after(model.train())
            for x in batches:
                model(x)
        return model

    return fine_tune


CHECKERS = {
    "06-judge": same_choice(
        models,
        praise="in train mode, and held against what the weights were trained in.",
        wrong={
            "are safe": lambda model, trained: False,
            "give it `trained`": lambda model, trained: not audit(model.train()).findings,
            "Measure what": lambda model, trained: all(x[1].eps == 1e-3 for x in model),
            "after `train()`": lambda model, trained: not audit(model, trained).findings,
            "one of True, False": lambda model, trained: audit(model.train(), trained).findings,
        },
    ),
    "06-loop": Checker(
        find_loops_mistake,
        praise="the body is held in every epoch, and the head learns.",
        wrong={
            MOVES: tuning(before=lambda model: model.body.eval()),
            MIXES: tuning(after=lambda model: setattr(model.body[1], "momentum", 0.0)),
            STUCK: tuning(after=nn.Module.eval),
            SHORT: lambda model, epochs: model,
        },
    ),
}
