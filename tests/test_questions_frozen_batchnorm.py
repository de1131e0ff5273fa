"""Proofs of the answers about freezing."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torchvision.models import resnet50
from torchvision.ops import FrozenBatchNorm2d

from helpers.audit.census import build


def uniform(*shape, seed=0, dtype=torch.float32):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def filled(layer):
    for seed, name in enumerate(("weight", "bias", "running_mean", "running_var")):
        tensor = getattr(layer, name).data
        tensor.copy_(uniform(len(tensor), seed=seed) + 0.1)
    return layer


def moved(network, optimizer=torch.optim.SGD):
    """What a step of training changes."""
    before = copy.deepcopy(network.state_dict())
    steps = optimizer(network.parameters(), lr=0.1, weight_decay=0.1)
    network.train()(uniform(2, 3, 5, 5)).square().sum().backward()
    steps.step()
    return [name for name, tensor in network.state_dict().items() if not tensor.equal(before[name])]


def kept(network, x):
    """Bytes that autograd keeps of a forward pass, parameters and buffers left out."""
    stays = {tensor.untyped_storage().data_ptr() for tensor in network.state_dict().values()}
    storages = {}

    def note(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()

    with saved_tensors_hooks(note, lambda _: None):
        network(x)
    return sum(storage.nbytes() for at, storage in storages.items() if at not in stays)


def test_a_training_step_moves_no_frozen_layer():
    for optimizer in (
        partial(torch.optim.SGD, momentum=0.0),
        partial(torch.optim.SGD, momentum=0.9),
        torch.optim.AdamW,
    ):
        network = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), filled(FrozenBatchNorm2d(4)))
        assert moved(network, optimizer) == ["0.weight"]
        ordinary = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), filled(nn.BatchNorm2d(4)))
        assert len(moved(ordinary, optimizer)) == 6


def test_a_reloaded_detector_is_another_function():
    """With the builders' own code, on the meta device: only values are missing."""
    trained = build("fasterrcnn_resnet50_fpn", "coco").backbone.body
    assert kinds(trained) == [(FrozenBatchNorm2d, 0.0)] * 53
    state = {name: torch.zeros(tensor.shape) for name, tensor in trained.state_dict().items()}
    for weights, kind in ("default", FrozenBatchNorm2d), ("none", nn.BatchNorm2d):
        network = build("fasterrcnn_resnet50_fpn", weights).backbone.body
        assert "All keys matched" in repr(network.load_state_dict(state, assign=True))
        assert kinds(network) == [(kind, 1e-5)] * 53


def kinds(network):
    layers = [m for m in network.modules() if isinstance(m, (nn.BatchNorm2d, FrozenBatchNorm2d))]
    return [(type(layer), layer.eps) for layer in layers]


def test_a_stale_gradient_moves_a_weight_once():
    for set_to_none, wanted in (True, [1, 0, 0]), (False, [1, 0.9, 0.81]):
        weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        optimizer, steps = torch.optim.SGD([weight], lr=1.0, momentum=0.9), []
        weight.sum().backward()
        weight.requires_grad_(False)
        for _ in range(3):
            before = weight.item()
            optimizer.step()
            optimizer.zero_grad(set_to_none)
            steps.append(before - weight.item())
        assert steps == pytest.approx(wanted)


def test_a_checkpoint_does_not_tell_its_eps():
    one, other = (filled(FrozenBatchNorm2d(4, eps=eps)).state_dict() for eps in (0.0, 1e-3))
    assert one.keys() == other.keys() and all(t.equal(other[name]) for name, t in one.items())
    least = nn.BatchNorm2d(1, eps=1e-3, momentum=None)
    least(torch.ones(2, 1, 4, 4))
    assert least.running_var.item() == 0


def bodies():
    """ResNet-50's body with BatchNorm2d and with FrozenBatchNorm2d, all convolutions trainable."""
    for norm in (nn.BatchNorm2d, FrozenBatchNorm2d):
        yield nn.Sequential(*list(resnet50(norm_layer=norm).children())[:-2])


def test_eval_saves_no_memory_and_freezing_does():
    ordinary, frozen = bodies()
    x = uniform(1, 3, 256, 256)
    in_train, in_eval = (kept(ordinary.train(mode), x) / 2**20 for mode in (True, False))
    for module in ordinary.modules():
        module.requires_grad_(not isinstance(module, nn.BatchNorm2d))
    affine_frozen = kept(ordinary, x) / 2**20
    assert in_train == pytest.approx(107.0, abs=0.3)
    assert in_eval == affine_frozen == pytest.approx(107.0, abs=0.1)
    assert kept(frozen, x) / 2**20 == pytest.approx(51.7, abs=0.1)
    with torch.no_grad():
        assert kept(ordinary, x) == 0
    for body, mib in ((ordinary, 59.25), (frozen, 29.97)):
        body[:5].requires_grad_(False)  # conv1, bn1 and layer1, as torchvision's detectors do
        assert kept(body, x) / 2**20 == pytest.approx(mib, abs=0.1)


def test_under_autocast_the_frozen_layer_keeps_more():
    def bytes_each(norm, x):
        block = nn.Sequential(norm, nn.ReLU(inplace=True), nn.Conv2d(8, 8, 1))
        return round(kept(block, x) / x.numel())

    norms = nn.BatchNorm2d(8).eval(), FrozenBatchNorm2d(8)
    x = uniform(1, 8, 32, 32).requires_grad_()
    low = x.bfloat16()
    assert [bytes_each(norm, x) for norm in norms] == [8, 4]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert [bytes_each(norm, low) for norm in norms] == [4, 6]
        assert [norm(low).dtype for norm in norms] == [torch.bfloat16, torch.float32]


def test_requires_grad_does_not_stop_the_statistics():
    network = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), filled(nn.BatchNorm2d(4)))
    network[1].requires_grad_(False)
    statistics = ["1.running_mean", "1.running_var", "1.num_batches_tracked"]
    assert moved(network) == ["0.weight", *statistics]
