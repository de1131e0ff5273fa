"""A network cut into its named stages."""

from torch import nn

STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")
RESNET_STEM = ("conv1", "bn1", "relu", "maxpool")


def stages(model: nn.Module) -> dict[str, nn.Module]:
    """Return the stages of a network in order: stem, layer1 … layer4; together they are the body.

    `model`: a torchvision ResNet, a detector or segmentation network built on one, its backbone or
    body, or Lite0. The modules are the model's own, not copies. A body that was cut short has the
    stages that are left. Raises ValueError for a network without these stages.
    """
    children = dict(body(model).named_children())
    if "stem" not in children and children.keys() >= {*RESNET_STEM}:
        children["stem"] = nn.Sequential(*(children[name] for name in RESNET_STEM))
    parts = {stage: children[stage] for stage in STAGES if stage in children}
    if not {"stem", "layer1"} <= parts.keys():
        raise ValueError(
            f"{type(model).__name__} has no stages {', '.join(STAGES)}: "
            "give a torchvision ResNet, a detector built on one, its body, or lite0."
        )
    return parts


def body(model: nn.Module) -> nn.Module:
    """Return the network in front of a detector's FPN and heads; another model is its own body."""
    while (inner := getattr(model, "backbone", getattr(model, "body", None))) is not None:
        model = inner
    return model
