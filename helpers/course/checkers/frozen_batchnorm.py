"""Exercises on what freezing is."""

import copy
from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from helpers.course.checkers.checker import RETURNS_NOTHING, Checker, agree, is_empty, recognize
from helpers.norms import freeze

EPS_TRAINED = 1e-3


def network_to_mend() -> nn.Module:
    """Three layers with running statistics, of two kinds and three eps, and one with none."""
    network = nn.Sequential(
        FrozenBatchNorm2d(2, eps=1e-5),
        nn.GroupNorm(1, 2),
        nn.Sequential(nn.BatchNorm2d(2, eps=1e-4), FrozenBatchNorm2d(2, eps=0.0)),
    ).eval()
    network.load_state_dict(random_state(network))
    return network.double()


def random_state(network: nn.Module) -> dict[str, torch.Tensor]:
    """A state_dict for `network`, the same with every call, with all values in 0.1–1.1."""
    state, generator = network.state_dict(), torch.Generator().manual_seed(0)
    for key, tensor in state.items():
        if tensor.ndim:
            state[key] = torch.rand(tensor.shape, generator=generator) + 0.1
    return state


def layers_to_mend(network: nn.Module) -> dict[str, nn.Module]:
    return {name: m for name, m in network.named_modules() if hasattr(m, "running_var")}


def mending(change: Callable, entry: str = "running_var") -> Callable:
    """A mend of this entry of every layer by change(tensor, eps_trained, layer)."""

    def attempt(state, network, eps_trained):
        mended = copy.copy(state)
        for name, layer in layers_to_mend(network).items():
            key = f"{name}.{entry}"
            mended[key] = change(state[key], eps_trained, layer)
        return mended

    return attempt


def by_difference(variance, eps_trained, layer):
    return variance + eps_trained - layer.eps


mended = mending(by_difference)
MENDING_MISTAKES = {
    "the sign is turned round: a layer adds its own eps to what you store, and the sum must be "
    "running_var + eps_trained.": mending(lambda v, trained, layer: v - trained + layer.eps),
    "eps_trained is in, but every layer adds its own eps on top: take `layer.eps` off.": mending(
        lambda v, trained, layer: v + trained
    ),
    "eps of one layer is taken for all. They differ: use `layer.eps` of each.": mending(
        lambda v, trained, layer: v + trained - 1e-5
    ),
    "only the frozen layers are mended. A BatchNorm2d in eval mode uses its eps just so.": mending(
        lambda v, *rest: v if type(rest[1]) is nn.BatchNorm2d else by_difference(v, *rest)
    ),
    "only BatchNorm2d is mended. FrozenBatchNorm2d is no subclass of it; look for layers that have "
    "a `running_var`.": mending(
        lambda v, *rest: by_difference(v, *rest) if type(rest[1]) is nn.BatchNorm2d else v
    ),
    "every variance is as it was: nothing is mended.": mending(lambda v, *rest: v),
}


def find_mending_mistake(attempt) -> str | None:
    network, untouched = network_to_mend(), network_to_mend()
    state = untouched.state_dict()
    given = copy.deepcopy(state)
    answer = attempt(given, network, EPS_TRAINED)
    layers = layers_to_mend(untouched)
    if any(m.eps != layers[name].eps for name, m in layers_to_mend(network).items()):
        return "that changes the layers' eps; but the mend must travel in the checkpoint."
    if not agree(network.state_dict(), state):
        return "that changes the network's own tensors: return a new state_dict."
    if not agree(given, state):
        return (
            "that changes the `state` it is given, and a second call would mend it twice: copy "
            "it first, `copy.copy(state)`, and add without `+=`."
        )
    if is_empty(answer):
        return RETURNS_NOTHING
    if not isinstance(answer, dict):
        return f"return a state_dict, not {type(answer).__name__}."
    if other := sorted(map(str, state.keys() ^ answer.keys())):
        return f"{other[0]} is missing or new: return every entry, mended or not, and no other."
    case = state, untouched, EPS_TRAINED
    if agree(answer, mended(*case)):
        return None
    if says := recognize([answer], [case], MENDING_MISTAKES):
        return says
    for key, tensor in state.items():
        if not key.endswith("running_var") and not agree(answer[key], tensor):
            return f"{key} has changed: only running_var is to be mended."
    return "no mistake known here: add eps_trained to each variance, and take off `layer.eps`."


def mend_in_place(state, network, eps_trained):
    for name, layer in layers_to_mend(network).items():
        state[f"{name}.running_var"] += eps_trained - layer.eps
    return state


def mend_the_network(state, network, eps_trained):
    for layer in layers_to_mend(network).values():
        layer.eps = eps_trained
    return state


def network_in_training():
    """A network after a backward pass, and its optimizer of two groups.

    Of the four convolutions the first is frozen too late, the second trains, the third had no part
    in the loss, and the fourth is not in the optimizer.
    """
    names = "stem", "neck", "spare", "head"
    network = nn.Sequential(OrderedDict((n, nn.Conv2d(1, 1, 1, bias=False)) for n in names))
    groups = [
        {"params": [network.neck.weight, network.spare.weight]},
        {"params": [network.stem.weight]},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.1, weight_decay=0.1)
    x = torch.rand(1, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    network.head(network.neck(network.stem(x))).sum().backward()
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


def network_to_prepare() -> nn.Module:
    def part(channels_in, channels_out):
        return nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 1, bias=False),
            nn.BatchNorm2d(channels_out, eps=EPS_TRAINED),
        )

    return nn.Sequential(OrderedDict(stem=part(1, 2), layer1=part(2, 2), head=nn.Conv2d(2, 1, 1)))


def find_order_mistake(attempt) -> str | None:
    network = network_to_prepare()
    state = random_state(network)
    answer = attempt(network, dict(state))
    if is_empty(answer):
        return RETURNS_NOTHING
    kinds = nn.Module, torch.optim.Optimizer
    if not isinstance(answer, tuple) or len(answer) != 2 or not all(map(isinstance, answer, kinds)):
        return "return two things: the network first, then the optimizer."
    network, optimizer = answer
    norms = list(layers_to_mend(network).values())
    if any(isinstance(layer, nn.BatchNorm2d) for layer in norms):
        return (
            "there is a BatchNorm2d in it still. `freeze` changes nothing in its argument: go on "
            "with the copy that it returns."
        )
    if len(norms) != 2 or any(not isinstance(layer, FrozenBatchNorm2d) for layer in norms):
        return "both normalization layers should be frozen: leave none out."
    if any(layer.eps != EPS_TRAINED for layer in norms):
        return f"the frozen layers have eps {norms[0].eps:.0e}, not 1e-03 as before: keep it."
    for key, tensor in network.state_dict().items():
        if not torch.equal(tensor, state[key]):
            return f"{key} does not hold what is in `state`: load it."
    parameters = dict(network.named_parameters())
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for name, p in parameters.items():
        if name.startswith("stem.") == p.requires_grad:
            says = "still asks for" if p.requires_grad else "no longer asks for"
            return f"{name} {says} a gradient: only stem is to be frozen."
    if foreign := len(held - set(map(id, parameters.values()))):
        return (
            f"the optimizer holds {foreign} tensors that are not in the network you return, and "
            "would train these instead: make it last."
        )
    for name, p in parameters.items():
        if (id(p) in held) != p.requires_grad:
            says = "is frozen, and in" if id(p) in held else "trains, and is not in"
            return f"{name} {says} the optimizer: give it the parameters that require a gradient."
    return None


def of_all(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(network.parameters())


def of_trained(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for p in network.parameters() if p.requires_grad])


def preparing(
    load: bool = True,
    frozen: Callable = freeze,
    stop: Callable = lambda network: network.stem.requires_grad_(False),
    optimizer: Callable = of_trained,
    result: Callable = lambda network, optimizer: (network, optimizer),
) -> Callable:
    """The right attempt, but for the steps given."""

    def attempt(network, state):
        if load:
            network.load_state_dict(state)
        network = frozen(network)
        stop(network)
        return result(network, optimizer(network))

    return attempt


def optimizer_first(network, state):
    optimizer = of_all(network)
    return preparing(optimizer=lambda network: optimizer)(network, state)


def stem_only(network):
    network.stem = freeze(network.stem)
    network.layer1[1] = nn.Identity()
    return network


CHECKERS = {
    "05-mend": Checker(
        find_mending_mistake,
        praise="every layer adds its own eps, and computes with running_var + eps_trained.",
        wrong={
            **MENDING_MISTAKES,
            "a second call would mend it twice": mend_in_place,
            "changes the layers' eps": mend_the_network,
            "changes the network's own tensors": lambda state, network, eps: mend_in_place(
                network.state_dict(), network, eps
            ),
            "0.weight is missing or new": lambda state, *rest: dict([*state.items()][1:]),
            "eps is missing or new": lambda state, *rest: state | {"eps": torch.tensor(1e-3)},
            "return a state_dict, not list": lambda state, *rest: list(state),
            "0.running_mean has changed": mending(lambda v, *rest: v + 1e-3, "running_mean"),
            "take off `layer.eps`": mending(lambda v, *rest: v.sqrt()),
        },
    ),
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
            "gives them, in a list": lambda *_: 2,
            "'stem' is no parameter's name": lambda *_: ["stem", "neck"],
        },
    ),
    "05-order": Checker(
        find_order_mistake,
        praise="the optimizer came last, and holds exactly what trains.",
        wrong={
            "tensors that are not in the network you return": optimizer_first,
            "does not hold what is in `state`": preparing(load=False),
            "there is a BatchNorm2d in it still": preparing(frozen=nn.Module.eval),
            "leave none out": preparing(frozen=stem_only),
            "the frozen layers have eps 1e-05": preparing(
                frozen=lambda network: freeze(network, 1e-5)
            ),
            "stem.0.weight still asks for a gradient": preparing(stop=lambda network: None),
            "layer1.0.weight no longer asks": preparing(
                stop=lambda network: network.requires_grad_(False), optimizer=of_all
            ),
            "stem.0.weight is frozen, and in the optimizer": preparing(optimizer=of_all),
            "layer1.0.weight trains, and is not in": preparing(
                optimizer=lambda network: of_all(network.head)
            ),
            "return two things": preparing(result=lambda network, optimizer: network),
            "network first": preparing(result=lambda network, optimizer: (optimizer, network)),
        },
    ),
}
