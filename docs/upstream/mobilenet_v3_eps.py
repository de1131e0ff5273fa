from unittest.mock import patch

import torch
from torchvision.models import MobileNet_V3_Large_Weights as Weights
from torchvision.models import mobilenet_v3_large
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_fpn

trained = mobilenet_v3_large()  # stands for ImageNet's weights, to spare the download
with patch.object(Weights, "get_state_dict", lambda *_, **__: trained.state_dict()):
    detector = fasterrcnn_mobilenet_v3_large_fpn()  # weights_backbone: IMAGENET1K_V1
for network in trained.features, detector.backbone.body:
    norm, *others = [layer for layer in network.modules() if hasattr(layer, "eps")]
    torch.nn.init.constant_(norm.running_var, 1e-4)  # a narrow channel
    y = norm.eval()(torch.ones(1, 16, 1, 1)).mean().item()
    print(f"{1 + len(others)} {type(norm).__name__}, eps {norm.eps:g}: 1 becomes {y:.1f}")
