"""The exercise on what a forward pass writes."""

import copy
from collections import OrderedDict

import torch
from torch import nn

from helpers.course.checkers.checker import RETURNS_NOTHING, Checker, form, is_empty, uniform

IMAGES = uniform(2, 3, 4, 4, seed=1)


def network() -> nn.Sequential:
    """A small network in training, whose second BatchNorm layer is held in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        stem, layer1 = (nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)) for _ in range(2))
    layer1[1].eval()
    return nn.Sequential(OrderedDict(stem=stem, layer1=layer1, head=nn.Flatten())).double()


@torch.no_grad()
def look(model, images):
    return model.layer1(model.stem(images))


def find_trace(attempt) -> str | None:
    """What a look at the activations of `network` does wrong."""
    model = network()
    twin, modes = copy.deepcopy(model).eval(), [m.training for m in model.modules()]
    features, wanted = attempt(model, IMAGES), look(twin, IMAGES)
    left = [m.training for m in model.modules()]
    if is_empty(features):
        return RETURNS_NOTHING
    if form(features) != form(wanted):
        return f"return {form(wanted)}, not {form(features)}."
    if not torch.allclose(copy.deepcopy(model).eval()(IMAGES), twin(IMAGES)):
        return "the validation loss still changes. What does a forward pass in train mode write?"
    if not torch.allclose(features, wanted):
        return "a feature still depends on the other images: train mode divides by the batch."
    if not any(left):
        return "the model is left in eval mode, and training goes on with it."
    awake = "a layer that was held in eval mode is awake: `train()` reaches every submodule."
    return None if left == modes else awake


CHECKERS = {
    "02-look": Checker(
        find_trace,
        praise="the features are those of eval mode, and the model is as it was, its modes too.",
        wrong={
            "What does a forward pass in train mode write?": look,
            "still depends on the other images": lambda model, x: (
                setattr(model.stem[1], "momentum", 0),
                look(model, x),
            )[1],
            "is left in eval mode": lambda model, images: look(model.eval(), images),
            "is awake": lambda model, x: (look(model.eval(), x), model.train())[0],
        },
    ),
}
