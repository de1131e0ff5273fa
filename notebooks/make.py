"""Execute the notebooks and write them in one normal form: nothing else makes reference outputs.

    python notebooks/make.py                     every notebook that is not up to date
    python notebooks/make.py 01_two_backbones    this one, if it is not up to date
    python notebooks/make.py --force             up to date or not
    python notebooks/make.py --check             write nothing, say what would change

A notebook is up to date while nothing that it depends on has changed since it was made here: its
file, the modules of helpers/ that it imports (and those that they import), the data that these
read, its questions and checkers, this script, and constraints.txt. What the explorers run in the
page (JavaScript, CSS) is put into the notebooks without executing any. Stop with Ctrl-C and start
again at will: each file is replaced as a whole or not at all, and what is done is not done again.
"""

import argparse
import ast
import functools
import hashlib
import itertools
import json
import os
import re
import sys
from copy import deepcopy
from pathlib import Path
from subprocess import DEVNULL

import matplotlib.font_manager  # noqa: F401  a font cache built in a cell would write to its stderr
import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, DeadKernelError
from nbval.kernel import CURRENT_ENV_KERNEL_NAME, NbvalKernelspecManager
from tqdm import tqdm

NOTEBOOKS = Path(__file__).resolve().parent
ROOT = NOTEBOOKS.parent
STATE = ".made.json"
SECONDS_PER_CELL = 120
BIG = 2**20

KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
PAGE = ROOT / "helpers" / "course" / "explorers"  # of what the explorers run in the page
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
REFERENCE = re.compile(r"\bIPY_MODEL_(\w+)")
COLLAPSED = "collapsed"  # the tag of a cell that waits to be opened, below a prediction
ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}\b")


def normalize(nb):
    """A copy of `nb` in normal form; what is in normal form already stays as it is."""
    nb = deepcopy(nb)
    nb.nbformat, nb.nbformat_minor = 4, 5
    counter = itertools.count(1)
    ids = {None}
    for number, cell in enumerate(nb.cells, 1):
        if cell.get("id") in ids:
            cell.id = f"cell-{number:02}"
        ids.add(cell.id)
        cell.source = "\n".join(line.rstrip() for line in cell.source.split("\n")).strip("\n")
        tags = cell.metadata.get("tags")
        metadata = {"tags": tags} if tags else {}
        is_collapsed = COLLAPSED in (tags or ())
        if is_collapsed or cell.source.split("\n")[-1].startswith("check("):
            metadata["jupyter"] = {"outputs_hidden": True}
        if is_collapsed and "assert" in cell.source:  # which gives the answer away
            metadata["jupyter"]["source_hidden"] = True
        cell.metadata = nbformat.from_dict(metadata)
        if cell.cell_type == "code":
            cell.execution_count = next(counter) if cell.source else None
            cell.outputs = merge_streams(cell.outputs)
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = cell.execution_count
                if "image/png" in output.get("data", {}):
                    output.data["image/png"] = output.data["image/png"].replace("\n", "")
    widgets = renumber_widgets(nb)
    nb.metadata = nbformat.from_dict(
        {"kernelspec": KERNELSPEC, "language_info": {"name": "python"}}
        | ({"widgets": {WIDGET_STATE: widgets}} if widgets["state"] else {})
    )
    return nb


def merge_streams(outputs):
    """Join neighbours of one stream: where the kernel cut the text is chance."""
    merged = []
    for output in outputs:
        previous = merged[-1] if merged else {}
        if output.output_type == "stream" and previous.get("name") == output.name:
            previous.text += output.text
        else:
            merged.append(output)
    return merged


def widget_views(nb):
    """The data of every displayed widget view, in order."""
    outputs = (output for cell in nb.cells for output in cell.get("outputs", []))
    return [o.data[WIDGET_VIEW] for o in outputs if WIDGET_VIEW in o.get("data", {})]


def widget_models(nb):
    """Every stored widget model, by its id."""
    return nb.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {})


def references(model):
    """The ids of the models that `model` refers to, in order."""
    return list(dict.fromkeys(REFERENCE.findall(json.dumps(model, sort_keys=True))))


def renumber_widgets(nb):
    """Number the views' models in order of appearance; the state of those models and their links.

    A link (jslink, jsdlink) is referred to by nobody: it stays if both of its ends stay.
    """
    models = widget_models(nb)
    kept = []

    def keep(model_id):
        if model_id in models and model_id not in kept:
            kept.append(model_id)
            for reference in references(models[model_id]):
                keep(reference)

    for view in widget_views(nb):
        keep(view["model_id"])
    reached = set(kept)
    for model_id, model in models.items():
        if {"source", "target"} <= set(model["state"]) and reached.issuperset(references(model)):
            keep(model_id)

    names = {model_id: f"{number:032x}" for number, model_id in enumerate(kept, 1)}
    for view in widget_views(nb):
        view["model_id"] = names.get(view["model_id"], view["model_id"])

    def renamed(model):
        model = deepcopy(model)
        if model["model_name"] == "LayoutModel":  # 45 properties, null unless set
            model["state"] = {k: v for k, v in model["state"].items() if v is not None}
        if "buffers" in model:
            model["buffers"].sort(key=lambda buffer: json.dumps(buffer["path"]))
        text = REFERENCE.sub(lambda m: f"IPY_MODEL_{names.get(m[1], m[1])}", json.dumps(model))
        return json.loads(text)

    state = {names[model_id]: renamed(models[model_id]) for model_id in kept}
    return {"state": state, "version_major": 2, "version_minor": 0}


def faults(nb):
    """What no reference output may hold, as sentences: errors, stderr, and object addresses."""
    for cell in nb.cells:
        for output in cell.get("outputs", []):
            text = output.get("text") or json.dumps(output.get("data", ""))
            if output.output_type == "error":
                yield f"{title(cell)} raises {output.ename}: {output.evalue}"
            elif output.get("name") == "stderr":
                yield f"{title(cell)} writes to stderr: {text.rstrip()}"
            elif match := ADDRESS.search(text):
                yield f"{title(cell)} shows an object's address, new in every run: {match[0]}"
    for model in widget_models(nb).values():
        if match := ADDRESS.search(json.dumps(model["state"])):
            yield f"A {model['model_name']} holds an object's address: {match[0]}"


def title(cell):
    """What to call a cell in a message: its kind and its first line."""
    kind = "Cell" if cell.cell_type == "code" else "Markdown cell"
    return f"{kind} {cell.source.split(chr(10))[0][:60]!r}"


def dumps(nb):
    """The text of a notebook's file."""
    return nbformat.v4.writes(nb).rstrip("\n") + "\n"


def loads(text):
    """The notebook in a file's text, as it is: nbformat.reads would repair it on the way."""
    return nbformat.v4.reads(text)


def execute(nb, progress=lambda: None):
    """`nb` run from top to bottom in a new kernel, in normal form. Raises on the first error."""
    nb = normalize(nb)
    nb.metadata.pop("widgets", None)
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    settings = {"OMP_NUM_THREADS": "1", "HELPERS_WEIGHTS": "stand-in", "PYTHONPATH": path}
    # The kernel of this environment, as `nbval --nbval-current-env` picks it.
    kernel = AsyncKernelManager(
        kernel_name=CURRENT_ENV_KERNEL_NAME, kernel_spec_manager=NbvalKernelspecManager()
    )
    client = NotebookClient(
        nb,
        km=kernel,
        timeout=SECONDS_PER_CELL,
        record_timing=False,
        shutdown_kernel="immediate",
        resources={"metadata": {"path": str(NOTEBOOKS)}},
    )
    # Cell by cell, because client.execute() takes Ctrl-C for a dead kernel.
    with client.setup_kernel(cleanup_kc=True, env=os.environ | settings, stderr=DEVNULL):
        for index, cell in enumerate(nb.cells):
            try:
                client.execute_cell(cell, index)
            except DeadKernelError:
                raise DeadKernelError(f"{title(cell)} ended the kernel.") from None
            progress()
        client.set_widgets_metadata()
    return normalize(nb)


def python_of(path):
    """The Python source of a module or of a notebook's code cells."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    return "\n".join(cell.source for cell in loads(text).cells if cell.cell_type == "code")


def module_files(name):
    """The files of a module's name: its own, and its package."""
    path = ROOT.joinpath(*name.split("."))
    return {file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()}


def literal_path(node):
    """The literal beginning of a path written as `DATA / "a" / name`: ["a"]; None for others."""
    match node:
        case ast.Name(id="DATA"):
            return []
        case ast.BinOp(left=left, op=ast.Div(), right=ast.Constant(value=str(part))):
            parts = literal_path(left)
            return None if parts is None else [*parts, part]
        case ast.BinOp(left=left, op=ast.Div()):
            return literal_path(left)


def data_files(parts):
    """The files below the longest part of a path in data/ that exists; none of its documents."""
    path = ROOT.joinpath("data", *parts)
    while not path.exists():
        path = path.parent
    return {file for file in [path, *path.rglob("*")] if file.suffix not in ("", ".md", ".py")}


@functools.cache
def named_files(path):
    """The files that a module or notebook names: modules of helpers/ it imports, data it reads."""
    if path.suffix not in (".py", ".ipynb"):
        return frozenset()
    files, inner = set(), set()
    for node in ast.walk(ast.parse(python_of(path))):
        imported = []
        match node:
            case ast.ImportFrom(module=str(module), names=names):
                imported = [module, *(f"{module}.{alias.name}" for alias in names)]
            case ast.Import(names=names):
                imported = [alias.name for alias in names]
            case ast.Constant(value=str(text)) if text.endswith(".toml"):
                files |= {file for file in [path.with_name(text)] if file.is_file()}
            case ast.BinOp(left=left) if node not in inner:
                while isinstance(left, ast.BinOp):
                    inner.add(left)
                    left = left.left
                if parts := literal_path(node):
                    files |= data_files(parts)
        for name in imported:
            if name.partition(".")[0] == "helpers":
                packages = itertools.accumulate(name.split("."), "{}.{}".format)
                files.update(*(module_files(package) for package in packages))
    return frozenset(files)


def dependencies(notebook):
    """The files, other than itself, from which a notebook's outputs follow."""
    course, subject = ROOT / "helpers" / "course", re.sub(r"^\d+_", "", notebook.stem)
    todo = {notebook, *course.glob(f"questions/{notebook.stem}.yaml")}
    todo.update(course.glob(f"checkers/{subject}.py"))
    found = {Path(__file__), ROOT / "constraints.txt"}
    while todo:
        file = todo.pop()
        found.add(file)
        todo |= named_files(file) - found
    return sorted(file for file in found - {notebook} if file.is_file())


def fingerprint(notebook, text):
    """What has to be the same for a notebook with this text to be up to date.

    A big file counts by its size.
    """
    digest = hashlib.sha256(text.encode())
    for file in dependencies(notebook):
        size = file.stat().st_size
        content = file.read_bytes() if size <= BIG else str(size).encode()
        digest.update(f"{file.relative_to(ROOT)} {len(content)} ".encode() + content)
    return digest.hexdigest()


def write(path, text):
    """Put `text` in the place of the file at once."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8", newline="\n")
    part.replace(path)


def difference(old, new):
    """Where two notebooks part: the first cell that differs."""
    for before, after in zip(old.cells, new.cells, strict=True):
        if before != after:
            return title(after)
    return "the notebook's metadata"


def every():
    """All notebooks: the lessons in their order, then the deeper ones."""
    return [*sorted(NOTEBOOKS.glob("*.ipynb")), *sorted(NOTEBOOKS.glob("deeper/*.ipynb"))]


def find(name):
    """The notebook of this name, with or without folder and suffix."""
    paths = {path.stem: path for path in every()}
    if (stem := Path(name).name.removesuffix(".ipynb")) not in paths:
        known = ", ".join(paths) or "none yet"
        raise SystemExit(f"There is no notebook {name!r} in {NOTEBOOKS.name}/ (there: {known}).")
    return paths[stem]


def refreshed(nb):
    """A copy of `nb` whose explorers run today's modules in the page."""
    nb = deepcopy(nb)
    for model in widget_models(nb).values():
        if "_anywidget_id" in (state := model["state"]):
            modules = state["spec"]["modules"]
            parts = {"_esm": ["explorer.js"], "_css": ["explorer.css"], "page": modules}
            for name, files in parts.items():
                texts = ((PAGE / file).read_text(encoding="utf-8") for file in files)
                state[name] = "\n".join(texts)
    return nb


def make(path, check, progress):
    """Make one notebook; its new text, and where it differs from the old ("" if nowhere)."""
    old = path.read_text(encoding="utf-8")
    try:
        nb = execute(loads(old), progress)
    except (CellControlSignal, DeadKernelError) as error:
        raise SystemExit(f"{path.name} is left as it was.\n{error}") from None
    if problems := list(faults(nb)):
        raise SystemExit("\n".join([f"{path.name} is left as it was.", *problems]))
    nbformat.validate(nb)
    new = dumps(nb)
    if new == old:
        return new, ""
    if not check:
        if path.read_text(encoding="utf-8") != old:
            raise SystemExit(f"{path.name} was edited while it ran: left as it is, run it again.")
        write(path, new)
    return new, difference(loads(old), loads(new))


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="notebooks, with or without .ipynb (default: all)")
    parser.add_argument("--force", action="store_true", help="execute what is up to date, too")
    parser.add_argument("--check", action="store_true", help="execute all, write nothing")
    options = parser.parse_args(arguments)

    paths = [find(name) for name in options.names] or every()
    state = NOTEBOOKS / STATE
    made = json.loads(state.read_text()) if state.exists() else {}
    if not options.check:
        for path in paths:
            text = path.read_text(encoding="utf-8")
            if (new := dumps(refreshed(loads(text)))) != text:
                current = made.get(path.name) == fingerprint(path, text)
                write(path, new)
                made[path.name] = fingerprint(path, new) if current else None
                write(state, json.dumps(made, indent=1, sort_keys=True) + "\n")
    texts = {path: path.read_text(encoding="utf-8") for path in paths}
    everything = options.force or options.check
    todo = [p for p in paths if everything or made.get(p.name) != fingerprint(p, texts[p])]
    changed = []
    cells = sum(len(loads(texts[path]).cells) for path in todo)
    with tqdm(total=cells, unit="cell", disable=None) as bar:
        for path in todo:
            bar.set_description(path.stem)
            text, where = make(path, options.check, bar.update)
            if where:
                changed.append(path)
                bar.write(f"{path.name} {'would change' if options.check else 'changed'}: {where}")
            if not options.check:
                made[path.name] = fingerprint(path, text)
                write(state, json.dumps(made, indent=1, sort_keys=True) + "\n")
    print(
        f"{len(todo)} executed, {len(changed)} {'would change' if options.check else 'changed'}, "
        f"{len(paths) - len(todo)} up to date already."
    )
    return int(options.check and bool(changed))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("Stopped. What is done is kept; start again to go on.", file=sys.stderr)
        sys.exit(130)
