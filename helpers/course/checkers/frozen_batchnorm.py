"""Exercises on what a step of training moves, frozen or not."""

import copy
from collections import OrderedDict

import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

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


def network_to_tune() -> nn.Module:
    """A trained stem whose eps matters, and a head, in train mode."""
    stem = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.BatchNorm2d(2, eps=1e-3))
    network = nn.Sequential(OrderedDict(stem=stem, head=nn.Conv2d(2, 1, 1)))
    for seed, tensor in enumerate([*network.parameters(), *stem[1].buffers()][:7]):
        tensor.data.copy_(uniform(tensor.numel(), seed=seed, low=0.1).view_as(tensor))
    stem[1].running_var.fill_(1e-3)
    return network


def find_script_mistake(attempt) -> str | None:
    trained, x = network_to_tune(), uniform(2, 1, 4, 4, seed=9).float()
    network = attempt(copy.deepcopy(trained), x)
    if is_empty(network):
        return RETURNS_NOTHING
    if not hasattr(network, "stem") or not hasattr(network, "head"):
        return "return the network, with its stem and its head."
    if any(p.requires_grad for p in network.stem.parameters()):
        return "the stem still asks for gradients: stop those of its parameters, too."
    after = network.state_dict()
    moved = [n for n, t in trained.state_dict().items() if n in after and not t.equal(after[n])]
    if "stem.1.running_mean" in moved:
        return (
            "stem.1.running_mean has moved. A forward pass ran in train mode while stem[1] was "
            "still a BatchNorm2d: freeze before the first look."
        )
    if in_stem := [name for name in moved if name.startswith("stem.")]:
        return (
            f"{in_stem[0]} has moved. It has a gradient from before it was frozen, and the "
            "optimizer holds it: freeze before backward(), then make the optimizer."
        )
    if "head.weight" not in moved:
        return "the head has not learned: it needs a gradient, and a step of its optimizer."
    with torch.no_grad():
        wanted, given = (
            copy.deepcopy(n.stem).double().eval()(x.double()) for n in (trained, network)
        )
        network.train()(x)
    if not agree(given, wanted):
        return (
            "every tensor of the stem stayed, and it computes something else: its new layer has "
            "another eps. Pass the old layer's."
        )
    if not agree(network.state_dict().get("stem.1.running_mean"), trained.stem[1].running_mean):
        return "the next forward pass in train mode moves the statistics: freeze the whole layer."
    return None


def script(*actions: str, eps: float = 1e-3):
    """A script that does these in turn."""

    def freeze_layer(network):
        frozen = FrozenBatchNorm2d(2, eps)
        frozen.load_state_dict(network.stem[1].state_dict())
        network.stem[1] = frozen

    def attempt(network, x):
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        does = {"freeze": lambda: freeze_layer(network), "eval": network.stem.eval}
        does |= {"stop": lambda: network.stem.requires_grad_(False), "step": optimizer.step}
        does["backward"] = lambda: network(x).square().mean().backward()
        for action in actions:
            does[action]()
        return network

    return attempt


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
    "05-script": Checker(
        find_script_mistake,
        praise="the stem is what was trained, eps and all, and only the head learns.",
        wrong={
            "freeze before the first look": script("backward", "freeze", "stop", "step"),
            "stem.0.weight has moved": script("eval", "backward", "freeze", "stop", "step"),
            "Pass the old layer's": script("freeze", "stop", "backward", "step", eps=1e-5),
            "still asks for gradients": script("freeze", "backward", "step"),
            "freeze the whole layer": script("eval", "stop", "backward", "step"),
            "the head has not learned": script("freeze", "stop", "backward"),
            "with its stem and its head": lambda *_: nn.Identity(),
        },
    ),
}
