"""COCO's average precision of a detector on the synthetic scenes, by pycocotools."""

import math
from contextlib import redirect_stdout
from importlib.util import find_spec
from io import StringIO
from typing import Any

import torch
from torch import Tensor

from helpers.inputs.scenes import CLASSES, Scene


def need_pycocotools() -> None:
    """Raise SystemExit, which says what to do, where pycocotools is not installed."""
    if find_spec("pycocotools") is None:
        raise SystemExit("COCO's AP comes from pycocotools: pip install pycocotools")


def average_precision(results: list[dict[str, Tensor]], scenes: list[Scene]) -> tuple[float, float]:
    """Compute COCO's AP, which is the mean over IoU 0.50 to 0.95, and AP at IoU 0.5.

    `results` are those of helpers.networks.detector.detect, low scores included.
    """
    evaluation = judge(results, scenes)
    with redirect_stdout(StringIO()):
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[0], evaluation.stats[1]


def judge(results: list[dict[str, Tensor]], scenes: list[Scene]) -> Any:
    """Match results with scenes: pycocotools' COCOeval after its `evaluate()`."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    numbered = enumerate(scenes, 1)
    objects = [record for number, (_, target) in numbered for record in _records(target, number)]
    for number, record in enumerate(objects, 1):
        record |= {"id": number, "area": math.prod(record["bbox"][2:]), "iscrowd": 0}
    numbered = enumerate(results, 1)
    detections = [record for number, result in numbered for record in _records(result, number)]
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": number} for number in range(1, len(scenes) + 1)],
        "categories": [{"id": label} for label in range(1, len(CLASSES))],
        "annotations": objects,
    }
    with redirect_stdout(StringIO()):
        truth.createIndex()
        loaded = truth.loadRes(detections) if detections else COCO()
        evaluation = COCOeval(truth, loaded, "bbox")
        evaluation.evaluate()
    return evaluation


def _records(annotated: dict[str, Tensor], image: int) -> list[dict]:
    """List one image's boxes as pycocotools takes them: x, y, width, height."""
    boxes, labels = annotated["boxes"].tolist(), annotated["labels"].tolist()
    scores = annotated.get("scores", torch.ones(len(boxes))).tolist()
    return [
        {"image_id": image, "category_id": label, "score": score, "bbox": [x, y, x2 - x, y2 - y]}
        for (x, y, x2, y2), label, score in zip(boxes, labels, scores, strict=True)
    ]
