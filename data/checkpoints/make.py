"""Train the scene detector: python -m data.checkpoints.make [--norm group] [--out FOLDER]

Writes detector.pt and its model card, README.md, and prints the sha256 to write into
helpers/networks/detector.py. With --norm group it trains the detector that notebook 04 compares
with, in group_norm/. It takes one thread and about 15 minutes; after an interruption the next call
goes on from training.part. On one machine, one seed gives the same weights bit for bit. COCO's AP
needs pycocotools.
"""

import argparse
import math
import os
import platform
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from tqdm import tqdm

from data import coco
from helpers.inputs.scenes import SHIFTS, scenes
from helpers.networks.detector import (
    detect,
    detector,
    evaluate,
    group_norm,
    normalize,
    unpacked,
)
from helpers.networks.download import sha256_of

HERE = Path(__file__).resolve().parent
STEPS = 3400
IMAGES = 8  # in a step
RATE = 2e-3  # the highest learning rate
HELD_OUT_SEED = 1
HELD_OUT = 300  # scenes
SAVE_EVERY = 100  # steps

NORMS = {  # name → layers; what the card says of them, of their statistics, of another seed
    "batch": (
        nn.BatchNorm2d,
        "batch normalization",
        "Batch normalization in train mode, so the running statistics are those of training.",
        "seed 1 gave recall 0.917 and AP 0.783.",
    ),
    "group": (
        group_norm,
        "group normalization (8 groups)",
        "Group normalization has no running statistics.",
        "not tried.",
    ),
}

INPUTS = {
    "as it expects them": lambda image: image,
    "BGR": lambda image: image.flip(0),
    "halved": lambda image: image / 2,
    "2x − 1": lambda image: 2 * image - 1,
    "normalized twice": normalize,
    "0–255": lambda image: 255 * image,
}

CARD = """# The scene detector{title}

`detector.pt` holds the weights of `helpers.networks.detector.load_detector({argument})`. It and
this page were made by `python -m data.checkpoints.make{option}`.

**Model.** `helpers.networks.detector.detector()`: torchvision's FasterRCNN, {parameters:,}
parameters, {layers} with eps 1e-5 in the body. Stored: weights in float16; vectors (affine
parameters, running statistics, biases) in float32. {size:.1f} MB, sha256
`{sha256}`.

**Data.** `helpers.inputs.scenes`: {seen:,} scenes, each seen once (seeds {first} to {last},
{images} of each). Their backgrounds are pieces of the four [bundled photos]({photos}). So are those
of the held-out scenes: what is new there are the shapes, not the photos.

**Training.** From scratch: {steps} steps of {images} images, AdamW, learning rate up to {rate:g},
seed {seed}; {minutes:.0f} minutes of processor time on one core.
{statistics}

**Scores** on {count} held-out scenes (seed {held_out_seed}). Recall and false positives
(`helpers.networks.detector.evaluate`): at IoU 0.5, of detections with a score of at least 0.5.
COCO's AP (pycocotools): {precision:.3f}, at IoU 0.5 {at_half:.3f}.

{table}

**Spread.** The same seed gives the same weights bit for bit on one machine, interrupted or not.
Another seed, or a processor that rounds otherwise, gives another detector: {spread}

**Made with** {versions}, Python {python}, {processor}.

**What it is not.** It has seen four photos and three shapes: no detector for anything else.

Own work, BSD-3-Clause.
"""


def train(
    seed: int,
    part: Path,
    steps: int = STEPS,
    images: int = IMAGES,
    norm: str = "batch",
    build: Callable[[], FasterRCNN] | None = None,
) -> tuple[FasterRCNN, float]:
    """Train `detector`, or what `build` makes; return it in eval mode, and its minutes of CPU time.

    `part` is the file from which the next call goes on after an interruption. Step k draws its
    images from scenes' seed 1,000,000·(seed + 1) + k. Raises SystemExit if `part` was begun with
    other arguments.
    """
    torch.manual_seed(seed)
    model = build() if build else detector(NORMS[norm][0])
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-4)
    plan = {"seed": seed, "steps": steps, "images": images}
    if norm != "batch":
        plan["norm"] = norm
    if build:
        plan["build"] = build.__name__
    start, seconds = 0, 0.0
    if part.exists():
        saved = torch.load(part, weights_only=True)
        if saved["plan"] != plan:
            raise SystemExit(
                f"{part} was begun with {saved['plan']}: go on with that, or delete it."
            )
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        torch.set_rng_state(saved["rng"])
        start, seconds = saved["step"], saved["seconds"]
    began = time.process_time() - seconds
    bar = tqdm(range(start, steps), "training", steps, initial=start)
    for step in bar:
        progress = step / steps
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(10 * progress, (1 + math.cos(math.pi * progress)) / 2)
        batch = scenes(images, 1_000_000 * (seed + 1) + step)
        loss = sum(model(*map(list, zip(*batch, strict=True))).values())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10)
        optimizer.step()
        bar.set_postfix(loss=f"{loss.item():.2f}")
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            state |= {"plan": plan, "step": step + 1, "rng": torch.get_rng_state()}
            state |= {"seconds": time.process_time() - began}
            _write(part, partial(torch.save, state))
    return model.eval(), (time.process_time() - began) / 60


def table(model: FasterRCNN, count: int = HELD_OUT) -> str:
    """Write a table in Markdown: scores on held-out scenes, also shifted, also fed wrongly."""
    held_out = scenes(count, HELD_OUT_SEED)
    sets = {
        f"images {name}": [(change(image), target) for image, target in held_out]
        for name, change in INPUTS.items()
    }
    sets["scenes with `illumination`"] = scenes(count, HELD_OUT_SEED, illumination=True)
    for shift in SHIFTS:
        sets[f'scenes with shift "{shift}"'] = scenes(count, HELD_OUT_SEED, shift=shift)
    rows = ["| fed with | recall | false positives per image |", "|---|---|---|"]
    for name, given in tqdm(sets.items(), "evaluating"):
        scores = evaluate(model, given)
        rows.append(f"| {name} | {scores.recall:.3f} | {scores.false_positives:.2f} |")
    return "\n".join(rows)


def card(model: FasterRCNN, file: Path, given: argparse.Namespace, minutes: float) -> str:
    """Write the model card of `file`, which holds `model`."""
    held_out = scenes(given.held_out, HELD_OUT_SEED)
    precision, at_half = coco.average_precision(detect(model, held_out, batch_size=1), held_out)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    packages = ("torch", "torchvision", "numpy", "pillow", "pycocotools")
    _, layers, statistics, spread = NORMS[given.norm]
    plain = given.norm == "batch"
    return CARD.format(
        title="" if plain else f", with {layers}",
        argument="" if plain else f'"{given.norm}"',
        option="" if plain else f" --norm {given.norm}",
        layers=layers,
        statistics=statistics,
        spread=spread,
        photos="../photos/README.md" if plain else "../../photos/README.md",
        parameters=parameters,
        size=file.stat().st_size / 1e6,
        sha256=sha256_of(file),
        seen=given.steps * IMAGES,
        first=1_000_000 * (given.seed + 1),
        last=1_000_000 * (given.seed + 1) + given.steps - 1,
        precision=precision,
        at_half=at_half,
        table=table(model, given.held_out),
        versions=", ".join(f"{name} {version(name).partition('+')[0]}" for name in packages),
        python=platform.python_version(),
        processor=platform.machine(),
        **{"seed": given.seed, "steps": given.steps, "minutes": minutes},
        **{"count": given.held_out, "images": IMAGES, "rate": RATE},
        held_out_seed=HELD_OUT_SEED,
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train the scene detector.")
    parser.add_argument("--norm", choices=NORMS, default="batch", help="the body's normalization")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS, help=f"of {IMAGES} images each")
    parser.add_argument("--held-out", type=int, default=HELD_OUT, help="scenes to evaluate on")
    parser.add_argument("--out", type=Path, help="folder for what is made")
    given = parser.parse_args(arguments)
    coco.need_pycocotools()
    torch.set_num_threads(1)
    out = given.out or (HERE if given.norm == "batch" else HERE / "group_norm")
    out.mkdir(parents=True, exist_ok=True)
    part = out / "training.part"
    model, minutes = train(given.seed, part, given.steps, norm=given.norm)
    file = out / "detector.pt"
    _write(file, partial(torch.save, packed(model)))
    stored = unpacked(torch.load(file, weights_only=True), NORMS[given.norm][0])
    text = card(stored, file, given, minutes)
    _write(out / "README.md", lambda fresh: fresh.write_text(text, encoding="utf-8"))
    part.unlink()
    print(f'sha256 "{sha256_of(file)}"')


def packed(model: FasterRCNN) -> dict[str, Tensor]:
    """Return the state_dict as it is stored: tensors of two or more dimensions in float16."""
    state = model.state_dict()
    return {name: t.half() if t.dim() > 1 else t.clone() for name, t in state.items()}


def _write(path: Path, write: Callable[[Path], object]) -> None:
    fresh = path.with_suffix(".new.part")
    write(fresh)
    os.replace(fresh, path)


if __name__ == "__main__":
    main()
