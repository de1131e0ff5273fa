"""A network cut into its named stages."""

from torch import nn

STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")
RESNET_STEM = ("conv1", "bn1", "relu", "maxpool")


def stages(model: nn.Module) -> dict[str, nn.Module]:
    """Ordered name → module: stem, layer1 … layer4. One after the other they are the whole body.

    Takes torchvision's ResNets, detectors and segmentation networks built on them, their backbones
    and bodies, and Lite0. The modules are the model's own, not copies. A body that was cut short
    has the stages that are left. ValueError for a network without these stages.
    """
    children = dict(body(model).named_children())
    found = {}
    for stage in STAGES:
        parts = (stage,) if stage in children or stage != "stem" else RESNET_STEM
        if all(part in children for part in parts):
            modules = [children[part] for part in parts]
            found[stage] = modules[0] if len(modules) == 1 else nn.Sequential(*modules)
    if not {"stem", "layer1"} <= found.keys():
        raise ValueError(
            f"{type(model).__name__} has no stages {', '.join(STAGES)}: "
            "give a torchvision ResNet, a detector built on one, its body, or lite0."
        )
    return found


def body(model: nn.Module) -> nn.Module:
    """The network in front of a detector's FPN and heads; any other model is its own body."""
    while (inner := getattr(model, "backbone", getattr(model, "body", None))) is not None:
        model = inner
    return model
