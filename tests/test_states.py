"""The comparison sees every plausible error in a BatchNorm written by hand, and no other."""

from types import SimpleNamespace

import pytest
import torch

from helpers.course.agreement import STATES, agreement, table

CHANNELS = (0, 2, 3)
RIGHT = dict(divide=0, store=1, turned=False, outside=False, count=1, graph=False)


def batchnorm(x, state, training, momentum, eps, **errors):
    by = SimpleNamespace(**RIGHT | errors)
    mean, var = state.get("running_mean"), state.get("running_var")
    if training or mean is None:
        mean, var = x.mean(CHANNELS), x.var(CHANNELS, correction=by.divide)
    if training and "running_mean" in state:
        state["num_batches_tracked"] += by.count
        share = 1 / int(state["num_batches_tracked"]) if momentum is None else momentum
        share = 1 - share if by.turned else share
        stored = x.var(CHANNELS, correction=by.store)
        for name, new in ("running_mean", mean), ("running_var", stored):
            new = new if by.graph else new.detach()
            state[name] = (1 - share) * state[name] + share * new
    root = var.sqrt() + eps if by.outside else (var + eps).sqrt()
    scale = state.get("weight", 1) / root
    return x * scale[:, None, None] + (state.get("bias", 0) - mean * scale)[:, None, None]


def differing(**errors):
    states = agreement(lambda *args: batchnorm(*args, **errors))
    return {state: [n for n, same in agree.items() if not same] for state, agree in states.items()}


def test_the_right_one_agrees_in_every_state():
    states = agreement(batchnorm)
    assert list(states) == list(STATES)
    assert all(all(agree.values()) for agree in states.values())
    everything = ["train", "eval", "running_mean", "running_var", "num_batches_tracked"]
    columns = {state: list(agree) for state, agree in states.items()}
    assert columns.pop("track_running_stats=False") == ["train", "eval"]
    assert all(names == everything for names in columns.values())


@pytest.mark.parametrize(
    ("errors", "wrong"),
    [
        ({"store": 0}, ["eval", "running_var"]),
        ({"divide": 1}, ["train"]),
        ({"turned": True}, ["eval", "running_mean", "running_var"]),
        ({"outside": True}, ["train", "eval"]),
        ({"count": 2}, ["num_batches_tracked"]),
        ({"graph": True}, ["running_mean", "running_var"]),
    ],
)
def test_an_error_is_seen_where_it_is(errors, wrong):
    assert differing(**errors)["as built"] == wrong


def test_the_cumulative_average_is_seen_too():
    assert "running_mean" in differing(count=2)["momentum=None"]


def test_table():
    text = table({"as built": {"train": True, "eval": False}})
    assert repr(text).splitlines() == [
        "          train   eval     running_mean  running_var  num_batches_tracked",
        "as built  agrees  DIFFERS  -             -            -",
    ]


def test_nothing_random_is_used_up():
    before = torch.random.get_rng_state()
    agreement(batchnorm)
    assert torch.equal(torch.random.get_rng_state(), before)
