"""Change a plotted value, a constant, an answer or a helper: nbval has to go red.

Each mutation works on a copy, only up to the first red cell; an unchanged copy has to pass.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from notebook_rules import ROOT, make

# A notebook, and the file that is changed if it is another one; below, what is changed and how.
# The first one is quick: `make test` runs it, too.
TABLE = r"""
01_two_backbones
  eps under the root: (layer.running_var + eps).sqrt() → layer.running_var.sqrt() + eps
  plotted variances: [m.running_var for m in part → [m.weight for m in part
  plotted line: "eps 1e-5 everywhere": wrong → "eps 1e-5 everywhere": right
  eps of a stage: "frozen, eps 1e-5" → "frozen, eps 0"
  small variances: (v < 1e-3) → (v < 1e-2)
  eps of 2020: layer1(detector_body(eps=0.0)) → layer1(detector_body(eps=1e-5))
  plotted map: feature_maps(layer1(model), → feature_maps(2 * layer1(model),
  eps nobody trained with: (0.0, 1e-5, 0.1) → (0.0, 1e-5, 0.2)
  bound: apart <= 1e-9 → apart <= 1e-1
  photo: load("cat") → load("coffee")
01_two_backbones helpers/course/questions/01_two_backbones.yaml
  option: Those with a large weight. → Those of large weight.
01_two_backbones helpers/course/diagrams.py
  diagram: "× weight" → "÷ weight"
01_two_backbones helpers/networks/lite0.py
  trained eps: EPS = 1e-3 → EPS = 1e-2
01_two_backbones helpers/networks/backbones.py
  seed: 20201215 → 20201216
01_two_backbones helpers/course/explorers/norm.py
  preset: 2020": {"network": "ResNet-50", "eps": 0.0} → 2020": {"network": "ResNet-50", "eps": 1e-5}
02_batchnorm
  variance stored: correction=stored) → correction=0)
  momentum: (1 - share) * state[name] + share * value → share * state[name] + (1 - share) * value
  way to freeze: probe(FrozenBatchNorm2d(16)) → probe(nn.BatchNorm2d(16).eval())
  plotted map: feature_maps(a[most], b[most] → feature_maps(b[most], a[most]
  plotted batch sizes: sizes=(1, 2, 8, 64) → sizes=(1, 2, 16, 64)
  MXNet's momentum: (1 - momentum) * new.detach() → momentum * new.detach()
02_batchnorm helpers/course/questions/02_batchnorm.yaml
  option: Weight and bias only. → Weight only.
02_batchnorm helpers/batch_statistics.py
  law of total variance: (1 - 1 / self._size(size)) * self.between → self.between
  crops: size: int = 96, seed: int = 0 → size: int = 96, seed: int = 1
02_batchnorm helpers/course/explorers/batch.py
  presets: PRESETS = (1, 2, 8, 64) → PRESETS = (1, 4, 8, 64)
02_batchnorm data/golden/mxnet_first_layer.json
  recorded number: 0.1493625044822693 → 0.2493625044822693
03_frozen_batchnorm
  eps of our layer: self.eps = eps → self.eps = 0.0
  mend's sign: t + (0.0 - 1e-5) → t - (0.0 - 1e-5)
  scalpel: v[~chosen(v)] += 1e-3 - 1e-5 → v[~chosen(v)] += 1e-3 - 2e-5
  eps of the frozen layer: freeze(lite0, eps=1e-5) → freeze(lite0, eps=2e-5)
  plotted variances: append((v, depthwise)) → append((m.weight.data, depthwise))
  plotted memory: way: size / 2**20 → way: size / 10**6
  what counts as kept: if at not in stays → if at
  cast: scale.to(x.dtype), shift.to(x.dtype) → scale, shift
  stale gradient: False)  # too late → True)  # too late
03_frozen_batchnorm helpers/course/explorers/scale.py
  counted error: abs(every) > 10 → abs(every) > 1
03_frozen_batchnorm helpers/course/questions/03_frozen_batchnorm.yaml
  option: The 509 of a variance above 0 → The 500 of a variance above 0
04_small_batches data/results/small_batches/runs.csv
  stored score: 1,texture and light,0.01,0,own,0.7422 → 1,texture and light,0.01,0,own,0.7522
04_small_batches helpers/course/stored/runs.py
  level: LEVEL = 0.95 → LEVEL = 0.9
04_small_batches
  pair: {1: train["own"][1], 16: single} → {1: single, 16: train["own"][1]}
  all images: pool = layer.expected_running_var(64) → pool = layer.within
  plotted distance: average": "moving_average" → average": "batch"
  plotted pair: difference(best[16], recall) → difference(recall, best[16])
  frozen layer: resnet50(norm_layer=norm) → resnet50()
  differentiable sum: return summed(gradient) → return gradient
  counted pixels: x.numel() / x.shape[1] → x.numel() / x.shape[0]
  recalibration: [normalize(images)] → [images]
04_small_batches helpers/course/questions/04_small_batches.yaml
  option: It is steadier, and too low as before. → It is steadier.
05_input_scaling
  rescale: seen = Rescale()(normalized) → seen = Rescale()(image)
  stored scale: center / 255, var / 255**2 → center / 255, var / 255
  order of rows: "halved", "-1 to 1", "BGR", "0-255" → "halved", "BGR", "-1 to 1", "0-255"
  scenes: scenes(40, seed=2018) → scenes(40, seed=2019)
  plotted photo: format_picture(image, { → format_picture(image, {"more": 2 * image} | {
  fold: weight = conv.weight / std → weight = conv.weight * std
05_input_scaling helpers/course/questions/05_input_scaling.yaml
  option: The pixels, 0 to 255, up to rounding. → The pixels.
05_input_scaling helpers/inputs/pixels.py
  constant: (103.939, 116.779, 123.68) → (103.939, 116.779, 143.68)
05_input_scaling data/results/input_scaling/scores.csv
  stored score: BGR,0.914 → BGR,0.814
06_faster_rcnn_backbone
  resizing: min(128 / min(80, 112), 128 → max(128 / min(80, 112), 128
  canonical scale: torch.log2(sides / 64) → torch.log2(sides / 32)
  alignment: aligned=False → aligned=True
  threshold: torch.where(scores > 0.05) → torch.where(scores > 0.5)
  plotted kind: freeze(exact, 0.0) → freeze(exact, 1e-4)
  small objects: (list("123"), 7, 2 → (list("0123"), 7, 2
06_faster_rcnn_backbone data/results/levels/recall.csv
  stored recall: 16,313,241 → 16,313,251
06_faster_rcnn_backbone helpers/faster_rcnn.py
  IoU of the same box: CLOSE = 0.5, 0.9 → CLOSE = 0.5, 0.5
  share of the gradient: share: float = 0.9 → share: float = 0.5
06_faster_rcnn_backbone helpers/course/questions/06_faster_rcnn_backbone.yaml
  option: For large anchors: it proposes. → For large anchors.
07_where_the_time_goes
  source: SLOWER = 4.92 / 2.21 → SLOWER = 4.92 / 3.21
  offset: labels * (boxes.max() + 1) → labels * (boxes.max() / 9)
  eps: nn.BatchNorm2d(4, eps=1e-3) → nn.BatchNorm2d(4, eps=1e-4)
07_where_the_time_goes helpers/implementations.py
  passes: _kind("frozen"), Passes(4, 2) → _kind("frozen"), Passes(2, 2)
07_where_the_time_goes helpers/course/stored/costs.py
  plotted way: ("trick", "loop") → ("trick", "agnostic")
  plotted copying: ms = 1000 * row → ms = 2000 * row
07_where_the_time_goes data/results/speed/nvidia-h200.json
  stored cost: "ratio": 0.7031 → "ratio": 0.6031
  stored share: "share": 0.1679 → "share": 0.2679
07_where_the_time_goes data/golden/mxnet_timing.json
  recorded time: 39.3164500 → 49.3164500
07_where_the_time_goes helpers/course/questions/07_where_the_time_goes.yaml
  option: None of them. → None.
"""


class Mutation(NamedTuple):
    notebook: str  # the stem of its file
    file: str  # of helpers/ or data/; "" is the notebook
    what: str
    old: str  # occurs once: in the notebook's code cells, or in `file`
    new: str

    def __str__(self):
        return f"{self.notebook}-{self.what}"


def mutations(table):
    notebook = file = ""
    for line in table.strip().splitlines():
        if row := re.fullmatch(r"  ([^:]+): (.+) → (.+)", line):
            yield Mutation(notebook, file, *row.groups())
        else:
            notebook, _, file = line.partition(" ")


MUTATIONS = list(mutations(TABLE))
NOTEBOOKS = sorted({mutation.notebook for mutation in MUTATIONS})


class Red(NamedTuple):
    cell: int  # its number among the code cells
    message: str


def nbval(folder: Path) -> Red | None:
    """The first red cell of the notebook in `folder`/notebooks."""
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
    return red[0] if red else None


def lay_out(folder: Path, nb, name: str) -> Path:
    """A tree with this one notebook, a copy of helpers/, and data/ as links to its files."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "helpers", folder / "helpers", ignore=ignore)
    shutil.copytree(ROOT / "data", folder / "data", copy_function=os.symlink)
    (folder / "notebooks").mkdir()
    (folder / "notebooks" / f"{name}.ipynb").write_text(make.dumps(nb), encoding="utf-8")
    return folder


def changed(mutation: Mutation, nb, root: Path = ROOT) -> str:
    """The changed text of the mutation's file; of a notebook, which is changed itself."""
    if mutation.file:
        return replace_once((root / mutation.file).read_text(encoding="utf-8"), mutation)
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    boundary = "\0"  # in no cell: the old text has to stand in a single one
    sources = replace_once(boundary.join(cell.source for cell in code), mutation)
    for cell, source in zip(code, sources.split(boundary), strict=True):
        cell.source = source
    return make.dumps(nb)


def replace_once(text: str, mutation: Mutation) -> str:
    count = text.count(mutation.old)
    assert count == 1, f"{mutation.old!r} occurs {count} times, not once"
    assert mutation.old != mutation.new
    return text.replace(mutation.old, mutation.new)


def goes_red(mutation: Mutation, nb, folder: Path) -> Red:
    """The cell that turns red by `mutation`; an AssertionError if none does by it alone."""
    lay_out(folder, nb, mutation.notebook)
    file = folder / (mutation.file or f"notebooks/{mutation.notebook}.ipynb")
    text = changed(mutation, nb)
    file.unlink()  # it may be a link to the real one
    file.write_text(text, encoding="utf-8")
    red = nbval(folder)
    assert red, f"nbval does not see it: {mutation.what}"
    seen = "Cell outputs differ" in red.message or "AssertionError" in red.message
    assert seen, f"Red, but not by the outputs or an assert: {red.message}"
    return red


def load(stem: str):
    return make.loads((ROOT / "notebooks" / f"{stem}.ipynb").read_text(encoding="utf-8"))


def test_every_mutation_has_its_place():
    for mutation in MUTATIONS:
        changed(mutation, load(mutation.notebook))
    assert NOTEBOOKS == sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize(
    "mutation",
    [MUTATIONS[0], *(pytest.param(one, marks=pytest.mark.mutation) for one in MUTATIONS[1:])],
    ids=str,
)
def test_mutation_is_seen(mutation, tmp_path):
    goes_red(mutation, load(mutation.notebook), tmp_path)


@pytest.mark.mutation
@pytest.mark.parametrize("stem", NOTEBOOKS)
def test_unchanged_copy_passes(stem, tmp_path):
    assert nbval(lay_out(tmp_path, load(stem), stem)) is None


def small():
    """A notebook that the tests of the test mutate: it plots, prints, and uses a helper."""
    show = "display({'image/png': 'AAAA', 'text/plain': f'Bars of {heights}.'}, raw=True)"
    bars = new_output("display_data", {"image/png": "AAAA", "text/plain": "Bars of [1, 2]."})
    printed = new_output("stream", name="stdout", text="data\n")
    cells = [
        new_code_cell("from helpers import DATA\nunused = 0"),
        new_code_cell(f"heights = [1, 2]\n{show}", outputs=[bars]),
        new_code_cell("print(DATA.name)", outputs=[printed]),
        new_code_cell("answer = 2\nassert answer == 2"),
    ]
    return make.normalize(new_notebook(cells=cells))


def test_red_cell_is_found(tmp_path):
    helper = ROOT / "helpers" / "__init__.py"
    before = helper.read_bytes()
    for file, old, new, cell in (
        ("", "[1, 2]", "[1, 3]", 1),
        ("helpers/__init__.py", '/ "data"', '/ "date"', 2),
        ("", "answer = 2", "answer = 3", 3),
    ):
        mutation = Mutation("small", file, "", old, new)
        assert goes_red(mutation, small(), tmp_path / str(cell)).cell == cell
    assert helper.read_bytes() == before


def test_bad_mutation_is_rejected(tmp_path):
    for old, new, complaint in (
        ("unused = 0", "unused = 1", "nbval does not see it"),
        ("answer = 7", "answer = 8", "0 times"),
        ("answer", "reply", "2 times"),
        ("answer = 2", "answer = ", "not by the outputs"),
    ):
        with pytest.raises(AssertionError, match=complaint):
            goes_red(Mutation("small", "", "", old, new), small(), tmp_path / new)
