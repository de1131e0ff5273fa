"""helpers/norms against torch in float64, timm's freezing and torch's own conv-bn fusion."""

import copy
import functools
import math
import pickle

import pytest
import timm.layers
import torch
import torchvision
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import resnet
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.ops import FrozenBatchNorm2d

from helpers.networks.detector import detector
from helpers.norms import (
    KINDS,
    freeze,
    is_frozen,
    norm_layers,
    recalibrate,
    replace_norms,
    unfreeze,
)

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


def tiny_resnet():
    return lived_in(resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], num_classes=5))


def conv_bn(*middle, bias=False, groups=1):
    conv = nn.Conv2d(4, 4, 3, groups=groups, bias=bias)
    return lived_in(nn.Sequential(conv, *middle, nn.BatchNorm2d(4, eps=1e-3)))


def types(model):
    return {name: type(module) for name, module in model.named_modules()}


def flags(model):
    return {name: module.training for name, module in model.named_modules()}


def portrait(model):
    """All that must not change in an argument: its tensors, and the rest."""
    layers = [
        (name, id(m), type(m), m.training, getattr(m, "eps", None), getattr(m, "momentum", None))
        for name, m in model.named_modules(remove_duplicate=False)
    ]
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    grads = {name: (p.requires_grad, id(p)) for name, p in model.named_parameters()}
    return copy.deepcopy(model.state_dict()), (layers, hooks, grads)


def assert_same_portrait(before, model):
    tensors, rest = portrait(model)
    assert rest == before[1]
    assert_same_bits(before[0], tensors)


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


CALLS = [
    freeze,
    lambda model: freeze(model, eps=0.0),
    lambda model: unfreeze(freeze(model)),
    *[lambda model, kind=kind: replace_norms(model, kind) for kind in KINDS],
    lambda model: replace_norms(model, "frozen", "layer2"),
]


def recalibrated(model):
    return recalibrate(model, [rand(2, 3, 64, 64)])


def test_the_argument_never_changes_and_shares_nothing():
    for model in (tiny_resnet().train(), tiny_resnet().eval(), freeze(tiny_resnet())):
        model.layer1.train(not model.training)
        for parameter in model.layer2[0].parameters():
            parameter.requires_grad_(False)
        model.layer3.register_forward_hook(lambda *_: None)
        before = portrait(model)
        mine = {t.data_ptr() for t in model.state_dict().values() if t.numel()}
        for call in CALLS if is_frozen(model.bn1) else (*CALLS, recalibrated):
            result = call(model)
            assert_same_portrait(before, model)
            assert not mine & {t.data_ptr() for t in result.state_dict().values() if t.numel()}


def test_mixed_precision_survives():
    bn = nn.BatchNorm2d(4)
    bn.weight.data, bn.bias.data = bn.weight.data.half(), bn.bias.data.bfloat16()
    frozen = freeze(bn)
    dtypes = [torch.float16, torch.bfloat16, torch.float32, torch.float32]
    assert [t.dtype for t in frozen.state_dict().values()] == dtypes


def test_every_layer_becomes_exactly_torchvisions_and_flags_survive():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.SyncBatchNorm(3), nn.GroupNorm(1, 3), nn.ReLU())
    lived_in(model)[1].eval()
    frozen = freeze(model)
    back = unfreeze(frozen)
    assert [type(m) for m in frozen] == [FrozenBatchNorm2d] * 2 + [nn.GroupNorm, nn.ReLU]
    assert [type(m) for m in back] == [nn.BatchNorm2d] * 2 + [nn.GroupNorm, nn.ReLU]
    assert flags(frozen) == flags(back) == flags(model)
    assert not any(buffer.requires_grad for buffer in frozen.buffers())
    x = rand(2, 3, 4, 4)
    assert_close(model[1](x), frozen[1](x))


def test_frozen_pickles_and_traces_and_takes_four_dimensions():
    frozen = freeze(conv_bn()).eval()
    x, pickled = rand(1, 4, 8, 8), pickle.loads(pickle.dumps(frozen))
    traced, exported = fx.symbolic_trace(frozen), torch.export.export(frozen, (x,)).module()
    for other in (pickled, traced, exported):
        assert_close(frozen(x), other(x), 1e-6)
    for shape in ((2, 4), (4, 2, 2), (2, 4, 2, 2, 2), (2, 1, 2, 2)):
        for call in (pickled[1], lambda x: pickled[1](x=x)):
            with pytest.raises(ValueError, match=r"takes \(N,4,H,W\), not \(\d(, \d)+\)\.$"):
                call(rand(*shape))
    assert_same_bits(unfreeze(pickled).state_dict(), unfreeze(frozen).state_dict())


def test_round_trip_bit_for_bit():
    for options in ({}, {"affine": False}, {"bias": False}):
        for dtype in (torch.float32, torch.float64, torch.float16):
            model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, eps=0.2, **options))
            lived_in(model.to(dtype))[0].bias.requires_grad_(False)
            frozen = freeze(model)
            back = unfreeze(frozen)
            assert frozen[1].weight.shape == frozen[1].bias.shape == (4,)
            assert {t.dtype for t in frozen.state_dict().values()} == {dtype}
            if not options.get("affine", True):
                assert frozen[1].weight.eq(1).all()
                assert frozen[1].bias.eq(0).all()
            assert_same_bits(model.state_dict(), back.state_dict())  # both counters are 0 here
            assert types(model) == types(back)
            assert repr(model) == repr(back)


def test_round_trip_keeps_requires_grad_and_restarts_what_it_says():
    model = tiny_resnet()
    model(rand(2, 3, 64, 64))
    model.bn1.weight.requires_grad_(False)
    model.layer1.requires_grad_(False)
    back = unfreeze(freeze(model), momentum=0.03)
    trainable = [{n: p.requires_grad for n, p in m.named_parameters()} for m in (model, back)]
    assert trainable[0] == trainable[1]
    assert_same_bits(without_counters(model.state_dict()), without_counters(back.state_dict()))
    assert (back.bn1.momentum, back.bn1.num_batches_tracked.item()) == (0.03, 0)
    assert unfreeze(freeze(model)).bn1.momentum == 0.1
    assert unfreeze(freeze(model), momentum=None).bn1.momentum is None


def test_an_affine_map_loaded_since_is_not_lost():
    for missing in ("affine", "bias"):
        frozen = freeze(nn.BatchNorm2d(4, **{missing: False}))
        frozen.load_state_dict(lived_in(nn.BatchNorm2d(4)).state_dict())
        back = unfreeze(frozen)
        assert_same_bits(frozen.state_dict(), without_counters(back.state_dict()))
        assert back.affine
        assert back.weight.requires_grad


def test_a_shared_layer_stays_shared():
    bn = nn.BatchNorm2d(3)
    model = lived_in(nn.Sequential(bn, nn.Sequential(bn, nn.ReLU(), bn))).eval()
    x = rand(2, 3, 4, 4)
    for call in (freeze, lambda m: unfreeze(freeze(m)), lambda m: replace_norms(m, "identity")):
        result = call(model)
        assert result[0] is result[1][0] is result[1][2]
        assert len(list(result.modules())) == len(list(model.modules()))
        if type(result[0]) is not nn.Identity:
            assert_close(model(x), result(x))


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


def test_layers_in_lists_are_replaced_too():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, eps=1e-2)
            self.steps = {"all": ([self.conv], (self.bn, "a name"))}
            self.partial = functools.partial(self.normalize, self.bn)

        def normalize(self, layer, x):
            return layer(x)

        def forward(self, x):
            (conv,), (bn, _) = self.steps["all"]
            x = conv(x)
            return torch.stack([self.bn(x), bn(x), self.partial(x)])

    model, x = lived_in(Net()).eval(), rand(4, 3, 8, 8)
    for call in (freeze, lambda m: unfreeze(freeze(m)), lambda m: replace_norms(m, "frozen")):
        result = call(model)
        assert result.bn is result.steps["all"][1][0]
        assert_close(model(x), result(x))
        assert type(result.bn) is nn.BatchNorm2d or torch.equal(result(x), result.train()(x))
    bare = replace_norms(model, "identity")(x)
    assert torch.equal(bare, model.conv(x).expand(3, *bare.shape[1:]))


class InBatch(nn.BatchNorm2d):
    def forward(self, x):
        return F.batch_norm(x, None, None, self.weight, self.bias, True, 0, self.eps)


class OwnBatchNorm(nn.Module):
    """As many write it by hand: statistics of other names and shapes."""

    def __init__(self, channels=4):
        super().__init__()
        for name, value in dict(gamma=1.0, beta=0.0).items():
            setattr(self, name, nn.Parameter(torch.full((1, channels, 1, 1), value)))
        for name, value in dict(moving_mean=0.0, moving_var=1.0).items():
            self.register_buffer(name, torch.full((1, channels, 1, 1), value))

    def forward(self, x):
        if self.training:
            var, mean = torch.var_mean(x, (0, 2, 3), correction=0, keepdim=True)
            self.moving_mean = self.moving_mean.lerp(mean.detach(), 0.1)
            self.moving_var = self.moving_var.lerp(var.detach(), 0.1)
        else:
            mean, var = self.moving_mean, self.moving_var
        return (x - mean) / (var + 1e-3).sqrt() * self.gamma + self.beta


def test_a_hand_made_layer_is_held_or_refused_by_name():
    model, x = nn.Sequential(nn.Conv2d(3, 4, 1), OwnBatchNorm()), rand(2, 3, 4, 4)
    model(x)
    frozen = freeze(model).train()
    assert torch.equal(frozen(x), model.eval()(x)) and not [*frozen[1].parameters()]
    back = unfreeze(frozen)
    assert type(back[1]) is OwnBatchNorm and back[1].training and back[1].gamma.requires_grad
    for call in (lambda: recalibrate(model, [x]), lambda: freeze(model, 1e-5)):
        with pytest.raises(TypeError, match="^Layer '1' is a OwnBatchNorm, "):
            call()


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_what_is_compiled_or_keeps_a_graph_is_copied():
    net, x = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval(), rand(2, 3, 4, 4)
    normed = nn.Sequential(nn.utils.weight_norm(nn.Conv2d(3, 4, 1)), nn.BatchNorm2d(4)).eval()
    for model in (torch.compile(net, backend="eager"), normed):
        frozen = freeze(model).train()
        assert torch.allclose(frozen(x), model(x), atol=1e-6) and len(unfreeze(frozen)(x)) == 2


def test_batches_that_cannot_be_are_refused():
    model = nn.Sequential(nn.BatchNorm2d(3))
    with pytest.raises(TypeError, match="^Give the batches in a list or loader, not one Tensor"):
        recalibrate(model, rand(2, 3, 4, 4))
    with pytest.raises(ValueError, match="^Layer '0' is a BatchNorm2d that got NaN or infinity"):
        recalibrate(model, [rand(2, 3, 4, 4) * 1e38])


class Keeper(nn.Module):
    def forward(self, x):
        self.last = [x]
        return x


def test_unfit_models_and_layers_are_named_in_one_sentence():
    bn, x = nn.BatchNorm2d(4), rand(2, 4, 3, 3)
    kept = nn.Sequential(nn.Conv2d(4, 4, 1), Keeper())
    kept(x)
    for call in (freeze, unfreeze, CALLS[-1], recalibrated):
        for model, error, words in (
            ({}, TypeError, "^The model must be a torch.nn.Module, not dict"),
            (torch.jit.trace(bn.eval(), x), TypeError, "^The model is a Top.*before TorchScript"),
            (
                nn.Sequential(torch.jit.script(bn)),
                TypeError,
                "^Layer '0' is a .*before TorchScript",
            ),
            (kept, ValueError, "^Layer '1' is a Keeper whose 'last' deepcopy cannot copy"),
            (nn.Sequential(nn.LazyBatchNorm2d()), ValueError, "^Layer '0' is a .* run one batch"),
        ):
            with pytest.raises(error, match=f"{words}[^\n]*\\.$"):
                call(model)
    for eps, error in ((-1.0, ValueError), (math.nan, ValueError), (math.inf, ValueError)):
        with pytest.raises(error, match=r"^eps must be finite and not negative, not .*\.$"):
            freeze(bn, eps)
    for layer, error, words in (
        (nn.BatchNorm2d(4, track_running_stats=False), ValueError, "nothing to freeze"),
        (InBatch(4), TypeError, "uses the batch even in eval mode"),
    ):
        for model, subject in ((nn.Sequential(layer), "Layer '0'"), (layer, "The model")):
            says = f"^{subject} is a {type(layer).__name__}[^\n]*{words}[^\n]*\\.$"
            with pytest.raises(error, match=says):
                freeze(model)


def test_batch_statistics_are_a_pure_function():
    model = lived_in(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, eps=0.1))).double()
    x = rand(5, 3, 6, 6).double()
    expected = copy.deepcopy(model).train()(x)
    for start in (model, freeze(model)):
        for train in (True, False):
            result = replace_norms(start.train(train), "batch statistics")
            assert flags(result) == flags(start)
            before = copy.deepcopy(result.state_dict())
            assert_close(expected, result(x), 1e-14)
            assert_same_bits(before, result.state_dict())
            assert "running_mean" not in result[1].state_dict()
            assert result[1].weight.requires_grad
            assert not result[1].track_running_stats
            assert_close(expected, replace_norms(result, "batch statistics")(x), 1e-14)


def test_untracked_layers_take_only_kinds_without_statistics():
    layers = (norm(4, track_running_stats=False) for norm in (nn.BatchNorm2d, nn.SyncBatchNorm))
    untracked = nn.Sequential(nn.Conv2d(3, 4, 1), *layers)
    for kind in KINDS:
        if kind in ("batch statistics", "identity"):
            replace_norms(untracked, kind)
        else:
            with pytest.raises(ValueError, match="track_running_stats=False"):
                replace_norms(untracked, kind)
    with pytest.raises(ValueError, match=r"'frosen'.*'running statistics'.*'folded'"):
        replace_norms(untracked, "frosen")


def test_stages():
    for model in (tiny_resnet(), detector()):
        for stages in ("stem", "layer3", ["layer1", "layer4"], ()):
            chosen = [stages] if isinstance(stages, str) else stages
            given = stages if isinstance(stages, str) else iter(stages)
            result = replace_norms(model, "frozen", given)
            for name, layer in norm_layers(result).items():
                name = name.removeprefix("backbone.body.")
                stage = name.split(".")[0] if name.startswith("layer") else "stem"
                assert (type(layer) is FrozenBatchNorm2d) == (stage in chosen), name
        with pytest.raises(ValueError, match=r"'layer5'.*stem, layer1, layer2, layer3, layer4"):
            replace_norms(model, "frozen", ["layer1", "layer5"])
    model = tiny_resnet()
    model.fc = nn.BatchNorm1d(512)
    assert type(replace_norms(model, "frozen", "stem").bn1) is FrozenBatchNorm2d
    folded = replace_norms(tiny_resnet(), "folded", "stem")
    assert list(norm_layers(folded)) == [n for n in norm_layers(tiny_resnet()) if n != "bn1"]


def test_shared_weights_give_the_same_function_and_leave_the_model_as_it_was():
    start = tiny_resnet().eval()
    before, x = portrait(start), rand(2, 3, 64, 64)
    for kind in KINDS:
        own, shared = (replace_norms(start, kind, share_weights=share) for share in (False, True))
        with torch.no_grad():
            assert torch.equal(own(x), shared(x))
        assert shared.fc.weight is start.fc.weight and own.fc.weight is not start.fc.weight
        assert_same_portrait(before, start)


def test_folded_agrees_with_the_layer_and_with_torchs_fusion():
    x = rand(2, 4, 8, 8)
    for options in ({}, {"bias": True}, {"groups": 4}):
        for start in (copy.deepcopy, freeze):
            model = conv_bn(**options).eval()
            folded = replace_norms(start(model), "folded")
            assert [type(m) for m in folded] == [nn.Conv2d, nn.Identity]
            assert_close(model(x), folded(x))
            fused = fuse_conv_bn_eval(model[0], model[1])
            assert_close(fused.weight, folded[0].weight, 1e-6)
            assert_close(fused.bias, folded[0].bias, 1e-6)
            exact = replace_norms(start(model.double()), "folded")
            assert_close(model(x.double()), exact(x.double()), 1e-14)
            # Rounded once: the fold in float32 is that in float64, rounded.
            assert torch.equal(folded[0].weight, exact[0].weight.float())
            assert torch.equal(folded[0].bias, exact[0].bias.float())
    half = conv_bn().half().eval()
    half[0].weight.requires_grad_(False)
    folded = replace_norms(half, "folded")
    assert {(p.dtype, p.requires_grad) for p in folded.parameters()} == {(torch.float16, False)}
    assert flags(folded) == flags(half)


def test_whole_networks_frozen_unfrozen_and_folded():
    x = rand(2, 3, 64, 64).double()
    models = torchvision.models
    dense = models.DenseNet(4, (2, 2), 8)  # some of its layers do not follow a convolution
    networks = [tiny_resnet(), models.mobilenet_v3_small(), models.shufflenet_v2_x0_5(), dense]
    for network in (*networks, detector().backbone):
        model = lived_in(network).double().eval()
        frozen, folded = freeze(model), replace_norms(model, "folded")
        back = unfreeze(frozen)
        for result in (frozen, back, folded):
            for expected, output in zip(maps(model, x), maps(result, x), strict=True):
                assert_close(expected, output, 1e-10)
        left = 6 if network is dense else 0
        assert len(norm_layers(folded)) == left
        assert_same_bits(model.state_dict(), back.state_dict())


def maps(model, x):
    output = model(x)
    return output.values() if isinstance(output, dict) else [output]


class Custom(nn.Module):
    def __init__(self, forward, **parts):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        for name, part in parts.items():
            setattr(self, name, part)
        self.body = forward

    def forward(self, x):
        return self.body(self, x)


def branching(m, x):
    return m.pair(x) if x.sum() > 0 else x


def hooked():
    model = conv_bn()
    model[0].register_forward_hook(lambda conv, args, output: output + 1)
    return model


def registered_twice():
    """Each part alone looks foldable; together they share one convolution."""
    conv = nn.Conv2d(3, 3, 1)
    parts = [nn.Sequential(conv, nn.BatchNorm2d(3)), nn.Sequential(conv, nn.ReLU())]
    return Custom(branching, pair=parts[0], other=parts[1])


def test_nothing_to_fold():
    for model in (
        conv_bn(nn.ReLU()),
        nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)),
        nn.Sequential(nn.ConvTranspose2d(3, 3, 1), nn.BatchNorm2d(3)),
        nn.Sequential(timm.layers.StdConv2d(3, 3, 1), nn.BatchNorm2d(3)),
        Custom(lambda m, x: m.bn(m.conv(x)) + m.conv(x)),  # called twice
        Custom(lambda m, x: (lambda y: m.bn(y) + y)(m.conv(x))),  # two consumers of one call
        Custom(lambda m, x: m.bn(m.bn(m.conv(x)))),
        Custom(lambda m, x: m.bn(m.conv(x)) if x.sum() > 0 else m.conv(x)),  # cannot be traced
        nn.BatchNorm2d(3),
        hooked(),
        registered_twice(),
    ):
        with pytest.raises(ValueError, match=r"Nothing to fold: .* directly follows"):
            replace_norms(model, "folded")


def test_an_untraceable_model_is_folded_in_its_parts():
    pair = lived_in(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)))
    model = Custom(branching, pair=pair).eval()
    folded = replace_norms(model, "folded")
    assert list(norm_layers(folded)) == ["bn"]
    assert_close(model(rand(1, 3, 4, 4)), folded(rand(1, 3, 4, 4)))


def test_tracing_leaves_no_proxies_behind():
    def remember(m, x):
        m.last = x
        return m.bn(m.conv(x))

    folded = replace_norms(Custom(remember), "folded")
    assert type(folded.bn) is nn.Identity
    assert not hasattr(folded, "last")


def test_recalibrate_agrees_with_torchs_update_bn():
    batches = [rand(n, 3, 32, 32, seed=n).double() * n for n in (2, 3, 6)]
    for train in (True, False):
        model = tiny_resnet().double()
        model.bn1.momentum = 0.7
        model(batches[0])  # its counters are no longer 0
        model.train(train).layer2.train(not train)
        expected = copy.deepcopy(model)
        torch.optim.swa_utils.update_bn(batches, expected)
        result = recalibrate(model, iter(batches))
        assert result.bn1.momentum == 0.7
        assert flags(result) == flags(model)
        for key, tensor in expected.state_dict().items():
            assert_close(tensor, result.state_dict()[key], 1e-12)
        assert_same_bits(dict(model.named_parameters()), dict(result.named_parameters()))


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


def test_recalibrate_takes_what_a_loader_yields():
    model, images = conv_bn().train(), rand(6, 4, 8, 8)
    expected = recalibrate(model, images.split(2)).state_dict()
    pairs = torch.utils.data.TensorDataset(images, torch.zeros(6))
    for batches, key in (
        (torch.utils.data.DataLoader(pairs, batch_size=2), None),
        (([x] for x in images.split(2)), None),
        (({"label": 1, "image": x} for x in images.split(2)), "image"),
    ):
        assert_same_bits(expected, recalibrate(model, batches, key).state_dict())
    network, pictures = detector().train(), [rand(3, 48, 64), rand(3, 64, 40)]
    results = [recalibrate(network, [batch]) for batch in (pictures, (pictures, [{}, {}]))]
    assert flags(results[0]) == flags(network)
    assert_same_bits(*(result.state_dict() for result in results))
    old, new = network.backbone.body.bn1, results[0].backbone.body.bn1
    assert not torch.equal(old.running_mean, new.running_mean)


def test_recalibrate_says_what_is_missing():
    model, x = nn.BatchNorm2d(3), rand(2, 3, 4, 4)
    before = portrait(model)
    for batch, words in (
        (x[:0], "Batch 1 is empty"),
        ([], "Batch 1 is empty"),
        (x * math.nan, "Batch 1 holds NaN or infinity"),
        ((x / 0, 1), "Batch 1 holds NaN or infinity"),
        ({"image": x, "label": 1}, "Batch 1 is a mapping: .* of 'image', 'label'"),
    ):
        with pytest.raises(ValueError, match=f"^{words}[^\n]*\\.$"):
            recalibrate(model, [x, batch])
    with pytest.raises(ValueError, match="No batches"):
        recalibrate(model, iter([]))
    assert_same_portrait(before, model)
    untracked = nn.BatchNorm2d(3, track_running_stats=False)
    for other in (freeze(model), freeze(nn.BatchNorm1d(3)), untracked, nn.ReLU()):
        with pytest.raises(ValueError, match="must be unfrozen first"):
            recalibrate(other, [x])


def test_norm_layers_come_once_and_by_name():
    bn = nn.BatchNorm2d(2)
    model = nn.Sequential(nn.GroupNorm(1, 2), nn.Sequential(nn.ReLU(), bn), bn)
    assert norm_layers(model) == {"0": model[0], "1.1": bn} and norm_layers(bn) == {"": bn}


DETECTION = torchvision.models.list_models(torchvision.models.detection)


@pytest.mark.sweep
def test_every_torchvision_model():
    for name in torchvision.models.list_models(torchvision.models) + DETECTION:
        if "regnet" in name and name != "regnet_y_400mf":
            continue  # their widths are computed with tensors, so they need memory: one is enough
        options = {"weights_backbone": None} if name in DETECTION else {}
        with torch.device("cpu" if "regnet" in name else "meta"):
            model = torchvision.models.get_model(name, weights=None, **options)
        frozen = freeze(model)
        back = unfreeze(frozen)
        assert nn.BatchNorm2d not in types(frozen).values() and types(back) == types(model)
        eps = [[layer.eps for layer in norm_layers(m).values()] for m in (model, frozen, back)]
        assert eps[0] == eps[1] == eps[2], name
