"""helpers/norms.py against torch in float64, timm's freezing and torch's own conv-bn fusion."""

import copy
import io
import pickle

import pytest
import timm.layers
import torch
import torchvision
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import resnet
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.ops import FrozenBatchNorm2d

from helpers.norms import KINDS, freeze, norm_layers, recalibrate, replace_norms, unfreeze

pytestmark = pytest.mark.filterwarnings("ignore:The default weight initialization:FutureWarning")


def rand(*shape, low=0.0, high=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator) * (high - low) + low


@torch.no_grad()
def lived_in(model, seed=0):
    """Every normalization layer gets an affine map and statistics that are not the defaults."""
    ranges = {"weight": (0.5, 1), "bias": (-0.2, 0.2), "running_mean": (-0.5, 0.5)}
    ranges["running_var"] = (0.5, 2)
    for index, layer in enumerate(norm_layers(model).values()):
        for name, (low, high) in ranges.items():
            tensor = getattr(layer, name, None)
            if tensor is not None:
                tensor.copy_(rand(*tensor.shape, low=low, high=high, seed=1000 * seed + index))
    return model


def tiny_resnet(**options):
    return lived_in(resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], num_classes=5, **options))


def tiny_detector():
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, trainable_layers=5, norm_layer=nn.BatchNorm2d
    )
    return lived_in(FasterRCNN(backbone, num_classes=3, min_size=64, max_size=64))


def conv_bn(*middle, bias=False, groups=1):
    conv = nn.Conv2d(4, 4, 3, groups=groups, bias=bias)
    return lived_in(nn.Sequential(conv, *middle, nn.BatchNorm2d(4, eps=1e-3)))


def types(model):
    return {name: type(module) for name, module in model.named_modules()}


def flags(model):
    return {name: module.training for name, module in model.named_modules()}


def portrait(model):
    """All that must not change in an argument."""
    state = {k: (t.dtype, t.clone()) for k, t in model.state_dict(keep_vars=True).items()}
    layers = [
        (name, id(m), type(m), m.training, getattr(m, "eps", None), getattr(m, "momentum", None))
        for name, m in model.named_modules(remove_duplicate=False)
    ]
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    grads = {name: (p.requires_grad, id(p)) for name, p in model.named_parameters()}
    return state, layers, hooks, grads


def assert_same_portrait(before, after):
    (state_a, *rest_a), (state_b, *rest_b) = before, after
    assert rest_a == rest_b
    assert state_a.keys() == state_b.keys()
    for key, (dtype, tensor) in state_a.items():
        assert dtype == state_b[key][0]
        assert torch.equal(tensor, state_b[key][1]), key


def assert_same_bits(state_a, state_b):
    assert state_a.keys() == state_b.keys()
    for key, tensor in state_a.items():
        assert tensor.dtype == state_b[key].dtype
        assert torch.equal(tensor, state_b[key]), key


def assert_close(a, b, relative=1e-5):
    """The course's criterion: rounding, and nothing else."""
    assert a.dtype == b.dtype
    assert (a - b).abs().max() <= relative * a.abs().max()


def without_counters(state):
    return {k: t for k, t in state.items() if not k.endswith("num_batches_tracked")}


CALLS = {
    "freeze": freeze,
    "freeze, eps": lambda model: freeze(model, eps=0.0),
    "unfreeze": lambda model: unfreeze(freeze(model)),
    "recalibrate": lambda model: recalibrate(model, [rand(2, 3, 64, 64)]),
    "recalibrate, other": lambda model: recalibrate(model, [rand(2, 3, 64, 64, high=2.0)] * 2),
    **{kind: (lambda model, kind=kind: replace_norms(model, kind)) for kind in KINDS},
    "one stage": lambda model: replace_norms(model, "frozen", "layer2"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_the_argument_never_changes_and_shares_nothing(call, train):
    model = tiny_resnet().train(train)
    model.layer1.train(not train)
    model.layer2[0].bn1.weight.requires_grad_(False)
    model.layer3.register_forward_hook(lambda *_: None)
    before = portrait(model)
    result = call(model)
    assert_same_portrait(before, portrait(model))
    mine = {t.data_ptr() for t in model.state_dict().values() if t.numel()}
    assert not mine & {t.data_ptr() for t in result.state_dict().values() if t.numel()}
    with torch.no_grad():
        for tensor in result.state_dict().values():
            tensor.fill_(7)
    assert_same_portrait(before, portrait(model))


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_an_argument_already_frozen_never_changes(call):
    model = freeze(tiny_resnet())
    before = portrait(model)
    if call in (CALLS["recalibrate"], CALLS["recalibrate, other"]):
        with pytest.raises(ValueError, match="must be unfrozen first"):
            call(model)
    else:
        call(model)
    assert_same_portrait(before, portrait(model))


# freeze


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_frozen_differs_from_eval_by_rounding_only(dtype):
    model = tiny_resnet().to(dtype).eval()
    x = rand(2, 3, 64, 64).to(dtype)
    assert_close(model(x), freeze(model)(x), 1e-5 if dtype == torch.float32 else 1e-13)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_survives(dtype):
    bn = lived_in(nn.BatchNorm2d(4)).to(dtype).eval()
    x = rand(2, 4, 3, 3).to(dtype)
    frozen = freeze(bn)
    assert {t.dtype for t in frozen.state_dict().values()} == {dtype}
    assert_close(bn.double()(x.double()), frozen(x).double(), 8 * torch.finfo(dtype).eps)
    assert_same_bits(without_counters(bn.to(dtype).state_dict()), frozen.state_dict())
    assert {p.dtype for p in unfreeze(frozen).parameters()} == {dtype}


def test_mixed_dtypes_survive_tensor_by_tensor():
    bn = nn.BatchNorm2d(4)
    bn.weight.data, bn.bias.data = bn.weight.data.half(), bn.bias.data.half()
    frozen = freeze(bn)
    assert (frozen.weight.dtype, frozen.running_var.dtype) == (torch.float16, torch.float32)


def test_frozen_computes_the_formula_with_the_layers_own_eps():
    bn = lived_in(nn.BatchNorm2d(4, eps=0.1)).double()
    x = rand(2, 4, 3, 3).double()
    weight, bias, mean, var = (
        getattr(bn, name).detach().reshape(-1, 1, 1)
        for name in ("weight", "bias", "running_mean", "running_var")
    )
    for given, eps in ((None, 0.1), (0.0, 0.0), (1e-3, 1e-3)):
        expected = (x - mean) / (var + eps).sqrt() * weight + bias
        assert_close(expected, freeze(bn, given)(x), 1e-14)


def test_eps_is_kept_or_given_and_given_also_to_frozen_layers():
    model = tiny_resnet()
    model.bn1.eps, model.layer2[0].bn1 = 0.25, freeze(model.layer2[0].bn1, eps=0.5)
    kept, given = freeze(model), freeze(model, eps=0.0)
    assert (kept.bn1.eps, kept.layer2[0].bn1.eps, kept.layer3[0].bn1.eps) == (0.25, 0.5, 1e-5)
    assert {layer.eps for layer in norm_layers(given).values()} == {0.0}
    assert (model.bn1.eps, model.layer2[0].bn1.eps) == (0.25, 0.5)
    x = rand(2, 3, 64, 64)
    a, b = kept.double().eval()(x.double()), given.double().eval()(x.double())
    assert (a - b).abs().max() > 1e-3 * a.abs().max()


def test_every_layer_becomes_exactly_torchvisions_and_flags_survive():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.SyncBatchNorm(3), nn.GroupNorm(1, 3), nn.ReLU())
    model[1].eval()
    frozen = freeze(model)
    assert [type(m) for m in frozen] == [FrozenBatchNorm2d] * 2 + [nn.GroupNorm, nn.ReLU]
    assert flags(frozen) == flags(model)
    assert flags(unfreeze(frozen)) == flags(model)


def test_frozen_trains_nothing_and_moves_nothing_in_train_mode():
    frozen = freeze(tiny_resnet()).train()
    before = without_counters(copy.deepcopy(dict(frozen.named_buffers())))
    frozen(rand(2, 3, 64, 64)).sum().backward()
    assert_same_bits(before, dict(frozen.named_buffers()))
    assert not any("bn" in name for name, _ in frozen.named_parameters())
    assert not any(buffer.requires_grad for buffer in frozen.buffers())


def test_agrees_with_timm_layer_by_layer():
    model = tiny_resnet().eval()
    ours, timms = freeze(model), timm.layers.freeze_batch_norm_2d(copy.deepcopy(model))
    assert types(ours) == types(timms)
    assert_same_bits(ours.state_dict(), timms.state_dict())
    x = rand(1, 3, 64, 64)
    assert_close(timms(x), ours(x), 1e-6)
    assert {type(m) for m in norm_layers(unfreeze(timms)).values()} == {nn.BatchNorm2d}


def test_frozen_state_loads_back_and_old_state_loads_into_frozen():
    model = tiny_resnet().eval()
    frozen = freeze(lived_in(tiny_resnet(), seed=1))
    frozen.load_state_dict(model.state_dict())  # strict: torchvision drops the counters
    x = rand(1, 3, 64, 64)
    assert_close(model(x), frozen.eval()(x))
    assert_close(model(x), unfreeze(frozen)(x))


def test_frozen_pickles_copies_and_traces(tmp_path):
    frozen = freeze(tiny_resnet()).eval()
    x = rand(1, 3, 64, 64)
    torch.save(frozen, tmp_path / "frozen.pt")
    others = (
        copy.deepcopy(frozen),
        pickle.load(io.BytesIO(pickle.dumps(frozen))),
        torch.load(tmp_path / "frozen.pt", weights_only=False),
        fx.symbolic_trace(frozen),
        torch.export.export(frozen, (x,)).module(),
    )
    for other in others:
        assert_close(frozen(x), other(x), 1e-6)
    for other in others[:3]:
        with pytest.raises(ValueError, match="5 dimensions"):
            other.bn1(rand(1, 64, 2, 2, 2))
        assert_same_bits(unfreeze(other).state_dict(), unfreeze(frozen).state_dict())


@pytest.mark.parametrize("shape", [(2, 4), (4, 2, 2), (2, 4, 2, 2, 2)])
def test_only_four_dimensions_enter_a_frozen_layer(shape):
    with pytest.raises(ValueError, match=rf"takes \(N,C,H,W\), not {len(shape)} dimensions"):
        freeze(nn.BatchNorm2d(4))(rand(*shape))
    assert freeze(nn.BatchNorm2d(4))(x=rand(2, 4, 2, 2)).shape == (2, 4, 2, 2)


# unfreeze


@pytest.mark.parametrize("options", [{}, {"affine": False}, {"bias": False}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_round_trip_bit_for_bit(options, dtype):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, eps=0.2, **options)).to(dtype)
    lived_in(model)
    model[0].bias.requires_grad_(False)
    frozen = freeze(model)
    back = unfreeze(frozen)
    assert frozen[1].weight.shape == frozen[1].bias.shape == (4,)
    assert {t.dtype for t in frozen.state_dict().values()} == {dtype}
    if not options.get("affine", True):
        assert frozen[1].weight.eq(1).all()
        assert frozen[1].bias.eq(0).all()
    assert_same_bits(model.state_dict(), back.state_dict())  # counters too: both are 0 here
    assert types(model) == types(back)
    assert repr(model) == repr(back)


def test_round_trip_keeps_requires_grad_and_restarts_what_it_says():
    model = tiny_resnet()
    model(rand(2, 3, 64, 64))
    model.bn1.weight.requires_grad_(False)
    model.layer1.requires_grad_(False)
    back = unfreeze(freeze(model), momentum=0.03)
    assert {n: p.requires_grad for n, p in model.named_parameters()} == {
        n: p.requires_grad for n, p in back.named_parameters()
    }
    assert_same_bits(without_counters(model.state_dict()), without_counters(back.state_dict()))
    assert (back.bn1.momentum, back.bn1.num_batches_tracked.item()) == (0.03, 0)
    assert unfreeze(freeze(model)).bn1.momentum == 0.1
    assert unfreeze(freeze(model), momentum=None).bn1.momentum is None


def test_unfrozen_trains_again():
    back = unfreeze(freeze(tiny_resnet())).train()
    before = back.bn1.running_mean.clone()
    back(rand(2, 3, 64, 64)).sum().backward()
    assert back.bn1.weight.grad is not None
    assert not torch.equal(before, back.bn1.running_mean)


def test_a_layer_frozen_elsewhere_becomes_trainable():
    layer = lived_in(FrozenBatchNorm2d(4, eps=0.3)).eval()
    back = unfreeze(layer)
    assert type(back) is nn.BatchNorm2d
    assert (back.eps, back.training, back.weight.requires_grad) == (0.3, False, True)
    assert_same_bits(layer.state_dict(), without_counters(back.state_dict()))


@pytest.mark.parametrize("missing", ["affine", "bias"])
def test_an_affine_map_loaded_since_is_not_lost(missing):
    frozen = freeze(nn.BatchNorm2d(4, **{missing: False}))
    frozen.load_state_dict(lived_in(nn.BatchNorm2d(4)).state_dict())
    back = unfreeze(frozen)
    assert_same_bits(frozen.state_dict(), without_counters(back.state_dict()))
    assert back.affine
    assert back.weight.requires_grad


def test_eps_0_comes_back_as_it_was():
    back = unfreeze(freeze(nn.BatchNorm2d(4), eps=0.0))
    assert back.eps == 0.0
    assert back.eval()(rand(2, 4, 2, 2)).isfinite().all()


def test_sync_batch_norm_comes_back_as_batch_norm():
    sync = lived_in(nn.SyncBatchNorm(4, eps=0.2)).eval()
    x = rand(2, 4, 3, 3)
    assert_close(sync(x), freeze(sync)(x))
    assert type(unfreeze(freeze(sync))) is nn.BatchNorm2d


# what every function meets


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "folded"])
def test_a_model_that_is_one_layer(kind):
    for layer in (nn.BatchNorm2d(4), FrozenBatchNorm2d(4), nn.SyncBatchNorm(4)):
        before = type(layer)
        assert isinstance(replace_norms(layer, kind), nn.Module)
        assert type(layer) is before
    assert type(freeze(nn.BatchNorm2d(4))) is FrozenBatchNorm2d


class Shared(nn.Module):
    """One layer under two names, and twice in one Sequential."""

    def __init__(self):
        super().__init__()
        bn = nn.BatchNorm2d(3)
        self.first, self.second = bn, nn.Sequential(bn, nn.ReLU(), bn)
        self.nothing = None

    def forward(self, x):
        return self.second(self.first(x))


def test_a_shared_layer_stays_shared():
    model = lived_in(Shared()).eval()
    for call in (freeze, lambda m: unfreeze(freeze(m)), lambda m: replace_norms(m, "identity")):
        result = call(model)
        assert result.first is result.second[0] is result.second[2]
        assert len(list(result.modules())) == len(list(model.modules()))
    x = rand(2, 3, 4, 4)
    assert_close(model(x), freeze(model)(x))
    assert_same_bits(
        without_counters(model.state_dict()), without_counters(unfreeze(freeze(model)).state_dict())
    )


def test_hooks_on_layers_that_stay_survive():
    seen = []
    model = tiny_resnet().eval()
    model.conv1.register_forward_pre_hook(lambda *_: seen.append("conv1"))
    model.bn1.register_forward_hook(lambda *_: seen.append("bn1"))
    model.layer1.register_forward_hook(lambda *_: seen.append("layer1"))
    results = {
        freeze(model): ["conv1", "layer1"],
        unfreeze(freeze(model)): ["conv1", "layer1"],
        replace_norms(model, "running statistics"): ["conv1", "bn1", "layer1"],
        # nothing is folded into a hooked convolution, so bn1 stays
        replace_norms(model, "folded"): ["conv1", "bn1", "layer1"],
    }
    assert seen == []  # tracing runs no hook
    for result, expected in results.items():
        result(rand(1, 3, 64, 64))
        assert seen == expected
        seen.clear()


def test_training_flags_of_a_feature_extractor_survive():
    extractor = create_feature_extractor(tiny_resnet().eval(), ["layer2"])
    assert not any(flags(freeze(extractor)).values())
    x = rand(1, 3, 64, 64)
    expected = extractor(x)["layer2"]
    assert_close(expected, freeze(extractor)(x)["layer2"])
    assert_close(expected, replace_norms(extractor, "folded")(x)["layer2"])


class MyBatchNorm(nn.BatchNorm2d):
    pass


class MyFrozen(FrozenBatchNorm2d):
    pass


UNFIT = {
    "1d": (nn.BatchNorm1d(4), TypeError, r"only layers for \(N,C,H,W\)"),
    "3d": (nn.BatchNorm3d(4), TypeError, r"only layers for \(N,C,H,W\)"),
    "lazy": (nn.LazyBatchNorm2d(), ValueError, "run one batch"),
    "subclass": (MyBatchNorm(4), TypeError, "freeze_batch_norm_2d"),
    "timm": (timm.layers.BatchNormAct2d(4), TypeError, "freeze_batch_norm_2d"),
    "timm, frozen": (timm.layers.FrozenBatchNormAct2d(4), TypeError, "freeze_batch_norm_2d"),
    "frozen subclass": (MyFrozen(4), TypeError, "freeze_batch_norm_2d"),
    "untracked": (nn.BatchNorm2d(4, track_running_stats=False), ValueError, "nothing to freeze"),
}


@pytest.mark.parametrize(("layer", "error", "words"), UNFIT.values(), ids=UNFIT)
def test_unfit_layers_are_named_in_one_sentence(layer, error, words):
    name = type(layer).__name__
    for call in (
        freeze,
        lambda m: replace_norms(m, "frozen"),
        lambda m: replace_norms(m, "folded"),
    ):
        with pytest.raises(error, match=f"^Layer 'neck.1' is a {name}.*{words}[^\n]*\\.$"):
            call(nn.ModuleDict({"neck": nn.Sequential(nn.ReLU(), layer)}))
        with pytest.raises(error, match=f"^The model is a {name}.*{words}"):
            call(layer)


def test_unfreeze_refuses_only_what_is_frozen_elsewhere():
    for layer in (timm.layers.FrozenBatchNormAct2d(4), MyFrozen(4)):
        with pytest.raises(TypeError, match="unfreeze_batch_norm_2d"):
            unfreeze(nn.Sequential(layer))
    model = nn.Sequential(nn.BatchNorm1d(4), MyBatchNorm(4), FrozenBatchNorm2d(4))
    assert type(unfreeze(model)[2]) is nn.BatchNorm2d
    assert types(model[:2]) == types(unfreeze(model)[:2])


def test_not_a_model():
    for call in (
        freeze,
        unfreeze,
        lambda m: replace_norms(m, "frozen"),
        lambda m: recalibrate(m, []),
    ):
        with pytest.raises(TypeError, match=r"must be a torch.nn.Module, not dict\."):
            call({})


# replace_norms


def test_running_statistics():
    model = tiny_resnet().train()
    x = rand(2, 3, 64, 64)
    expected = copy.deepcopy(model).eval()(x)
    for start in (model, freeze(model)):
        result = replace_norms(start, "running statistics")
        layers = norm_layers(result).values()
        assert {(type(layer), layer.training) for layer in layers} == {(nn.BatchNorm2d, False)}
        assert result.training
        assert result.layer1.training
        before = copy.deepcopy(result.state_dict())
        assert_close(expected, result(x))
        assert_same_bits(before, result.state_dict())
    assert type(replace_norms(nn.SyncBatchNorm(3), "running statistics")) is nn.BatchNorm2d


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_batch_statistics_are_a_pure_function(train):
    model = lived_in(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, eps=0.1))).double()
    x = rand(5, 3, 6, 6).double()
    expected = copy.deepcopy(model).train()(x)
    for start in (model, freeze(model)):
        result = replace_norms(start.train(train), "batch statistics")
        assert flags(result) == flags(start)
        before = copy.deepcopy(result.state_dict())
        assert_close(expected, result(x), 1e-14)
        assert_close(result(x), result(x), 0)
        assert_same_bits(before, result.state_dict())
        assert "running_mean" not in result[1].state_dict()
        assert result[1].weight.requires_grad
        assert not result[1].track_running_stats
        again = replace_norms(result, "batch statistics")
        assert_close(expected, again(x), 1e-14)


def test_frozen_kinds_and_identity():
    model = tiny_resnet().eval()
    x = rand(2, 3, 64, 64)
    for start in (model, freeze(model)):
        frozen = replace_norms(start, "frozen")
        assert_close(freeze(model)(x), frozen(x), 1e-6)
        zero = replace_norms(start, "frozen, eps 0")
        assert {type(layer) for layer in norm_layers(zero).values()} == {FrozenBatchNorm2d}
        assert {layer.eps for layer in norm_layers(zero).values()} == {0.0}
        bare = replace_norms(start, "identity")
        assert norm_layers(bare) == {}
        assert type(bare.bn1) is nn.Identity
        assert flags(bare) == flags(model)
        by_hand = copy.deepcopy(model)
        for layer in norm_layers(by_hand).values():
            layer.forward = lambda x: x
        assert_close(by_hand(x), bare(x), 1e-6)


def test_untracked_layers_take_only_kinds_without_statistics():
    untracked = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False))
    for kind in KINDS:
        if kind in ("batch statistics", "identity"):
            replace_norms(untracked, kind)
        else:
            with pytest.raises(ValueError, match="track_running_stats=False"):
                replace_norms(untracked, kind)


def test_unknown_kind_lists_the_kinds():
    with pytest.raises(ValueError, match=r"'frosen'.*'running statistics'.*'folded'"):
        replace_norms(nn.BatchNorm2d(3), "frosen")


@pytest.mark.parametrize("build", [tiny_resnet, tiny_detector])
def test_stages(build):
    model = build()
    body = model if build is tiny_resnet else model.backbone.body
    for stages in ("stem", "layer3", ["layer1", "layer4"], (s for s in ("stem", "layer2")), ()):
        chosen = [stages] if isinstance(stages, str) else list(stages)
        result = replace_norms(model, "frozen", chosen if not isinstance(stages, str) else stages)
        result = result if build is tiny_resnet else result.backbone.body
        assert result is not body
        for name, layer in norm_layers(result).items():
            stage = name.split(".")[0] if name.startswith("layer") else "stem"
            assert (type(layer) is FrozenBatchNorm2d) == (stage in chosen), name
    with pytest.raises(ValueError, match=r"'layer5'.*stem, layer1, layer2, layer3, layer4"):
        replace_norms(model, "frozen", ["layer1", "layer5"])


def test_unfit_layers_outside_the_stages_do_not_matter():
    model = tiny_resnet()
    model.fc = nn.Sequential(nn.BatchNorm1d(512), model.fc)
    assert type(replace_norms(model, "frozen", "stem").bn1) is FrozenBatchNorm2d
    with pytest.raises(TypeError, match=r"'fc\.0' is a BatchNorm1d"):
        replace_norms(model, "frozen")


# folding


@pytest.mark.parametrize("options", [{}, {"bias": True}, {"groups": 4}], ids=str)
@pytest.mark.parametrize("start", [lambda m: m, freeze], ids=["BatchNorm2d", "Frozen"])
def test_folded_agrees_with_the_layer_and_with_torchs_fusion(options, start):
    model = conv_bn(**options).eval()
    folded = replace_norms(start(model), "folded")
    assert [type(m) for m in folded] == [nn.Conv2d, nn.Identity]
    x = rand(2, 4, 8, 8)
    assert_close(model(x), folded(x))
    fused = fuse_conv_bn_eval(model[0], model[1])
    assert_close(fused.weight, folded[0].weight, 1e-6)
    assert_close(fused.bias, folded[0].bias, 1e-6)
    exact = replace_norms(start(model.double()), "folded")
    assert_close(model(x.double()), exact(x.double()), 1e-14)


def test_folding_rounds_once():
    model = conv_bn().eval()
    exact = replace_norms(copy.deepcopy(model).double(), "folded")[0]
    folded = replace_norms(model, "folded")[0]
    assert torch.equal(folded.weight, exact.weight.float())
    assert torch.equal(folded.bias, exact.bias.float())


def test_folded_networks():
    x = rand(2, 3, 64, 64).double()
    for model in (tiny_resnet(), torchvision.models.mobilenet_v3_small()):
        model = lived_in(model).double().eval()
        folded = replace_norms(model, "folded")
        assert norm_layers(folded) == {}
        assert_close(model(x), folded(x), 1e-11)
    stem = replace_norms(tiny_resnet(), "folded", "stem")
    assert type(stem.bn1) is nn.Identity
    assert type(stem.layer1[0].bn1) is nn.BatchNorm2d


def test_folding_keeps_dtype_flags_and_requires_grad():
    model = conv_bn().half()
    model[0].weight.requires_grad_(False)
    folded = replace_norms(model.eval(), "folded")
    assert {(p.dtype, p.requires_grad) for p in folded.parameters()} == {(torch.float16, False)}
    assert flags(folded) == flags(model)


def test_a_detector_is_folded_part_by_part():
    model = tiny_detector().eval()
    folded = replace_norms(model, "folded")
    assert norm_layers(folded) == {}
    x = rand(1, 3, 64, 64)
    expected, features = model.double().backbone(x.double()), folded.double().backbone(x.double())
    for level in expected:
        assert_close(expected[level], features[level], 1e-4)  # the fold was rounded to float32


class Custom(nn.Module):
    def __init__(self, forward, conv=None, **parts):
        super().__init__()
        self.conv = conv or nn.Conv2d(3, 3, 1)
        self.bn = nn.BatchNorm2d(3)
        for name, part in parts.items():
            setattr(self, name, part)
        self.body = forward

    def forward(self, x):
        return self.body(self, x)


def branching(m, x):
    return m.pair(x) if x.sum() > 0 else x


NOT_FOLDABLE = {
    "an activation between": lambda: conv_bn(nn.ReLU()),
    "the layer first": lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)),
    "transposed": lambda: nn.Sequential(nn.ConvTranspose2d(3, 3, 1), nn.BatchNorm2d(3)),
    "a subclass": lambda: nn.Sequential(timm.layers.StdConv2d(3, 3, 1), nn.BatchNorm2d(3)),
    "two consumers": lambda: Custom(lambda m, x: m.bn(m.conv(x)) + m.conv(x)),
    "one call, two consumers": lambda: Custom(lambda m, x: (lambda y: m.bn(y) + y)(m.conv(x))),
    "layer called twice": lambda: Custom(lambda m, x: m.bn(m.bn(m.conv(x)))),
    "not traceable itself": lambda: Custom(
        lambda m, x: m.bn(m.conv(x)) if x.sum() > 0 else m.conv(x)
    ),
    "no convolution": lambda: nn.BatchNorm2d(3),
}


@pytest.mark.parametrize("build", NOT_FOLDABLE.values(), ids=NOT_FOLDABLE)
def test_nothing_to_fold(build):
    with pytest.raises(ValueError, match=r"Nothing to fold: .* directly follows"):
        replace_norms(build(), "folded")


def test_a_hooked_convolution_is_not_folded_into():
    model = conv_bn()
    model[0].register_forward_hook(lambda conv, args, output: output + 1)
    with pytest.raises(ValueError, match="Nothing to fold"):
        replace_norms(model, "folded")


def test_a_convolution_registered_twice_is_not_folded_into():
    """Each part alone looks foldable; together they share one convolution."""
    conv = nn.Conv2d(3, 3, 1)
    parts = [nn.Sequential(conv, nn.BatchNorm2d(3)), nn.Sequential(conv, nn.ReLU())]
    model = Custom(branching, pair=parts[0], other=parts[1])
    with pytest.raises(ValueError, match="Nothing to fold"):
        replace_norms(model, "folded")


def test_an_untraceable_model_is_folded_in_its_parts():
    pair = lived_in(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)))
    model = Custom(branching, pair=pair).eval()
    folded = replace_norms(model, "folded")
    assert type(folded.pair[1]) is nn.Identity
    assert type(folded.bn) is nn.BatchNorm2d
    x = rand(1, 3, 4, 4)
    assert_close(model(x), folded(x))


def test_tracing_leaves_no_proxies_behind():
    def remember(m, x):
        m.last = x
        return m.bn(m.conv(x))

    folded = replace_norms(Custom(remember), "folded")
    assert type(folded.bn) is nn.Identity
    assert not hasattr(folded, "last")


def test_layers_that_do_not_follow_stay():
    model = lived_in(torchvision.models.densenet121()).double().eval()
    folded = replace_norms(model, "folded")
    assert 0 < len(norm_layers(folded)) < len(norm_layers(model))
    x = rand(1, 3, 32, 32).double()
    assert_close(model(x), folded(x), 1e-10)


# recalibrate


def test_recalibrate_averages_over_batches():
    model = lived_in(nn.Sequential(nn.BatchNorm2d(3, momentum=0.7))).double()
    batches = [rand(n, 3, 5, 5, seed=n).double() * n for n in (1, 2, 6)]
    result = recalibrate(model, iter(batches))[0]
    means = torch.stack([batch.mean((0, 2, 3)) for batch in batches])
    variances = torch.stack([batch.var((0, 2, 3), unbiased=True) for batch in batches])
    assert_close(means.mean(0), result.running_mean, 1e-14)
    assert_close(variances.mean(0), result.running_var, 1e-14)
    assert (result.momentum, result.num_batches_tracked.item(), result.training) == (0.7, 3, True)


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_recalibrate_agrees_with_torchs_update_bn(train):
    model = tiny_resnet().double()
    batches = [rand(4, 3, 32, 32, seed=seed).double() for seed in range(3)]
    model(batches[0])  # its counters are no longer 0
    model.train(train).layer2.train(not train)
    expected = copy.deepcopy(model)
    torch.optim.swa_utils.update_bn(batches, expected)
    result = recalibrate(model, batches)
    assert flags(result) == flags(model)
    for key, tensor in expected.state_dict().items():
        assert_close(tensor, result.state_dict()[key], 1e-12)
    weights = dict(model.named_parameters())
    assert_same_bits(weights, dict(result.named_parameters()))
    assert not any(p.grad is not None for p in result.parameters())


def test_recalibrate_keeps_dropout_and_gradients_off():
    model, graphs = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(3)).train(), []
    model.register_forward_hook(lambda module, args, output: graphs.append(output.grad_fn))
    x = rand(2, 3, 4, 4)
    assert_close(x.mean((0, 2, 3)), recalibrate(model, [x])[1].running_mean, 1e-6)
    assert graphs == [None]


def test_recalibrate_leaves_a_layer_no_batch_reached():
    model = lived_in(Custom(lambda m, x: m.conv(m.bn(x)), spare=nn.BatchNorm2d(3, momentum=0.3)))
    result = recalibrate(model, [rand(2, 3, 4, 4)])
    assert_same_bits(model.spare.state_dict(), result.spare.state_dict())
    assert result.spare.momentum == 0.3
    assert not torch.equal(model.bn.running_var, result.bn.running_var)


def test_recalibrate_takes_whatever_the_model_takes():
    detector = tiny_detector().train()
    result = recalibrate(detector, [[rand(3, 48, 64), rand(3, 64, 40)]])
    assert flags(result) == flags(detector)
    old, new = detector.backbone.body.bn1, result.backbone.body.bn1
    assert not torch.equal(old.running_mean, new.running_mean)
    flat = recalibrate(nn.BatchNorm1d(4), [rand(8, 4)])
    assert_close(rand(8, 4).mean(0), flat.running_mean, 1e-6)
    act = recalibrate(timm.layers.BatchNormAct2d(4), [rand(8, 4, 2, 2)])
    assert_close(rand(8, 4, 2, 2).mean((0, 2, 3)), act.running_mean, 1e-6)


def test_recalibrate_says_what_is_missing():
    with pytest.raises(ValueError, match="No batches"):
        recalibrate(nn.BatchNorm2d(3), iter([]))
    untracked = nn.BatchNorm2d(3, track_running_stats=False)
    for model in (freeze(nn.BatchNorm2d(3)), untracked, nn.ReLU()):
        with pytest.raises(ValueError, match="must be unfrozen first"):
            recalibrate(model, [rand(2, 3, 4, 4)])
    with pytest.raises(ValueError, match="run one batch"):
        recalibrate(nn.LazyBatchNorm2d(), [rand(2, 3, 4, 4)])


# every model


def test_norm_layers():
    layers = {
        "a": nn.BatchNorm1d(2),
        "b": nn.Sequential(nn.ReLU(), nn.SyncBatchNorm(2)),
        "c": FrozenBatchNorm2d(2),
        "d": timm.layers.FrozenBatchNormAct2d(2),
        "e": timm.layers.BatchNormAct2d(2),
        "f": nn.GroupNorm(1, 2),
        "g": nn.LayerNorm(2),
        "h": nn.InstanceNorm3d(2),
        "i": nn.Conv2d(2, 2, 1),
    }
    model = nn.ModuleDict(layers)
    model["j"] = model["a"]
    assert list(norm_layers(model)) == ["a", "b.1", "c", "d", "e", "f", "g", "h"]
    assert norm_layers(model)["b.1"] is layers["b"][1]
    assert list(norm_layers(nn.BatchNorm3d(2))) == [""]


def names_in(module):
    return torchvision.models.list_models(module)


@pytest.fixture
def regnet_widths_on_cpu(monkeypatch):
    """RegNet computes its widths with tensors, which the meta device has no values for."""
    params = torchvision.models.regnet.BlockParams
    original = params.from_init_params.__func__

    def on_cpu(cls, *args, **kwargs):
        with torch.device("cpu"):
            return original(cls, *args, **kwargs)

    monkeypatch.setattr(params, "from_init_params", classmethod(on_cpu))


@pytest.mark.parametrize(
    "name", names_in(torchvision.models) + names_in(torchvision.models.detection)
)
def test_every_torchvision_model(name, regnet_widths_on_cpu):
    detection = name in names_in(torchvision.models.detection)
    options = {"weights_backbone": None} if detection else {}
    with torch.device("meta"):
        model = torchvision.models.get_model(name, weights=None, **options)
    count = sum(type(module) is nn.BatchNorm2d for module in model.modules())
    frozen = freeze(model)
    found = [type(module) for module in frozen.modules()]
    assert found.count(FrozenBatchNorm2d) == count
    assert nn.BatchNorm2d not in found
    back = unfreeze(frozen)
    assert types(back) == types(model)
    shapes = {key: (t.shape, t.dtype) for key, t in model.state_dict().items()}
    assert {key: (t.shape, t.dtype) for key, t in back.state_dict().items()} == shapes
    assert {t.device.type for t in back.state_dict().values()} == {"meta"}
    eps = {name: layer.eps for name, layer in norm_layers(model).items()}
    assert {name: layer.eps for name, layer in norm_layers(frozen).items()} == eps


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_small_models_with_real_values(name):
    model = lived_in(torchvision.models.get_model(name)).double().eval()
    x = rand(1, 3, 64, 64).double()
    frozen = freeze(model)
    back = unfreeze(frozen)
    assert_close(model(x), frozen(x), 1e-10)
    assert_close(model(x), back(x), 1e-10)
    assert_same_bits(model.state_dict(), back.state_dict())


def test_a_detector_with_real_values():
    model = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None
    )
    model = lived_in(model).double().eval()
    frozen = freeze(model)
    x = rand(1, 3, 64, 64).double()
    for a, b in zip(model.backbone(x).values(), frozen.backbone(x).values(), strict=True):
        assert_close(a, b, 1e-10)
    assert frozen([rand(3, 64, 64).double()])[0]["boxes"].shape[1] == 4
    assert_same_bits(model.state_dict(), unfreeze(frozen).state_dict())


def test_the_default_eps_of_today_is_a_kind_of_its_own():
    start = torchvision.models.mobilenet_v3_small()  # built with eps 1e-3
    kinds = {"frozen": 1e-3, "frozen, eps 1e-5": 1e-5, "frozen, eps 0": 0.0}
    for kind, eps in kinds.items():
        assert {layer.eps for layer in norm_layers(replace_norms(start, kind)).values()} == {eps}


@pytest.mark.parametrize("kind", KINDS)
def test_shared_weights_give_the_same_function_and_leave_the_model_as_it_was(kind):
    start = torchvision.models.resnet18().eval()
    before = {name: tensor.clone() for name, tensor in start.state_dict().items()}
    own, shared = (replace_norms(start, kind, share_weights=share) for share in (False, True))
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(own(x), shared(x))
    assert shared.fc.weight is start.fc.weight and own.fc.weight is not start.fc.weight
    assert all(torch.equal(start.state_dict()[name], before[name]) for name in before)
    assert all(type(layer) is torch.nn.BatchNorm2d for layer in norm_layers(start).values())
