"""What autograd keeps against sums made by hand; times by a clock that follows a script."""

import gc
import weakref
from unittest.mock import Mock, call

import pytest
import torch
from torch import nn

from benchmarks.norms import copy_bandwidth, peak_memory
from benchmarks.timing import Ratio, Times, interleaved
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


def test_every_other_round_runs_backwards_for_long_enough():
    a, b = (lambda: None), (lambda: 1)
    script = {a: iter([9, 0.01, 1, 2, 3]), b: iter([9, 0.5, 4, 5, 6])}
    clock = Mock(side_effect=lambda function, times: next(script[function]))
    times = interleaved({"a": a, "b": b}, rounds=3, at_least=0.02, clock=clock)
    forward = [call(a, 2), call(b, 1)]
    assert clock.call_args_list[4:] == [*forward, *forward[::-1], *forward]
    assert times["a"].seconds == (1, 2, 3) and times["b"].seconds == (4, 5, 6)
    assert times["b"].median == 5


def test_ratios_are_of_rounds_not_of_medians():
    ratio = Times((2.0, 20.0, 200.0)).over(Times((1.0, 10.0, 100.0)))
    assert ratio.rounds == (2, 2, 2) and ratio.median == 2 and ratio.spread == 0
    assert Ratio((0.9, 1.0, 1.1, 1.2, 1.3)).spread == pytest.approx(0.2)


def test_rounds_without_quartiles_are_refused():
    with pytest.raises(ValueError, match="3 or more"):
        interleaved({"a": lambda: None}, rounds=2)


def test_copying_has_a_bandwidth_and_a_cpu_no_peak():
    assert 1e8 < copy_bandwidth(2**20) < 1e13
    if not torch.cuda.is_available():
        assert peak_memory(lambda: None) is None
