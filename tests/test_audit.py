"""helpers/audit: counts against independent ones, every finding for and against, by running."""

import json
import math
import re
import runpy
import sys
from contextlib import nullcontext
from html import unescape

import pytest
import timm
import timm.layers
import torch
import torchvision
from torch import nn
from torchvision.models import get_model, list_models, mobilenet_v3_large, resnet18
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import mobilenet_backbone, resnet_fpn_backbone
from torchvision.models.segmentation.deeplabv3 import ASPPPooling
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.misc import Conv2dNormActivation

import helpers.audit.__main__
from helpers.audit import Layer, audit, audit_builder
from helpers.audit.__main__ import main
from helpers.audit.census import build, census, counts, detection_builders, without_values
from helpers.networks import backbones
from helpers.norms import freeze, unfreeze

TIMM = (
    "nf_resnet26",
    "tf_efficientnetv2_b0",
    "mobilenetv3_large_100",
    "resnetv2_50",
    "convnext_tiny",
    "vit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
    "regnety_002",
    "densenet121",
    "gmixer_12_224",
)


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


NAMES = re.compile("(Frozen)?(Sync)?(Batch|Instance|Group|Layer)Norm[A-Z0-9]")


def by_name(module):
    """Class names of the normalization layers, from a walk that knows no class: another count."""
    name = type(module).__name__
    mine = [name] if NAMES.match(f"{name}0") else []
    return sum((by_name(child) for child in module._modules.values() if child), mine)


FEW = ["resnet18", "densenet121", "convnext_tiny", "swin_t", "fcn_resnet50", "ssd300_vgg16"]


@pytest.mark.parametrize("names", [FEW, pytest.param(list_models(), marks=pytest.mark.sweep)])
def test_torchvision_models_are_counted(names):
    for name in names:
        model = build(name, "none")
        found = audit(model)
        assert [layer.class_name for layer in found.layers] == by_name(model), name
        with_statistics = [k for k in model.state_dict() if k.endswith(".running_var")]
        named = [f"{x.name}.running_var" for x in found.layers if "BatchNorm" in x.class_name]
        assert named == with_statistics
        assert set(codes(found)) <= {"batch-of-one"}
        assert json.loads(json.dumps(found.to_dict()))["model"] == type(model).__name__


@pytest.mark.parametrize("names", [TIMM[:2], pytest.param(TIMM, marks=pytest.mark.sweep)])
def test_timm_models_are_counted(names):
    for name in names:
        model = without_values(timm.create_model, name)
        found = audit(model)
        assert [layer.class_name for layer in found.layers] == by_name(model), name
        assert not found.findings and bool(found.layers) == (name != "nf_resnet26")


def test_a_layer_tells_what_it_has():
    bn = nn.BatchNorm2d(3, eps=1e-3, momentum=0.03)
    bn.running_var.copy_(torch.tensor([4.0, 0.25, 1.0]))
    frozen = FrozenBatchNorm2d(2, eps=0.0)
    bare = nn.InstanceNorm2d(5)
    fixed = nn.BatchNorm1d(2).requires_grad_(False).eval()
    model = nn.Sequential(bn, frozen, nn.GroupNorm(2, 6), nn.LayerNorm((4, 7)), bare, fixed)
    assert audit(model).layers == (
        Layer("0", "BatchNorm2d", 3, 1e-3, 0.03, True, True, 0.25, 1.0),
        Layer("1", "FrozenBatchNorm2d", 2, 0.0, None, True, False, 1.0, 1.0),
        Layer("2", "GroupNorm", 6, 1e-5, None, True, True, None, None),
        Layer("3", "LayerNorm", 28, 1e-5, None, True, True, None, None),
        Layer("4", "InstanceNorm2d", 5, 1e-5, 0.1, True, None, None, None),
        Layer("5", "BatchNorm1d", 2, 1e-5, 0.1, False, False, 1.0, 1.0),
    )


def test_layers_without_affine_or_statistics_or_input_yet():
    model = nn.Sequential(
        nn.BatchNorm2d(3, affine=False),
        nn.BatchNorm2d(3, track_running_stats=False),
        nn.LazyBatchNorm2d(),
        nn.LazyConv2d(4, 3),
        nn.LazyBatchNorm2d(),
    )
    found = audit(model)
    assert [x.trainable for x in found.layers] == [None, True, True, True]
    assert [x.smallest_variance for x in found.layers] == [1.0, None, None, None]
    assert [x.channels for x in found.layers] == [3, 3, None, None]
    assert not found.findings


def test_a_shared_layer_counts_once():
    bn = nn.BatchNorm2d(4)
    assert len(audit(nn.ModuleDict({"a": bn, "b": nn.Sequential(bn)})).layers) == 1


def test_without_normalization_layers_it_says_so():
    found = audit(nn.Linear(2, 2))
    assert repr(found) == "Linear: no normalization layers. No findings."
    assert found.layers == found.findings == ()
    assert audit(nn.Linear(1, 1), "resnet18").recipe is None


def test_wrappers_are_looked_through(stand_in):
    assert audit(nn.DataParallel(torch.compile(stand_in))) == audit(stand_in)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")
def test_a_scripted_model_is_refused_in_one_sentence():
    scripted = torch.jit.script(nn.Sequential(nn.BatchNorm2d(2)))
    for model in (scripted, nn.Sequential(scripted)):
        with pytest.raises(TypeError, match="^A scripted model hides .* before torch.jit.script.$"):
            audit(model)


def test_what_is_no_model_is_refused_in_one_sentence():
    for given in (3, "resnet50", None):
        with pytest.raises(TypeError, match="must be a torch.nn.Module, not (int|str|NoneType)"):
            audit(given)


# It changes nothing


def portrait(model):
    state = {k: t.clone() for k, t in model.state_dict().items()}
    modules = [
        (name, id(m), m.training, getattr(m, "eps", None), len(m._forward_hooks), sorted(vars(m)))
        for name, m in model.named_modules(remove_duplicate=False)
    ]
    gradients = [(name, id(p), p.requires_grad, p.grad) for name, p in model.named_parameters()]
    return state, modules, gradients


def test_nothing_changes_and_nothing_is_run():
    def fail(*args):
        raise AssertionError("it ran")

    for model in (mobile_detector(), lived_in(resnet18()).train()):
        model.register_forward_pre_hook(fail)
        for recipe in (None, model):
            state, *rest = portrait(model)
            generator = torch.get_rng_state()
            audit(model, recipe, batch_size=1)
            state_after, *rest_after = portrait(model)
            assert rest_after == rest and state_after.keys() == state.keys()
            assert all(torch.equal(state[key], state_after[key]) for key in state)
            assert torch.equal(torch.get_rng_state(), generator)


# No findings where there is no trap


@pytest.mark.parametrize(
    "make",
    [
        lambda: resnet18().train(),
        lambda: freeze(backbones.load("resnet50", "stand-in")).train().half(),
        lambda: backbones.load("lite0"),
        lambda: lived_in(mobilenet_v3_large()),
        lambda: resnet_detector(),
        lambda: resnet_detector(nn.BatchNorm2d, trainable_layers=5),
        lambda: lived_in(timm.create_model("tf_efficientnet_b0")),
        lambda: timm.layers.freeze_batch_norm_2d(lived_in(timm.create_model("resnet18"))),
    ],
)
def test_a_model_without_a_trap_has_no_finding(make):
    assert codes(audit(make())) == []


# eps-differs


def test_mobilenet_in_a_detector_is_compared_with_its_recipe():
    model = mobile_detector()
    finding = the("eps-differs", found := audit(model))
    assert found.recipe == "mobilenet_v3_large" and len(finding.layers) == 46
    assert set(finding.layers) == {x.name for x in found.layers}
    assert "eps 1e-5; the weights of mobilenet_v3_large were trained with 1e-3" in finding.meaning
    assert "partial(FrozenBatchNorm2d, eps=1e-3)" in finding.advice
    assert "eps-differs" not in codes(audit(freeze(model, 1e-3)))


def test_the_scale_error_is_what_the_layer_does():
    """The ratio of both outputs, run in float64."""
    frozen = FrozenBatchNorm2d(3, eps=1e-5).double()
    frozen.running_var.copy_(torch.tensor([2e-4, 3e-3, 0.5]))
    trained = FrozenBatchNorm2d(3, eps=1e-3).double()
    trained.running_var.copy_(frozen.running_var)
    x = rand(1, 3, 2, 2, low=0.5).double()
    ratio = (frozen(x) / trained(x))[0, :, 0, 0]
    meaning = the("eps-differs", audit(frozen, trained)).meaning
    assert f"×{ratio[0]:.3g} at their smallest v, 2e-4" in meaning
    assert f"×{ratio[1]:.3g} at their median v, 3e-3" in meaning
    assert "sqrt((v + 1e-3) / (v + 1e-5))" in meaning


def test_the_scale_error_in_words():
    for variance, trained, own, words in (
        (1e-3, 1e-3, 1e-5, "×1.41 at their smallest v"),
        (0.1, 1e-3, 1e-5, "+0.49 % at their smallest v"),
        (0.1, 1e-5, 1e-3, "−0.49 % at their smallest v"),
        (1.0, 1e-5, 2e-5, "less than 0.01 % at their smallest v"),
        (0.0, 1e-5, 0.0, "×∞ at their smallest v, 0"),
        (math.nan, 1e-5, 0.0, "×nan at their smallest v, nan"),
    ):
        frozen = FrozenBatchNorm2d(1, eps=own)
        frozen.running_var.fill_(variance)
        assert words in the("eps-differs", audit(frozen, nn.BatchNorm2d(1, trained))).meaning
    model = nn.Sequential(nn.GroupNorm(1, 4, eps=1e-5))  # without variances, with examples of them
    meaning = the("eps-differs", audit(model, nn.Sequential(nn.GroupNorm(1, 4, 1e-3)))).meaning
    assert "+4.8 % at v = 0.01, ×1.41 at v = 1e-3, ×3.16 at v = 1e-4" in meaning


def test_resnet_is_compared_with_its_recipe(stand_in):
    found = audit(freeze(stand_in, eps=0.0))
    assert codes(found) == ["eps-differs"] and found.recipe == "resnet50"
    v = torch.cat([m.running_var for m in stand_in.modules() if isinstance(m, nn.BatchNorm2d)])
    error = 100 * (math.sqrt((v.min().item() + 1e-5) / v.min().item()) - 1)
    assert f"+{error:.2g} % at their smallest v" in found.findings[0].meaning
    body = nn.Sequential(*list(freeze(stand_in, eps=0.0).children())[:-3])  # up to layer3
    assert (audit(body).recipe, codes(audit(body))) == ("resnet50", ["eps-differs"])


SOME = {"mobilenet_v3_small": True, "mobilenet_v2": False, "regnet_y_400mf": False}
OTHERS = {"efficientnet_v2_s": True, "efficientnet_b5": True, "efficientnet_b0": False}
OTHERS |= {"resnext50_32x4d": False, "wide_resnet50_2": False}


@pytest.mark.parametrize("differs", [SOME, pytest.param(OTHERS, marks=pytest.mark.sweep)])
def test_recipes_are_told_by_blocks_and_shapes(differs):
    for name, eps_differs in differs.items():
        model = lived_in(get_model(name))
        assert audit(model).recipe == name and not audit(model).findings
        found = audit(nn.ModuleDict({"net": freeze(model, eps=1e-5)}))
        assert found.recipe == name and codes(found) == ["eps-differs"] * eps_differs


def test_timm_models_are_compared_with_their_own_architecture():
    model = lived_in(timm.create_model("tf_efficientnet_b0"))
    frozen = timm.layers.freeze_batch_norm_2d(model)
    assert codes(audit(frozen)) == [] and audit(frozen).recipe == "timm's tf_efficientnet_b0"
    for module in frozen.modules():
        if type(module).__name__ == "FrozenBatchNormAct2d":
            module.eps = 1e-5
    assert len(the("eps-differs", audit(nn.Sequential(frozen))).layers) == 49


def test_unknown_or_untrained_models_are_compared_with_nothing(lite0):
    for model in (freeze(lite0, 1e-5), mobilenet_v3_large(norm_layer=nn.BatchNorm2d)):
        assert audit(model).recipe is None and not audit(model).findings
    with torch.device("meta"):
        assert audit(mobilenet_v3_large(norm_layer=nn.BatchNorm2d)).recipe is None


def test_of_a_trained_detector_nothing_is_assumed():
    model = mobile_detector()
    with torch.no_grad():
        model.backbone.fpn.inner_blocks[0][0].bias.add_(1)
    found = audit(model)
    assert not found.findings and found.recipe is None
    assert "audit(model, 'mobilenet_v3_large') compares" in found.notes[0]
    assert codes(audit(model, "mobilenet_v3_large")) == ["eps-differs"]


def test_the_coco_weights_have_a_recipe_of_their_own():
    """The reload that keeps all keys: trained with 0, run with 1e-5, and the other way round."""
    for weights, trained, differs in (
        ("pretrained", "fasterrcnn_resnet50_fpn", True),
        ("coco", "fasterrcnn_resnet50_fpn", False),
        ("pretrained", "resnet50", False),
        ("coco", "resnet50", True),
    ):
        found = audit(build("fasterrcnn_resnet50_fpn", weights), trained)
        assert found.recipe == trained and codes(found) == ["eps-differs"] * differs


def test_a_recipe_is_compared_layer_by_layer():
    recipe = nn.Sequential(nn.BatchNorm2d(4, 1e-3), nn.BatchNorm2d(6, 2e-5), nn.BatchNorm2d(8))
    model = nn.Sequential(*(nn.BatchNorm2d(n) for n in (4, 6, 8)))
    inside = nn.ModuleDict({"body": nn.ModuleDict({"net": model}), "head": nn.BatchNorm2d(5)})
    for given, prefix in ((model, ""), (inside, "body.net."), (nn.DataParallel(model), "")):
        found = audit(given, nn.DataParallel(recipe))
        assert [(f.code, f.layers) for f in found.findings] == [
            ("eps-differs", (f"{prefix}0",)),
            ("eps-differs", (f"{prefix}1",)),
        ]
        assert "1e-3" in found.findings[0].meaning and "2e-5" in found.findings[1].meaning


def test_names_go_before_order():
    recipe = nn.ModuleDict({"a": nn.BatchNorm2d(4, 1e-3), "b": nn.BatchNorm2d(4)})
    model = nn.ModuleDict({"b": nn.BatchNorm2d(4), "a": nn.BatchNorm2d(4)})
    assert the("eps-differs", audit(model, recipe)).layers == ("a",)


def test_a_replaced_stage_does_not_hinder(stand_in):
    model = freeze(stand_in, eps=1e-3)
    model.layer2 = nn.Identity()
    assert len(the("eps-differs", audit(model, stand_in)).layers) == 53 - 13


def test_a_recipe_that_does_not_match_is_refused_in_one_sentence(stand_in):
    for recipe in ("resnet18", nn.BatchNorm2d(7)):
        with pytest.raises(ValueError, match="^The recipe .* has other .* of the same architectur"):
            audit(stand_in, recipe)
    with pytest.raises(TypeError, match="must be a model or a name, not float"):
        audit(stand_in, 1e-5)
    with pytest.raises(ValueError, match="no model 'resnet5': did you mean resnet50"):
        audit(stand_in, "resnet5")


# eps-zero


def test_eps_zero_matters_where_a_variance_is_small(lite0):
    frozen = freeze(lite0, eps=0.0)
    finding = the("eps-zero", audit(frozen))
    v = {n: m.running_var for n, m in lite0.named_modules() if isinstance(m, nn.BatchNorm2d)}
    small = {name: int((variance < 1e-5).sum()) for name, variance in v.items()}
    assert finding.layers == tuple(name for name, number in small.items() if number)
    channels = sum(len(v[name]) for name in finding.layers)
    assert f"{sum(small.values())} of their {channels} channels" in finding.meaning
    assert "down to 0" in finding.meaning and "NaN" in finding.meaning
    assert frozen(rand(1, 3, 64, 64)).isnan().all()


def test_the_gain_at_the_smallest_variance_is_named():
    frozen = FrozenBatchNorm2d(2, eps=0.0)
    frozen.running_var.copy_(torch.tensor([1.0, 1e-8]))
    x = torch.ones(1, 2, 1, 1)
    gain = frozen(x)[0, 1].item()
    assert f"up to {gain:.3g}." in the("eps-zero", audit(frozen)).meaning
    frozen.half()  # 1e-8 becomes 0
    assert "infinite" in the("eps-zero", audit(frozen)).meaning
    assert not frozen(x.half())[0, 1].isfinite()


def test_eps_zero_is_no_finding_elsewhere(stand_in):
    assert "eps-zero" not in codes(audit(freeze(stand_in, eps=0.0)))  # no variance is small
    bn = nn.BatchNorm2d(2)
    bn.running_var.fill_(1e-8)
    assert not audit(bn.eval()).findings and not audit(freeze(bn)).findings
    model = build("fasterrcnn_resnet50_fpn", "coco")  # no values to judge by, and it says so
    assert not audit(model).findings and "not judged" in audit(model).notes[0]


# statistics-move


def moved(model, x):
    """Layers whose running mean a forward pass in the present mode moves."""
    before = {k: t.clone() for k, t in model.named_buffers() if k.endswith("running_mean")}
    model(x)
    after = dict(model.named_buffers())
    return {k.rpartition(".")[0] for k, t in before.items() if not torch.equal(t, after[k])}


def test_statistics_move_in_a_frozen_stage():
    model = resnet18().train()
    for part in (model.conv1, model.bn1, model.layer1):
        part.requires_grad_(False)
    finding = the("statistics-move", audit(model))
    assert finding.layers[0] == "bn1" and len(finding.layers) == 5
    assert set(finding.layers) < moved(model, rand(2, 3, 64, 64))
    for name in finding.layers:
        model.get_submodule(name).eval()
    assert not audit(model).findings
    assert not set(finding.layers) & moved(model, rand(2, 3, 64, 64))


def test_when_statistics_move():
    for norm, moves in (
        (nn.BatchNorm2d(4).requires_grad_(False), True),
        (nn.SyncBatchNorm(4).requires_grad_(False), True),
        (nn.InstanceNorm2d(4, affine=True, track_running_stats=True).requires_grad_(False), True),
        (nn.BatchNorm2d(4), False),
        (nn.BatchNorm2d(4).eval().requires_grad_(False), False),
        (nn.BatchNorm2d(4, momentum=0.0).requires_grad_(False), False),
        (nn.BatchNorm2d(4, track_running_stats=False).requires_grad_(False), False),
        (nn.BatchNorm2d(4, affine=False), False),
        (nn.GroupNorm(2, 4).requires_grad_(False), False),
        (lived_in(FrozenBatchNorm2d(4)), False),
    ):
        model = pair(norm)
        assert codes(audit(model)) == ["statistics-move"] * moves, norm
        if moves and not isinstance(norm, nn.SyncBatchNorm):
            assert moved(model, rand(2, 3, 8, 8)) == {"1"}


def test_the_convolution_in_front_counts():
    for affine in (True, False):
        model = pair(nn.BatchNorm2d(4, affine=affine))
        model[0].requires_grad_(False)
        assert the("statistics-move", audit(model)).layers == ("1",)
    other = nn.Sequential(model[0], nn.ReLU(), nn.BatchNorm2d(3))  # not as many channels
    assert not audit(other).findings
    second = nn.Sequential(*model, nn.BatchNorm2d(4))  # with another layer between
    assert the("statistics-move", audit(second)).layers == ("1",)


# batch-of-one


def test_a_layer_behind_global_pooling_refuses_one_image():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), ASPPPooling(8, 4))
    finding = the("batch-of-one", audit(model))
    assert finding.layers == ("1.2",) and "refuses a batch of one image" in finding.meaning
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        model(rand(1, 3, 16, 16))
    model(rand(2, 3, 16, 16))
    assert not audit(model, batch_size=2).findings
    assert not audit(model.eval()).findings and model(rand(1, 3, 16, 16)).shape[0] == 1


def test_what_stands_between_pooling_and_layer():
    pool = nn.AdaptiveAvgPool2d(1)
    for layers, refuses in (
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
        model = nn.Sequential(*layers)
        assert codes(audit(model)) == ["batch-of-one"] * refuses, layers
        context = pytest.raises(ValueError, match="Expected more than 1 value per channel")
        with context if refuses else nullcontext():
            model(rand(1, 3, 8, 8))


def test_with_one_image_every_layer_of_batch_statistics_is_named():
    model = nn.Sequential(
        pair(nn.BatchNorm2d(4)),
        pair(nn.BatchNorm2d(4).eval()),
        pair(nn.BatchNorm2d(4, track_running_stats=False).eval()),
        pair(nn.SyncBatchNorm(4)),
        pair(nn.InstanceNorm2d(4)),
        nn.GroupNorm(1, 4),
    )
    assert not audit(model).findings and not audit(model, batch_size=2).findings
    assert the("batch-of-one", audit(model, batch_size=1)).layers == ("0.1", "2.1")
    found = audit(nn.Sequential(nn.BatchNorm2d(8), ASPPPooling(8, 4)), batch_size=1)
    assert [finding.layers for finding in found.findings] == [("1.2",), ("0",)]
    with pytest.raises(ValueError, match="batch_size must be 1 or more, .*, not 0"):
        audit(nn.BatchNorm2d(2), batch_size=0)


# not-synced


def test_a_conversion_passes_over_frozen_layers():
    model = nn.Sequential(lived_in(pair(FrozenBatchNorm2d(4))), pair(nn.BatchNorm2d(4)))
    assert not audit(model).findings
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert type(converted[0][1]) is FrozenBatchNorm2d
    assert the("not-synced", audit(converted)).layers == ("0.1",)
    unfrozen = nn.SyncBatchNorm.convert_sync_batchnorm(unfreeze(model))
    assert not audit(unfrozen).findings
    assert {layer.class_name for layer in audit(unfrozen).layers} == {"SyncBatchNorm"}


# never-calibrated


def test_a_frozen_layer_as_made_does_nothing():
    model = pair(FrozenBatchNorm2d(4, eps=0.0))
    assert the("never-calibrated", audit(model)).layers == ("1",)
    x = rand(1, 4, 3, 3)
    assert torch.equal(model[1](x), x)


def test_one_value_is_enough_to_do_something():
    for name in ("running_mean", "running_var", "weight", "bias"):
        frozen = FrozenBatchNorm2d(4)
        getattr(frozen, name)[2] += 0.5
        assert not audit(frozen).findings  # as Caffe's, whose statistics are in the weight
    assert not audit(nn.BatchNorm2d(4).eval()).findings
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None)
    assert len(the("never-calibrated", audit(backbone)).layers) == 20


# promotes


def keeping_float32(norm, dtype):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), norm, nn.Conv2d(4, 4, 1)).to(dtype)
    model[1].float()
    return model


def timms(norm):
    return timm.layers.freeze_batch_norm_2d(nn.Sequential(norm))[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_frozen_layers_promote(dtype):
    for norm, promotes in (
        (lived_in(FrozenBatchNorm2d(4)), True),
        (lived_in(timms(timm.layers.BatchNormAct2d(4))), True),
        (lived_in(nn.BatchNorm2d(4)).eval(), False),
    ):
        model = keeping_float32(norm, dtype)
        found, x = audit(model), rand(1, 3, 4, 4).to(dtype)
        assert codes(found) == ["promotes"] * promotes
        assert model[:2](x).dtype == (torch.float32 if promotes else dtype)
        if promotes:
            name = str(dtype).removeprefix("torch.")
            assert f"they turn {name} into float32" in found.findings[0].meaning
        with pytest.raises(RuntimeError) if promotes else nullcontext():
            model(x)
        assert not audit(model.to(dtype)).findings and model(x).dtype == dtype


def test_a_frozen_layer_with_no_convolution_right_before_it_is_held_against_all():
    model = nn.Sequential(lived_in(FrozenBatchNorm2d(3)), nn.ReLU(), nn.Conv2d(3, 4, 1).half())
    assert the("promotes", audit(model)).layers == ("0",)
    assert not audit(nn.Sequential(model, nn.Conv2d(4, 4, 1))).findings  # of two dtypes: not known


# The result


def test_the_summary_in_the_terminal():
    assert repr(audit(pair(FrozenBatchNorm2d(4)))) == (
        "Sequential: 1 FrozenBatchNorm2d, eps 1e-5. 1 finding.\n"
        "\n"
        "never-calibrated: 1 layer (1)\n"
        "  Frozen with mean 0, variance 1, weight 1 and bias 0, as they were made: they do "
        "nothing, and never\n"
        "  will.\n"
        "  → Load trained weights, or build the model with BatchNorm2d (norm_layer=) and freeze it "
        "after\n"
        "  training or calibrating it."
    )


def test_the_summary_in_a_notebook_has_the_same_words_escaped():
    model = nn.ModuleDict({"<b>": mobile_detector()})
    found = audit(model, batch_size=1)
    html = found._repr_html_()
    text = unescape(re.sub("<[^>]*>", " ", html))
    for finding in found.findings:
        assert finding.meaning in text and finding.advice in text and f"{finding.code}:" in text
    assert found.headline in text and "var(--jp-warn-color1, currentColor)" in html
    assert "&lt;b&gt;" in html and "<b>." not in html
    assert "success-color1" in audit(nn.Linear(1, 1))._repr_html_()
    for note in audit(build("resnet18", "none")).notes:
        assert note in unescape(audit(build("resnet18", "none"))._repr_html_())


def test_the_summary_is_short_and_its_numbers_are_rounded():
    for found in (audit(mobile_detector()), audit_builder("deeplabv3_resnet50", "pretrained")):
        lines = repr(found).splitlines()
        assert len(lines) < 15 and max(map(len, lines)) <= 100
        assert not re.search(r"\d\.\d{4,}", repr(found))


def test_the_dictionary_has_all_of_it(lite0):
    found = audit(freeze(lite0, 0.0), lite0)
    facts = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert [finding["code"] for finding in facts["findings"]] == codes(found)
    assert facts["findings"][0]["layers"] == list(found.findings[0].layers)
    assert facts["counts"] == [
        {"layers": 49, "class_name": "FrozenBatchNorm2d", "eps": 0.0, "momentum": None}
    ]
    assert [Layer(**layer) for layer in facts["layers"]] == list(found.layers)
    bn = nn.BatchNorm2d(1)
    bn.running_var.fill_(math.nan)
    assert json.loads(json.dumps(audit(bn).to_dict(), allow_nan=False))["layers"]


def test_an_audit_can_be_compared(stand_in):
    assert audit(stand_in) == audit(stand_in) and hash(audit(stand_in))


# The builders, and the command line


FOUND = {
    "fasterrcnn_mobilenet_v3_large_fpn": ["eps-differs"],
    "fasterrcnn_mobilenet_v3_large_320_fpn": ["eps-differs"],
    "fasterrcnn_resnet50_fpn_v2": ["statistics-move"],
    "maskrcnn_resnet50_fpn_v2": ["statistics-move"],
    "retinanet_resnet50_fpn_v2": ["statistics-move"],
}


FAMILIES = ["fasterrcnn_resnet50_fpn", "fasterrcnn_mobilenet_v3_large_fpn", "ssd300_vgg16"]
FAMILIES += ["fasterrcnn_resnet50_fpn_v2"]


@pytest.mark.parametrize(
    "names", [FAMILIES, pytest.param(detection_builders(), marks=pytest.mark.sweep)]
)
def test_what_is_found_in_the_detection_family(names):
    for name in names:
        found = audit_builder(name)
        assert codes(found) == FOUND.get(name, []) and found.model == f"{name}, pretrained"
        assert codes(audit_builder(name, "none")) == []
        moves = [code for code in FOUND.get(name, []) if code == "statistics-move"]
        assert codes(audit_builder(name, "coco")) == moves
        for weights in ("default", "none", "coco"):
            assert audit_builder(name, weights).counts == counts(build(name, weights))


def test_json_agrees_with_the_census(capsys):
    names = ["fasterrcnn_resnet50_fpn_v2", "ssd300_vgg16"]
    status = main(["--json", "--weights", "coco", *names])
    facts = json.loads(capsys.readouterr().out)
    assert facts["torchvision"] == torchvision.__version__.partition("+")[0]
    rows = {
        (name, "coco"): tuple(tuple(count.values()) for count in model["counts"])
        for name, model in facts["models"].items()
    }
    assert rows == census(names, ["coco"]) and status == 1


def test_the_command_line(capsys):
    for arguments, status, words in (
        (["fasterrcnn_mobilenet_v3_large_fpn"], 1, "eps-differs: 46 layers"),
        (["resnet50", "ssd300_vgg16"], 0, "ssd300_vgg16, pretrained: no normalization layers"),
        (["resnet50", "--batch-size", "1"], 1, "batch-of-one: 53 layers"),
        (["keypointrcnn_resnet50_fpn", "--weights", "COCO_LEGACY"], 0, "eps 1e-5. No findings"),
    ):
        assert main(arguments) == status
        out, err = capsys.readouterr()
        assert words in out and not err
        assert out.count("Note: The model holds no values") == 1


def test_a_bad_command_line_is_refused_in_one_sentence(capsys, monkeypatch):
    for arguments, words in (
        (["resnet50", "resnext50"], "no model 'resnext50': did you mean "),
        (["resnet50", "--weights", "coco"], "resnet50 has no weights 'coco'"),
        (["resnet50", "--batch-size", "0"], "batch_size must be 1 or more"),
    ):
        monkeypatch.setattr(sys, "argv", ["audit", *arguments])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(helpers.audit.__main__.__file__, run_name="__main__")
        out, err = capsys.readouterr()
        assert ended.value.code == 2 and words in err and not out and len(err.splitlines()) == 1
