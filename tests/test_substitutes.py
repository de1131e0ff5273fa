"""The notebooks on four substitutes for trained weights: no cell raises, no explorer fails.

What cells print is not compared. The substitutes are made anew; none has learned anything.
"""

import os
import re
import shutil
from itertools import pairwise
from subprocess import DEVNULL

import pytest
import torch
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell
from nbval.kernel import CURRENT_ENV_KERNEL_NAME, NbvalKernelspecManager
from notebook_rules import ROOT, make
from torch import nn
from torchvision.models import resnet50

from helpers.inputs import photos
from helpers.networks import backbones
from helpers.norms import norm_layers, recalibrate

NOTEBOOKS = sorted((ROOT / "notebooks").rglob("*.ipynb"))
DEAD = 13  # a channel of the stem
SECONDS_PER_CELL = 600

# A cell behind the last one: every explorer draws every preset, and each choice of every control.
# A ValueError is a sentence for the reader, such as that without eps nothing finite is left.
EXPLORERS = """
import json
from ipywidgets.widgets.widget import _instances
from helpers.course.explorers.explorer import Explorer

tried, failures = 0, set()
for explorer in [one for one in _instances.values() if isinstance(one, Explorer) and one.spec]:
    states = [preset["state"] for preset in explorer.presets]
    for control in explorer.spec["controls"]:
        for value in control["options"] if control["trait"] in states[-1] else ():
            every = {control["all"]: [value] * 5} if "all" in control else {}
            states.append(states[-1] | {control["trait"]: value} | every)
    for state in states:
        tried += 1
        try:
            json.dumps(explorer.draw(state), allow_nan=False, default=repr)  # NaN has no JSON
        except ValueError as error:
            if "JSON" in str(error):
                failures.add(f"{type(explorer).__name__} sends {error} for {state}")
        except Exception as error:
            failures.add(f"{type(explorer).__name__}: {error!r} for {state}")
print(f"tried {tried}")
assert not failures, "; ".join(sorted(failures))
"""


def other_seed(seed=99):
    """Torchvision's convolutions, small affine parameters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = resnet50()
        for name, layer in norm_layers(model).items():
            nn.init.uniform_(layer.weight, *((0.05, 0.3) if name.endswith("bn3") else (0.1, 0.5)))
            nn.init.uniform_(layer.bias, -0.18, 0.12)
    return calibrated(model)


def plain(seed=98):
    """Torchvision's initialization, in which rounding grows with depth."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return calibrated(resnet50())


@torch.no_grad()
def one_dead_channel():
    """A filter of the stem is 0, and so are its running mean and variance."""
    model = other_seed()
    model.conv1.weight[DEAD], model.bn1.weight[DEAD] = 0, 1.1e-8
    model.bn1.running_mean[DEAD] = model.bn1.running_var[DEAD] = 0
    return model


@torch.no_grad()
def unequal_channels():
    """In every layer some channels are dead, weak, strong or have a negative weight."""
    model, random = other_seed(97), torch.Generator().manual_seed(3)
    for conv, bn in pairwise(model.modules()):
        if not isinstance(bn, nn.BatchNorm2d):
            continue
        order = torch.randperm(bn.num_features, generator=random)
        many = max(1, bn.num_features // 50)
        dead, weak, strong, negative = order[: 4 * many].view(4, many)
        shrink = 10 ** (-1 - 2.5 * torch.rand(many, 1, 1, 1, generator=random))
        conv.weight[weak] *= shrink
        conv.weight[strong] *= 6
        bn.weight[negative] *= -1
        conv.weight[dead] *= 1e-7 * shrink  # as weight decay does
        bn.weight[dead] *= 1e-7 * (1 - 2 * torch.randint(2, (many,), generator=random))
    return calibrated(model)


def calibrated(model):
    """A copy in eval mode whose statistics are those of the normalized photos."""
    return recalibrate(model, [backbones.normalize(photos.load_all(size)) for size in (224, 256)])


SUBSTITUTES = {
    "other seed": other_seed,
    "one dead channel": one_dead_channel,
    "unequal channels": unequal_channels,
    "plain": plain,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the substitutes' files and a copy of the notebooks."""
    folder = tmp_path_factory.mktemp("substitutes")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    for name, build in SUBSTITUTES.items():
        torch.save(build().state_dict(), folder / f"{name}.pth")
    return folder


def run(path, weights, folder):
    """Run a notebook and its explorers; "cell: error" for each that raises, and what they print."""
    nb = make.normalize(make.loads(path.read_text(encoding="utf-8")))
    nb.metadata.pop("widgets", None)
    nb.cells.append(new_code_cell(EXPLORERS, id="explorers"))
    settings = {"OMP_NUM_THREADS": "1", "HELPERS_WEIGHTS": str(weights), "PYTHONPATH": str(ROOT)}
    kernel = AsyncKernelManager(
        kernel_name=CURRENT_ENV_KERNEL_NAME, kernel_spec_manager=NbvalKernelspecManager()
    )
    client = NotebookClient(
        nb,
        km=kernel,
        timeout=SECONDS_PER_CELL,
        allow_errors=True,
        resources={"metadata": {"path": str(folder / "notebooks")}},
    )
    client.execute(env=os.environ | settings, stderr=DEVNULL)
    code = [cell for cell in nb.cells if cell.cell_type == "code" and cell.source]
    assert all(cell.execution_count for cell in code) and "tried " in printed(nb)
    return [f"{cell.id}: {error}" for cell in code for error in errors(cell)], printed(nb)


def errors(cell):
    """What a cell raises, in a line."""
    outputs = (output for output in cell.outputs if output.output_type == "error")
    return [f"{output.ename}: {output.evalue[:500]}" for output in outputs]


def printed(nb):
    """What the cells print."""
    outputs = (output for cell in nb.cells for output in cell.get("outputs", []))
    return "".join(output.get("text", "") for output in outputs)


@pytest.mark.sweep
@pytest.mark.parametrize("substitute", SUBSTITUTES)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_cell_raises_on_a_substitute(path, substitute, folder):
    found, text = run(path, folder / f"{substitute}.pth", folder)
    assert not found, "\n".join(found)
    assert "stand-in weights" not in text
    if re.search(r"model\.provenance", path.read_text(encoding="utf-8")):
        assert f"ResNet-50, your weights: {substitute}.pth" in text
