"""What autograd keeps for a backward pass, against sums made by hand."""

import gc
import weakref

import torch
from torch import nn

from helpers.measure import kept_for_backward


def x(requires_grad=True):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 4, 8, 8, generator=generator).requires_grad_(requires_grad)


def test_the_output_comes_back_and_its_backward_still_runs():
    a = x()
    y, _ = kept_for_backward(torch.sin, a)
    y.sum().backward()
    torch.testing.assert_close(a.grad, a.detach().cos())


def test_bytes_by_hand():
    a = x()
    assert kept_for_backward(torch.sin, a)[1] == a.nbytes
    assert kept_for_backward(torch.neg, a)[1] == 0
    assert kept_for_backward(torch.sin, x(requires_grad=False))[1] == 0
    with torch.no_grad():
        assert kept_for_backward(torch.sin, a)[1] == 0


def test_a_storage_counts_once_and_whole():
    a = x()
    assert kept_for_backward(lambda a: a.sin() + a.cos(), a)[1] == a.nbytes
    assert kept_for_backward(lambda a: a[:1].sin() + a[1:].cos(), a)[1] == a.nbytes


def test_nothing_is_left_behind():
    y, _ = kept_for_backward(torch.relu, x())
    output = weakref.ref(y)
    gc.disable()
    try:
        del y
        assert output() is None
    finally:
        gc.enable()


def test_relu_keeps_its_output_and_a_convolution_its_input_and_weight():
    a, conv = x(), nn.Conv2d(4, 6, 3, bias=False)
    y, kept = kept_for_backward(torch.relu, a)
    assert kept == y.nbytes
    assert kept_for_backward(conv, a)[1] == a.nbytes + conv.weight.nbytes
