"""helpers.norms on layers of every class, each against its formula in float64."""

import copy
import io
import pickle

import pytest
import timm.layers
import torch
from test_norms import (
    assert_close,
    assert_same_bits,
    assert_same_portrait,
    lived_in,
    portrait,
    rand,
    types,
    without_counters,
)
from test_probe import AlwaysEval, HiddenEps
from torch import fx, nn
from torch.nn import functional as F
from torchvision.ops import FrozenBatchNorm2d

from helpers.norms import freeze, is_frozen, recalibrate, replace_norms, unfreeze
from helpers.probe import probe


class MyFrozen(FrozenBatchNorm2d):
    pass


class BatchNormReLU(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x).relu()


class Detectron2s(HiddenEps):
    eps = 1e-5

    def forward(self, x):
        four = self.running_mean, self.running_var, self.weight, self.bias
        return F.batch_norm(x, *four, training=False, eps=self.eps)


def sync_act():
    return timm.layers.convert_sync_batchnorm(timm.layers.BatchNormAct2d(4, act_layer=nn.SiLU))


OPTIONS = {"affine": True, "track_running_stats": True}
OWN, OTHERS, BATCH = "comes back as itself", "of another library", "can normalize by the batch"
LAYERS = (  # a layer, the shape that it takes, the activation in it, what it is
    (nn.BatchNorm2d(4, 0.1), (2, 4, 3, 3), nn.Identity(), {OWN, BATCH}),
    (nn.BatchNorm1d(4, 1e-3), (5, 4), nn.Identity(), {OWN, BATCH}),
    (nn.BatchNorm1d(4, affine=False), (5, 4, 3), nn.Identity(), {OWN, BATCH}),
    (nn.BatchNorm3d(4, momentum=None), (2, 4, 3, 3, 3), nn.Identity(), {OWN, BATCH}),
    (nn.InstanceNorm1d(4, **OPTIONS), (2, 4, 3), nn.Identity(), {OWN}),
    (nn.InstanceNorm2d(4, **OPTIONS), (2, 4, 3, 3), nn.Identity(), {OWN}),
    (AlwaysEval(4), (2, 4, 3, 3), nn.Identity(), {OWN}),
    (BatchNormReLU(4), (2, 4, 3, 3), nn.ReLU(), {OWN, BATCH}),
    (timm.layers.BatchNormAct2d(4, act_layer=nn.SiLU), (2, 4, 3, 3), nn.SiLU(), {OWN, BATCH}),
    (sync_act(), (2, 4, 3, 3), nn.SiLU(), {OWN, BATCH}),
    (timm.layers.FrozenBatchNormAct2d(4), (2, 4, 3, 3), nn.ReLU(), {OTHERS}),
    (MyFrozen(4, 1e-3), (2, 4, 3, 3), nn.Identity(), {OTHERS}),
    (HiddenEps(4), (2, 4, 3, 3), nn.Identity(), {OTHERS}),
    (Detectron2s(4), (2, 4, 3, 3), nn.Identity(), {OTHERS}),
)


def formula(layer, x, eps, batch=False):
    """Batch normalization by stored statistics or by those of the batch."""
    others = [d for d in range(x.dim()) if d != 1]
    mean, var = layer.running_mean, layer.running_var
    if batch:
        mean, var = x.mean(others), x.var(others, unbiased=False)
    ones, zeros = torch.ones(4).double(), torch.zeros(4).double()
    weight, bias = (
        getattr(layer, name) if getattr(layer, name) is not None else default
        for name, default in (("weight", ones), ("bias", zeros))
    )
    mean, var, weight, bias = (
        t.detach().reshape(-1, *[1] * (x.dim() - 2)) for t in (mean, var, weight, bias)
    )
    return (x - mean) / (var + eps).sqrt() * weight + bias


def each_layer():
    for layer, shape, act, facts in LAYERS:
        model = lived_in(nn.Sequential(copy.deepcopy(layer))).double().train()
        yield model, rand(*shape, low=-2).double(), act, facts, getattr(layer, "eps", 1e-5)


def test_other_layers_freeze_and_come_back():
    for model, x, act, facts, eps in each_layer():
        layer = model[0]
        grads = [
            p.requires_grad_(name != "bias").requires_grad for name, p in layer.named_parameters()
        ]
        before, result = portrait(model), freeze(model)
        expected = act(formula(layer, x, eps))
        stored, pickled = io.BytesIO(), pickle.loads(pickle.dumps(result))
        torch.save(result, stored)
        stored.seek(0)
        for other in (
            result,
            pickled,
            copy.deepcopy(result),
            torch.load(stored, weights_only=False),
            freeze(result),
            fx.symbolic_trace(result) if type(layer).__module__.startswith("torch") else result,
        ):
            assert_close(expected, other.train()(x), 1e-12)
        assert probe(result[0]).is_frozen and is_frozen(result[0])
        assert not list(result.parameters())
        assert_same_bits(*(without_counters(s) for s in (before[0], result.state_dict())))
        assert (type(result[0]) is type(layer)) == (OTHERS in facts)
        back = [unfreeze(m) for m in (pickled, result.eval())] if OWN in facts else []
        for other in back:
            assert_same_bits(before[0], other.state_dict())
            assert repr(other) == repr(model)
            assert [p.requires_grad for p in other.parameters()] == grads
        assert [other[0].training for other in back] in ([], [True, False])
        assert_same_portrait(before, model)


def test_other_layers_take_an_eps_and_other_libraries_unfreeze():
    for model, x, act, facts, eps in each_layer():
        for given in (0.0, 0.3):
            result = freeze(model, given).train()
            assert_close(act(formula(model[0], x, given)), result(x), 1e-12)
            assert probe(result[0]).is_frozen
        if OTHERS in facts and isinstance(act, nn.Identity):
            back = unfreeze(model).eval()
            assert (type(back[0]), back[0].eps) == (nn.BatchNorm2d, eps)
            assert back[0].weight.requires_grad
            assert_close(formula(model[0], x, eps), back(x), 1e-12)
            assert_close(formula(model[0], x, eps, batch=True), back.train()(x), 1e-12)
        elif OTHERS in facts:
            with pytest.raises(TypeError, match="^Layer '0' is a .*unfreeze_batch_norm_2d"):
                unfreeze(model)
        else:
            assert types(unfreeze(model)) == types(model)
    assert type(freeze(HiddenEps(4), 0.3)) is FrozenBatchNorm2d


def test_other_layers_take_kinds():
    for model, x, act, facts, eps in each_layer():
        expected = act(formula(model[0], x, eps))
        for start in (model, freeze(model)):
            may_thaw = OWN in facts or isinstance(act, nn.Identity)
            outcomes = {
                "running statistics": expected if may_thaw else "unfreeze_batch_norm_2d",
                "frozen": expected,
                "frozen, eps 1e-5": act(formula(model[0], x, 1e-5)),
                "frozen, eps 0": act(formula(model[0], x, 0.0)),
                "identity": act(x),
                "batch statistics": act(formula(model[0], x, eps, batch=True)),
                "folded": "only layers of 2d images",
            }
            if type(model[0]) is nn.BatchNorm2d:
                del outcomes["folded"]
            if type(model[0]) is BatchNormReLU:
                outcomes["identity"] = "does more than normalize"
            if not may_thaw:
                outcomes["batch statistics"] = "unfreeze_batch_norm_2d"
            elif BATCH not in facts | {BATCH for fact in facts if fact == OTHERS}:
                outcomes["batch statistics"] = "no form without stored statistics"
            for kind, outcome in outcomes.items():
                if isinstance(outcome, str):
                    with pytest.raises(
                        TypeError, match=f"^Layer '0' is a [^\n]*{outcome}[^\n]*\\.$"
                    ):
                        replace_norms(start, kind)
                elif not isinstance(model[0], nn.SyncBatchNorm) or kind != "batch statistics":
                    result = replace_norms(start, kind)
                    assert_close(outcome, result(x), 1e-12)
                    assert result.training


def test_recalibrate_takes_other_layers():
    for model, x, _, facts, _ in each_layer():
        if OTHERS in facts or isinstance(model[0], AlwaysEval):
            with pytest.raises(ValueError, match="must be unfrozen first"):
                recalibrate(model, [x])
            continue
        if isinstance(model[0], nn.SyncBatchNorm):  # runs on GPUs only
            continue
        batches = [x, 3 * x, x - 1]
        result = recalibrate(model, batches)[0]
        inside = (2, 3, 4)[: x.dim() - 2]
        over = (
            inside if isinstance(model[0], nn.modules.instancenorm._InstanceNorm) else (0, *inside)
        )
        for name, statistic in (("running_mean", torch.mean), ("running_var", torch.var)):
            parts = [statistic(batch, over) for batch in batches]
            parts = [part if part.dim() == 1 else part.mean(0) for part in parts]
            assert_close(torch.stack(parts).mean(0), getattr(result, name), 1e-12)
        assert (result.momentum, len(result._forward_pre_hooks)) == (model[0].momentum, 0)
