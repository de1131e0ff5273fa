"""Exercises on what BatchNorm stores, and on what a forward pass writes."""

import copy
from collections import OrderedDict

import torch
from torch import nn

from helpers.course.checkers import checker

CHANNELS = 0, 2, 3
SMALL = checker.uniform(2, 3, 2, 1, seed=0, low=3.0).float()
IMAGES = checker.uniform(2, 3, 4, 4, seed=1)


def by_hand(correction: int = 1) -> type[nn.BatchNorm2d]:
    """A BatchNorm2d whose running statistics are updated in Python, right by default."""

    class Layer(nn.BatchNorm2d):
        def forward(self, x):
            if not self.training:
                return super().forward(x)
            with torch.no_grad():
                self.running_mean.lerp_(x.mean(CHANNELS), self.momentum)
                self.running_var.lerp_(x.var(CHANNELS, correction=correction), self.momentum)
            return nn.functional.batch_norm(x, None, None, self.weight, self.bias, training=True)

    return Layer


LAYERS = {
    "`nn.BatchNorm2d` itself must pass.": (nn.BatchNorm2d, True),
    "a layer that stores the same, computed in another order, must pass: compare the numbers, with "
    "a tolerance for rounding (`torch.allclose`).": (by_hand(), True),
    "a layer that stores the biased variance passes your test. Compare `running_var` itself, and "
    "on few values per channel: a large n hides the factor n/(n − 1).": (by_hand(0), False),
}


def after_one(x, tolerance=1e-5, reference=nn.BatchNorm2d):
    """A test that compares running_var of a layer and of the reference after one batch."""

    def attempt(layer):
        ours, theirs = layer(3), reference(3)
        ours(x), theirs(x)
        return torch.allclose(ours.running_var, theirs.running_var, rtol=tolerance, atol=tolerance)

    return attempt


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
    if checker.is_empty(features):
        return checker.RETURNS_NOTHING
    if checker.form(features) != checker.form(wanted):
        return f"return {checker.form(wanted)}, not {checker.form(features)}."
    if not torch.allclose(copy.deepcopy(model).eval()(IMAGES), twin(IMAGES)):
        return "the validation loss still changes. What does a forward pass in train mode write?"
    if not torch.allclose(features, wanted):
        return "a feature still depends on the other images: train mode divides by the batch."
    if not any(left):
        return "the model is left in eval mode, and training goes on with it."
    awake = "a layer that was held in eval mode is awake: `train()` reaches every submodule."
    return None if left == modes else awake


CHECKERS = {
    "02-test": checker.same_choice(
        LAYERS.items,
        praise="your test sees the biased variance, and lets rounding pass.",
        wrong={
            "a large n hides": after_one(
                checker.uniform(16, 3, 28, 28, seed=0).float(), tolerance=1e-3
            ),
            "`nn.BatchNorm2d` itself must": after_one(SMALL, reference=by_hand(0)),
            "computed in another order, must pass": after_one(SMALL, tolerance=0),
        },
    ),
    "02-look": checker.Checker(
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
