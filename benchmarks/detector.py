"""torchvision's Faster R-CNN at its full size, without a download."""

import torch
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from helpers.networks.backbones import load


def resnet50_detector(**options) -> FasterRCNN:
    """Build torchvision's fasterrcnn_resnet50_fpn in eval mode on the body of `load("resnet50")`.

    Its modules are those of the builder with a pretrained backbone. FPN and heads are random, from
    a fixed seed: its boxes mean nothing. `options` are FasterRCNN's. Raises what `load` raises.
    """
    network = load("resnet50")
    with torch.random.fork_rng(devices=[]):
        with torch.device("meta"):  # without values, which are drawn or assigned below
            backbone = resnet_fpn_backbone(backbone_name="resnet50", weights=None)
        model = FasterRCNN(backbone, num_classes=91, **options)
    backbone.fpn.to_empty(device="cpu")
    backbone.body.load_state_dict(network.state_dict(), strict=False, assign=True)  # all but its fc
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for part in (backbone.fpn, model.rpn, model.roi_heads):
            for p in part.parameters():
                reach = (3 / p[0].numel()) ** 0.5 if p.dim() > 1 else 0.0
                p.copy_(reach * (2 * torch.rand(p.shape, generator=generator) - 1))
    model.provenance = f"{network.provenance} FPN and heads: random, not trained."
    return model.eval()
