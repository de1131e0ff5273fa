"""helpers/audit: counts against independent ones; every finding for, against and mended."""

import copy
import json
import math
import os
import re
import subprocess
import sys
from contextlib import nullcontext
from html import unescape

import pytest
import timm
import timm.layers
import torch
import torchvision
from test_probe import AlwaysEval, HiddenEps
from torch import nn
from torchvision.models import get_model, list_models, mobilenet_v3_large, resnet18, vgg16_bn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import mobilenet_backbone, resnet_fpn_backbone
from torchvision.models.segmentation.deeplabv3 import ASPPPooling
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.misc import Conv2dNormActivation

from helpers.audit import Layer, audit, audit_builder
from helpers.audit.__main__ import main
from helpers.audit.census import build
from helpers.networks import backbones
from helpers.norms import freeze, recalibrate, unfreeze
from helpers.probe import norm_layers

REFUSED = "Expected more than 1 value per channel"


@pytest.fixture(autouse=True)
def no_download(monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("a download")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", refuse)


def rand(*shape, low=0.0, high=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator) * (high - low) + low


@torch.no_grad()
def lived_in(model, low=0.5, high=2.0):
    """As after training: statistics that are not those a layer is made with."""
    for index, module in enumerate(model.modules()):
        if getattr(module, "running_var", None) is not None:
            shape = module.running_var.shape
            module.running_var.copy_(rand(*shape, low=low, high=high, seed=index))
            module.running_mean.copy_(rand(*shape, low=-0.2, high=0.2, seed=index))
    return model


def pair(norm, channels=4):
    return nn.Sequential(nn.Conv2d(3, channels, 3), norm)


def fixed(norm):
    return lived_in(pair(norm.requires_grad_(False)))


def detector(backbone):
    return FasterRCNN(backbone, num_classes=3, min_size=64, max_size=64)


def mobile_detector():
    """fasterrcnn_mobilenet_v3_large_fpn as its default arguments wire it."""
    options = {"backbone_name": "mobilenet_v3_large", "weights": None, "fpn": True}
    return lived_in(detector(mobilenet_backbone(**options)))


def resnet_detector(norm_layer=FrozenBatchNorm2d, **options):
    options = {"backbone_name": "resnet18", "weights": None, "norm_layer": norm_layer, **options}
    return lived_in(detector(resnet_fpn_backbone(**options)))


def codes(found):
    return [finding.code for finding in found.findings]


def the(code, found):
    [finding] = (finding for finding in found.findings if finding.code == code)
    return finding


@pytest.fixture(scope="module")
def stand_in():
    return backbones.load("resnet50", "stand-in")


@pytest.fixture(scope="module")
def lite0():
    return backbones.load("lite0")


# The layers


def test_a_layer_tells_what_it_has_and_does():
    bn = nn.BatchNorm2d(3, eps=1e-3)
    bn.running_var.copy_(torch.tensor([4.0, 0.25, 1.0]))
    fixed = nn.BatchNorm1d(2).requires_grad_(False).eval()
    layers = [bn, FrozenBatchNorm2d(2, eps=0.0), nn.GroupNorm(2, 6), nn.LayerNorm((4, 7))]
    found = audit(nn.Sequential(*layers, nn.InstanceNorm2d(5), fixed))
    half, single, no = "float16", "float32", False
    assert found.layers == (
        Layer("0", "BatchNorm2d", 3, 1e-3, True, 0.25, *3 * [True], half, ""),
        Layer("1", "FrozenBatchNorm2d", 2, 0.0, no, 1.0, True, no, no, single, ""),
        Layer("2", "GroupNorm", 6, 1e-5, True, None, True, no, no, half, ""),
        Layer("3", "LayerNorm", 28, 1e-5, True, None, True, no, no, half, ""),
        Layer("4", "InstanceNorm2d", 5, 1e-5, None, None, True, no, no, half, ""),
        Layer("5", "BatchNorm1d", 2, 1e-5, no, 1.0, True, no, no, half, ""),
    )


def test_without_values_or_affine_or_statistics_or_input_yet_the_row_says_so():
    batch_norm = nn.BatchNorm2d(3, affine=False), nn.BatchNorm2d(3, track_running_stats=False)
    lazy = nn.LazyBatchNorm2d(), nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d()
    found = audit(nn.Sequential(*batch_norm, *lazy))
    assert [x.trainable for x in found.layers] == [None, True, True, True]
    assert [x.smallest_variance for x in found.layers] == [1.0, None, None, None]
    assert [x.channels for x in found.layers] == [3, 3, None, None] and not found.findings
    assert [row[2] for row in found.table().rows] == ["1e-5", "1e-5", "1e-5 (told)"]
    assert "What 2 layers do is told by their attributes, not tried" in found.notes[0]

    class Breaks(nn.BatchNorm2d):
        def forward(self, x):
            return super().forward(x if self.training else x.no_such_method())

    found = audit(nn.Sequential(Breaks(3)))
    assert found.layers[0].untried == "when tried, they raise AttributeError"


def test_layers_are_held_once_models_may_have_none_and_wrappers_are_looked_through():
    bn, model = nn.BatchNorm2d(4), fixed(nn.BatchNorm2d(4))
    assert len(audit(nn.ModuleDict({"a": bn, "b": nn.Sequential(bn)})).layers) == 1
    assert repr(found := audit(nn.Linear(2, 2))) == "Linear: no normalization layers. No findings."
    assert (
        found.layers == found.findings == () and audit(nn.Linear(1, 1), "resnet18").recipe is None
    )
    assert audit(nn.DataParallel(torch.compile(model))) == audit(model)
    assert hash(audit(model)) and audit(model).findings


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore::DeprecationWarning")
def test_what_is_no_model_is_refused_in_one_sentence():
    scripted = torch.jit.script(nn.Sequential(nn.BatchNorm2d(2)))
    traced = torch.jit.trace(nn.BatchNorm2d(2).eval(), rand(2, 2, 2, 2))
    for model in (scripted, nn.Sequential(scripted), traced):
        with pytest.raises(TypeError, match="^A traced or scripted model hides its layers: give"):
            audit(model)
    for given in (3, "resnet50", None):
        with pytest.raises(TypeError, match="must be a torch.nn.Module, not (int|str|NoneType)"):
            audit(given)


def portrait(model):
    state = {k: t.clone() for k, t in model.state_dict().items()}
    modules = [
        (name, id(m), m.training, getattr(m, "eps", None), len(m._forward_hooks), sorted(vars(m)))
        for name, m in model.named_modules(remove_duplicate=False)
    ]
    gradients = [(name, id(p), p.requires_grad, p.grad) for name, p in model.named_parameters()]
    return state, modules, gradients


def test_nothing_changes_and_no_model_is_run_without_an_example():
    def fail(*args):
        raise AssertionError("it ran")

    images = [rand(3, 64, 64)], rand(2, 3, 64, 64)
    for model, example in zip(
        (mobile_detector(), lived_in(resnet18()).train()), images, strict=True
    ):
        handle = model.register_forward_pre_hook(fail)
        state, *rest = portrait(model)
        generator = torch.get_rng_state()
        audit(model, model, batch_size=1)
        assert portrait(model)[1:] == tuple(rest)
        handle.remove()
        audit(model, example=example)
        state_after, *rest_after = portrait(model)
        assert rest_after == rest and state_after.keys() == state.keys()
        assert all(torch.equal(state[key], state_after[key]) for key in state)
        assert torch.equal(torch.get_rng_state(), generator)


# No findings where there is no trap


def batch_statistics_nowhere_frozen():
    """Norms that train, or that use no batch, whatever is frozen in or around them."""
    yield nn.BatchNorm2d(4)
    yield nn.BatchNorm2d(4, affine=False)
    yield nn.GroupNorm(2, 4).requires_grad_(False)
    yield FrozenBatchNorm2d(4)
    yield nn.InstanceNorm2d(4, affine=True).requires_grad_(False)


@pytest.mark.parametrize(
    "make",
    [
        lambda: resnet18().train(),
        lambda: freeze(lived_in(resnet18())).train().half(),
        lambda: backbones.load("lite0"),
        lambda: lived_in(mobilenet_v3_large()),
        lambda: resnet_detector(),
        lambda: resnet_detector(nn.BatchNorm2d, trainable_layers=5),
        lambda: lived_in(timm.create_model("tf_efficientnet_b0")),
        lambda: timm.layers.freeze_batch_norm_2d(lived_in(timm.create_model("resnet18"))),
        lambda: fixed(AlwaysEval(4)).train(),
        lambda: nn.Sequential(*map(lived_in, map(pair, batch_statistics_nowhere_frozen()))),
    ],
)
def test_a_model_without_a_trap_has_no_finding(make):
    assert codes(audit(make())) == []


# eps-differs


def test_an_eps_inside_forward_is_compared_with_the_recipe():
    model = timm.create_model("tf_efficientnet_lite0")
    for parent in [*model.modules()]:
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, frozen := HiddenEps(child.num_features))
                frozen.running_var.fill_(1e-3)
    for recipe in (None, timm.create_model("tf_efficientnet_lite0")):
        finding = the("eps-differs", audit(model, recipe))
        assert len(finding.layers) == 49 and "They have eps 1e-5; the weights" in finding.meaning
        assert "×1.41 at v = 1e-3 (their smallest)" in finding.meaning
        assert "in the code of HiddenEps: change it there, or replace" in finding.advice
    assert "eps-differs" not in codes(audit(freeze(model, eps=1e-3)))


def test_mobilenet_in_a_detector_is_compared_with_its_recipe():
    model = mobile_detector()
    finding = the("eps-differs", found := audit(model))
    assert found.recipe == "mobilenet_v3_large" and len(finding.layers) == 46
    assert set(finding.layers) == {x.name for x in found.layers}
    assert "eps 1e-5; the weights of mobilenet_v3_large were trained with 1e-3" in finding.meaning
    assert finding.advice.startswith("Set their eps: layer.eps = 1e-3. Only where nothing but")
    for name in finding.layers:
        model.get_submodule(name).eps = 1e-3
    assert "eps-differs" not in codes(audit(model))
    with torch.no_grad():  # of a trained detector nothing is assumed
        model.backbone.fpn.inner_blocks[0][0].bias.add_(1)
    found = audit(freeze(model, 1e-5))
    assert not found.findings and found.recipe is None
    assert "audit(model, 'mobilenet_v3_large') compares" in found.notes[0]
    assert codes(audit(freeze(model, 1e-5), "mobilenet_v3_large")) == ["eps-differs"]


def test_the_scale_error_is_what_the_layer_does():
    """The ratio of both outputs, run in float64."""
    frozen = FrozenBatchNorm2d(3, eps=1e-5).double()
    frozen.running_var.copy_(torch.tensor([2e-4, 3e-3, 0.5]))
    trained = FrozenBatchNorm2d(3, eps=1e-3).double()
    trained.running_var.copy_(frozen.running_var)
    x = rand(1, 3, 2, 2, low=0.5).double()
    ratio = (frozen(x) / trained(x))[0, :, 0, 0]
    meaning = the("eps-differs", audit(frozen, trained)).meaning
    assert f"×{ratio[0]:.3g} at v = 2e-4 (their smallest)" in meaning
    assert f"×{ratio[1]:.3g} at v = 3e-3 (their median)" in meaning
    assert "sqrt((v + 1e-3) / (v + 1e-5))" in meaning


def test_the_scale_error_in_words():
    for variance, trained, own, words in (
        (1e-3, 1e-3, 1e-5, "×1.41 at v = 1e-3 (their smallest)"),
        (0.1, 1e-3, 1e-5, "+0.49 % at v = 0.1 (their smallest)"),
        (0.1, 1e-5, 1e-3, "−0.49 % at v = 0.1 (their smallest)"),
        (1.0, 1e-5, 2e-5, "less than 0.01 % at v = 1 (their smallest)"),
        (0.0, 1e-5, 0.0, "×∞ at v = 0 (their smallest)"),
        (math.nan, 1e-5, 0.0, "×nan at v = nan (their smallest)"),
    ):
        frozen = FrozenBatchNorm2d(1, eps=own)
        frozen.running_var.fill_(variance)
        assert words in the("eps-differs", audit(frozen, nn.BatchNorm2d(1, trained))).meaning
    model = nn.Sequential(nn.GroupNorm(1, 4, eps=1e-5))  # without variances, with examples of them
    meaning = the("eps-differs", audit(model, nn.Sequential(nn.GroupNorm(1, 4, 1e-3)))).meaning
    assert "+4.8 % at v = 0.01, ×1.41 at v = 1e-3, ×3.16 at v = 1e-4" in meaning


def test_recipes_are_told_by_shapes_also_in_parts(stand_in):
    for name, differs in {"mobilenet_v3_small": True, "resnet34": False, "resnet18": False}.items():
        model = lived_in(get_model(name))
        assert audit(model).recipe == name and not audit(model).findings
        found = audit(nn.ModuleDict({"net": freeze(model, eps=1e-5)}))
        assert found.recipe == name and codes(found) == ["eps-differs"] * differs
    model = lived_in(vgg16_bn(init_weights=False), 1e-4, 2e-4)
    found = audit(freeze(model, eps=0.0))
    assert found.recipe == "vgg16_bn" and len(the("eps-differs", found).layers) == 13
    assert "audit(model, 'vgg16_bn') compares eps" in audit(freeze(model.features, 0.0)).notes[0]
    body = nn.Sequential(*list(freeze(stand_in, eps=0.0).children())[:-3])  # up to layer3
    assert (audit(body).recipe, codes(audit(body))) == ("resnet50", ["eps-differs"])


def test_timm_models_are_compared_with_their_own_architecture():
    model = lived_in(timm.create_model("tf_efficientnet_b0"))
    frozen = timm.layers.freeze_batch_norm_2d(model)
    assert codes(audit(frozen)) == [] and audit(frozen).recipe == "timm's tf_efficientnet_b0"
    for module in frozen.modules():
        if type(module).__name__ == "FrozenBatchNormAct2d":
            module.eps = 1e-5
    assert len(the("eps-differs", audit(nn.Sequential(frozen))).layers) == 49


def test_what_is_unknown_or_untrained_or_without_data_is_compared_with_nothing(
    lite0, monkeypatch, tmp_path
):
    for model in (freeze(lite0, 1e-5), mobilenet_v3_large(norm_layer=nn.BatchNorm2d)):
        assert audit(model).recipe is None and not audit(model).findings
    with torch.device("meta"):
        assert audit(mobilenet_v3_large(norm_layer=nn.BatchNorm2d)).recipe is None
    monkeypatch.setattr("helpers.audit.recipes.FINGERPRINTS", tmp_path / "torchvision.json")
    [note] = audit(lived_in(resnet18())).notes
    assert note == "data/recipes is not here: give a recipe, as in audit(model, 'resnet50')."
    assert audit(lived_in(resnet18()), "resnet18").recipe == "resnet18"


def test_the_coco_weights_have_a_recipe_of_their_own():
    """The reload that keeps all keys: trained with 0, run with 1e-5, and the other way round."""
    for weights, trained, differs in (
        ("pretrained", "fasterrcnn_resnet50_fpn", True),
        ("coco", "fasterrcnn_resnet50_fpn", False),
        ("coco", "resnet50", True),
    ):
        found = audit(build("fasterrcnn_resnet50_fpn", weights), trained)
        assert found.recipe == trained and codes(found) == ["eps-differs"] * differs


def test_a_recipe_is_compared_layer_by_layer(stand_in):
    recipe = nn.Sequential(nn.BatchNorm2d(4, 1e-3), nn.BatchNorm2d(6, 2e-5), nn.BatchNorm2d(8))
    model = nn.Sequential(*(nn.BatchNorm2d(n) for n in (4, 6, 8)))
    inside = nn.ModuleDict({"body": nn.ModuleDict({"net": model}), "head": nn.BatchNorm2d(5)})
    for given, prefix in ((model, ""), (inside, "body.net."), (nn.DataParallel(model), "")):
        found = audit(given, nn.DataParallel(recipe))
        assert [(f.code, f.layers) for f in found.findings] == [
            ("eps-differs", (f"{prefix}0",)),
            ("eps-differs", (f"{prefix}1",)),
        ]
    recipe = nn.ModuleDict({"a": nn.BatchNorm2d(4, 1e-3), "b": nn.BatchNorm2d(4)})
    model = nn.ModuleDict({"b": nn.BatchNorm2d(4), "a": nn.BatchNorm2d(4)})
    assert the("eps-differs", audit(model, recipe)).layers == ("a",)  # names go before order
    model = freeze(stand_in, eps=1e-3)
    model.layer2 = nn.Identity()
    assert len(the("eps-differs", audit(model, stand_in)).layers) == 53 - 13


def test_a_recipe_that_does_not_match_or_tells_no_eps(stand_in):
    for recipe, error, words in (
        ("resnet18", ValueError, "^The recipe .* has other .* of the same architectur"),
        (nn.BatchNorm2d(7), ValueError, "^The recipe .* has other .* of the same architectur"),
        (1e-5, TypeError, "must be a model or a name, not float"),
        ("resnet5", ValueError, "no model 'resnet5': did you mean resnet50"),
    ):
        with pytest.raises(error, match=words):
            audit(stand_in, recipe)
    found = audit(nn.Sequential(nn.BatchNorm2d(4)), nn.Sequential(HiddenEps(4)))
    assert found.recipe is None and "eps is not compared with Sequential: no pair" in found.notes[0]
    model = resnet18(norm_layer=lambda channels: nn.GroupNorm(8, channels))
    found = audit(model, "resnet18")
    assert len(the("kind-differs", found).layers) == 20 and found.recipe is None
    assert "kind-differs" not in codes(audit(resnet18(), "resnet18"))


# not-finite, eps-zero


def test_statistics_that_are_not_finite_and_how_to_mend_them():
    for value in (math.nan, math.inf, -2e-5):
        model = lived_in(nn.Sequential(pair(nn.BatchNorm2d(4)), nn.BatchNorm2d(4)))
        model[0][1].running_var[3] = value
        for given in (model, freeze(model)):
            assert the("not-finite", found := audit(given)).layers == ("0.1",)
        if math.isnan(value):
            assert math.isnan(found.layers[0].smallest_variance)
            assert found.table().rows[0][-1] == "nan" and json.dumps(
                found.to_dict(), allow_nan=False
            )
        one, other = model.eval()(rand(2, 3, 8, 8))[:, 3]
        assert torch.equal(one, other) or not one.isfinite().all()
        assert not audit(recalibrate(model, [rand(4, 3, 8, 8)])).findings
    model = fixed(nn.BatchNorm2d(4)).eval()
    model[1].running_var[3] = 1e6
    assert not audit(model).findings
    assert codes(audit(model.half())) == ["not-finite"]
    model = nn.Sequential(nn.GroupNorm(1, 2))
    model[0].weight.data[0] = math.inf
    assert codes(audit(model)) == ["not-finite"]


def test_eps_zero_matters_where_a_variance_is_small(lite0):
    frozen = freeze(lite0, eps=0.0)
    found = audit(frozen)
    finding = the("eps-zero", found)
    v = {n: m.running_var for n, m in lite0.named_modules() if isinstance(m, nn.BatchNorm2d)}
    small = {name: variance for name, variance in v.items() if (variance < 1e-5).any()}
    assert finding.layers == tuple(small)
    channels = torch.cat([*small.values()])
    assert f"{int((channels < 1e-5).sum())} of their {len(channels)} channels" in finding.meaning
    assert "down to 0" in finding.meaning and "infinite (NaN" in finding.meaning
    assert "layer.eps = what the weights were trained with" in finding.advice
    assert the("not-finite", found).layers == tuple(n for n in v if not v[n].all())
    assert frozen(rand(1, 3, 64, 64)).isnan().all()
    for module in frozen.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.eps = 1e-3
    bn = nn.BatchNorm2d(2)
    bn.running_var.fill_(1e-8)
    for model in (
        frozen,
        freeze(lived_in(pair(nn.BatchNorm2d(4))), eps=0.0),
        bn.eval(),
        freeze(bn),
    ):
        assert not audit(model).findings
    model = build("fasterrcnn_resnet50_fpn", "coco")  # no values to judge by, and it says so
    assert not audit(model).findings and "they hold no values" in audit(model).notes[0]


# statistics-move, batch-statistics


def moved(model, x):
    """Layers whose running mean a forward pass in the present mode moves."""
    before = {k: t.clone() for k, t in model.named_buffers() if k.endswith("running_mean")}
    model(x)
    after = dict(model.named_buffers())
    return {k.rpartition(".")[0] for k, t in before.items() if not torch.equal(t, after[k])}


def test_statistics_move_in_a_frozen_stage_until_eval_and_then_until_train():
    model = lived_in(resnet18()).train()
    for part in (model.conv1, model.bn1, model.layer1):
        part.requires_grad_(False)
    finding = the("statistics-move", audit(model))
    assert finding.layers[0] == "bn1" and len(finding.layers) == 5
    assert set(finding.layers) < moved(model, rand(2, 3, 64, 64))
    for name in finding.layers:
        model.get_submodule(name).eval()
    found = audit(model)
    assert not found.findings and found.notes == (
        "5 layers with frozen parameters, such as bn1, are held by eval mode only: the next "
        "model.train() ends that. Call eval() on them after it, every time.",
    )
    assert not set(finding.layers) & moved(model, rand(2, 3, 64, 64))
    assert codes(audit(model.train())) == ["statistics-move"]
    for name in ("bn1", "layer1"):
        setattr(model, name, freeze(model.get_submodule(name)))
    assert not audit(model.train()).findings and not audit(model).notes
    assert not audit(lived_in(resnet18()).requires_grad_(False).eval()).notes  # nothing trains


class KeepsEval(nn.Module):
    """As mmdetection's norm_eval: its train() keeps some layers in eval mode."""

    def __init__(self, keeps):
        super().__init__()
        self.net, self.keeps = fixed(nn.BatchNorm2d(4)), keeps
        self.more = pair(nn.GroupNorm(2, 4))
        self.net.eval()

    def train(self, mode=True):
        super().train(mode)
        self.net.train(mode and not self.keeps)


def test_a_model_that_keeps_eval_mode_itself_gets_no_note():
    for keeps in (True, False):
        model = KeepsEval(keeps)
        assert len(audit(model).notes) == (not keeps) and not model.net.training


def untracked(norm):
    norm.track_running_stats = False  # as Lightning's BaseFinetuning.freeze does
    return norm


TRAINED = {"affine": True, "track_running_stats": True}
BATCH_NORMS = {
    "statistics-move": [
        lambda: fixed(nn.BatchNorm2d(4)),
        lambda: fixed(nn.InstanceNorm2d(4, **TRAINED)),
        lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).requires_grad_(False),
        lambda: nn.Sequential(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4)).requires_grad_(False),
        lambda: fixed(timm.layers.BatchNormAct2d(4)),
        lambda: nn.Sequential(nn.Conv2d(3, 4, 1).requires_grad_(False), nn.BatchNorm2d(4)),
        lambda: timm.create_model("efficientnet_lite0").requires_grad_(False),
    ],
    "batch-statistics": [
        lambda: fixed(nn.BatchNorm2d(4, momentum=0.0)),
        lambda: fixed(untracked(nn.BatchNorm2d(4))),
    ],
}


@pytest.mark.parametrize("code", BATCH_NORMS)
def test_frozen_layers_that_use_the_batch_and_how_to_mend_them(code):
    for make in BATCH_NORMS[code]:
        model = lived_in(make())
        finding = the(code, audit(model))
        assert "helpers.norms.freeze(part)" in finding.advice
        assert not set(codes(audit(freeze(model)))) & {*BATCH_NORMS}, model
        for name in finding.layers:
            model.get_submodule(name).eval()
        assert not audit(model).findings
        assert "layers with frozen parameters" in audit(model).notes[0]


def test_where_there_are_no_statistics_neither_eval_nor_freezing_is_advised():
    model = fixed(nn.BatchNorm2d(4, track_running_stats=False))
    for mode in (True, False):
        finding = the("batch-statistics", audit(model.train(mode)))
        assert "Neither eval() nor freezing" in finding.advice
        assert "in eval mode, too" in finding.meaning
    mended = pair(nn.BatchNorm2d(4))
    mended.load_state_dict(model.state_dict(), strict=False)
    mended = recalibrate(mended.requires_grad_(False).eval(), [rand(4, 3, 8, 8)])
    assert not audit(mended).findings and not audit(freeze(mended).train()).findings


def test_a_frozen_convolution_further_away_or_of_other_channels_does_not_count():
    for channels, second in ((3, nn.ReLU()), (4, nn.BatchNorm2d(4))):
        model = nn.Sequential(pair(second), nn.BatchNorm2d(channels))
        model[0][0].requires_grad_(False)
        assert "1" not in sum((f.layers for f in audit(model).findings), ())


# batch-of-one


def test_what_stands_between_pooling_and_layer():
    pool = nn.AdaptiveAvgPool2d(1)
    for layers, refuses in (
        ([ASPPPooling(3, 4)], True),
        ([pool, nn.Flatten(), nn.Linear(3, 4), nn.BatchNorm1d(4)], True),
        ([nn.AdaptiveMaxPool2d((1, 1)), Conv2dNormActivation(3, 4, 1)], True),
        ([pool, nn.ReLU(), nn.BatchNorm2d(3, track_running_stats=False)], True),
        ([nn.AdaptiveAvgPool2d(2), nn.BatchNorm2d(3)], False),
        ([nn.AdaptiveAvgPool2d((1, None)), nn.BatchNorm2d(3)], False),
        ([nn.BatchNorm2d(3), pool], False),
        ([pool, nn.Conv2d(3, 3, 1, padding=1), nn.BatchNorm2d(3)], False),
        ([pool, nn.Upsample(scale_factor=4), nn.BatchNorm2d(3)], False),
        ([pool, nn.GroupNorm(1, 3)], False),
    ):
        model, one = nn.Sequential(*layers), rand(1, 3, 8, 8)
        assert codes(audit(model)) == ["batch-of-one"] * refuses, layers
        assert codes(audit(model, example=one)) == ["batch-of-one"] * refuses
        assert not audit(model, batch_size=2).findings
        assert not audit(model, example=rand(2, 3, 8, 8)).findings
        with pytest.raises(ValueError, match=REFUSED) if refuses else nullcontext():
            model(one)
        if refuses and model[-1] is not layers[-1] or layers[-1].__class__ is nn.BatchNorm1d:
            assert not audit(model.eval()).findings and len(model(one)) == 1


class Head(nn.Module):
    """Layers of a list that forward reads in another order than they are registered in."""

    def __init__(self):
        super().__init__()
        self.bn, self.idle = nn.BatchNorm1d(4), nn.BatchNorm1d(4)
        self.other, self.fc = nn.Linear(4, 4), nn.Linear(3, 4)

    def forward(self, x):
        return self.bn(self.fc(x))


def test_an_example_tells_the_order_and_what_is_reached():
    model = Head()
    model.fc.requires_grad_(False)
    assert not audit(model).findings
    assert codes(audit(model, batch_size=1)) == ["batch-of-one"]
    found = audit(model, example=rand(2, 3))
    assert codes(found) == ["statistics-move", "never-reached"]
    assert [finding.layers for finding in found.findings] == [("bn",), ("idle",)]
    found = audit(model.eval(), example={"x": rand(2, 3)})
    assert codes(found) == ["never-reached"] and "bn, are held by eval mode" in found.notes[0]
    found = audit(model.train(), example=(rand(1, 3),))  # refused, and judged as far as it came
    assert codes(found) == ["statistics-move", "batch-of-one"] and REFUSED in found.notes[0]
    assert "did not run on the example to the end" in audit(model, example=rand(2, 5)).notes[0]


class Reads(nn.Module):
    """Its layers take part without being called; `idle` does not."""

    def __init__(self):
        super().__init__()
        held = self.held = nn.BatchNorm2d(3)
        self.call, self.direct = lambda x: held(x), nn.BatchNorm2d(3)
        self.read, self.idle = nn.BatchNorm2d(3), fixed(nn.BatchNorm2d(4))
        self.conv = nn.utils.weight_norm(nn.Conv2d(3, 3, 1))  # keeps a graph

    def forward(self, x):
        y = self.direct.forward(self.call(self.conv(x)))
        return nn.functional.batch_norm(y, self.read.running_mean, self.read.running_var)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_a_layer_that_is_not_called_may_take_part_and_its_original_stays():
    model = Reads()
    before = copy.deepcopy(model.held.state_dict())
    assert codes(audit(model)) == ["statistics-move"]
    found = audit(model, example=rand(2, 3, 4, 4))  # what is not reached moves nothing
    assert codes(found) == ["never-reached"] and found.findings[0].layers == ("idle.1",)
    assert not found.notes
    assert all(torch.equal(t, before[key]) for key, t in model.held.state_dict().items())


def test_with_one_image_every_layer_of_batch_statistics_is_named():
    model = nn.Sequential(
        pair(nn.BatchNorm2d(4)),
        pair(nn.BatchNorm2d(4).eval()),
        pair(nn.BatchNorm2d(4, track_running_stats=False).eval()),
        pair(nn.SyncBatchNorm(4)),
        pair(nn.InstanceNorm2d(4)),
        nn.GroupNorm(1, 4),
    )
    assert not set(codes(audit(model))) - {"not-synced"}
    finding = the("batch-of-one", audit(model, batch_size=1))
    assert finding.layers == ("0.1", "2.1") and "by its own statistics" in finding.meaning
    model[0][1] = freeze(model[0][1])
    assert the("batch-of-one", audit(model, batch_size=1)).layers == ("2.1",)
    found = audit(nn.Sequential(nn.BatchNorm2d(8), ASPPPooling(8, 4)), batch_size=1)
    assert [finding.layers for finding in found.findings] == [("1.2",), ("0",)]
    model = nn.Sequential(nn.Linear(512, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 2))
    assert "torch refuses" in the("batch-of-one", audit(model, batch_size=1)).meaning
    assert not audit(freeze(model), batch_size=1).findings[1:]  # of layers as made
    synced = nn.Sequential(ASPPPooling(8, 4))  # on several devices it gets more than one value
    assert codes(audit(synced, batch_size=1)) == ["batch-of-one"]
    assert not audit(nn.SyncBatchNorm.convert_sync_batchnorm(synced), batch_size=1).findings
    for size in (0, 2.5, math.nan, "4"):
        with pytest.raises(ValueError, match=f"batch_size must be 1 or more, .*, not {size!r}"):
            audit(nn.BatchNorm2d(2), batch_size=size)


# not-synced, never-calibrated, statistics-missing, promotes, held-twice


def test_a_conversion_passes_over_frozen_layers():
    model = nn.Sequential(lived_in(pair(FrozenBatchNorm2d(4))), pair(nn.BatchNorm2d(4)))
    assert not audit(model).findings
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert type(converted[0][1]) is FrozenBatchNorm2d
    assert the("not-synced", audit(converted)).layers == ("0.1",)
    mended = nn.SyncBatchNorm.convert_sync_batchnorm(unfreeze(converted))
    assert not audit(mended).findings
    assert {layer.class_name for layer in audit(mended).layers} == {"SyncBatchNorm"}
    added = nn.Sequential(mended, nn.BatchNorm2d(4), nn.InstanceNorm2d(4, **TRAINED))
    assert the("not-synced", audit(added)).layers == ("1",)
    assert not audit(nn.SyncBatchNorm.convert_sync_batchnorm(added)).findings


def test_statistics_that_never_moved():
    """A frozen layer as made does nothing; with trained weights it is a question."""
    for eps in (0.0, 1e-5):
        frozen = FrozenBatchNorm2d(4, eps=eps)
        frozen.running_var.sub_(eps)  # as detectron2 makes it
        assert codes(audit(pair(frozen))) == ["never-calibrated"]
        frozen.weight[2] += 0.5
        finding = the("statistics-missing", audit(pair(frozen)))
        assert "Folded weights, as Caffe2's, are so by right" in finding.meaning
        mended = recalibrate(unfreeze(freeze(pair(frozen), 1e-5)), [rand(4, 3, 8, 8)])
        assert not audit(mended).findings
        frozen.running_mean[2] += 0.5
        assert not audit(pair(frozen)).findings
    assert not audit(nn.BatchNorm2d(4).eval()).findings
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None)
    assert len(the("never-calibrated", audit(backbone)).layers) == 20
    assert not audit(lived_in(backbone)).findings
    model = resnet18()
    model.bn1.weight.data.uniform_()
    assert the("statistics-missing", audit(model)).layers == ("bn1",)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_frozen_layers_promote(dtype):
    act = timm.layers.freeze_batch_norm_2d(nn.Sequential(timm.layers.BatchNormAct2d(4)))[0]
    name, x = str(dtype).removeprefix("torch."), rand(1, 3, 4, 4).to(dtype)
    for norm in (FrozenBatchNorm2d(4), act, nn.BatchNorm2d(4).eval()):
        promotes = not isinstance(norm, nn.BatchNorm2d)
        model = nn.Sequential(nn.Conv2d(3, 4, 1), lived_in(norm), nn.Conv2d(4, 4, 1)).to(dtype)
        model[1].float()
        assert codes(found := audit(model)) == ["promotes"] * promotes
        assert model[:2](x).dtype == (torch.float32 if promotes else dtype)
        if promotes:
            [finding] = found.findings
            assert f"the {name} of the layers in front into float32" in finding.meaning
            assert f"model.to(torch.{name})" in finding.advice
        if type(norm) is FrozenBatchNorm2d:
            assert unfreeze(model).eval()(x).dtype == dtype
            assert not audit(unfreeze(model).eval()).findings
        with pytest.raises(RuntimeError) if promotes else nullcontext():
            model(x)
        assert not audit(model.to(dtype)).findings and model(x).dtype == dtype
    model = nn.Sequential(lived_in(FrozenBatchNorm2d(3)), nn.ReLU(), nn.Conv2d(3, 4, 1).half())
    assert the("promotes", audit(model)).layers == ("0",)  # no convolution right before it
    assert not audit(nn.Sequential(model, nn.Conv2d(4, 4, 1))).findings  # of two dtypes: not known


class Steps(nn.Module):
    def __init__(self, container):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.steps = container([self.conv, self.bn])


def test_layers_in_plain_containers_are_named():
    for container in (list, tuple, lambda steps: {"deep": [{"er": steps}]}):
        assert the("held-twice", audit(Steps(container))).layers == ("bn",)
    assert not audit(Steps(nn.ModuleList)).findings
    model = Steps(list)
    model.steps.append(pair(nn.BatchNorm2d(4)))  # registered nowhere
    model = nn.Sequential(model)
    assert the("held-twice", audit(model)).layers == ("0.bn", "0.steps[2].1")


# The result


def test_the_summary_in_the_terminal():
    found = audit(pair(FrozenBatchNorm2d(4)))
    assert found.table().header[:5] == ("layers", "class", "eps", "statistics move", "mixes images")
    assert found.table().header[5:] == ("affine trains", "of float16", "smallest variance")
    assert found.table().rows == [
        ("1", "FrozenBatchNorm2d", "1e-5", "no", "no", "no", "float32", "1")
    ]
    said = repr(found).removeprefix(
        f"Sequential: 1 FrozenBatchNorm2d, eps 1e-5. 1 finding.\n\n{found.table()}\n\n"
    )
    assert said.startswith(
        "never-calibrated: 1 layer (1)\n  Frozen with mean 0, variance 1, weight"
    )
    assert "\n  → Load trained weights" in said and max(map(len, said.splitlines())) == 100
    found, lines = audit(mobile_detector()), repr(audit(mobile_detector())).splitlines()
    [row] = found.table().rows
    smallest = min(layer.smallest_variance for layer in found.layers)
    assert row[0] == f"{found.layers[0].name} and 45 more" and row[-1] == f"{smallest:.3g}"
    assert len(lines) < 15 and not any(re.search(r"\d\.\d{4,}", line) for line in lines)


def test_the_summary_in_a_notebook_has_the_same_words_escaped():
    found = audit(nn.ModuleDict({"<b>": fixed(nn.BatchNorm2d(4))}), batch_size=1)
    html = found._repr_html_()
    text = unescape(re.sub("<[^>]*>", " ", html))
    for finding in found.findings:
        assert finding.meaning in text and finding.advice in text and f"{finding.code}:" in text
    assert found.headline in text and "var(--jp-warn-color1, currentColor)" in html
    assert "&lt;b&gt;" in html and "<b>." not in html
    assert found.table()._repr_html_() in html
    assert "success-color1" in audit(nn.Linear(1, 1))._repr_html_()
    found = audit(build("resnet18", "none"))
    assert found.notes and all(note in unescape(found._repr_html_()) for note in found.notes)


def test_the_dictionary_has_all_of_it(lite0):
    found = audit(freeze(lite0, 0.0), lite0)
    facts = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert facts.keys() == {"model", "layers", "findings", "recipe", "notes"}
    assert [finding["code"] for finding in facts["findings"]] == codes(found)
    assert facts["findings"][0]["layers"] == list(found.findings[0].layers)
    assert [Layer(**layer) for layer in facts["layers"]] == list(found.layers)


# The builders, and the command line


FOUND = {
    "fasterrcnn_mobilenet_v3_large_fpn": ["eps-differs"],
    "fasterrcnn_mobilenet_v3_large_320_fpn": ["eps-differs"],
    "fasterrcnn_resnet50_fpn_v2": ["statistics-move"],
    "maskrcnn_resnet50_fpn_v2": ["statistics-move"],
    "retinanet_resnet50_fpn_v2": ["statistics-move"],
}
FAMILIES = ["fasterrcnn_mobilenet_v3_large_fpn", "ssd300_vgg16", "fasterrcnn_resnet50_fpn_v2"]


DETECTORS = list_models(module=torchvision.models.detection)


@pytest.mark.parametrize("names", [FAMILIES, pytest.param(DETECTORS, marks=pytest.mark.sweep)])
def test_what_is_found_in_the_detection_family(names):
    for name in names:
        found = audit_builder(name)
        assert codes(found) == FOUND.get(name, []) and found.model == f"{name}, pretrained"
        assert codes(audit_builder(name, "none")) == []
        moves = [code for code in FOUND.get(name, []) if code == "statistics-move"]
        assert codes(found := audit_builder(name, "coco")) == moves
        assert len(found.layers) == len(norm_layers(build(name, "coco")))


def a_model():
    return fixed(nn.BatchNorm2d(4))


def test_the_command_line(capsys):
    for arguments, status, words in (
        (["fasterrcnn_mobilenet_v3_large_fpn"], 1, "eps-differs: 46 layers"),
        (["resnet18", "ssd300_vgg16"], 0, "ssd300_vgg16, pretrained: no normalization layers"),
        (["resnet18", "--batch-size", "1"], 1, "batch-of-one: 20 layers"),
        (["keypointrcnn_resnet50_fpn", "--weights", "COCO_LEGACY"], 0, "eps 1e-5. No findings"),
        (["test_audit:a_model"], 1, "statistics-move: 1 layer"),
        (["resnet18", "resnext5"], 2, "no model 'resnext5': did you mean "),
        (["resnet18", "--weights", "coco"], 2, "resnet18 has no weights 'coco'"),
        (["resnet18", "--batch-size", "0"], 2, "batch_size must be 1 or more"),
        (["test_audit:nothing"], 2, "test_audit:nothing leads to no model: AttributeError"),
        (["no_such:module"], 2, "no_such:module leads to no model: ModuleNotFoundError"),
        (["re:purge"], 2, "must be a torch.nn.Module, not NoneType"),
    ):
        assert main(arguments) == status, arguments
        out, err = capsys.readouterr()
        assert words in (err if status == 2 else out) and bool(out) != bool(err)
        assert len(err.splitlines()) == (status == 2)
    assert main(["--json", "test_audit:a_model"]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert facts["models"]["test_audit:a_model"] == audit(a_model()).to_dict()


COMMAND = [sys.executable, "-m", "helpers.audit", "resnet18", "--batch-size", "1"]


def test_a_narrow_encoding_is_survived():
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    ran = subprocess.run(COMMAND, env=environment, capture_output=True)
    assert ran.returncode == 1 and not ran.stderr and "  ? Freeze" in ran.stdout.decode("cp1252")


@pytest.mark.posix
def test_a_reader_that_leaves_is_survived():
    ran = subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    ran.stdout.close()
    assert not ran.communicate()[1]
