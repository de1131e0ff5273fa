"""compare against the same differences taken by hand, and what it must leave as it was."""

import copy

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.detection import fasterrcnn_resnet50_fpn
from torchvision.ops import FrozenBatchNorm2d

from helpers.compare import ROUNDING, Row, compare
from helpers.inputs import photos
from helpers.networks import backbones
from helpers.norms import freeze, replace_norms
from helpers.stages import STAGES, stages
from helpers.text import short


@pytest.fixture(scope="module")
def image():
    return photos.load("rocket", 96)


@pytest.fixture(scope="module")
def model():
    return backbones.load(weights="stand-in")


@pytest.fixture(scope="module")
def old(model):
    return freeze(model, eps=0.0)


def stage_outputs(network, image):
    x, outputs = image, {}
    with torch.no_grad():
        for stage, part in stages(network).items():
            x = part(x)
            outputs[stage] = x.clone()
    return outputs


def test_rows_are_the_differences_taken_by_hand(model, old, image):
    a, b = stage_outputs(model, image), stage_outputs(old, image)
    rows = compare(model, old, image)
    assert list(rows) == list(STAGES)
    for stage, row in rows.items():
        difference = (a[stage] - b[stage]).abs()
        assert row.shape == tuple(a[stage].shape)
        assert row.max_abs == difference.max().item()
        assert row.mean_abs == pytest.approx(difference.mean().item(), rel=1e-6)
        assert row.relative == pytest.approx((difference.max() / a[stage].abs().max()).item())


def test_norm_points_see_the_output_before_the_in_place_relu(model, old, image):
    with torch.no_grad():
        a, b = (network.bn1(network.conv1(image)) for network in (model, old))
    rows = compare(model, old, image, at="norm")
    assert rows["bn1"].max_abs == (a - b).abs().max().item()
    assert len(rows) == 53 and next(iter(rows)) == "bn1"


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2"])
def test_the_2020_effect_and_rounding_on_any_resnet(name, image):
    network = models.get_model(name)
    then = compare(network, freeze(network, eps=0.0), image, dtype=torch.float64)
    today = compare(network, freeze(network), image)
    assert then["layer4"].relative > 1e-5 and then["layer4"].max_abs > 0
    assert all(row.relative <= ROUNDING for row in today.values())


def test_a_resnet_against_a_detectors_body(image):
    detector = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    network = models.resnet50()
    network.load_state_dict(detector.backbone.body.state_dict(), strict=False)
    for other in (detector, detector.backbone, detector.backbone.body):
        rows = compare(network, other, image)
        assert list(rows) == list(STAGES)
        assert all(row.max_abs == 0 for row in rows.values())
    assert len(compare(network, detector, image, at="norm")) == 53


def test_named_modules_of_any_two_networks(image):
    a, b = models.vgg11_bn(), models.vgg11_bn()
    rows = compare(a, b, image, at=["features.0", "classifier.6"])
    assert rows["features.0"].shape == (1, 64, 96, 96) and rows["classifier.6"].max_abs > 0
    assert list(compare(a, b, image, at="features.0")) == ["features.0"]


def test_norms_that_became_something_else_are_still_points(model, image):
    for kind in ("identity", "folded"):
        assert len(compare(model, replace_norms(model, kind), image, at="norm")) == 53


def test_a_network_against_its_float64_twin_shows_rounding(model, image):
    rows = compare(copy.deepcopy(model).double(), model, image)
    assert all(0 < row.relative <= ROUNDING for row in rows.values())


def test_dtype_runs_copies_and_takes_the_rounding_out(model, image):
    rows = compare(model, freeze(model), image, dtype=torch.float64)
    assert all(row.relative <= 1e-13 for row in rows.values())
    assert all(row.rounding < 1e-13 for row in rows.values())
    assert model.conv1.weight.dtype == torch.float32


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "vit_b_32", "swin_t"])
def test_dtype_computes_what_a_network_cast_as_a_whole_does(name):
    x = photos.load("rocket", 224)
    a, b = models.get_model(name), models.get_model(name)
    end = {"resnet18": "fc", "densenet121": "classifier", "vit_b_32": "heads", "swin_t": "head"}[
        name
    ]
    state = {n: t.clone() for n, t in a.state_dict().items()}
    rows = compare(a, b, x, at=end, dtype=torch.float64)
    whole = compare(copy.deepcopy(a).double(), copy.deepcopy(b).double(), x, at=end)
    assert rows[end].max_abs == pytest.approx(whole[end].max_abs, rel=1e-9)
    assert all(
        torch.equal(t, state[n]) and t.dtype == state[n].dtype for n, t in a.state_dict().items()
    )


def test_nan_is_reported_not_hidden(image):
    lite0 = backbones.load("lite0")
    rows = compare(lite0, freeze(lite0, eps=0.0), lite0.normalize(image))
    assert all(row.max_abs != row.max_abs and row.cells()[-1] == "nan" for row in rows.values())


def test_rows_of_zeros():
    zeros, ones = torch.zeros(1, 2), torch.ones(1, 2)
    assert Row.of(zeros, zeros).relative == 0
    assert Row.of(zeros, ones).relative == float("inf")


def state_of(network):
    flags = [module.training for module in network.modules()]
    hooks = [len(module._forward_hooks) for module in network.modules()]
    return flags, hooks, [tensor.clone() for tensor in network.state_dict().values()]


def assert_unchanged(network, before):
    flags, hooks, tensors = state_of(network)
    assert (flags, hooks) == before[:2]
    assert all(torch.equal(a, b) for a, b in zip(tensors, before[2], strict=True))


def test_flags_statistics_and_hooks_are_as_before(image):
    network, other = models.resnet18().train(), models.resnet18().eval()
    network.layer1.eval()
    network.bn1.register_forward_hook(lambda *args: None)
    before = state_of(network), state_of(other)
    compare(network, other, image)
    assert_unchanged(network, before[0])
    assert_unchanged(other, before[1])


def test_flags_and_hooks_are_as_before_after_an_exception(image):
    network, broken = models.resnet18().train(), models.resnet18().train()
    broken.layer3.register_forward_pre_hook(lambda *args: 1 / 0)
    before = state_of(network), state_of(broken)
    with pytest.raises(ZeroDivisionError):
        compare(network, broken, image)
    assert_unchanged(network, before[0])
    assert_unchanged(broken, before[1])


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.unused = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(self.norm(x))


IMAGE = torch.zeros(1, 3, 64, 64)
RESNET18, LITE0 = models.resnet18(), backbones.load("lite0")


@pytest.mark.parametrize(
    ("a", "b", "image", "options", "error", "message"),
    [
        (RESNET18, "resnet", IMAGE, {}, TypeError, "two networks.*not str"),
        (RESNET18, RESNET18, [0.0], {}, TypeError, "must be a tensor, not list"),
        (RESNET18, RESNET18, IMAGE.byte(), {}, TypeError, r"uint8: give floating.*image / 255"),
        (RESNET18, RESNET18, IMAGE[0], {}, ValueError, r"\(N,3,H,W\), not \(3, 64, 64\)"),
        (RESNET18, RESNET18, IMAGE[:, :1], {}, ValueError, r"not \(1, 1, 64, 64\)"),
        (RESNET18, RESNET18, IMAGE[:0], {}, ValueError, r"not \(0, 3, 64, 64\)"),
        (RESNET18, RESNET18, IMAGE / 0, {}, ValueError, "NaN or infinity"),
        (RESNET18, RESNET18, IMAGE, {"dtype": torch.int8}, TypeError, "cannot run in torch.int8"),
        (RESNET18, models.vgg11(), IMAGE, {}, ValueError, "VGG has no stages"),
        (
            RESNET18,
            models.resnet50(),
            IMAGE,
            {},
            ValueError,
            "At layer1 A gives .*64.* and B .*256",
        ),
        (RESNET18, LITE0, IMAGE, {"at": "norm"}, ValueError, "A has no .* and .* more"),
        (RESNET18, RESNET18, IMAGE, {"at": []}, ValueError, "No points asked for"),
        (RESNET18, RESNET18, IMAGE, {"at": "bn9"}, ValueError, "A has no bn9"),
        (RESNET18, RESNET18, IMAGE, {"at": "layer1.0.relu"}, ValueError, "runs more than once"),
        (Twice(), Twice(), IMAGE, {"at": "unused"}, ValueError, "A never reaches unused"),
        (nn.ReLU(), nn.ReLU(), IMAGE, {"at": "norm"}, ValueError, "Neither network has a norm"),
    ],
)
def test_bad_input_is_one_sentence(a, b, image, options, error, message):
    with pytest.raises(error, match=message) as caught:
        compare(a, b, image, **options)
    assert "\n" not in str(caught.value)


def test_a_module_that_gives_no_tensor_is_one_sentence(image):
    detector = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    with pytest.raises(TypeError, match="backbone.fpn gives a OrderedDict, not one feature map"):
        compare(detector, detector, image, at="backbone.fpn")


def test_the_table_gives_digits_to_effects_and_a_bound_to_rounding(model, old, image):
    rounding = repr(compare(model, freeze(model), image))
    assert rounding.count("≤ 1e-5") == 5 and rounding.count("rounding") == 10
    rows = compare(model, old, image, dtype=torch.float64)
    table, html = repr(rows), rows._repr_html_()
    for row in rows.values():
        assert short(row.relative) in table and f"<td>{short(row.relative)}</td>" in html
    assert html.count("<tr>") == 6 and "≤" not in table


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.01734, "0.0173"), (1.2345e-5, "1.23e-5"), (-1e-3, "-1e-3"), (0.0, "0"), (25, "25")],
)
def test_short(number, text):
    assert short(number) == text


def test_the_frozen_layers_here_are_torchvisions(old):
    assert sum(type(m) is FrozenBatchNorm2d for m in old.modules()) == 53
