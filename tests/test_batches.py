"""Batch statistics from those of the images, against nn.BatchNorm2d on the real activations."""

from functools import partial
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from helpers.batch_statistics import BINS, collect, crops
from helpers.inputs import photos
from helpers.networks import backbones
from helpers.norms import freeze
from helpers.stages import STAGES

SIZES = (1, 2, 3, 8, 24)


class Net(nn.Sequential):
    """Two stages; all of the stem's BatchNorm input is the image."""

    def __init__(self, bn=None):
        super().__init__()
        self.stem = bn or nn.BatchNorm2d(3)
        self.layer1 = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(inplace=True))


def given(values, bn=None):
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
    """Stage → the input of its first layer, from one plain forward pass."""
    names = {stage: "bn1" if stage == "stem" else f"{stage}.0.bn1" for stage in STAGES}
    kept, hooks = {}, []
    for stage, name in names.items():
        layer = model.get_submodule(name)
        keep = partial(lambda stage, _, args: kept.update({stage: args[0]}), stage)
        hooks.append(layer.register_forward_pre_hook(keep))
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    return kept


@pytest.fixture(scope="module")
def found(model, images, inputs):
    return collect(model, images)


def twin(statistics, model, **options):
    """The layer itself, as an nn.BatchNorm2d of its own in float64."""
    layer = model.get_submodule(statistics.layer)
    bn = nn.BatchNorm2d(layer.num_features, layer.eps, **options).double()
    bn.load_state_dict(layer.state_dict())
    return bn.requires_grad_(False)


# The crops


def test_crops_are_the_same_every_time_and_differ_from_each_other():
    one, other = crops(12, 48), crops(12, 48)
    assert one.shape == (12, 3, 48, 48) and one.dtype == torch.float32
    assert torch.equal(one, other) and not torch.equal(one, crops(12, 48, seed=1))
    assert one.min() >= 0 and one.max() <= 1
    assert all(not torch.equal(a, b) for a, b in combinations(one, 2))
    assert torch.equal(crops(20, 48)[:12], one)


def test_crops_leave_the_global_generator_alone():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    crops(2, 16)
    assert torch.equal(torch.get_rng_state(), state)


def test_crops_take_the_photos_in_turn():
    cut = crops(64, 32)
    assert cut.shape[0] == 64
    colors = torch.stack([photo.mean((1, 2)) for photo in photos.load_all(224)])
    means = torch.stack([cut[i::4].mean((0, 2, 3)) for i in range(4)])
    assert torch.equal(torch.cdist(means, colors).argmin(1), torch.arange(4))


@pytest.mark.parametrize("bad", [{"count": 0}, {"size": -1}, {"count": 2.5}, {"size": True}])
def test_bad_crops_are_refused_in_one_sentence(bad):
    with pytest.raises(ValueError, match="must be a whole number from 1 up, not "):
        crops(**bad)


# One pass


def test_moments_are_those_of_the_real_activations(found, inputs):
    assert list(found) == list(STAGES)
    for stage, statistics in found.items():
        x = inputs[stage].double()
        variance, mean = torch.var_mean(x, (2, 3), correction=0)
        assert statistics.pixels == x[0, 0].numel()
        assert len(statistics) == 24 and statistics.channels == x.shape[1]
        scale = variance.mean().sqrt().item()
        assert statistics.means == pytest.approx(mean.numpy(), abs=1e-4 * scale)
        assert statistics.variances == pytest.approx(variance.numpy(), abs=1e-4 * scale**2)
        assert statistics.means.dtype == statistics.variances.dtype == np.float64


def test_the_layer_and_what_it_has_stored(found, model):
    for stage, statistics in found.items():
        assert statistics.layer == ("bn1" if stage == "stem" else f"{stage}.0.bn1")
        layer = model.get_submodule(statistics.layer)
        assert statistics.network == "ResNet-50, stand-in weights" and statistics.eps == layer.eps
        for name in ("running_mean", "running_var", "weight", "bias"):
            assert (getattr(statistics, name) == getattr(layer, name).detach().numpy()).all()


def test_histograms_are_numpys(found, inputs):
    for stage, statistics in found.items():
        assert statistics.histograms.shape == (24, statistics.channels, BINS)
        assert (statistics.histograms.sum(2) == statistics.pixels).all()
        for image, channel in ((0, 0), (7, 3), (23, statistics.channels - 1)):
            edges = statistics.edges[channel]
            x = inputs[stage][image, channel].double().numpy().clip(edges[0], edges[-1])
            counts, _ = np.histogram(x, edges)
            off = np.abs(counts - statistics.histograms[image, channel].astype(int)).sum()
            assert off <= 4  # a value on an edge may fall to either side


def test_the_bins_cover_all_values_up_to_four_standard_deviations(found, inputs):
    for stage, statistics in found.items():
        x = inputs[stage].double().transpose(0, 1).flatten(1)
        std, mean = torch.std_mean(x, 1, correction=0)
        low = torch.maximum(x.amin(1), mean - 4 * std).numpy()
        high = torch.minimum(x.amax(1), mean + 4 * std).numpy()
        scale = std.max().item()
        assert statistics.edges[:, 0] == pytest.approx(low, abs=1e-4 * scale)
        assert statistics.edges[:, -1] == pytest.approx(high, abs=1e-4 * scale)


def test_the_model_stays_as_it_was(images):
    model = Net().train()
    model.layer1[1].eval()
    model.normalize = lambda image: image * 2
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    flags = [module.training for module in model.modules()]
    found = collect(model, images)
    assert [module.training for module in model.modules()] == flags
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert found["stem"].means == pytest.approx(2 * images.double().mean((2, 3)).numpy())


def test_the_model_stays_as_it_was_after_an_error_too(images):
    model = Net().train()
    model.layer1[0].weight.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="The input of layer1.1 is not finite: give finite images"):
        collect(model, images)
    assert all(module.training for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_chunks_make_no_difference(images):
    torch.manual_seed(0)
    net = Net().eval()
    whole, first = collect(net, images)["layer1"], collect(net, images[:9])["layer1"]
    assert whole.means[:9] == pytest.approx(first.means, abs=1e-6)
    assert whole.variances[:9] == pytest.approx(first.variances, abs=1e-6)


def test_lite0_and_its_normalization():
    lite0 = backbones.load("lite0")
    images = crops(4, 64)
    found = collect(lite0, images)
    assert list(found) == list(STAGES) and found["stem"].network.startswith("EfficientNet-Lite0")
    with torch.no_grad():
        x = lite0.stem[0][:2](lite0.normalize(images)).double()  # padding, convolution
    assert found["stem"].layer == "stem.0.2" and found["stem"].eps == 1e-3
    assert found["stem"].means == pytest.approx(x.mean((2, 3)).numpy(), abs=1e-4)


def test_a_layer_without_affine_parameters_and_one_in_float64(images):
    found = given(images, nn.BatchNorm2d(3, affine=False))
    assert (found.weight == 1).all() and (found.bias == 0).all()
    double = collect(Net().double(), images)["stem"]
    assert double.means == pytest.approx(found.means)


def test_a_stage_without_batchnorm_is_left_out(images):
    net = Net(FrozenBatchNorm2d(3))
    assert list(collect(net, images)) == ["layer1"]


@pytest.mark.parametrize(
    ("network", "values", "error", "sentence"),
    [
        (3, torch.rand(2, 3, 8, 8), TypeError, "must be a torch.nn.Module, not int"),
        (Net(), "cat", TypeError, "must be a floating point tensor"),
        (Net(), torch.ones(2, 3, 8, 8, dtype=torch.uint8), TypeError, "floating point tensor"),
        (Net(), torch.rand(1, 3, 8, 8), ValueError, r"\(N,3,H,W\), N from 2 up, not \(1, 3, 8, 8"),
        (Net(), torch.rand(3, 8, 8), ValueError, r"N from 2 up, not \(3, 8, 8\)"),
        (Net(), torch.full((2, 3, 8, 8), torch.nan), ValueError, "input of stem is not finite"),
        (Net(), torch.rand(2, 3, 1, 1), ValueError, "stem gets one pixel per image: give larger"),
        (nn.Linear(2, 2), torch.rand(2, 3, 8, 8), ValueError, "Linear has no stages"),
        (freeze(Net()), torch.rand(2, 3, 8, 8), ValueError, "Net has no BatchNorm2d with running"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_sentence(network, values, error, sentence):
    with pytest.raises(error, match=sentence):
        collect(network, values)


# A batch


@pytest.mark.parametrize("size", SIZES)
def test_of_batch_is_what_train_mode_computes(found, inputs, model, size):
    for stage, statistics in found.items():
        batch = statistics.batches(size)[-1]
        x = inputs[stage][batch].double()
        bn = twin(statistics, model, momentum=1.0).train()
        bn(x)
        mean, variance = statistics.of_batch(batch)
        scale = bn.running_var.max().item()
        assert mean == pytest.approx(bn.running_mean.numpy(), abs=1e-4 * scale**0.5)
        stored = statistics.unbiased(size) * variance
        assert stored == pytest.approx(bn.running_var.numpy(), abs=1e-4 * scale)


@pytest.mark.parametrize("size", SIZES)
def test_difference_is_train_minus_eval_of_the_real_layer(found, inputs, model, size):
    for stage, statistics in found.items():
        batch = statistics.batches(size)[0]
        x = inputs[stage][batch].double()
        bn = twin(statistics, model)
        evaluated, trained = bn.eval()(x), bn.train()(x)
        rms = (trained - evaluated).square().mean((0, 2, 3)).sqrt().numpy()
        assert np.abs(statistics.weight) * statistics.difference(batch) == pytest.approx(
            rms, rel=1e-3, abs=1e-5
        )
        relative = rms / evaluated.square().mean((0, 2, 3)).sqrt().numpy()
        assert statistics.relative_difference(batch) == pytest.approx(relative, rel=1e-3, abs=1e-5)


def test_but_for_eps_the_difference_is_a_distance(images):
    bn = nn.BatchNorm2d(3, eps=1e-12)
    bn.running_mean.fill_(0.4)
    bn.running_var.fill_(0.09)
    found = given(images, bn)
    mean, variance = found.of_batch([1, 2, 5])
    across, up = (mean - 0.4) / 0.3, (variance / 0.09) ** 0.5 - 1
    assert found.difference([1, 2, 5]) == pytest.approx(np.hypot(across, up), rel=1e-6)


def test_many_batches_at_once_are_each_by_itself(found):
    batches = found["layer2"].batches(4)
    for method in ("difference", "relative_difference"):
        together = getattr(found["layer2"], method)(batches)
        assert together.shape == (24, 128)
        assert together[5] == pytest.approx(getattr(found["layer2"], method)(batches[5]))
    means, variances = found["layer2"].of_batch(batches)
    assert means[5] == pytest.approx(found["layer2"].of_batch(batches[5])[0])
    assert variances.shape == (24, 128)


def test_a_channel_by_itself(found):
    one = found["layer3"].channel(11)
    assert one.channels == 1 and len(one) == 24 and one.layer == "layer3.0.bn1"
    for name in ("within", "between", "running_var"):
        assert getattr(one, name) == pytest.approx(getattr(found["layer3"], name)[11], rel=1e-12)
    assert one.difference([0, 3]) == pytest.approx(found["layer3"].difference([0, 3])[11])
    assert (one.histograms[:, 0] == found["layer3"].histograms[:, 11]).all()


# Many batches


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8])
def test_over_all_batches_the_expectations_are_exact(images, size):
    found = given(images[:8])
    means, variances = found.of_batch(list(combinations(range(8), size)))
    assert variances.mean(0) == pytest.approx(found.expected_variance(size), rel=1e-9)
    assert means.std(0) == pytest.approx(found.spread_of_means(size), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_batchnorm_fed_all_batches_ends_at_the_expected_running_var(images, size):
    found, x = given(images[:6]), images[:6].double()
    bn = nn.BatchNorm2d(3, momentum=None).double()
    for batch in combinations(range(6), size):
        bn(x[list(batch)])
    assert bn.running_var.numpy() == pytest.approx(found.expected_running_var(size), rel=1e-6)


@pytest.mark.parametrize("size", [1, 2, 8, 24])
def test_on_real_activations_too_as_near_as_the_batches_drawn_are_many(found, inputs, model, size):
    for stage in ("stem", "layer4"):
        statistics, bn = found[stage], twin(found[stage], model, momentum=None)
        bn.reset_running_stats()
        for batch in statistics.batches(size):
            bn(inputs[stage][batch].double())
        expected = statistics.expected_running_var(size)
        off = np.abs(bn.running_var.numpy() / expected - 1)
        assert off.max() < (1e-3 if size in (1, 24) else 0.15)  # of 1 and 24 these are all


def test_at_batch_size_1_the_between_image_variance_is_missing(found):
    stem = found["stem"]
    assert stem.expected_variance(1) == pytest.approx(stem.within)
    missing = 1 - stem.expected_variance(1) / stem.expected_variance(24)
    assert missing.max() > 0.3


def test_of_the_whole_pool_the_variance_is_that_of_all_pixels(found, inputs):
    for stage, statistics in found.items():
        x = inputs[stage].double().transpose(0, 1).flatten(1)
        scale = x.var(1).max().item()
        assert statistics.expected_variance(24) == pytest.approx(
            x.var(1, correction=0).numpy(), abs=1e-4 * scale
        )
        assert statistics.expected_running_var(24) == pytest.approx(
            x.var(1).numpy(), abs=1e-4 * scale
        )


@pytest.mark.parametrize("size", [1, 2, 5, 8, 13, 23])
def test_batches_are_drawn_without_replacement_shuffling_by_shuffling(found, size):
    batches = found["stem"].batches(size)
    assert batches.shape == (24, size)
    assert all(len(set(batch)) == size for batch in batches.tolist())
    first = batches[: 24 // size].ravel().tolist()
    assert len(set(first)) == len(first)
    assert (batches == found["layer4"].batches(size)).all()
    assert (batches != found["stem"].batches(size, seed=1)).any()


def test_there_is_one_batch_of_all_images(found):
    assert found["stem"].batches(24).tolist() == [list(range(24))]
    assert (found["stem"].spread_of_means(24) == 0).all()


# Which channel


def test_the_channels_of_largest_and_smallest_between_image_share(found, inputs):
    for stage, statistics in found.items():
        x = inputs[stage].double()
        within, between = x.var((2, 3), correction=0).mean(0), x.mean((2, 3)).var(0)
        shares = (between / (within + between)).numpy()
        assert statistics.between_share == pytest.approx(shares, abs=1e-4)
        assert statistics.most_between() == shares.argmax()
        assert statistics.least_between() == shares.argmin()


def test_a_channel_that_stands_still_has_no_share_and_is_not_chosen(images):
    still = images.clone()
    still[:, 1] = 0.25
    found = given(still)
    assert found.between_share[1] == 0 and found.expected_variance(4)[1] == 0
    assert {found.most_between(), found.least_between()} == {0, 2}
    assert (found.histograms[:, 1].sum(1) == found.pixels).all()
    for choose in ("most_between", "least_between"):
        with pytest.raises(ValueError, match="Every channel of stem has one value in all of the"):
            getattr(given(torch.full((2, 3, 8, 8), 0.5)), choose)()


def test_differences_of_a_channel_that_stands_still_at_what_is_stored(images):
    bn = nn.BatchNorm2d(3)
    bn.running_mean.fill_(0.25)
    bn.running_var.zero_()
    found = given(torch.full((2, 3, 8, 8), 0.25), bn)
    assert (found.difference([0]) == 0).all()
    assert np.isnan(found.relative_difference([0])).all()  # 0 over 0: no bias, no output


# Bad input


@pytest.mark.parametrize("size", [0, 25, -1, 2.0, "8", None])
def test_a_bad_batch_size_is_refused_in_one_sentence(found, size):
    for method in ("expected_variance", "expected_running_var", "spread_of_means", "batches"):
        with pytest.raises(ValueError, match="A batch size is a whole number from 1 to 24, not "):
            getattr(found["stem"], method)(size)


@pytest.mark.parametrize("batch", [[], [24], [-1, 2], [0.5], 3, ["a"]])
def test_a_bad_batch_is_refused_in_one_sentence(found, batch):
    for method in ("of_batch", "difference", "relative_difference"):
        with pytest.raises(ValueError, match="A batch is a list of image numbers from 0 to 23."):
            getattr(found["stem"], method)(batch)


@pytest.mark.parametrize("number", [-1, 64])
def test_a_channel_that_there_is_not_is_refused_in_one_sentence(found, number):
    with pytest.raises(ValueError, match=f"bn1 has channels 0 to 63, not channel {number}."):
        found["stem"].channel(number)
