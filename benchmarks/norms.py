"""Measure each way to normalize: time, bytes moved, bytes kept for backward.

    python -m benchmarks.norms [--device cuda] [--quick] [--out FILE] [--resume]

Writes section "norms" of data/results/speed/<device>.json: a layer alone at the shapes of
ResNet-50's stages, the body, and a whole detector; in float32 and under autocast.
"""

import copy
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.detector import resnet50_detector
from benchmarks.implementations import IMPLEMENTATIONS, bytes_moved
from benchmarks.speed import Store, arguments, rounded
from benchmarks.timing import interleaved
from helpers.measure import kept_for_backward
from helpers.networks.backbones import load
from helpers.norms import norm_layers

STAGES = {  # of ResNet-50 at 224 px: name → what its last normalization layer takes
    "stem": (64, 112, 112),
    "layer1": (256, 56, 56),
    "layer2": (512, 28, 28),
    "layer3": (1024, 14, 14),
    "layer4": (2048, 7, 7),
}
BATCHES = (1, 2, 8)
BASE = "BN eval"  # what ratios are over
COMPILED = "FrozenBN, compiled"
NATIVE = "BN eval, no cuDNN"
EXACT = "float32, no TF32"  # convolutions as GPUs before Ampere computed them
FORWARD, BOTH = "forward", "forward+backward"
KEYS = ("level", "shape", "batch", "dtype", "pass", "cudnn")


class Case(NamedTuple):
    """What is measured: one row for each way to normalize."""

    level: str  # "layer", "body" or "detector"
    shape: tuple[int, ...]  # (C,H,W) of the layer's input, or of the image
    batch: int
    dtype: str
    both: bool
    cudnn: bool | None  # None on a CPU
    compiled: bool = False

    def named(self) -> dict:
        """Return the columns that name the case."""
        return {
            "level": self.level,
            "shape": list(self.shape),
            "batch": self.batch,
            "dtype": self.dtype,
            "pass": BOTH if self.both else FORWARD,
            "cudnn": self.cudnn,
        }


def copy_bandwidth(size: int, device: str = "cpu") -> float:
    """Measure bytes per second of copying `size` bytes; each counts twice, as read and written."""
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    times = interleaved({"copy": lambda: target.copy_(source)}, rounds=7)
    return 2 * 4 * source.numel() / times["copy"].median


def peak_memory(call: Callable[[], object]) -> int | None:
    """Measure how many bytes on the GPU `call()` has in use at most, or None without a GPU."""
    if not torch.cuda.is_available():
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def cases(device: str, quick: bool) -> Iterator[Case]:
    """Yield what to measure on a device."""
    cuda = device == "cuda"
    dtypes = ("float32", "bfloat16", "float16") if cuda else ("float32", "bfloat16")
    cudnn = True if cuda else None
    if quick:
        yield Case("layer", (64, 16, 16), 1, "float32", False, cudnn)
        yield Case("layer", (64, 16, 16), 1, "float32", True, cudnn)
        yield Case("body", (3, 64, 64), 1, "float32", False, cudnn)
        yield Case("detector", (3, 32, 64), 1, "float32", False, cudnn)
        return
    for shape, batch, dtype, both in product(STAGES.values(), BATCHES, dtypes, (False, True)):
        yield Case("layer", shape, batch, dtype, both, cudnn, dtype == "float32" and batch == 8)
    for batch, dtype, both in product(BATCHES, dtypes, (False, True)):
        side = (800, 1088) if cuda else (224, 224) if batch < 8 else (128, 128)
        compiled = cuda and dtype == "float32" and batch == 2  # a CPU compiles it for minutes
        yield Case("body", (3, *side), batch, dtype, both, cudnn, compiled)
    for batch, both in product((1, 2) if not cuda else BATCHES, (False, True)):
        side = (800, 1088) if cuda else (256, 320)
        yield Case("detector", (3, *side), batch, "float32", both, cudnn)
    if cuda:
        for shape, batch, both in product(STAGES.values(), BATCHES, (False, True)):
            yield Case("layer", shape, batch, "float32", both, False)
        for both in (False, True):
            yield Case("body", (3, 800, 1088), 2, "float32", both, False)
        for batch in BATCHES:
            yield Case("body", (3, 800, 1088), batch, EXACT, False, True)


class Subject(NamedTuple):
    """A model to put the `ways` into; `inputs` makes what it takes, with or without gradient."""

    model: nn.Module
    inputs: Callable[[bool], object]
    ways: tuple[str, ...]


def subject(case: Case, device: str) -> Subject:
    """Build the model of a case, and list the ways that apply to it."""
    generator = torch.Generator().manual_seed(0)
    ways = [way for way in IMPLEMENTATIONS if way != COMPILED or case.compiled]
    if not case.cudnn:
        ways.remove(NATIVE)  # it is "BN eval" then
    if case.level == "layer":
        channels = case.shape[0]
        bn = nn.BatchNorm2d(channels)
        with torch.no_grad():
            for tensor in (bn.weight, bn.running_var):
                tensor.copy_(0.5 + torch.rand(channels, generator=generator))
        x = torch.rand(case.batch, *case.shape, generator=generator).to(device)
        x = x.to(getattr(torch, case.dtype))  # as it comes out of a convolution under autocast
        ways.remove("folded")  # there is no convolution to fold it into
        return Subject(nn.Sequential(bn), lambda both: x.detach().requires_grad_(both), tuple(ways))
    images = torch.rand(case.batch, *case.shape, generator=generator).to(device)
    if case.level == "body":
        body = nn.Sequential(*list(load("resnet50").children())[:-2])
        return Subject(body, lambda both: images, tuple(ways))
    height, width = case.shape[1:]
    model = resnet50_detector(min_size=min(height, width), max_size=max(height, width))
    boxes = torch.tensor([[8.0, 8, 40, 48], [16, 4, 60, 60]], device=device)
    labels = torch.tensor([1, 2], device=device)
    targets = [{"boxes": boxes, "labels": labels} for _ in images]
    # Another function finds other boxes, and takes other time for them.
    ways = [way for way in ways if way not in ("BN train", "identity", COMPILED)]
    return Subject(model, lambda both: (list(images), targets if both else None), tuple(ways))


def built(case: Case, subject: Subject, way: str, device: str) -> Callable[[], object]:
    """Build the call to be timed; its attribute `forward` is the forward pass alone."""
    model = subject.model
    if case.level == "detector":
        model = copy.deepcopy(model)
        model.backbone.body = IMPLEMENTATIONS[way].make(model.backbone.body)
        if case.both:
            model.train()
            for layer in norm_layers(model).values():
                layer.eval()
    else:
        model = IMPLEMENTATIONS[way].make(model)
    model = model.to(device)
    model.requires_grad_(case.both)
    if way == "BN eval, affine frozen":
        for layer in norm_layers(model).values():
            layer.requires_grad_(False)
    inputs = subject.inputs(case.both)
    cast = nullcontext
    if case.dtype not in ("float32", EXACT):
        cast = partial(torch.autocast, device, dtype=getattr(torch, case.dtype))

    def forward():
        with cast():
            if case.level == "detector":
                images, targets = inputs
                return sum(model(images, targets).values()) if case.both else model(images)
            return model(inputs)

    def inference():
        with torch.inference_mode():
            return forward()

    leaves = [p for p in model.parameters() if p.requires_grad]
    leaves += [inputs] if isinstance(inputs, Tensor) and inputs.requires_grad else []

    def both():
        output = forward()
        if output.requires_grad:
            gradient = torch.ones_like(output)
            torch.autograd.grad(output, leaves, gradient, allow_unused=True)

    call = both if case.both else inference
    call.forward = forward
    return call


def cudnn(case: Case) -> AbstractContextManager:
    """Switch cuDNN and TF32 as the case wants them."""
    if case.cudnn is None:
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=case.cudnn, allow_tf32=case.dtype != EXACT)


def measured(case: Case, device: str, rounds: int) -> list[dict]:
    """Measure a case; a row for each way, with `failed` where compiling it fails."""
    of_case = subject(case, device)
    calls, rows = {}, []
    with cudnn(case):
        for way in of_case.ways:
            try:
                calls[way] = built(case, of_case, way, device)
                calls[way]()
            except Exception as error:
                if way != COMPILED:
                    raise
                calls.pop(way, None)
                reason = f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
                rows.append({**case.named(), "way": way, "failed": reason})
        least = 0.005 if device == "cuda" else 0.02
        times = interleaved(calls, rounds, least)
        for way, taken in times.items():
            ratio = taken.over(times[BASE])
            row = {
                **case.named(),
                "way": way,
                "ms": rounded(1000 * taken.median),
                "ratio": rounded(ratio.median),
                "spread": rounded(ratio.spread),
            }
            if case.both and way != COMPILED:
                _, row["kept"] = kept_for_backward(calls[way].forward)
                if device == "cuda":
                    row["peak"] = peak_memory(calls[way])
            rows.append(row)
    if case.level == "layer":
        _count_bytes(case, rows, of_case.inputs(False), device)
    return rows


def _count_bytes(case: Case, rows: list[dict], x: Tensor, device: str) -> None:
    copied = copy_bandwidth(x.nbytes, device)
    for row in rows:
        moved = bytes_moved(row["way"], x.numel(), x.itemsize, case.both, not case.both)
        if moved and "ms" in row:
            reached = 1000 * moved / row["ms"]
            row |= {
                "moved": moved,
                "bandwidth": rounded(reached),
                "copy_bandwidth": rounded(copied),
                "share": rounded(reached / copied),
            }


def main(given: list[str] | None = None) -> int:
    """Measure and store all cases."""
    options = arguments(__doc__.splitlines()[0], given)
    if options.device == "cpu":
        torch.set_num_threads(1)
    store = Store(options, "norms", KEYS)
    todo = list(cases(options.device, options.quick))
    for case in tqdm(todo, file=sys.stderr, unit="case"):
        if not store.has(**case.named()):
            rounds = 3 if options.quick else 9 if case.level == "layer" else 7
            store.add(measured(case, options.device, rounds))
    print(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
