"""The probe: what it finds by trying a layer is what the layer does, whatever its class tells."""

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d, FrozenBatchNormAct2d, LayerNorm2d
from torch import nn
from torchvision.models import resnet50
from torchvision.ops import FrozenBatchNorm2d

from helpers.probe import Mode, is_norm_layer, norm_layers, probe, probe_all

C = 6
NOTHING, STATISTICS_ONLY, MIXES_ONLY = Mode(False, False, False), (False, True), (True, False)
BATCH = Mode(True, True, True)


class HiddenEps(nn.Module):
    """As transformers' frozen layers: eps is a local of forward."""

    def __init__(self, channels=C):
        super().__init__()
        for name, value in dict(weight=1, bias=0, running_mean=0, running_var=1).items():
            self.register_buffer(name, torch.full((channels,), float(value)))

    def forward(self, x):
        scale = (self.weight * (self.running_var + 1e-5).rsqrt())[:, None, None]
        return x * scale + self.bias[:, None, None] - self.running_mean[:, None, None] * scale


class AlwaysEval(nn.BatchNorm2d):
    """A name that many copies have: FixedBatchNorm."""

    def forward(self, x):
        values = self.running_mean, self.running_var, self.weight, self.bias
        return F.batch_norm(x, *values, False, 0, self.eps)


class OwnRMSNorm(nn.Module):
    """A layer that no list of classes has."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(C))

    def forward(self, x):
        return self.weight * x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()


class LiesAboutEps(nn.BatchNorm2d):
    """Its attribute says one thing, its forward does another."""

    def forward(self, x):
        values = self.running_mean, self.running_var, self.weight, self.bias
        return F.batch_norm(x, *values, self.training, 0.1, 1e-2)


class EpsBuffer(HiddenEps):
    """Its eps is a buffer, which takes no number."""

    def __init__(self):
        super().__init__()
        self.register_buffer("eps", torch.tensor(1e-3))

    def forward(self, x):
        return F.batch_norm(x, self.running_mean, self.running_var, eps=self.eps.item())


class Keeper(nn.BatchNorm2d):
    """It keeps its output, with the graph."""

    def forward(self, x):
        self.last = super().forward(x)
        return self.last


LAYERS = {  # layer: (mode now, mode after train(), eps, whether the attribute sets it)
    "BatchNorm2d": (nn.BatchNorm2d(C), BATCH, BATCH, 1e-5, True),
    "eval": (nn.BatchNorm2d(C, eps=1e-3).eval(), NOTHING, BATCH, 1e-3, True),
    "1d": (nn.BatchNorm1d(C), BATCH, BATCH, 1e-5, True),
    "3d": (nn.BatchNorm3d(C), BATCH, BATCH, 1e-5, True),
    "sync": (nn.SyncBatchNorm(C), BATCH, BATCH, 1e-5, True),
    "momentum 0": (nn.BatchNorm2d(C, momentum=0.0), (True, False, True), None, 1e-5, True),
    "no statistics": (
        nn.BatchNorm2d(C, track_running_stats=False).eval(),
        (True, False, True),
        (True, False, True),
        1e-5,
        True,
    ),
    "frozen": (FrozenBatchNorm2d(C), NOTHING, NOTHING, 1e-5, True),
    "frozen, eps 0": (FrozenBatchNorm2d(C, eps=0.0), NOTHING, NOTHING, 0.0, True),
    "hidden eps": (HiddenEps(), NOTHING, NOTHING, 1e-5, False),
    "eps buffer": (EpsBuffer(), NOTHING, NOTHING, 1e-3, False),
    "always eval": (AlwaysEval(C), NOTHING, NOTHING, 1e-5, True),
    "lies": (LiesAboutEps(C, eps=1e-5), BATCH, BATCH, 1e-2, False),
    "instance": (nn.InstanceNorm2d(C), NOTHING, NOTHING, 1e-5, True),
    "instance, stored": (
        nn.InstanceNorm2d(C, track_running_stats=True),
        (False, True, False),
        (False, True, False),
        1e-5,
        True,
    ),
    "group": (nn.GroupNorm(2, C), NOTHING, NOTHING, 1e-5, True),
    "layer": (nn.LayerNorm(C, eps=1e-6), NOTHING, NOTHING, 1e-6, True),
    "own RMS": (OwnRMSNorm(), NOTHING, NOTHING, 1e-6, False),
    "SiLU": (BatchNormAct2d(C, act_layer=nn.SiLU, eps=1e-3), BATCH, BATCH, 1e-3, True),
    "ReLU6, eval": (BatchNormAct2d(C, act_layer=nn.ReLU6).eval(), NOTHING, BATCH, 1e-5, True),
    "timm's frozen": (FrozenBatchNormAct2d(C), NOTHING, NOTHING, 1e-5, True),
    "timm's LayerNorm2d": (LayerNorm2d(C), NOTHING, NOTHING, 1e-6, True),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_what_it_does(name):
    layer, now, in_train, eps, settable = LAYERS[name]
    before = copy.deepcopy(layer.state_dict()), layer.training, torch.get_rng_state()
    does = probe(layer)
    assert is_norm_layer(layer) and not does.untried
    assert does.now == now and does.in_train == (in_train or now)
    assert does.eps_measured and does.eps == pytest.approx(eps, rel=1e-4)
    assert does.eps_settable == settable
    assert does.is_frozen == (does.in_train[:2] == (False, False))
    assert all(torch.equal(t, before[0][key]) for key, t in layer.state_dict().items())
    assert layer.training == before[1] and torch.equal(torch.get_rng_state(), before[2])


def test_values_and_hooks_do_not_matter():
    layer = nn.BatchNorm2d(C).eval()
    layer.running_var.fill_(float("nan"))
    layer.weight.data.zero_()
    layer.register_forward_hook(lambda *_: pytest.fail("a hook ran"))
    assert probe(layer).now == NOTHING and probe(layer).eps == 1e-5


def test_neither_a_kept_graph_nor_inference_mode_matters():
    layer = Keeper(C)
    assert layer(torch.rand(2, C, 2, 2)).requires_grad
    assert not probe(layer).untried and layer.last.requires_grad
    with torch.inference_mode():
        assert probe(layer).affine_trains


def test_what_trains():
    assert probe(nn.BatchNorm2d(C)).affine_trains is True
    assert probe(nn.BatchNorm2d(C).requires_grad_(False)).affine_trains is False
    assert probe(nn.BatchNorm2d(C, affine=False)).affine_trains is None
    assert probe(FrozenBatchNorm2d(C)).affine_trains is False
    bias_only = nn.BatchNorm2d(C)
    bias_only.weight.requires_grad_(False)
    assert probe(bias_only).affine_trains is True


def test_what_comes_out_of_low_precision():
    half, bfloat = torch.float16, torch.bfloat16
    assert probe(nn.BatchNorm2d(C)).dtypes == {half: half, bfloat: bfloat}
    assert probe(FrozenBatchNorm2d(C)).dtypes == {half: torch.float32, bfloat: torch.float32}
    assert probe(FrozenBatchNorm2d(C).half()).dtypes[half] == half


def test_what_normalizes_nothing_is_no_layer():
    others = nn.PReLU(C), nn.Linear(C, C), nn.Conv2d(C, C, 1), nn.Embedding(C, C), nn.Identity()
    assert not any(map(is_norm_layer, others))
    model = nn.Sequential(nn.Conv2d(3, C, 1), nn.Sequential(OwnRMSNorm(), nn.PReLU(C)))
    assert list(norm_layers(model)) == ["1.0"]


def test_without_values_attributes_stand_in():
    for layer in (nn.BatchNorm2d(C, device="meta"), nn.LazyBatchNorm2d()):
        does = probe(layer)
        assert does.untried == "they hold no values" and not does.eps_measured
        assert does.now[:2] == (True, True) and does.eps == 1e-5


class Uncopied(OwnRMSNorm):
    def __deepcopy__(self, memo):
        raise RuntimeError("a lock, a stream")


class UncopiedBatchNorm(nn.BatchNorm2d):
    __deepcopy__ = Uncopied.__deepcopy__


def test_what_cannot_be_copied_is_told_too():
    assert list(norm_layers(nn.Sequential(Uncopied(), UncopiedBatchNorm(C)))) == ["1"]
    does = probe(UncopiedBatchNorm(C, eps=1e-3))
    assert does.untried and does.eps == 1e-3 and does.now[:2] == (True, True)


def test_layers_of_one_kind_are_tried_once(monkeypatch):
    calls = []
    monkeypatch.setattr("helpers.probe.probe", lambda layer: calls.append(layer) or len(calls))
    layers = norm_layers(resnet50())
    layers["layer1.0.bn1"].eval()
    layers["layer1.0.bn2"].eps = 1e-3
    layers["layer1.0.bn3"].requires_grad_(False)
    assert len(probe_all(layers)) == 53 and len(calls) == 4


def test_timm_s_layers_are_found():
    model = timm.create_model("efficientnet_lite0")
    assert len(norm_layers(model)) == 49
