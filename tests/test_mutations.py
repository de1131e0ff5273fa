"""Change a plotted value, a constant, an answer or a helper: nbval has to go red.

Each mutation works on a copy, only up to the first red cell; the same cells of an unchanged copy
have to pass.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from notebook_rules import ROOT, make


class Mutation(NamedTuple):
    notebook: str  # the stem of its file
    what: str  # what is changed, and so the name of the test
    old: str  # occurs once: in the notebook's code cells, or in `file`
    new: str
    file: str = ""  # a file of helpers/ or data/ instead of the notebook


# The first is the quick one, which `make test` runs, too.
FIRST = "01_two_backbones"
SECOND = "02_batchnorm"
THIRD = "03_frozen_batchnorm"
FOURTH = "04_small_batches"
FIFTH = "05_input_scaling"
SIXTH = "06_faster_rcnn_backbone"
SEVENTH = "07_where_the_time_goes"
SPEED, STORED = "helpers/course/stored/costs.py", "data/results/speed"
MUTATIONS = [
    Mutation(FIRST, "eps of 2020", "detector_body(eps=0.0)", "detector_body(eps=1e-5)"),
    Mutation(FIRST, "plotted map", "a.mean(0), b.mean(0)", "a.mean(0), 2 * b.mean(0)"),
    Mutation(FIRST, "plotted line", '"eps 1e-5, as today": today', '"eps 1e-5, as today": then'),
    Mutation(FIRST, "plotted variances", "[m.running_var for m in part", "[m.weight for m in part"),
    Mutation(FIRST, "eps nobody trained with", "(0.0, 1e-5, 0.1)", "(0.0, 1e-5, 0.2)"),
    Mutation(FIRST, "bound", "row.relative <= 1e-5", "row.relative <= 1e-1"),
    Mutation(FIRST, "photo", 'load("cat")', 'load("coffee")'),
    Mutation(
        FIRST,
        "option",
        "Their normalization layers",
        "Their layers",
        "helpers/course/questions/two_backbones.py",
    ),
    Mutation(FIRST, "trained eps", "EPS = 1e-3", "EPS = 1e-2", "helpers/networks/lite0.py"),
    Mutation(FIRST, "seed", "20201215", "20201216", "helpers/networks/backbones.py"),
    Mutation(
        FIRST,
        "preset",
        '"December 2020": _resnet(RUNNING, EPS_0)',
        '"December 2020": _resnet(RUNNING, FROZEN)',
        "helpers/course/explorers/side_by_side.py",
    ),
    Mutation(SECOND, "variance stored", "correction=stored)", "correction=0)"),
    Mutation(
        SECOND,
        "momentum turned round",
        "(1 - share) * state[name] + share * value",
        "share * state[name] + (1 - share) * value",
    ),
    Mutation(
        SECOND,
        "way to freeze",
        "probe(FrozenBatchNorm2d(16))",
        "probe(nn.BatchNorm2d(16).eval())",
    ),
    Mutation(
        SECOND,
        "plotted map",
        "feature_maps(a[most], b[most]",
        "feature_maps(b[most], a[most]",
    ),
    Mutation(SECOND, "plotted batch sizes", "sizes=(1, 2, 8, 64)", "sizes=(1, 2, 16, 64)"),
    Mutation(
        SECOND,
        "MXNet's momentum",
        "momentum * s[name] + (1 - momentum) * new.detach()",
        "(1 - momentum) * s[name] + momentum * new.detach()",
    ),
    Mutation(
        SECOND,
        "option",
        "Weight and bias only.",
        "Weight only.",
        "helpers/course/questions/batchnorm.py",
    ),
    Mutation(
        SECOND,
        "law of total variance",
        "self.within + (1 - 1 / self._size(size)) * self.between",
        "self.within + self.between",
        "helpers/batch_statistics.py",
    ),
    Mutation(
        SECOND,
        "crops",
        "size: int = 96, seed: int = 0",
        "size: int = 96, seed: int = 1",
        "helpers/batch_statistics.py",
    ),
    Mutation(
        SECOND,
        "presets",
        "PRESETS = (1, 2, 8, 64)",
        "PRESETS = (1, 4, 8, 64)",
        "helpers/course/explorers/batch.py",
    ),
    Mutation(
        SECOND,
        "recorded number",
        "0.1493625044822693",
        "0.2493625044822693",
        "data/golden/mxnet_first_layer.json",
    ),
    Mutation(THIRD, "eps of our layer", "self.eps = eps", "self.eps = 0.0"),
    Mutation(THIRD, "mend's sign", "t + (0.0 - 1e-5)", "t - (0.0 - 1e-5)"),
    Mutation(THIRD, "scalpel", "v[~chosen(v)] += 1e-3 - 1e-5", "v[~chosen(v)] += 1e-3 - 2e-5"),
    Mutation(
        THIRD, "eps of the frozen layer", "freeze(lite0, eps=1e-5)", "freeze(lite0, eps=2e-5)"
    ),
    Mutation(
        THIRD, "plotted variances", "append((v, depthwise))", "append((m.weight.data, depthwise))"
    ),
    Mutation(THIRD, "plotted memory", "way: size / 2**20", "way: size / 10**6"),
    Mutation(THIRD, "what counts as kept", "if at not in stays", "if at"),
    Mutation(THIRD, "cast", "scale.to(x.dtype), shift.to(x.dtype)", "scale, shift"),
    Mutation(THIRD, "stale gradient", "False)  # too late", "True)  # too late"),
    Mutation(
        THIRD,
        "option",
        "The 509 of a variance above 0",
        "The 500 of a variance above 0",
        "helpers/course/questions/frozen_batchnorm.py",
    ),
    Mutation(
        FOURTH,
        "stored score",
        "train,1,texture and light,0.01,0,own,0.7422",
        "train,1,texture and light,0.01,0,own,0.7522",
        "data/results/small_batches/runs.csv",
    ),
    Mutation(FOURTH, "level", "LEVEL = 0.95", "LEVEL = 0.9", "helpers/course/stored/runs.py"),
    Mutation(
        FOURTH, "pair", '{1: train["own"][1], 16: single}', '{1: single, 16: train["own"][1]}'
    ),
    Mutation(FOURTH, "all images", "pool = layer.expected_running_var(64)", "pool = layer.within"),
    Mutation(FOURTH, "plotted distance", 'average": "moving_average"', 'average": "batch"'),
    Mutation(
        FOURTH, "plotted pair", "difference(best[16], recall)", "difference(recall, best[16])"
    ),
    Mutation(FOURTH, "frozen layer", "resnet50(norm_layer=norm)", "resnet50()"),
    Mutation(FOURTH, "differentiable sum", "return summed(gradient)", "return gradient"),
    Mutation(FOURTH, "counted pixels", "x.numel() / x.shape[1]", "x.numel() / x.shape[0]"),
    Mutation(FOURTH, "recalibration", "[normalize(images)]", "[images]"),
    Mutation(
        FOURTH,
        "option",
        "It is steadier, and too low as before.",
        "It is steadier.",
        "helpers/course/questions/small_batches.py",
    ),
    Mutation(
        FOURTH,
        "preset of the curves",
        '"frozen": State(("frozen", 16))',
        '"frozen": State(("eval", 16))',
        "helpers/course/explorers/curves.py",
    ),
    Mutation(FIFTH, "rescale", "seen = Rescale()(normalized)", "seen = Rescale()(image)"),
    Mutation(FIFTH, "stored scale", "center / 255, var / 255**2", "center / 255, var / 255"),
    Mutation(
        FIFTH,
        "order of rows",
        '"halved", "-1 to 1", "BGR", "0-255"',
        '"halved", "BGR", "-1 to 1", "0-255"',
    ),
    Mutation(FIFTH, "scenes", "scenes(40, seed=2018)", "scenes(40, seed=2019)"),
    Mutation(
        FIFTH,
        "plotted photo",
        "format_picture(image, {",
        'format_picture(image, {"more": 2 * image} | {',
    ),
    Mutation(
        FIFTH,
        "option",
        "The pixels, 0 to 255, up to rounding.",
        "The pixels.",
        "helpers/course/questions/input_scaling.py",
    ),
    Mutation(
        FIFTH,
        "constant",
        "(103.939, 116.779, 123.68)",
        "(103.939, 116.779, 143.68)",
        "helpers/inputs/pixels.py",
    ),
    Mutation(
        FIFTH, "stored score", "BGR,0.914", "BGR,0.814", "data/results/input_scaling/scores.csv"
    ),
    Mutation(FIFTH, "fold", "weight = conv.weight / std", "weight = conv.weight * std"),
    Mutation(SIXTH, "resizing", "min(128 / min(80, 112), 128", "max(128 / min(80, 112), 128"),
    Mutation(SIXTH, "canonical scale", "torch.log2(sides / 64)", "torch.log2(sides / 32)"),
    Mutation(SIXTH, "alignment", "aligned=False", "aligned=True"),
    Mutation(SIXTH, "threshold", "torch.where(scores > 0.05)", "torch.where(scores > 0.5)"),
    Mutation(SIXTH, "plotted kind", "freeze(exact, 0.0)", "freeze(exact, 1e-4)"),
    Mutation(SIXTH, "stored recall", "16,313,241", "16,313,251", "data/results/levels/recall.csv"),
    Mutation(SIXTH, "small objects", '(list("123"), 7, 2', '(list("0123"), 7, 2'),
    Mutation(
        SIXTH,
        "IoU of the same box",
        "CLOSE = 0.5, 0.9",
        "CLOSE = 0.5, 0.5",
        "helpers/faster_rcnn.py",
    ),
    Mutation(
        SIXTH,
        "share of the gradient",
        "share: float = 0.9",
        "share: float = 0.5",
        "helpers/faster_rcnn.py",
    ),
    Mutation(
        SIXTH,
        "option",
        "For large anchors: it proposes.",
        "For large anchors.",
        "helpers/course/questions/faster_rcnn.py",
    ),
    Mutation(SEVENTH, "source", "SLOWER = 4.92 / 2.21", "SLOWER = 4.92 / 3.21"),
    Mutation(SEVENTH, "offset", "labels * (boxes.max() + 1)", "labels * (boxes.max() / 9)"),
    Mutation(SEVENTH, "eps", "nn.BatchNorm2d(4, eps=1e-3)", "nn.BatchNorm2d(4, eps=1e-4)"),
    Mutation(
        SEVENTH,
        "passes",
        '"FrozenBN": Implementation(_kind("frozen"), Passes(4, 2))',
        '"FrozenBN": Implementation(_kind("frozen"), Passes(2, 2))',
        "helpers/implementations.py",
    ),
    Mutation(SEVENTH, "plotted way", '("trick", "loop")', '("trick", "agnostic")', SPEED),
    Mutation(SEVENTH, "plotted copying", "ms = 1000 * row", "ms = 2000 * row", SPEED),
    Mutation(
        SEVENTH, "stored cost", '"ratio": 0.7031', '"ratio": 0.6031', f"{STORED}/nvidia-h200.json"
    ),
    Mutation(
        SEVENTH, "stored share", '"share": 0.1679', '"share": 0.2679', f"{STORED}/nvidia-h200.json"
    ),
    Mutation(SEVENTH, "recorded time", "39.3164500", "49.3164500", "data/golden/mxnet_timing.json"),
    Mutation(SEVENTH, "option", '"None of them."', '"None."', "helpers/course/questions/cost.py"),
]


class Red(NamedTuple):
    cell: int  # its number among the code cells
    message: str


def nbval(folder: Path) -> list[Red]:
    """The red cells of the notebooks in `folder`/notebooks, up to the first one."""
    options = f"--nbval-sanitize-with {ROOT}/tests/nbval_sanitize.cfg --nbval-cell-timeout 120"
    command = "-m pytest -x -q --color=no -p no:cacheprovider --nbval --nbval-current-env"
    drop = ("PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST")
    settings = {"OMP_NUM_THREADS": "1", "HELPERS_WEIGHTS": "stand-in", "PYTHONPATH": str(folder)}
    run = subprocess.run(
        [sys.executable, *command.split(), *options.split(), "--junitxml=report.xml", "notebooks"],
        cwd=folder,
        env={key: value for key, value in os.environ.items() if key not in drop} | settings,
        capture_output=True,
        text=True,
    )
    assert run.returncode in (0, 1), f"nbval did not run:\n{run.stdout}{run.stderr}"
    cases = list(ElementTree.parse(folder / "report.xml").iter("testcase"))
    assert cases and not any(case.find("error") is not None for case in cases), run.stdout
    red = [
        Red(int(case.get("name").removeprefix("Cell ")), failure.text)
        for case in cases
        for failure in case.iter("failure")
    ]
    assert bool(red) == (run.returncode == 1), run.stdout
    return red


def lay_out(folder: Path, nb, name: str) -> None:
    """A tree with this one notebook, a copy of helpers/, and data/ as links to its files."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "helpers", folder / "helpers", ignore=ignore)
    shutil.copytree(ROOT / "data", folder / "data", copy_function=os.symlink)
    (folder / "notebooks").mkdir()
    (folder / "notebooks" / f"{name}.ipynb").write_text(make.dumps(nb), encoding="utf-8")


def replace_once(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times, not once"
    assert old != new
    return text.replace(old, new)


def code_cells(nb):
    return [cell for cell in nb.cells if cell.cell_type == "code"]


def apply(mutation: Mutation, folder: Path, nb) -> None:
    """Change the notebook, or the copy of the file in `folder`."""
    if mutation.file:
        file = folder / mutation.file
        text = replace_once(file.read_text(encoding="utf-8"), mutation.old, mutation.new)
        file.unlink()  # it may be a link to the real one
        file.write_text(text, encoding="utf-8")
        return
    sources = [cell.source for cell in code_cells(nb)]
    boundary = "\0"  # in no cell: the old text has to stand in a single one
    changed = replace_once(boundary.join(sources), mutation.old, mutation.new).split(boundary)
    for cell, source in zip(code_cells(nb), changed, strict=True):
        cell.source = source


def goes_red(mutation: Mutation, read: Callable, tmp_path: Path) -> Red:
    """The cell that turns red by `mutation`; an AssertionError if none does by it alone."""
    mutated = read()
    lay_out(tmp_path / "mutated", mutated, mutation.notebook)
    apply(mutation, tmp_path / "mutated", mutated)
    file = tmp_path / "mutated" / "notebooks" / f"{mutation.notebook}.ipynb"
    file.write_text(make.dumps(mutated), encoding="utf-8")
    red = nbval(tmp_path / "mutated")
    assert red, f"nbval does not see it: {mutation.what}"
    seen = "Cell outputs differ" in red[0].message or "AssertionError" in red[0].message
    assert seen, f"Red, but not by the outputs or an assert: {red[0].message}"

    unchanged = read()
    last = code_cells(unchanged)[red[0].cell]
    unchanged.cells = unchanged.cells[: unchanged.cells.index(last) + 1]
    lay_out(tmp_path / "unchanged", unchanged, mutation.notebook)
    assert nbval(tmp_path / "unchanged") == []
    return red[0]


def load(stem: str):
    return make.loads((ROOT / "notebooks" / f"{stem}.ipynb").read_text(encoding="utf-8"))


def name(value) -> str | None:
    return f"{value.notebook}-{value.what}" if isinstance(value, Mutation) else None


def quick_first(cases):
    """The cases, all but the first one marked as mutations."""
    return [*cases[:1], *(pytest.param(*case, marks=pytest.mark.mutation) for case in cases[1:])]


@pytest.mark.parametrize(("mutation",), quick_first([(m,) for m in MUTATIONS]), ids=name)
def test_mutation_is_seen(mutation, tmp_path):
    goes_red(mutation, partial(load, mutation.notebook), tmp_path)


def small():
    """A notebook that the tests of the test mutate: it plots, prints, and uses a helper."""
    show = "display({'image/png': 'AAAA', 'text/plain': f'Bars of {heights}.'}, raw=True)"
    data = {"image/png": "AAAA", "text/plain": "Bars of [1, 2]."}
    cells = [
        new_code_cell("from helpers import DATA\nunused = 0"),
        new_code_cell(f"heights = [1, 2]\n{show}", outputs=[new_output("display_data", data)]),
        new_code_cell(
            "print(DATA.name)", outputs=[new_output("stream", name="stdout", text="data\n")]
        ),
        new_code_cell("answer = 2\nassert answer == 2"),
    ]
    return make.normalize(new_notebook(cells=cells))


@pytest.mark.parametrize(
    ("mutation", "cell"),
    quick_first(
        [
            (Mutation("small", "helper", '/ "data"', '/ "date"', "helpers/__init__.py"), 2),
            (Mutation("small", "plotted value", "[1, 2]", "[1, 3]"), 1),
            (Mutation("small", "answer", "answer = 2", "answer = 3"), 3),
        ]
    ),
    ids=name,
)
def test_red_cell_is_found(mutation, cell, tmp_path):
    before = (ROOT / "helpers" / "__init__.py").read_bytes()
    assert goes_red(mutation, small, tmp_path).cell == cell
    assert (ROOT / "helpers" / "__init__.py").read_bytes() == before


@pytest.mark.parametrize(
    ("mutation", "complaint"),
    [
        (Mutation("small", "unused value", "unused = 0", "unused = 1"), "nbval does not see it"),
        (Mutation("small", "text that is gone", "answer = 7", "answer = 8"), "0 times"),
        (Mutation("small", "text that is everywhere", "answer", "reply"), "2 times"),
        (Mutation("small", "typing error", "answer = 2", "answer = "), "not by the outputs"),
    ],
    ids=name,
)
def test_bad_mutation_is_rejected(mutation, complaint, tmp_path):
    with pytest.raises(AssertionError, match=complaint):
        goes_red(mutation, small, tmp_path)
