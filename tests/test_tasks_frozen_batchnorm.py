"""The exercises on freezing, held against torch: what is mended computes, what moves moves.

The wrong attempts are in wrong_frozen_batchnorm.py, and test_exercises.py makes them.
"""

import copy

import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d
from wrong_frozen_batchnorm import prepared

from helpers.course.checkers import TASKS
from helpers.course.checkers.frozen_batchnorm import (
    EPS_TRAINED,
    _layers_to_mend,
    _network_in_training,
    _network_to_prepare,
)
from helpers.course.exercises import check


def answer(key):
    namespace = {}
    exec(TASKS[key].solution, namespace)
    return list(namespace.values())[-1]


def values(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def changed(network, before):
    return [name for name, tensor in network.state_dict().items() if not tensor.equal(before[name])]


def test_mended_network_computes_what_was_trained():
    network = _layers_to_mend()
    trained = copy.deepcopy(network)
    for layer in trained.modules():
        if hasattr(layer, "running_var"):
            layer.eps = EPS_TRAINED
    x = torch.rand(1, 2, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert not torch.allclose(network(x), trained(x), rtol=1e-9, atol=0)
    network.load_state_dict(answer("03-mend")(trained.state_dict(), network, EPS_TRAINED))
    torch.testing.assert_close(network(x), trained(x), rtol=1e-12, atol=1e-12)


def test_an_attempt_in_another_order_of_addition_passes():
    def attempt(state, network, eps_trained):
        layers = dict(network.named_modules())
        return {
            key: (eps_trained - layers[key.rpartition(".")[0]].eps) + tensor
            if key.endswith(".running_var")
            else tensor
            for key, tensor in state.items()
        }

    assert check("03-mend", attempt).ok is True


def test_the_step_moves_what_is_named():
    network, optimizer = _network_in_training()
    named = answer("03-movers")(network, optimizer)
    before = values(network)
    optimizer.step()
    assert changed(network, before) == named == ["stem.weight", "neck.weight"]
    assert check("03-movers", lambda *_: set(named)).ok is True


def test_what_is_prepared_trains_and_nothing_else():
    network = _network_to_prepare()
    network, optimizer = answer("03-order")(network, network.state_dict())
    x = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    before = values(network)
    network.train()(x).square().sum().backward()
    optimizer.step()
    assert changed(network, before) == ["layer1.0.weight", "head.weight", "head.bias"]
    norms = [m for m in network.modules() if isinstance(m, FrozenBatchNorm2d)]
    assert [m.eps for m in norms] == [EPS_TRAINED] * 2


def test_other_right_ways_to_prepare_pass():
    def load_last(network, state):
        network, optimizer = prepared(load=False)(network, state)
        network.load_state_dict(state)  # the frozen layers drop num_batches_tracked
        return network, optimizer

    def by_hand(network, state):
        network.load_state_dict(state)
        for part in (network.stem, network.layer1):
            frozen = FrozenBatchNorm2d(2, eps=part[1].eps)
            frozen.load_state_dict(part[1].state_dict())
            part[1] = frozen
        for p in network.stem.parameters():
            p.requires_grad = False
        return network, torch.optim.AdamW(
            [*network.layer1.parameters(), *network.head.parameters()]
        )

    assert check("03-order", load_last).ok is True
    assert check("03-order", by_hand).ok is True
    assert check("03-order", prepared(frozen=nn.Module.eval)).ok is False
