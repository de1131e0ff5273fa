"""What a notebook asks of its reader's machine: time and memory."""

import subprocess
import sys
from pathlib import Path
from time import perf_counter

import nbformat
from tqdm import tqdm

from benchmarks.report import emit, settle
from notebooks import make

PNG = "image/png"
PEAK = "from benchmarks.memory import peak_mb\n\nprint(peak_mb())"
LIMITS = {
    "seconds": ("s", 45),
    "seconds_to_first_picture": ("s", 12),
    "seconds_to_first_png": ("s", 12),
    "peak_mb_above_imports": ("MB", 500),
}


def measure(nb, imports_mb: float, progress=lambda: None) -> dict[str, float | None]:
    """Run one notebook in a new kernel and measure what LIMITS names; None without a picture.

    `imports_mb` is what importing torch and torchvision takes. The seconds include the start of
    the kernel. A picture, that is a PNG or a widget, is there when its cell ends.
    """
    cells = [*nb.cells, nbformat.v4.new_code_cell(PEAK)]
    ends, start = [], perf_counter()

    def cell_ended():
        ends.append(perf_counter() - start)
        progress()

    done = make.execute(nbformat.from_dict(nb | {"cells": cells}), cell_ended)
    *course, peak = done.cells

    def first(*kinds):
        shown = (end for cell, end in zip(course, ends, strict=False) if shows(cell, *kinds))
        return next(shown, None)

    return {
        "seconds": ends[len(course) - 1],
        "seconds_to_first_picture": first(PNG, make.WIDGET_VIEW),
        "seconds_to_first_png": first(PNG),
        "peak_mb_above_imports": float(peak.outputs[0].text) - imports_mb,
    }


def shows(cell, *kinds: str) -> bool:
    """Tell whether a cell has an output of one of these MIME types."""
    return any(
        kind in output.get("data", {}) for output in cell.get("outputs", []) for kind in kinds
    )


def imports_mb() -> float:
    """Measure the peak of a process that only imports torch and torchvision."""
    code = f"import torch, torchvision\n{PEAK}"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=make.ROOT, stdout=subprocess.PIPE, check=True
    )
    return float(run.stdout)


def main(paths: list[Path]) -> None:
    """Measure these notebooks and print the numbers."""
    settle()
    least = imports_mb()
    for path in paths:
        nb = make.loads(path.read_text(encoding="utf-8"))
        with tqdm(total=len(nb.cells) + 1, desc=path.stem, unit="cell", disable=None) as bar:
            numbers = measure(nb, least, bar.update)
        for name, (unit, limit) in LIMITS.items():
            if numbers[name] is not None:
                emit(f"{path.stem}_{name}", numbers[name], unit, limit)


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]] or sorted(make.NOTEBOOKS.glob("*.ipynb")))
