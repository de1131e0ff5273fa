"""Proofs of the answers about freezing."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torchvision.models import resnet50
from torchvision.models.detection import fasterrcnn_resnet50_fpn
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

from helpers.inputs.photos import load_all
from helpers.networks.lite0 import load_lite0
from helpers.norms import freeze
from helpers.stages import stages


def uniform(*shape, seed=0, dtype=torch.float32):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def filled(layer):
    for seed, name in enumerate(("weight", "bias", "running_mean", "running_var")):
        tensor = getattr(layer, name).data
        tensor.copy_(uniform(len(tensor), seed=seed) + 0.1)
    return layer


def moved(network, optimizer=torch.optim.SGD):
    """What a step of training changes."""
    before = copy.deepcopy(network.state_dict())
    steps = optimizer(network.parameters(), lr=0.1, weight_decay=0.1)
    network.train()(uniform(2, 3, 5, 5)).square().sum().backward()
    steps.step()
    return [name for name, tensor in network.state_dict().items() if not tensor.equal(before[name])]


def kept(network, x):
    """Bytes that autograd keeps of a forward pass, parameters and buffers left out."""
    stays = {tensor.untyped_storage().data_ptr() for tensor in network.state_dict().values()}
    storages = {}

    def note(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()

    with saved_tensors_hooks(note, lambda _: None):
        network(x)
    return sum(storage.nbytes() for at, storage in storages.items() if at not in stays)


def test_a_training_step_moves_no_frozen_layer():
    for optimizer in (
        partial(torch.optim.SGD, momentum=0.0),
        partial(torch.optim.SGD, momentum=0.9),
        torch.optim.AdamW,
    ):
        network = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), filled(FrozenBatchNorm2d(4)))
        assert moved(network, optimizer) == ["0.weight"]
        ordinary = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), filled(nn.BatchNorm2d(4)))
        assert len(moved(ordinary, optimizer)) == 6


def test_a_reloaded_detector_is_another_function():
    """With the builders' own code, on the meta device: only values are missing."""
    with torch.device("meta"):
        coco = resnet_fpn_backbone(backbone_name="resnet50", weights=None).body
        overwrite_eps(coco, 0.0)  # what the builder does with COCO_V1
        without = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None).backbone.body
    assert [m.eps for m in coco.modules() if isinstance(m, FrozenBatchNorm2d)] == [0.0] * 53
    with torch.device("cpu"):
        state = {name: torch.zeros(tensor.shape) for name, tensor in coco.state_dict().items()}
    assert "All keys matched" in repr(without.load_state_dict(state, assign=True))
    layers = [m for m in without.modules() if isinstance(m, (nn.BatchNorm2d, FrozenBatchNorm2d))]
    assert [(type(m), m.eps) for m in layers] == [(nn.BatchNorm2d, 1e-5)] * 53
    assert all(m.training and m.track_running_stats for m in layers)


def test_few_channels_are_nearly_as_wrong_as_all():
    """Each layer gets the right eps channel by channel, here without the mend."""
    lite0 = load_lite0().double()
    images = lite0.normalize(load_all().double())

    def layer4(wrong):
        network, count = copy.deepcopy(lite0), 0
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                v, own = layer.running_var, wrong(layer.running_var)
                scale = (v + 1e-3).rsqrt() * layer.weight
                scale = torch.where(own, (v + 1e-5).rsqrt() * layer.weight, scale)
                layer.bias.data -= layer.running_mean * scale
                layer.running_mean.zero_()
                layer.weight.data, layer.eps = scale, 0.0
                layer.running_var = torch.ones_like(v)
                count += int(own.sum())
        with torch.no_grad():
            x = images
            for stage in stages(network).values():
                x = stage(x)
        return count, x

    _, right = layer4(lambda v: v < 0)

    def off(wrong):
        count, features = layer4(wrong)
        return count, ((features - right).abs().max() / right.abs().max()).item()

    assert off(lambda v: v >= 0) == (21_008, pytest.approx(0.224, abs=5e-4))
    assert off(lambda v: (v > 0) & (v < 1e-3)) == (509, pytest.approx(0.212, abs=1e-3))
    assert off(lambda v: (v >= 1e-3) & (v < 1e-2)) == (1_393, pytest.approx(0.157, abs=1e-3))
    assert off(lambda v: v >= 1e-2) == (18_976, pytest.approx(0.024, abs=5e-4))
    assert off(lambda v: v == 0) == (130, pytest.approx(0, abs=1e-12))
    assert ((1e-2 + 1e-3) / (1e-2 + 1e-5)) ** 0.5 < 1.05


def bodies():
    """ResNet-50's body with BatchNorm2d and with FrozenBatchNorm2d, all convolutions trainable."""
    for norm in (nn.BatchNorm2d, FrozenBatchNorm2d):
        yield nn.Sequential(*list(resnet50(norm_layer=norm).children())[:-2])


def test_eval_saves_no_memory_and_freezing_does():
    ordinary, frozen = bodies()
    x = uniform(1, 3, 256, 256)
    in_train, in_eval = (kept(ordinary.train(mode), x) / 2**20 for mode in (True, False))
    for module in ordinary.modules():
        module.requires_grad_(not isinstance(module, nn.BatchNorm2d))
    affine_frozen = kept(ordinary, x) / 2**20
    assert in_train == pytest.approx(107.0, abs=0.3)
    assert in_eval == affine_frozen == pytest.approx(107.0, abs=0.1)
    assert kept(frozen, x) / 2**20 == pytest.approx(51.7, abs=0.1)
    with torch.no_grad():
        assert kept(ordinary, x) == 0
    for body, mib in ((ordinary, 59.25), (frozen, 29.97)):
        body[:5].requires_grad_(False)  # conv1, bn1 and layer1, as torchvision's detectors do
        assert kept(body, x) / 2**20 == pytest.approx(mib, abs=0.1)


def test_under_autocast_the_frozen_layer_keeps_more():
    def bytes_each(norm, x):
        block = nn.Sequential(norm, nn.ReLU(inplace=True), nn.Conv2d(8, 8, 1))
        return round(kept(block, x) / x.numel())

    norms = nn.BatchNorm2d(8).eval(), FrozenBatchNorm2d(8)
    x = uniform(1, 8, 32, 32).requires_grad_()
    low = x.bfloat16()
    assert [bytes_each(norm, x) for norm in norms] == [8, 4]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert [bytes_each(norm, low) for norm in norms] == [4, 6]
        assert [norm(low).dtype for norm in norms] == [torch.bfloat16, torch.float32]


def test_requires_grad_does_not_stop_the_statistics():
    network = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), filled(nn.BatchNorm2d(4)))
    network[1].requires_grad_(False)
    statistics = ["1.running_mean", "1.running_var", "1.num_batches_tracked"]
    assert moved(network) == ["0.weight", *statistics]


def test_trainable_layers_are_ignored_without_weights():
    with torch.device("meta"), pytest.warns(UserWarning, match="has no effect"):
        detector = fasterrcnn_resnet50_fpn(
            weights=None, weights_backbone=None, trainable_backbone_layers=0
        )
    assert all(p.requires_grad for p in detector.backbone.body.parameters())
    with torch.device("meta"):
        pretrained = resnet_fpn_backbone(backbone_name="resnet50", weights=None, trainable_layers=0)
    assert not any(p.requires_grad for p in pretrained.body.parameters())


def test_sync_conversion_passes_over_frozen_layers():
    network = nn.Sequential(nn.BatchNorm2d(3), FrozenBatchNorm2d(3))
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    assert [type(layer) for layer in converted] == [nn.SyncBatchNorm, FrozenBatchNorm2d]


def test_the_mend_is_lost_in_train_mode():
    x = uniform(4, 3, 5, 5, dtype=torch.float64)
    trained = filled(nn.BatchNorm2d(3, eps=1e-3)).double().eval()
    trained.running_var *= 1e-3
    layer = nn.BatchNorm2d(3, eps=1e-5).double()
    layer.load_state_dict(trained.state_dict())
    layer.running_var += 1e-3 - 1e-5
    again = nn.BatchNorm2d(3, eps=1e-5).double()
    again.load_state_dict(copy.deepcopy(layer.state_dict()))
    for mended in (layer, again):
        torch.testing.assert_close(mended.eval()(x), trained(x), rtol=1e-12, atol=1e-12)

    small = 0.01 * x  # of a variance at which eps counts
    other = copy.deepcopy(trained)
    with torch.no_grad():
        assert not torch.allclose(layer.train()(small), other.train()(small), rtol=0.1)
        for _ in range(200):
            layer(small), other(small)
    assert not torch.allclose(layer.eval()(small), other.eval()(small), rtol=0.1)
    torch.testing.assert_close(layer.running_var, other.running_var)  # nothing is left of it


def test_what_is_kept_depends_on_the_formula():
    x = uniform(1, 64, 32, 32).requires_grad_()
    ordinary = nn.BatchNorm2d(64).eval().requires_grad_(False)
    assert kept(ordinary, x) >= x.nbytes
    assert kept(freeze(ordinary), x) == 64 * 4  # the scale, a float32 per channel

    class Product(FrozenBatchNorm2d):
        def forward(self, x):
            scale = (self.weight * (self.running_var + self.eps).rsqrt()).view(1, -1, 1, 1)
            return x * scale + (
                self.bias.view(1, -1, 1, 1) - self.running_mean[:, None, None] * scale
            )

    product = Product(64)
    assert kept(product, x) == 64 * 4
    del product.weight
    product.weight = nn.Parameter(torch.ones(64))
    assert kept(product, x) >= x.nbytes
    assert FrozenBatchNorm2d(64)(x).data_ptr() != x.data_ptr()
