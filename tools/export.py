"""Export notebooks as single HTML pages that ask the network for nothing.

    python tools/export.py 01_two_backbones    writes build/01_two_backbones.html

In such a page the questions answer, and the explorers do all that they do without Python.
"""

import json
import sys
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
SHIM = ROOT / "site" / "shim.js"
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
MODULES = {"esm": "_esm", "css": "_css"}  # the same in every explorer

TEMPLATE = """
{%- extends "lab/index.html.j2" -%}
{%- block html_head_js -%}
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src data: 'unsafe-inline'; script-src blob: 'unsafe-inline'">
{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block data_widget_view scoped -%}
{%- if output.data["application/vnd.jupyter.widget-view+json"].model_id in resources.explorers -%}
<div data-explorer="{{ output.data["application/vnd.jupyter.widget-view+json"].model_id }}"></div>
{%- endif -%}
{%- endblock -%}
{%- block data_png -%}
<div class="jp-RenderedImage jp-OutputArea-output">
<img src="data:image/png;base64,{{ output.data["image/png"] }}"
  alt="{{ output.data["text/plain"] | escape_html_keep_quotes }}"></div>
{%- endblock -%}
{%- block body_footer -%}
{%- if resources.explorers -%}
<script type="application/json" id="explorers">{{ resources.data }}</script>
<script type="module">{{ resources.shim }}</script>
{%- endif -%}
{{ super() }}
{%- endblock -%}
{%- block footer -%}</html>{%- endblock -%}
"""


def explorers(nb) -> tuple[dict, dict]:
    """What all explorers of a notebook share, their modules, and each one's stored state by id."""
    states = nb.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {})
    models = {key: dict(one["state"]) for key, one in states.items() if "_esm" in one["state"]}
    modules = {}
    for state in models.values():
        modules = {name: state.pop(trait) for name, trait in MODULES.items()}
    return modules, models


def page(notebook: Path) -> str:
    """The notebook, outputs and explorers as they are stored, as one HTML page."""
    nb = nbformat.read(notebook, 4)
    modules, models = explorers(nb)
    data = json.dumps({"modules": modules, "models": models}).replace("</", "<\\/")
    shim = SHIM.read_text(encoding="utf-8")
    resources = {"metadata": {"name": notebook.stem}}
    resources |= {"explorers": list(models), "data": data, "shim": shim}
    return HTMLExporter(raw_template=TEMPLATE).from_notebook_node(nb, resources)[0]


if __name__ == "__main__":
    for name in sys.argv[1:]:
        source = next(NOTEBOOKS.rglob(f"{name}.ipynb"), None)
        target = ROOT / "build" / f"{name}.html"
        if source is None:
            raise SystemExit(f"There is no notebook {name!r} in {NOTEBOOKS.name}/.")
        target.parent.mkdir(exist_ok=True)
        target.write_text(page(source), encoding="utf-8")
        print(f"wrote {target.relative_to(ROOT)}")
