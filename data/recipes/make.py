"""Write the fingerprints of torchvision's classifiers: python -m data.recipes.make

torchvision.json: builder → the shapes of its convolutions and normalization layers, in order, for
every builder of torchvision.models with running statistics. No weights are needed.
"""

import json
from pathlib import Path

from torchvision import models

from helpers.audit.census import build
from helpers.audit.recipes import shapes
from helpers.probe import has_statistics

TARGET = Path(__file__).resolve().parent / "torchvision.json"


def fingerprints() -> dict[str, str]:
    """Builder → its shapes, separated by blanks."""
    names = [*models.list_models(module=models), *models.list_models(module=models.video)]
    built = {name: build(name, "none") for name in names}
    return {
        name: " ".join(shapes(model))
        for name, model in built.items()
        if any(map(has_statistics, model.modules()))
    }


if __name__ == "__main__":
    TARGET.write_text(json.dumps(fingerprints(), indent=0) + "\n", encoding="utf-8")
