"""Plausible wrong attempts at the exercises on freezing, each with words of the answer to it."""

import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from helpers.norms import freeze


def mended(change, layers=lambda layer: hasattr(layer, "running_var"), entry="running_var"):
    """A mend of every chosen layer's entry by change(tensor, eps_trained, layer)."""

    def attempt(state, network, eps_trained):
        new = dict(state)
        for name, layer in network.named_modules():
            if hasattr(layer, "running_var") and layers(layer):
                key = f"{name}.{entry}"
                new[key] = change(state[key], eps_trained, layer)
        return new

    return attempt


def right(v, trained, layer):
    return v + trained - layer.eps


def mend_in_place(state, network, eps_trained):
    for name, layer in network.named_modules():
        if hasattr(layer, "running_var"):
            state[f"{name}.running_var"] += eps_trained - layer.eps
    return state


def mend_the_network(state, network, eps_trained):
    for layer in network.modules():
        if hasattr(layer, "running_var"):
            layer.eps = eps_trained
    return state


def mend_the_buffers(state, network, eps_trained):
    for layer in network.modules():
        if hasattr(layer, "running_var"):
            layer.running_var += eps_trained - layer.eps
    return network.state_dict()


def mend_every_variance_alike(state, network, eps_trained):
    eps = next(layer.eps for layer in network.modules() if hasattr(layer, "running_var"))
    return {k: v + eps_trained - eps if k.endswith("running_var") else v for k, v in state.items()}


def only_variances(state, network, eps_trained):
    whole = mended(right)(state, network, eps_trained)
    return {key: v for key, v in whole.items() if key.endswith("running_var")}


def with_eps(state, network, eps_trained):
    return mended(right)(state, network, eps_trained) | {"eps": torch.tensor(eps_trained)}


def held(optimizer):
    return {id(p) for group in optimizer.param_groups for p in group["params"]}


def names(network, optimizer, keep):
    parameters = network.named_parameters()
    return [name for name, p in parameters if id(p) in held(optimizer) and keep(p)]


def first_group_only(network, optimizer):
    group = {id(p) for p in optimizer.param_groups[0]["params"]}
    return [n for n, p in network.named_parameters() if id(p) in group and p.grad is not None]


def took_the_step(network, optimizer):
    before = {name: p.clone() for name, p in network.named_parameters()}
    optimizer.step()
    return [name for name, p in network.named_parameters() if not p.equal(before[name])]


def in_the_list(network, optimizer):
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return [name for name, p in network.named_parameters() if p in [*parameters, p.expand(2, 1)]]


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.01)


def trained(network):
    return [p for p in network.parameters() if p.requires_grad]


def prepared(
    load=True,
    frozen=freeze,
    stop=lambda network: network.stem.requires_grad_(False),
    optimizer=lambda network: sgd(trained(network)),
    result=lambda network, optimizer: (network, optimizer),
):
    """The right attempt, but for the steps given."""

    def attempt(network, state):
        if load:
            network.load_state_dict(state)
        network = frozen(network)
        stop(network)
        return result(network, optimizer(network))

    return attempt


def optimizer_first(network, state):
    network.load_state_dict(state)
    optimizer = sgd(network.parameters())
    network = freeze(network)
    network.stem.requires_grad_(False)
    return network, optimizer


def copy_forgotten(network, state):
    network.load_state_dict(state)
    freeze(network)
    network.stem.requires_grad_(False)
    return network, sgd(trained(network))


def frozen_stem_only(network):
    network.stem = freeze(network.stem)
    network.layer1[1] = nn.Identity()
    return network


def default_eps(network):
    for part in (network.stem, network.layer1):
        frozen = FrozenBatchNorm2d(part[1].num_features)
        frozen.load_state_dict(part[1].state_dict())
        part[1] = frozen
    return network


WRONG = {
    "03-mend": [
        (mended(lambda v, t, m: v - t + m.eps), "sign is turned round"),
        (mended(lambda v, t, m: v + t), "every layer adds its own eps on top"),
        (mend_every_variance_alike, "eps of one layer is taken for all"),
        (mended(right, lambda m: isinstance(m, FrozenBatchNorm2d)), "only the frozen layers"),
        (mended(right, lambda m: isinstance(m, nn.BatchNorm2d)), "only BatchNorm2d is mended"),
        (lambda state, network, eps: dict(state), "nothing is mended"),
        (mend_in_place, "a second call would mend it twice"),
        (mend_the_network, "changes the layers' eps in the network"),
        (mend_the_buffers, "changes the network's own tensors"),
        (only_variances, "0.bias is missing: return every entry"),
        (with_eps, "eps is new there"),
        (lambda *given: list(mended(right)(*given)), "return a state_dict, not list"),
        (mended(lambda v, t, m: v + 1e-3, entry="running_mean"), "0.running_mean has changed"),
        (mended(lambda v, t, m: (v + t - m.eps).sqrt()), "the first value of 2.0.running_var must"),
        (mended(lambda v, t, m: v * t), "the first value of 2.0.running_var must go from"),
    ],
    "03-movers": [
        (lambda n, o: names(n, o, lambda p: p.requires_grad), "stem.weight is missing. It was fr"),
        (
            lambda n, o: names(n, o, lambda p: p.requires_grad and p.grad is not None),
            "Its stale gradient is still there",
        ),
        (first_group_only, "in every group"),
        (lambda n, o: names(n, o, lambda p: True), "spare.weight is named, but it has no gradient"),
        (
            lambda n, o: [name for name, p in n.named_parameters() if p.grad is not None],
            "no group of the optimizer holds it",
        ),
        (lambda n, o: ["stem.weight"], "neck.weight is missing. It has a gradient"),
        (lambda n, o: [], "stem.weight is missing"),
        (took_the_step, "Say before it what it will move"),
        (lambda n, o: [p for p in n.parameters() if p.grad is not None], "return the names"),
        (lambda n, o: 2, "return the names"),
        (lambda n, o: ["stem", "neck"], "'stem' is no parameter's name"),
        (in_the_list, "your code raises RuntimeError"),
    ],
    "03-order": [
        (optimizer_first, "tensors that are not in the network you return"),
        (copy_forgotten, "go on with the copy"),
        (prepared(load=False), "does not hold what is in `state`"),
        (prepared(frozen=lambda network: network), "there is a BatchNorm2d in it still"),
        (prepared(frozen=frozen_stem_only), "leave none out"),
        (prepared(frozen=default_eps), "the frozen layers have eps 1e-05"),
        (prepared(stop=lambda network: None), "stem.0.weight still asks for a gradient"),
        (
            prepared(
                stop=lambda network: network.requires_grad_(False),
                optimizer=lambda network: sgd(network.parameters()),
            ),
            "layer1.0.weight no longer asks",
        ),
        (
            prepared(optimizer=lambda network: sgd(network.parameters())),
            "stem.0.weight is frozen, and in the optimizer",
        ),
        (
            prepared(optimizer=lambda network: sgd(network.head.parameters())),
            "layer1.0.weight trains, and is not in",
        ),
        (prepared(result=lambda network, optimizer: network), "return two things"),
        (prepared(result=lambda network, optimizer: (optimizer, network)), "the network first"),
    ],
}
