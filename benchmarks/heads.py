"""Time what runs on every proposal: ResNet-50's last stage, or two linear layers behind an FPN.

    python -m benchmarks.heads [--device cuda] [--quick] [--out FILE]

Writes section "heads" of data/results/speed/<device>.json. It compares the two designs of the
forum's thread, as far as torchvision has their parts: C4, whose stage 4 runs on each proposal's
1024 × 14 × 14, and FPN, whose box head is two linear layers on 256 × 7 × 7. The image has
600 × 800 px, the weights are the stand-in's.
"""

import sys
from collections.abc import Callable

import torch
from torch import nn
from tqdm import tqdm

from benchmarks.detector import resnet50_detector
from benchmarks.speed import Store, arguments, rounded
from benchmarks.timing import interleaved
from helpers.stages import stages

PROPOSALS = (100, 300)
STAGE_4, TWO_LINEAR = "stage 4 on every proposal", "two linear layers on every proposal"
C4, FPN = "body to C4", "body and FPN"


def parts(proposals: int, image: tuple[int, int], device: str) -> dict[str, Callable]:
    """Name → a call of that part, on an image (H,W) or on so many proposals."""
    model = resnet50_detector().to(device)
    body = stages(model)
    stage_4 = body.pop("layer4")
    to_c4, head = nn.Sequential(*body.values()), model.roi_heads.box_head
    generator = torch.Generator().manual_seed(0)
    x, wide, narrow = (
        torch.rand(*shape, generator=generator).to(device)
        for shape in ((1, 3, *image), (proposals, 1024, 14, 14), (proposals, 256, 7, 7))
    )

    def inference(module, given):
        @torch.inference_mode()
        def call():
            module(given)

        return call

    return {
        STAGE_4: inference(stage_4, wide),
        TWO_LINEAR: inference(head, narrow),
        C4: inference(to_c4, x),
        FPN: inference(model.backbone, x),
    }


def main(given: list[str] | None = None) -> int:
    """Measure and store all cases."""
    options = arguments(__doc__.splitlines()[0], given)
    if options.device == "cpu":
        torch.set_num_threads(1)
    store = Store(options, "heads", ("what", "proposals"))
    image = (64, 96) if options.quick else (600, 800)
    for proposals in tqdm((4,) if options.quick else PROPOSALS, file=sys.stderr, unit="case"):
        if store.has(what=STAGE_4, proposals=proposals):
            continue
        fast = options.device == "cuda"
        times = interleaved(
            parts(proposals, image, options.device), 9 if fast else 3, 0.02 if fast else 1e-9
        )
        rows = []
        for what, taken in times.items():
            ratio = taken.over(times[TWO_LINEAR])
            rows.append(
                {
                    "what": what,
                    "proposals": proposals,
                    "image": list(image),
                    "ms": rounded(1000 * taken.median),
                    "ratio": rounded(ratio.median),
                    "spread": rounded(ratio.spread),
                }
            )
        store.add(rows)
    print(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
