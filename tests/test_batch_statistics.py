"""Batch statistics from those of the images, against nn.BatchNorm2d on the real activations."""

from functools import partial
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from data.results.small_batches.make import difference
from helpers.batch_statistics import BINS, collect, crops
from helpers.inputs import photos
from helpers.networks import backbones
from helpers.norms import freeze
from helpers.stages import STAGES

SIZES = (1, 2, 8, 24)


class Net(nn.Sequential):
    """Two stages; all of the stem's BatchNorm input is the image."""

    def __init__(self, bn=None):
        super().__init__()
        self.stem = bn or nn.BatchNorm2d(3)
        self.layer1 = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(inplace=True))


def of_stem(values, bn=None):
    """Statistics of a layer that gets these images (N,3,H,W)."""
    return collect(Net(bn).eval(), values)["stem"]


@pytest.fixture(scope="module")
def model():
    return backbones.load("resnet50", "stand-in")


@pytest.fixture(scope="module")
def images():
    return crops(24, 64)


@pytest.fixture(scope="module")
def inputs(model, images):
    """Stage → the input of its first layer in float64, from one plain forward pass."""
    names = {stage: "bn1" if stage == "stem" else f"{stage}.0.bn1" for stage in STAGES}
    kept, hooks = {}, []
    for stage, name in names.items():
        keep = partial(lambda stage, _, args: kept.update({stage: args[0].double()}), stage)
        hooks.append(model.get_submodule(name).register_forward_pre_hook(keep))
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    return kept


@pytest.fixture(scope="module")
def measured(model, images, inputs):
    return collect(model, images)


def twin(statistics, model, **options):
    """The layer itself, as an nn.BatchNorm2d of its own in float64."""
    layer = model.get_submodule(statistics.layer)
    bn = nn.BatchNorm2d(layer.num_features, layer.eps, **options).double()
    bn.load_state_dict(layer.state_dict())
    return bn.requires_grad_(False)


def test_crops_are_the_same_every_time_and_differ_from_each_other():
    state = torch.get_rng_state()
    cut = crops(12, 48)
    assert cut.shape == (12, 3, 48, 48) and cut.dtype == torch.float32
    assert torch.equal(crops(20, 48)[:12], cut) and not torch.equal(cut, crops(12, 48, seed=1))
    assert cut.min() >= 0 and cut.max() <= 1
    assert all(not torch.equal(a, b) for a, b in combinations(cut, 2))
    assert torch.equal(torch.get_rng_state(), state)


def test_crops_take_the_photos_in_turn():
    cut = crops(64, 32)
    colors = torch.stack([photo.mean((1, 2)) for photo in photos.load_all(224)])
    means = torch.stack([cut[i::4].mean((0, 2, 3)) for i in range(4)])
    assert torch.equal(torch.cdist(means, colors).argmin(1), torch.arange(4))


def test_moments_are_those_of_the_real_activations(measured, inputs, model):
    assert list(measured) == list(STAGES)
    for stage, statistics in measured.items():
        x = inputs[stage]
        variance, mean = torch.var_mean(x, (2, 3), correction=0)
        assert statistics.pixels == x[0, 0].numel()
        assert statistics.means.shape == (len(statistics), x.shape[1]) == (24, x.shape[1])
        scale = variance.mean().sqrt().item()
        assert statistics.means == pytest.approx(mean.numpy(), abs=1e-4 * scale)
        assert statistics.variances == pytest.approx(variance.numpy(), abs=1e-4 * scale**2)
        assert statistics.means.dtype == statistics.variances.dtype == np.float64
        layer = model.get_submodule(statistics.layer)
        assert statistics.layer == ("bn1" if stage == "stem" else f"{stage}.0.bn1")
        assert statistics.network == "ResNet-50, stand-in weights" and statistics.eps == layer.eps
        for name in ("running_mean", "running_var"):
            assert (getattr(statistics, name) == getattr(layer, name).numpy()).all()


def test_histograms_are_numpys_up_to_four_standard_deviations(measured, inputs):
    for stage, statistics in measured.items():
        channels = len(statistics.running_var)
        assert statistics.histograms.shape == (24, channels, BINS)
        assert (statistics.histograms.sum(2) == statistics.pixels).all()
        for image, channel in ((0, 0), (7, 3), (23, channels - 1)):
            edges = statistics.edges[channel]
            x = inputs[stage][image, channel].numpy().clip(edges[0], edges[-1])
            counts, _ = np.histogram(x, edges)
            off = np.abs(counts - statistics.histograms[image, channel].astype(int)).sum()
            assert off <= 4  # a value on an edge may fall to either side
        x = inputs[stage].transpose(0, 1).flatten(1)
        std, mean = torch.std_mean(x, 1, correction=0)
        low, high = torch.maximum(x.amin(1), mean - 4 * std), (mean + 4 * std).minimum(x.amax(1))
        for edge, expected in ((0, low), (-1, high)):
            close = pytest.approx(expected.numpy(), abs=1e-4 * std.max().item())
            assert statistics.edges[:, edge] == close


def test_the_model_stays_as_it_was_even_after_an_error(images):
    model = Net().train()
    model.layer1[1].eval()
    model.normalize = lambda image: image * 2
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    flags = [module.training for module in model.modules()]
    stem = collect(model, images)["stem"]
    assert stem.means == pytest.approx(2 * images.double().mean((2, 3)).numpy())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    model.layer1[0].weight.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="The input of layer1.1 is not finite: give finite images"):
        collect(model, images)
    assert [module.training for module in model.modules()] == flags
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_stage_without_batchnorm_is_left_out(images):
    assert list(collect(Net(FrozenBatchNorm2d(3)).double(), images)) == ["layer1"]


def test_what_cannot_be_measured_is_refused_in_one_sentence():
    x = torch.rand(2, 3, 8, 8)
    for network, values, error, sentence in (
        (Net(), "cat", TypeError, "must be a tensor, not str"),
        (Net(), x.byte(), TypeError, "uint8: make it floating point"),
        (Net(), x[:1], ValueError, "give two or more"),
        (Net(), x[0], ValueError, r"\(N,3,H,W\), not \(3, 8, 8\)"),
        (Net(), x * torch.nan, ValueError, "input of stem is not finite"),
        (Net(), x[..., :1, :1], ValueError, "stem gets one pixel per image: give larger"),
        (nn.Linear(2, 2), x, ValueError, "Linear has no stages"),
        (freeze(Net()), x, ValueError, "Net has no BatchNorm2d with running"),
    ):
        with pytest.raises(error, match=sentence):
            collect(network, values)


def test_a_batch_is_what_train_mode_computes(measured, inputs, model):
    for stage, statistics in measured.items():
        for size in SIZES:
            batch = statistics.batches(size)[-1]
            x = inputs[stage][batch]
            bn = twin(statistics, model, momentum=1.0)
            evaluated, trained = bn.eval()(x), bn.train()(x)
            mean, variance = statistics.of_batch(batch)
            scale = bn.running_var.max().item()
            assert mean == pytest.approx(bn.running_mean.numpy(), abs=1e-4 * scale**0.5)
            stored = statistics.unbiased(size) * variance
            assert stored == pytest.approx(bn.running_var.numpy(), abs=1e-4 * scale)
            rms = (trained - evaluated).square().mean((0, 2, 3)).sqrt()
            apart = difference(statistics, batch) * bn.weight.abs().numpy()
            assert apart == pytest.approx(rms.numpy(), rel=1e-3, abs=1e-5)


def test_many_batches_at_once_are_each_by_itself(measured):
    layer = measured["layer2"]
    batches = layer.batches(4)
    together, (means, variances) = difference(layer, batches), layer.of_batch(batches)
    assert together.shape == means.shape == variances.shape == (24, 128)
    assert together[5] == pytest.approx(difference(layer, batches[5]))
    assert means[5] == pytest.approx(layer.of_batch(batches[5])[0])


def test_a_channel_by_itself(measured):
    layer = measured["layer3"]
    one = layer.channel(11)
    assert one.means.shape == (24, 1) and one.layer == "layer3.0.bn1"
    for name in ("within", "between", "running_var"):
        assert getattr(one, name) == pytest.approx(getattr(layer, name)[11], rel=1e-12)
    assert difference(one, [0, 3]) == pytest.approx(difference(layer, [0, 3])[11])
    assert (one.histograms[:, 0] == layer.histograms[:, 11]).all()
    for number in (-1, 256):
        with pytest.raises(ValueError, match=f"has channels 0 to 255, not channel {number}."):
            layer.channel(number)


def test_over_all_batches_the_expectations_are_exact(images):
    statistics, x = of_stem(images[:6]), images[:6].double()
    for size in range(1, 7):
        bn, batches = nn.BatchNorm2d(3, momentum=None).double(), [*combinations(range(6), size)]
        for batch in batches:
            bn(x[list(batch)])
        _, variances = statistics.of_batch(batches)
        stored = statistics.expected_running_var(size)
        assert statistics.unbiased(size) * variances.mean(0) == pytest.approx(stored, rel=1e-9)
        assert bn.running_var.numpy() == pytest.approx(stored, rel=1e-6)


def test_batches_are_drawn_without_replacement_shuffling_by_shuffling(measured):
    stem = measured["stem"]
    for size in (1, 2, 5, 8, 13, 23):
        batches = stem.batches(size)
        assert batches.shape == (24, size)
        assert all(len(set(batch)) == size for batch in batches.tolist())
        first = batches[: 24 // size].ravel().tolist()
        assert len(set(first)) == len(first)
        assert (batches == measured["layer4"].batches(size)).all()
        assert (batches != stem.batches(size, seed=1)).any()
    assert stem.batches(24).tolist() == [list(range(24))]


def test_the_channel_of_largest_between_image_share(measured, inputs):
    for stage, statistics in measured.items():
        x = inputs[stage]
        within, between = x.var((2, 3), correction=0).mean(0), x.mean((2, 3)).var(0)
        shares = (between / (within + between)).numpy()
        assert statistics.between_share == pytest.approx(shares, abs=1e-4)
        assert statistics.most_between() == shares.argmax()


def test_a_constant_channel_has_no_share_and_is_not_chosen(images):
    constant = images.clone()
    constant[:, 1] = 0.25
    statistics = of_stem(constant)
    assert statistics.between_share[1] == 0 and statistics.expected_running_var(4)[1] == 0
    assert statistics.most_between() in (0, 2)
    assert (statistics.histograms[:, 1].sum(1) == statistics.pixels).all()
    with pytest.raises(ValueError, match="Every channel of stem has one value in all of the"):
        of_stem(torch.full((2, 3, 8, 8), 0.5)).most_between()


def test_a_bad_batch_size_is_refused_in_one_sentence(measured):
    stem = measured["stem"]
    for size in (0, 25, -1, 2.0, "8", None):
        for call in (stem.expected_running_var, stem.batches):
            with pytest.raises(ValueError, match="A batch size is a whole number from 1 to 24, "):
                call(size)
