"""helpers/audit on the models people have, with random values: counts right, no false alarm."""

import warnings

import pytest
import timm
import torch
from torch import nn
from torchvision import models

from helpers.audit import audit
from helpers.probe import has_statistics

pytestmark = pytest.mark.sweep

ALSO_RUN = """convnext_tiny densenet121 efficientnet_b0 googlenet mnasnet0_5 mobilenet_v3_small
regnet_y_400mf resnet18 shufflenet_v2_x0_5 swin_t vgg11_bn vit_b_32""".split()

TIMM = """bat_resnext26ts beit_base_patch16_224 botnet26t_256 cait_xxs24_224 coat_tiny
coatnet_nano_rw_224 convformer_s18 convit_tiny convmixer_768_32 convnext_atto convnextv2_atto
crossvit_tiny_240 cspresnet50 darknet17 deit_tiny_patch16_224 densenet121 dla34 dpn48b
eca_resnet33ts edgenext_xx_small efficientformer_l1 efficientnet_lite0 efficientvit_b0 fastvit_t8
fbnetc_100 focalnet_tiny_srf gcresnext26ts gernet_s ghostnet_050 gmixer_12_224 halonet26t
hardcorenas_a hgnetv2_b0 hrnet_w18_small inception_v4 lambda_resnet26t lcnet_050 levit_128s
maxvit_rmlp_pico_rw_256 mixnet_s mobilenetv2_035 mobilenetv3_small_050 mobilenetv4_conv_small
mobileone_s0 mobilevit_xxs mvitv2_tiny nf_resnet26 pit_ti_224 poolformer_s12 pvt_v2_b0 regnetx_002
repvgg_a0 res2net50_26w_4s resnest14d resnet18 rexnet_100 selecsls42 skresnet18
tf_mobilenetv3_small_minimal_100 vit_tiny_patch16_224 xception41p""".split()

TRANSFORMERS = """Beit Bert Bit ConvNext ConvNextV2 Detr EfficientNet GPT2 Levit Llama MobileNetV2
MobileViT RTDetr RegNet ResNet Segformer Swin T5 ViT""".split()
SMALL = {"num_hidden_layers": 2, "num_layers": 2, "n_layer": 2, "vocab_size": 100}
SMALL |= {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}

SEGMENTATION = "DeepLabV3Plus FPN Linknet MAnet PAN PSPNet Segformer UPerNet Unet".split()


@torch.no_grad()
def as_if_trained(model):
    """In eval mode, everything trainable, with statistics and affine parameters that differ."""
    for module in model.eval().modules():
        if has_statistics(module):
            module.running_var.uniform_(0.5, 2)
            module.running_mean.uniform_(-0.2, 0.2)
            for parameter in module.parameters(recurse=False):
                parameter.uniform_(0.5, 1.5)
    return model


def assert_audited(model, **options):
    """Every layer with a normalization's name is there and was tried; nothing is found."""
    found = audit(as_if_trained(model), **options)
    named = [
        n for n, m in model.named_modules() if is_norm(m) and not any(map(is_norm, m.children()))
    ]
    assert [layer.name for layer in found.layers] == named
    assert not any(layer.untried for layer in found.layers) and not found.findings, found
    return found


def is_norm(module: nn.Module) -> bool:
    return any(
        word in type(module).__name__ for word in ("BatchNorm", "GroupNorm", "LayerNorm", "RMSNorm")
    )


@pytest.mark.parametrize("name", models.list_models(module=models))
def test_no_false_alarm_on_a_torchvision_classifier(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # Inception, GoogLeNet
        model = models.get_model(name)
    found = assert_audited(model)
    assert found.recipe == (name if any(map(has_statistics, model.modules())) else None)
    if name in ALSO_RUN:
        assert assert_audited(model, example=torch.rand(1, 3, 224, 224)).notes == found.notes


@pytest.mark.parametrize("name", TIMM)
def test_no_false_alarm_on_a_timm_model(name):
    assert_audited(timm.create_model(name))


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_no_false_alarm_on_a_model_of_transformers(name):
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{name}Config")()
    if "Detr" in name:
        backbone = transformers.ResNetConfig(out_features=["stage2", "stage3", "stage4"])
        config = type(config)(backbone_config=backbone, use_timm_backbone=False, backbone=None)
    elif name in ("Beit", "Bert", "GPT2", "Llama", "T5", "ViT"):
        for key in SMALL.keys() & config.to_dict().keys():
            setattr(config, key, SMALL[key])
    assert_audited(getattr(transformers, f"{name}Model")(config))


@pytest.mark.parametrize("name", SEGMENTATION)
def test_no_false_alarm_on_a_segmentation_network(name):
    smp = pytest.importorskip("segmentation_models_pytorch")
    assert_audited(getattr(smp, name)("resnet18", encoder_weights=None))
