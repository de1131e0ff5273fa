"""The implementations compute the same function, and move the bytes that are counted by hand."""

import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from benchmarks.implementations import IMPLEMENTATIONS, NativeBatchNorm, bytes_moved
from helpers.implementations import CastFrozen
from helpers.norms import norm_layers

OTHERS = ("BN train", "identity", "FrozenBN, compiled")
SAME = [way for way in IMPLEMENTATIONS if way not in OTHERS]


def network():
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()).eval()
    with torch.no_grad():
        for tensor in (*model.parameters(), model[1].running_var):
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return model


X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_implementations_of_one_function_agree_and_leave_the_model_as_it_was():
    model = network()
    for way in SAME:
        for gradient in (False, True):
            x = X.clone().requires_grad_(gradient)
            torch.testing.assert_close(IMPLEMENTATIONS[way].make(model)(x), network()(x))
        assert type(model[1]) is nn.BatchNorm2d and not model[1].training


def test_the_others_are_what_they_are_called():
    trained = IMPLEMENTATIONS["BN train"].make(network())
    assert trained[1].training and not trained[0].training
    assert not torch.allclose(trained(X), network()(X))
    native = IMPLEMENTATIONS["BN eval, no cuDNN"].make(network())
    assert type(native[0]) is nn.Conv2d and type(native[1]) is NativeBatchNorm
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


def test_bytes_by_hand():
    for way, itemsize, backward, expected in (
        ("BN eval", 4, False, 200),
        ("BN train", 4, True, 800),
        ("FrozenBN", 4, False, 400),
        ("FrozenBN", 4, True, 600),
        ("folded", 4, True, None),
        ("BN eval", 2, False, 100),
        ("FrozenBN", 2, False, 25 * (2 + 4 + 4 + 4)),
        ("FrozenBN", 2, True, 25 * (2 + 4 + 4 + 4 + 4 + 4 + 4 + 2)),
        ("FrozenBN, cast", 2, True, 25 * 2 * 6),
    ):
        assert bytes_moved(way, 25, itemsize, backward) == expected
    assert bytes_moved("FrozenBN, cast", 25, 4, backward=False, no_gradient=True) == 200


def test_the_gradient_of_frozen_is_cast_in_a_pass_of_its_own():
    x = X.new_ones(1, 4, 5, 5).bfloat16().requires_grad_()
    y = IMPLEMENTATIONS["FrozenBN"].make(network())[1](x)
    with torch.profiler.profile() as profile:
        [gradient] = torch.autograd.grad(y.sum(), x)
    casts = [event for event in profile.key_averages() if event.key == "aten::copy_"]
    assert y.dtype == torch.float32 and gradient.dtype == torch.bfloat16
    assert sum(event.count for event in casts) == 1
