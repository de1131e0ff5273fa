"""The server of `make lab` and of Binder: saving a notebook keeps the widgets it shows."""

import json
import re
from pathlib import Path

STATE = "application/vnd.jupyter.widget-state+json"
VIEW = "application/vnd.jupyter.widget-view+json"


def keep_widgets(model, path, contents_manager, **_):
    """Put back the state of widgets shown but not run again, which JupyterLab drops on saving."""
    file = Path(contents_manager.root_dir, path.strip("/"))
    if model["type"] != "notebook" or not file.exists():
        return
    before = json.loads(file.read_text(encoding="utf-8"))
    old, new = (nb["metadata"].get("widgets", {}).get(STATE) for nb in (before, model["content"]))
    if not old or not new:
        return
    models = old["state"] | new["state"]
    refers = {key: set(re.findall(r"IPY_MODEL_(\w+)", json.dumps(models[key]))) for key in models}
    outputs = [o for cell in model["content"]["cells"] for o in cell.get("outputs", [])]
    more = {o["data"][VIEW]["model_id"] for o in outputs if VIEW in o.get("data", {})}
    shown = set()
    while more:
        shown |= more
        more = set().union(*(refers.get(key, ()) for key in more)) - shown
    for key, ends in refers.items():  # nobody refers to a link: it stays if what it links does
        if {"source", "target"} <= models[key]["state"].keys() and ends <= shown:
            shown.add(key)
    new["state"] = {key: models[key] for key in models if key in shown}


c.ContentsManager.pre_save_hook = keep_widgets  # noqa: F821
