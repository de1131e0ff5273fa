"""The ways to normalize compute the same, and the bytes they move are what is written of them."""

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from helpers.implementations import IMPLEMENTATIONS, CastFrozen, NativeBatchNorm, bytes_moved
from helpers.norms import norm_layers

SAME = [way for way in IMPLEMENTATIONS if way not in ("BN train", "identity", "FrozenBN, compiled")]


def network():
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()).eval()
    with torch.no_grad():
        for tensor in (*model.parameters(), model[1].running_var):
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return model


X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("way", SAME)
@pytest.mark.parametrize("gradient", [False, True])
def test_ways_of_one_function_agree(way, gradient):
    x = X.clone().requires_grad_(gradient)
    torch.testing.assert_close(IMPLEMENTATIONS[way].make(network())(x), network()(x))


def test_the_others_are_what_they_are_called():
    trained = IMPLEMENTATIONS["BN train"].make(network())
    assert trained[1].training and not trained[0].training
    torch.testing.assert_close(trained(X)[:, 0].mean() > 0, torch.tensor(True))
    assert not torch.allclose(trained(X), network()(X))
    assert not norm_layers(IMPLEMENTATIONS["identity"].make(network()))
    assert not norm_layers(IMPLEMENTATIONS["folded"].make(network()))


def test_the_cast_keeps_the_dtype_that_frozen_promotes():
    x = torch.rand(1, 4, 5, 5).bfloat16()
    for gradient in (False, True):
        a = x.clone().requires_grad_(gradient)
        cast, frozen = (
            IMPLEMENTATIONS[way].make(network())[1] for way in ("FrozenBN, cast", "FrozenBN")
        )
        assert type(cast) is CastFrozen and type(frozen) is FrozenBatchNorm2d
        assert cast(a).dtype == torch.bfloat16 and frozen(a).dtype == torch.float32


def test_the_model_stays_as_it_was():
    model = network()
    for way in IMPLEMENTATIONS.values():
        way.make(model)
    assert type(model[1]) is nn.BatchNorm2d and not model[1].training


def test_bytes_by_hand():
    assert bytes_moved("BN eval", 25, 4, backward=False) == 200
    assert bytes_moved("BN train", 25, 4, backward=True) == 800
    assert bytes_moved("FrozenBN", 25, 4, backward=False) == 400
    assert bytes_moved("FrozenBN", 25, 4, backward=True) == 600
    assert bytes_moved("FrozenBN, cast", 25, 4, backward=False, no_gradient=True) == 200
    assert bytes_moved("folded", 25, 4, backward=True) is None


def test_bytes_of_a_half_precision_map():
    assert bytes_moved("BN eval", 25, 2, backward=False) == 100
    assert bytes_moved("FrozenBN", 25, 2, backward=False) == 25 * (2 + 4 + 4 + 4)
    assert bytes_moved("FrozenBN", 25, 2, backward=True) == 25 * (2 + 4 + 4 + 4 + 4 + 4 + 4 + 2)
    assert bytes_moved("FrozenBN, cast", 25, 2, backward=True) == 25 * 2 * 6


def test_the_gradient_of_frozen_is_cast_in_a_pass_of_its_own():
    x = X.new_ones(1, 4, 5, 5).bfloat16().requires_grad_()
    y = IMPLEMENTATIONS["FrozenBN"].make(network())[1](x)
    with torch.profiler.profile() as profile:
        [gradient] = torch.autograd.grad(y.sum(), x)
    casts = [event for event in profile.key_averages() if event.key == "aten::copy_"]
    assert y.dtype == torch.float32 and gradient.dtype == torch.bfloat16
    assert sum(event.count for event in casts) == 1


def test_only_the_layer_leaves_cudnn():
    model = IMPLEMENTATIONS["BN eval, no cuDNN"].make(network())
    assert type(model[0]) is nn.Conv2d and type(model[1]) is NativeBatchNorm
    assert list(model.state_dict()) == list(network().state_dict())
