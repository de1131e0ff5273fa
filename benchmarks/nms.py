"""Time non-maximum suppression, by the number of classes, and its share of a detector.

    python -m benchmarks.nms [--device cuda] [--quick] [--out FILE]

Writes section "nms" of data/results/speed/<device>.json. A fixed number of candidate boxes, whose
labels are spread over 1 to 80 classes, is suppressed without regard to the class ("agnostic"), by
torchvision's coordinate trick, and by its loop over the classes, also on either side of where
torchvision goes from one to the other. In whole forward passes it measures the share of both NMS
calls, and of each part, the latter also by a clock that does not wait for the GPU.
"""

import sys
from contextlib import ExitStack
from time import perf_counter
from unittest.mock import patch

import torch
from torch import Tensor
from torchvision.ops import boxes as box_ops
from torchvision.ops import nms
from tqdm import tqdm

from benchmarks.detector import resnet50_detector
from benchmarks.speed import Store, arguments, rounded
from benchmarks.timing import interleaved
from helpers.implementations import CLASSES, candidates
from helpers.inputs.scenes import scenes
from helpers.networks.detector import load_detector

SWITCH = {"cpu": 1000, "cuda": 25_000}  # boxes up to which torchvision takes the trick
CANDIDATES = (100, 300, 1000)
IOU = 0.5
QUARTILES = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
WAYS = {
    "agnostic": lambda boxes, scores, labels: nms(boxes, scores, IOU),
    "trick": lambda *given: box_ops._batched_nms_coordinate_trick(*given, IOU),
    "loop": lambda *given: box_ops._batched_nms_vanilla(*given, IOU),
}


def by_classes(count: int, classes: int, device: str, rounds: int) -> list[dict]:
    """Time each way for `count` candidates of so many classes; a row for each way."""
    given = [tensor.to(device) for tensor in candidates(count, classes)]
    kept = {way: call(*given) for way, call in WAYS.items()}
    times = interleaved(
        {way: lambda call=call: call(*given) for way, call in WAYS.items()},
        rounds,
        0.005 if device == "cuda" else 0.01,
    )
    same = set(kept["trick"].tolist()) == set(kept["loop"].tolist())
    rows = []
    for way, taken in times.items():
        ratio = taken.over(times["agnostic"])
        rows.append(
            {
                "what": "classes",
                "candidates": count,
                "classes": classes,
                "way": way,
                "ms": rounded(1000 * taken.median),
                "ratio": rounded(ratio.median),
                "spread": rounded(ratio.spread),
                "kept": len(kept[way]),
                "same": same,
            }
        )
    return rows


def chosen(count: int, device: str) -> str:
    """Find out which of the two torchvision takes for so many boxes."""
    called = []
    with ExitStack() as stack:
        for way, name in (("trick", "_coordinate_trick"), ("loop", "_vanilla")):
            replaced = patch.object(
                box_ops, f"_batched_nms{name}", lambda *given, way=way: called.append(way)
            )
            stack.enter_context(replaced)
        box_ops.batched_nms(*(tensor.to(device) for tensor in candidates(count, 2)), IOU)
    return called[0]


def negative_coordinates() -> dict:
    """Run the case in which the trick errs: it moves each class by the largest coordinate alone."""
    boxes = torch.tensor([[-300.0, 0, -200, 100], [-199.0, 0, -99, 100], [0.0, 0, 1, 1]])
    labels, scores = torch.tensor([1, 0, 0]), torch.tensor([0.9, 0.8, 0.7])
    boxes[0] = boxes[1] - (boxes.max() + 1)  # where class 1 is moved onto class 0
    kept = {way: sorted(WAYS[way](boxes, scores, labels).tolist()) for way in ("trick", "loop")}
    return {"what": "negative coordinates", **kept}


class Stopwatch:
    """Stand in for batched_nms and time it; a GPU is waited for before and after."""

    def __init__(self, device: str):
        self._wait = torch.cuda.synchronize if device == "cuda" else lambda: None
        self._call = box_ops.batched_nms
        self.seconds: list[float] = []
        self.boxes: list[int] = []

    def __call__(self, boxes, scores, labels, iou):
        self._wait()
        start = perf_counter()
        kept = self._call(boxes, scores, labels, iou)
        self._wait()
        self.seconds.append(perf_counter() - start)
        self.boxes.append(len(boxes))
        return kept


def shares(name: str, model, images: list[Tensor], device: str, rounds: int) -> dict:
    """Measure which share of one image's forward pass both NMS calls take, RPN's and box head's."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    passes = []
    with torch.inference_mode():
        model(images)
        for _ in range(rounds):
            watch = Stopwatch(device)
            with patch.object(box_ops, "batched_nms", watch):
                wait()
                start = perf_counter()
                model(images)
                wait()
                passes.append((perf_counter() - start, *watch.seconds))
    whole, rpn, heads = torch.tensor(passes, dtype=torch.float64).T
    low, median, high = ((rpn + heads) / whole).quantile(QUARTILES)
    return {
        "what": "share",
        "model": name,
        "size": list(images[0].shape[1:]),
        "classes": model.roi_heads.box_predictor.cls_score.out_features - 1,
        "candidates": watch.boxes,
        "ms": rounded(1000 * whole.median().item()),
        "rpn_ms": rounded(1000 * rpn.median().item()),
        "heads_ms": rounded(1000 * heads.median().item()),
        "share": rounded(median.item()),
        "spread": rounded((high - low).item()),
    }


PARTS = ("transform", "backbone", "rpn", "roi_heads")


def by_part(name: str, model, images: list[Tensor], device: str, rounds: int) -> list[dict]:
    """Measure each part's share of a forward pass; a row for each part.

    `unwaited` is the share by a clock that does not wait for the GPU. Such a clock charges the
    GPU's work to whichever part first needs a result of it.
    """
    shares = {waits: _part_seconds(model, images, waits, device, rounds) for waits in (True, False)}
    rows = []
    for number, part in enumerate(PARTS):
        waited, unwaited = (
            (shares[w][:, number] / shares[w][:, -1]).quantile(QUARTILES) for w in (True, False)
        )
        rows.append(
            {
                "what": "parts",
                "model": name,
                "part": part,
                "batch": len(images),
                "ms": rounded(1000 * shares[True][:, number].median().item()),
                "share": rounded(waited[1].item()),
                "spread": rounded((waited[2] - waited[0]).item()),
                "unwaited": rounded(unwaited[1].item()),
            }
        )
    return rows


@torch.inference_mode()
def _part_seconds(model, images, waits: bool, device: str, rounds: int) -> Tensor:
    """Time each of PARTS, and the whole pass, which is waited for: seconds (rounds,5), float64."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    marks: list[float] = []

    def mark(*_):
        if waits:
            wait()
        marks.append(perf_counter())

    with ExitStack() as stack:
        for part in PARTS:
            module = getattr(model, part)
            stack.callback(module.register_forward_pre_hook(mark).remove)
            stack.callback(module.register_forward_hook(mark).remove)
        model(images)
        rows = []
        for _ in range(rounds):
            marks.clear()
            wait()
            start = perf_counter()
            model(images)
            wait()
            whole = perf_counter() - start
            rows.append([b - a for a, b in zip(marks[::2], marks[1::2], strict=True)] + [whole])
    return torch.tensor(rows, dtype=torch.float64)


def detectors(device: str, quick: bool):
    """Yield name, model and images: the scene detector, then ResNet-50's with more candidates."""
    yield "scene detector", load_detector().to(device), [scenes(1, 2018)[0][0].to(device)]
    side = 64 if quick else 800 if device == "cuda" else 320
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(3, side, side * 4 // 3, generator=generator).to(device)]
    model = resnet50_detector(min_size=side, max_size=side * 4 // 3).to(device)
    scores = _scores(model, images)
    for wanted in (100, 1000, 10_000):
        if wanted < len(scores):
            model.roi_heads.score_thresh = scores[wanted].item()
            yield "fasterrcnn_resnet50_fpn, random heads", model, images


@torch.inference_mode()
def _scores(model, images: list[Tensor]) -> Tensor:
    """Score every proposal and class, the best first."""
    heads = model.roi_heads
    inputs, _ = model.transform(images)
    features = model.backbone(inputs.tensors)
    proposals, _ = model.rpn(inputs, features)
    pooled = heads.box_roi_pool(features, proposals, inputs.image_sizes)
    scores = heads.box_predictor(heads.box_head(pooled))[0].softmax(1)
    return scores[:, 1:].flatten().sort(descending=True).values


def main(given: list[str] | None = None) -> int:
    """Measure and store all cases."""
    options = arguments(__doc__.splitlines()[0], given)
    device = options.device
    if device == "cpu":
        torch.set_num_threads(1)
    store = Store(options, "nms", ("what", "candidates", "classes"))
    counts = CANDIDATES[:1] if options.quick else CANDIDATES
    classes = CLASSES[:2] if options.quick else CLASSES
    switch = SWITCH[device]
    sizes = [(n, c) for n in counts for c in classes]
    if not options.quick:
        sizes += [(n, c) for n in (switch, switch + 1) for c in (1, 20, 80) if n not in counts]
    for count, number in tqdm(sizes, file=sys.stderr, unit="case"):
        if not store.has(what="classes", candidates=count, classes=number):
            store.add(by_classes(count, number, device, 3 if options.quick else 9))
    store.add(
        [
            {"what": "switch", "candidates": count, "way": chosen(count, device)}
            for count in (switch, switch + 1)
        ]
    )
    store.add([negative_coordinates()])
    for name, model, images in detectors(device, options.quick):
        store.add([shares(name, model, images, device, 3 if options.quick else 15)])
    batch = images * (8 if device == "cuda" else 1)
    store.add(by_part(name, model, batch, device, 3 if options.quick else 15))
    print(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
