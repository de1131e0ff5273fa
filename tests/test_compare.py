"""compare against the same differences taken by hand, and what it must leave as it was."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torchvision import models

from helpers.compare import ROUNDING, Row, compare
from helpers.inputs import photos
from helpers.networks import backbones
from helpers.networks.detector import body, detector
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


def test_rows_are_the_differences_taken_by_hand(model, old, image):
    rows = compare(model, old, image)
    assert list(rows) == list(STAGES)
    a = b = image
    with torch.no_grad():
        for stage, row in rows.items():
            a, b = stages(model)[stage](a), stages(old)[stage](b)
            difference = (a - b).abs()
            assert row.shape == tuple(a.shape)
            assert row.max_abs == difference.max().item()
            assert row.mean_abs == pytest.approx(difference.mean().item(), rel=1e-6)
            assert row.relative == pytest.approx((difference.max() / a.abs().max()).item())


def test_norm_points_see_the_output_before_the_in_place_relu(model, old, image):
    with torch.no_grad():
        a, b = (network.bn1(network.conv1(image)) for network in (model, old))
    rows = compare(model, old, image, at="norm")
    assert rows["bn1"].max_abs == (a - b).abs().max().item()
    assert len(rows) == 53 and next(iter(rows)) == "bn1"


SWEPT = ["resnet50", "resnext50_32x4d", "wide_resnet50_2"]


@pytest.mark.parametrize(
    "name", ["resnet18", *(pytest.param(name, marks=pytest.mark.sweep) for name in SWEPT)]
)
def test_the_2020_effect_and_rounding_on_any_resnet(name, image):
    network = models.get_model(name)
    then = compare(network, freeze(network, eps=0.0), image, dtype=torch.float64)
    today = compare(network, freeze(network), image)
    assert then["layer4"].relative > 1e-5 and then["layer4"].max_abs > 0
    assert all(row.relative <= ROUNDING for row in today.values())


def test_a_backbone_against_that_of_a_detector(image):
    model, network = detector(), body()
    network.load_state_dict(model.backbone.body.state_dict())
    for other in (model, model.backbone, model.backbone.body):
        rows = compare(network, other, image)
        assert list(rows) == list(STAGES)
        assert all(row.max_abs == 0 for row in rows.values())
    assert len(compare(network, model, image, at="norm")) == 12


def test_named_modules_of_any_two_networks(image):
    a, b = models.mobilenet_v3_small(), models.mobilenet_v3_small()
    rows = compare(a, b, image, at=["features.0.0", "classifier.3"])
    assert rows["features.0.0"].shape == (1, 16, 48, 48) and rows["classifier.3"].max_abs > 0
    assert list(compare(a, b, image, at="features.0")) == ["features.0"]
    assert rows.points == "module" and repr(rows).startswith("module ")


def test_without_stages_the_common_norm_layers_are_compared(image):
    network = models.mobilenet_v3_small().eval()
    refrozen = freeze(network, eps=1e-5)
    rows = compare(network, refrozen, image)
    assert list(rows) == [n for n, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert rows.points == "normalization layer"
    with torch.no_grad():
        a, b = (n.features[0][1](n.features[0][0](image)) for n in (network, refrozen))
    assert rows["features.0.1"].max_abs == (a - b).abs().max().item() > 0


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.unused, self.once = (nn.BatchNorm2d(3) for _ in range(3))

    def forward(self, x):
        return self.once(self.norm(self.norm(x)))


def test_of_norm_layers_not_asked_for_those_that_run_once_are_compared(image):
    assert list(compare(Twice(), Twice(), image)) == ["once"]


def test_wrappers_are_looked_through(image):
    network, other = models.resnet18(), models.resnet18()
    wanted = compare(network, other, image)
    for wrap in (nn.DataParallel, partial(torch.compile, backend="eager"), AveragedModel):
        for at in (None, "stage"):
            assert compare(wrap(network), wrap(nn.DataParallel(other)), image, at=at) == wanted


def test_hooks_on_a_stage_itself_count(model, image):
    for network, stage in ((model, "layer2"), (backbones.load("lite0"), "stem")):
        hooked = copy.deepcopy(network)
        hooked.get_submodule(stage).register_forward_hook(lambda module, args, output: 2 * output)
        for dtype in (None, torch.float64):
            rows = compare(network, hooked, image, dtype=dtype)
            apart = [row.relative for row in rows.values()]
            assert apart[: STAGES.index(stage) + 1] == [0] * STAGES.index(stage) + [1]


def test_norms_that_became_something_else_are_still_points(image):
    network = models.resnet18()
    for kind in ("identity", "folded"):
        assert len(compare(network, replace_norms(network, kind), image, at="norm")) == 20


def test_dtype_takes_the_rounding_out(model, image):
    assert compare(model, model, image, dtype="float64")["stem"].rounding < 1e-13
    rows = compare(copy.deepcopy(model).double(), model, image)
    assert all(0 < row.relative <= ROUNDING for row in rows.values())
    rows = compare(model, freeze(model), image, dtype=torch.float64)
    assert all(row.relative <= 1e-13 for row in rows.values())
    assert all(row.rounding < 1e-13 for row in rows.values())


def small_vit():
    return models.VisionTransformer(224, 32, num_layers=1, num_heads=2, hidden_dim=64, mlp_dim=64)


@pytest.mark.parametrize(
    ("build", "end"),
    [
        (body, "layer4"),
        (small_vit, "encoder"),
        pytest.param(models.densenet121, "classifier", marks=pytest.mark.sweep),
        pytest.param(models.vit_b_32, "encoder", marks=pytest.mark.sweep),
        pytest.param(models.swin_t, "head", marks=pytest.mark.sweep),
    ],
)
def test_dtype_computes_what_a_network_cast_as_a_whole_does(build, end):
    x = photos.load("rocket", 224)
    a, b = build(), build()
    before = state_of(a)
    rows = compare(a, b, x, at=end, dtype=torch.float64)
    assert_unchanged(a, before)
    whole = compare(copy.deepcopy(a).double(), copy.deepcopy(b).double(), x, at=end)
    assert rows[end].max_abs == pytest.approx(whole[end].max_abs, rel=1e-9) != 0


def test_nan_is_reported_not_hidden(image):
    lite0 = backbones.load("lite0")
    rows = compare(lite0, freeze(lite0, eps=0.0), lite0.normalize(image))
    assert all(row.max_abs != row.max_abs and row.cells()[-1] == "nan" for row in rows.values())


def test_rows_of_zeros():
    zeros, ones = torch.zeros(1, 2), torch.ones(1, 2)
    assert Row.of(zeros, zeros).relative == 0
    assert Row.of(zeros, ones).relative == float("inf")
    assert str(Row.of(ones, ones).max_abs) == "0.0"
    with pytest.raises(ValueError, match=r"A gives \(1, 2\) and B \(1, 1\): only feature maps"):
        Row.of(ones, ones[:, :1])


def state_of(network):
    flags = [module.training for module in network.modules()]
    hooks = [len(module._forward_hooks) for module in network.modules()]
    return flags, hooks, [tensor.clone() for tensor in network.state_dict().values()]


def assert_unchanged(network, before):
    flags, hooks, tensors = state_of(network)
    assert (flags, hooks) == before[:2]
    for a, b in zip(tensors, before[2], strict=True):
        assert a.dtype == b.dtype and torch.equal(a, b)


def test_flags_statistics_and_hooks_are_as_before_even_after_an_exception(image):
    network, other = models.resnet18().train(), models.resnet18().eval()
    network.layer1.eval()
    network.bn1.register_forward_hook(lambda *args: None)
    before = state_of(network), state_of(other)
    compare(network, other, image)
    other.layer3.register_forward_pre_hook(lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        compare(network, other, image)
    assert_unchanged(network, before[0])
    assert_unchanged(other, before[1])


def test_bad_input_is_one_sentence():
    image, a, other = torch.zeros(1, 3, 64, 64), models.resnet18(), models.resnet50()
    lite0, twice, relu, detects = backbones.load("lite0"), Twice(), nn.ReLU(), detector()
    first = {twice: twice, relu: relu, detects: detects}  # A, where it is not the ResNet-18
    lazy, empty = nn.LazyConv2d(4, 3), nn.BatchNorm2d(3, device="meta")
    for b, x, options, error, message in (
        ("resnet", image, {}, TypeError, "must be a torch.nn.Module, not str"),
        (a, [0.0], {}, TypeError, "must be a tensor, not list"),
        (a, image.byte(), {}, TypeError, "uint8: make it floating point, divided by 255"),
        (a, image[0], {}, ValueError, r"\(N,3,H,W\), not \(3, 64, 64\)"),
        (a, image[:, :1], {}, ValueError, r"not \(1, 1, 64, 64\)"),
        (a, image[:0], {}, ValueError, r"not \(0, 3, 64, 64\)"),
        (a, image / 0, {}, ValueError, "NaN or infinity"),
        (a, image, {"dtype": torch.int8}, ValueError, "No network runs in torch.int8"),
        (a, image, {"dtype": "int8"}, ValueError, "No network runs in torch.int8"),
        (a, image, {"dtype": "float46"}, ValueError, "No network runs in 'float46': give one"),
        (a, image, {"dtype": float}, ValueError, "No network runs in <class 'float'>"),
        (relu, image, {}, ValueError, "no stages, nor normalization layers .* give `at` names"),
        (relu, image, {"at": "stage"}, ValueError, "ReLU has no stages"),
        (other, image, {}, ValueError, "At layer1 A gives .*64.* and B .*256"),
        (lite0, image, {"at": "norm"}, ValueError, "A has no .*, …: both networks"),
        (a, image, {"at": []}, ValueError, "Nothing to compare at: .* give `at` names"),
        (a, image, {"at": "bn9"}, ValueError, "A has no bn9"),
        (a, image, {"at": 9}, TypeError, "'int' object is not iterable"),
        (lazy, image, {}, ValueError, "holds no values .*: load weights first"),
        (empty, image, {}, ValueError, "holds no values .*: load weights first"),
        (a, image, {"at": "layer1.0.relu"}, ValueError, "A runs layer1.0.relu 2 times"),
        (twice, image, {"at": "unused"}, ValueError, "A runs unused 0 times: ask"),
        (relu, image, {"at": "norm"}, ValueError, "no stages, nor normalization layers"),
        (detects, image, {"at": "backbone.fpn"}, TypeError, "fpn gives a OrderedDict, not one"),
    ):
        with pytest.raises(error, match=message) as caught:
            compare(first.get(b, a), b, x, **options)
        assert "\n" not in str(caught.value)
    assert lazy.has_uninitialized_params()


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_a_weight_that_a_hook_computes_is_compared_in_float64(image):
    network = nn.Sequential(nn.utils.weight_norm(nn.Conv2d(3, 4, 1)), nn.BatchNorm2d(4)).eval()
    for dtype in (None, "float64"):
        rows = compare(network, freeze(network), image, at="1", dtype=dtype)
        assert rows["1"].relative <= rows["1"].rounding


def test_the_table_gives_digits_to_effects_and_a_bound_to_rounding(model, old, image):
    rounding = repr(compare(model, freeze(model), image))
    assert rounding.count("≤ 1e-5") == 5 and rounding.count("rounding") == 10
    rows = compare(model, old, image, dtype=torch.float64)
    table, html = repr(rows), rows._repr_html_()
    for row in rows.values():
        assert short(row.relative) in table and f"<td>{short(row.relative)}</td>" in html
    assert html.count("<tr>") == 6 and "≤" not in table
