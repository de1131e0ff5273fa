"""Exercises on what freezing is."""

from collections import OrderedDict

import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from helpers.course.checkers.task import RETURNS_NOTHING, Task, Verdict, is_empty

EPS_TRAINED = 1e-3


def _layers_to_mend() -> nn.Module:
    """Three layers with running statistics, of two kinds and three eps, and one with none."""
    network = nn.Sequential(
        FrozenBatchNorm2d(2, eps=1e-5),
        nn.GroupNorm(1, 2),
        nn.Sequential(nn.BatchNorm2d(2, eps=1e-4), FrozenBatchNorm2d(2, eps=0.0)),
    ).eval()
    generator = torch.Generator().manual_seed(0)
    for tensor in network.state_dict().values():
        if tensor.ndim:
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
    return network.double()


def _mended(state, network, mend) -> dict:
    """`state` with every running variance `mend`ed by (variance, its layer)."""
    layers = {f"{name}.running_var": layer for name, layer in network.named_modules()}
    return {key: mend(v, layers[key]) if key in layers else v for key, v in state.items()}


_MENDING_MISTAKES = (
    (
        "the sign is turned round: a layer adds its own eps to what you store, and the sum must "
        "be running_var + eps_trained.",
        lambda v, layer: v - EPS_TRAINED + layer.eps,
    ),
    (
        "eps_trained is in, but every layer adds its own eps on top: take `layer.eps` off.",
        lambda v, layer: v + EPS_TRAINED,
    ),
    (
        "eps of one layer is taken for all. They differ: use `layer.eps` of each.",
        lambda v, layer: v + EPS_TRAINED - 1e-5,
    ),
    (
        "only the frozen layers are mended. A BatchNorm2d in eval mode uses its eps just so.",
        lambda v, layer: v if type(layer) is nn.BatchNorm2d else v + EPS_TRAINED - layer.eps,
    ),
    (
        "only BatchNorm2d is mended. FrozenBatchNorm2d is no subclass of it; look for layers "
        "that have a `running_var`.",
        lambda v, layer: v + EPS_TRAINED - layer.eps if type(layer) is nn.BatchNorm2d else v,
    ),
    ("every variance is as it was: nothing is mended.", lambda v, layer: v),
)


def _check_mend(attempt) -> Verdict:
    network = _layers_to_mend()
    state = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    given = {key: tensor.clone() for key, tensor in state.items()}
    epsilons = [getattr(layer, "eps", None) for layer in network.modules()]
    answer = attempt(given, network, EPS_TRAINED)
    if [getattr(layer, "eps", None) for layer in network.modules()] != epsilons:
        return Verdict(
            False,
            "that changes the layers' eps in the network. The mend has to travel in the "
            "checkpoint: change running_var there.",
        )
    current = network.state_dict()
    if any(not torch.equal(current[key], state[key]) for key in state):
        return Verdict(False, "that changes the network's own tensors: return a new state_dict.")
    if given.keys() != state.keys() or any(not torch.equal(given[k], state[k]) for k in state):
        return Verdict(
            False,
            "that changes the `state` it is given, and a second call would mend it twice: copy "
            "it first, `copy.copy(state)`, and add without `+=`.",
        )
    if is_empty(answer):
        return RETURNS_NOTHING
    if not isinstance(answer, dict):
        return Verdict(False, f"return a state_dict, not {type(answer).__name__}.")
    if missing := sorted(state.keys() - answer.keys()):
        return Verdict(False, f"{missing[0]} is missing: return every entry, mended or not.")
    if extra := sorted(map(str, answer.keys() - state.keys())):
        return Verdict(False, f"{extra[0]} is new there: the keys must stay as they are.")

    def follows(mend) -> bool:
        wanted = _mended(state, network, mend)
        return all(
            torch.allclose(torch.as_tensor(answer[key]).to(wanted[key]), wanted[key], 1e-9, 0.0)
            for key in wanted
        )

    if follows(lambda v, layer: v + EPS_TRAINED - layer.eps):
        return Verdict(
            True, "every layer adds its own eps, and computes with running_var + eps_trained."
        )
    for mistake, mend in _MENDING_MISTAKES:
        if follows(mend):
            return Verdict(False, mistake)
    for key, tensor in state.items():
        if not key.endswith("running_var") and not torch.equal(answer[key], tensor):
            return Verdict(False, f"{key} has changed: only running_var is to be mended.")
    key = "2.0.running_var"
    wanted = _mended(state, network, lambda v, layer: v + EPS_TRAINED - layer.eps)
    return Verdict(
        False,
        f"the first value of {key} must go from {state[key][0]:.5f} to {wanted[key][0]:.5f}, and "
        f"yours is {torch.as_tensor(answer[key]).flatten()[0]:.5f}.",
    )


def _network_in_training():
    """A network after a backward pass, and its optimizer of two groups.

    Of the four convolutions the first is frozen too late, the second trains, the third had no part
    in the loss, and the fourth is not in the optimizer.
    """
    network = nn.Sequential(
        OrderedDict((name, nn.Conv2d(1, 1, 1, bias=False)) for name in ("stem", "neck", "spare"))
    )
    network.head = nn.Conv2d(1, 1, 1, bias=False)
    groups = [
        {"params": [network.neck.weight, network.spare.weight]},
        {"params": [network.stem.weight]},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.1, weight_decay=0.1)
    x = torch.rand(1, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    network.head(network.neck(network.stem(x))).sum().backward()
    network.stem.requires_grad_(False)
    return network, optimizer


_ABOUT_A_NAME = {
    "stem.weight": "was frozen after the backward pass. Its stale gradient is still there, and "
    "the step uses it: ask for `grad`, not for `requires_grad`, in every group",
    "neck.weight": "has a gradient, and the optimizer holds it: it moves",
    "spare.weight": "has no gradient (it had no part in the loss), and a step passes over "
    "it, weight decay and all",
    "head.weight": "has a gradient, but no group of the optimizer holds it",
}


def _check_movers(attempt) -> Verdict:
    network, optimizer = _network_in_training()
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    answer = attempt(network, optimizer)
    if any(not torch.equal(p, before[name]) for name, p in network.named_parameters()):
        return Verdict(False, "that takes the step. Say before it what it will move.")
    if is_empty(answer):
        return RETURNS_NOTHING
    names = list(answer) if isinstance(answer, (list, tuple, set, dict)) else [None]
    if not all(isinstance(name, str) for name in names):
        return Verdict(
            False, "return the names, as `network.named_parameters()` gives them, in a list."
        )
    for name in names:
        if name not in before:
            return Verdict(False, f"{name!r} is no parameter's name here.")
    for name in ("stem.weight", "spare.weight", "head.weight", "neck.weight"):
        if (name in names) != (name in ("stem.weight", "neck.weight")):
            says = "is named, but it" if name in names else "is missing. It"
            return Verdict(False, f"{name} {says} {_ABOUT_A_NAME[name]}.")
    return Verdict(True, "what the optimizer holds and what has a gradient moves, frozen or not.")


def _network_to_prepare() -> nn.Module:
    def part(channels_in, channels_out):
        return nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 1, bias=False),
            nn.BatchNorm2d(channels_out, eps=EPS_TRAINED),
        )

    return nn.Sequential(OrderedDict(stem=part(1, 2), layer1=part(2, 2), head=nn.Conv2d(2, 1, 1)))


def _check_order(attempt) -> Verdict:
    network = _network_to_prepare()
    generator = torch.Generator().manual_seed(0)
    state = {
        key: torch.rand(tensor.shape, generator=generator) + 0.1 if tensor.ndim else tensor.clone()
        for key, tensor in network.state_dict().items()
    }
    answer = attempt(network, dict(state))
    if is_empty(answer):
        return RETURNS_NOTHING
    if not isinstance(answer, tuple) or len(answer) != 2:
        return Verdict(False, "return two things: the network and its optimizer.")
    network, optimizer = answer
    if not isinstance(network, nn.Module) or not isinstance(optimizer, torch.optim.Optimizer):
        return Verdict(False, "return the network first, then the optimizer.")
    named = dict(network.named_parameters())
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    norms = [m for m in network.modules() if hasattr(m, "running_var")]
    if any(isinstance(layer, nn.BatchNorm2d) for layer in norms):
        return Verdict(
            False,
            "there is a BatchNorm2d in it still. `freeze` changes nothing in its argument: go on "
            "with the copy that it returns.",
        )
    if len(norms) != 2 or any(not isinstance(layer, FrozenBatchNorm2d) for layer in norms):
        return Verdict(False, "both normalization layers should be frozen: leave none out.")
    if any(layer.eps != EPS_TRAINED for layer in norms):
        return Verdict(
            False,
            f"the frozen layers have eps {norms[0].eps:.0e}, and the network was built with "
            "1e-03: keep it, as `freeze(network)` does.",
        )
    current = network.state_dict()
    if wrong := [key for key in current if not torch.equal(current[key], state[key])]:
        return Verdict(False, f"{wrong[0]} does not hold what is in `state`: load it.")
    for name, p in named.items():
        if name.startswith("stem.") == p.requires_grad:
            says = "still asks for" if p.requires_grad else "no longer asks for"
            return Verdict(False, f"{name} {says} a gradient: only stem is to be frozen.")
    if foreign := len(held - {id(p) for p in named.values()}):
        return Verdict(
            False,
            f"the optimizer holds {foreign} tensors that are not in the network you return, and "
            "would train these instead: make it last.",
        )
    for name, p in named.items():
        if (id(p) in held) != p.requires_grad:
            says = "is frozen, and in" if id(p) in held else "trains, and is not in"
            return Verdict(
                False,
                f"{name} {says} the optimizer: give it the parameters that require a gradient.",
            )
    return Verdict(True, "the optimizer came last, and holds exactly what trains.")


TASKS: dict[str, Task] = {
    "03-mend": Task(
        "Mend a whole checkpoint",
        difficulty=2,
        minutes=2,
        checker=_check_mend,
        hints=(
            "Start from `copy.copy(state)`, which keeps the version marks, and go through "
            "`network.named_modules()`: a layer with a `running_var` has its entry under "
            "`f'{name}.running_var'`, and its own `eps`.",
            "The common error is one eps for all layers: a network may mix them. The other is "
            "`+=` on a tensor of `state`, which changes the caller's checkpoint.",
        ),
        solution="""\
import copy


def mend_checkpoint(state, network, eps_trained):
    mended = copy.copy(state)
    for name, layer in network.named_modules():
        if getattr(layer, "running_var", None) is not None:
            key = f"{name}.running_var"
            mended[key] = state[key] + (eps_trained - layer.eps)
    return mended
""",
    ),
    "03-movers": Task(
        "What will the step move?",
        difficulty=1,
        minutes=2,
        checker=_check_movers,
        hints=(
            "An optimizer knows nothing of layers: it goes through `group['params']` of every "
            "group in `optimizer.param_groups`, and works on each tensor that has a `grad`.",
            "The common error is to ask for `requires_grad`: a step does not look at it. Another "
            "is `p in list_of_tensors`, which compares values: compare `id(p)`.",
        ),
        solution="""\
def will_move(network, optimizer):
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    parameters = network.named_parameters()
    return [name for name, p in parameters if id(p) in held and p.grad is not None]
""",
    ),
    "03-order": Task(
        "Load, freeze, then the optimizer",
        difficulty=2,
        minutes=2,
        checker=_check_order,
        hints=(
            "Four steps, in the order of the title: `load_state_dict`; `freeze` for the layers and "
            "`requires_grad_(False)` for the stem; an optimizer for what is left.",
            "The common error is an optimizer of the network that `freeze` was given: `freeze` "
            "returns a copy, with parameters of its own.",
        ),
        solution="""\
import torch
from helpers.norms import freeze


def prepare(network, state):
    network.load_state_dict(state)
    network = freeze(network)
    network.stem.requires_grad_(False)
    trained = [p for p in network.parameters() if p.requires_grad]
    return network, torch.optim.SGD(trained, lr=0.01)
""",
    ),
}
