"""The server of `make lab` and of Binder: a saved notebook keeps the widgets that it shows.

JupyterLab saves no state of widgets unless told to; then, a notebook would count as changed
once it is opened, and whatever a reader has set in a widget would go into the file.
"""

import json
import re
from pathlib import Path

STATE = "application/vnd.jupyter.widget-state+json"
VIEW = "application/vnd.jupyter.widget-view+json"


def shows(cell):
    """The outputs of a cell that show a widget."""
    return [o["data"] for o in cell.get("outputs", []) if VIEW in o.get("data", {})]


def keep_widgets(model, path, contents_manager, **_):
    """Give what a cell shows after another run the state that it was stored with.

    A widget that was not stored leaves its text: JupyterLab would show an error in its place.
    """
    file = Path(contents_manager.root_dir, path.strip("/"))
    if model["type"] != "notebook" or not file.exists():
        return
    before, now = json.loads(file.read_text(encoding="utf-8")), model["content"]
    old, new = (nb["metadata"].get("widgets", {}).get(STATE) for nb in (before, now))
    if not old or not new:
        return
    models = old["state"] | new["state"]
    stored = {cell.get("id"): cell for cell in before["cells"]}
    for cell in now["cells"]:
        twin = stored.get(cell.get("id"), {})
        if "".join(cell["source"]) == "".join(twin.get("source", "")):
            for shown, was in zip(shows(cell), shows(twin), strict=False):
                if was[VIEW]["model_id"] in models:
                    models.setdefault(shown[VIEW]["model_id"], models[was[VIEW]["model_id"]])
        for data in shows(cell):
            if data[VIEW]["model_id"] not in models:
                del data[VIEW]
    refers = {key: set(re.findall(r"IPY_MODEL_(\w+)", json.dumps(models[key]))) for key in models}
    more = {data[VIEW]["model_id"] for cell in now["cells"] for data in shows(cell)}
    shown = set()
    while more:
        shown |= more
        more = set().union(*(refers.get(key, ()) for key in more)) - shown
    for key, ends in refers.items():  # nobody refers to a link: it stays if what it links does
        if {"source", "target"} <= models[key]["state"].keys() and ends <= shown:
            shown.add(key)
    new["state"] = {key: models[key] for key in models if key in shown}


c.ContentsManager.pre_save_hook = keep_widgets  # noqa: F821
